//! Sealing keys, generations, versions and certificates: who gets them, who does not, and that they are the same again.

use crate::common;
use std::sync::{Arc, atomic::Ordering};

use crate::common::{Author, Guest, Kbs, Launch, PATH, TENANT, VALUE, ask, has_reason, refused, spec, unix};
use coffer_kbs::Kind;
use coffer_kbs_client::{
    BrokerClient, CertificateProfile, ClientError, Generation, Scope, SealingContext, SealingName, SealingPolicy,
    kbs::admin::v1::{Rules, Terms},
};
use coffer_ratls::Identity;
use coffer_simulator::LaunchOptions;
use coffer_verifier::{Expiry, abi::ProductLine};
use secrecy::ExposeSecret as _;

const CONTEXT: &[u8] = b"db";

fn name(policy: SealingPolicy) -> SealingName {
    SealingName { policy, scope: Scope::Agent, context: CONTEXT.to_vec(), minimum_svn: None }
}

fn terms(allow_simulated: bool) -> Terms {
    Terms { allow_simulated, policy: None, rules: None }
}

async fn put_context(kbs: &Kbs, policies: &[SealingPolicy], terms: Terms) {
    let context = SealingContext {
        tenant: TENANT.into(),
        context: CONTEXT.to_vec(),
        policies: policies.iter().map(ToString::to_string).collect(),
        terms: Some(terms),
        created_unix: 0,
    };
    kbs.admin().await.put_sealing_context(context).await.unwrap();
}

/// A broker with terms for every policy, and an admitted guest.
async fn ready() -> (Kbs, Arc<Guest>, BrokerClient) {
    let kbs = Kbs::start().await;
    put_context(&kbs, &SealingPolicy::ALL, terms(true)).await;
    let guest = Guest::usual();
    let client = admitted(&kbs, &guest).await;
    (kbs, guest, client)
}

async fn admitted(kbs: &Kbs, guest: &Arc<Guest>) -> BrokerClient {
    kbs.admit(guest.measurement, guest.document.digest()).await;
    kbs.connect(guest.clone()).await.unwrap()
}

