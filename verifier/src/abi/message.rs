//! SNP guest messages: how a guest and its secure processor talk past the host.
//!
//! One message is one 4096-byte page: a header, and a payload sealed by AES-256-GCM under a VMPCK with a sequence number. The
//! guest finds its VMPCKs in the secrets page. [`GuestChannel`] is the guest's end, [`Message::seal`] and [`Message::open`]
//! serve both ends, [`MessageProcessor`] makes a [`SecureProcessor`] of any [`Line`] that carries pages.
//! Trusts: the VMPCK. The host carries the pages and may drop, change, replay or reorder them: all of it is an error.
//! Never: encrypts twice under one sequence number; on any doubt the channel closes and its key is wiped, as in Linux.
//! Source: AMD 56860 (SNP ABI), SNP_GUEST_REQUEST and the guest message structures.

use aes_gcm::{
    Aes256Gcm, KeyInit, Nonce, Tag,
    aead::{AeadInOut, inout::InOutBuf},
};
use secrecy::{ExposeSecret, SecretBox};
use zeroize::Zeroizing;

use super::ProcessorError;

mod frame;
mod processor;
mod requests;
mod secrets_page;

pub use frame::{ANSWER_HEAD, VMM_BUSY, decode_request};
pub use frame::{FrameError, KIND_EXTENDED, KIND_REQUEST, LineAnswer, MAX_CERT_TABLE, REQUEST_FRAME, encode_request};
pub use processor::{Line, MessageProcessor};
pub use requests::{
    KEY_RESPONSE_SIZE, REPORT_RESPONSE_SIZE, RequestError, key_response, parse_key_request, parse_report_request,
    report_response,
};
pub use secrets_page::{SecretsPage, SecretsPageError};

/// Bytes of a message page.
pub const MESSAGE_PAGE: usize = 4096;

/// One message as it crosses the host.
pub type MessagePage = [u8; MESSAGE_PAGE];

/// Key of one VMPL's messages; wiped on drop, never printed.
pub struct Vmpck(SecretBox<[u8; 32]>);

impl Vmpck {
    /// Takes the bytes over.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(SecretBox::new(Box::new(bytes)))
    }

    /// The bytes, for the secrets page.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }
}

/// MSG_TYPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum MessageType {
    CpuidRequest = 1,
    CpuidResponse = 2,
    KeyRequest = 3,
    KeyResponse = 4,
    ReportRequest = 5,
    ReportResponse = 6,
    ExportRequest = 7,
    ExportResponse = 8,
    ImportRequest = 9,
    ImportResponse = 10,
    AbsorbRequest = 11,
    AbsorbResponse = 12,
    VmrkRequest = 13,
    VmrkResponse = 14,
}

