use super::super::{
    DerivedKey, GuestFieldSelect, KeyRequest, KeySelect, REPORT_LEN, ReportData, ReportRequest, RootKey,
    SecureProcessor,
};
use super::requests::{parse_key_response, parse_report_response};
use super::*;

const KEY: [u8; 32] = [0x42; 32];

fn message(sequence: u64) -> Message {
    Message {
        sequence,
        kind: MessageType::ReportRequest,
        version: 1,
        vmpck: 0,
        payload: Zeroizing::new(b"sixty-four bytes would be usual".to_vec()),
    }
}

fn answer_to(page: &MessagePage, sequence: u64, kind: MessageType) -> Box<MessagePage> {
    let request = Message::open(&Vmpck::new(KEY), sequence, page).unwrap();
    let answer =
        Message { sequence: sequence + 1, kind, version: 1, vmpck: request.vmpck, payload: request.payload.clone() };
    answer.seal(&Vmpck::new(KEY)).unwrap()
}

#[test]
fn opens_what_it_sealed() {
    let page = message(1).seal(&Vmpck::new(KEY)).unwrap();
    let opened = Message::open(&Vmpck::new(KEY), 1, &page).unwrap();
    assert_eq!(opened.payload.as_slice(), message(1).payload.as_slice());
    assert_eq!((opened.kind, opened.version, opened.vmpck), (MessageType::ReportRequest, 1, 0));
}

#[test]
fn every_bit_of_header_and_payload_is_authentic() {
    let page = message(1).seal(&Vmpck::new(KEY)).unwrap();
    for bit in 0..8 * (HEADER + message(1).payload.len()) {
        let mut changed = page.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(Message::open(&Vmpck::new(KEY), 1, &changed).is_err(), "bit {bit}");
    }
}

#[test]
fn refuses_another_sequence_number_and_another_key() {
    let page = message(3).seal(&Vmpck::new(KEY)).unwrap();
    let refused = Message::open(&Vmpck::new(KEY), 1, &page).err();
    assert_eq!(refused, Some(MessageError::Header { field: "sequence number", expected: 1, found: 3 }));
    let mut renumbered = page.clone();
    renumbered[SEQUENCE] = 1;
    assert_eq!(Message::open(&Vmpck::new(KEY), 1, &renumbered).err(), Some(MessageError::Sealed));
    assert_eq!(Message::open(&Vmpck::new([1; 32]), 3, &page).err(), Some(MessageError::Sealed));
}

#[test]
fn refuses_a_payload_longer_than_a_page() {
    let mut long = message(1);
    long.payload = Zeroizing::new(vec![0; MESSAGE_PAGE - HEADER + 1]);
    assert_eq!(long.seal(&Vmpck::new(KEY)).err(), Some(MessageError::TooLong(MESSAGE_PAGE - HEADER + 1)));
}

#[test]
fn the_channel_counts_by_two_and_never_seals_twice_under_one_number() {
    let mut channel = GuestChannel::new(Vmpck::new(KEY), 0);
    for sequence in [1, 3, 5] {
        let page = channel.request(MessageType::ReportRequest, 1, b"question").unwrap();
        let answer = answer_to(&page, sequence, MessageType::ReportResponse);
        assert_eq!(channel.response(&answer).unwrap().as_slice(), b"question");
    }
    channel.request(MessageType::ReportRequest, 1, b"unanswered").unwrap();
    assert!(channel.request(MessageType::ReportRequest, 1, b"next").is_err());
    assert!(channel.is_closed());
}

#[test]
fn the_channel_closes_on_a_replayed_answer() {
    let mut channel = GuestChannel::new(Vmpck::new(KEY), 0);
    let page = channel.request(MessageType::ReportRequest, 1, b"one").unwrap();
    let first = answer_to(&page, 1, MessageType::ReportResponse);
    channel.response(&first).unwrap();
    channel.request(MessageType::ReportRequest, 1, b"two").unwrap();
    assert!(matches!(channel.response(&first), Err(ProcessorError::Malformed { what: "sequence number" })));
    assert!(channel.is_closed());
}

