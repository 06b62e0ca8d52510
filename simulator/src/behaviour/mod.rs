//! One behaviour suite for every [`SecureProcessor`]: what a guest may rely on, whoever answers.
//!
//! [`check`] asks one open processor and needs nothing but the trait, so that it also runs on hardware. [`check_guests`] launches
//! simulated guests that differ in one fact each, and asks their processors through whatever `open` puts in between: guest
//! messages, a line, a driver. Both return the first [`Deviation`] they meet.
//! Trusts: nothing. Never: panics over an answer, draws randomness of its own, or reads a clock.
//! Source: SNP ABI, MSG_REPORT_REQ and MSG_KEY_REQ; the tests of crates `simulator` and `guest` run it.

mod guests;

pub use guests::check_guests;

use coffer_verifier::abi::report::offset;
use coffer_verifier::abi::{
    CertTable, GuestFieldSelect, KeyRequest, KeySelect, ProcessorError, ProductLine, REPORT_LEN, Report, ReportData,
    ReportRequest, RootKey, SIGNED_LEN, SecureProcessor, SigningKey,
};

/// Where an implementation does what no secure processor does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{property}: {found}")]
pub struct Deviation {
    /// What must hold.
    pub property: String,
    /// What was met instead.
    pub found: String,
}

impl Deviation {
    #[allow(clippy::needless_pass_by_value, reason = "what was found is said in place, and shown once")]
    fn new(property: impl Into<String>, found: impl ToString) -> Self {
        Self { property: property.into(), found: found.to_string() }
    }
}

type Check = Result<(), Deviation>;

/// Asks one processor, at VMPL 0, everything a guest may ask: reports, derived keys, and what must be refused.
///
/// # Errors
/// The first [`Deviation`].
pub fn check(processor: &mut dyn SecureProcessor) -> Check {
    let report = reports(processor)?;
    keys(processor, &report)?;
    refusals(processor, &report)
}

/// What reports state; returns one.
fn reports(processor: &mut dyn SecureProcessor) -> Result<Report, Deviation> {
    let first = report(processor, &ReportRequest::new(ReportData::new([0x5a; 64])))?;
    let second = report(processor, &ReportRequest::new(ReportData::new([0xa5; 64])))?;
    hold("two reports differ in REPORT_DATA and signature alone", equal_but_for_data(&first, &second), "more differs")?;
    for vmpl in 0..=3 {
        report(processor, &ReportRequest { vmpl, ..ReportRequest::new(ReportData::new([1; 64])) })?;
    }
    let by = |key| ReportRequest { key, ..ReportRequest::new(ReportData::new([2; 64])) };
    if first.signing_key() == SigningKey::Vlek {
        let chosen = report(processor, &by(KeySelect::Vlek))?.signing_key();
        hold("KEY_SEL 2 signs with the VLEK", chosen == SigningKey::Vlek, chosen)?;
        let chosen = report(processor, &by(KeySelect::Vcek))?.signing_key();
        hold("KEY_SEL 1 does not sign with the VLEK", chosen != SigningKey::Vlek, chosen)?;
    } else {
        refused("KEY_SEL 2 without a VLEK is refused", INVALID_KEY, processor.report(&by(KeySelect::Vlek)))?;
        report(processor, &by(KeySelect::Vcek))?;
    }
    Ok(first)
}

