//! Terms of a value that is there: who may let others have it, and what the trail says of a change.

use crate::common::{Guest, Kbs, PATH, TENANT, ask, refused};
use coffer_kbs::Role;
use coffer_kbs_client::{
    AdminClient, AdminProfile, ClientError, Grant, PutSecret, SealingContext, SecretUpdate, Signer,
    kbs::admin::v1::{Rules, Terms},
};
use coffer_ratls::Identity;
use coffer_verifier::{
    Expiry, SignerRule, UnixTime,
    abi::{FamilyId, ImageId, KeyDigest},
};
use secrecy::SecretBox;
use serde_json::Value;

async fn somebody(kbs: &Kbs, role: Role) -> AdminClient {
    let identity = Identity::generate("somebody").unwrap();
    let grants = [Grant { role: role.name().to_owned(), tenant: Some(TENANT.to_owned()) }];
    assert!(kbs.admin().await.add_admin(role.name(), &identity.spki(), &grants).await.unwrap());
    let profile = AdminProfile { identity, ..AdminProfile::read(&kbs.state().join("admin.toml")).unwrap() };
    AdminClient::connect(&profile).await.unwrap()
}

fn at(from_now: i64) -> Expiry {
    Expiry::At(UnixTime(i64::try_from(crate::common::unix()).unwrap() + from_now))
}

