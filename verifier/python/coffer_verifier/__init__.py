"""Decides whether SEV-SNP evidence is authentic and acceptable.

`verify` decides in this process, offline, by the same core as Coffer's other programs. `Service` asks a `coffer-verifier`.
An `Appraisal` is true where the evidence was accepted, and false otherwise.
"""

from ._appraisal import Appraisal, Check, NotAccepted, Reason
from ._native import STRICT
from ._native import VERSION as __version__
from ._service import Answer, Challenge, Nonce, NotFetched, Policy, Question, Service, ServiceError
from ._verify import ANY, Any, QuestionError, verify

__all__ = [
    "ANY",
    "Answer",
    "Any",
    "Appraisal",
    "Challenge",
    "Check",
    "Nonce",
    "NotAccepted",
    "NotFetched",
    "Policy",
    "Question",
    "QuestionError",
    "Reason",
    "STRICT",
    "Service",
    "ServiceError",
    "__version__",
    "verify",
]