/// Keys are the same for the same request, and differ by everything selected.
fn keys(processor: &mut dyn SecureProcessor, report: &Report) -> Check {
    let base = key_request(report);
    let mut known: Vec<([u8; 32], String)> = Vec::new();
    let mut differs = |processor: &mut dyn SecureProcessor, request: &KeyRequest, what: String| {
        let key = derived(processor, request, &what)?;
        let again = derived(processor, request, &what)?;
        hold("the same request gives the same key", key == again, &what)?;
        if let Some((_, other)) = known.iter().find(|(other, _)| *other == key) {
            return Err(Deviation::new("no two selections share a key", format!("{what} and {other} do")));
        }
        known.push((key, what));
        Ok(())
    };
    let with = |fields: u64| KeyRequest { fields: GuestFieldSelect(fields), ..base.clone() };
    differs(processor, &with(0), "no field selected".to_owned())?;
    for (bit, name) in FIELDS {
        differs(processor, &with(bit), format!("{name} selected"))?;
    }
    differs(processor, &with(ALL_FIELDS), "all fields selected".to_owned())?;
    for vmpl in 1..=3 {
        differs(processor, &KeyRequest { vmpl, ..with(0) }, format!("VMPL {vmpl}"))?;
    }
    if let Some(lower) = lowered(base.tcb_version) {
        let lower = KeyRequest { tcb_version: lower, ..with(GuestFieldSelect::TCB_VERSION) };
        differs(processor, &lower, "a lower TCB_VERSION".to_owned())?;
        let unselected = KeyRequest { fields: GuestFieldSelect(0), ..lower };
        let same = derived(processor, &unselected, "a lower TCB_VERSION, not selected")?;
        hold("a TCB_VERSION not selected does not enter the key", known[0].0 == same, "it does")?;
    }
    if report.guest_svn() > 0 {
        let at = |guest_svn| KeyRequest { guest_svn, ..with(GuestFieldSelect::GUEST_SVN) };
        let own = derived(processor, &at(report.guest_svn()), "own GUEST_SVN")?;
        let older = derived(processor, &at(report.guest_svn() - 1), "a lower GUEST_SVN")?;
        hold("a selected GUEST_SVN enters the key", own != older, "it does not")?;
    }
    mitigations(processor, &base)
}

/// A driver of before firmware 1.58 cannot ask for LAUNCH_MIT_VECTOR: it then says so, and asks for nothing else instead.
fn mitigations(processor: &mut dyn SecureProcessor, base: &KeyRequest) -> Check {
    let select = KeyRequest { fields: GuestFieldSelect(GuestFieldSelect::LAUNCH_MIT_VECTOR), ..base.clone() };
    let property = "LAUNCH_MIT_VECTOR enters the key, or is refused by name";
    let plain = derived(processor, &KeyRequest { fields: GuestFieldSelect(0), ..base.clone() }, "no field selected")?;
    match processor.derived_key(&select) {
        Ok(key) => hold(property, *key.expose() != plain, "it does not enter"),
        Err(ProcessorError::Malformed { what }) if what.contains("LAUNCH_MIT_VECTOR") => Ok(()),
        Err(error) => Err(Deviation::new(property, error)),
    }
}

/// What must be refused, each with its status; a refusal leaves the processor open.
fn refusals(processor: &mut dyn SecureProcessor, report: &Report) -> Check {
    for vmpl in [4, u32::MAX] {
        let request = ReportRequest { vmpl, ..ReportRequest::new(ReportData::new([3; 64])) };
        refused("a report at no VMPL is refused", INVALID_PARAMETERS, processor.report(&request))?;
    }
    let base = key_request(report);
    let mut requests = vec![
        ("a key at no VMPL is refused", KeyRequest { vmpl: 4, ..base.clone() }),
        ("a VMRK without migration agent is refused", KeyRequest { root: RootKey::Vmrk, ..base.clone() }),
    ];
    if let Some(guest_svn) = report.guest_svn().checked_add(1) {
        requests.push(("a GUEST_SVN above the guest's is refused", KeyRequest { guest_svn, ..base.clone() }));
    }
    let turin = report.product() == Some(ProductLine::Turin);
    let parts: &[u32] = if turin { &[0, 1, 2, 3, 7] } else { &[0, 1, 6, 7] };
    for part in parts.iter().map(|byte| 8 * byte).filter(|shift| base.tcb_version >> shift & 0xff != 0xff) {
        let above = KeyRequest { tcb_version: base.tcb_version + (1 << part), ..base.clone() };
        requests.push(("a TCB_VERSION above the committed one is refused", above));
    }
    for (property, request) in requests {
        refused(property, INVALID_PARAMETERS, processor.derived_key(&request))?;
    }
    derived(processor, &base, "the usual request, after refusals").map(|_| ())
}

