//! The secure processor of this guest, and the evidence made with it.

use std::{
    io::{Read, Write},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use coffer_guest_proto::ports::HOST_PROCESSOR;
use coffer_ratls::{Attester, AttesterError};
use coffer_spec::{Document, Tee};
use coffer_verifier::{
    abi::{
        ProcessorError, ReportData, ReportRequest, SecureProcessor, WorkloadDigest,
        message::{ANSWER_HEAD, Line, LineAnswer, MessagePage, MessageProcessor, SecretsPage, encode_request},
    },
    evidence::Evidence,
};
use zeroize::Zeroize;

use crate::{
    failure::{Code, Failure, OrFail},
    host::Host,
    host_certificates::WithHostCertificates,
    sys::{sev_guest::SevGuest, vsock::Line as HostSocket},
};

/// The processor, one request at a time.
pub type SharedProcessor = Arc<Mutex<Box<dyn SecureProcessor>>>;

/// A secrets page, which can be read once.
pub type Page = Box<[u8; 4096]>;

/// Opens the processor the spec demands, and no other. `take_page`: where a simulated one put its secrets.
///
/// # Errors
/// `tee-mismatch` if it is not there.
pub fn open(
    tee: Tee,
    host: Host,
    take_page: impl FnOnce() -> std::io::Result<Page>,
) -> Result<Option<Box<dyn SecureProcessor>>, Failure> {
    match tee {
        Tee::None => Ok(None),
        Tee::Snp => {
            let node = SevGuest::open().or_fail(Code::TeeMismatch, "open /dev/sev-guest")?;
            Ok(Some(Box::new(WithHostCertificates::of_host(node))))
        }
        Tee::Simulated => {
            let mut page = take_page().or_fail(Code::TeeMismatch, "read the secrets page")?;
            let secrets = SecretsPage::parse(&page);
            page.zeroize();
            let [vmpck0, ..] = secrets.or_fail(Code::TeeMismatch, "parse the secrets page")?.vmpcks;
            Ok(Some(Box::new(MessageProcessor::new(host_line(host), vmpck0, 0))))
        }
    }
}

/// Carries message pages to the host, which cannot read them.
struct HostLine<S, F> {
    open: F,
    line: Option<S>,
}

fn host_line(host: Host) -> impl Line + 'static {
    let open = move || -> std::io::Result<HostSocket> {
        let line = host.connect(HOST_PROCESSOR)?;
        line.set_timeout(Duration::from_secs(10))?;
        Ok(line)
    };
    HostLine { open, line: None }
}

impl<S: Read + Write, F: Fn() -> std::io::Result<S>> HostLine<S, F> {
    fn talk(&mut self, kind: u8, page: &MessagePage) -> std::io::Result<LineAnswer> {
        if self.line.is_none() {
            self.line = Some((self.open)()?);
        }
        let line = self.line.as_mut().ok_or(std::io::ErrorKind::NotConnected)?;
        line.write_all(&encode_request(kind, page))?;
        let mut head = [0; ANSWER_HEAD];
        line.read_exact(&mut head)?;
        let (mut answer, length) = LineAnswer::parse_head(&head).map_err(std::io::Error::other)?;
        answer.cert_table = vec![0; length];
        line.read_exact(&mut answer.cert_table)?;
        Ok(answer)
    }
}

impl<S: Read + Write + Send, F: Fn() -> std::io::Result<S> + Send> Line for HostLine<S, F> {
    fn exchange(&mut self, kind: u8, page: &MessagePage) -> Result<LineAnswer, ProcessorError> {
        self.talk(kind, page).map_err(|error| {
            self.line = None;
            ProcessorError::Line(error.to_string())
        })
    }
}

/// Makes evidence of this guest.
pub struct GuestAttester {
    processor: SharedProcessor,
    spec: Vec<u8>,
    workload: WorkloadDigest,
}

impl GuestAttester {
    /// `document`: the spec this guest was launched with.
    pub fn new(processor: SharedProcessor, document: &Document) -> Self {
        Self { processor, spec: document.bytes().to_vec(), workload: document.digest() }
    }
}

impl Attester for GuestAttester {
    fn evidence(&self, report_data: &ReportData) -> Result<Evidence, AttesterError> {
        let mut processor = self.processor.lock().unwrap_or_else(PoisonError::into_inner);
        let report = processor.report(&ReportRequest::new(*report_data))?;
        Ok(Evidence {
            report: report.report,
            cert_table: report.cert_table,
            crls: Vec::new(),
            workload_spec: self.spec.clone(),
        })
    }

    fn workload(&self) -> WorkloadDigest {
        self.workload
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use coffer_simulator::{SimulatedGuest, behaviour::check_guests};
    use coffer_verifier::abi::message::{REQUEST_FRAME, decode_request};

    use super::*;
    use crate::sys::sev_guest::tests::{NOW, installation};

    /// The host's end: answers frames until the guest hangs up.
    fn host(mut line: UnixStream, mut guest: SimulatedGuest) {
        let mut frame = [0; REQUEST_FRAME];
        while line.read_exact(&mut frame).is_ok() {
            let (kind, page) = decode_request(&frame).unwrap();
            line.write_all(&guest.guest_request(kind, page).to_bytes()).unwrap();
        }
    }

    fn opened(guest: SimulatedGuest) -> Box<dyn SecureProcessor> {
        let [vmpck0, ..] = SecretsPage::parse(&guest.secrets_page()).unwrap().vmpcks;
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || host(theirs, guest));
        let line = HostLine { open: || Err(std::io::ErrorKind::NotConnected.into()), line: Some(ours) };
        Box::new(MessageProcessor::new(line, vmpck0, 0))
    }

    #[test]
    fn the_processor_behind_the_hosts_line_behaves() {
        check_guests(installation(), NOW, &mut opened).unwrap();
    }

    #[test]
    fn a_line_that_breaks_ends_the_channel() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let line = HostLine { open: || Err(std::io::ErrorKind::NotConnected.into()), line: Some(ours) };
        let vmpck = coffer_verifier::abi::message::Vmpck::new([1; 32]);
        let mut processor = MessageProcessor::new(line, vmpck, 0);
        let request = ReportRequest::new(ReportData::new([0; 64]));
        assert!(matches!(processor.report(&request), Err(ProcessorError::Line(_))));
        assert!(processor.report(&request).unwrap_err().to_string().contains("closed"));
    }
}
