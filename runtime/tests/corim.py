"""Somebody else's readers of corim.rs's CoRIMs: Debian's cbor2 and cryptography, and pycddl, from PyPI. usage: corim.py CDDL CORIM [KEY.pub]"""
import hashlib
import json
import sys

import cbor2
import pycddl
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils


class Refused(Exception):
    pass


def exact(data):
    """Reads an item whose bytes are the one deterministic encoding of what they say."""
    value = cbor2.loads(data)
    assert cbor2.dumps(value, canonical=True, datetime_as_timestamp=True) == data, "not deterministic"
    return value


def tagged(value, tag):
    assert isinstance(value, cbor2.CBORTag) and value.tag == tag, (tag, value)
    return value.value


def grammar(cddl, rule):
    with open(cddl, encoding="utf-8") as file:
        schema = pycddl.Schema(f"start = {rule}\n{file.read()}")

    def validate(data):
        try:
            schema.validate_cbor(data)
        except pycddl.ValidationError as error:
            raise Refused(f"{rule}: {str(error)[:500]}") from error

    return validate


def signed(parts, pem, validate):
    protected, unprotected, payload, signature = parts
    assert len(signature) == 96, len(signature)
    validate(protected)
    key = serialization.load_pem_public_key(pem)
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    header = exact(protected)
    assert unprotected == {} and header[4] == hashlib.sha256(spki).digest(), header
    to_be_signed = cbor2.dumps(["Signature1", protected, b"", payload])
    r, s = int.from_bytes(signature[:48], "big"), int.from_bytes(signature[48:], "big")
    key.verify(utils.encode_dss_signature(r, s), to_be_signed, ec.ECDSA(hashes.SHA384()))
    return payload, exact(header[8])


def seconds(time):
    return int(time.timestamp()) if hasattr(time, "timestamp") else tagged(time, 1)


def read(data, pem, header, body, mid):
    meta = None
    if pem:
        data, meta = signed(tagged(exact(data), 18), pem, header)
    body(data)
    body = tagged(exact(data), 501)
    tags = {}
    for tag in body[1]:
        # pycddl passes over `.cbor` inside an array: each tag is held against its own rule.
        mid(tagged(tag, 506))
        comid = exact(tagged(tag, 506))
        classes = {}
        for environment, claims in comid[4][0]:
            [claim] = claims
            [[algorithm, digest]] = claim[1][2]
            # SHA-384, by the registry; pycddl takes other numbers here too.
            assert (algorithm, len(digest)) == (7, 48), algorithm
            assert claim[0] == 641, claim
            assert tagged(environment[0][0], 111).hex() not in classes, "a class twice"
            classes[tagged(environment[0][0], 111).hex()] = digest.hex()
        assert comid[1][0] not in tags, "a tag twice"
        tags[comid[1][0]] = {"version": comid[1][1], "classes": classes}
    return {
        "id": body[0], "tags": tags, "profile": tagged(body[3], 32), "from": seconds(body[4][0]), "until": seconds(body[4][1]),
        "signer": meta and {"name": meta[0][0], "from": seconds(meta[1][0]), "until": seconds(meta[1][1])},
    }


def bends(data, found, again):
    """Where a flipped bit changes nothing that is read: of the first and last bytes, which have every kind of item, all."""
    unseen = []
    for at in [*range(min(700, len(data))), *range(max(0, len(data) - 300), len(data))]:
        bent = bytearray(data)
        bent[at] ^= 1
        try:
            if again(bytes(bent)) == found:
                unseen.append(at)
        except (AssertionError, ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError,
                cbor2.CBORError, InvalidSignature, Refused):
            pass
    return unseen


def main():
    cddl, corim, *pem = sys.argv[1:]
    rules = [grammar(cddl, rule) for rule in ("protected-corim-header-map", "tagged-unsigned-corim-map", "concise-mid-tag")]
    with open(corim, "rb") as file:
        data = file.read()
    if pem:
        with open(pem[0], "rb") as file:
            pem = file.read()

    def again(data):
        return read(data, pem, *rules)

    try:
        found = again(data)
    except Refused as refusal:
        sys.exit(str(refusal))
    print(json.dumps({**found, "unseen": bends(data, found, again)}))


main()
