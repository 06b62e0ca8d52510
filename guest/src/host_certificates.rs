//! Certificates for this guest's reports, asked of the host where its kernel hands on none with a report.
//!
//! KVM before Linux 7.0 answers an extended request with an empty table, so the host's runtime has a line for it.
//! Trusts: nothing of what comes. Whoever verifies the report judges them, and without them refuses.
//! Never: fails a report for want of them, waits long, or takes more than a table has room for.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use coffer_guest_proto::ports::HOST_CERTIFICATES;
use coffer_verifier::abi::{DerivedKey, ExtendedReport, KeyRequest, ProcessorError, ReportRequest, SecureProcessor};

use crate::host::Host;

/// As many bytes as the host's kernel could hand on.
const LIMIT: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);

/// A processor whose reports get the host's certificates where they come with none.
pub struct WithHostCertificates<P> {
    processor: P,
    ask: Ask,
}

type Ask = Box<dyn FnMut() -> io::Result<Vec<u8>> + Send>;

impl<P> WithHostCertificates<P> {
    /// Asks the host of this guest.
    pub fn of_host(processor: P) -> Self {
        Self { processor, ask: Box::new(over_vsock) }
    }
}

impl<P: SecureProcessor> SecureProcessor for WithHostCertificates<P> {
    fn report(&mut self, request: &ReportRequest) -> Result<ExtendedReport, ProcessorError> {
        let mut report = self.processor.report(request)?;
        if report.cert_table.is_empty() {
            report.cert_table = (self.ask)().unwrap_or_default();
        }
        Ok(report)
    }

    fn derived_key(&mut self, request: &KeyRequest) -> Result<DerivedKey, ProcessorError> {
        self.processor.derived_key(request)
    }
}

fn over_vsock() -> io::Result<Vec<u8>> {
    // Of hardware alone, which is in a machine.
    let line = Host::Vsock.connect(HOST_CERTIFICATES)?;
    line.set_timeout(PATIENCE)?;
    to_the_end(line)
}

/// Everything up to the end, if that comes in time and before the limit.
fn to_the_end(mut line: impl Read) -> io::Result<Vec<u8>> {
    let late = Instant::now() + PATIENCE;
    let (mut all, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        let count = line.read(&mut bytes)?;
        if count == 0 {
            return Ok(all);
        }
        all.extend_from_slice(&bytes[..count]);
        if all.len() > LIMIT || Instant::now() > late {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_verifier::abi::ReportData;

    /// Reports with this table.
    struct Fixed(Vec<u8>);

    impl SecureProcessor for Fixed {
        fn report(&mut self, _: &ReportRequest) -> Result<ExtendedReport, ProcessorError> {
            Ok(ExtendedReport { report: vec![1], cert_table: self.0.clone() })
        }

        fn derived_key(&mut self, _: &KeyRequest) -> Result<DerivedKey, ProcessorError> {
            Err(ProcessorError::Malformed { what: "no keys here" })
        }
    }

    fn table(own: &[u8], ask: impl FnMut() -> io::Result<Vec<u8>> + Send + 'static) -> Vec<u8> {
        let mut processor = WithHostCertificates { processor: Fixed(own.to_vec()), ask: Box::new(ask) };
        processor.report(&ReportRequest::new(ReportData::new([0; 64]))).unwrap().cert_table
    }

    #[test]
    fn the_host_is_asked_only_where_a_report_comes_without() {
        assert_eq!(table(&[7], || panic!("nobody asks")), [7]);
        assert_eq!(table(&[], || Ok(vec![8, 9])), [8, 9]);
    }

    #[test]
    fn a_host_without_certificates_takes_no_report_away() {
        assert_eq!(table(&[], || Err(io::ErrorKind::ConnectionReset.into())), [0; 0]);
    }

    #[test]
    fn no_more_is_taken_than_a_table_has_room_for() {
        assert_eq!(to_the_end(&vec![3; LIMIT][..]).unwrap().len(), LIMIT);
        assert!(to_the_end(io::repeat(3)).is_err());
    }
}
