//! What bytes look like, for whoever gave others than were due: said in a message, and nothing else rests on it.
//!
//! Trusts: nothing. Never: reads further than it takes to tell one kind from another, repeats a byte of what it saw.

use core::fmt;

use crate::{
    Evidence,
    abi::{CertTable, REPORT_LEN},
    der,
};

/// What bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Look {
    /// No byte.
    Empty,
    /// HTML, as proxies and portals answer.
    Html,
    /// XML.
    Xml,
    /// An object or a list.
    Json,
    /// A signed token in its compact form.
    Token,
    /// X.509, DER or PEM.
    Certificate,
    /// X.509's list, DER or PEM.
    RevocationList,
    /// DER or PEM.
    PrivateKey,
    /// PEM.
    PublicKey,
    /// PEM with another label.
    Pem,
    /// SEQUENCE of something else.
    Der,
    /// As bundles of policies are.
    Gzip,
    /// POSIX's, not compressed.
    Tar,
    /// 1184 bytes that begin as a report does.
    Report,
    /// Of the extended report.
    CertTable,
    /// Azure's.
    Hcl,
    /// A record of ours.
    Cmw,
    /// ELF.
    Program,
    /// Hexadecimal digits and line ends, as `xxd -p` writes them.
    Hex,
    /// Base64 or base64url and line ends.
    Base64,
    /// UTF-8.
    Text,
    /// None of these.
    Bytes,
}

impl Look {
    /// Looks at bytes.
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self::Empty;
        }
        if bytes.len() == REPORT_LEN && matches!(bytes, [2..=5, 0, 0, 0, ..]) {
            return Self::Report;
        }
        if CertTable::is_one(bytes) {
            return Self::CertTable;
        }
        if bytes.starts_with(b"\x1f\x8b") {
            return Self::Gzip;
        }
        if bytes.get(TAR_MAGIC_AT..).is_some_and(|rest| rest.starts_with(b"ustar")) {
            return Self::Tar;
        }
        if bytes.starts_with(b"\x7fELF") {
            return Self::Program;
        }
        if bytes.starts_with(HCL_MAGIC) {
            return Self::Hcl;
        }
        if Evidence::is_cmw(bytes) {
            return Self::Cmw;
        }
        // Before DER: a digit may be the byte that begins one.
        if let Some(look) = of_digits(&bytes[..bytes.len().min(HEAD)]) {
            return look;
        }
        if bytes[0] == der::SEQUENCE
            && let Some(look) = of_der(bytes)
        {
            return look;
        }
        // The beginning says enough of a text; a character may be cut there.
        let head = &bytes[..bytes.len().min(HEAD)];
        match core::str::from_utf8(head) {
            Ok(text) => of_text(text),
            Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
                of_text(core::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default())
            }
            Err(_) => Self::Bytes,
        }
    }

    /// In words, with an article.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Empty => "nothing at all",
            Self::Html => "a page of HTML",
            Self::Xml => "an XML text",
            Self::Json => "a JSON text",
            Self::Token => "a token (JWT)",
            Self::Certificate => "a certificate",
            Self::RevocationList => "a revocation list",
            Self::PrivateKey => "a private key",
            Self::PublicKey => "a public key",
            Self::Pem => "PEM text of another kind",
            Self::Der => "DER of another kind",
            Self::Gzip => "a gzip archive",
            Self::Tar => "a tar archive that is not compressed",
            Self::Report => "an attestation report",
            Self::CertTable => "a certificate table",
            Self::Hcl => "an Azure HCL blob",
            Self::Cmw => "a CMW record",
            Self::Program => "a program (ELF)",
            Self::Hex => "a text of hexadecimal digits",
            Self::Base64 => "a text in base64",
            Self::Text => "a text",
            Self::Bytes => "bytes of no known form",
        }
    }
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// How Azure's blobs begin.
pub(crate) const HCL_MAGIC: &[u8] = b"HCLA";
/// Bytes of a text that are looked at.
const HEAD: usize = 4096;
/// Where a header of tar says what it is.
const TAR_MAGIC_AT: usize = 257;
/// Digits that are no mere word.
const FEWEST_DIGITS: usize = 64;

/// Digits and line ends alone, as tools write bytes that are to be read.
fn of_digits(head: &[u8]) -> Option<Look> {
    let digits = || head.iter().filter(|byte| !matches!(byte, b'\n' | b'\r'));
    if digits().count() < FEWEST_DIGITS {
        return None;
    }
    if digits().all(u8::is_ascii_hexdigit) {
        return Some(Look::Hex);
    }
    digits()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'='))
        .then_some(Look::Base64)
}

