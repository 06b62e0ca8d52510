//! OCI images: pull, store, merge layers, write EROFS.
