#!/usr/bin/env python3
"""Writes kbs.db and root.key beside itself, as format 2 has them: recomputed from its description, by other libraries than ours."""
import hashlib, hmac, json, os, sqlite3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ROOT = bytes([7]) * 32
HERE = os.path.dirname(os.path.abspath(__file__))
lp = lambda fields: b"".join(len(f).to_bytes(4, "big") + f for f in fields)
u64 = lambda n: n.to_bytes(8, "big", signed=True)


def derive(key, salt, info):
    return HKDF(SHA256(), 32, salt, lp(info)).derive(key)


def mac(kind, fields):
    key = derive(ROOT, None, [b"coffer/kbs/row/" + kind + b"/v1"])
    return hmac.new(key, lp(fields), hashlib.sha256).digest()


def version(tenant, path, number, allowed, policy, value):
    salt, nonce = bytes([number]) * 32, bytes([number]) * 12
    key = derive(derive(ROOT, None, [b"coffer/kbs/tenant/v1", tenant]), salt, [b"coffer/kbs/secret-version/v1", path, u64(number)])
    aad = lp([b"coffer/kbs/at-rest/v1", tenant, path, u64(number), bytes([allowed]), policy])
    sealed = AESGCM(key).encrypt(nonce, value, aad)
    return (tenant.decode(), path.decode(), number, allowed, policy.decode(), 1000, salt, nonce, sealed)


SCHEMA = """
CREATE TABLE secret_heads (tenant TEXT NOT NULL, path TEXT NOT NULL, version INTEGER NOT NULL, deleted_unix INTEGER NOT NULL,
    mac BLOB NOT NULL, PRIMARY KEY (tenant, path)) STRICT;
CREATE TABLE secret_versions (tenant TEXT NOT NULL, path TEXT NOT NULL, version INTEGER NOT NULL, allow_simulated INTEGER NOT NULL,
    policy TEXT NOT NULL, created_unix INTEGER NOT NULL, salt BLOB NOT NULL, nonce BLOB NOT NULL, ciphertext BLOB NOT NULL,
    PRIMARY KEY (tenant, path, version)) STRICT;
CREATE TABLE reference_pairs (tenant TEXT NOT NULL, measurement BLOB NOT NULL, workload BLOB NOT NULL, name TEXT NOT NULL,
    expires_unix INTEGER NOT NULL, mac BLOB NOT NULL, PRIMARY KEY (tenant, measurement, workload)) STRICT;
CREATE TABLE audit_lines (sequence INTEGER PRIMARY KEY, line TEXT NOT NULL, mac BLOB NOT NULL) STRICT;
CREATE TABLE audit_head (only INTEGER PRIMARY KEY CHECK (only = 1), sequence INTEGER NOT NULL, hash BLOB NOT NULL, mac BLOB NOT NULL) STRICT;
CREATE TABLE signers (tenant TEXT NOT NULL, name TEXT NOT NULL, author_key BLOB NOT NULL, family_id BLOB NOT NULL, image_id BLOB NOT NULL,
    minimum_guest_svn INTEGER NOT NULL, expires_unix INTEGER NOT NULL, mac BLOB NOT NULL, PRIMARY KEY (tenant, name)) STRICT;
CREATE TABLE manifest_keys (tenant TEXT NOT NULL, spki_sha256 BLOB NOT NULL, name TEXT NOT NULL, public_key BLOB NOT NULL, mac BLOB NOT NULL,
    PRIMARY KEY (tenant, spki_sha256)) STRICT;
CREATE TABLE manifests (tenant TEXT NOT NULL, name TEXT NOT NULL, sequence INTEGER NOT NULL, revoked_through INTEGER NOT NULL,
    workload BLOB NOT NULL, envelope BLOB NOT NULL, added_unix INTEGER NOT NULL, mac BLOB NOT NULL, PRIMARY KEY (tenant, name)) STRICT;
CREATE INDEX manifests_by_workload ON manifests (tenant, workload);
"""

os.path.exists(f"{HERE}/kbs.db") and os.remove(f"{HERE}/kbs.db")
db = sqlite3.connect(f"{HERE}/kbs.db")
db.executescript(SCHEMA)
T, P, GONE = b"acme", b"kbs:///default/app/password", b"kbs:///default/app/gone"
for row in [version(T, P, 1, 0, b"default", b"old"), version(T, P, 2, 1, b"strict", b"current"), version(T, GONE, 1, 0, b"default", b"gone")]:
    db.execute("INSERT INTO secret_versions VALUES (?,?,?,?,?,?,?,?,?)", row)
for path, number, deleted in [(P, 2, 0), (GONE, 1, 1500)]:
    db.execute("INSERT INTO secret_heads VALUES (?,?,?,?,?)",
               (T.decode(), path.decode(), number, deleted, mac(b"secret-head", [T, path, u64(number), u64(deleted)])))
W = bytes([2]) * 32
for number, expires, forged in [(1, 0, False), (3, 4102444800, False), (5, 0, True)]:
    measurement, name = bytes([number]) * 48, f"web-{number}".encode()
    good = mac(b"reference", [T, measurement, W, name, u64(4102444800 if forged else expires)])
    db.execute("INSERT INTO reference_pairs VALUES (?,?,?,?,?,?)", (T.decode(), measurement, W, name.decode(), expires, good))
author, family, image = bytes([7]) * 48, bytes([8]) * 16, bytes([9]) * 16
db.execute("INSERT INTO signers VALUES (?,?,?,?,?,?,?,?)", (T.decode(), "releases", author, family, image, 4, 0,
           mac(b"signer", [T, b"releases", author, family, image, (4).to_bytes(4, "big"), u64(0)])))
key = ec.derive_private_key(int.from_bytes(bytes([0x30]) * 48, "big"), ec.SECP384R1()).public_key()
der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
db.execute("INSERT INTO manifest_keys VALUES (?,?,?,?,?)",
           (T.decode(), hashlib.sha256(der).digest(), "ci", der, mac(b"manifest-key", [T, b"ci", der])))
db.execute("INSERT INTO manifests VALUES (?,?,?,?,?,?,?,?)", (T.decode(), "web", 6, 5, W, b"{}", 1000,
           mac(b"manifest", [T, b"web", u64(6), u64(5), W, b"{}", u64(1000)])))
previous = bytes(32)
for n in (1, 2):
    line = json.dumps({"sequence": n, "time": "1970-01-01T00:16:40Z", "event": "test", "outcome": "done", "id": str(n), "previous": previous.hex()},
                      separators=(",", ":"))
    db.execute("INSERT INTO audit_lines VALUES (?,?,?)", (n, line, mac(b"audit-line", [u64(n), line.encode()])))
    previous = hashlib.sha256(line.encode()).digest()
db.execute("INSERT INTO audit_head VALUES (1,?,?,?)", (2, previous, mac(b"audit-head", [u64(2), previous])))
db.execute("PRAGMA user_version = 2")
db.commit()
db.close()
open(f"{HERE}/root.key", "w").write(ROOT.hex() + "\n")
