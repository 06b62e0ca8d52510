//! Rego policies and the engine that runs them, without I/O and within limits.
