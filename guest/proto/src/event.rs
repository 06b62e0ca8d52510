//! Events from guest to host: u32 big-endian length, then one [`Event`]. The host never answers.

use prost::Message as _;

use crate::Event;

/// Longest encoded event in bytes; a longer length prefix is refused before anything is read or allocated.
pub const LIMIT: usize = 16 * 1024;

/// Why a frame is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// Longer than an event may be.
    #[error("event frame states {found} bytes, more than {LIMIT}")]
    TooLong {
        /// Bytes stated.
        found: usize,
    },
    /// Not a protobuf `Event`.
    #[error("event frame does not decode: {0}")]
    Malformed(String),
}

/// One frame, ready to be written. `detail` is cut to what fits.
pub fn encode(event: &Event) -> Vec<u8> {
    let mut event = event.clone();
    let mut room = LIMIT / 2;
    while !event.detail.is_char_boundary(room.min(event.detail.len())) {
        room -= 1;
    }
    event.detail.truncate(room);
    let body = event.encode_to_vec();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend_from_slice(&body);
    frame
}

/// Reads frames out of a stream of bytes, however it was cut.
#[derive(Debug, Default)]
pub struct EventReader {
    pending: Vec<u8>,
}

impl EventReader {
    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole event, if there is one.
    ///
    /// # Errors
    /// [`EventError`]; the line is of no use after it.
    pub fn next_event(&mut self) -> Result<Option<Event>, EventError> {
        let Some((prefix, rest)) = self.pending.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > LIMIT {
            return Err(EventError::TooLong { found: length });
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let event = Event::decode(body).map_err(|e| EventError::Malformed(e.to_string()))?;
        self.pending.drain(..4 + length);
        Ok(Some(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Phase;

    fn event(detail: &str) -> Event {
        Event {
            phase: Phase::Failed.into(),
            since_boot_us: 7,
            code: "x".into(),
            detail: detail.into(),
            ..Event::default()
        }
    }

    #[test]
    fn reads_back_what_it_wrote_byte_by_byte() {
        let events = [event("one"), event(""), event("three")];
        let bytes: Vec<u8> = events.iter().flat_map(encode).collect();
        let (mut reader, mut seen) = (EventReader::default(), Vec::new());
        for byte in bytes {
            reader.push(&[byte]);
            while let Some(event) = reader.next_event().unwrap() {
                seen.push(event);
            }
        }
        assert_eq!(seen, events);
    }

    #[test]
    fn refuses_a_length_over_the_limit_before_the_bytes_came() {
        let mut reader = EventReader::default();
        reader.push(&u32::MAX.to_be_bytes());
        assert_eq!(reader.next_event(), Err(EventError::TooLong { found: u32::MAX as usize }));
    }

    #[test]
    fn refuses_bytes_that_are_no_event() {
        let mut reader = EventReader::default();
        reader.push(&[0, 0, 0, 2, 0xff, 0xff]);
        assert!(matches!(reader.next_event(), Err(EventError::Malformed(_))));
    }

    #[test]
    fn a_long_detail_is_cut_between_characters_and_still_fits() {
        let long = event(&"ä".repeat(LIMIT));
        let frame = encode(&long);
        assert!(frame.len() <= LIMIT + 4);
        let mut reader = EventReader::default();
        reader.push(&frame);
        assert!(reader.next_event().unwrap().unwrap().detail.chars().all(|c| c == 'ä'));
    }
}