impl MessageType {
    const ALL: [Self; 14] = [
        Self::CpuidRequest,
        Self::CpuidResponse,
        Self::KeyRequest,
        Self::KeyResponse,
        Self::ReportRequest,
        Self::ReportResponse,
        Self::ExportRequest,
        Self::ExportResponse,
        Self::ImportRequest,
        Self::ImportResponse,
        Self::AbsorbRequest,
        Self::AbsorbResponse,
        Self::VmrkRequest,
        Self::VmrkResponse,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Why a page is not the message expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// A header field holds what it may not.
    #[error("guest message {field} is {found:#x}, expected {expected:#x}")]
    Header {
        /// Name of the field.
        field: &'static str,
        /// Value it must have.
        expected: u64,
        /// Value found.
        found: u64,
    },
    /// A message type nobody defined.
    #[error("guest message type {0} is unknown")]
    UnknownType(u8),
    /// More than fits the page.
    #[error("guest message payload of {0} bytes exceeds a page")]
    TooLong(usize),
    /// Tag, key or sequence number is wrong: the page was changed, replayed, or meant for another.
    #[error("guest message does not open under its key and sequence number")]
    Sealed,
}

/// An opened message.
pub struct Message {
    /// MSG_SEQNO.
    pub sequence: u64,
    /// MSG_TYPE.
    pub kind: MessageType,
    /// MSG_VERSION.
    pub version: u8,
    /// MSG_VMPCK: which of the four keys.
    pub vmpck: u8,
    /// Plain payload, wiped on drop.
    pub payload: Zeroizing<Vec<u8>>,
}

impl Message {
    /// Seals the message. The caller owes a sequence number never used under this key before.
    ///
    /// # Errors
    /// [`MessageError::TooLong`].
    pub fn seal(&self, key: &Vmpck) -> Result<Box<MessagePage>, MessageError> {
        let too_long = MessageError::TooLong(self.payload.len());
        if self.payload.len() > MESSAGE_PAGE - HEADER {
            return Err(too_long);
        }
        let size = u16::try_from(self.payload.len()).map_err(|_| too_long)?;
        let mut page = Box::new([0; MESSAGE_PAGE]);
        page[SEQUENCE..SEQUENCE + 8].copy_from_slice(&self.sequence.to_le_bytes());
        page[ALGORITHM] = ALGORITHM_AES_256_GCM;
        page[HEADER_VERSION] = 1;
        page[HEADER_SIZE..HEADER_SIZE + 2].copy_from_slice(&(HEADER as u16).to_le_bytes());
        page[TYPE] = self.kind as u8;
        page[VERSION] = self.version;
        page[SIZE..SIZE + 2].copy_from_slice(&size.to_le_bytes());
        page[VMPCK] = self.vmpck;

        let (header, body) = page.split_at_mut(HEADER);
        let body = &mut body[..self.payload.len()];
        body.copy_from_slice(&self.payload);
        let tag = cipher(key)
            .encrypt_inout_detached(&nonce(self.sequence), authenticated(header), InOutBuf::from(body))
            .map_err(|_| MessageError::Sealed)?;
        header[..TAG].copy_from_slice(&tag);
        Ok(page)
    }

    /// Opens a page that must carry `sequence`.
    ///
    /// # Errors
    /// [`MessageError`]; nothing of the payload is shown.
    pub fn open(key: &Vmpck, sequence: u64, page: &MessagePage) -> Result<Self, MessageError> {
        let expect = |field, expected: u64, found: u64| {
            if found == expected { Ok(()) } else { Err(MessageError::Header { field, expected, found }) }
        };
        let found = u64::from_le_bytes(page[SEQUENCE..SEQUENCE + 8].try_into().expect("eight bytes"));
        expect("sequence number", sequence, found)?;
        expect("algorithm", ALGORITHM_AES_256_GCM.into(), page[ALGORITHM].into())?;
        expect("header version", 1, page[HEADER_VERSION].into())?;
        let word = |at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
        expect("header size", HEADER as u64, word(HEADER_SIZE).into())?;
        let size = usize::from(word(SIZE));
        if size > MESSAGE_PAGE - HEADER {
            return Err(MessageError::TooLong(size));
        }
        let kind = MessageType::from_byte(page[TYPE]).ok_or(MessageError::UnknownType(page[TYPE]))?;
        // The tag is as long as AES-GCM's; the field's other half and the reserved bytes outside the AAD are zero.
        let stray = page[TAG..SEQUENCE].iter().chain(&page[SEQUENCE + 8..AAD]).fold(0, |all, byte| all | byte);
        expect("reserved field", 0, stray.into())?;
        let mut payload = Zeroizing::new(page[HEADER..HEADER + size].to_vec());
        let tag: [u8; TAG] = page[..TAG].try_into().expect("sixteen bytes");
        cipher(key)
            .decrypt_inout_detached(
                &nonce(sequence),
                authenticated(page),
                InOutBuf::from(payload.as_mut_slice()),
                &Tag::from(tag),
            )
            .map_err(|_| MessageError::Sealed)?;
        Ok(Self { sequence, kind, version: page[VERSION], vmpck: page[VMPCK], payload })
    }
}

/// The guest's end of one VMPCK: seals requests, opens answers, counts.
///
/// Request n is answered by n + 1 and followed by n + 2; the first is 1. After any answer that does not open, or an exchange
/// given up, the key is wiped and the channel stays closed.
pub struct GuestChannel {
    key: Option<Vmpck>,
    vmpck: u8,
    next: u64,
    waiting: Option<(u64, MessageType)>,
}

impl GuestChannel {
    /// A fresh channel of VMPCK number `vmpck` (0 for VMPL 0).
    pub const fn new(key: Vmpck, vmpck: u8) -> Self {
        Self { key: Some(key), vmpck, next: 1, waiting: None }
    }