#[test]
fn the_channel_closes_on_an_answer_of_another_type_and_on_none_asked_for() {
    let mut channel = GuestChannel::new(Vmpck::new(KEY), 0);
    let page = channel.request(MessageType::KeyRequest, 1, b"key?").unwrap();
    let wrong = answer_to(&page, 1, MessageType::ReportResponse);
    assert!(matches!(channel.response(&wrong), Err(ProcessorError::Malformed { what: "type" })));
    let mut channel = GuestChannel::new(Vmpck::new(KEY), 0);
    assert!(channel.response(&wrong).is_err());
    assert!(channel.is_closed());
}

#[test]
fn the_channel_closes_on_an_answer_under_another_vmpck_number() {
    let mut channel = GuestChannel::new(Vmpck::new(KEY), 1);
    let page = channel.request(MessageType::ReportRequest, 1, b"one").unwrap();
    let mut answer = Message::open(&Vmpck::new(KEY), 1, &page).unwrap();
    (answer.sequence, answer.kind, answer.vmpck) = (2, MessageType::ReportResponse, 0);
    let answer = answer.seal(&Vmpck::new(KEY)).unwrap();
    assert!(matches!(channel.response(&answer), Err(ProcessorError::Malformed { what: "VMPCK number" })));
    assert!(channel.is_closed());
}

#[test]
fn requests_survive_their_bytes() {
    let report = ReportRequest { report_data: ReportData::new([9; 64]), vmpl: 2, key: KeySelect::Vlek };
    assert_eq!(parse_report_request(&report.to_bytes()), Ok(report.clone()));
    let key = KeyRequest {
        root: RootKey::Vmrk,
        key: KeySelect::Vcek,
        fields: GuestFieldSelect(GuestFieldSelect::DEFINED),
        vmpl: 1,
        guest_svn: 7,
        tcb_version: 0xdb18_0000_0000_0004,
        launch_mit_vector: 3,
    };
    assert_eq!(parse_key_request(key.message_version(), &key.to_bytes()), Ok(key.clone()));
    let older = KeyRequest { fields: GuestFieldSelect(1), launch_mit_vector: 0, ..key };
    assert_eq!((older.message_version(), older.to_bytes().len()), (1, 0x20));
    assert_eq!(parse_key_request(1, &older.to_bytes()), Ok(older));
}

#[test]
fn refuses_reserved_bits_in_requests() {
    let report = ReportRequest::new(ReportData::new([0; 64])).to_bytes();
    for at in 0x44..0x60 {
        let mut changed = report;
        changed[at] = 0x80;
        assert!(parse_report_request(&changed).is_err(), "{at:#x}");
    }
    let mut key = vec![0; 0x20];
    key[8] = 0x40;
    assert_eq!(parse_key_request(1, &key), Err(RequestError { field: "GUEST_FIELD_SELECT" }));
    assert_eq!(parse_key_request(3, &key), Err(RequestError { field: "message version" }));
    let mut selects_three = report;
    selects_three[0x44] = 3;
    assert_eq!(parse_report_request(&selects_three), Err(RequestError { field: "KEY_SEL" }));
    let with = |at: usize, byte: u8| {
        let mut key = [0; 0x20];
        key[at] = byte;
        parse_key_request(1, &key).map_err(|error| error.field)
    };
    assert!(with(0, 5).is_ok());
    assert_eq!(with(0, 6), Err("KEY_SEL"));
    for (at, byte) in [(0, 8), (3, 1), (4, 1), (7, 1)] {
        assert_eq!(with(at, byte), Err("reserved field"), "{at}");
    }
    for (version, size) in [(1, 0x1f), (1, 0x21), (1, 0x28), (2, 0x20), (2, 0x29)] {
        assert_eq!(parse_key_request(version, &vec![0; size]), Err(RequestError { field: "size" }), "{size:#x}");
    }
}

