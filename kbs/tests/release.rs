//! Who gets a secret and who does not, over TCP with simulated guests. Each refusal carries the reason in the trail.

use crate::common;
use std::sync::atomic::Ordering;

use crate::common::{Guest, Kbs, Launch, PATH, VALUE, ask, edit_all, has_reason, not_admitted, refused, spec};
use coffer_kbs::{AuditFault, Kind, Row, StateError, StoreError, open_store};
use coffer_kbs_client::ClientError;
use coffer_spec::Tee;
use coffer_verifier::{
    Cost, CrlPolicy, Endorsements, EvidencePolicy, Expected, ExpectedGuest, ExpectedReportData, Expiry, Pair,
    TrustAnchors, UnixTime, Verifier,
    abi::{Measurement, Report, WorkloadDigest},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admitted_guest_gets_its_secret_and_the_trail_says_so() {
    let kbs = Kbs::start().await;
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = kbs.connect(guest.clone()).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);

    let lines = kbs.admin().await.audit(0, 0).await.unwrap();
    let last: serde_json::Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    assert_eq!(last["event"], "secret.release");
    assert_eq!(last["outcome"], "released");
    assert_eq!(last["version"], 1);
    assert_eq!(last["measurement"], guest.measurement.to_string());
    assert_eq!(last["anchor"], "simulated");
    assert!(!lines.concat().contains("correct horse"));
    let folder = kbs.stop().await;
    assert_eq!(open_store(&folder.path().join("state")).await.unwrap().verify_audit().await.unwrap().lines, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_costs_one_chain_and_one_signature_however_many_secrets_it_asks_for() {
    let kbs = Kbs::start().await;
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let mut expected = Cost::default();
    for secrets in [1, 2, 10] {
        let client = kbs.connect(guest.clone()).await.unwrap();
        for _ in 0..secrets {
            assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
        }
        // Root, intermediate, leaf, list and report, at attestation: the same bytes under the same key.
        expected += Cost { rsa: 4, ecdsa: 1 };
        assert_eq!((kbs.cost)(), expected, "{secrets} secrets");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trail_shows_the_checks_in_the_form_every_command_prints() {
    let kbs = Kbs::start().await;
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = kbs.connect(guest.clone()).await.unwrap();
    ask(&client, PATH).await.unwrap();
    let lines = kbs.admin().await.audit(0, 0).await.unwrap();
    let line: serde_json::Value = serde_json::from_str(lines.last().unwrap()).unwrap();

    // What `coffer verify --json` and `coffer attest --json` print is the judge's appraisal.
    let evidence = guest.made.lock().unwrap().last().unwrap().clone();
    let verifier = Verifier {
        anchors: TrustAnchors::amd().with_simulated(common::anchor()),
        crl: CrlPolicy::Required,
        policy: EvidencePolicy::default_floor(),
    };
    let report_data = Report::parse(&evidence.report).unwrap().report_data();
    let pair = Pair { measurement: guest.measurement, host_data: guest.document.digest().host_data() };
    let wanted = Expected {
        report_data: ExpectedReportData::Exactly(report_data),
        guest: ExpectedGuest::Admitted { pairs: vec![pair], signers: vec![] },
    };
    let now = UnixTime::from(std::time::SystemTime::now());
    let said = serde_json::to_value(verifier.judge(&evidence, &Endorsements::new(), &wanted, now)).unwrap();
    let timeless = |checks: &serde_json::Value| -> Vec<serde_json::Value> {
        let mut checks = checks.as_array().unwrap().clone();
        // Both say when they were made.
        for check in checks.iter_mut().filter(|check| check["code"].as_str().unwrap().ends_with("-dates")) {
            check["expected"] = "valid at".into();
        }
        // And how old the list was then.
        for check in checks.iter_mut().filter(|check| check["code"] == "crl-age") {
            let found = check["found"].as_str().unwrap().split_once(", ").unwrap().0;
            check["found"] = found.to_owned().into();
        }
        checks
    };
    assert_eq!(timeless(&line["checks"]), timeless(&said["checks"]));
    assert!(line["checks"].as_array().unwrap().len() > 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn halves_of_two_admitted_pairs_make_no_pair() {
    let kbs = Kbs::start().await;
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, WorkloadDigest::new([5; 32])).await;
    kbs.admit(Measurement::new([5; 48]), guest.document.digest()).await;
    refused(ask(&kbs.connect(guest).await.unwrap(), PATH).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_simulated_root_that_the_tenant_does_not_list_is_not_let_in() {
    let kbs = Kbs::start_with(|_| ()).await;
    assert_eq!(not_admitted(kbs.connect(Guest::usual()).await), "evidence-not-authentic");
    let other_tenant = Kbs::start_with(|config| {
        config.tenants.entry("other".into()).or_default().simulated_anchors = vec![common::anchor().to_string()];
    })
    .await;
    assert_eq!(not_admitted(other_tenant.connect(Guest::usual()).await), "evidence-not-authentic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_typed_permission_holds_whatever_the_secrets_policy_says() {
    let folder = tempfile::tempdir().unwrap();
    let lax = folder.path().join("lax.rego");
    std::fs::write(&lax, "package lax\nallow := true\n").unwrap();
    let kbs = Kbs::start_with(|config| {
        config.tenants.entry(common::TENANT.into()).or_default().simulated_anchors = vec![common::anchor().to_string()];
        config.policies.insert("lax".into(), lax);
    })
    .await;
    let guest = Guest::usual();
    kbs.put_under(PATH, false, "lax").await.unwrap();
    let client = kbs.connect(guest.clone()).await.unwrap();
    let line = kbs.line_of(&refused(ask(&client, PATH).await));
    assert!(has_reason(&line, "measurement-and-workload"), "{line}");
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let line = kbs.line_of(&refused(ask(&client, PATH).await));
    assert!(has_reason(&line, "allow_simulated"), "{line}");
    // With both in place the lax policy has nothing left to waive.
    kbs.put_under(PATH, true, "lax").await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_and_unasked_paths_look_like_any_refusal() {
    let missing = "kbs:///default/app/missing";
    let kbs = Kbs::start().await;
    let guest = Guest::launch(&Launch { spec: spec(&[PATH, missing]), ..Launch::default() });
    kbs.put(PATH, true).await;
    kbs.put("kbs:///default/app/other", true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = kbs.connect(guest).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    // `refused` checks that the answers are the same.
    let unknown = kbs.line_of(&refused(ask(&client, missing).await));
    assert!(has_reason(&unknown, "there is none at this path"));
    let unasked = kbs.line_of(&refused(ask(&client, "kbs:///default/app/other").await));
    assert!(has_reason(&unasked, "does not ask for this path"));
    assert!(!has_reason(&unasked, "there is none"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debug_and_migration_policies_are_below_the_floor() {
    let kbs = Kbs::start().await;
    for policy in [0x3_0000 | 1 << 19, 0x3_0000 | 1 << 18] {
        let guest = Guest::launch(&Launch { policy, ..Launch::default() });
        assert_eq!(not_admitted(kbs.connect(guest).await), "evidence-refused", "{policy:#x}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spec_that_wants_hardware_is_not_met_by_the_simulator() {
    let kbs = Kbs::start().await;
    let mut hardware = spec(&[PATH]);
    hardware.tee = Tee::Snp;
    let guest = Guest::launch(&Launch { spec: hardware, ..Launch::default() });
    assert_eq!(not_admitted(kbs.connect(guest).await), "tee-mismatch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_or_expired_reference_counts_at_the_next_release_of_an_open_connection() {
    let kbs = Kbs::start().await;
    let guest = Guest::usual();
    let digest = guest.document.digest();
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, digest).await;
    let client = kbs.connect(guest.clone()).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    assert!(kbs.admin().await.remove_reference(common::TENANT, &guest.measurement, &digest).await.unwrap());
    let line = kbs.line_of(&refused(ask(&client, PATH).await));
    assert!(has_reason(&line, "neither measurement"), "{line}");

    let now = i64::try_from(common::unix()).unwrap();
    kbs.admit_until(guest.measurement, digest, Expiry::At(UnixTime(now + 600))).await;
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    kbs.skew.store(601, Ordering::Relaxed);
    let line = kbs.line_of(&refused(ask(&client, PATH).await));
    assert!(has_reason(&line, "expired"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_is_verified_again_at_each_release() {
    let kbs = Kbs::start().await;
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = kbs.connect(guest).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    // Certificates and revocation list have run out in the meantime.
    kbs.skew.store(40 * 365 * 86400, Ordering::Relaxed);
    refused(ask(&client, PATH).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_rows_release_nothing_and_are_named() {
    type Edit = fn(&mut Vec<(Vec<u8>, Row)>);
    // Rows are sorted by their keys: the other secret's come first, ours last.
    let set_back: Edit = |rows| {
        let last = rows.len() - 1;
        rows[last].1 = rows[last - 1].1.clone();
    };
    let swap: Edit = |rows| {
        let last = rows.len() - 1;
        let first = rows[0].1.clone();
        rows[0].1 = std::mem::replace(&mut rows[last].1, first);
    };
    for (kind, edit) in [
        (Kind::SecretVersion, edit_all as Edit),
        (Kind::SecretVersion, Vec::clear),
        (Kind::SecretVersion, set_back),
        (Kind::SecretHead, edit_all),
        (Kind::SecretHead, Vec::clear),
        (Kind::SecretHead, swap),
        (Kind::Reference, edit_all),
        (Kind::Reference, Vec::clear),
    ] {
        let kbs = Kbs::start().await;
        let guest = Guest::usual();
        for path in ["kbs:///default/app/other", PATH, PATH] {
            kbs.put(path, true).await;
        }
        kbs.admit(guest.measurement, guest.document.digest()).await;
        let client = kbs.connect(guest).await.unwrap();
        assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
        kbs.tamper(kind, edit).await;
        let line = kbs.line_of(&refused(ask(&client, PATH).await));
        assert!(has_reason(&line, "changed behind the server's back"), "{kind:?}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_trail_is_found_and_nothing_is_released_that_cannot_be_recorded() {
    let kbs = Kbs::start().await;
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = kbs.connect(guest).await.unwrap();
    kbs.tamper(Kind::Head, edit_all).await;
    match ask(&client, PATH).await {
        Err(ClientError::Undecided { .. } | ClientError::Unreachable { .. } | ClientError::Protocol { .. }) => {}
        other => panic!("{:?}", other.map(|_| "released")),
    }
    assert!(matches!(open_store(&kbs.state()).await, Err(StateError::Store(StoreError::Audit(AuditFault::Head)))));
}