    /// Seals a request; its answer must be of the type that follows `kind`.
    ///
    /// # Errors
    /// [`ProcessorError::Line`] if the channel is closed, has an answer outstanding (which closes it) or ran out of numbers.
    pub fn request(
        &mut self,
        kind: MessageType,
        version: u8,
        payload: &[u8],
    ) -> Result<Box<MessagePage>, ProcessorError> {
        if self.waiting.is_some() {
            self.close();
        }
        let answer = MessageType::from_byte(kind as u8 + 1);
        let (Some(key), Some(next), Some(answer)) = (&self.key, self.next.checked_add(2), answer) else {
            return Err(ProcessorError::Line("guest message channel is closed".to_owned()));
        };
        let payload = Zeroizing::new(payload.to_vec());
        let message = Message { sequence: self.next, kind, version, vmpck: self.vmpck, payload };
        let page = message.seal(key).map_err(|_| ProcessorError::Malformed { what: "request payload" })?;
        self.waiting = Some((self.next + 1, answer));
        self.next = next;
        Ok(page)
    }

    /// Opens the answer to the request before.
    ///
    /// # Errors
    /// [`ProcessorError::Malformed`]; the channel is closed then.
    pub fn response(&mut self, page: &MessagePage) -> Result<Zeroizing<Vec<u8>>, ProcessorError> {
        let opened = match (&self.key, self.waiting.take()) {
            (Some(key), Some((sequence, kind))) => Message::open(key, sequence, page)
                .map_err(|error| match error {
                    MessageError::Header { field, .. } => field,
                    MessageError::Sealed => "seal",
                    MessageError::UnknownType(_) => "type",
                    MessageError::TooLong(_) => "size",
                })
                .and_then(|message| match message {
                    Message { kind: found, .. } if found != kind => Err("type"),
                    Message { vmpck, .. } if vmpck != self.vmpck => Err("VMPCK number"),
                    message => Ok(message.payload),
                }),
            _ => Err("answer nobody asked for"),
        };
        opened.map_err(|what| {
            self.close();
            ProcessorError::Malformed { what }
        })
    }

    /// Wipes the key.
    pub fn close(&mut self) {
        self.key = None;
        self.waiting = None;
    }

    /// True after [`GuestChannel::close`] or any failed exchange.
    pub const fn is_closed(&self) -> bool {
        self.key.is_none()
    }
}

/// What the tag covers beside the payload.
fn authenticated(page: &[u8]) -> &[u8] {
    &page[AAD..HEADER]
}

fn cipher(key: &Vmpck) -> Aes256Gcm {
    Aes256Gcm::new(key.expose().into())
}

/// Sequence number, little endian, then zeros.
fn nonce(sequence: u64) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&sequence.to_le_bytes());
    nonce.into()
}

const TAG: usize = 16;
const SEQUENCE: usize = 0x20;
const ALGORITHM: usize = 0x30;
const AAD: usize = ALGORITHM;
const HEADER_VERSION: usize = 0x31;
const HEADER_SIZE: usize = 0x32;
const TYPE: usize = 0x34;
const VERSION: usize = 0x35;
const SIZE: usize = 0x36;
const VMPCK: usize = 0x3c;
const HEADER: usize = 0x60;
const ALGORITHM_AES_256_GCM: u8 = 1;

#[cfg(test)]
mod tests;
