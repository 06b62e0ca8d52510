//! Tokens: what the judge said stands in them and no more, and what is wrong with one is found, by us and by somebody else's
//! library. `ear.py` is the other library's half.

mod another_library;
mod issued;
mod relying_parties;
mod verified;

use std::{
    convert::Infallible,
    io::Write as _,
    process::{Command, Stdio},
};

use crate::{forge::World, vectors};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use coffer_verifier::{
    Appraisal, Code, CrlPolicy, EvidencePolicy, Expected, ExpectedGuest, ExpectedReportData, HclBlob, P384PublicKey,
    Pair, Reason, TrustAnchors, UnixTime, VerifiedReport, Verifier,
    abi::{ReportData, SpkiDigest, WorkloadDigest, report::offset},
    appraise,
    binding::{
        ALPN_KBS, ConnectionBinding, EncryptionKey, Role, certificate_report_data, nonce_report_data,
        workload_report_data,
    },
    ear::{
        Demands, EarClaims, EarError, GuestKey, Issuer, IssuerRule, Judged, Jwks, KeyRule, Lifetime, NamedBinding,
        Nonce, NonceRule, NotShown, PROFILE, PolicyRule, SimulatedRule, Skew, StatedStatus, Status, Terms, Token,
        TokenError, TokenId, TokenReason, TokenSigner, VerifiedToken, VerifierBuild, WarningRule, Word, thumbprint,
    },
};
use p384::ecdsa::{Signature, SigningKey, signature::Signer as _};
use serde_json::{Value, json};

struct Signer(SigningKey, P384PublicKey);

fn signer(seed: u8) -> Signer {
    let key = SigningKey::from_slice(&[seed; 48]).unwrap();
    let public = P384PublicKey::from_sec1(key.verifying_key().to_sec1_point(false).as_bytes()).unwrap();
    Signer(key, public)
}

impl TokenSigner for Signer {
    type Error = Infallible;

    fn public(&self) -> &P384PublicKey {
        &self.1
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 96], Infallible> {
        let signature: Signature = self.0.sign(message);
        Ok(signature.to_bytes().as_slice().try_into().unwrap())
    }
}

fn word(text: &str) -> Word {
    Word::parse(text).unwrap()
}

fn nonce(byte: u8) -> Nonce {
    Nonce::new(&[byte; 32]).unwrap()
}

const ISSUER: &str = "https://verifier.example";
const AUDIENCE: &str = "https://bank.example";
const WORKLOAD: WorkloadDigest = WorkloadDigest::new([3; 32]);
const NOW: UnixTime = UnixTime(1_789_862_400);

/// Claims of what was judged, with this binding.
fn claims(judged: &Judged<'_>, binding: &NamedBinding<'_>, now: UnixTime) -> Result<EarClaims, EarError> {
    EarClaims::of(
        judged,
        binding,
        &Terms {
            issuer: &Issuer::parse(ISSUER).unwrap(),
            audience: &word(AUDIENCE),
            verifier: &VerifierBuild { developer: word("coffer"), build: word("coffer-verifier/0.1.0") },
            policy: &word("fleet"),
            revision: &word("7"),
            lifetime: Lifetime::DEFAULT,
            request_nonce: Some(&nonce(9)),
            id: TokenId::new([1; 16]),
            now,
        },
    )
}

fn token(judged: &Judged<'_>, binding: &NamedBinding<'_>) -> String {
    claims(judged, binding, NOW).unwrap().sign(&signer(7)).unwrap()
}

fn demands(keys: &Jwks) -> Demands<'_> {
    Demands {
        keys,
        issuer: IssuerRule::Exactly(Issuer::parse(ISSUER).unwrap()),
        audience: word(AUDIENCE),
        nonce: NonceRule::NotAsked,
        request_nonce: NonceRule::NotAsked,
        key: KeyRule::NotAsked,
        policy: PolicyRule::IssuersOwn,
        simulated: SimulatedRule::Allowed,
        warnings: WarningRule::Accepted,
        skew: Skew::DEFAULT,
    }
}

fn keys() -> Jwks {
    Jwks::new([signer(7).1, signer(8).1])
}

fn verify(token: &str) -> Result<VerifiedToken, TokenError> {
    Token::parse(token)?.verify(&demands(&keys()), NOW)
}

fn reasons(token: &str, change: impl FnOnce(&mut Demands<'_>), now: UnixTime) -> Vec<TokenReason> {
    let keys = keys();
    let mut demands = demands(&keys);
    change(&mut demands);
    match Token::parse(token).unwrap().verify(&demands, now) {
        Ok(_) => Vec::new(),
        Err(TokenError::Refused(refusal)) => refusal.reasons().to_vec(),
        Err(error) => panic!("{error}"),
    }
}

/// First words of reasons.
fn heads(reasons: &[TokenReason]) -> Vec<String> {
    reasons.iter().map(|reason| reason.to_string().split(':').next().unwrap().to_owned()).collect()
}

fn judge(world: &World, policy: EvidencePolicy) -> Appraisal {
    let (anchors, crl) = (world.anchors(), world.crl.clone());
    let expected = Expected { report_data: ExpectedReportData::Any, guest: ExpectedGuest::WhateverThePolicyAdmits };
    let evidence = coffer_verifier::Evidence { report: world.signed_report(), ..Default::default() };
    Verifier { anchors, crl, policy }.judge(&evidence, &world.endorsements().unwrap(), &expected, world.now)
}

fn floor() -> EvidencePolicy {
    EvidencePolicy::default_floor()
}

fn world(report_data: ReportData) -> World {
    let mut world = World::new();
    world.patch(offset::REPORT_DATA, report_data.as_bytes());
    world
}

fn accepted(world: &World) -> Appraisal {
    let appraisal = judge(world, floor());
    assert!(appraisal.result().is_some(), "{}", appraisal.why());
    appraisal
}

/// A token with a nonce, and the keys it is believed by, for the fuzzing corpus.
pub fn seeds() -> (String, String) {
    let world = world(workload_report_data(&WORKLOAD, &[5; 32]));
    let binding = NamedBinding::Workload { workload: WORKLOAD, data: &[5; 32] };
    (token(&(&accepted(&world)).into(), &binding), keys().to_json())
}

/// The vector, as it stands in a token.
fn vector(token: &str) -> Value {
    Token::parse(token).unwrap().unverified().unwrap()["submods"]["cpu0"]["ear.trustworthiness-vector"].clone()
}

fn status(token: &str) -> Value {
    Token::parse(token).unwrap().unverified().unwrap()["submods"]["cpu0"]["ear.status"].clone()
}

/// Signs any header and any payload, as no issuer of ours does.
fn raw(header: &str, payload: &str) -> String {
    let signed = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(payload));
    let signature = signer(7).sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64URL.encode(signature))
}

fn header() -> String {
    format!(r#"{{"alg":"ES384","kid":"{}","typ":"eat+jwt"}}"#, thumbprint(&signer(7).1))
}

/// The payload of a good token, changed.
fn payload(change: impl FnOnce(&mut Value)) -> String {
    let token = token(&(&accepted(&World::new())).into(), &NamedBinding::Raw);
    let payload = BASE64URL.decode(token.split('.').nth(1).unwrap()).unwrap();
    let mut payload: Value = serde_json::from_slice(&payload).unwrap();
    change(&mut payload);
    payload.to_string()
}
