//! End-to-end harness and stories; sees every crate, seen by none.
