//! One file is the floor of the broker, of a tenant and of `coffer verify --policy`: the same evidence gets the same answer. Ages of lists and
//! manifests are asked at each release, and lists that evidence lacks are brought.

use crate::common;
use std::{path::Path, sync::atomic::Ordering};

use crate::common::{
    Guest, Kbs, Key, Launch, PATH, TENANT, VALUE, anchor, ark, ask, crl, has_reason, not_admitted, refused,
};
use coffer_kbs::{ConfigFile, Kind};
use coffer_kbs_client::{AdminProfile, ClientError, Grant, ManifestKey};
use coffer_ratls::{Attester as _, Identity};
use coffer_simulator::{Installation, LaunchOptions};
use coffer_verifier::{
    CrlPolicy, Endorsements, EvidencePolicy, Expected, ExpectedGuest, ExpectedReportData, TrustAnchors, UnixTime,
    Verifier,
    abi::{ProductLine, ReportData},
    manifest::{Contents, MeasuredLaunch, ReferenceManifest, SignedManifest},
    measure::LaunchForm,
};

const DAY: i64 = 86_400;

fn lists_anchor(config: &mut ConfigFile) {
    config.tenants.entry(TENANT.into()).or_default().simulated_anchors = vec![anchor().to_string()];
}

async fn under_floor(text: &str) -> Kbs {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("floor.toml");
    std::fs::write(&file, text).unwrap();
    Kbs::start_with(|config| {
        lists_anchor(config);
        config.tenants.get_mut(TENANT).unwrap().floor = Some(file.to_str().unwrap().into());
    })
    .await
}

