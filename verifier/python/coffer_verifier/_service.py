"""A client of `coffer-verifier`, with nothing but the standard library.

Follows no redirect and uses no proxy, so that the key goes to the service and to nobody else; reads a bounded answer.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import ssl
import threading
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any as Whatever
from typing import Dict, Iterable, Mapping, Optional, Tuple, Union
from urllib.parse import urlsplit

from ._appraisal import Appraisal
from ._verify import ANY, Any, _all_bytes, _is_bytes

MAX_ANSWER = 8 << 20
# Heads, and what frames an answer, are bounded with it: `http.client` takes a chunk of a length below zero for all that ever comes.
MAX_READ = 2 * MAX_ANSWER


class ServiceError(Exception):
    """The service gave no appraisal.

    status: of HTTP; 0 where nobody answered. code: a stable word of the service's, or None. hint: what helps, or None.
    retry_after: seconds to wait, where it is only busy.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: Optional[str] = None,
        hint: Optional[str] = None,
        retry_after: Optional[int] = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.hint = hint
        self.retry_after = retry_after


@dataclass(frozen=True)
class Challenge:
    """A nonce of the service's: good once, at the replica that gave it, for `expires_in` seconds."""

    challenge: str
    report_data: bytes
    """The same 64 bytes: what the guest puts into REPORT_DATA."""
    expires_in: int


@dataclass(frozen=True)
class Nonce:
    """8 to 64 bytes of the caller's own: evidence must be made over them, and say so (`coffer/nonce/v1`)."""

    value: bytes


@dataclass(frozen=True)
class NotFetched:
    """A certificate or list that the service looked for and did not get: why, and what helps. The verdict was made without it."""

    item: Mapping[str, Whatever]
    message: str
    hint: Optional[str]
    retry_after: Optional[int]


@dataclass(frozen=True)
class Policy:
    """A policy of the service's."""

    id: str
    revision: str
    default: bool


@dataclass(frozen=True)
class Answer:
    """What the service said. True where the evidence was accepted."""

    policy: str
    revision: str
    appraisal: Appraisal
    token: Optional[str]
    """The signed result, where one was asked for; also of evidence that was not accepted. Not verified here."""
    request_nonce: Optional[str]
    not_fetched: Tuple[NotFetched, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.appraisal)


@dataclass(frozen=True)
class Question:
    """What a service is asked about evidence.

    report_data: a challenge of the service's, a `Nonce` or the 64 bytes of the caller's own, or ANY, which waives it.
    policy: one of `policies`; left out, the service's default. request_nonce: 8 to 64 bytes, repeated in answer and token.
    audience: a signed token is wanted, for this audience alone.
    """

    evidence: bytes
    report_data: Union[bytes, Any, Challenge, Nonce]
    policy: Optional[str] = None
    certificates: Iterable[bytes] = ()
    crls: Iterable[bytes] = ()
    cert_table: Optional[bytes] = None
    request_nonce: Optional[bytes] = None
    audience: Optional[str] = None
    lifetime_seconds: Optional[int] = None

    def asked(self) -> Dict[str, Whatever]:
        """As the service reads it."""
        _is_bytes("evidence", self.evidence)
        if self.cert_table is not None:
            _is_bytes("cert_table", self.cert_table)
        asked: Dict[str, Whatever] = {
            "evidence": _base64(self.evidence),
            "certificates": [_armour(one) for one in _all_bytes("certificates", self.certificates)],
            "crls": [_armour(one) for one in _all_bytes("crls", self.crls)],
        }
        if isinstance(self.report_data, Challenge):
            asked["challenge"] = self.report_data.challenge
        elif isinstance(self.report_data, Nonce):
            asked["nonce"] = _base64url(self.report_data.value)
        elif self.report_data is ANY:
            asked["report_data"] = "any"
        elif isinstance(self.report_data, (bytes, bytearray)):
            asked["report_data"] = self.report_data.hex()
        else:
            raise TypeError("report_data is a Challenge, a Nonce, 64 bytes, or ANY, which waives it")
        if self.policy is not None:
            asked["policy"] = self.policy
        if self.cert_table is not None:
            asked["cert_table"] = _base64(self.cert_table)
        if self.request_nonce is not None:
            asked["request_nonce"] = self._nonce()
        if self.audience is not None:
            asked["token"] = {"audience": self.audience}
            if self.lifetime_seconds is not None:
                asked["token"]["lifetime_seconds"] = self.lifetime_seconds
        elif self.lifetime_seconds is not None:
            raise ValueError("a lifetime is a token's: name its audience")
        return asked

    def answered(self, said: Whatever) -> Answer:
        """What the service said, if it is an answer to this."""
        try:
            named, appraisal = said["policy"], Appraisal.of_json(said["appraisal"])
            lacking = tuple(_not_fetched(one) for one in said["not_fetched"])
            answer = Answer(named["id"], named["revision"], appraisal, said["token"], said["request_nonce"], lacking)
        except (KeyError, TypeError, ValueError):
            raise _unreadable() from None
        if answer.request_nonce != self._nonce() or (self.policy is not None and answer.policy != self.policy):
            raise ServiceError("the answer is to another question: its nonce or its policy is not the one sent")
        if self.audience is not None and not isinstance(answer.token, str):
            raise ServiceError("a token was asked for, and the answer has none")
        return answer

    def _nonce(self) -> Optional[str]:
        return None if self.request_nonce is None else _base64url(self.request_nonce)


