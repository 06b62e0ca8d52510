//! A relying party: whether a token lets the guest on the other end of a connection in.
//!
//! It has made a challenge of its own, which the guest put into its report, and sees the guest's key in TLS. Usage: TOKEN JWKS ISSUER
//! AUDIENCE CHALLENGE(base64url) KEY.pem
use std::error::Error;

use coffer_verifier::ear::{
    Demands, GuestKey, Issuer, IssuerRule, Jwks, KeyRule, Nonce, NonceRule, PolicyRule, SimulatedRule, Skew, Token,
    VerifiedToken, WarningRule, Word,
};
use coffer_verifier::{P384PublicKey, UnixTime};

/// What this relying party knows by itself.
pub struct Own<'a> {
    /// The issuer's, as they stand at its /.well-known/jwks.json.
    pub keys: &'a Jwks,
    /// The issuer that is believed.
    pub issuer: &'a str,
    /// This relying party.
    pub audience: &'a str,
    /// What it sent the guest.
    pub challenge: Nonce,
    /// The key of the TLS connection.
    pub peer: P384PublicKey,
    /// `Refused` wherever a secret or a decision hangs on it.
    pub simulated: SimulatedRule,
}

/// The claims of a token that lets this guest in.
pub fn admit(token: &str, own: Own<'_>, now: UnixTime) -> Result<VerifiedToken, Box<dyn Error>> {
    let demands = Demands {
        keys: own.keys,
        issuer: IssuerRule::Exactly(Issuer::parse(own.issuer)?),
        audience: Word::parse(own.audience)?,
        // Without these two anybody's report, shown by anybody, would do.
        nonce: NonceRule::Exactly(own.challenge),
        key: KeyRule::Exactly(GuestKey::P384(own.peer)),
        request_nonce: NonceRule::NotAsked,
        policy: PolicyRule::IssuersOwn,
        simulated: own.simulated,
        warnings: WarningRule::Accepted,
        skew: Skew::DEFAULT,
    };
    Ok(Token::parse(token)?.verify(&demands, now)?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [token, jwks, issuer, audience, challenge, key] = &words[..] else {
        return Err("usage: TOKEN JWKS ISSUER AUDIENCE CHALLENGE KEY.pem".into());
    };
    let own = Own {
        keys: &Jwks::parse(&std::fs::read(jwks)?)?,
        issuer,
        audience,
        challenge: Nonce::parse(challenge)?,
        peer: P384PublicKey::from_pem(&std::fs::read_to_string(key)?)?,
        simulated: SimulatedRule::Refused,
    };
    let said = admit(std::fs::read_to_string(token)?.trim(), own, std::time::SystemTime::now().into())?;
    println!("admitted: {}", said.to_json());
    Ok(())
}
