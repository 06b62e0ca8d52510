#!/usr/bin/env python3
"""Recomputes the vectors of docs/sealing.md with nothing but HMAC-SHA256: `sealing-key.py docs/sealing.md`.

The table under "Vectors" has policy, scope, context, subject and key. Root and anchor are the same in every row.
"""

import hashlib
import hmac
import struct
import sys

LABEL = b"coffer/kbs/sealing-key/v1"
ROOT = bytes(range(0x00, 0x20))
ANCHOR = bytes(range(0x20, 0x40))


def lp(*fields):
    return b"".join(struct.pack(">I", len(field)) + field for field in fields)


def hkdf_sha256(key, info):
    extracted = hmac.new(bytes(32), key, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def sealing_key(policy, scope, context, subject):
    info = lp(LABEL, ANCHOR, policy.encode(), subject, scope.encode(), context.encode())
    return hkdf_sha256(ROOT, info)


def rows(page):
    for line in page.split("### Vectors", 1)[1].splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 5:
            yield cells


checked = 0
for policy, scope, context, subject, key in rows(open(sys.argv[1]).read()):
    found = sealing_key(policy, scope, context, bytes.fromhex(subject)).hex()
    if found != key:
        sys.exit(f"{policy} {scope} {context}: found {found}, the page says {key}")
    checked += 1
print(f"{checked} vectors hold")
