//! What is revoked gets nothing, whatever admits it: at the next release, and on connections that are open.

use crate::common;
use std::{sync::Arc, time::Duration};

use crate::common::{Author, Guest, Kbs, Key, Launch, PATH, TENANT, VALUE, ask, edit_all, has_reason, refused};
use coffer_kbs::{Kind, open_store};
use coffer_kbs_client::{AuditQuery, BrokerClient, ClientError};
use coffer_ratls::Attester as _;
use coffer_simulator::{Installation, LaunchOptions};
use coffer_verifier::abi::{ProductLine, Report, ReportData};

/// A broker that admits a guest, and the guest.
async fn ready(guest: &Arc<Guest>) -> (Kbs, BrokerClient) {
    let kbs = Kbs::start().await;
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = kbs.connect(guest.clone()).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    (kbs, client)
}

/// The same digits but for the first: of whatever value, another one.
fn beside(hex: &str) -> String {
    let (first, rest) = hex.split_at(1);
    format!("{}{rest}", if first == "7" { "8" } else { "7" })
}

async fn refused_as_revoked(kbs: &Kbs, guest: &Arc<Guest>, why: &str) {
    let client = kbs.connect(guest.clone()).await.unwrap();
    let id = refused(ask(&client, PATH).await);
    // Whoever asks for an id finds what was refused under it.
    let query = AuditQuery { id: Some(id.clone()), ..AuditQuery::default() };
    assert_eq!(kbs.admin().await.audit_search(&query, 1).await.unwrap().len(), 1, "{why}");
    let line = kbs.line_of(&id);
    assert!(has_reason(&line, &format!("revoked: {why}")), "{why}: {line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_reaches_whom_it_names_and_nobody_else() {
    let signed = Launch { id: Some(Author::default()), ..Launch::default() };
    let guest = Guest::launch(&signed);
    let report = Report::parse(&guest.evidence(&ReportData::new([0; 64])).unwrap().report).unwrap();
    let author = Key::new(Author::default().key).author_digest().to_string();
    let (kbs, _client) = ready(&guest).await;
    let admin = kbs.admin().await;
    for (kind, value) in [
        ("chip", guest.chip()),
        ("measurement", guest.measurement.to_string()),
        ("workload", guest.document.digest().to_string()),
        ("report-id", report.report_id().to_string()),
        ("tcb", "Milan:snp=255".to_owned()),
        ("signer", author),
    ] {
        let client = kbs.connect(guest.clone()).await.unwrap();
        assert_eq!(ask(&client, PATH).await.unwrap(), VALUE, "{kind}");
        // For another tenant, or of another value, it is nothing to this guest.
        admin.add_tenant("other").await.unwrap();
        assert_eq!(admin.revoke(Some("other"), kind, &value, None).await.unwrap(), (true, 0), "{kind}");
        let another = if kind == "tcb" { "Genoa:snp=255".to_owned() } else { beside(&value) };
        let (added, recalled) = admin.revoke(None, kind, &another, None).await.unwrap();
        assert!(added && recalled == 0, "{kind}");
        assert_eq!(ask(&client, PATH).await.unwrap(), VALUE, "{kind}");

        let (added, recalled) = admin.revoke(None, kind, &value, Some("stolen")).await.unwrap();
        assert!(added && recalled > 0, "{kind}: {recalled}");
        // Its attestation is gone: the client attests anew, and is a stranger now.
        let line = kbs.line_of(&refused(ask(&client, PATH).await));
        assert!(has_reason(&line, &format!("revoked: {kind}")), "{kind}: {line}");
        refused_as_revoked(&kbs, &guest, &format!("{kind} {value}, for every tenant: stolen")).await;
        assert!(!admin.revoke(None, kind, &value, Some("stolen")).await.unwrap().0, "{kind}: it stands already");
        let listed = admin.list_revocations(None).await.unwrap().rows;
        let mine = listed.iter().find(|one| one.kind == kind && one.value == value).unwrap();
        assert_eq!((mine.by.as_str(), mine.reason.as_deref()), ("admin", Some("stolen")));

        assert!(admin.remove_revocation(None, kind, &value).await.unwrap(), "{kind}");
        assert!(!admin.remove_revocation(None, kind, &value).await.unwrap(), "{kind}");
        let client = kbs.connect(guest.clone()).await.unwrap();
        assert_eq!(ask(&client, PATH).await.unwrap(), VALUE, "{kind}");
    }
    let lines = admin.audit(0, 0).await.unwrap().concat();
    assert!(lines.contains("revocation.add") && lines.contains("revocation.remove"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_guest_is_closed_within_five_seconds_unless_it_is_admitted_anew() {
    let guest = Guest::usual();
    let (kbs, revoked) = ready(&guest).await;
    let other = Guest::launch(&Launch { platform: 2, ..Launch::default() });
    kbs.admit(other.measurement, other.document.digest()).await;
    let bystander = kbs.connect(other.clone()).await.unwrap();
    let admin = kbs.admin().await;
    let measurement = guest.measurement.to_string();
    assert_eq!(admin.revoke(Some(TENANT), "measurement", &measurement, None).await.unwrap(), (true, 1));
    assert_eq!(admin.list_guests(None).await.unwrap().len(), 1);
    tokio::time::sleep(Duration::from_millis(5500)).await;
    assert!(matches!(ask(&revoked, PATH).await, Err(ClientError::Unreachable { .. })));
    assert_eq!(ask(&bystander, PATH).await.unwrap(), VALUE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_or_missing_revocation_goes_on_refusing() {
    for removed in [false, true] {
        let guest = Guest::usual();
        let (kbs, _client) = ready(&guest).await;
        kbs.admin().await.revoke(None, "measurement", &guest.measurement.to_string(), Some("why")).await.unwrap();
        kbs.tamper(Kind::Revocation, |rows| if removed { rows.clear() } else { edit_all(rows) }).await;
        let client = kbs.connect(guest.clone()).await.unwrap();
        let line = kbs.line_of(&refused(ask(&client, PATH).await));
        assert!(has_reason(&line, "revoked: measurement"), "{line}");
        assert!(has_reason(&line, "changed behind the server's back"), "{line}");
        let folder = kbs.stop().await;
        let faults = open_store(&folder.path().join("state")).await.unwrap().verify_state().await.unwrap().faults;
        assert!(faults.len() == 1 && !faults[0].loses, "{faults:?}");
    }
}

fn masked(vlek: Option<&str>) -> LaunchOptions {
    let usual = LaunchOptions::new(ProductLine::Milan, common::unix());
    LaunchOptions { mask_chip_id: true, vlek: vlek.map(str::to_owned), ..usual }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chip_that_the_report_hides_is_known_by_its_certificate() {
    let hidden = Guest::launch_with(&Launch::default(), masked(None));
    assert_eq!(hidden.chip(), "00".repeat(64));
    let (kbs, client) = ready(&hidden).await;
    let chip = Guest::usual().chip();
    // Another chip is nothing to it: the certificate says which it is.
    let admin = kbs.admin().await;
    assert_eq!(admin.revoke(None, "chip", &"77".repeat(64), None).await.unwrap(), (true, 0));
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    assert_eq!(admin.list_guests(None).await.unwrap()[0].chip_id.as_deref(), Some(chip.as_str()));
    assert_eq!(admin.revoke(None, "chip", &chip, None).await.unwrap(), (true, 1));
    refused_as_revoked(&kbs, &hidden, &format!("chip {chip}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_without_a_chip_is_refused_while_a_chip_is_revoked_unless_waived_by_name() {
    let mut provider = Installation::from_bytes(&common::installation().to_bytes().unwrap()).unwrap();
    provider.ensure_vlek(ProductLine::Milan, common::unix()).unwrap();
    let chipless = Guest::launch_on(&provider, &Launch::default(), masked(Some("CN=example")));
    let (kbs, client) = ready(&chipless).await;
    let admin = kbs.admin().await;
    assert_eq!(admin.list_guests(None).await.unwrap()[0].chip_id, None);
    assert_eq!(admin.revoke(None, "chip", &"77".repeat(64), None).await.unwrap(), (true, 1));
    refused(ask(&client, PATH).await);
    refused_as_revoked(&kbs, &chipless, "the evidence shows no chip, and 1 are revoked").await;
    kbs.reload(|config| {
        let anchors = vec![common::anchor().to_string()];
        config.tenants.entry(TENANT.into()).or_default().simulated_anchors = anchors;
        config.revocation_waivers = vec!["evidence-without-a-chip-counts-while-chips-are-revoked".into()];
    })
    .await;
    let client = kbs.connect(chipless.clone()).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    assert_eq!(admin.revoke(None, "chip", &"78".repeat(64), None).await.unwrap(), (true, 0));
    assert!(admin.remove_revocation(None, "chip", &"77".repeat(64)).await.unwrap());
}
