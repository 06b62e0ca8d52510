//! The driver's side, played: Linux' checks, guest messages under a VMPCK, the simulator behind them.

use std::sync::{Arc, Mutex, OnceLock};

use coffer_simulator::{
    Installation, LaunchOptions, SecureProcessor as Launch, SimulatedGuest,
    behaviour::{check, check_guests},
};
use coffer_verifier::{
    abi::{
        GuestFieldSelect, HostData, KeySelect, ProductLine, ReportData, RootKey,
        message::{GuestChannel, KIND_EXTENDED, KIND_REQUEST, MessageType, SecretsPage},
    },
    measure::PageType,
};

use super::*;

/// 2026-09-20T00:00:00Z.
pub const NOW: u64 = 1_789_862_400;

/// Keys of one product, made once and kept beside the test binary: each test may be a process of its own.
pub fn installation() -> &'static Installation {
    static INSTALLATION: OnceLock<Installation> = OnceLock::new();
    INSTALLATION.get_or_init(|| {
        let stored = std::env::current_exe().unwrap().with_file_name("simulator-1.json");
        let lock = File::create(stored.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        if let Ok(bytes) = std::fs::read(&stored) {
            return Installation::from_bytes(&bytes).unwrap();
        }
        let mut made = Installation::create(NOW).unwrap();
        made.ensure_vlek(ProductLine::Turin, NOW).unwrap();
        std::fs::write(&stored, made.to_bytes().unwrap()).unwrap();
        made
    })
}

/// `drivers/virt/coco/sev-guest/sev-guest.c`, as far as its two requests go.
struct Linux {
    channel: GuestChannel,
    guest: SimulatedGuest,
    /// SEV_FW_BLOB_MAX_SIZE.
    blob_limit: u32,
    /// What the host answers instead of its processor: EXITINFO2.
    host_answers: Option<u64>,
}

impl Linux {
    fn over(guest: SimulatedGuest) -> Self {
        let [vmpck0, ..] = SecretsPage::parse(&guest.secrets_page()).unwrap().vmpcks;
        Self { channel: GuestChannel::new(vmpck0, 0), guest, blob_limit: 0x4000, host_answers: None }
    }

