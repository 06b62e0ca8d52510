//! The trail of a home: what was done on this host, one JSON line an act, each with the digest of the line before it.
//!
//! Parts of bounded size, named by the number of their first line, and beside them the head: how many lines there are and the digest of
//! the last. A line that was changed, removed or moved breaks the chain; what was cut off at the end is missed by the head.
//! Trusts: the home's owner, who can write all of it anew. Never: holds a value of a secret, words of a program but its name.

mod head;
mod line;
mod parts;
mod read;
mod verify;
mod write;

pub use line::{Act, Line, LineBox, MENDED, Outcome};
pub use read::Lines;
pub use verify::{Broken, Checked, Mended, check};
pub use write::{Trail, TrailError};

/// What happens to a box: the acts that are no command's.
pub const OF_BOXES: [&str; 9] = [
    "box.create",
    "box.start",
    "box.health",
    "box.pause",
    "box.unpause",
    "box.die",
    "box.rename",
    "box.update",
    "box.destroy",
];

#[cfg(test)]
pub(crate) mod tests;