class Service:
    """A `coffer-verifier` at `url`, https, or http on this machine.

    api_key: who asks. context: which certificates are believed, and a client certificate where the service wants one;
    `ssl.create_default_context(cafile=…)` for a service with a certificate of its own. timeout: seconds until the connection is up, and
    from then on to the whole answer.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: Optional[str] = None,
        context: Optional[ssl.SSLContext] = None,
        timeout: float = 15.0,
    ) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError("the service's address is https://HOST[:PORT], with a port from 1 to 65535") from None
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("the service's address is https://HOST[:PORT]")
        if parts.username is not None or parts.path not in ("", "/"):
            raise ValueError("the service's address has no user and no path")
        if parts.scheme == "http" and not _is_here(parts.hostname):
            raise ValueError("http would show the key to everybody between; it is for this machine alone")
        self._host, self._plain = parts.hostname, parts.scheme == "http"
        self._port = port or (http.client.HTTP_PORT if self._plain else http.client.HTTPS_PORT)
        self._at = f"{parts.scheme}://{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"
        self._context = context if context is not None else ssl.create_default_context()
        self._timeout = timeout
        self._headers = {"Accept": "application/json"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def policies(self) -> Tuple[Policy, ...]:
        """Which policies there are."""
        said = self._ask("GET", "/v1/policies")
        try:
            all_of_them, default = said["policies"], said["default"]
            return tuple(Policy(one["id"], one["revision"], one["id"] == default) for one in all_of_them)
        except (KeyError, TypeError):
            raise _unreadable() from None

    def challenge(self) -> Challenge:
        """A nonce for one report."""
        said = self._ask("GET", "/v1/challenge")
        try:
            return Challenge(said["challenge"], bytes.fromhex(said["report_data"]), said["expires_in"])
        except (KeyError, TypeError, ValueError):
            raise _unreadable() from None

    def appraise(
        self,
        evidence: bytes,
        *,
        report_data: Union[bytes, Any, Challenge, Nonce],
        policy: Optional[str] = None,
        certificates: Iterable[bytes] = (),
        crls: Iterable[bytes] = (),
        cert_table: Optional[bytes] = None,
        request_nonce: Optional[bytes] = None,
        audience: Optional[str] = None,
        lifetime_seconds: Optional[int] = None,
    ) -> Answer:
        """Has the service judge evidence: see `Question` for the words."""
        question = Question(
            evidence, report_data, policy, certificates, crls, cert_table, request_nonce, audience, lifetime_seconds
        )
        return question.answered(self._ask("POST", "/v1/appraise", question.asked()))

    def appraise_all(self, questions: Iterable[Question]) -> Tuple[Union[Answer, ServiceError], ...]:
        """Has the service judge several, 64 at most, each for itself: an answer or an error for each, in their order.

        Raises where the batch as a whole got none: a service that could not judge all of it in time answers none (`slow`).
        """
        questions = tuple(questions)
        said = self._ask("POST", "/v1/appraise/batch", {"requests": [one.asked() for one in questions]})
        results = said.get("results")
        if not isinstance(results, list) or len(results) != len(questions):
            raise _unreadable()

        def one(question: Question, result: Whatever) -> Union[Answer, ServiceError]:
            if isinstance(result, dict) and "error" in result:
                return _refused(200, result, "")
            try:
                return question.answered(result)
            except ServiceError as error:
                return error

        return tuple(one(*pair) for pair in zip(questions, results))

    def _ask(self, method: str, path: str, body: Optional[Dict[str, Whatever]] = None) -> Dict[str, Whatever]:
        headers, sent = dict(self._headers), None
        if body is not None:
            headers["Content-Type"], sent = "application/json", json.dumps(body).encode()
        connection = http.client.HTTPConnection(self._host, self._port)
        line = None
        # A service that sends a byte now and then would never be late for one of them: the line is cut at the end of it all.
        over = threading.Event()
        try:
            line = socket.create_connection((self._host, self._port), self._timeout)
            if not self._plain:
                line = self._context.wrap_socket(line, server_hostname=self._host, do_handshake_on_connect=False)
            cut = threading.Timer(self._timeout, _cut, (line, over))
            cut.daemon = True
            cut.start()
            try:
                if isinstance(line, ssl.SSLSocket):
                    line.do_handshake()
                connection.sock = _Line(line)
                connection.request(method, path, sent, headers)
                response = connection.getresponse()
                read = response.read(MAX_ANSWER + 1)
                status, retry_after = response.status, response.headers.get("Retry-After", "")
            finally:
                cut.cancel()
            if over.is_set():
                raise OSError("the answer broke off")
        except (OSError, http.client.HTTPException) as error:
            why = f"not whole within {self._timeout:g} seconds" if over.is_set() else error
            raise ServiceError(f"{self._at} does not answer: {why}", hint=_hint(error)) from error
        finally:
            connection.close()
            if line is not None:
                line.close()
        if len(read) > MAX_ANSWER:
            raise ServiceError(f"an answer longer than {MAX_ANSWER} bytes is no answer", status=status)
        try:
            said = json.loads(read)
        except (ValueError, RecursionError):
            said = None
        if status == 200 and isinstance(said, dict):
            return said
        raise _refused(status, said, retry_after)


class _Bounded(io.RawIOBase):
    """What a line gives, up to so many bytes: more is an error."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._left = MAX_READ

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Whatever) -> int:
        if self._left <= 0:
            raise OSError(f"it says more than {MAX_READ} bytes")
        count = self._line.recv_into(memoryview(buffer)[: self._left])
        self._left -= count
        return count


