//! Terms of a value that is there: who may let others have it, and what the trail says of a change.

use crate::common::{Guest, Kbs, PATH, TENANT, ask, refused};
use coffer_kbs::Role;
use coffer_kbs_client::{
    AdminClient, AdminProfile, ClientError, Grant, PutSecret, SealingContext, SecretUpdate,
    kbs::admin::v1::{Rules, Terms},
};
use coffer_ratls::Identity;
use coffer_verifier::{Expiry, UnixTime};
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
    assert_eq!(last_line(&kbs, "sealing.put").await["changes"], Value::Null);
    owner.put_sealing_context(context(true)).await.unwrap();
    let line = last_line(&kbs, "sealing.put").await;
    assert_eq!(line["changes"][0], "allow_simulated: true, was false");
}