/// A report, with what every one must be.
fn report(processor: &mut dyn SecureProcessor, request: &ReportRequest) -> Result<Report, Deviation> {
    let property = format!("a report at VMPL {} under {:?} is given", request.vmpl, request.key);
    let got = processor.report(request).map_err(|error| Deviation::new(property, chain(&error)))?;
    hold("a report has 1184 bytes", got.report.len() == REPORT_LEN, got.report.len())?;
    let report = Report::parse(&got.report).map_err(|error| Deviation::new("a report parses", error))?;
    let stated = report.report_data();
    hold("a report states the REPORT_DATA asked for", stated == request.report_data, stated)?;
    hold("a report states the VMPL asked for", report.vmpl() == request.vmpl, report.vmpl())?;
    if !got.cert_table.is_empty() {
        CertTable::parse(&got.cert_table).map_err(|error| Deviation::new("a certificate table parses", error))?;
    }
    Ok(report)
}

fn equal_but_for_data(one: &Report, other: &Report) -> bool {
    let data = offset::REPORT_DATA..offset::MEASUREMENT;
    let (one, other) = (&one.as_bytes()[..SIGNED_LEN], &other.as_bytes()[..SIGNED_LEN]);
    one[..data.start] == other[..data.start] && one[data.end..] == other[data.end..]
}

/// What every other request differs from in one point.
fn key_request(report: &Report) -> KeyRequest {
    KeyRequest {
        root: RootKey::Vcek,
        key: KeySelect::Vcek,
        fields: GuestFieldSelect(GuestFieldSelect::MEASUREMENT),
        vmpl: 0,
        guest_svn: 0,
        tcb_version: report.committed_tcb_raw(),
        launch_mit_vector: 0,
    }
}

fn derived(processor: &mut dyn SecureProcessor, request: &KeyRequest, what: &str) -> Result<[u8; 32], Deviation> {
    let key = processor.derived_key(request);
    key.map(|key| *key.expose()).map_err(|error| Deviation::new(format!("a key is given: {what}"), chain(&error)))
}

fn refused<T>(property: &str, expected: u32, answer: Result<T, ProcessorError>) -> Check {
    match answer {
        Err(ProcessorError::Status { status, .. }) if status == expected => Ok(()),
        Err(error) => Err(Deviation::new(property, format!("expected status {expected:#x}, found: {}", chain(&error)))),
        Ok(_) => Err(Deviation::new(property, "it is answered")),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "what was found is said in place, and shown once")]
fn hold(property: &str, holds: bool, found: impl ToString) -> Check {
    if holds { Ok(()) } else { Err(Deviation::new(property, found)) }
}

fn chain(error: &dyn core::error::Error) -> String {
    let causes = core::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// One part lower, where any part is above zero.
fn lowered(tcb: u64) -> Option<u64> {
    let shift = (0..8).map(|byte| 8 * byte).find(|shift| tcb >> shift & 0xff != 0)?;
    Some(tcb - (1 << shift))
}

const FIELDS: [(u64, &str); 6] = [
    (GuestFieldSelect::POLICY, "POLICY"),
    (GuestFieldSelect::IMAGE_ID, "IMAGE_ID"),
    (GuestFieldSelect::FAMILY_ID, "FAMILY_ID"),
    (GuestFieldSelect::MEASUREMENT, "MEASUREMENT"),
    (GuestFieldSelect::GUEST_SVN, "GUEST_SVN"),
    (GuestFieldSelect::TCB_VERSION, "TCB_VERSION"),
];
/// Those of message version 1.
const ALL_FIELDS: u64 = GuestFieldSelect::DEFINED & !GuestFieldSelect::LAUNCH_MIT_VECTOR;
const INVALID_PARAMETERS: u32 = 0x16;
const INVALID_KEY: u32 = 0x27;
