//! The loopback routes that a Confidential Containers guest has (its api-server-rest), where the spec enables them.
//!
//! They are other names of calls there are: the same limits, the same broker, the same refusals. Whoever is in the workload's
//! network namespace may ask. Trusts: nothing of a request. Never: answers unless the spec says so, binds more than 48 bytes of
//! a caller's, so that no report of these routes passes for one under a label of Coffer's.
//! Source: docs/design/protocol.md §4.9; guest-components, api-server-rest.

use std::net::{Ipv4Addr, SocketAddrV4};

use coffer_verifier::{
    abi::{CertKind, CertTable, FirmwareVersion, ProductLine, Report, ReportData, TcbVersion, report::offset},
    evidence::Evidence,
};
use http::{Method, StatusCode, Uri};
use serde::Serialize;

use super::{
    call::{Call, Parameters, only, secret_path},
    refusal::Refusal,
};

/// Where they are.
pub const ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, coffer_spec::COCO_PORT);
/// Longest data that evidence is made over: the last 16 bytes of REPORT_DATA stay zero.
const DATA: usize = 48;

/// Method and path of each route.
pub const ROUTES: [(&str, &str); 3] = [
    ("GET", "/cdh/resource/{repository}/{type}/{tag}"),
    ("GET", "/aa/evidence?runtime_data={data}"),
    ("GET", "/aa/token?token_type=kbs"),
];

/// Reads what is asked.
pub fn read(method: &Method, uri: &Uri) -> Result<Call, Refusal> {
    let mut asked = Parameters::read(uri.query().unwrap_or_default())?;
    let call = match uri.path() {
        "/aa/evidence" => Call::CocoEvidence(runtime_data(&mut asked)?),
        "/aa/token" => match asked.take("token_type").as_deref() {
            Some("kbs") => Call::CocoToken,
            _ => return Err(Refusal::field("token_type", "kbs")),
        },
        path => match path.strip_prefix("/cdh/resource/") {
            Some(secret) => Call::Secret { path: secret_path(secret)?, version: None },
            None => return Err(nowhere()),
        },
    };
    only(method, &Method::GET)?;
    asked.end()?;
    Ok(call)
}

fn runtime_data(asked: &mut Parameters) -> Result<ReportData, Refusal> {
    let expected = "1 to 48 bytes, as they are";
    let data = asked.take("runtime_data").unwrap_or_default().into_bytes();
    if !(1..=DATA).contains(&data.len()) {
        return Err(Refusal::field("runtime_data", expected));
    }
    let mut padded = [0; 64];
    padded[..data.len()].copy_from_slice(&data);
    Ok(ReportData::new(padded))
}

fn nowhere() -> Refusal {
    let routes = ROUTES.map(|(method, path)| format!("{method} {path}")).join(", ");
    Refusal::new(StatusCode::NOT_FOUND, "no-such-call", format!("there is no such route, but {routes}"))
}

/// A token as it is there, with the pair whose public half its `cnf` names: PKCS #8, PEM.
pub fn token_json(token: &str, tee_keypair: &str) -> Result<Vec<u8>, Refusal> {
    let failed = |error: serde_json::Error| Refusal::processor(format!("the answer: {error}"));
    serde_json::to_vec(&TokenAnswer { token, tee_keypair }).map_err(failed)
}

#[derive(Serialize)]
struct TokenAnswer<'a> {
    token: &'a str,
    tee_keypair: &'a str,
}

/// Evidence as it is there: the report's fields one by one, as the `sev` crate's structure is in JSON.
///
/// # Errors
/// If the processor's report does not parse; the host's certificate table is left out where it does not.
pub fn evidence_json(evidence: &Evidence) -> Result<Vec<u8>, Refusal> {
    let failed = |error: &dyn std::fmt::Display| Refusal::processor(format!("secure processor: {error}"));
    let report = Report::parse(&evidence.report).map_err(|error| failed(&error))?;
    let table = CertTable::parse(&evidence.cert_table).unwrap_or_default();
    let chain: Vec<_> = table.entries().iter().filter_map(|(kind, data)| certificate(*kind, data)).collect();
    let told = Told { attestation_report: fields(&report), cert_chain: (!chain.is_empty()).then_some(chain) };
    serde_json::to_vec(&told).map_err(|error| failed(&error))
}