    /// Seals, sends, opens; the answer's payload and the host's certificates.
    fn message(
        &mut self,
        kind: u8,
        message: MessageType,
        payload: &[u8],
        call: &mut snp_guest_request_ioctl,
    ) -> io::Result<(Vec<u8>, Vec<u8>)> {
        if let Some(exitinfo2) = self.host_answers {
            call.exitinfo2 = exitinfo2;
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let page = self.channel.request(message, call.msg_version, payload).unwrap();
        let answer = self.guest.guest_request(kind, &page);
        call.exitinfo2 = answer.exitinfo2;
        if answer.exitinfo2 != 0 {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let opened = self.channel.response(&answer.page);
        let payload = opened.map_err(|_| io::Error::from_raw_os_error(libc::EBADMSG))?;
        Ok((payload.to_vec(), answer.cert_table))
    }
}

/// The bytes of a structure as the other side of the call sees them.
unsafe fn bytes<'a, T>(at: u64) -> &'a mut [u8] {
    // SAFETY: the caller passes an address that points to a T, of plain integers, which outlives the ioctl.
    unsafe { std::slice::from_raw_parts_mut(at as *mut u8, size_of::<T>()) }
}

impl Driver for Linux {
    fn ioctl(&mut self, nr: u32, call: &mut snp_guest_request_ioctl) -> io::Result<()> {
        call.exitinfo2 = u64::MAX;
        if call.msg_version == 0 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        match nr {
            SNP_GET_DERIVED_KEY => {
                // SAFETY: this request comes with these two structures.
                let (request, response) = unsafe {
                    (bytes::<snp_derived_key_req>(call.req_data), bytes::<snp_derived_key_resp>(call.resp_data))
                };
                let (payload, _) = self.message(KIND_REQUEST, MessageType::KeyRequest, request, call)?;
                response.copy_from_slice(&payload);
            }
            SNP_GET_EXT_REPORT => {
                // SAFETY: as above.
                let (request, response) =
                    unsafe { (bytes::<snp_ext_report_req>(call.req_data), bytes::<snp_report_resp>(call.resp_data)) };
                let address = u64::from_le_bytes(request[96..104].try_into().unwrap());
                let room = u32::from_le_bytes(request[104..108].try_into().unwrap());
                if room > self.blob_limit || room % 4096 != 0 {
                    return Err(io::Error::from_raw_os_error(libc::EINVAL));
                }
                let needed = self.guest.cert_table().len().next_multiple_of(4096) as u32;
                if needed > room {
                    // The host sees how many pages it was given before anything is sealed anew.
                    request[104..108].copy_from_slice(&needed.to_le_bytes());
                    call.exitinfo2 = u64::from(VMM_ERR_INVALID_LEN) << 32;
                    return Err(io::Error::from_raw_os_error(libc::EIO));
                }
                let data = request[..96].to_vec();
                let (payload, certs) = self.message(KIND_EXTENDED, MessageType::ReportRequest, &data, call)?;
                response[..payload.len()].copy_from_slice(&payload);
                // SAFETY: the caller's buffer has `room` bytes, and the table was found to be no longer.
                let place = unsafe { std::slice::from_raw_parts_mut(address as *mut u8, room as usize) };
                place[..certs.len()].copy_from_slice(&certs);
            }
            _ => return Err(io::Error::from_raw_os_error(libc::ENOTTY)),
        }
        Ok(())
    }
}

fn node(driver: impl Driver + 'static) -> SevGuest {
    SevGuest { driver: Box::new(driver) }
}

fn guest() -> SimulatedGuest {
    let options = LaunchOptions::new(ProductLine::Turin, NOW);
    let mut launch = Launch::launch_start(installation(), options).unwrap();
    launch.update(PageType::Normal, 0x1000, &[7; 4096]).unwrap();
    launch.finish(HostData::new([3; 32]), None).unwrap()
}

const REPORT: ReportRequest = ReportRequest::new(ReportData::new([9; 64]));

const KEY: KeyRequest = KeyRequest {
    root: RootKey::Vcek,
    key: KeySelect::Vcek,
    fields: GuestFieldSelect(GuestFieldSelect::MEASUREMENT),
    vmpl: 0,
    guest_svn: 0,
    tcb_version: 0,
    launch_mit_vector: 0,
};

#[test]
fn the_processor_behind_the_driver_behaves() {
    check_guests(installation(), NOW, &mut |guest| Box::new(node(Linux::over(guest)))).unwrap();
}

#[test]
#[ignore = "needs an SNP host"]
fn the_processor_of_this_machine_behaves() {
    check(&mut SevGuest::open().unwrap()).unwrap();
}

#[test]
fn request_codes_are_those_of_the_kernel_header() {
    assert_eq!(request_code(SNP_GET_EXT_REPORT), 0xc020_5302);
    assert_eq!(request_code(SNP_GET_DERIVED_KEY), 0xc020_5301);
}

#[test]
fn a_longer_certificate_table_is_asked_for_again_as_far_as_the_driver_goes() {
    let long = |blob_limit, bytes| {
        let mut guest = guest();
        guest.replace_cert_table(vec![1; bytes]);
        node(Linux { blob_limit, ..Linux::over(guest) }).report(&REPORT)
    };
    let got = long(0x1_0000, 20_000).unwrap();
    assert!(got.cert_table.len() >= 20_000 && got.cert_table[..20_000].iter().all(|byte| *byte == 1));
    assert_eq!(long(0x4000, 16_384).unwrap().cert_table.len(), 16_384);
    // Today's Linux takes no more than 16 KiB, and we no more than 64: it is the host that wants too much.
    for (limit, bytes) in [(0x4000, 20_000), (0x10_0000, 70_000)] {
        assert!(matches!(long(limit, bytes), Err(ProcessorError::Host { code: 1 })), "{limit:#x}");
    }
}

#[test]
fn an_empty_table_is_none() {
    let mut guest = guest();
    guest.replace_cert_table(Vec::new());
    assert!(node(Linux::over(guest)).report(&REPORT).unwrap().cert_table.is_empty());
}

#[test]
fn failures_of_driver_host_and_firmware_are_told_apart() {
    let with = |exitinfo2| node(Linux { host_answers: Some(exitinfo2), ..Linux::over(guest()) });
    for exitinfo2 in [0, 0xff, 0xffff_ffff, u64::MAX] {
        assert!(matches!(with(exitinfo2).report(&REPORT), Err(ProcessorError::Line(_))), "{exitinfo2:#x}");
    }
    assert!(matches!(with(2 << 32).report(&REPORT), Err(ProcessorError::Host { code: 2 })));
    assert!(matches!(with(2 << 32).derived_key(&KEY), Err(ProcessorError::Host { code: 2 })));
    assert!(matches!(with(0x10).derived_key(&KEY), Err(ProcessorError::Status { status: 0x10, .. })));
    assert!(matches!(with(0x10).report(&REPORT), Err(ProcessorError::Status { status: 0x10, .. })));
}

#[test]
fn what_the_driver_cannot_send_is_refused_by_name() {
    let mut processor = node(Linux::over(guest()));
    let selected = KeyRequest { fields: GuestFieldSelect(GuestFieldSelect::LAUNCH_MIT_VECTOR), ..KEY };
    for request in [selected, KeyRequest { launch_mit_vector: 1, ..KEY }] {
        let error = processor.derived_key(&request).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("LAUNCH_MIT_VECTOR"), "{error}");
    }
    processor.derived_key(&KEY).expect("nothing was sent");
}

/// Records what it is asked, and answers with bytes it was given.
struct Recorded {
    asked: Arc<Mutex<Vec<u8>>>,
    answer: Vec<u8>,
}

impl Driver for Recorded {
    fn ioctl(&mut self, nr: u32, call: &mut snp_guest_request_ioctl) -> io::Result<()> {
        // SAFETY: these are the structures of the two requests.
        let (request, response) = unsafe {
            if nr == SNP_GET_DERIVED_KEY {
                (bytes::<snp_derived_key_req>(call.req_data), bytes::<snp_derived_key_resp>(call.resp_data))
            } else {
                (bytes::<snp_ext_report_req>(call.req_data), bytes::<snp_report_resp>(call.resp_data))
            }
        };
        *self.asked.lock().unwrap() = request.to_vec();
        response[..self.answer.len()].copy_from_slice(&self.answer);
        Ok(())
    }
}

#[test]
fn requests_stand_in_the_bytes_as_the_abi_has_them() {
    let asked = Arc::<Mutex<Vec<u8>>>::default();
    let mut processor = node(Recorded { asked: asked.clone(), answer: Vec::new() });
    let request = KeyRequest {
        root: RootKey::Vmrk,
        key: KeySelect::Vlek,
        fields: GuestFieldSelect(0x2a),
        vmpl: 3,
        guest_svn: 0x0102_0304,
        tcb_version: 0x1122_3344_5566_7788,
        launch_mit_vector: 0,
    };
    processor.derived_key(&request).unwrap();
    // The guest message has the same bytes: both come from one table of the specification.
    assert_eq!(*asked.lock().unwrap(), request.to_bytes());
    let request = ReportRequest { vmpl: 2, key: KeySelect::Vcek, ..REPORT };
    let _ = processor.report(&request);
    assert_eq!(asked.lock().unwrap()[..0x60], request.to_bytes());
}

#[test]
fn a_report_of_another_size_or_status_is_refused() {
    let answer = |answer: &[u8]| node(Recorded { asked: Arc::default(), answer: answer.to_vec() }).report(&REPORT);
    assert!(matches!(answer(&[]), Err(ProcessorError::Malformed { what: "REPORT_SIZE" })));
    assert_eq!(answer(&[0, 0, 0, 0, 0xa0, 4]).unwrap().report.len(), 0x4a0);
    assert!(matches!(answer(&[0x16, 0, 0, 0, 0xa0, 4]), Err(ProcessorError::Status { status: 0x16, .. })));
}
