//! `coffer-demo`: the whole road from a base image to a released secret, a client that reaches it, an upgrade, and five attacks.
//!
//! Every step runs the real commands as an operator would; the attacks are what a hostile host would try. A step that does not
//! go as told ends the demo with a non-zero status and what was printed.

pub mod attack;
mod screen;
pub mod story;
mod upgrade;
mod web;

pub use story::tell;
