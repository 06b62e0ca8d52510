//! A secure processor at the other end of a line that carries message pages.

use zeroize::Zeroizing;

use super::super::{DerivedKey, ExtendedReport, KeyRequest, ProcessorError, ReportRequest, SecureProcessor};
use super::requests::{parse_key_response, parse_report_response};
use super::{GuestChannel, KIND_EXTENDED, KIND_REQUEST, LineAnswer, MessagePage, MessageType, VMM_BUSY, Vmpck};

/// Carries one page to the secure processor and its answer back; the host in between is not trusted.
pub trait Line: Send {
    /// Sends a page of `kind` ([`KIND_REQUEST`] or [`KIND_EXTENDED`]) and waits for the answer.
    ///
    /// # Errors
    /// [`ProcessorError::Line`] if no answer came; whether the request was served is then unknown.
    fn exchange(&mut self, kind: u8, page: &MessagePage) -> Result<LineAnswer, ProcessorError>;
}

/// A [`SecureProcessor`] over a [`Line`], under one VMPCK.
pub struct MessageProcessor<L> {
    pub(super) channel: GuestChannel,
    line: L,
}

impl<L: Line> MessageProcessor<L> {
    /// Opens the channel of VMPCK number `vmpck`; `key` comes from the secrets page and must not have been used yet.
    pub const fn new(line: L, key: Vmpck, vmpck: u8) -> Self {
        Self { channel: GuestChannel::new(key, vmpck), line }
    }

    fn call(
        &mut self,
        line_kind: u8,
        kind: MessageType,
        version: u8,
        payload: &[u8],
    ) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), ProcessorError> {
        let page = self.channel.request(kind, version, payload)?;
        let answer = self.carry(line_kind, &page).inspect_err(|_| self.channel.close())?;
        let payload = self.channel.response(&answer.page)?;
        Ok((payload, answer.cert_table))
    }

    /// The very same page may go out again: its ciphertext under its sequence number does not change.
    fn carry(&mut self, kind: u8, page: &MessagePage) -> Result<LineAnswer, ProcessorError> {
        for _ in 0..BUSY_ATTEMPTS {
            let answer = self.line.exchange(kind, page)?;
            let (firmware, vmm) = (answer.exitinfo2 as u32, (answer.exitinfo2 >> 32) as u32);
            match (vmm, firmware) {
                (0, 0) => return Ok(answer),
                (VMM_BUSY, _) => {}
                (0, status) => return Err(ProcessorError::Status { request: "SNP_GUEST_REQUEST", status }),
                (code, _) => return Err(ProcessorError::Host { code }),
            }
        }
        Err(ProcessorError::Host { code: VMM_BUSY })
    }
}

impl<L: Line> SecureProcessor for MessageProcessor<L> {
    fn report(&mut self, request: &ReportRequest) -> Result<ExtendedReport, ProcessorError> {
        let (payload, cert_table) = self.call(KIND_EXTENDED, MessageType::ReportRequest, 1, &request.to_bytes())?;
        Ok(ExtendedReport { report: parse_report_response(&payload)?, cert_table })
    }

    fn derived_key(&mut self, request: &KeyRequest) -> Result<DerivedKey, ProcessorError> {
        let (payload, _) =
            self.call(KIND_REQUEST, MessageType::KeyRequest, request.message_version(), &request.to_bytes())?;
        parse_key_response(&payload)
    }
}

const BUSY_ATTEMPTS: usize = 8;