async fn last_line(kbs: &Kbs, event: &str) -> Value {
    let lines = kbs.admin().await.audit(0, 0).await.unwrap();
    serde_json::from_str(lines.iter().rfind(|line| line.contains(&format!("\"event\":\"{event}\""))).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_puts_values_does_not_let_others_have_those_it_does_not_know() {
    let kbs = Kbs::start().await;
    let owner = kbs.admin().await;
    let path = PATH.parse().unwrap();
    owner.put_policy(TENANT, "web", "package web\nallow := true\n").await.unwrap();
    kbs.put(PATH, false).await;
    kbs.put(PATH, false).await;
    let rules = Some(Rules { chips: vec![vec![7; 64]], ..Rules::default() });
    let strict = SecretUpdate { rules, minimum_version: Some(2), expires: Some(at(600)), ..SecretUpdate::default() };
    owner.update_secret(TENANT, &path, strict).await.unwrap().unwrap();
    let operator = somebody(&kbs, Role::Operator).await;
    let author = somebody(&kbs, Role::PolicyAuthor).await;

    let of = SecretUpdate::default;
    let wider = [
        SecretUpdate { policy: Some("web".into()), ..of() },
        SecretUpdate { rules: Some(Rules::default()), ..of() },
        SecretUpdate { allow_simulated: Some(true), ..of() },
        SecretUpdate { allow_simulated: Some(true), version: Some(1), ..of() },
        SecretUpdate { expires: Some(at(900)), ..of() },
        SecretUpdate { expires: Some(Expiry::Never), ..of() },
        SecretUpdate { minimum_version: Some(1), ..of() },
    ];
    let before = owner.secret_meta(TENANT, &path).await.unwrap();
    for update in wider {
        let said = format!("{update:?}");
        match operator.update_secret(TENANT, &path, update).await {
            Err(ClientError::RoleMissing { enough, held, .. }) => {
                assert_eq!(
                    (enough.join(" "), held.as_str()),
                    ("owner@acme policy-author@acme".into(), "operator@acme")
                );
            }
            other => panic!("{said}: {other:?}"),
        }
        let line = last_line(&kbs, "admin.call").await;
        assert_eq!((&line["peer"], &line["name"]), (&"operator".into(), &"UpdateSecret".into()));
        assert!(line["reasons"][0].as_str().unwrap().contains("policy-author"), "{line}");
    }
    assert_eq!(owner.secret_meta(TENANT, &path).await.unwrap(), before, "nothing was changed");

    // What takes away, and labels.
    let labels = Some([("team".to_owned(), "web".to_owned())].into());
    for update in [
        SecretUpdate { labels, ..of() },
        SecretUpdate { allow_simulated: Some(false), ..of() },
        SecretUpdate { expires: Some(at(300)), ..of() },
        SecretUpdate { minimum_version: Some(2), ..of() },
    ] {
        let said = format!("{update:?}");
        operator.update_secret(TENANT, &path, update).await.unwrap_or_else(|error| panic!("{said}: {error:?}"));
    }
    let update = SecretUpdate { allow_simulated: Some(true), rules: Some(Rules::default()), ..of() };
    author.update_secret(TENANT, &path, update).await.unwrap().unwrap();
    let guest = Guest::usual();
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = kbs.connect(guest).await.unwrap();
    ask(&client, PATH).await.unwrap();
    assert!(client.secret_version(&path, 1).await.is_err());
    let update = SecretUpdate { allow_simulated: Some(false), ..of() };
    operator.update_secret(TENANT, &path, update).await.unwrap().unwrap();
    refused(ask(&client, PATH).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_value_on_weaker_terms_takes_who_may_weaken_them() {
    let kbs = Kbs::start().await;
    let owner = kbs.admin().await;
    let (path, value) = (PATH.parse().unwrap(), SecretBox::new(Box::new(b"another".to_vec())));
    owner.put_policy(TENANT, "web", "package web\nallow := true\n").await.unwrap();
    let operator = somebody(&kbs, Role::Operator).await;
    let author = somebody(&kbs, Role::PolicyAuthor).await;
    let plain = || crate::common::put(&path, &value);
    // What is new is on whatever terms its operator says.
    operator.put_secret(PutSecret { allow_simulated: Some(true), ..plain() }).await.unwrap();
    let chips = Some(Rules { chips: vec![vec![7; 64]], ..Rules::default() });
    let update =
        SecretUpdate { rules: chips, allow_simulated: Some(false), expires: Some(at(600)), ..SecretUpdate::default() };
    author.update_secret(TENANT, &path, update).await.unwrap().unwrap();
    let before = owner.secret_meta(TENANT, &path).await.unwrap();
    let wider = [
        PutSecret { policy: "web", ..plain() },
        PutSecret { rules: Some(Rules::default()), ..plain() },
        PutSecret { allow_simulated: Some(true), ..plain() },
        PutSecret { expires: Some(at(900)), ..plain() },
        PutSecret { expires: Some(Expiry::Never), ..plain() },
    ];
    for (number, put) in wider.into_iter().enumerate() {
        match operator.put_secret(put).await {
            Err(ClientError::RoleMissing { enough, .. }) => assert_eq!(enough, ["owner@acme", "policy-author@acme"]),
            other => panic!("{number}: {other:?}"),
        }
        let line = last_line(&kbs, "admin.call").await;
        assert_eq!((&line["peer"], &line["name"]), (&"operator".into(), &"PutSecret".into()));
    }
    assert_eq!(owner.secret_meta(TENANT, &path).await.unwrap(), before, "nothing was changed");

    // What keeps them or narrows, and says until when.
    let stored = operator.put_secret(plain()).await.unwrap();
    assert!(stored.changes().last().unwrap().ends_with(", as before"), "{:?}", stored.changes());
    let stored = operator.put_secret(PutSecret { expires: Some(at(300)), ..plain() }).await.unwrap();
    assert!(stored.changes()[1].starts_with("expires ") && stored.changes()[1].contains(", was "), "{stored:?}");
    let line = last_line(&kbs, "secret.put").await;
    assert!(line["changes"][0].as_str().unwrap().starts_with("expires: "), "{line}");
    // Nor by way of deleting it first.
    operator.delete_secret(TENANT, &path, None).await.unwrap();
    assert!(matches!(operator.put_secret(plain()).await, Err(ClientError::RoleMissing { .. })));
    operator.undelete_secret(TENANT, &path, None).await.unwrap();
    operator.put_secret(plain()).await.unwrap();
    // What is over is no answer to the question until when.
    kbs.skew.store(301, std::sync::atomic::Ordering::Relaxed);
    match owner.put_secret(plain()).await {
        Err(ClientError::Rejected { message, .. }) => assert!(message.contains("--no-expires"), "{message}"),
        other => panic!("{other:?}"),
    }
    let stored = owner.put_secret(PutSecret { expires: Some(Expiry::Never), ..plain() }).await.unwrap();
    assert!(stored.changes()[1].starts_with("expires never, was "), "{stored:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_update_changed_stands_in_the_trail() {
    let kbs = Kbs::start().await;
    let owner = kbs.admin().await;
    let path = PATH.parse().unwrap();
    kbs.put(PATH, false).await;
    kbs.put(PATH, false).await;
    let soon = at(600);
    let Expiry::At(UnixTime(seconds)) = soon else { unreachable!() };
    let update = SecretUpdate {
        rules: Some(Rules { chips: vec![vec![7; 64]], ..Rules::default() }),
        minimum_version: Some(2),
        expires: Some(soon),
        allow_simulated: Some(true),
        labels: Some([("team".to_owned(), "web".to_owned())].into()),
        ..SecretUpdate::default()
    };
    owner.update_secret(TENANT, &path, update).await.unwrap().unwrap();
    let line = last_line(&kbs, "secret.update").await;
    let changes: Vec<String> = serde_json::from_value(line["changes"].clone()).unwrap();
    assert_eq!(changes[0], "allow_simulated: true, was false");
    assert!(changes[1].starts_with("rules: sha256 ") && changes[1].ends_with(", was none"), "{changes:?}");
    let rest =
        ["label team: \"web\", was none", &format!("expires: {seconds}, was never"), "minimum_version: 2, was 0"];
    assert_eq!(changes[2..], rest);

    // A value that takes terms of its own says what is not as it was.
    let value = SecretBox::new(Box::new(b"other".to_vec()));
    let put = PutSecret { rules: Some(Rules::default()), ..crate::common::put(&path, &value) };
    owner.put_secret(put).await.unwrap();
    let line = last_line(&kbs, "secret.put").await.to_string();
    assert!(line.contains("rules: none, was sha256 "), "{line}");

    let context = |allow_simulated| SealingContext {
        tenant: TENANT.into(),
        context: b"db".to_vec(),
        policies: vec!["workload".into()],
        terms: Some(Terms { allow_simulated, ..Terms::default() }),
        created_unix: 0,
    };
    owner.put_sealing_context(context(false)).await.unwrap();
    let said = ["policy: default", "allow_simulated: false", "rules: none", "policies: workload"];
    assert_eq!(last_line(&kbs, "sealing.put").await["changes"], serde_json::json!(said));
    owner.put_sealing_context(context(true)).await.unwrap();
    let line = last_line(&kbs, "sealing.put").await;
    assert_eq!(line["changes"][0], "allow_simulated: true, was false");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_a_tenant_admits_from_now_on_and_until_now_stands_in_the_trail() {
    let kbs = Kbs::start().await;
    let owner = kbs.admin().await;
    let signer = |minimum_guest_svn, expires| Signer {
        tenant: TENANT.into(),
        name: "web".into(),
        rule: SignerRule {
            author_key: KeyDigest::new([1; 48]),
            family_id: FamilyId::new([2; 16]),
            image_id: ImageId::new([3; 16]),
            minimum_guest_svn,
        },
        expires,
    };
    assert!(owner.add_signer(&signer(3, Expiry::Never)).await.unwrap());
    let (author, family, image) = (hex::encode([1; 48]), hex::encode([2; 16]), hex::encode([3; 16]));
    let all = [
        format!("author_key: {author}"),
        format!("family_id: {family}"),
        format!("image_id: {image}"),
        "minimum_guest_svn: 3".to_owned(),
        "expires: never".to_owned(),
    ];
    assert_eq!(last_line(&kbs, "signer.add").await["changes"], serde_json::json!(all));
    assert!(!owner.add_signer(&signer(0, Expiry::Never)).await.unwrap());
    assert_eq!(last_line(&kbs, "signer.add").await["changes"], serde_json::json!(["minimum_guest_svn: 0, was 3"]));

    let soon = at(600);
    let reference = |name: &str, expires| coffer_kbs_client::Reference {
        tenant: TENANT.into(),
        measurement: coffer_verifier::abi::Measurement::new([1; 48]),
        workload: coffer_verifier::abi::WorkloadDigest::new([2; 32]),
        name: name.into(),
        expires,
    };
    let end = soon.to_secs();
    for (name, expires, said) in [
        ("web-1", soon, vec!["name: \"web-1\"".to_owned(), format!("expires: {end}")]),
        ("web-1", Expiry::Never, vec![format!("expires: never, was {end}")]),
        ("web-2", Expiry::Never, vec!["name: \"web-2\", was \"web-1\"".to_owned()]),
    ] {
        owner.add_reference(&reference(name, expires)).await.unwrap();
        let line = last_line(&kbs, "reference.add").await;
        assert_eq!((&line["name"], &line["changes"]), (&name.into(), &serde_json::json!(said)));
    }

    let path = PATH.parse().unwrap();
    let value = SecretBox::new(Box::new(b"value".to_vec()));
    let labels = [("owner".to_owned(), "web".to_owned())].into();
    let rules = Some(Rules { chips: vec![vec![7; 64]], ..Rules::default() });
    let put = PutSecret { labels: Some(labels), rules, expires: Some(soon), ..crate::common::put(&path, &value) };
    owner.put_secret(put).await.unwrap();
    let line = last_line(&kbs, "secret.put").await["changes"].to_string();
    for said in ["rules: sha256 ", "label owner: \\\"web\\\"", &format!("expires: {end}")] {
        assert!(line.contains(said), "{said}: {line}");
    }

    owner.put_policy(TENANT, "web", "package web\nallow := false\n").await.unwrap();
    owner.put_policy(TENANT, "web", "package web\nallow := true\n").await.unwrap();
    let line = last_line(&kbs, "policy.put").await["changes"][0].to_string();
    assert!(line.contains("text: sha256 ") && line.contains(", was sha256 "), "{line}");
    let key = Identity::generate("ops").unwrap().spki();
    let grant = |role: Role| [Grant { role: role.name().to_owned(), tenant: None }];
    owner.add_admin("ops", &key, &grant(Role::Auditor)).await.unwrap();
    owner.add_admin("ops", &key, &grant(Role::Owner)).await.unwrap();
    assert_eq!(last_line(&kbs, "admin.add").await["changes"], serde_json::json!(["grants: owner, was auditor"]));
}
