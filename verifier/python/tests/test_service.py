"""A client of the service: against the service itself, and against servers that are none."""

import base64
import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from coffer_verifier import ANY, Nonce, Question, Service, ServiceError


@pytest.fixture(scope="module")
def service(coffer, simulated, tmp_path_factory):
    """A service with a policy that believes the simulator, and who may ask it."""
    folder = tmp_path_factory.mktemp("service")
    state, ready = folder / "state", folder / "ready"
    program = os.environ["COFFER_VERIFIER"]
    made = subprocess.run(
        [program, "--json", "init", "--state", state, "--issuer", "https://verifier.example"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    anchors = json.loads(coffer("--json", "sim", "init").stdout)["anchors"]
    roots = [anchor["spki_sha256"] for anchor in anchors]
    with open(state / "config.toml", "a") as config:
        config.write(f'\n[policies.lab]\nfloor = "vmpl-and-debug-alone"\nsimulated_evidence_is_believed_of = {json.dumps(roots)}\n')
    with open(folder / "log", "w") as log:
        serving = subprocess.Popen(
            [program, "serve", "--state", state, "--listen", "127.0.0.1:0", "--ready-file", ready],
            stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
    try:
        serving.stdout.readline()  # it says that it is ready
        address = json.loads(ready.read_text())["listen"]
        context = ssl.create_default_context(cafile=state / "tls.pem")
        yield f"https://{address}", json.loads(made.stdout)["api_key"], context
    finally:
        serving.send_signal(signal.SIGTERM)
        serving.wait(30)


def client(service, **other):
    url, key, context = service
    return Service(url, **{"api_key": key, "context": context, **other})


def test_a_challenge_is_answered_with_fresh_evidence_and_a_token(service, coffer, tmp_path):
    asked = client(service)
    assert {policy.id: policy.default for policy in asked.policies()} == {"lab": False, "strict": True}
    challenge = asked.challenge()
    fresh = tmp_path / "fresh"
    made = coffer("sim", "evidence", "--out", str(fresh), "--report-data", challenge.report_data.hex())
    assert made.returncode == 0, made.stderr
    evidence = (fresh / "evidence.cmw").read_bytes()
    words = {"report_data": challenge, "policy": "lab", "audience": "https://bank.example", "request_nonce": b"12345678"}
    answer = asked.appraise(evidence, **words)
    assert answer and answer.policy == "lab" and answer.appraisal.claims["report_data_binding"] == "demanded"
    payload = json.loads(base64.urlsafe_b64decode(answer.token.split(".")[1] + "=="))
    assert payload["aud"] == "https://bank.example" and payload["iss"] == "https://verifier.example"
    with pytest.raises(ServiceError) as raised:
        asked.appraise(evidence, **words)
    assert (raised.value.status, raised.value.code) == (409, "challenge-spent")
    assert raised.value.hint


def test_evidence_is_judged_by_the_policy_that_is_named(service, simulated):
    evidence = (simulated / "evidence.cmw").read_bytes()
    asked = client(service)
    assert asked.appraise(evidence, report_data=ANY, policy="lab", lifetime_seconds=None)
    refused = asked.appraise(evidence, report_data=ANY)
    assert not refused and refused.policy == "strict" and refused.appraisal.verdict == "not-authentic"
    other = asked.appraise(evidence, report_data=bytes(64), policy="lab")
    assert [reason.code for reason in other.appraisal.reasons] == ["report-data"]


def test_evidence_over_a_nonce_of_the_callers_is_believed_for_that_nonce_alone(service, coffer, simulated, tmp_path):
    folder = tmp_path / "over"
    nonce = bytes(range(32))
    # docs/ra-tls.md, "For somebody who is not on the connection"; HOST_DATA is SNP ABI 1.58, Table 23.
    host_data = (simulated / "report.bin").read_bytes()[0xC0:0xE0]
    fields = (b"coffer/nonce/v1", host_data, nonce)
    bound = hashlib.sha512(b"".join(len(field).to_bytes(4, "big") + field for field in fields)).hexdigest()
    made = coffer("sim", "evidence", "--out", str(folder), "--report-data", bound)
    assert made.returncode == 0, made.stderr
    evidence = (folder / "evidence.cmw").read_bytes()
    asked = client(service)
    answer = asked.appraise(evidence, report_data=Nonce(nonce), policy="lab")
    assert answer, answer.appraisal.why
    assert answer.not_fetched == ()
    other = asked.appraise(evidence, report_data=Nonce(nonce[1:]), policy="lab")
    assert [reason.code for reason in other.appraisal.reasons] == ["report-data"]
    with pytest.raises(ServiceError, match="nonce") as raised:
        asked.appraise(evidence, report_data=Nonce(b"short"))
    assert raised.value.status == 400


def test_several_are_judged_at_once_each_for_itself(service, simulated):
    evidence = (simulated / "evidence.cmw").read_bytes()
    asked = client(service)
    good = Question(evidence, ANY, policy="lab", request_nonce=b"12345678")
    accepted, broken, refused = asked.appraise_all([good, Question(b"x", ANY), Question(evidence, ANY)])
    assert accepted and accepted.policy == "lab" and accepted.request_nonce == "MTIzNDU2Nzg"
    assert isinstance(broken, ServiceError) and broken.code == "malformed-evidence" and broken.hint
    assert not refused and refused.appraisal.verdict == "not-authentic"
    for batch in ([], [good] * 65):
        with pytest.raises(ServiceError) as raised:
            asked.appraise_all(batch)
        assert (raised.value.status, raised.value.code) == (400, "malformed-request")


def test_genuine_evidence_with_certificates_beside_it_is_answered_with_reasons(service, milan):
    report = (milan / "report.bin").read_bytes()
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode((milan / "vcek.der").read_bytes()) + b"\n-----END CERTIFICATE-----\n"
    answer = client(service).appraise(report, report_data=ANY, certificates=[pem], crls=[(milan / "crl.der").read_bytes()])
    assert answer.appraisal.verdict in ("refused", "not-authentic") and answer.appraisal.reasons


def test_who_may_not_ask_and_what_is_no_question_is_said(service, simulated):
    evidence = (simulated / "evidence.cmw").read_bytes()
    for key in (None, "coffer-verifier-" + "0" * 64):
        with pytest.raises(ServiceError) as raised:
            client(service, api_key=key).policies()
        assert (raised.value.status, raised.value.code) == (401, "unauthenticated")
    for words, code in (
        ({"evidence": b"x"}, "malformed-evidence"),
        ({"policy": "none"}, "unknown-policy"),
        ({"certificates": [b"x"]}, "malformed-endorsement"),
        ({"report_data": b"x"}, "malformed-request"),
    ):
        with pytest.raises(ServiceError) as raised:
            client(service).appraise(**{"evidence": evidence, "report_data": ANY, **words})
        assert (raised.value.status, raised.value.code) == (400, code)
    with pytest.raises(TypeError):
        client(service).appraise(evidence, report_data="any")
    with pytest.raises(ValueError):
        client(service).appraise(evidence, report_data=ANY, lifetime_seconds=5)


def test_a_service_whose_certificate_is_not_believed_gets_no_key(service):
    url, key, _ = service
    with pytest.raises(ServiceError, match=f"{url} does not answer.*CERTIFICATE_VERIFY_FAILED") as raised:
        Service(url, api_key=key).policies()
    assert "cafile" in raised.value.hint


def test_addresses_that_would_show_the_key_are_refused():
    for url in ("http://verifier.example", "ftp://127.0.0.1", "https://", "https://a@b", "https://h/x", "https://h?x"):
        with pytest.raises(ValueError):
            Service(url, api_key="k")
    Service("http://127.0.0.1:1"), Service("http://[::1]"), Service("http://localhost:1")


class Impostor(BaseHTTPRequestHandler):
    """Answers what it is told to, and notes what it was sent."""

    answer = (200, {}, b"")
    seen = []

    def do_GET(self):
        Impostor.seen.append((self.path, self.headers.get("Authorization")))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, headers, body = Impostor.answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            pass  # who had enough hangs up

    do_POST = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def impostor():
    server = HTTPServer(("127.0.0.1", 0), Impostor)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Service(f"http://127.0.0.1:{server.server_port}", api_key="k"), server.server_port
    server.shutdown()
    server.server_close()


def test_answers_that_are_none_are_errors_and_never_consent(impostor):
    asked, _ = impostor
    appraisal = {
        "verdict": "accepted", "simulated": False, "anchor": {}, "workload_digest": None, "claims": {}, "missing": [],
        "reasons": [], "checks": [],
    }  # fmt: skip
    lacking = {"item": {"kind": "vcek"}, "error": {"class": "not-found", "message": "none", "hint": "h"}, "retry_after": None}
    whole = {
        "policy": {"id": "strict", "revision": "r"}, "appraisal": appraisal, "not_fetched": [lacking], "request_nonce": None,
        "token": None,
    }  # fmt: skip

    def appraise(answer, status=200, headers=None, **words):
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        Impostor.answer = (status, headers or {}, body)
        return asked.appraise(b"x", report_data=ANY, **words)

    said = appraise(whole, policy="strict")
    assert said and [(one.item["kind"], one.message, one.hint) for one in said.not_fetched] == [("vcek", "none", "h")]
    for answer in (b"", b"{", b"[]", b"null", b"true", {}, {"appraisal": appraisal}, {**whole, "appraisal": None}):
        with pytest.raises(ServiceError):
            appraise(answer)
    for change, words in (
        ({"policy": {"id": "lab", "revision": "r"}}, {"policy": "strict"}),
        ({"request_nonce": "AAAAAAAAAAA"}, {}),
        ({}, {"request_nonce": b"12345678"}),
        ({}, {"audience": "a"}),
        ({"appraisal": {**appraisal, "verdict": "refused"}}, {}),
        ({"not_fetched": [{}]}, {}),
        ({"not_fetched": 7}, {}),
    ):
        with pytest.raises(ServiceError):
            appraise({**whole, **change}, **words)
    for status in (201, 204, 301, 400, 500):
        with pytest.raises(ServiceError) as raised:
            appraise(whole if status != 204 else b"", status=status)
        assert raised.value.status == status
    for results in (None, [], [whole, whole]):
        Impostor.answer = (200, {}, json.dumps({"results": results}).encode())
        with pytest.raises(ServiceError):
            asked.appraise_all([Question(b"x", ANY)])
    Impostor.answer = (200, {}, json.dumps({"results": [{**whole, "request_nonce": "AAAAAAAAAAA"}]}).encode())
    assert isinstance(asked.appraise_all([Question(b"x", ANY)])[0], ServiceError)
    busy = {"error": {"class": "peer", "message": "busy", "hint": None, "reason": {"code": "busy"}}}
    with pytest.raises(ServiceError, match="busy") as raised:
        appraise(busy, status=503, headers={"Retry-After": "2"})
    assert (raised.value.code, raised.value.retry_after) == ("busy", 2)
    with pytest.raises(ServiceError):
        appraise(b" " * ((8 << 20) + 1))
    # Deeper than Python's own parser goes.
    with pytest.raises(ServiceError, match="cannot be read|no answer of coffer-verifier"):
        appraise(b"[" * (1 << 20))


@pytest.mark.parametrize("length", (b"-1", b"7fffffffffffffff"))
def test_no_more_is_read_than_an_answer_may_have_whatever_its_chunks_say(length):
    sent = []

    def serve(listener):
        line, _ = listener.accept()
        with line:
            line.recv(1 << 16)
            line.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + length + b"\r\n")
            try:
                while len(sent) < 512:  # MiB
                    line.sendall(bytes(1 << 20))
                    sent.append(None)
            except OSError:
                pass  # it hung up

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve, args=(listener,))
        serving.start()
        with pytest.raises(ServiceError):
            Service(f"http://127.0.0.1:{listener.getsockname()[1]}").policies()
        serving.join()
    assert len(sent) < 64


def test_a_redirect_is_not_followed_and_a_proxy_not_asked(impostor, monkeypatch):
    asked, port = impostor
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    Impostor.seen.clear()
    Impostor.answer = (307, {"Location": f"http://127.0.0.1:{port}/elsewhere"}, b"")
    with pytest.raises(ServiceError) as raised:
        asked.policies()
    assert raised.value.status == 307
    assert Impostor.seen == [("/v1/policies", "Bearer k")]


def test_nobody_there_is_said():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(ServiceError, match="does not answer") as raised:
            Service(f"http://127.0.0.1:{held.getsockname()[1]}").policies()
    assert raised.value.status == 0


@pytest.mark.parametrize("tls", (False, True))
@pytest.mark.parametrize("drip", (b"", b"H", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n "))
def test_a_server_that_says_nothing_or_a_byte_now_and_then_is_given_up(tls, drip):
    held = []

    first = b"\x16\x03\x03\x40\x00" if tls and drip else drip

    def serve(listener):
        line, _ = listener.accept()
        held.append(line)
        try:
            line.sendall(first)
            while first and not over.wait(0.05):
                line.sendall(first[-1:])
        except OSError:
            pass  # it was given up, as it should be

    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        url = f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ServiceError, match="does not answer"):
            Service(url, timeout=0.5).policies()
        over.set()
        thread.join(60)
        assert not thread.is_alive()
        for line in held:
            line.close()
