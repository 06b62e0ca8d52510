//! The sealed format: versioned header, HKDF, AES-256-GCM in chunks.
