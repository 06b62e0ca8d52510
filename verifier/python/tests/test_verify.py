"""Judging in this process: as every other program of ours judges the same evidence, and never by default."""

import json
import threading
from datetime import datetime, timezone

import pytest
from conftest import NOW

from coffer_verifier import ANY, STRICT, Appraisal, NotAccepted, QuestionError, verify

NAMES = ("vcek.der", "vlek.der", "ask.der", "asvk.der", "ark.der")
ANY_GUEST = 'measurements = "any"'


def given(folder):
    certificates = [(folder / name).read_bytes() for name in NAMES if (folder / name).is_file()]
    crls = [(folder / "crl.der").read_bytes()] if (folder / "crl.der").is_file() else []
    return {"certificates": certificates, "crls": crls, "report_data": ANY, "at": NOW}


def test_every_vector_is_judged_as_the_command_judges_it(vectors, coffer):
    seen = set()
    folders = sorted(folder for folder in vectors.iterdir() if (folder / "report.bin").is_file())
    assert len(folders) > 10
    for folder in folders:
        for name, policy in (("hcl.bin", "strict"), ("report.bin", "strict"), ("report.bin", ANY_GUEST)):
            file = folder / name
            if not file.is_file():
                continue
            words = ["--json", "verify", str(file), "--certs", str(folder), "--at", "2026-09-20T00:00:00Z"]
            text = folder.name + policy
            if policy == "strict":
                words += ["--policy", "strict"]
            said = coffer(*words)
            command = json.loads(said.stdout)
            own = verify(file.read_bytes(), policy=policy, **given(folder))
            assert own.verdict == command["verdict"], text
            assert (own.claims, own.anchor, own.simulated) == tuple(
                command[key] for key in ("claims", "anchor", "simulated")
            ), text
            assert [vars(check) for check in own.checks] == command["checks"], text
            assert [vars(reason) for reason in own.reasons] == command["reasons"], text
            assert bool(own) == (said.returncode == 0), text
            seen.add(own.verdict)
    assert seen == {"accepted", "refused", "not-authentic"}


def test_a_bit_that_is_flipped_is_refused_and_its_claims_are_not_given(milan):
    report = bytearray((milan / "report.bin").read_bytes())
    report[0x90] ^= 1
    said = verify(bytes(report), policy=ANY_GUEST, **given(milan))
    assert (said.verdict, [reason.code for reason in said.reasons]) == ("not-authentic", ["signature"])
    assert not said and said.claims is None and said.simulated is None
    with pytest.raises(NotAccepted, match="not-authentic: signature: found") as raised:
        said.require()
    assert raised.value.appraisal is said


def test_what_is_refused_has_claims_and_gives_none_where_they_are_required(milan):
    said = verify((milan / "report.bin").read_bytes(), policy="strict", **given(milan))
    assert said.verdict == "refused" and said.claims is not None and not said
    with pytest.raises(NotAccepted):
        said.require()


def test_a_report_made_for_another_challenge_is_refused(milan):
    report = (milan / "report.bin").read_bytes()
    rest = given(milan)
    rest["report_data"] = report[0x50:0x90]
    said = verify(report, policy=ANY_GUEST, **rest)
    assert said.require()["report_data_binding"] == "demanded"
    rest["report_data"] = bytes(64)
    said = verify(report, policy=ANY_GUEST, **rest)
    assert (said.verdict, said.reasons[0].code) == ("not-authentic", "report-data")


def test_nothing_is_waived_by_leaving_it_out(milan):
    report, rest = (milan / "report.bin").read_bytes(), given(milan)
    for left_out in ("policy", "report_data"):
        said = {"policy": ANY_GUEST, **rest}
        del said[left_out]
        with pytest.raises(TypeError):
            verify(report, **said)
    for wrong in (None, "any", "", 0):
        with pytest.raises(TypeError):
            verify(report, policy=ANY_GUEST, **{**rest, "report_data": wrong})
    said = verify(report, policy=ANY_GUEST, **{**rest, "crls": []})
    assert [reason.code for reason in said.reasons] == ["endorsement-missing"]
    assert [one["kind"] for one in said.missing] == ["certificate revocation list"]
    said = verify(report, policy=ANY_GUEST, waive_revocation=True, **{**rest, "crls": []})
    assert said and any(check.outcome == "waived" for check in said.checks)
    with pytest.raises(TypeError):
        verify(report, policy=ANY_GUEST, waive_revocation="no", **rest)


