"""What the judge said, in the form that `coffer verify --json` has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Tuple

ACCEPTED = "accepted"
VERDICTS = (ACCEPTED, "refused", "not-authentic")


@dataclass(frozen=True)
class Reason:
    """One reason against evidence: a stable code, what was found, what was expected, and what helps."""

    code: str
    found: str
    expected: str
    hint: str

    def __str__(self) -> str:
        return f"{self.code}: found {self.found}, expected {self.expected}"


@dataclass(frozen=True)
class Check:
    """One check as it was made: `outcome` is passed, failed, waived or not-run."""

    code: str
    outcome: str
    found: str
    expected: str
    hint: str


class NotAccepted(Exception):
    """Evidence was refused, or is not authentic."""

    def __init__(self, appraisal: Appraisal) -> None:
        super().__init__(f"{appraisal.verdict}: {appraisal.why}")
        self.appraisal = appraisal


@dataclass(frozen=True)
class Appraisal:
    """The verdict, and why. True where it is `accepted`, so that it can stand in an `if`."""

    verdict: str
    simulated: Optional[bool]
    """True where it rests on a simulator's root; None unless the evidence is authentic."""
    anchor: Optional[Dict[str, Any]]
    workload_digest: Optional[str]
    claims: Optional[Dict[str, Any]]
    """What the evidence says, None unless it is authentic. It is no consent: look at the verdict."""
    missing: Tuple[Dict[str, Any], ...]
    reasons: Tuple[Reason, ...]
    checks: Tuple[Check, ...]

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> Appraisal:
        """From the JSON object. Raises ValueError of what is none."""
        try:
            verdict = value["verdict"]
            reasons = tuple(Reason(**reason) for reason in value["reasons"])
            checks = tuple(Check(**check) for check in value["checks"])
            rest = {name: value[name] for name in ("simulated", "anchor", "workload_digest", "claims")}
            missing = tuple(value["missing"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no appraisal: {error!r}") from None
        if verdict not in VERDICTS or (verdict == ACCEPTED) != (not reasons):
            raise ValueError("this is no appraisal: verdict and reasons do not fit")
        return cls(verdict=verdict, reasons=reasons, checks=checks, missing=missing, **rest)

    @property
    def accepted(self) -> bool:
        """Authentic, and acceptable to the policy."""
        return self.verdict == ACCEPTED

    @property
    def why(self) -> str:
        """Every reason against it, in one line; empty where it was accepted."""
        return "; ".join(str(reason) for reason in self.reasons)

    def __bool__(self) -> bool:
        return self.accepted

    def require(self) -> Dict[str, Any]:
        """The claims of accepted evidence. Raises NotAccepted of any other."""
        if not self.accepted or self.claims is None:
            raise NotAccepted(self)
        return self.claims
