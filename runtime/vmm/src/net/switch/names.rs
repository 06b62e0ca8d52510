//! Questions for names that the switch answers itself.
//!
//! A question is one name of class IN, uncompressed; of anything else there is none here. An answer carries the question again, and an
//! address if it asks for one of IPv4.
//! Source: RFC 1035 §4.1, §2.3.4; RFC 6891 §7 (a server may ignore what stands behind the question).

use std::net::Ipv4Addr;

/// Bytes of a message's header.
const HEADER: usize = 12;
/// Longest label, and longest name as it stands in a message.
const LONGEST_LABEL: usize = 63;
const LONGEST_NAME: usize = 255;
/// Types of records.
const ADDRESS: u16 = 1;
const INTERNET: u16 = 1;
/// Seconds for which an answer holds: a box of this name may be another in a moment.
const HOLDS: u32 = 1;
/// Flags of an answer: it is one, and recursion is there.
const ANSWER: u16 = 0x8080;
const RECURSION: u16 = 0x0100;
const NO_SUCH_NAME: u16 = 3;

/// A question for a name.
#[derive(Debug)]
pub struct Question<'a> {
    id: [u8; 2],
    recursion: u16,
    /// In lower case, without a dot at its end.
    pub name: String,
    kind: u16,
    /// As it stands in the message.
    wire: &'a [u8],
}

impl<'a> Question<'a> {
    /// Reads a message.
    pub fn parse(message: &'a [u8]) -> Option<Self> {
        let (header, body) = message.split_first_chunk::<HEADER>()?;
        let flags = u16::from_be_bytes([header[2], header[3]]);
        // Neither an answer nor another operation, and one question.
        if flags & 0xF800 != 0 || header[4..6] != [0, 1] || header[6..10] != [0; 4] {
            return None;
        }
        let mut name = String::new();
        let mut at = 0;
        loop {
            let length = usize::from(*body.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            let label = body.get(at..at + length).filter(|_| length <= LONGEST_LABEL)?;
            at += length;
            if at >= LONGEST_NAME || !label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.') {
                return None;
            }
            if !name.is_empty() {
                name.push('.');
            }
            name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        }
        let [k0, k1, c0, c1] = *body.get(at..)?.first_chunk()?;
        let is_internet = u16::from_be_bytes([c0, c1]) == INTERNET;
        (is_internet && !name.is_empty()).then_some(Self {
            id: [header[0], header[1]],
            recursion: flags & RECURSION,
            name,
            kind: u16::from_be_bytes([k0, k1]),
            wire: &body[..at + 4],
        })
    }

    /// The name is a box's. Who asks for anything but its address hears that there is a name and no more.
    pub fn answer(&self, address: Ipv4Addr) -> Vec<u8> {
        let address = (self.kind == ADDRESS).then_some(address);
        let mut message = self.begin(0, address.is_some().into());
        if let Some(address) = address {
            // The name of the question, by where it stands.
            message.extend([0xC0, HEADER as u8]);
            message.extend(ADDRESS.to_be_bytes());
            message.extend(INTERNET.to_be_bytes());
            message.extend(HOLDS.to_be_bytes());
            message.extend([0, 4]);
            message.extend(address.octets());
        }
        message
    }

    /// There is no such name.
    pub fn no_such_name(&self) -> Vec<u8> {
        self.begin(NO_SUCH_NAME, 0)
    }

    fn begin(&self, code: u16, answers: u16) -> Vec<u8> {
        let mut message = self.id.to_vec();
        message.extend((ANSWER | self.recursion | code).to_be_bytes());
        message.extend([0, 1]);
        message.extend(answers.to_be_bytes());
        message.extend([0; 4]);
        message.extend(self.wire);
        message
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As resolvers ask.
    pub fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0xAB, 0xCD, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(label.len() as u8);
            message.extend(label.bytes());
        }
        message.push(0);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message
    }

    #[test]
    fn a_name_is_read_in_lower_case_and_answered_with_its_question() {
        let asked = question("Db.App", 1);
        let read = Question::parse(&asked).unwrap();
        assert_eq!(read.name, "db.app");
        let answer = read.answer([10, 89, 0, 3].into());
        assert_eq!(answer[..12], [0xAB, 0xCD, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(answer[12..asked.len()], asked[12..]);
        assert_eq!(answer[asked.len()..], [0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 10, 89, 0, 3]);
        assert_eq!(read.no_such_name()[..8], [0xAB, 0xCD, 0x81, 0x83, 0, 1, 0, 0]);
        let of_v6 = question("db", 28);
        let none = Question::parse(&of_v6).unwrap().answer([10, 89, 0, 3].into());
        assert_eq!((&none[2..8], none.len()), (&[0x81, 0x80, 0, 1, 0, 0][..], of_v6.len()));
        // What stands behind the question is no concern of ours.
        let more = [&question("db", 1)[..], &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(Question::parse(&more).unwrap().name, "db");
    }

    #[test]
    fn what_is_no_single_question_is_none_of_ours() {
        let good = question("db.app", 1);
        for end in 0..good.len() {
            assert!(Question::parse(&good[..end]).is_none(), "{end}");
        }
        let with = |at: usize, byte: u8| {
            let mut other = good.clone();
            other[at] = byte;
            Question::parse(&other).is_none()
        };
        assert!(with(2, 0x81), "an answer");
        assert!(with(2, 0x28), "an update");
        assert!(with(5, 2) && with(5, 0) && with(7, 1) && with(9, 1), "more or less than a question");
        assert!(with(12, 0xC0), "a name that is elsewhere");
        assert!(with(13, b'.') && with(13, 0xFF), "a dot in a label, and what is no letter");
        assert!(with(good.len() - 1, 3), "another class");
        assert!(Question::parse(&question(&["a"; 127].join("."), 1)).is_some());
        assert!(Question::parse(&question(&["a"; 128].join("."), 1)).is_none());
        assert!(Question::parse(&[&[0; 5][..], &[1], &[0; 7], &[0, 1, 0, 1]].concat()).is_none(), "the root");
    }
}
