"""Another library's half of ear.rs: reads tokens, and makes good and wrong ones. jwcrypto, Debian's python3-jwcrypto."""
import base64
import hashlib
import hmac
import json
import sys

from jwcrypto import jwk, jws, jwt


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def read(asked):
    keys = jwk.JWKSet.from_json(asked["jwks"])
    claims = []
    for token in asked["tokens"]:
        try:
            # The claims that say when are ours to try: this library reads the clock.
            checked = jwt.JWT(jwt=token, key=keys, algs=["ES384"],
                              check_claims={"aud": asked["aud"], "iss": asked["iss"], "exp": 1789862500, "jti": None})
            claims.append(json.loads(checked.claims))
        except (jws.InvalidJWSSignature, jws.InvalidJWSObject, jwt.JWTMissingKey, ValueError):
            claims.append(None)
    listed = json.loads(asked["jwks"])["keys"]
    return {"claims": claims, "thumbprints": [jwk.JWK(**key).thumbprint() for key in listed]}


def make(asked):
    listed = json.loads(asked["jwks"])["keys"]
    public = {name: listed[0][name] for name in ("kty", "crv", "x", "y")}
    key = jwk.JWK(d=asked["d"], **public)
    kid = key.thumbprint()
    good = {"alg": "ES384", "kid": kid, "typ": "eat+jwt"}
    tokens = {}

    def sign(name, header, claims, by=key):
        token = jws.JWS(json.dumps(claims))
        token.add_signature(by, protected=json.dumps(header))
        tokens[name] = token.serialize(compact=True)

    claims = asked["claims"]
    sign("good", good, claims)
    sign("expired", good, dict(claims, iat=claims["iat"] - 9000, exp=claims["iat"] - 8000))
    sign("early", good, dict(claims, iat=claims["iat"] + 9000, exp=claims["iat"] + 9100))
    sign("wrong-audience", good, dict(claims, aud="https://shop.example"))
    sign("wrong-issuer", good, dict(claims, iss="https://other.example"))
    sign("no-kid", {"alg": "ES384", "typ": "eat+jwt"}, claims)
    sign("plain-type", dict(good, typ="JWT"), claims)
    stranger = jwk.JWK.generate(kty="EC", crv="P-384")
    own = json.loads(stranger.export_public())
    sign("own-key-under-our-name", good, claims, stranger)
    sign("own-key-embedded", dict(good, jwk=own), claims, stranger)
    sign("own-key-by-address", dict(good, jku="https://evil.example/jwks.json"), claims, stranger)
    p256 = jwk.JWK.generate(kty="EC", crv="P-256")
    sign("another-curve", dict(good, alg="ES256"), claims, p256)
    # The public key as the secret of a MAC: once as PEM, once as the JWK's text.
    for name, secret in (("mac-pem", key.export_to_pem()), ("mac-jwk", key.export_public().encode())):
        sign(name, dict(good, alg="HS384"), claims, jwk.JWK(kty="oct", k=b64(secret)))
    signed = b64(json.dumps(dict(good, alg="none")).encode()) + "." + b64(json.dumps(claims).encode())
    tokens["none"] = signed + "."
    tokens["none-with-a-signature"] = signed + "." + tokens["good"].split(".")[2]
    # A MAC under the right name of the algorithm.
    signed = ".".join(tokens["good"].split(".")[:2])
    mac = hmac.new(key.export_to_pem(), signed.encode(), hashlib.sha384).digest()
    tokens["mac-as-signature"] = signed + "." + b64(mac + mac)
    whole = jws.JWS(json.dumps(claims))
    whole.add_signature(key, protected=json.dumps(good))
    tokens["json-serialisation"] = whole.serialize()
    return {"tokens": tokens}


request = json.load(sys.stdin)
json.dump({"read": read, "make": make}[request["do"]](request), sys.stdout)
