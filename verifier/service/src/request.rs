//! What is asked, as JSON and as meant. Everything is parsed here, once, into types that cannot be wrong.
//!
//! What REPORT_DATA must hold is always said: by value, by a challenge of this service, or by the word that waives it.
//! Never: takes more than a few times the memory of what was sent, whatever that holds.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coffer_verifier::abi::ReportData;
use coffer_verifier::ear::{Lifetime, Nonce, Word};
use coffer_verifier::{EndorsementError, Endorsements, ExpectedReportData, Presented};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use crate::challenge::Challenge;
use crate::refusal::Refusal;

/// Certificates and lists that one request may bring beside those in its evidence: as evidence itself may.
pub const MAX_CERTIFICATES: usize = 16;
/// See [`MAX_CERTIFICATES`].
pub const MAX_CRLS: usize = 8;
/// Requests in one batch.
pub const MAX_BATCH: usize = 64;

/// What one request asks.
pub struct Asked {
    /// Evidence and what came beside it.
    pub(crate) bytes: usize,
    pub(crate) presented: Presented,
    pub(crate) beside: Endorsements,
    /// One that is a certificate or a list, and must not be used.
    pub(crate) unusable: Option<EndorsementError>,
    pub(crate) demanded: Demanded,
    pub(crate) policy: Option<String>,
    pub(crate) request_nonce: Option<Nonce>,
    pub(crate) token: Option<TokenAsked>,
}

/// What REPORT_DATA must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demanded {
    /// This, or whatever: the caller's word.
    Stated(ExpectedReportData),
    /// A challenge that this service gave, and that was not used yet.
    Challenge(Challenge),
    /// What evidence holds that was made over this nonce (`coffer/nonce/v1`), which the caller chose.
    Nonce(Nonce),
}

/// A token that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenAsked {
    /// For whom alone.
    pub audience: Word,
    /// How long at most.
    pub lifetime: Lifetime,
}

/// What a request says, in bytes and words, before any of it is parsed: of JSON and of protobuf alike.
#[derive(Default)]
pub struct Words {
    /// In any form that is known.
    pub evidence: Vec<u8>,
    /// Of a bare report.
    pub cert_table: Vec<u8>,
    /// DER or PEM.
    pub certificates: Vec<Vec<u8>>,
    /// DER or PEM.
    pub crls: Vec<Vec<u8>>,
    /// Said in one of the ways there are.
    pub demanded: Option<Demanded>,
    /// Of a policy.
    pub policy: Option<String>,
    /// What the caller wants repeated.
    pub request_nonce: Option<Nonce>,
    /// For whom, and for how many seconds.
    pub token: Option<(String, Option<i64>)>,
}

impl Asked {
    /// From words.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn of(words: Words) -> Result<Self, Refusal> {
        let demanded = words.demanded.ok_or(Refusal::Field {
            field: "report_data, challenge or nonce",
            expected: "there: say what REPORT_DATA must hold, or report_data \"any\", which waives it",
        })?;
        let beside = words.certificates.iter().chain(&words.crls).map(Vec::len);
        let bytes = beside.fold(words.evidence.len() + words.cert_table.len(), usize::saturating_add);
        let mut presented = Presented::parse(&words.evidence)?;
        if !words.cert_table.is_empty() && !presented.with_cert_table(words.cert_table) {
            let expected = "there beside evidence that brings a table itself";
            return Err(Refusal::Field { field: "cert_table", expected });
        }
        let (mut beside, mut unusable) = (Endorsements::new(), None);
        for (field, limit, entries) in
            [("certificates", MAX_CERTIFICATES, &words.certificates), ("crls", MAX_CRLS, &words.crls)]
        {
            for (at, entry) in entries.iter().enumerate() {
                let is_crl = field == "crls";
                let added = if is_crl { beside.add_crl(entry) } else { beside.add_certificates(entry) };
                match added {
                    Err(source) if source.is_malformed() => return Err(Refusal::Endorsement { field, at, source }),
                    Err(source) => unusable = unusable.or(Some(source)),
                    Ok(()) => {}
                }
                let held = if is_crl { beside.crls().len() } else { beside.certificates().len() };
                if held > limit {
                    return Err(Refusal::TooMany { field, limit });
                }
            }
        }
        let token = |(audience, seconds): (String, Option<i64>)| -> Result<_, Refusal> {
            let field = |field, expected| move |_| Refusal::Field { field, expected };
            let audience = Word::parse(&audience)
                .map_err(field("token.audience", "1 to 256 printable ASCII characters without spaces"))?;
            let lifetime = seconds.map_or(Ok(Lifetime::DEFAULT), Lifetime::from_secs);
            let lifetime = lifetime.map_err(field("token.lifetime_seconds", "a number from 1 to 86400"))?;
            Ok(TokenAsked { audience, lifetime })
        };
        Ok(Self {
            bytes,
            presented,
            beside,
            unusable,
            demanded,
            policy: words.policy,
            request_nonce: words.request_nonce,
            token: words.token.map(token).transpose()?,
        })
    }
}

