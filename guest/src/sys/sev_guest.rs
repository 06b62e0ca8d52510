//! `/dev/sev-guest`: the secure processor as SEV-SNP hardware offers it. Not run on hardware so far.
//!
//! Source: Linux include/uapi/linux/sev-guest.h, Documentation/virt/coco/sev-guest.rst; SNP ABI, guest messages.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use coffer_verifier::abi::{DerivedKey, ExtendedReport, KeyRequest, ProcessorError, ReportRequest, SecureProcessor};
use rustix::fs::{Mode, OFlags};
use zeroize::Zeroize;

#[repr(C)]
struct snp_report_req {
    user_data: [u8; 64],
    vmpl: u32,
    key_sel: u32,
    rsvd: [u8; 24],
}
const _: () = assert!(size_of::<snp_report_req>() == 96);

#[repr(C)]
struct snp_report_resp {
    data: [u8; 4000],
}
const _: () = assert!(size_of::<snp_report_resp>() == 4000);

#[repr(C)]
struct snp_derived_key_req {
    root_key_select: u32,
    rsvd: u32,
    guest_field_select: u64,
    vmpl: u32,
    guest_svn: u32,
    tcb_version: u64,
}
const _: () = assert!(size_of::<snp_derived_key_req>() == 32);

#[repr(C)]
struct snp_derived_key_resp {
    data: [u8; 64],
}
const _: () = assert!(size_of::<snp_derived_key_resp>() == 64);

#[repr(C)]
struct snp_ext_report_req {
    data: snp_report_req,
    certs_address: u64,
    certs_len: u32,
}
const _: () = assert!(size_of::<snp_ext_report_req>() == 112);

#[repr(C)]
struct snp_guest_request_ioctl {
    msg_version: u8,
    req_data: u64,
    resp_data: u64,
    exitinfo2: u64,
}
const _: () = assert!(size_of::<snp_guest_request_ioctl>() == 32);

const SNP_GET_DERIVED_KEY: u32 = 1;
const SNP_GET_EXT_REPORT: u32 = 2;
const VMM_ERR_INVALID_LEN: u32 = 1;
/// More certificate bytes than any host has reason to send.
const CERTS_LIMIT: usize = 64 * 1024;

const fn request_code(nr: u32) -> libc::c_ulong {
    ((3_u32 << 30) | ((size_of::<snp_guest_request_ioctl>() as u32) << 16) | ((b'S' as u32) << 8) | nr) as libc::c_ulong
}

/// The driver's node, open.
pub struct SevGuest {
    node: File,
}

impl SevGuest {
    /// Opens `/dev/sev-guest`.
    ///
    /// # Errors
    /// The kernel's: ENOENT where the CPU does not run this guest under SEV-SNP.
    pub fn open() -> io::Result<Self> {
        let node: OwnedFd = rustix::fs::open("/dev/sev-guest", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { node: node.into() })
    }

    fn call<Q, R>(&self, nr: u32, version: u8, request: &mut Q, response: &mut R) -> Result<(), (io::Error, u64)> {
        let mut call = snp_guest_request_ioctl {
            msg_version: version,
            req_data: core::ptr::from_mut(request) as u64,
            resp_data: core::ptr::from_mut(response) as u64,
            exitinfo2: 0,
        };
        // SAFETY: `call` and what it points to live through the call; Q and R are the structs the driver expects for
        // `nr` (each caller below pairs them), so it reads and writes inside them.
        let result = unsafe { libc::ioctl(self.node.as_raw_fd(), request_code(nr) as _, &raw mut call) };
        if result < 0 { Err((io::Error::last_os_error(), call.exitinfo2)) } else { Ok(()) }
    }
}