def test_a_question_that_cannot_be_put_says_why_and_what_helps(milan):
    report, rest = (milan / "report.bin").read_bytes(), given(milan)
    for change, words in (
        ({"evidence": b"x"}, "a text, length 1, where a report"),
        ({"policy": "vmpls = [0]"}, "the policy cannot be read"),
        ({"report_data": b"short"}, "REPORT_DATA has 64 bytes, not 5"),
        ({"certificates": [b"x"]}, "a certificate cannot be read"),
        ({"crls": [b"-----BEGIN"]}, "a revocation list cannot be read"),
        ({"simulated_roots": [b"x"]}, "a simulator's root cannot be read"),
    ):
        with pytest.raises(QuestionError, match=words) as raised:
            verify(**{"evidence": report, "policy": ANY_GUEST, **rest, **change})
        assert raised.value.hint
    for wrong in ({"at": datetime(2026, 9, 20)}, {"certificates": b"one"}, {"evidence": "text"}, {"at": 1 << 70}):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            verify(**{"evidence": report, "policy": ANY_GUEST, **rest, **wrong})


def test_what_is_of_another_type_is_named_and_not_in_a_languages_words(milan):
    report, rest = (milan / "report.bin").read_bytes(), given(milan)
    for change, words in (
        ({"evidence": "text"}, "evidence is bytes, and not str"),
        ({"cert_table": "text"}, "cert_table is bytes, and not str"),
        ({"certificates": b"one"}, r"certificates is a list of bytes, and not bytes: \[one\]"),
        ({"crls": 1}, "crls is a list of bytes, and not int"),
        ({"certificates": [b"", "text"]}, r"certificates\[1\] is bytes, and not str"),
        ({"policy": b"strict"}, "policy is TOML in a str"),
        ({"at": "now"}, "at is a datetime, or whole seconds since 1970, and not str"),
        ({"at": 1 << 70}, "beyond what seconds since 1970"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            verify(**{"evidence": report, "policy": ANY_GUEST, **rest, **change})


def test_time_is_an_argument(milan):
    report, rest = (milan / "report.bin").read_bytes(), given(milan)
    rest["at"] = datetime.fromtimestamp(NOW, timezone.utc)
    assert verify(report, policy=ANY_GUEST, **rest)
    for at in (0, 1 << 40):
        said = verify(report, policy=ANY_GUEST, **{**rest, "at": at})
        assert said.verdict == "not-authentic" and said.reasons[0].code.endswith("-dates")


def test_a_simulator_is_believed_where_it_is_listed_and_the_result_says_so(simulated):
    policy, record = (simulated / "policy.toml").read_text(), (simulated / "evidence.cmw").read_bytes()
    root = (simulated / "ark.pem" if (simulated / "ark.pem").exists() else simulated / "ark.der").read_bytes()
    said = verify(record, policy=policy, report_data=ANY)
    assert [reason.code for reason in said.reasons] == ["untrusted-root"]
    said = verify(record, policy=policy, report_data=ANY, simulated_roots=[root])
    assert said.require() and said.simulated is True


def test_threads_judge_at_once(milan):
    report, rest, said = (milan / "report.bin").read_bytes(), given(milan), []
    threads = [
        threading.Thread(target=lambda: said.append(verify(report, policy=ANY_GUEST, **rest).verdict)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == ["accepted"] * 8


def test_what_is_no_appraisal_is_none():
    whole = {
        "verdict": "accepted", "simulated": False, "anchor": {}, "workload_digest": None, "claims": {}, "missing": [],
        "reasons": [], "checks": [],
    }  # fmt: skip
    assert Appraisal.of_json(whole)
    reason = {"code": "debug", "found": "a", "expected": "b", "hint": "c"}
    for change in ({"verdict": "yes"}, {"verdict": True}, {"reasons": [reason]}, {"verdict": "refused"}, {"checks": 1}):
        with pytest.raises(ValueError):
            Appraisal.of_json({**whole, **change})
    for key in whole:
        with pytest.raises(ValueError):
            Appraisal.of_json({name: value for name, value in whole.items() if name != key})


def test_the_built_in_policy_is_a_text_to_begin_with(milan):
    report, rest = (milan / "report.bin").read_bytes(), given(milan)
    assert verify(report, policy=STRICT, **rest) == verify(report, policy="strict", **rest)