async fn key(client: &BrokerClient, name: &SealingName) -> Result<[u8; 32], ClientError> {
    Ok(*client.sealing_key(name).await?.0.expose_secret())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_gets_its_key_again_and_another_subject_another() {
    let (kbs, guest, client) = ready().await;
    let mut all = Vec::new();
    for policy in [SealingPolicy::Chip, SealingPolicy::Measurement, SealingPolicy::Workload] {
        let first = key(&client, &name(policy)).await.unwrap();
        let again = key(&kbs.connect(guest.clone()).await.unwrap(), &name(policy)).await.unwrap();
        assert_eq!(first, again, "{policy}");
        let workload = SealingName { scope: Scope::Workload, ..name(policy) };
        all.extend([first, key(&client, &workload).await.unwrap()]);
    }
    // Another platform that runs the same workload; another workload on the same platform.
    let platform = Guest::launch(&Launch { platform: 2, ..Launch::default() });
    let upgraded = admitted(&kbs, &platform).await;
    assert_eq!(key(&upgraded, &name(SealingPolicy::Workload)).await.unwrap(), all[4]);
    assert_eq!(key(&upgraded, &name(SealingPolicy::Chip)).await.unwrap(), all[0]);
    all.push(key(&upgraded, &name(SealingPolicy::Measurement)).await.unwrap());
    let mut changed = spec(&[PATH]);
    changed.process.argv = vec!["/bin/sh".into()];
    let other = admitted(&kbs, &Guest::launch(&Launch { spec: changed, ..Launch::default() })).await;
    all.push(key(&other, &name(SealingPolicy::Workload)).await.unwrap());
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
    // After a restart of the broker it is the same key.
    let line = kbs.admin().await.audit(0, 0).await.unwrap().pop().unwrap();
    assert!(line.contains("sealing-key.release") && line.contains("workload/agent/db"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_context_gives_keys_on_its_own_terms_alone() {
    let kbs = Kbs::start().await;
    let guest = Guest::usual();
    let client = admitted(&kbs, &guest).await;
    let wanted = name(SealingPolicy::Workload);
    let why = async |word: &str| {
        let line = kbs.line_of(&refused(client.sealing_key(&wanted).await));
        assert!(has_reason(&line, word), "{word}: {line}");
        assert_eq!((&line["event"], &line["outcome"]), (&"sealing-key.release".into(), &"refused".into()));
    };
    why("no terms for this context").await;
    put_context(&kbs, &[SealingPolicy::Measurement], terms(true)).await;
    why("gives no keys of policy workload").await;
    put_context(&kbs, &[SealingPolicy::Workload], terms(false)).await;
    why("does not carry allow_simulated").await;
    let rules = Rules { chips: vec![vec![9; 64]], ..Rules::default() };
    put_context(&kbs, &[SealingPolicy::Workload], Terms { rules: Some(rules), ..terms(true) }).await;
    why("rule: ").await;
    put_context(&kbs, &[SealingPolicy::Workload], terms(true)).await;
    let before = key(&client, &wanted).await.unwrap();
    // Taken away and said again, it is the same key: what was sealed opens.
    assert!(kbs.admin().await.remove_sealing_context(TENANT, CONTEXT).await.unwrap());
    why("no terms for this context").await;
    put_context(&kbs, &[SealingPolicy::Workload], terms(true)).await;
    assert_eq!(key(&client, &wanted).await.unwrap(), before);
    let digest = guest.document.digest();
    assert!(kbs.admin().await.remove_reference(TENANT, &guest.measurement, &digest).await.unwrap());
    why("neither measurement").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_an_author_follow_upgrades_and_never_go_down() {
    let kbs = Kbs::start().await;
    put_context(&kbs, &[SealingPolicy::Signer], terms(true)).await;
    kbs.list_author().await;
    let at = async |platform, guest_svn| {
        let id = Some(Author { guest_svn, ..Author::default() });
        kbs.connect(Guest::launch(&Launch { platform, id, ..Launch::default() })).await.unwrap()
    };
    let (old, new) = (at(1, 5).await, at(2, 7).await);
    let from = |svn| SealingName { minimum_svn: svn, ..name(SealingPolicy::Signer) };
    let five = key(&old, &from(None)).await.unwrap();
    assert_eq!(key(&old, &from(Some(5))).await.unwrap(), five);
    assert_eq!(key(&new, &from(Some(5))).await.unwrap(), five, "an upgrade opens what came before");
    assert_ne!(key(&new, &from(None)).await.unwrap(), five);
    let line = kbs.line_of(&refused(old.sealing_key(&from(Some(7))).await));
    assert!(has_reason(&line, "found svn 5, asked for a key of svn 7"), "{line}");

    // Admitted by a pair, signed by somebody else whom the host chose; and by nobody.
    let foreign = Guest::launch(&Launch { id: Some(Author { key: 0x22, ..Author::default() }), ..Launch::default() });
    let line = kbs.line_of(&refused(admitted(&kbs, &foreign).await.sealing_key(&from(None)).await));
    assert!(has_reason(&line, "needs an author that the tenant lists"), "{line}");
    let unsigned = admitted(&kbs, &Guest::usual()).await;
    refused(unsigned.sealing_key(&from(None)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chip_that_is_not_shown_is_no_subject() {
    let kbs = Kbs::start().await;
    put_context(&kbs, &SealingPolicy::ALL, terms(true)).await;
    let options = LaunchOptions { mask_chip_id: true, ..LaunchOptions::new(ProductLine::Milan, common::unix()) };
    let guest = Guest::launch_with(&Launch::default(), options);
    let client = admitted(&kbs, &guest).await;
    let line = kbs.line_of(&refused(client.sealing_key(&name(SealingPolicy::Chip)).await));
    assert!(has_reason(&line, "shows no chip"), "{line}");
    key(&client, &name(SealingPolicy::Measurement)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_moves_only_for_its_subject_from_where_it_is() {
    let (kbs, guest, client) = ready().await;
    let (wanted, id) = (name(SealingPolicy::Workload), [7; 16]);
    let at = |current, set| Generation { current, set };
    assert_eq!(client.generation(&wanted, &id).await.unwrap(), at(0, false));
    assert_eq!(client.set_generation(&wanted, &id, 1, 2).await.unwrap(), at(0, false));
    assert_eq!(client.set_generation(&wanted, &id, 0, 1).await.unwrap(), at(1, true));
    assert_eq!(client.set_generation(&wanted, &id, 0, 1).await.unwrap(), at(1, false), "only once");
    let other = kbs.connect(guest.clone()).await.unwrap();
    assert_eq!(other.set_generation(&wanted, &id, 1, 5).await.unwrap(), at(5, true));
    assert_eq!(client.generation(&wanted, &id).await.unwrap(), at(5, false));
    // Of others it is another counter.
    for elsewhere in [name(SealingPolicy::Measurement), SealingName { scope: Scope::Workload, ..wanted.clone() }] {
        assert_eq!(client.generation(&elsewhere, &id).await.unwrap(), at(0, false));
    }
    let mut changed = spec(&[PATH]);
    changed.process.argv = vec!["/bin/sh".into()];
    let stranger = admitted(&kbs, &Guest::launch(&Launch { spec: changed, ..Launch::default() })).await;
    assert_eq!(stranger.generation(&wanted, &id).await.unwrap(), at(0, false));
    assert_eq!(client.generation(&wanted, &[8; 16]).await.unwrap(), at(0, false));

    let line = kbs.line_of(&refused(client.set_generation(&wanted, &id, 5, 5).await));
    assert!(has_reason(&line, "expected more than 5"), "{line}");
    let lines = kbs.admin().await.audit(0, 0).await.unwrap();
    let outcomes: Vec<_> = lines
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|line| line["event"] == "generation.set")
        .map(|line| line["outcome"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(outcomes, ["conflict", "done", "conflict", "done", "refused"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_has_256_counters_in_a_context_and_those_go_on() {
    let kbs = Kbs::start_with(|config| {
        let anchors = vec![common::anchor().to_string()];
        config.tenants.entry(TENANT.into()).or_default().simulated_anchors = anchors;
        config.limits.requests_per_second_per_guest = 1000;
    })
    .await;
    put_context(&kbs, &SealingPolicy::ALL, terms(true)).await;
    let client = admitted(&kbs, &Guest::usual()).await;
    let (wanted, id) = (name(SealingPolicy::Workload), |at: u128| at.to_be_bytes());
    // Those at once share a commit.
    for at in (1..=256).step_by(4) {
        let set = async |at| client.set_generation(&wanted, &id(at), 0, 1).await.unwrap().set;
        assert_eq!(tokio::join!(set(at), set(at + 1), set(at + 2), set(at + 3)), (true, true, true, true), "{at}");
    }
    let line = kbs.line_of(&refused(client.set_generation(&wanted, &id(257), 0, 1).await));
    assert!(has_reason(&line, "has 256 counters in this context already"), "{line}");
    assert!(client.set_generation(&wanted, &id(256), 1, 2).await.unwrap().set);
    assert_eq!(client.generation(&wanted, &id(257)).await.unwrap().current, 0);
    // Another subject has its own.
    assert!(client.set_generation(&name(SealingPolicy::Chip), &id(257), 0, 1).await.unwrap().set);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_set_a_counter_at_once_one_does() {
    let (kbs, guest, client) = ready().await;
    let other = kbs.connect(guest.clone()).await.unwrap();
    let wanted = name(SealingPolicy::Workload);
    for round in 0..10 {
        let (one, two) = tokio::join!(
            client.set_generation(&wanted, &[1; 16], round, round + 1),
            other.set_generation(&wanted, &[1; 16], round, round + 1)
        );
        assert!(one.unwrap().set ^ two.unwrap().set, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_gets_the_version_it_names_as_long_as_it_may() {
    let kbs = Kbs::start().await;
    let guest = Guest::usual();
    let (admin, path) = (kbs.admin().await, PATH.parse().unwrap());
    let value = |text: &str| secrecy::SecretBox::new(Box::new(text.as_bytes().to_vec()));
    for text in ["one", "two", "three"] {
        let value = value(text);
        let put = coffer_kbs_client::PutSecret { allow_simulated: Some(true), ..common::put(&path, &value) };
        admin.put_secret(put).await.unwrap();
    }
    let client = admitted(&kbs, &guest).await;
    let get =
        async |version| client.secret_version(&path, version).await.map(|secret| secret.value.expose_secret().clone());
    assert_eq!(get(1).await.unwrap(), b"one");
    assert_eq!(client.secret(&path).await.unwrap().version, 3);
    let why = async |version, word: &str| {
        let line = kbs.line_of(&refused(get(version).await));
        // This alone: on what terms it would be released nobody asks any more.
        assert_eq!(line["reasons"].as_array().unwrap().len(), 1, "{line}");
        assert!(has_reason(&line, word), "{word}: {line}");
    };
    why(4, "there is no version 4").await;
    assert!(admin.delete_secret(TENANT, &path, Some(2)).await.unwrap());
    why(2, "version 2 was deleted").await;
    assert!(admin.undelete_secret(TENANT, &path, Some(2)).await.unwrap());
    assert_eq!(get(2).await.unwrap(), b"two");
    assert!(admin.destroy_secret(TENANT, &path, 1).await.unwrap());
    why(1, "version 1 was destroyed").await;
    let least = coffer_kbs_client::SecretUpdate { minimum_version: Some(3), ..Default::default() };
    let updated = admin.update_secret(TENANT, &path, least).await.unwrap().unwrap();
    assert_eq!(updated.changes(), ["released from version 3 on, was 0"]);
    why(2, "expected 3 or higher").await;
    let now = i64::try_from(common::unix()).unwrap();
    let (four, expires) = (value("four"), Expiry::At(coffer_verifier::UnixTime(now + 600)));
    let put = coffer_kbs_client::PutSecret { expires: Some(expires), ..common::put(&path, &four) };
    // What it may be released on is as before, though nobody said so.
    assert!(admin.put_secret(put).await.unwrap().now.allow_simulated);
    assert_eq!(get(4).await.unwrap(), b"four");
    kbs.skew.store(601, std::sync::atomic::Ordering::Relaxed);
    why(4, "version 4 expired").await;
    assert_eq!(get(3).await.unwrap(), b"three");
    kbs.skew.store(0, std::sync::atomic::Ordering::Relaxed);
    assert!(admin.delete_secret(TENANT, &path, None).await.unwrap());
    why(3, "it was deleted").await;
    assert!(admin.undelete_secret(TENANT, &path, None).await.unwrap());
    assert_eq!(get(4).await.unwrap(), b"four");
    let meta = admin.secret_meta(TENANT, &path).await.unwrap();
    assert_eq!(meta.versions.len(), 4);
    assert!(meta.versions[0].destroyed && meta.secret.unwrap().minimum_version == 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typed_rules_narrow_who_may_have_a_secret() {
    let kbs = Kbs::start().await;
    let guest = Guest::usual();
    let client = admitted(&kbs, &guest).await;
    let (admin, path) = (kbs.admin().await, PATH.parse().unwrap());
    let value = secrecy::SecretBox::new(Box::new(VALUE.to_vec()));
    let put = async |rules: Rules| {
        let put = coffer_kbs_client::PutSecret {
            allow_simulated: Some(true),
            rules: Some(rules),
            ..common::put(&path, &value)
        };
        admin.put_secret(put).await.unwrap();
    };
    let wire = coffer_kbs_client::kbs::admin::v1::TcbRule { product: "Milan".into(), snp: 255, ..Default::default() };
    let low = coffer_kbs_client::kbs::admin::v1::TcbRule { product: "Milan".into(), snp: 1, ..Default::default() };
    let author = coffer_kbs_client::kbs::admin::v1::AuthorRule { author_key_digest: vec![3; 48], minimum_guest_svn: 0 };
    let none = Rules::default;
    for (rules, word) in [
        (Rules { measurements: vec![vec![9; 48]], ..none() }, "rule: measurement"),
        (Rules { workloads: vec![vec![9; 32]], ..none() }, "rule: host-data"),
        (Rules { chips: vec![vec![9; 64]], ..none() }, "rule: chip"),
        (Rules { authors: vec![author], ..none() }, "rule: author"),
        (Rules { tcb: vec![wire], ..none() }, "rule: "),
    ] {
        put(rules).await;
        let line = kbs.line_of(&refused(ask(&client, PATH).await));
        assert!(has_reason(&line, word), "{word}: {line}");
    }
    let (measurement, workload) = (guest.measurement.as_bytes().to_vec(), guest.document.digest().as_bytes().to_vec());
    put(Rules { measurements: vec![vec![9; 48], measurement], workloads: vec![workload], tcb: vec![low], ..none() })
        .await;
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewing_keeps_the_connection_and_changes_the_key_things_are_sealed_to() {
    let (_kbs, guest, client) = ready().await;
    let wanted = name(SealingPolicy::Measurement);
    let before = key(&client, &wanted).await.unwrap();
    let made = guest.made.lock().unwrap().len();
    client.renew().await.unwrap();
    assert_eq!(guest.made.lock().unwrap().len(), made + 1, "a new report");
    assert_eq!(key(&client, &wanted).await.unwrap(), before);
}

fn csr() -> (rcgen::KeyPair, Vec<u8>) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let params = rcgen::CertificateParams::new(vec!["bank.example".to_owned()]).unwrap();
    let der = params.serialize_request(&key).unwrap().der().to_vec();
    (key, der)
}

/// What a workload has once the broker has given it a certificate.
pub async fn workload_identity(kbs: &Kbs, client: &BrokerClient) -> Identity {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    kbs.admin().await.put_certificate_profile(profile(true)).await.unwrap();
    let (key, csr) = csr();
    let chain = client.certificate("web", &csr).await.unwrap();
    let pem =
        |der: &[u8]| format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der));
    Identity::from_pem(&pem(&chain[0]), &key.serialize_pem()).unwrap()
}

fn profile(allow_simulated: bool) -> CertificateProfile {
    CertificateProfile {
        tenant: TENANT.into(),
        name: "web".into(),
        dns: vec!["web.acme.example".into()],
        uris: Vec::new(),
        server_auth: true,
        client_auth: true,
        lifetime_seconds: 3600,
        terms: Some(terms(allow_simulated)),
        ..CertificateProfile::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_says_what_the_profile_says() {
    let (kbs, _, client) = ready().await;
    let (_, csr) = csr();
    let why = async |profile: &str, csr: &[u8], word: &str| {
        let line = kbs.line_of(&refused(client.certificate(profile, csr).await));
        assert!(has_reason(&line, word), "{word}: {line}");
        assert_eq!(line["event"], "certificate.issue");
    };
    why("web", &csr, "no profile of this name").await;
    let (added, root) = kbs.admin().await.put_certificate_profile(profile(false)).await.unwrap();
    assert!(added);
    why("web", &csr, "does not carry allow_simulated").await;
    assert!(!kbs.admin().await.put_certificate_profile(profile(true)).await.unwrap().0);
    let mut unproven = csr.clone();
    let last = unproven.len() - 1;
    unproven[last] ^= 1;
    why("web", &unproven, "csr: ").await;
    why("../web", &csr, "profile: ").await;

    let chain = client.certificate("web", &csr).await.unwrap();
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[1], root, "the root others were told of");
    let line = kbs.admin().await.audit(0, 0).await.unwrap().pop().unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["event"], &line["outcome"]), (&"certificate.issue".into(), &"released".into()));
    assert_eq!(line["serial"].as_str().unwrap().len(), 32);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_tenants_terms_give_nothing_here() {
    let kbs = Kbs::start().await;
    let client = admitted(&kbs, &Guest::usual()).await;
    let context = SealingContext {
        tenant: "other".into(),
        context: CONTEXT.to_vec(),
        policies: vec!["workload".into()],
        terms: Some(terms(true)),
        created_unix: 0,
    };
    let admin = kbs.admin().await;
    assert!(admin.add_tenant("other").await.unwrap());
    admin.put_sealing_context(context).await.unwrap();
    admin.put_certificate_profile(CertificateProfile { tenant: "other".into(), ..profile(true) }).await.unwrap();
    refused(client.sealing_key(&name(SealingPolicy::Workload)).await);
    refused(client.generation(&name(SealingPolicy::Workload), &[1; 16]).await);
    refused(client.certificate("web", &csr().1).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_rows_give_nothing_and_are_named() {
    type Edit = fn(&mut Vec<(Vec<u8>, coffer_kbs::Row)>);
    for edit in [common::edit_all as Edit, Vec::clear] {
        for kind in [Kind::SealingContext, Kind::TenantKey, Kind::Generation, Kind::CertificateProfile] {
            let (kbs, _, client) = ready().await;
            kbs.admin().await.put_certificate_profile(profile(true)).await.unwrap();
            let wanted = name(SealingPolicy::Workload);
            client.set_generation(&wanted, &[1; 16], 0, 1).await.unwrap();
            kbs.tamper(kind, edit).await;
            let refusal = match kind {
                Kind::Generation => refused(client.generation(&wanted, &[1; 16]).await),
                Kind::CertificateProfile => refused(client.certificate("web", &csr().1).await),
                _ => refused(client.sealing_key(&wanted).await),
            };
            let line = kbs.line_of(&refusal);
            assert!(has_reason(&line, "changed behind the server's back"), "{kind:?}: {line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_that_was_set_back_is_noticed() {
    let (kbs, _, client) = ready().await;
    let wanted = name(SealingPolicy::Workload);
    client.set_generation(&wanted, &[1; 16], 0, 1).await.unwrap();
    let mut old = Vec::new();
    // Nothing may be as it was for `tamper`: a row beside is put and taken away.
    let beside = (vec![0], coffer_kbs::Row { body: vec![0], mac: vec![0] });
    kbs.tamper(Kind::Generation, |rows| {
        old.clone_from(rows);
        rows.push(beside.clone());
    })
    .await;
    kbs.tamper(Kind::Generation, |rows| rows.retain(|row| *row != beside)).await;
    client.set_generation(&wanted, &[1; 16], 1, 2).await.unwrap();
    kbs.tamper(Kind::Generation, |rows| *rows = old).await;
    let line = kbs.line_of(&refused(client.generation(&wanted, &[1; 16]).await));
    assert!(has_reason(&line, "generation 0101"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_is_told_the_brokers_time_at_each_admission() {
    let (kbs, guest, client) = ready().await;
    let told = client.told_time().unwrap().unix_seconds;
    assert!(told.abs_diff(unix()) <= 5, "{told}");
    kbs.skew.store(86_400, Ordering::SeqCst);
    let later = kbs.connect(guest.clone()).await.unwrap().told_time().unwrap().unix_seconds;
    assert!(later.abs_diff(unix() + 86_400) <= 5, "{later}");
}
