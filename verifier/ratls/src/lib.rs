//! RA-TLS: TLS 1.3 with evidence bound to the connection, and HPKE to the attested key.
