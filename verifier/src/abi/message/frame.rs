//! How message pages travel over the vsock line to a simulated processor (host port 0xF0000001).
//!
//! Guest to host: `u8 kind ‖ 4096-byte page`. Host to guest: `u64 BE exitinfo2 ‖ 4096-byte page ‖ u32 BE length ‖ certificate
//! table`. Many exchanges per connection, strictly one after the other.

use super::{MESSAGE_PAGE, MessagePage};

/// SNP_GUEST_REQUEST.
pub const KIND_REQUEST: u8 = 0;
/// Extended guest request: the host adds its certificate table.
pub const KIND_EXTENDED: u8 = 1;
/// Bytes of a request frame.
pub const REQUEST_FRAME: usize = 1 + MESSAGE_PAGE;
/// Bytes of an answer before its certificate table.
pub const ANSWER_HEAD: usize = 8 + MESSAGE_PAGE + 4;
/// Largest certificate table carried.
pub const MAX_CERT_TABLE: usize = 64 * 1024;
/// High half of EXITINFO2: the host asks to try the same page again.
pub const VMM_BUSY: u32 = 2;

/// Why bytes are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Neither a plain nor an extended request.
    #[error("request kind {0} is unknown")]
    Kind(u8),
    /// Certificate table beyond [`MAX_CERT_TABLE`].
    #[error("certificate table of {0} bytes is too large")]
    TooLarge(usize),
}

/// What the host answers to one page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineAnswer {
    /// EXITINFO2: low half the firmware's error, high half the VMM's; zero is success.
    pub exitinfo2: u64,
    /// Response page, meaningful on success.
    pub page: Box<MessagePage>,
    /// Certificate table of an extended request, else empty.
    pub cert_table: Vec<u8>,
}

impl LineAnswer {
    /// The frame.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut frame = Vec::with_capacity(ANSWER_HEAD + self.cert_table.len());
        frame.extend_from_slice(&self.exitinfo2.to_be_bytes());
        frame.extend_from_slice(self.page.as_slice());
        frame.extend_from_slice(&(self.cert_table.len() as u32).to_be_bytes());
        frame.extend_from_slice(&self.cert_table);
        frame
    }

    /// Reads the head of a frame; so many bytes of certificate table follow it.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`].
    pub fn parse_head(head: &[u8; ANSWER_HEAD]) -> Result<(Self, usize), FrameError> {
        let (exitinfo2, rest) = head.split_first_chunk::<8>().expect("the head is longer");
        let (page, length) = rest.split_first_chunk::<MESSAGE_PAGE>().expect("the head is longer");
        let length = u32::from_be_bytes(length.try_into().expect("four bytes remain")) as usize;
        if length > MAX_CERT_TABLE {
            return Err(FrameError::TooLarge(length));
        }
        let exitinfo2 = u64::from_be_bytes(*exitinfo2);
        Ok((Self { exitinfo2, page: Box::new(*page), cert_table: Vec::new() }, length))
    }
}

/// A request frame.
pub fn encode_request(kind: u8, page: &MessagePage) -> Vec<u8> {
    let mut frame = Vec::with_capacity(REQUEST_FRAME);
    frame.push(kind);
    frame.extend_from_slice(page);
    frame
}

/// Kind and page of a request frame.
///
/// # Errors
/// [`FrameError::Kind`].
pub fn decode_request(frame: &[u8; REQUEST_FRAME]) -> Result<(u8, &MessagePage), FrameError> {
    let (kind, page) = frame.split_first().expect("the frame is not empty");
    match *kind {
        KIND_REQUEST | KIND_EXTENDED => Ok((*kind, page.try_into().expect("the rest is one page"))),
        other => Err(FrameError::Kind(other)),
    }
}
