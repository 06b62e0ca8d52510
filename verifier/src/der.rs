//! Reads the DER that certificates are split at and AMD's extensions are made of. Definite lengths, minimal, nothing else.

/// INTEGER.
pub const INTEGER: u8 = 0x02;
/// BIT STRING.
pub const BIT_STRING: u8 = 0x03;
/// OCTET STRING.
pub const OCTET_STRING: u8 = 0x04;
/// IA5String.
pub const IA5_STRING: u8 = 0x16;
/// SEQUENCE.
pub const SEQUENCE: u8 = 0x30;
/// Explicit `[0]`.
pub const CONTEXT_0: u8 = 0xa0;

/// One element: its tag, its content, and all of its bytes.
#[derive(Clone, Copy)]
pub struct Element<'a> {
    pub tag: u8,
    pub content: &'a [u8],
    pub raw: &'a [u8],
}

/// Takes the next element off `bytes`.
pub fn next<'a>(bytes: &mut &'a [u8]) -> Option<Element<'a>> {
    let input = *bytes;
    let (&[tag, first], rest) = input.split_first_chunk::<2>()?;
    let (length, header) = match first {
        0..=0x7f => (usize::from(first), 2),
        0x81 => (usize::from(*rest.first()?), 3),
        0x82 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
        _ => return None,
    };
    let minimal = match header {
        3 => length >= 0x80,
        4 => length >= 0x100,
        _ => true,
    };
    if !minimal {
        return None;
    }
    let raw = input.get(..header + length)?;
    *bytes = &input[raw.len()..];
    Some(Element { tag, content: &raw[header..], raw })
}

/// Takes the next element if it has this tag.
pub fn expect<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<Element<'a>> {
    next(bytes).filter(|element| element.tag == tag)
}

/// The content, if `bytes` is exactly one element of this tag.
pub fn only(mut bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let element = expect(&mut bytes, tag)?;
    bytes.is_empty().then_some(element.content)
}

/// An INTEGER of 0 to 255, minimally encoded (200 = 02 02 00 C8).
pub fn small_integer(bytes: &[u8]) -> Option<u8> {
    match *only(bytes, INTEGER)? {
        [value] if value < 0x80 => Some(value),
        [0, value] if value >= 0x80 => Some(value),
        _ => None,
    }
}

/// The three parts of a signed X.509 structure: signed bytes, raw algorithm identifier, signature.
pub struct Signed<'a> {
    pub tbs: Element<'a>,
    pub algorithm: &'a [u8],
    pub signature: &'a [u8],
}

/// Splits a certificate or CRL; refuses trailing bytes.
pub fn signed(bytes: &[u8]) -> Option<Signed<'_>> {
    let mut body = only(bytes, SEQUENCE)?;
    let tbs = expect(&mut body, SEQUENCE)?;
    let algorithm = expect(&mut body, SEQUENCE)?.raw;
    let signature = only(body, BIT_STRING)?.strip_prefix(&[0])?;
    Some(Signed { tbs, algorithm, signature })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_integers_are_minimal_and_in_range() {
        assert_eq!(small_integer(&[2, 1, 0x73]), Some(0x73));
        assert_eq!(small_integer(&[2, 2, 0, 0xc8]), Some(200));
        for bad in [&[2, 1, 0xc8][..], &[2, 2, 0, 0x73], &[2, 2, 1, 0], &[2, 1, 1, 0], &[2, 0], &[4, 1, 1], &[2, 1]] {
            assert_eq!(small_integer(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn lengths_are_minimal_and_inside() {
        let padded = |head: &[u8], length: usize| [head, &vec![5; length]].concat();
        assert!(only(&padded(&[0x30, 0x81, 0x80], 0x80), SEQUENCE).is_some());
        assert!(only(&padded(&[0x30, 0x81, 0x7f], 0x7f), SEQUENCE).is_none(), "one byte too long");
        assert!(only(&padded(&[0x30, 0x82, 1, 0], 0x100), SEQUENCE).is_some());
        assert!(only(&padded(&[0x30, 0x82, 0, 0xff], 0xff), SEQUENCE).is_none(), "one byte too long");
        assert!(only(&padded(&[0x30, 0x83, 0, 1, 0], 0x100), SEQUENCE).is_none(), "nothing here is that long");
        assert!(only(&[0x30, 0x80], SEQUENCE).is_none());
        assert!(only(&[0x30, 0x82, 0xff, 0xff, 0], SEQUENCE).is_none());
        assert_eq!(only(&[0x30, 1, 5], SEQUENCE), Some(&[5][..]));
        assert!(only(&[0x31, 1, 5], SEQUENCE).is_none(), "another tag");
    }

    #[test]
    fn a_signed_structure_has_three_parts_and_whole_bytes_of_signature() {
        let good = [0x30, 9, 0x30, 0, 0x30, 0, 3, 3, 0, 7, 8];
        assert_eq!(signed(&good).unwrap().signature, [7, 8]);
        let with = |at: usize, byte: u8| {
            let mut bytes = good;
            bytes[at] = byte;
            signed(&bytes).is_none()
        };
        assert!(with(8, 1), "an unused bit");
        assert!(with(2, 0x31) && with(4, 0x31) && with(6, 4), "another tag");
        assert!(signed(&[0x30, 10, 0x30, 0, 0x30, 0, 3, 2, 0, 7, 5, 0]).is_none(), "a fourth part");
        assert!(signed(&[&good[..], &[0]].concat()).is_none(), "a trailing byte");
    }
}