/// Reads the body of `POST /v1/appraise`.
///
/// # Errors
/// [`Refusal`].
pub fn one(body: &[u8]) -> Result<Asked, Refusal> {
    json::<Wire<'_>>(body)?.asked()
}

/// Reads the body of `POST /v1/appraise/batch`: what single requests mean is told one by one.
///
/// # Errors
/// [`Refusal`], where it is no batch.
pub fn batch(body: &[u8]) -> Result<Vec<Result<Asked, Refusal>>, Refusal> {
    let Batch { requests } = json::<Batch<'_>>(body)?;
    if requests.0.is_empty() {
        return Err(Refusal::NO_BATCH);
    }
    Ok(requests.0.into_iter().map(|Object(request)| request.asked()).collect())
}

fn json<'a, T: Deserialize<'a> + Written>(body: &'a [u8]) -> Result<T, Refusal> {
    let read = serde_json::from_slice::<Object<T>>(body);
    read.map(|Object(read)| read).map_err(|error| Refusal::malformed(&without_values(&error)))
}

/// What serde says, without the text that it found in place of something else: it may be evidence, or a token.
fn without_values(error: &serde_json::Error) -> String {
    let said = error.to_string();
    match (said.find(": string \""), said.rfind("\", expected ")) {
        (Some(from), Some(to)) if from < to => format!("{}: a string{}", &said[..from], &said[to + 1..]),
        _ => said,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow)]
    requests: Few<Object<Wire<'a>>, MAX_BATCH>,
}

/// One request as JSON. Bytes are base64; what a certificate authority gives as PEM may stay so.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    #[serde(borrow)]
    evidence: Cow<'a, str>,
    #[serde(borrow, default)]
    cert_table: Cow<'a, str>,
    #[serde(default)]
    certificates: Few<String, MAX_CERTIFICATES>,
    #[serde(default)]
    crls: Few<String, MAX_CRLS>,
    #[serde(default)]
    report_data: Option<String>,
    #[serde(default)]
    challenge: Option<String>,
    #[serde(default)]
    nonce: Option<String>,
    #[serde(default)]
    policy: Option<String>,
    #[serde(default)]
    request_nonce: Option<String>,
    #[serde(default)]
    token: Option<Object<WireToken>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireToken {
    audience: String,
    #[serde(default)]
    lifetime_seconds: Option<i64>,
}

impl Wire<'_> {
    fn asked(self) -> Result<Asked, Refusal> {
        let nonce = |field, text: &str| {
            let expected = "base64url without padding, of 8 to 64 bytes";
            Nonce::parse(text).map_err(|_| Refusal::Field { field, expected })
        };
        let demanded = match (self.report_data, self.challenge, self.nonce) {
            (Some(stated), None, None) => Some(Demanded::Stated(report_data(&stated)?)),
            (None, Some(challenge), None) => Some(Demanded::Challenge(Challenge::parse(&challenge)?)),
            (None, None, Some(text)) => Some(Demanded::Nonce(nonce("nonce", &text)?)),
            (None, None, None) => None,
            (_, challenge, _) => {
                let field = if challenge.is_some() { "challenge" } else { "nonce" };
                let expected = "there alone: one of report_data, challenge and nonce says what REPORT_DATA must hold";
                return Err(Refusal::Field { field, expected });
            }
        };
        Asked::of(Words {
            evidence: base64("evidence", &self.evidence)?,
            cert_table: base64("cert_table", &self.cert_table)?,
            certificates: several("certificates", &self.certificates.0)?,
            crls: several("crls", &self.crls.0)?,
            demanded,
            policy: self.policy,
            request_nonce: self.request_nonce.map(|text| nonce("request_nonce", &text)).transpose()?,
            token: self.token.map(|Object(token)| (token.audience, token.lifetime_seconds)),
        })
    }
}

/// 128 hexadecimal digits, or the word that waives it.
fn report_data(text: &str) -> Result<ExpectedReportData, Refusal> {
    let expected = "128 hexadecimal digits, or the word any";
    match text {
        "any" => Ok(ExpectedReportData::Any),
        digits => digits
            .parse::<ReportData>()
            .map(ExpectedReportData::Exactly)
            .map_err(|_| Refusal::Field { field: "report_data", expected }),
    }
}

fn base64(field: &'static str, text: &str) -> Result<Vec<u8>, Refusal> {
    STANDARD.decode(text).map_err(|_| Refusal::Field { field, expected: "base64, with padding" })
}

