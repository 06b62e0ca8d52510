//! A software AMD secure processor with a root of its own; no I/O.
