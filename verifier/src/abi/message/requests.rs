//! Payloads of MSG_REPORT_REQ/RSP and MSG_KEY_REQ/RSP.
//!
//! Source: SNP ABI, MSG_REPORT_REQ, MSG_REPORT_RSP, MSG_KEY_REQ, MSG_KEY_RSP.

use zeroize::Zeroizing;

use super::super::{
    DerivedKey, GuestFieldSelect, KeyRequest, KeySelect, ProcessorError, REPORT_LEN, ReportData, ReportRequest, RootKey,
};

/// Bytes of MSG_REPORT_RSP.
pub const REPORT_RESPONSE_SIZE: usize = 0x4c0;
/// Bytes of MSG_KEY_RSP.
pub const KEY_RESPONSE_SIZE: usize = 0x40;

/// Why a request payload is refused (status 0x16, invalid parameters).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} of the request is not valid")]
pub struct RequestError {
    /// Name of the field.
    pub field: &'static str,
}

impl ReportRequest {
    /// MSG_REPORT_REQ, message version 1.
    pub fn to_bytes(&self) -> [u8; REPORT_REQUEST_SIZE] {
        let mut bytes = [0; REPORT_REQUEST_SIZE];
        bytes[..64].copy_from_slice(self.report_data.as_bytes());
        bytes[0x40..0x44].copy_from_slice(&self.vmpl.to_le_bytes());
        bytes[0x44] = key_select_bits(self.key);
        bytes
    }
}

/// Reads MSG_REPORT_REQ.
///
/// # Errors
/// [`RequestError`].
pub fn parse_report_request(payload: &[u8]) -> Result<ReportRequest, RequestError> {
    let bytes: &[u8; REPORT_REQUEST_SIZE] = payload.try_into().map_err(|_| RequestError { field: "size" })?;
    if bytes[0x45..].iter().any(|byte| *byte != 0) || bytes[0x44] > 3 {
        return Err(RequestError { field: "reserved field" });
    }
    let report_data = ReportData::try_from(&bytes[..64]).map_err(|_| RequestError { field: "REPORT_DATA" })?;
    Ok(ReportRequest { report_data, vmpl: u32_at(bytes, 0x40), key: key_select(bytes[0x44])? })
}

/// MSG_REPORT_RSP with a report, or with a status alone.
pub fn report_response(answer: Result<&[u8; REPORT_LEN], u32>) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(vec![0; REPORT_RESPONSE_SIZE]);
    match answer {
        Ok(report) => {
            bytes[4..8].copy_from_slice(&(REPORT_LEN as u32).to_le_bytes());
            bytes[0x20..].copy_from_slice(report);
        }
        Err(status) => bytes[..4].copy_from_slice(&status.to_le_bytes()),
    }
    bytes
}

/// The report out of MSG_REPORT_RSP.
pub(super) fn parse_report_response(payload: &[u8]) -> Result<Vec<u8>, ProcessorError> {
    let bytes: &[u8; REPORT_RESPONSE_SIZE] =
        payload.try_into().map_err(|_| ProcessorError::Malformed { what: "MSG_REPORT_RSP size" })?;
    status("MSG_REPORT_REQ", bytes)?;
    if u32_at(bytes, 4) as usize != REPORT_LEN {
        return Err(ProcessorError::Malformed { what: "REPORT_SIZE" });
    }
    Ok(bytes[0x20..].to_vec())
}

impl KeyRequest {
    /// Message version: 2 if the launch mitigation vector is asked for, else 1.
    pub const fn message_version(&self) -> u8 {
        if self.fields.0 & GuestFieldSelect::LAUNCH_MIT_VECTOR != 0 || self.launch_mit_vector != 0 { 2 } else { 1 }
    }