fn several(field: &'static str, texts: &[String]) -> Result<Vec<Vec<u8>>, Refusal> {
    texts.iter().map(|text| pem_or_base64(field, text)).collect()
}

fn pem_or_base64(field: &'static str, text: &str) -> Result<Vec<u8>, Refusal> {
    if text.trim_start().starts_with("-----BEGIN ") { Ok(text.as_bytes().to_vec()) } else { base64(field, text) }
}

/// How people write one of these.
trait Written {
    const AS: &'static str;
}

impl Written for Batch<'_> {
    const AS: &'static str = "an object with requests, a list of 1 to 64";
}

impl Written for Wire<'_> {
    const AS: &'static str = "a request, which is an object with evidence";
}

impl Written for WireToken {
    const AS: &'static str = "an object with audience";
}

/// What is written with its names: a list of its values in their order, which serde takes too, is none.
struct Object<T>(T);

impl<'de, T: Deserialize<'de> + Written> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Written> Visitor<'de> for Members<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::AS)
            }
            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members)).map(Object)
            }
        }
        deserializer.deserialize_map(Members::<T>(PhantomData))
    }
}

/// A list that is refused where it has more than `N` entries, before more are read.
#[derive(Debug)]
struct Few<T, const N: usize>(Vec<T>);

impl<T, const N: usize> Default for Few<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Few<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Entries<T, N> {
            type Value = Few<T, N>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {N}")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                // A mistake is told with its entry, and serde_json finds its line and column again.
                let which = |number: usize| move |error| serde::de::Error::custom(format_args!("[{number}]: {error}"));
                while let Some(entry) = list.next_element().map_err(which(all.len()))? {
                    if all.len() == N {
                        return Err(serde::de::Error::custom(format_args!("a list of more than {N}")));
                    }
                    all.push(entry);
                }
                Ok(Few(all))
            }
        }
        deserializer.deserialize_seq(Entries::<T, N>(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> Refusal {
        one(body.as_bytes()).err().unwrap()
    }

    fn report() -> String {
        STANDARD.encode([2; 1184])
    }

    #[test]
    fn what_report_data_must_hold_is_always_said_and_said_once() {
        let evidence = report();
        let zeros = "00".repeat(64);
        let challenge = Challenge([9; 64]).text();
        for (more, demanded) in [
            (r#""report_data":"any""#.to_owned(), Demanded::Stated(ExpectedReportData::Any)),
            (
                format!(r#""report_data":"{zeros}""#),
                Demanded::Stated(ExpectedReportData::Exactly(ReportData::new([0; 64]))),
            ),
            (format!(r#""challenge":"{challenge}""#), Demanded::Challenge(Challenge([9; 64]))),
            (r#""nonce":"AAAAAAAAAAA""#.to_owned(), Demanded::Nonce(Nonce::new(&[0; 8]).unwrap())),
        ] {
            let asked = one(format!(r#"{{"evidence":"{evidence}",{more}}}"#).as_bytes()).ok().unwrap();
            assert_eq!(asked.demanded, demanded);
            assert!(asked.policy.is_none() && asked.token.is_none() && asked.request_nonce.is_none());
        }
        let none = refused(&format!(r#"{{"evidence":"{evidence}"}}"#));
        assert!(none.to_string().contains("say what REPORT_DATA must hold"), "{none}");
        for (more, field) in [
            (format!(r#""report_data":"any","challenge":"{challenge}""#), "challenge"),
            (r#""report_data":"Any""#.to_owned(), "report_data"),
            (r#""report_data":"""#.to_owned(), "report_data"),
            (r#""report_data":"00""#.to_owned(), "report_data"),
            (format!(r#""challenge":"{challenge}=""#), "challenge"),
            (r#""challenge":"""#.to_owned(), "challenge"),
            (r#""nonce":"AAAA""#.to_owned(), "nonce"),
            (r#""nonce":"""#.to_owned(), "nonce"),
            (r#""report_data":"any","nonce":"AAAAAAAAAAA""#.to_owned(), "nonce"),
            (format!(r#""challenge":"{challenge}","nonce":"AAAAAAAAAAA""#), "challenge"),
            (r#""report_data":"any","request_nonce":"AAAA""#.to_owned(), "request_nonce"),
            (r#""report_data":"any","token":{"audience":""}"#.to_owned(), "token.audience"),
            (
                r#""report_data":"any","token":{"audience":"a","lifetime_seconds":0}"#.to_owned(),
                "token.lifetime_seconds",
            ),
            (r#""report_data":"any","cert_table":"?""#.to_owned(), "cert_table"),
        ] {
            let refusal = refused(&format!(r#"{{"evidence":"{evidence}",{more}}}"#));
            assert!(matches!(refusal, Refusal::Field { field: found, .. } if found == field), "{more}: {refusal}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused_without_reading_on() {
        let evidence = report();
        for body in ["", "{", "[]", "null", "{}", r#"{"evidence":1}"#] {
            assert!(matches!(refused(body), Refusal::Malformed(_)), "{body}");
        }
        let with = |more: &str| refused(&format!(r#"{{"evidence":"{evidence}","report_data":"any",{more}}}"#));
        for more in [
            r#""skip_checks":true"#,
            r#""report_data":"any""#,
            r#""policy":null,"policy":"strict""#,
            &format!(r#""certificates":[{}]"#, [r#""""#; MAX_CERTIFICATES + 1].join(",")),
            &format!(r#""crls":[{}]"#, [r#""""#; MAX_CRLS + 1].join(",")),
        ] {
            assert!(matches!(with(more), Refusal::Malformed(_)), "{more}");
        }
        assert!(matches!(with(r#""certificates":["AAAA"]"#), Refusal::Endorsement { field: "certificates", .. }));
        assert!(matches!(with(r#""crls":["-----BEGIN X"]"#), Refusal::Endorsement { field: "crls", .. }));
        assert!(matches!(refused(r#"{"evidence":"AAAA","report_data":"any"}"#), Refusal::Evidence(_)));
        for more in [r#""certificates":"SECRET""#, r#""token":"a\", expected SECRET""#, r#""crls":["SECRET", 1]"#] {
            let words = with(more).to_string();
            assert!(!words.contains("SECRET") && words.contains("line 1"), "{words}");
        }
        let words = refused(&format!(r#"{{"{}\u001b":1}}"#, "x".repeat(4000))).to_string();
        assert!(words.len() < 300 && !words.contains('\u{1b}'), "{words}");
    }

    #[test]
    fn what_is_written_otherwise_is_told_in_the_interfaces_words() {
        let evidence = report();
        let batch_of = |body: &str| batch(body.as_bytes()).err().unwrap();
        for (refusal, words) in [
            (batch_of("[]"), "expected an object with requests, a list of 1 to 64"),
            (batch_of("7"), "expected an object with requests, a list of 1 to 64"),
            (batch_of("[[]]"), "expected an object with requests"),
            (batch_of("{}"), "missing field `requests`"),
            (batch_of(r#"{"requests":[]}"#), "requests is not a list of 1 to 64 requests"),
            (batch_of(r#"{"requests":[[]]}"#), "expected a request, which is an object with evidence"),
            (batch_of(r#"{"requests":{}}"#), "expected a list of at most 64"),
            (batch_of(r#"{"requests":[{"evidence":""},{"evidence":7}]}"#), "[1]: invalid type: integer `7`"),
            (refused(r#"{"evidence":"","crls":["",[]]}"#), "[1]: invalid type: sequence"),
            (refused("[]"), "expected a request, which is an object with evidence"),
            // In their order, without their names.
            (refused(&format!(r#"["{evidence}","",[],[],"any"]"#)), "expected a request"),
            (
                refused(&format!(r#"{{"evidence":"{evidence}","report_data":"any","token":["a"]}}"#)),
                "expected an object with audience",
            ),
        ] {
            let said = refusal.to_string();
            assert!(said.contains(words) && !said.contains("struct") && !said.contains("Wire"), "{said}");
        }
    }

    #[test]
    fn a_batch_is_bounded_and_each_request_is_its_own() {
        let good = format!(r#"{{"evidence":"{}","report_data":"any"}}"#, report());
        let of = |requests: &[&str]| batch(format!(r#"{{"requests":[{}]}}"#, requests.join(",")).as_bytes());
        let three = of(&[&good, r#"{"evidence":"?","report_data":"any"}"#, &good]).unwrap();
        assert_eq!(three.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(of(&vec![good.as_str(); MAX_BATCH]).unwrap().len(), MAX_BATCH);
        assert!(matches!(of(&vec![good.as_str(); MAX_BATCH + 1]), Err(Refusal::Malformed(_))));
        assert!(matches!(of(&[]), Err(Refusal::Field { field: "requests", .. })));
        assert!(matches!(of(&["{}"]), Err(Refusal::Malformed(_))));
    }

    #[test]
    fn a_table_stands_beside_evidence_that_has_none() {
        let body = |evidence: &[u8]| {
            let (evidence, table) = (STANDARD.encode(evidence), STANDARD.encode([0; 24]));
            format!(r#"{{"evidence":"{evidence}","report_data":"any","cert_table":"{table}"}}"#)
        };
        assert_eq!(one(body(&[2; 1184]).as_bytes()).ok().unwrap().presented.evidence().cert_table, [0; 24]);
        let full = coffer_verifier::Evidence { cert_table: vec![1], ..Default::default() }.to_cmw();
        assert!(matches!(refused(&body(&full)), Refusal::Field { field: "cert_table", .. }));
    }
}