#[test]
fn answers_are_of_their_size_and_say_so() {
    let report = report_response(Ok(&[7; REPORT_LEN]));
    assert_eq!(parse_report_response(&report).unwrap(), [7; REPORT_LEN]);
    assert!(matches!(parse_report_response(&report[1..]), Err(ProcessorError::Malformed { .. })));
    let mut short = report.clone();
    short[4] -= 1;
    assert!(matches!(parse_report_response(&short), Err(ProcessorError::Malformed { what: "REPORT_SIZE" })));
    let mut refused = report;
    refused[0] = 0x16;
    assert!(matches!(parse_report_response(&refused), Err(ProcessorError::Status { status: 0x16, .. })));

    let mut key = key_response(Ok(&DerivedKey::new([8; 32])));
    assert_eq!(parse_key_response(&key).ok().unwrap().expose(), &[8; 32]);
    assert!(matches!(parse_key_response(&key[1..]), Err(ProcessorError::Malformed { .. })));
    key[0] = 0x16;
    assert!(matches!(parse_key_response(&key), Err(ProcessorError::Status { status: 0x16, .. })));
}

#[test]
fn frames_survive_their_bytes_and_bound_the_table() {
    let page = message(1).seal(&Vmpck::new(KEY)).unwrap();
    let frame: [u8; REQUEST_FRAME] = encode_request(KIND_EXTENDED, &page).try_into().unwrap();
    assert_eq!(decode_request(&frame).unwrap(), (KIND_EXTENDED, &*page));
    let mut unknown = frame;
    unknown[0] = 2;
    assert_eq!(decode_request(&unknown), Err(FrameError::Kind(2)));

    let answer = LineAnswer { exitinfo2: 5 << 32, page, cert_table: b"table".to_vec() };
    let bytes = answer.to_bytes();
    let mut head: [u8; ANSWER_HEAD] = bytes[..ANSWER_HEAD].try_into().unwrap();
    let (read, length) = LineAnswer::parse_head(&head).unwrap();
    assert_eq!((read.exitinfo2, &read.page, &bytes[ANSWER_HEAD..], length), (5 << 32, &answer.page, &b"table"[..], 5));
    head[ANSWER_HEAD - 4..].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(LineAnswer::parse_head(&head), Err(FrameError::TooLarge(u32::MAX as usize)));
}

#[test]
fn the_secrets_page_survives_its_bytes_and_a_wiped_one_is_refused() {
    let page = SecretsPage {
        version: 3,
        family_model_stepping: 0x00a0_0f11,
        vmpcks: [1, 2, 3, 4].map(|byte| Vmpck::new([byte; 32])),
    }
    .to_page();
    let read = SecretsPage::parse(&page).unwrap();
    assert_eq!((read.version, read.family_model_stepping), (3, 0x00a0_0f11));
    assert_eq!(read.vmpcks[3].expose(), &[4; 32]);
    let mut wiped = page;
    wiped[0x20..0x40].fill(0);
    assert_eq!(SecretsPage::parse(&wiped).err(), Some(SecretsPageError::NoKey));
    assert_eq!(SecretsPage::parse(&[0; MESSAGE_PAGE]).err(), Some(SecretsPageError::Version { found: 0 }));
}

/// Answers with the codes it was given, then breaks.
struct Scripted(Vec<u64>);

impl Line for Scripted {
    fn exchange(&mut self, _: u8, page: &MessagePage) -> Result<LineAnswer, ProcessorError> {
        let exitinfo2 = self.0.pop().ok_or_else(|| ProcessorError::Line("end of script".to_owned()))?;
        Ok(LineAnswer { exitinfo2, page: Box::new(*page), cert_table: Vec::new() })
    }
}

#[test]
fn host_and_firmware_refusals_are_told_apart_and_close_the_channel() {
    let request = ReportRequest::new(ReportData::new([0; 64]));
    let first = |codes: &[u64]| {
        let mut processor = MessageProcessor::new(Scripted(codes.to_vec()), Vmpck::new(KEY), 0);
        let error = processor.report(&request).unwrap_err();
        assert!(processor.channel.is_closed());
        assert!(processor.report(&request).unwrap_err().to_string().contains("closed"));
        error
    };
    assert!(matches!(first(&[1 << 32]), ProcessorError::Host { code: 1 }));
    assert!(matches!(first(&[0x16]), ProcessorError::Status { status: 0x16, .. }));
    assert!(matches!(first(&[]), ProcessorError::Line(_)));
    assert!(matches!(first(&[u64::from(VMM_BUSY) << 32; 100]), ProcessorError::Host { code: VMM_BUSY }));
    // The page comes back unchanged: no answer to it.
    assert!(matches!(first(&[0]), ProcessorError::Malformed { .. }));
}
