use coffer_spec::{Floors, HostMay, MeasuredCommandLine, Tee, WorkloadSpec, sample::tenant};

use super::*;

pub(crate) fn spec(tee: Tee) -> WorkloadSpec {
    WorkloadSpec {
        host_may: HostMay::parse("stop").unwrap(),
        floors: Floors { not_before: 1000, ..Floors::default() },
        ..coffer_spec::sample::workload(tee)
    }
}

fn disk(document: &Document) -> Vec<u8> {
    written(SpecDisk { document: document.bytes(), claimed_unix_seconds: Some(5) })
}

fn written(disk: SpecDisk<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    disk.write(&mut bytes).unwrap();
    bytes
}

#[test]
fn accepts_the_spec_the_command_line_names() {
    let document = Document::write(&spec(Tee::Simulated)).unwrap();
    let line = MeasuredCommandLine { workload: document.digest(), tee: Tee::Simulated };
    let checked = check_spec(&disk(&document), &line).unwrap();
    assert_eq!(checked.document, document);
    assert_eq!(checked.clock, Some(1000), "never before the floor");
}

#[test]
fn refuses_another_spec_than_the_measured_one() {
    let document = Document::write(&spec(Tee::None)).unwrap();
    let other = Document::write(&WorkloadSpec { tenant: tenant("other"), ..spec(Tee::None) }).unwrap();
    let line = MeasuredCommandLine { workload: document.digest(), tee: Tee::None };
    assert_eq!(check_spec(&disk(&other), &line).unwrap_err().code, Code::SpecMismatch);
}

#[test]
fn refuses_a_weaker_secure_processor_than_the_spec_demands() {
    let document = Document::write(&spec(Tee::Snp)).unwrap();
    for tee in [Tee::Simulated, Tee::None] {
        let line = MeasuredCommandLine { workload: document.digest(), tee };
        assert_eq!(check_spec(&disk(&document), &line).unwrap_err().code, Code::TeeMismatch);
    }
}

#[test]
fn the_clock_never_starts_before_the_floor() {
    assert_eq!(first_clock(Some(5), 10), Some(10));
    assert_eq!(first_clock(None, 10), Some(10));
    assert_eq!(first_clock(Some(11), 10), Some(11));
    assert_eq!(first_clock(None, 0), None);
}

#[test]
fn refuses_bytes_that_are_no_spec() {
    let line = MeasuredCommandLine { workload: coffer_verifier::abi::WorkloadDigest::of(b"x"), tee: Tee::None };
    assert_eq!(check_spec(b"junk", &line).unwrap_err().code, Code::SpecInvalid);
    let disk = written(SpecDisk { document: b"x", claimed_unix_seconds: None });
    assert_eq!(check_spec(&disk, &line).unwrap_err().code, Code::SpecInvalid);
}