fn certificate(kind: CertKind, data: &[u8]) -> Option<Certificate<'_>> {
    let cert_type = match kind {
        CertKind::Vcek => "VCEK",
        CertKind::Vlek => "VLEK",
        CertKind::Ask => "ASK",
        CertKind::Ark => "ARK",
        CertKind::Crl => "CRL",
        CertKind::Other(_) => return None,
    };
    Some(Certificate { cert_type, data })
}

fn fields(report: &Report) -> Fields<'_> {
    let bytes = report.as_bytes();
    let part = |at: usize, length: usize| &bytes[at..at + length];
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    // Of a processor that we have no layout for it is that of the first.
    let layout = report.product().unwrap_or(ProductLine::Milan).tcb_layout();
    let tcb = |at| TcbVersion::from_raw(long(at), layout).ok().map(Tcb::from);
    let cpuid = report.cpuid();
    Fields {
        version: report.version(),
        guest_svn: report.guest_svn(),
        policy: long(offset::POLICY),
        family_id: part(offset::FAMILY_ID, 16),
        image_id: part(offset::IMAGE_ID, 16),
        vmpl: report.vmpl(),
        sig_algo: word(offset::SIGNATURE_ALGO),
        current_tcb: tcb(offset::CURRENT_TCB),
        plat_info: long(offset::PLATFORM_INFO),
        key_info: word(offset::KEY_INFO),
        report_data: part(offset::REPORT_DATA, 64),
        measurement: part(offset::MEASUREMENT, 48),
        host_data: part(offset::HOST_DATA, 32),
        id_key_digest: part(offset::ID_KEY_DIGEST, 48),
        author_key_digest: part(offset::AUTHOR_KEY_DIGEST, 48),
        report_id: part(offset::REPORT_ID, 32),
        report_id_ma: part(offset::REPORT_ID_MA, 32),
        reported_tcb: tcb(offset::REPORTED_TCB),
        cpuid_fam_id: cpuid.map(|cpu| cpu.family),
        cpuid_mod_id: cpuid.map(|cpu| cpu.model),
        cpuid_step: cpuid.map(|cpu| cpu.stepping),
        chip_id: part(offset::CHIP_ID, 64),
        committed_tcb: tcb(offset::COMMITTED_TCB),
        current: report.current_firmware().into(),
        committed: report.committed_firmware().into(),
        launch_tcb: tcb(offset::LAUNCH_TCB),
        launch_mit_vector: report.launch_mit_vector(),
        current_mit_vector: report.current_mit_vector(),
        signature: Signature { r: part(offset::R, 72), s: part(offset::S, 72) },
    }
}

#[derive(Serialize)]
struct Told<'a> {
    attestation_report: Fields<'a>,
    cert_chain: Option<Vec<Certificate<'a>>>,
}

#[derive(Serialize)]
struct Certificate<'a> {
    cert_type: &'static str,
    data: &'a [u8],
}

/// Names and order are the `sev` crate's.
#[derive(Serialize)]
struct Fields<'a> {
    version: u32,
    guest_svn: u32,
    policy: u64,
    family_id: &'a [u8],
    image_id: &'a [u8],
    vmpl: u32,
    sig_algo: u32,
    current_tcb: Option<Tcb>,
    plat_info: u64,
    key_info: u32,
    report_data: &'a [u8],
    measurement: &'a [u8],
    host_data: &'a [u8],
    id_key_digest: &'a [u8],
    author_key_digest: &'a [u8],
    report_id: &'a [u8],
    report_id_ma: &'a [u8],
    reported_tcb: Option<Tcb>,
    cpuid_fam_id: Option<u8>,
    cpuid_mod_id: Option<u8>,
    cpuid_step: Option<u8>,
    chip_id: &'a [u8],
    committed_tcb: Option<Tcb>,
    current: Firmware,
    committed: Firmware,
    launch_tcb: Option<Tcb>,
    launch_mit_vector: Option<u64>,
    current_mit_vector: Option<u64>,
    signature: Signature<'a>,
}

