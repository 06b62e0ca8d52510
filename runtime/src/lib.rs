//! coffer: runs OCI images in attested microVMs.
