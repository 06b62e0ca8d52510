//! `coffer token verify` and `show`: a relying party at a shell.
//!
//! Exit 0 as demanded, 2 usage, 3 a file that cannot be read, 5 no listed key signed it, 6 signed and not as demanded.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coffer_rim::{foreign, input};
use coffer_runtime::signing_key::read_public;
use coffer_verifier::ear::{
    Demands, GuestKey, Issuer, IssuerRule, Jwks, KeyRule, Nonce, NonceRule, PolicyRule, SimulatedRule, Skew, Status,
    Token, TokenError, TokenReason, VerifiedToken, WarningRule, Word,
};
use coffer_verifier::said::json_error;
use coffer_verifier::{Look, UnixTime};
use serde_json::{Value, json};

use super::keys;
use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::evidence::judging::read;

/// Decide about a token, offline.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --key and --nonce the token shows that there was such a guest, and neither that it is on the other end of your connection \
nor that it was asked now: whoever sees a report can have a token made of it.
Exit status: 0 as demanded, 2 usage, 3 a file that cannot be read, 5 no key of the set signed it, 6 signed and not as demanded.

Examples:
  coffer token verify token.jwt --jwks jwks.json \\
      --aud https://bank.example --iss https://verifier.example
  coffer token verify token.jwt --jwks jwks.json \\
      --aud https://bank.example --policy fleet.toml --json")]
pub struct Args {
    /// The token; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Keys of the issuer that is believed, as they stand at its /.well-known/jwks.json.
    #[arg(long, value_name = "FILE")]
    jwks: PathBuf,

    /// For whom it must be.
    #[arg(long, value_name = "NAME", value_parser = Word::parse)]
    aud: Word,

    /// Who must have issued it; without this, whoever holds a key of the set.
    #[arg(long, value_name = "URL", value_parser = Issuer::parse)]
    iss: Option<Issuer>,

    /// Challenge that must be inside the evidence, base64url of 8 to 64 bytes.
    #[arg(long, value_name = "BASE64URL", value_parser = Nonce::parse)]
    nonce: Option<Nonce>,

    /// What must be repeated from the request, base64url of 8 to 64 bytes. It says nothing of the evidence.
    #[arg(long, value_name = "BASE64URL", value_parser = Nonce::parse)]
    request_nonce: Option<Nonce>,

    /// Public key the guest must hold: PEM, or a JWK.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,

    /// Policy it must have been judged by. Without --revision the name is only the issuer's word for whatever it calls so.
    #[arg(long, value_name = "NAME", value_parser = Word::parse)]
    policy: Option<Word>,

    /// Revision of that policy.
    #[arg(long, value_name = "TEXT", value_parser = Word::parse, requires = "policy")]
    revision: Option<Word>,

    /// Decide as of this time (RFC 3339) instead of now.
    #[arg(long, value_name = "RFC3339", value_parser = UnixTime::parse)]
    at: Option<UnixTime>,

    /// Seconds the issuer's clock may be from ours, at most 300.
    #[arg(long, value_name = "SECONDS", value_parser = skew, default_value = "60")]
    skew: Skew,

    /// Also accept simulated evidence.
    #[arg(long)]
    allow_simulated: bool,

    /// Also accept a result that warns: revocation, TCB or measurement were not asked about.
    #[arg(long)]
    accept_warnings: bool,
}

fn skew(text: &str) -> Result<Skew, &'static str> {
    text.parse().ok().and_then(Skew::from_secs).ok_or("expected 0 to 300 seconds")
}

/// Print what a token says, whoever signed it. It decides nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer token show token.jwt")]
pub struct ShowArgs {
    /// The token; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Prints.
pub fn show(args: &ShowArgs, context: &Context) -> Result<ExitCode, CliError> {
    let text = token(&args.file)?;
    let claims = Token::parse(&text).and_then(|token| token.unverified()).class(Class::NotAuthentic)?;
    if context.json {
        println!("{claims}");
    } else {
        for line in format!("{claims:#}").lines() {
            println!("{}", foreign(line));
        }
        eprintln!("coffer: nobody has checked who signed it");
    }
    Ok(ExitCode::SUCCESS)
}

/// Decides.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let set = input::read(&args.jwks, input::DOCUMENT).class_while(Class::Config, reading(&args.jwks))?;
    let set = Jwks::parse(&set).class_while(Class::Config, args.jwks.display()).map_err(|failure| {
        failure.hint(
            "--jwks takes the issuer's public keys, as `coffer token jwks` prints them; a guest's key goes with --key",
        )
    })?;
    let text = token(&args.file)?;
    let exactly = |nonce: &Option<Nonce>| nonce.clone().map_or(NonceRule::NotAsked, NonceRule::Exactly);
    let policy = args
        .policy
        .clone()
        .map_or(PolicyRule::IssuersOwn, |policy| PolicyRule::Exactly { policy, revision: args.revision.clone() });
    let demands = Demands {
        keys: &set,
        issuer: args.iss.clone().map_or(IssuerRule::HolderOfAKey, IssuerRule::Exactly),
        audience: args.aud.clone(),
        nonce: exactly(&args.nonce),
        request_nonce: exactly(&args.request_nonce),
        key: args.key.as_deref().map(guest_key).transpose()?.map_or(KeyRule::NotAsked, KeyRule::Exactly),
        policy,
        simulated: if args.allow_simulated { SimulatedRule::Allowed } else { SimulatedRule::Refused },
        warnings: if args.accept_warnings { WarningRule::Accepted } else { WarningRule::Refused },
        skew: args.skew,
    };
    let said = Token::parse(&text).and_then(|token| token.verify(&demands, args.at.unwrap_or_else(keys::now)));
    let (code, verdict, reasons) = match &said {
        Ok(_) => (0, "accepted", Vec::new()),
        Err(TokenError::Refused(refusal)) => {
            let reasons = refusal.reasons().iter().map(|reason| (reason.to_string(), hint(reason))).collect();
            (Class::Refused.code(), "refused", reasons)
        }
        Err(error) => (Class::NotAuthentic.code(), "not-authentic", vec![(coffer_rim::chain(error), None)]),
    };
    if context.json {
        let claims = said.as_ref().map_or(Value::Null, VerifiedToken::to_json);
        let (reasons, hints): (Vec<_>, Vec<_>) = reasons.into_iter().unzip();
        println!("{}", json!({ "verdict": verdict, "reasons": reasons, "hints": hints, "claims": claims }));
    } else {
        println!("{verdict}");
        for (reason, hint) in &reasons {
            println!("{}", foreign(reason));
            if let Some(hint) = hint {
                println!("  hint: {hint}");
            }
        }
        if let Ok(token) = &said {
            print(token);
        }
    }
    Ok(ExitCode::from(code))
}