/// FMC is null, not absent, where a product has none.
#[derive(Serialize)]
struct Tcb {
    fmc: Option<u8>,
    bootloader: u8,
    tee: u8,
    snp: u8,
    microcode: u8,
}

impl From<TcbVersion> for Tcb {
    fn from(tcb: TcbVersion) -> Self {
        let TcbVersion { fmc, bootloader, tee, snp, microcode } = tcb;
        Self { fmc, bootloader, tee, snp, microcode }
    }
}

#[derive(Serialize)]
struct Firmware {
    major: u8,
    minor: u8,
    build: u8,
}

impl From<FirmwareVersion> for Firmware {
    fn from(FirmwareVersion { major, minor, build }: FirmwareVersion) -> Self {
        Self { major, minor, build }
    }
}

#[derive(Serialize)]
struct Signature<'a> {
    r: &'a [u8],
    s: &'a [u8],
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &str, uri: &str) -> Result<Call, Refusal> {
        super::read(&method.parse().unwrap(), &uri.parse().unwrap())
    }

    #[test]
    fn each_route_is_another_name_of_a_call() {
        let secret = Call::Secret { path: "kbs:///app/db/password".parse().unwrap(), version: None };
        assert_eq!(read("GET", "/cdh/resource/app/db/password").unwrap(), secret);
        assert_eq!(read("GET", "/aa/token?token_type=kbs").unwrap(), Call::CocoToken);
        let Call::CocoEvidence(data) = read("GET", "/aa/evidence?runtime_data=a%20nonce").unwrap() else { panic!() };
        assert_eq!(data.as_bytes()[..7], *b"a nonce");
        assert_eq!(data.as_bytes()[7..], [0; 57]);
    }

    /// SHA-512 fills all 64 bytes of REPORT_DATA; what these routes bind leaves the last 16 zero.
    #[test]
    fn no_data_reaches_the_end_of_report_data() {
        let longest = format!("/aa/evidence?runtime_data={}", "x".repeat(DATA));
        let Call::CocoEvidence(data) = read("GET", &longest).unwrap() else { panic!() };
        assert_eq!(data.as_bytes()[DATA..], [0; 16]);
        let refused = format!("{:?}", read("GET", &format!("{longest}x")).unwrap_err());
        assert!(refused.contains("runtime_data"), "{refused}");
    }

    #[test]
    fn what_is_wrong_is_named_and_not_repeated() {
        for (method, uri, word) in [
            ("GET", "/", "no-such-call"),
            ("POST", "/v1/evidence", "no-such-call"),
            ("GET", "/cdh/resource-canary/a/b/c", "no-such-call"),
            ("GET", "/cdh/resource/a/b", "path"),
            ("GET", "/cdh/resource/a/b/../canary", "path"),
            ("GET", "/cdh/resource/a/b/c?version=3", "query"),
            ("POST", "/cdh/resource/a/b/c", "method"),
            ("GET", "/aa/evidence", "runtime_data"),
            ("GET", "/aa/evidence?runtime_data=", "runtime_data"),
            ("GET", "/aa/evidence?runtime_data=x&canary=1", "query"),
            ("GET", "/aa/token", "token_type"),
            ("GET", "/aa/token?token_type=canary", "token_type"),
            ("POST", "/aa/token?token_type=kbs", "method"),
        ] {
            let refusal = format!("{:?}", read(method, uri).expect_err(uri));
            assert!(refusal.contains(&format!("{word:?}")), "{uri}: {refusal}");
            assert!(!refusal.contains("canary"), "{uri}: {refusal}");
        }
    }
}
