//! What an owner expects of a box is expected beside any policy file: an author the file lists may be known for other
//! workloads too, and none of them gets this one's secrets.

use coffer_platform::plan::LaunchPlan;
use coffer_ratls::Appraiser as _;
use coffer_runtime::id_block::{GUEST_POLICY, LaunchNames, SignedLaunch};
use coffer_runtime::owner_access::GuestAppraiser;
use coffer_runtime::signing_key::SigningKey;
use coffer_runtime::simulator;
use coffer_verifier::abi::{FamilyId, HostData, ImageId, ProductLine, ReportData, ReportRequest, SecureProcessor as _};
use coffer_verifier::{Evidence, EvidencePolicy, ExpectedGuest, Pair, Verdict};

#[test]
fn another_workload_of_a_listed_author_is_not_the_one_expected() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("sim");
    let installation = simulator::open(&folder, ProductLine::Milan).unwrap();
    let firmware = coffer_platform::sample::rom(1);
    let plan = LaunchPlan::new(&coffer_platform::sample::inputs(&firmware)).unwrap();
    let (id, author) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let names = LaunchNames { guest_svn: 1, family_id: FamilyId::new([1; 16]), image_id: ImageId::new([2; 16]) };
    let signed = SignedLaunch::sign(plan.measurement(), GUEST_POLICY, names, &id, Some(&author)).unwrap();

    let other = HostData::new([7; 32]);
    let guest = simulator::launch(&installation, &plan, other, Some(&signed)).unwrap();
    let report_data = ReportData::new([5; 64]);
    let got = guest.into_processor().report(&ReportRequest::new(report_data)).unwrap();
    let evidence = Evidence { report: got.report, cert_table: got.cert_table, ..Evidence::default() };

    let file = format!(
        "measurements = \"any\"\n[[signers]]\nauthor_key = \"{}\"\nfamily_id = \"{}\"\nimage_id = \"{}\"\nminimum_guest_svn = 1\n",
        signed.facts().author_key_digest.unwrap(),
        names.family_id,
        names.image_id
    );
    let judged = |host_data| {
        let anchors = simulator::anchors(&folder).unwrap();
        let policy = EvidencePolicy::from_toml(&file).unwrap();
        let expected = ExpectedGuest::Exactly(Pair { measurement: plan.measurement(), host_data });
        let appraiser = GuestAppraiser::new(anchors, policy, expected);
        let admitted = appraiser.appraise(&evidence, &report_data);
        (admitted.is_ok(), appraiser.findings().unwrap().appraisal)
    };
    let (admitted, appraisal) = judged(other);
    assert!(admitted, "the workload that runs: {}", appraisal.why());
    let (admitted, appraisal) = judged(HostData::new([8; 32]));
    assert!(!admitted, "the file lists the author of both");
    assert_eq!(appraisal.verdict(), Verdict::Refused);
    let codes: Vec<_> = appraisal.reasons().iter().map(|reason| reason.code.as_str()).collect();
    assert_eq!(codes, ["measurement-and-workload"]);
}
