//! What touches pointers of C.

pub mod abi;
