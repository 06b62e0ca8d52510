"""A relying party: whether a token lets the guest on the other end of a connection in.

It has made a challenge of its own, which the guest put into its report, and sees the guest's key in TLS. The JOSE library is jwcrypto;
nothing of Coffer is needed. `admit` raises Refused; what it returns are the claims.
"""
import argparse
import json
import sys
import time

from jwcrypto import jwk, jws
from jwcrypto.common import JWException

SKEW = 60
DAY = 86400


# What these claims mean is said by this profile, and by no other.
PROFILE = "tag:github.com,2023:veraison/ear"
# Of these a verifier always says something.
ALWAYS_SAID = {"configuration", "executables", "hardware", "runtime-opaque"}


class Refused(Exception):
    pass


def once(pairs):
    """A key that stands twice would be one thing here and another elsewhere."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise Refused("malformed: a key stands twice")
    return value


def tier(value):
    """Of one claim, AR4SI section 2.3.2: 0 none, 2 affirming, 32 warning, 96 contraindicated."""
    if type(value) is not int or not -128 <= value <= 127:
        raise Refused(f"malformed: {value!r} is no value of a trustworthiness claim")
    return 0 if -1 <= value <= 1 else 2 if -32 <= value < 32 else 32 if -96 <= value < 96 else 96


def admit(token, keys, *, issuer, audience, challenge, peer, now, simulated_too=False):
    """keys: the issuer's JWKSet. challenge: base64url, as it was sent. peer: the JWK of the TLS connection."""
    try:
        if token.count(".") != 2:
            raise Refused("malformed: not one compact token")
        signed = jws.JWS()
        signed.allowed_algs = ["ES384"]
        signed.deserialize(token)
        header = signed.jose_header
        if set(header) != {"alg", "kid", "typ"} or header["typ"] != "eat+jwt":
            raise Refused("header: not that of such a token")
        key = keys.get_key(header["kid"])
        if key is None:
            raise Refused("signature: by no key of the issuer")
        signed.verify(key)
        claims = json.loads(signed.payload, object_pairs_hook=once)
        if claims["eat_profile"] != PROFILE:
            raise Refused(f"malformed: a token of profile {claims['eat_profile']!r}")
        if set(claims["submods"]) != {"cpu0"}:
            raise Refused("malformed: not one guest alone")
        guest = claims["submods"]["cpu0"]
        # Every one of them has to be there: a claim that is missing raises KeyError.
        if claims["iss"] != issuer:
            raise Refused(f"issuer: {claims['iss']!r}")
        if claims["aud"] != audience:
            raise Refused(f"audience: {claims['aud']!r}")
        begins = max(claims["iat"], claims.get("nbf", claims["iat"]))
        if not begins - SKEW <= now < claims["exp"] + SKEW or claims["exp"] - claims["iat"] > DAY:
            raise Refused(f"expired: from {claims['iat']} to {claims['exp']}, now {now}")
        if claims["simulated"] is not False and not simulated_too:
            raise Refused("simulated: no AMD processor made this")
        # A simulator's evidence never has a good status, whatever was accepted of it.
        vector = guest["ear.trustworthiness-vector"]
        if any(tier(vector.get(name, 0)) == 0 for name in ALWAYS_SAID):
            raise Refused("malformed: a vector that does not say what each does")
        # What is bad about a simulator's may be that it is no hardware (97), and nothing else.
        no_hardware = {("hardware", 97), ("runtime-opaque", 97)} if claims["simulated"] else set()
        # No status is better than the worst claim.
        good = all(tier(value) < 96 or (name, value) in no_hardware for name, value in vector.items())
        if not claims["simulated"]:
            good = good and guest["ear.status"] in ("affirming", "warning")
        if guest["ear.coffer.verdict"] != "accepted" or not good:
            raise Refused(f"verdict: {guest['ear.coffer.verdict']!r}, {guest['ear.status']!r}")
        # Without these two anybody's report, shown by anybody, would do.
        if claims.get("eat_nonce") != challenge:
            raise Refused(f"nonce: {claims.get('eat_nonce')!r}")
        shown = claims.get("cnf", {}).get("jwk")
        if shown is None or jwk.JWK(**shown).thumbprint() != peer.thumbprint():
            raise Refused("key: not the one of this connection")
        return claims
    except (JWException, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"malformed: {error!r}") from error


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("token", "jwks", "issuer", "audience", "challenge", "key"):
        parser.add_argument(name)
    parser.add_argument("--at", type=int, default=None, help="Unix seconds that count instead of now")
    parser.add_argument("--simulated-too", action="store_true", help="for a test: a simulator's evidence will do")
    words = parser.parse_args()
    with open(words.token, encoding="ascii") as token, open(words.jwks, encoding="utf-8") as jwks, open(words.key, "rb") as key:
        try:
            claims = admit(
                token.read().strip(), jwk.JWKSet.from_json(jwks.read()), issuer=words.issuer, audience=words.audience,
                challenge=words.challenge, peer=jwk.JWK.from_pem(key.read()), simulated_too=words.simulated_too,
                now=int(time.time()) if words.at is None else words.at,
            )
        except Refused as refusal:
            print(refusal)
            sys.exit(1)
    print("admitted", claims["submods"]["cpu0"]["ear.status"])


if __name__ == "__main__":
    main()
