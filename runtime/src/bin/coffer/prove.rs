//! Commands of owners, to guests that prove themselves first.

pub mod attest;
pub mod guest;
pub mod inject_secret;
pub mod owner;
pub mod seal;