class _Line:
    """A connection as `http.client` uses one."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self.sendall = line.sendall

    def close(self) -> None:
        """Where it lets go the answer is still to be read: whoever made the connection ends it."""

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Bounded(self._line))


def _cut(line: socket.socket, over: threading.Event) -> None:
    over.set()
    try:
        # Of the line below TLS, whoever waits on it.
        socket.socket.shutdown(line, socket.SHUT_RDWR)
    except OSError:
        pass  # it is gone already


def _refused(status: int, said: Whatever, retry_after: str) -> ServiceError:
    seconds = int(retry_after) if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 6 else None
    try:
        error = said["error"]
        message, code, hint = str(error["message"]), str(error["reason"]["code"]), error["hint"]
    except (KeyError, TypeError):
        what = "something that is no answer of coffer-verifier's" if status == 200 else f"status {status}"
        message, code, hint = f"the service answers with {what}", None, "check the address: a proxy may answer in its place"
    return ServiceError(message, status=status, code=code, hint=hint, retry_after=seconds)


def _not_fetched(said: Whatever) -> NotFetched:
    error = said["error"]
    return NotFetched(said["item"], str(error["message"]), error["hint"], said["retry_after"])


def _hint(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "context=ssl.create_default_context(cafile=…) names the certificate of a service that has one of its own"
    if isinstance(error, (ssl.SSLError, http.client.HTTPException)):
        return "what answers there is no coffer-verifier, or speaks http where the address says https (or the other way round)"
    return "is coffer-verifier serving there, and are host and port the ones it says at its start?"


def _unreadable() -> ServiceError:
    return ServiceError("the answer cannot be read: is this a coffer-verifier?", status=200)


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _armour(value: bytes) -> str:
    """PEM stays text; DER goes as base64."""
    if value.lstrip().startswith(b"-----BEGIN "):
        return value.decode("ascii", "replace")
    return _base64(value)
