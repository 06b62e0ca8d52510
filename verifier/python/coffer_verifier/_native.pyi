from typing import Optional, Sequence

STRICT: str
VERSION: str

def judge(
    evidence: bytes,
    *,
    cert_table: Optional[bytes],
    certificates: Sequence[bytes],
    crls: Sequence[bytes],
    policy: str,
    report_data: Optional[bytes],
    waive_revocation: bool,
    simulated_roots: Sequence[bytes],
    now: int,
) -> str: ...