/// The flag that would do, where there is one.
fn hint(reason: &TokenReason) -> Option<Cow<'static, str>> {
    let words = match reason {
        TokenReason::Simulated => {
            "--allow-simulated takes a simulator's evidence too, which proves nothing about hardware"
        }
        TokenReason::Status { found, expected: Status::Affirming } if matches!(found.counted(), Status::Warning) => {
            "--accept-warnings takes such a status; `coffer token show` prints what was asked: ear.trustworthiness-vector, 32 and 33 are warnings"
        }
        TokenReason::Nonce { found: Some(found), expected } if is_spelled(found, expected) => {
            return Some(
                format!("these are the digits of that nonce in hexadecimal; base64url is due: --nonce {found}").into(),
            );
        }
        TokenReason::RequestNonce { found: Some(found), expected } if is_spelled(found, expected) => {
            return Some(
                format!("these are its digits in hexadecimal; base64url is due: --request-nonce {found}").into(),
            );
        }
        TokenReason::Nonce { found: None, .. } => {
            "a token has a nonce where its evidence was made over one: `coffer attest --nonce`, and `nonce` of the service's requests"
        }
        TokenReason::Key { found: None, .. } => {
            "a token has a guest's key (cnf) where a key broker issued it to that guest over RA-TLS, or of an Azure HCL blob; `coffer token \
             issue` of other evidence knows no key"
        }
        _ => return None,
    };
    Some(words.into())
}

/// The digits of one in hexadecimal, which are base64url too, were given for it.
fn is_spelled(found: &Nonce, given: &Nonce) -> bool {
    hex::decode(given.to_string()).is_ok_and(|bytes| bytes == found.as_bytes())
}

fn print(token: &VerifiedToken) {
    let line = |name: &str, value: &dyn std::fmt::Display| println!("  {name:<12} {}", foreign(&value.to_string()));
    line("issuer", &token.issuer());
    line("expires", &token.expires());
    line("id", &token.id());
    line("status", &token.stated_status());
    line("policy", &format_args!("{} ({})", token.policy(), token.revision()));
    if let Some(anchor) = token.anchor() {
        line("anchor", &format_args!("{}{anchor}", if token.simulated() { "simulated " } else { "AMD " }));
    }
    let report = &token.claims()["report"];
    for (name, field) in [("measurement", "measurement"), ("host data", "host_data")] {
        if let Some(value) = report[field].as_str() {
            line(name, &value);
        }
    }
    let or_none = |value: Option<&dyn std::fmt::Display>| value.map_or("none".to_owned(), ToString::to_string);
    line("nonce", &or_none(token.nonce().map(|nonce| nonce as _)));
    line("key", &or_none(token.key().map(|key| key as _)));
}

/// A token has one line.
fn token(path: &Path) -> Result<String, CliError> {
    let text = String::from_utf8(read(path)?).map_err(|error| {
        let message = format!("{}: {} where a token is due", input::name(path), Look::of(error.as_bytes()));
        CliError::new(Class::Config, message).hint("a token is one line of text, as `coffer token issue` prints it")
    })?;
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

const GUEST_KEY: &str = "--key takes a guest's public key: P-384 in PEM, or one JWK; the issuer's keys go with --jwks";

fn guest_key(path: &Path) -> Result<GuestKey, CliError> {
    let bytes = input::read(path, input::DOCUMENT).class_while(Class::Config, reading(path))?;
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return read_public(path).map(GuestKey::P384).map_err(|failure| failure.hint(GUEST_KEY));
    }
    let damaged = |error| CliError::new(Class::Config, format!("{}: {}", path.display(), json_error(&bytes, &error)));
    let jwk: Value = serde_json::from_slice(&bytes).map_err(|error| damaged(error).hint(GUEST_KEY))?;
    GuestKey::from_jwk(&jwk).class_while(Class::Config, path.display()).map_err(|failure| failure.hint(GUEST_KEY))
}

fn reading(path: &Path) -> String {
    format!("reading {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_in_hexadecimal_is_told_in_the_spelling_that_is_due() {
        let given = Nonce::parse("5f0c1d9e27aa4b38").unwrap();
        let found = Nonce::new(&hex::decode("5f0c1d9e27aa4b38").unwrap()).unwrap();
        let said = |found: Option<&Nonce>| hint(&TokenReason::Nonce { found: found.cloned(), expected: given.clone() });
        assert!(said(Some(&found)).unwrap().ends_with("base64url is due: --nonce XwwdnieqSzg"));
        assert!(said(Some(&Nonce::new(&[7; 8]).unwrap())).is_none());
        assert!(said(None).unwrap().contains("coffer attest --nonce"));
    }
}