impl SecureProcessor for SevGuest {
    fn report(&mut self, request: &ReportRequest) -> Result<ExtendedReport, ProcessorError> {
        let mut certs = vec![0_u8; 16 * 1024];
        loop {
            let mut ask = snp_ext_report_req {
                data: snp_report_req {
                    user_data: *request.report_data.as_bytes(),
                    vmpl: request.vmpl,
                    key_sel: request.key as u32,
                    rsvd: [0; 24],
                },
                certs_address: certs.as_mut_ptr() as u64,
                certs_len: certs.len() as u32,
            };
            let mut answer = snp_report_resp { data: [0; 4000] };
            match self.call(SNP_GET_EXT_REPORT, 1, &mut ask, &mut answer) {
                Ok(()) => {
                    let report = report_of(&answer.data)?;
                    if certs.iter().all(|byte| *byte == 0) {
                        certs.clear();
                    }
                    return Ok(ExtendedReport { report, cert_table: certs });
                }
                // The host wants more room for its certificates; the driver says how much in `certs_len`.
                Err((_, info)) if host_code(info) == VMM_ERR_INVALID_LEN && certs.len() < CERTS_LIMIT => {
                    let wanted = (ask.certs_len as usize).next_multiple_of(4096);
                    certs = vec![0; wanted.max(certs.len() * 2).min(CERTS_LIMIT)];
                }
                Err((error, info)) => return Err(failed("MSG_REPORT_REQ", &error, info)),
            }
        }
    }

    fn derived_key(&mut self, request: &KeyRequest) -> Result<DerivedKey, ProcessorError> {
        if request.launch_mit_vector != 0 {
            return Err(ProcessorError::Malformed { what: "LAUNCH_MIT_VECTOR, which this driver does not send" });
        }
        let mut ask = snp_derived_key_req {
            root_key_select: request.root as u32 | ((request.key as u32) << 1),
            rsvd: 0,
            guest_field_select: request.fields.0,
            vmpl: request.vmpl,
            guest_svn: request.guest_svn,
            tcb_version: request.tcb_version,
        };
        let mut answer = snp_derived_key_resp { data: [0; 64] };
        let result = self.call(SNP_GET_DERIVED_KEY, 1, &mut ask, &mut answer);
        let key = result.map_err(|(error, info)| failed("MSG_KEY_REQ", &error, info)).and_then(|()| {
            status("MSG_KEY_REQ", &answer.data)?;
            let mut bytes = [0; 32];
            bytes.copy_from_slice(&answer.data[0x20..0x40]);
            let key = DerivedKey::new(bytes);
            bytes.zeroize();
            Ok(key)
        });
        answer.data.zeroize();
        key
    }
}

fn report_of(answer: &[u8; 4000]) -> Result<Vec<u8>, ProcessorError> {
    const REPORT: usize = 0x4a0;
    status("MSG_REPORT_REQ", answer)?;
    let size = u32::from_le_bytes([answer[4], answer[5], answer[6], answer[7]]);
    if size as usize != REPORT {
        return Err(ProcessorError::Malformed { what: "REPORT_SIZE" });
    }
    Ok(answer[0x20..0x20 + REPORT].to_vec())
}

fn status(request: &'static str, answer: &[u8]) -> Result<(), ProcessorError> {
    match answer.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes)) {
        Some(0) => Ok(()),
        Some(status) => Err(ProcessorError::Status { request, status }),
        None => Err(ProcessorError::Malformed { what: "STATUS" }),
    }
}

fn host_code(exitinfo2: u64) -> u32 {
    (exitinfo2 >> 32) as u32
}

fn failed(request: &'static str, error: &io::Error, exitinfo2: u64) -> ProcessorError {
    match (host_code(exitinfo2), exitinfo2 as u32) {
        (0, 0 | u32::MAX) => ProcessorError::Line(error.to_string()),
        (0, status) => ProcessorError::Status { request, status },
        (code, _) => ProcessorError::Host { code },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_codes_are_those_of_the_kernel_header() {
        assert_eq!(request_code(SNP_GET_EXT_REPORT), 0xc020_5302);
        assert_eq!(request_code(SNP_GET_DERIVED_KEY), 0xc020_5301);
    }

    #[test]
    fn a_report_of_another_size_or_status_is_refused() {
        let mut answer = [0_u8; 4000];
        assert!(matches!(report_of(&answer), Err(ProcessorError::Malformed { .. })));
        answer[4..8].copy_from_slice(&0x4a0_u32.to_le_bytes());
        assert_eq!(report_of(&answer).unwrap().len(), 0x4a0);
        answer[0] = 0x16;
        assert!(matches!(report_of(&answer), Err(ProcessorError::Status { status: 0x16, .. })));
    }
}
