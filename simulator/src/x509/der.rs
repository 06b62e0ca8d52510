//! A small DER writer on crate `der`: just what AMD's certificates need.

use core::time::Duration;

use der::asn1::{AnyRef, BitStringRef, GeneralizedTime, ObjectIdentifier, OctetStringRef, UintRef, UtcTime};
use der::{DateTime, Encode, Tag, TagNumber};

/// A value that DER cannot hold, such as a date before 1970.
pub type DerError = der::Error;

type Bytes = Result<Vec<u8>, DerError>;

/// Any tag around any content.
pub fn tagged(tag: Tag, content: &[u8]) -> Bytes {
    AnyRef::new(tag, content)?.to_der()
}

/// SEQUENCE of what was encoded before.
pub fn sequence(parts: &[&[u8]]) -> Bytes {
    tagged(Tag::Sequence, &parts.concat())
}

/// SET of one element.
pub fn set_of_one(part: &[u8]) -> Bytes {
    tagged(Tag::Set, part)
}

/// Explicit `[number]`.
pub fn explicit(number: u32, content: &[u8]) -> Bytes {
    tagged(Tag::ContextSpecific { constructed: true, number: TagNumber(number) }, content)
}

/// Implicit primitive `[number]`.
pub fn implicit(number: u32, content: &[u8]) -> Bytes {
    tagged(Tag::ContextSpecific { constructed: false, number: TagNumber(number) }, content)
}

/// INTEGER from big-endian unsigned bytes.
pub fn integer(big_endian: &[u8]) -> Bytes {
    UintRef::new(big_endian)?.to_der()
}

/// OBJECT IDENTIFIER from its dotted form.
pub fn oid(dotted: &str) -> Bytes {
    ObjectIdentifier::new(dotted).map_err(|_| der::ErrorKind::OidMalformed)?.to_der()
}

/// UTF8String.
pub fn utf8(text: &str) -> Bytes {
    tagged(Tag::Utf8String, text.as_bytes())
}

/// PrintableString.
pub fn printable(text: &str) -> Bytes {
    tagged(Tag::PrintableString, text.as_bytes())
}

/// IA5String.
pub fn ia5(text: &str) -> Bytes {
    tagged(Tag::Ia5String, text.as_bytes())
}

/// BOOLEAN TRUE.
pub fn yes() -> Bytes {
    true.to_der()
}

/// NULL.
pub fn null() -> Bytes {
    tagged(Tag::Null, &[])
}

/// OCTET STRING.
pub fn octets(content: &[u8]) -> Bytes {
    OctetStringRef::new(content)?.to_der()
}

/// BIT STRING, its last `unused` bits not counted.
pub fn bits(unused: u8, content: &[u8]) -> Bytes {
    BitStringRef::new(unused, content)?.to_der()
}

/// UTCTime through 2049, GeneralizedTime after (RFC 5280 §4.1.2.5). `unix`: seconds.
pub fn time(unix: u64) -> Bytes {
    let moment = DateTime::from_unix_duration(Duration::from_secs(unix))?;
    if moment.year() < 2050 {
        UtcTime::from_date_time(moment)?.to_der()
    } else {
        GeneralizedTime::from_date_time(moment).to_der()
    }
}

/// PEM text with `label`, as OpenSSL writes it.
pub fn pem(label: &'static str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut body = String::new();
    for (index, group) in der.chunks(3).enumerate() {
        if index > 0 && index % 16 == 0 {
            body.push('\n');
        }
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for position in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * position) & 63) as usize];
            body.push(if position > group.len() { '=' } else { char::from(digit) });
        }
    }
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_minimal_and_positive() {
        assert_eq!(integer(&[0]).unwrap(), [2, 1, 0]);
        assert_eq!(integer(&[0, 0xdb]).unwrap(), [2, 2, 0, 0xdb]);
        assert_eq!(integer(&[1, 0, 1]).unwrap(), [2, 3, 1, 0, 1]);
    }

    #[test]
    fn times_change_form_in_2050() {
        assert_eq!(time(0).unwrap(), b"\x17\x0d700101000000Z");
        assert_eq!(time(2_524_607_999).unwrap(), b"\x17\x0d491231235959Z");
        assert_eq!(time(2_524_608_000).unwrap(), b"\x18\x0f20500101000000Z");
    }

    #[test]
    fn pem_is_base64_in_lines_of_64() {
        assert_eq!(pem("X", b"any carnal pleas"), "-----BEGIN X-----\nYW55IGNhcm5hbCBwbGVhcw==\n-----END X-----\n");
        assert_eq!(pem("X", &[0; 49]).lines().nth(1).unwrap().len(), 64);
    }
}