/// What `coffer verify --policy FILE` judges by, and says.
fn verify_under(file: &Path, guest: &Guest) -> Vec<String> {
    let policy = EvidencePolicy::from_toml(&std::fs::read_to_string(file).unwrap()).unwrap();
    let anchors = TrustAnchors::amd().with_simulated(anchor());
    let verifier = Verifier { anchors, crl: CrlPolicy::Required, policy };
    let evidence = guest.evidence(&ReportData::new([7; 64])).unwrap();
    let expected = Expected { report_data: ExpectedReportData::Any, guest: ExpectedGuest::WhateverThePolicyAdmits };
    let now = UnixTime::from(std::time::SystemTime::now());
    let appraisal = verifier.judge(&evidence, &Endorsements::new(), &expected, now);
    appraisal.reasons().iter().map(|reason| reason.code.as_str().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_floor_file_means_the_same_to_the_broker_a_tenant_and_coffer_verify() {
    let guest = Guest::usual();
    let chip = guest.chip();
    let every_key = format!(
        "measurements = \"any\"\nhost_data = \"any\"\npairs = \"any\"\nid_keys = \"any\"\nauthor_keys = \"any\"\n\
         products = [\"Milan\"]\ndenied_products = [\"Genoa\"]\nchips = \"any\"\ndenied_chips = [\"{chip}\"]\n\
         vmpls = [0]\nminimum_abi = [0, 0]\nprovisional_firmware = \"accepted\"\nlaunch_mitigations = 1\n\
         current_mitigations = 1\nminimum_guest_svn = 9\nmax_crl_age = \"30d\"\nmax_manifest_age = \"90d\"\n\
         [guest_policy]\nsmt = \"any\"\ndebug = \"forbidden\"\n[platform_info]\nunknown = \"forbidden\"\n\
         [[tcb]]\nproduct = \"Milan\"\nreported = {{ snp = 255 }}\ncommitted = {{ snp = 1 }}\nsource = \"test\"\n"
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("floor.toml");
    std::fs::write(&file, every_key).unwrap();
    let codes = verify_under(&file, &guest);
    assert!(codes.len() >= 4 && codes.contains(&"chip-denied".to_owned()), "{codes:?}");
    let path = file.to_str().unwrap().to_owned();
    for of_tenant in [false, true] {
        let kbs = Kbs::start_with(|config| {
            lists_anchor(config);
            if of_tenant {
                config.tenants.get_mut(TENANT).unwrap().floor = Some(path.clone());
            } else {
                config.floor = Some(path.clone());
            }
        })
        .await;
        let id = match kbs.connect(guest.clone()).await {
            Err(ClientError::Refused { code, id }) => {
                assert_eq!(code, "evidence-refused");
                id
            }
            other => panic!("{:?}", other.map(|_| "admitted")),
        };
        kbs.admin().await.audit(0, 0).await.unwrap();
        let line = kbs.line_of(&id);
        let said: Vec<_> = line["reasons"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
        let said: Vec<_> = said.iter().filter_map(|one| one.split(':').next()).collect();
        assert_eq!(said, codes, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_chip_is_known_by_its_certificate_and_one_that_hides_is_refused() {
    let chip = Guest::usual().chip();
    let masked = |vlek: Option<&str>| LaunchOptions {
        mask_chip_id: true,
        vlek: vlek.map(str::to_owned),
        ..LaunchOptions::new(ProductLine::Milan, common::unix())
    };
    let hidden = Guest::launch_with(&Launch::default(), masked(None));
    let kbs = under_floor(&format!("measurements = \"any\"\ndenied_chips = [\"{chip}\"]\n")).await;
    assert_eq!(not_admitted(kbs.connect(hidden.clone()).await), "evidence-refused");
    let kbs = under_floor(&format!("measurements = \"any\"\ndenied_chips = [\"{}\"]\n", "77".repeat(64))).await;
    kbs.put(PATH, true).await;
    kbs.admit(hidden.measurement, hidden.document.digest()).await;
    assert_eq!(ask(&kbs.connect(hidden).await.unwrap(), PATH).await.unwrap(), VALUE);
    let mut provider = Installation::from_bytes(&common::installation().to_bytes().unwrap()).unwrap();
    provider.ensure_vlek(ProductLine::Milan, common::unix()).unwrap();
    let chipless = Guest::launch_on(&provider, &Launch::default(), masked(Some("CN=example")));
    assert_eq!(not_admitted(kbs.connect(chipless).await), "evidence-refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_grows_too_old_stops_releases_until_a_newer_one_is_brought() {
    let kbs = under_floor("measurements = \"any\"\nmax_crl_age = \"2d\"\n").await;
    let admin = kbs.admin().await;
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = kbs.connect(guest.clone()).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    kbs.skew.store(3 * DAY, Ordering::Relaxed);
    let line = kbs.line_of(&refused(ask(&client, PATH).await));
    assert!(has_reason(&line, "crl-age: ") && has_reason(&line, "at most 2d old"), "{line}");

    let rejected = async |list: &[u8], root: Option<&[u8]>| match admin.put_crl(list, root).await {
        Err(ClientError::Rejected { message, .. }) => message,
        other => panic!("{other:?}"),
    };
    // Whose it is must be known, and it must be fresh and its own.
    assert!(rejected(&crl(3), None).await.contains("not at hand"));
    assert!(rejected(&crl(9), Some(&ark())).await.contains("valid"), "of the future");
    let mut forged = crl(3);
    let end = forged.len() - 1;
    forged[end] ^= 1;
    assert!(rejected(&forged, Some(&ark())).await.contains("sign"));
    let put = admin.put_crl(&crl(3), Some(&ark())).await.unwrap();
    assert!(put.added);
    let number = put.list.unwrap().number;
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE, "the same evidence, with the list at hand");
    // Its number does not fall.
    assert!(rejected(&crl(2), Some(&ark())).await.contains(&format!("list {number} of this root was seen")));
    let listed = admin.list_crls().await.unwrap().0.rows;
    assert_eq!((listed[0].number, listed[0].seen, listed[0].by.as_str()), (number, number, "admin"));
    assert!(admin.audit(0, 0).await.unwrap().concat().contains("crl.put"));

    // Taken away it helps nobody any more, and what was seen stays: no older list comes in its place.
    let root = common::anchor();
    assert_eq!(admin.remove_crl(&root).await.unwrap(), (true, number));
    assert_eq!(admin.remove_crl(&root).await.unwrap(), (false, number));
    let (lists, seen_alone) = admin.list_crls().await.unwrap();
    assert!(lists.rows.is_empty() && !seen_alone.is_empty(), "what was seen outlives its list");
    refused(ask(&client, PATH).await);
    assert!(rejected(&crl(2), Some(&ark())).await.contains(&format!("list {number} of this root was seen")));
    assert!(admin.audit(0, 0).await.unwrap().concat().contains("crl.remove"));
    assert!(admin.put_crl(&crl(3), Some(&ark())).await.unwrap().added);
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);

    // It is there after a restart; without its row the old list is not believed either.
    let folder = kbs.stop().await;
    let open = async |state: &Path| coffer_kbs::State::open(state).await.unwrap();
    let kbs = Kbs::start_in(folder, lists_anchor, open).await;
    kbs.skew.store(3 * DAY, Ordering::Relaxed);
    assert_eq!(ask(&kbs.connect(guest.clone()).await.unwrap(), PATH).await.unwrap(), VALUE);
    kbs.tamper(Kind::Crl, Vec::clear).await;
    let folder = kbs.stop().await;
    let kbs = Kbs::start_in(folder, lists_anchor, open).await;
    kbs.skew.store(3 * DAY, Ordering::Relaxed);
    assert_eq!(not_admitted(kbs.connect(guest).await), "evidence-not-authentic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_author_of_one_tenant_brings_no_list_for_all() {
    let kbs = Kbs::start().await;
    let identity = Identity::generate("author").unwrap();
    let grant = Grant { role: "policy-author".into(), tenant: Some(TENANT.into()) };
    kbs.admin().await.add_admin("author", &identity.spki(), &[grant]).await.unwrap();
    let profile = AdminProfile { identity, ..AdminProfile::read(&kbs.state().join("admin.toml")).unwrap() };
    let author = coffer_kbs_client::AdminClient::connect(&profile).await.unwrap();
    assert!(matches!(author.put_crl(&crl(0), Some(&ark())).await, Err(ClientError::RoleMissing { enough, held, .. })
            if enough == ["owner", "policy-author"] && held == "policy-author@acme"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_grows_too_old_admits_nobody() {
    let kbs = under_floor("measurements = \"any\"\nmax_manifest_age = \"2d\"\n").await;
    let guest = Guest::usual();
    let key = Key::new(0x30);
    let now = i64::try_from(common::unix()).unwrap();
    let contents = Contents {
        name: "web".into(),
        sequence: 1,
        release: None,
        created: UnixTime(now - DAY),
        expires: UnixTime(now + 90 * DAY),
        components: Vec::new(),
        workload: guest.document.digest(),
        measurements: vec![MeasuredLaunch {
            launch: LaunchForm::ResetVector,
            vcpus: 1,
            vcpu_type: "EPYC-Milan".into(),
            measurement: guest.measurement,
        }],
    };
    let envelope = SignedManifest::of(&ReferenceManifest::new(contents).unwrap());
    let signature = key.sign(&envelope.signing_input());
    let envelope = envelope.with_signature(&key.public, signature).to_json().into_bytes();
    let admin = kbs.admin().await;
    let manifest_key = ManifestKey { tenant: TENANT.into(), name: "ci".into(), key: key.public };
    admin.add_manifest_key(&manifest_key).await.unwrap();
    admin.add_manifest(TENANT, envelope).await.unwrap();
    kbs.put(PATH, true).await;
    let client = kbs.connect(guest.clone()).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    kbs.skew.store(DAY + 60, Ordering::Relaxed);
    let line = kbs.line_of(&refused(ask(&client, PATH).await));
    assert!(has_reason(&line, "manifest web sequence 1: made at") && has_reason(&line, "max_manifest_age"), "{line}");
    // A pair that is listed has no age.
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = kbs.connect(guest).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_reads_who_was_refused_in_its_name_and_a_tenant_that_is_not_there_is_named() {
    let kbs = under_floor("measurements = \"any\"\nproducts = [\"Genoa\"]\n").await;
    let owner = kbs.admin().await;
    assert!(owner.add_tenant("globex").await.unwrap());
    let auditor = async |tenant: &str| {
        let identity = Identity::generate("auditor").unwrap();
        let grants = [Grant { role: "auditor".into(), tenant: Some(tenant.into()) }];
        owner.add_admin(tenant, &identity.spki(), &grants).await.unwrap();
        let profile = AdminProfile { identity, ..AdminProfile::read(&kbs.state().join("admin.toml")).unwrap() };
        coffer_kbs_client::AdminClient::connect(&profile).await.unwrap()
    };
    let (acme, globex) = (auditor(TENANT).await, auditor("globex").await);
    let refused = async |tenant: &str| {
        let mut spec = common::spec(&[PATH]);
        spec.tenant = tenant.parse().unwrap();
        let guest = Guest::launch(&Launch { spec, ..Launch::default() });
        match kbs.connect(guest).await {
            Err(ClientError::Refused { id, .. }) => id,
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("it was admitted"),
        }
    };
    let of = |tenant: &str, id: &str| coffer_kbs_client::AuditQuery {
        tenant: Some(tenant.to_owned()),
        id: Some(id.to_owned()),
        ..coffer_kbs_client::AuditQuery::default()
    };
    let by_floor = refused(TENANT).await;
    let found = acme.audit_search(&of(TENANT, &by_floor), 1).await.unwrap();
    assert_eq!(found.len(), 1, "its own floor refused one that said it was of this tenant");
    let line = kbs.line_of(&by_floor);
    assert_eq!((&line["claimed_tenant"], &line["tenant"]), (&TENANT.into(), &serde_json::Value::Null), "{line}");
    assert!(!has_reason(&line, "there is none of the name"), "{line}");
    assert!(globex.audit_search(&of("globex", &by_floor), 1).await.unwrap().is_empty(), "no other's");

    let by_typo = refused("acne").await;
    owner.audit(0, 0).await.unwrap();
    let line = kbs.line_of(&by_typo);
    assert!(line["claimed_tenant"] == "acne" && has_reason(&line, "tenant: there is none"), "{line}");
    // Names that anybody makes up are one cause, and none of them is said of the others.
    let ids = [refused("acne-1").await, refused("acne-2").await];
    let wanted = coffer_kbs_client::AuditQuery { id: Some(ids[1].clone()), ..Default::default() };
    let line = loop {
        if let Some(line) = owner.audit_search(&wanted, 1).await.unwrap().pop() {
            break line;
        }
    };
    assert!(line.contains(&ids[0]) && line.contains(&ids[1]) && !line.contains("claimed_tenant"), "{line}");
}
