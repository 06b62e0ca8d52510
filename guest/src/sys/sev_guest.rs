//! `/dev/sev-guest`: the secure processor as SEV-SNP hardware offers it. Not run on hardware so far.
//!
//! What goes to the driver and what is made of its answers runs in the tests all the same, over a driver of their own that
//! seals guest messages as Linux does and has the simulator answer them.
//! Source: Linux include/uapi/linux/sev-guest.h, Documentation/virt/coco/sev-guest.rst; SNP ABI, guest messages.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use coffer_verifier::abi::{DerivedKey, ExtendedReport, KeyRequest, ProcessorError, ReportRequest, SecureProcessor};
use rustix::fs::{Mode, OFlags};
use zeroize::Zeroize;

#[cfg(test)]
pub(crate) mod tests;

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
/// What Linux takes (SEV_FW_BLOB_MAX_SIZE), and more than a chain with its CRL needs.
const CERTS_USUAL: usize = 16 * 1024;
/// More certificate bytes than any host has reason to send.
const CERTS_LIMIT: usize = 64 * 1024;

const fn request_code(nr: u32) -> libc::c_ulong {
    ((3_u32 << 30) | ((size_of::<snp_guest_request_ioctl>() as u32) << 16) | ((b'S' as u32) << 8) | nr) as libc::c_ulong
}

/// Whoever answers the ioctls: the kernel's driver, or the one of the tests.
trait Driver: Send {
    /// One call; `call` and the buffers it points to are those of request `nr`, and live until it returns.
    fn ioctl(&mut self, nr: u32, call: &mut snp_guest_request_ioctl) -> io::Result<()>;
}

/// The driver's node, open.
struct Node(File);

impl Driver for Node {
    fn ioctl(&mut self, nr: u32, call: &mut snp_guest_request_ioctl) -> io::Result<()> {
        // SAFETY: `call` and what it points to live through the call, and are the structs the driver expects for `nr`: only
        // `SevGuest::call` makes them, and each of its callers pairs them; so the driver reads and writes inside them.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request_code(nr) as _, core::ptr::from_mut(call)) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// The secure processor behind `/dev/sev-guest`.
pub struct SevGuest {
    driver: Box<dyn Driver>,
}

impl SevGuest {
    /// Opens `/dev/sev-guest`.
    ///
    /// # Errors
    /// The kernel's: ENOENT where the CPU does not run this guest under SEV-SNP.
    pub fn open() -> io::Result<Self> {
        let node: OwnedFd = rustix::fs::open("/dev/sev-guest", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { driver: Box::new(Node(node.into())) })
    }

    fn call<Q, R>(&mut self, nr: u32, request: &mut Q, response: &mut R) -> Result<(), (io::Error, u64)> {
        let mut call = snp_guest_request_ioctl {
            msg_version: 1,
            req_data: core::ptr::from_mut(request) as u64,
            resp_data: core::ptr::from_mut(response) as u64,
            exitinfo2: 0,
        };
        self.driver.ioctl(nr, &mut call).map_err(|error| (error, call.exitinfo2))
    }
}

impl SecureProcessor for SevGuest {
    fn report(&mut self, request: &ReportRequest) -> Result<ExtendedReport, ProcessorError> {
        let mut certs = vec![0_u8; CERTS_USUAL];
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
            match self.call(SNP_GET_EXT_REPORT, &mut ask, &mut answer) {
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
                // Linux up to 6.17 takes no more than the usual room: what stands in the way is the host's demand.
                Err((error, info))
                    if no_firmware_call(info)
                        && certs.len() > CERTS_USUAL
                        && error.raw_os_error() == Some(libc::EINVAL) =>
                {
                    return Err(ProcessorError::Host { code: VMM_ERR_INVALID_LEN });
                }
                Err((error, info)) => return Err(failed("MSG_REPORT_REQ", &error, info)),
            }
        }
    }

    fn derived_key(&mut self, request: &KeyRequest) -> Result<DerivedKey, ProcessorError> {
        // It has its place in message version 2 alone, and the driver's structure is version 1's.
        if request.message_version() != 1 {
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
        let result = self.call(SNP_GET_DERIVED_KEY, &mut ask, &mut answer);
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
    if no_firmware_call(exitinfo2) {
        return ProcessorError::Line(error.to_string());
    }
    match (host_code(exitinfo2), exitinfo2 as u32) {
        (0, status) => ProcessorError::Status { request, status },
        (code, _) => ProcessorError::Host { code },
    }
}

/// What Linux leaves in EXITINFO2 where the call ended before firmware and host: SEV_RET_NO_FW_CALL (-1), 0xff before 6.3.
const fn no_firmware_call(exitinfo2: u64) -> bool {
    matches!(exitinfo2, 0 | 0xff | 0xffff_ffff | u64::MAX)
}
