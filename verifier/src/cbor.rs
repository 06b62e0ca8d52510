//! The CBOR (RFC 8949) that is needed here: definite, minimal lengths; no floats or indefinite items. Tags are written, never read.

/// Major type 0.
pub const UNSIGNED: u8 = 0;
/// Major type 1; its argument is -1 less the number.
pub const NEGATIVE: u8 = 1;
/// Major type 2.
pub const BYTES: u8 = 2;
/// Major type 3.
pub const TEXT: u8 = 3;
/// Major type 4.
pub const ARRAY: u8 = 4;
/// Major type 5.
pub const MAP: u8 = 5;
/// Major type 6; the item it is about follows.
pub const TAG: u8 = 6;

/// Writes the head of an item: major type and argument.
pub fn write_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    let bytes = argument.to_be_bytes();
    match argument {
        0..=0x17 => out.push(major | argument as u8),
        0x18..=0xff => out.extend_from_slice(&[major | 0x18, bytes[7]]),
        0x100..=0xffff => {
            out.push(major | 0x19);
            out.extend_from_slice(&bytes[6..]);
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 0x1a);
            out.extend_from_slice(&bytes[4..]);
        }
        _ => {
            out.push(major | 0x1b);
            out.extend_from_slice(&bytes);
        }
    }
}

/// Writes a byte string.
pub fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_head(out, BYTES, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes a text string.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    write_head(out, TEXT, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Reads items off a slice.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Starts at the front.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Everything read.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Argument of the next head, if it is of this major type and minimal.
    pub fn head(&mut self, major: u8) -> Option<u64> {
        let first = *self.take(1)?.first()?;
        if first >> 5 != major {
            return None;
        }
        let (argument, least) = match first & 0x1f {
            small @ 0..=23 => (u64::from(small), 0),
            24 => (self.number(1)?, 0x18),
            25 => (self.number(2)?, 0x100),
            26 => (self.number(4)?, 0x1_0000),
            27 => (self.number(8)?, 0x1_0000_0000),
            _ => return None,
        };
        (argument >= least).then_some(argument)
    }

    /// Content of the next byte or text string.
    pub fn string(&mut self, major: u8) -> Option<&'a [u8]> {
        let length = usize::try_from(self.head(major)?).ok()?;
        self.take(length)
    }

    fn number(&mut self, width: usize) -> Option<u64> {
        Some(self.take(width)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head)
    }
}
