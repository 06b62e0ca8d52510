"""Judging in this process."""

from __future__ import annotations

import json
import time
from datetime import datetime
from enum import Enum
from typing import Iterable, List, Optional, Union

from . import _native
from ._appraisal import Appraisal


class Any(Enum):
    """The type of `ANY`."""

    ANY = "any"


ANY = Any.ANY
"""Waives REPORT_DATA: the report may be old, and made for anybody."""


class QuestionError(ValueError):
    """A question that cannot be put; `hint` says what helps. It says nothing about the evidence."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def verify(
    evidence: bytes,
    *,
    policy: str,
    report_data: Union[bytes, Any],
    certificates: Iterable[bytes] = (),
    crls: Iterable[bytes] = (),
    cert_table: Optional[bytes] = None,
    waive_revocation: bool = False,
    simulated_roots: Iterable[bytes] = (),
    at: Union[datetime, int, None] = None,
) -> Appraisal:
    """Decides about evidence, offline.

    evidence: a report of 1184 bytes, an Azure HCL blob, a CMW record or a TSM report.
    policy: TOML, or the word `strict`. report_data: the 64 bytes REPORT_DATA must hold, or ANY, which waives it.
    certificates, crls: DER or PEM, beside those in the evidence; AMD's ARK, ASK and ASVK are known.
    cert_table: the certificate table that a host gave with a bare report.
    waive_revocation: the result says so. simulated_roots: certificates of simulators that are believed too.
    at: decide as of this time; a datetime has a time zone, a number is seconds since 1970. Left out, it is now.

    Evidence that is refused, or not authentic, is an answer. Raises QuestionError where there is no question.
    """
    if report_data is not ANY and not isinstance(report_data, (bytes, bytearray)):
        raise TypeError("report_data is 64 bytes, or ANY, which waives it")
    if not isinstance(waive_revocation, bool):
        raise TypeError("waive_revocation is a bool")
    _is_bytes("evidence", evidence)
    if cert_table is not None:
        _is_bytes("cert_table", cert_table)
    if not isinstance(policy, str):
        raise TypeError(f"policy is TOML in a str, or the word strict, and not {_kind(policy)}")
    try:
        text = _native.judge(
            evidence,
            cert_table=cert_table,
            certificates=_all_bytes("certificates", certificates),
            crls=_all_bytes("crls", crls),
            policy=policy,
            report_data=None if report_data is ANY else bytes(report_data),
            waive_revocation=waive_revocation,
            simulated_roots=_all_bytes("simulated_roots", simulated_roots),
            now=_seconds(at),
        )
    except ValueError as error:
        if len(error.args) == 2:
            raise QuestionError(*error.args) from None
        raise
    return Appraisal.of_json(json.loads(text))


def _seconds(at: Union[datetime, int, None]) -> int:
    if at is None:
        return int(time.time())
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise ValueError("a datetime without a time zone is no point in time")
        return int(at.timestamp())
    if isinstance(at, bool) or not isinstance(at, int):
        raise TypeError(f"at is a datetime, or whole seconds since 1970, and not {_kind(at)}")
    if not -(1 << 63) <= at < 1 << 63:
        raise ValueError("at is beyond what seconds since 1970 are counted to")
    return at


def _kind(value: object) -> str:
    return type(value).__name__


def _is_bytes(name: str, value: object) -> None:
    if not isinstance(value, (bytes, bytearray)):
        raise TypeError(f"{name} is bytes, and not {_kind(value)}")


def _all_bytes(name: str, values: Iterable[bytes]) -> List[bytes]:
    if isinstance(values, (bytes, bytearray, str)):
        raise TypeError(f"{name} is a list of bytes, and not {_kind(values)}: [one] is a list of one")
    try:
        listed = list(values)
    except TypeError:
        raise TypeError(f"{name} is a list of bytes, and not {_kind(values)}") from None
    for at, value in enumerate(listed):
        _is_bytes(f"{name}[{at}]", value)
    return listed