fn of_text(text: &str) -> Look {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let begins = |with: &str| text.get(..with.len()).is_some_and(|head| head.eq_ignore_ascii_case(with));
    if let Some(rest) = text.strip_prefix("-----BEGIN ") {
        let label = rest.split("-----").next().unwrap_or_default();
        return match label {
            "CERTIFICATE" => Look::Certificate,
            "X509 CRL" => Look::RevocationList,
            label if label.ends_with("PRIVATE KEY") => Look::PrivateKey,
            label if label.ends_with("PUBLIC KEY") => Look::PublicKey,
            _ => Look::Pem,
        };
    }
    if begins("<!doctype html") || begins("<html") || begins("<head") || begins("<body") {
        return Look::Html;
    }
    if begins("<?xml") {
        return Look::Xml;
    }
    if text.starts_with('{') || text.starts_with('[') && !text.contains('=') {
        return Look::Json;
    }
    if text.starts_with("eyJ") && text.contains('.') {
        return Look::Token;
    }
    if text.contains(|c: char| c.is_control() && !c.is_ascii_whitespace()) { Look::Bytes } else { Look::Text }
}

/// A certificate's first inner SEQUENCE begins with its version, a list's holds a date behind two SEQUENCEs, a key's outer one begins
/// with a number. None of what is whole in no length of this form.
fn of_der(mut bytes: &[u8]) -> Option<Look> {
    let mut inside = der::next(&mut bytes)?.content;
    let first = der::next(&mut inside)?;
    Some(match first.tag {
        der::INTEGER => Look::PrivateKey,
        der::SEQUENCE => {
            let mut signed = first.content;
            let tags: Vec<u8> = core::iter::from_fn(|| der::next(&mut signed)).map(|one| one.tag).take(4).collect();
            match tags[..] {
                [der::CONTEXT_0, der::INTEGER, ..] => Look::Certificate,
                [der::INTEGER, der::SEQUENCE, der::SEQUENCE, UTC_TIME | GENERALIZED_TIME]
                | [der::SEQUENCE, der::SEQUENCE, UTC_TIME | GENERALIZED_TIME, ..] => Look::RevocationList,
                [OBJECT_IDENTIFIER, ..] => Look::PublicKey,
                _ => Look::Der,
            }
        }
        _ => Look::Der,
    })
}

const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_by_mistake_has_a_name() {
        let report = {
            let mut bytes = vec![0; REPORT_LEN];
            bytes[0] = 3;
            bytes
        };
        let mut tar = b"policy.rego".to_vec();
        tar.resize(512, 0);
        tar[TAR_MAGIC_AT..TAR_MAGIC_AT + 5].copy_from_slice(b"ustar");
        let table = CertTable::write(&[(crate::abi::CertKind::Vlek, b"leaf")]);
        let hex = hex::encode(&report);
        let base64 = [b"AwAAAAAA\n".repeat(20), b"==\n".to_vec()].concat();
        let cases: [(&[u8], Look); 25] = [
            (&tar, Look::Tar),
            (&table, Look::CertTable),
            (hex.as_bytes(), Look::Hex),
            (&base64, Look::Base64),
            (b"", Look::Empty),
            (b"\n <!DOCTYPE html><html>", Look::Html),
            (b"<HTML><body>", Look::Html),
            (b"<?xml version=\"1.0\"?>", Look::Xml),
            (b" {\"a\": 1}", Look::Json),
            (b"[1, 2]", Look::Json),
            (b"[[tcb]]\nproduct = \"Milan\"", Look::Text),
            (b"eyJhbGciOiJFUzM4NCJ9.e30.c2ln", Look::Token),
            (b"-----BEGIN EC PRIVATE KEY-----", Look::PrivateKey),
            (b"-----BEGIN PRIVATE KEY-----", Look::PrivateKey),
            (b"-----BEGIN PUBLIC KEY-----", Look::PublicKey),
            (b"-----BEGIN CERTIFICATE-----", Look::Certificate),
            (b"-----BEGIN X509 CRL-----", Look::RevocationList),
            (b"-----BEGIN PGP MESSAGE-----", Look::Pem),
            (b"\x1f\x8b\x08", Look::Gzip),
            (b"\x7fELF", Look::Program),
            (b"HCLA", Look::Hcl),
            (b"\x30\x03\x02\x01\x00", Look::PrivateKey),
            (b"hello", Look::Text),
            (b"\xff\xfe\x00", Look::Bytes),
            (&report, Look::Report),
        ];
        for (bytes, look) in cases {
            assert_eq!(Look::of(bytes), look, "{bytes:?}");
        }
        assert_eq!(Look::of(include_bytes!("../data/milan_ark.der")), Look::Certificate);
        // A character that the look ends in is no other kind of file.
        let long = "a".repeat(HEAD - 1) + "ü";
        assert_eq!(Look::of(long.as_bytes()), Look::Text);
    }
}