    /// MSG_KEY_REQ in [`KeyRequest::message_version`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let root = u32::from(self.root == RootKey::Vmrk) | u32::from(key_select_bits(self.key)) << 1;
        let mut bytes = Vec::with_capacity(KEY_REQUEST_V2_SIZE);
        bytes.extend_from_slice(&root.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.fields.0.to_le_bytes());
        bytes.extend_from_slice(&self.vmpl.to_le_bytes());
        bytes.extend_from_slice(&self.guest_svn.to_le_bytes());
        bytes.extend_from_slice(&self.tcb_version.to_le_bytes());
        if self.message_version() == 2 {
            bytes.extend_from_slice(&self.launch_mit_vector.to_le_bytes());
        }
        bytes
    }
}

/// Reads MSG_KEY_REQ of message version 1 or 2.
///
/// # Errors
/// [`RequestError`].
pub fn parse_key_request(version: u8, payload: &[u8]) -> Result<KeyRequest, RequestError> {
    let (size, defined) = match version {
        1 => (KEY_REQUEST_V1_SIZE, GuestFieldSelect::DEFINED & !GuestFieldSelect::LAUNCH_MIT_VECTOR),
        2 => (KEY_REQUEST_V2_SIZE, GuestFieldSelect::DEFINED),
        _ => return Err(RequestError { field: "message version" }),
    };
    if payload.len() != size {
        return Err(RequestError { field: "size" });
    }
    let root = u32_at(payload, 0);
    if root > 7 || u32_at(payload, 4) != 0 {
        return Err(RequestError { field: "reserved field" });
    }
    let fields = u64_at(payload, 8);
    if fields & !defined != 0 {
        return Err(RequestError { field: "GUEST_FIELD_SELECT" });
    }
    Ok(KeyRequest {
        root: if root & 1 == 0 { RootKey::Vcek } else { RootKey::Vmrk },
        key: key_select((root >> 1) as u8)?,
        fields: GuestFieldSelect(fields),
        vmpl: u32_at(payload, 0x10),
        guest_svn: u32_at(payload, 0x14),
        tcb_version: u64_at(payload, 0x18),
        launch_mit_vector: if version == 2 { u64_at(payload, 0x20) } else { 0 },
    })
}

/// MSG_KEY_RSP with a key, or with a status alone.
pub fn key_response(answer: Result<&DerivedKey, u32>) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(vec![0; KEY_RESPONSE_SIZE]);
    match answer {
        Ok(key) => bytes[0x20..].copy_from_slice(key.expose()),
        Err(status) => bytes[..4].copy_from_slice(&status.to_le_bytes()),
    }
    bytes
}

/// The key out of MSG_KEY_RSP.
pub(super) fn parse_key_response(payload: &[u8]) -> Result<DerivedKey, ProcessorError> {
    let bytes: &[u8; KEY_RESPONSE_SIZE] =
        payload.try_into().map_err(|_| ProcessorError::Malformed { what: "MSG_KEY_RSP size" })?;
    status("MSG_KEY_REQ", bytes)?;
    Ok(DerivedKey::new(bytes[0x20..].try_into().expect("32 bytes remain")))
}

fn status(request: &'static str, bytes: &[u8]) -> Result<(), ProcessorError> {
    match u32_at(bytes, 0) {
        0 => Ok(()),
        status => Err(ProcessorError::Status { request, status }),
    }
}

const fn key_select_bits(key: KeySelect) -> u8 {
    match key {
        KeySelect::VlekOrVcek => 0,
        KeySelect::Vcek => 1,
        KeySelect::Vlek => 2,
    }
}

const fn key_select(bits: u8) -> Result<KeySelect, RequestError> {
    match bits {
        0 => Ok(KeySelect::VlekOrVcek),
        1 => Ok(KeySelect::Vcek),
        2 => Ok(KeySelect::Vlek),
        _ => Err(RequestError { field: "KEY_SEL" }),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("lengths were checked"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("lengths were checked"))
}

const REPORT_REQUEST_SIZE: usize = 0x60;
const KEY_REQUEST_V1_SIZE: usize = 0x20;
const KEY_REQUEST_V2_SIZE: usize = 0x28;
