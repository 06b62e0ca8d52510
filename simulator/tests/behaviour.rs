//! The behaviour suite over the simulator: in one process, and over frames as they cross the host; and the suite itself, which
//! must notice what a processor gets wrong.

use crate::common::{NOW, guest, installation};
use coffer_simulator::SimulatedGuest;
use coffer_simulator::behaviour::{check, check_guests};
use coffer_verifier::abi::message::{
    ANSWER_HEAD, Line, LineAnswer, MessagePage, MessageProcessor, REQUEST_FRAME, SecretsPage, decode_request,
    encode_request,
};
use coffer_verifier::abi::{
    DerivedKey, ExtendedReport, KeyRequest, KeySelect, ProcessorError, ProductLine, ReportData, ReportRequest,
    SecureProcessor,
};

#[test]
fn the_simulator_in_one_process_behaves() {
    check_guests(installation(), NOW, &mut |guest| Box::new(guest.into_processor())).unwrap();
}

/// Every page goes through the bytes that cross the host.
struct Framed(SimulatedGuest);

impl Line for Framed {
    fn exchange(&mut self, kind: u8, page: &MessagePage) -> Result<LineAnswer, ProcessorError> {
        let frame: [u8; REQUEST_FRAME] = encode_request(kind, page).try_into().expect("a frame");
        let (kind, page) = decode_request(&frame).map_err(|error| ProcessorError::Line(error.to_string()))?;
        let bytes = self.0.guest_request(kind, page).to_bytes();
        let head: &[u8; ANSWER_HEAD] = bytes.first_chunk().expect("a head");
        let (mut answer, length) =
            LineAnswer::parse_head(head).map_err(|error| ProcessorError::Line(error.to_string()))?;
        assert_eq!(bytes.len(), ANSWER_HEAD + length);
        answer.cert_table = bytes[ANSWER_HEAD..].to_vec();
        Ok(answer)
    }
}

#[test]
fn guest_messages_over_a_line_behave() {
    check_guests(installation(), NOW, &mut |guest| {
        let [vmpck0, ..] = SecretsPage::parse(&guest.secrets_page()).unwrap().vmpcks;
        Box::new(MessageProcessor::new(Framed(guest), vmpck0, 0))
    })
    .unwrap();
}

/// A processor with one thing wrong.
struct Wrong {
    inner: Box<dyn SecureProcessor>,
    what: &'static str,
}

impl SecureProcessor for Wrong {
    fn report(&mut self, request: &ReportRequest) -> Result<ExtendedReport, ProcessorError> {
        let mut request = request.clone();
        match self.what {
            "always the same REPORT_DATA" => request.report_data = ReportData::new([0; 64]),
            "always VMPL 0" => request.vmpl = 0,
            "any key for the VLEK" if request.key == KeySelect::Vlek => request.key = KeySelect::VlekOrVcek,
            _ => {}
        }
        let mut answer = self.inner.report(&request)?;
        match self.what {
            "a short report" => drop(answer.report.pop()),
            "half a table" => answer.cert_table.truncate(100),
            _ => {}
        }
        Ok(answer)
    }

    fn derived_key(&mut self, request: &KeyRequest) -> Result<DerivedKey, ProcessorError> {
        let mut request = request.clone();
        match self.what {
            "one key for all" => return Ok(DerivedKey::new([7; 32])),
            "no fields" => request.fields.0 = 0,
            "keys at VMPL 0 only" => request.vmpl = 0,
            "any TCB" => request.tcb_version = 0,
            "any SVN" => request.guest_svn = 0,
            "another status" => {
                return self.inner.derived_key(&request).map_err(|_| ProcessorError::Malformed { what: "status" });
            }
            _ => {}
        }
        self.inner.derived_key(&request)
    }
}

#[test]
fn the_suite_notices_each_wrong_answer() {
    for (what, property) in [
        ("always the same REPORT_DATA", "REPORT_DATA asked for"),
        ("always VMPL 0", "VMPL asked for"),
        ("any key for the VLEK", "KEY_SEL 2 without a VLEK"),
        ("a short report", "1184 bytes"),
        ("half a table", "certificate table parses"),
        ("one key for all", "no two selections share a key"),
        ("no fields", "no two selections share a key"),
        ("keys at VMPL 0 only", "no two selections share a key"),
        ("any TCB", "no two selections share a key"),
        ("any SVN", "GUEST_SVN above the guest's"),
        ("another status", "no VMPL"),
    ] {
        let mut processor = Wrong { inner: Box::new(guest(ProductLine::Milan).into_processor()), what };
        let deviation = check(&mut processor).expect_err(what).to_string();
        assert!(deviation.contains(property), "{what}: {deviation}");
    }
}
