"""Somebody else's readers of corim.rs's CoRIMs: Debian's cbor2 and cryptography, and pycddl, from PyPI. usage: corim.py CDDL CORIM [KEY.pub]"""
import hashlib
import json
import sys

import cbor2
import pycddl
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils


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
            sys.exit(f"{rule}: {str(error)[:500]}")

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


def main():
    cddl, corim, *pem = sys.argv[1:]
    with open(corim, "rb") as file:
        data = file.read()
    meta = None
    if pem:
        with open(pem[0], "rb") as file:
            header = grammar(cddl, "protected-corim-header-map")
            data, meta = signed(tagged(exact(data), 18), file.read(), header)
    grammar(cddl, "tagged-unsigned-corim-map")(data)
    body = tagged(exact(data), 501)
    tags = {}
    for tag in body[1]:
        comid = exact(tagged(tag, 506))
        classes = {}
        for environment, claims in comid[4][0]:
            [claim] = claims
            [[_, digest]] = claim[1][2]
            classes[tagged(environment[0][0], 111).hex()] = digest.hex()
        tags[comid[1][0]] = {"version": comid[1][1], "classes": classes}
    print(json.dumps({
        "id": body[0], "tags": tags, "from": seconds(body[4][0]), "until": seconds(body[4][1]),
        "signer": meta and meta[0][0],
    }))


main()
