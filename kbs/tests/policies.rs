//! Policies that a tenant keeps at the broker: who decides by which text, and what the broker does not take or give away.

use crate::common;
use crate::common::{Guest, Kbs, PATH, TENANT, VALUE, ask, edit_all, has_reason, refused};
use coffer_kbs::Kind;
use coffer_kbs_client::{
    CertificateProfile, ClientError, SealingContext, SecretUpdate,
    kbs::admin::v1::{Rules, Terms},
};
use coffer_verifier::{Expiry, UnixTime};

const YES: &str = "package web\nallow := true\n";
const NO: &str = "package web\nallow := false\ndeny contains \"web: closed\"\n";

fn message<T>(result: Result<T, ClientError>) -> String {
    match result {
        Err(ClientError::Rejected { message, .. }) => message,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("taken"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_names_a_policy_decides_by_its_text_of_the_moment() {
    let kbs = Kbs::start().await;
    let admin = kbs.admin().await;
    let guest = Guest::usual();
    kbs.admit(guest.measurement, guest.document.digest()).await;
    assert!(message(kbs.put_under(PATH, true, "web").await).contains("there are: default"));
    assert!(admin.put_policy(TENANT, "web", YES).await.unwrap().added);
    kbs.put_under(PATH, true, "web").await.unwrap();
    let client = kbs.connect(guest).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);

    let replaced = admin.put_policy(TENANT, "web", NO).await.unwrap();
    assert!(!replaced.added && replaced.used == [format!("version 1 of secret {PATH}")], "{replaced:?}");
    let line = kbs.line_of(&refused(ask(&client, PATH).await));
    assert!(has_reason(&line, "web: closed") && line["policy"] == "web", "{line}");
    assert_eq!(admin.policy(TENANT, "web").await.unwrap().unwrap().1, NO);
    admin.put_policy(TENANT, "web", YES).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);

    let listed = admin.list_policies(TENANT).await.unwrap();
    let info = &listed.policies[0];
    assert_eq!((info.name.as_str(), info.by.as_str(), info.length), ("web", "admin", YES.len() as u64));
    assert_eq!(listed.configured, ["default"]);
    let (shipped, text) = admin.policy(TENANT, "default").await.unwrap().unwrap();
    assert_eq!((shipped.put_unix, shipped.length), (0, text.len() as u64), "nobody put it");
    assert!(text.contains("package ") && admin.policy(TENANT, "none").await.unwrap().is_none());
    // A slip in the name is no trial that nothing speaks against.
    let test = |name: &str, all| coffer_kbs_client::kbs::admin::v1::TestPolicyRequest {
        tenant: TENANT.into(),
        name: name.into(),
        text: Some(YES.into()),
        since_unix: None,
        all,
    };
    assert!(message(admin.test_policy(test("wbe", false)).await).contains("there is no policy wbe"));
    assert_eq!(admin.test_policy(test("web", false)).await.unwrap().decisions.len(), 3);
    assert_eq!(admin.test_policy(test("wbe", true)).await.unwrap().decisions.len(), 3);
    let lines = admin.audit(0, 0).await.unwrap().concat();
    assert!(lines.contains("policy.put") && lines.contains("\"replaced\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_the_configuration_gets_later_does_not_count_where_the_tenant_keeps_one() {
    let kbs = Kbs::start().await;
    let admin = kbs.admin().await;
    let guest = Guest::usual();
    kbs.admit(guest.measurement, guest.document.digest()).await;
    admin.put_policy(TENANT, "web", NO).await.unwrap();
    kbs.put_under(PATH, true, "web").await.unwrap();
    let client = kbs.connect(guest).await.unwrap();
    let web = kbs.folder.path().join("web.rego");
    std::fs::write(&web, YES).unwrap();
    kbs.reload(|config| {
        let anchors = vec![common::anchor().to_string()];
        config.tenants.entry(TENANT.into()).or_default().simulated_anchors = anchors;
        config.policies.insert("web".into(), web);
    })
    .await;
    let line = kbs.line_of(&refused(ask(&client, PATH).await));
    assert!(has_reason(&line, "web: closed"), "{line}");
    assert_eq!(admin.policy(TENANT, "web").await.unwrap().unwrap().1, NO);
    assert_eq!(admin.list_policies(TENANT).await.unwrap().configured, ["default", "web"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_policy_is_refused_with_line_and_reason() {
    let kbs = Kbs::start().await;
    let admin = kbs.admin().await;
    for (text, words) in [
        ("package web\n\nallow if {\n", "line 4, column 1"),
        ("package web\nallow if no_such(1)\n", "line 2, column 10: could not find function"),
        ("package web\npermit := true\n", "no rule named allow"),
        ("allow := true", "line 1"),
        ("package web\n# \u{1b}[2J\nallow := true\n", "line 2 has a control character"),
    ] {
        let said = message(admin.put_policy(TENANT, "web", text).await);
        assert!(said.contains(words), "{text}: {said}");
    }
    let long = format!("{YES}# {}", "x".repeat(256 * 1024));
    assert!(message(admin.put_policy(TENANT, "web", &long).await).contains("more than 262144"));
    assert!(message(admin.put_policy(TENANT, "default", YES).await).contains("choose another"));
    assert!(admin.policy(TENANT, "web").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_use_is_not_removed_and_its_users_are_named() {
    let kbs = Kbs::start().await;
    let admin = kbs.admin().await;
    admin.put_policy(TENANT, "web", YES).await.unwrap();
    kbs.put_under(PATH, true, "web").await.unwrap();
    let terms = || Some(Terms { allow_simulated: true, policy: Some("web".into()), rules: None });
    let context = SealingContext {
        tenant: TENANT.into(),
        context: b"db".to_vec(),
        policies: vec!["workload".into()],
        terms: terms(),
        created_unix: 0,
    };
    admin.put_sealing_context(context).await.unwrap();
    let profile = CertificateProfile {
        tenant: TENANT.into(),
        name: "api".into(),
        dns: vec!["api.example".into()],
        server_auth: true,
        lifetime_seconds: 600,
        terms: terms(),
        ..CertificateProfile::default()
    };
    admin.put_certificate_profile(profile).await.unwrap();
    let said = message(admin.remove_policy(TENANT, "web").await);
    for user in [format!("version 1 of secret {PATH}"), "sealing context db".into(), "certificate profile api".into()] {
        assert!(said.contains(&user), "{said}");
    }
    // A secret that is deleted can come back.
    admin.remove_sealing_context(TENANT, b"db").await.unwrap();
    admin.remove_certificate_profile(TENANT, "api").await.unwrap();
    admin.delete_secret(TENANT, &PATH.parse().unwrap(), None).await.unwrap();
    assert!(message(admin.remove_policy(TENANT, "web").await).contains(PATH));
    admin.destroy_secret(TENANT, &PATH.parse().unwrap(), 1).await.unwrap();
    assert!(admin.remove_policy(TENANT, "web").await.unwrap());
    assert!(!admin.remove_policy(TENANT, "web").await.unwrap());
    let other = kbs.put_under(PATH, true, "web").await;
    assert!(message(other).contains("policy: none of that name"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_is_its_tenants_and_a_row_that_was_changed_decides_nothing() {
    let kbs = Kbs::start().await;
    let admin = kbs.admin().await;
    admin.add_tenant("globex").await.unwrap();
    admin.put_policy("globex", "web", YES).await.unwrap();
    assert!(message(kbs.put_under(PATH, true, "web").await).contains("policy: none of that name"));

    admin.put_policy(TENANT, "web", YES).await.unwrap();
    let guest = Guest::usual();
    kbs.admit(guest.measurement, guest.document.digest()).await;
    kbs.put_under(PATH, true, "web").await.unwrap();
    let client = kbs.connect(guest).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    for removed in [false, true] {
        let before = common::rows(&kbs.state(), Kind::Policy).await;
        kbs.tamper(Kind::Policy, |rows| if removed { rows.clear() } else { edit_all(rows) }).await;
        let line = kbs.line_of(&refused(ask(&client, PATH).await));
        assert!(has_reason(&line, "policy web of tenant acme was changed behind"), "{line}");
        kbs.tamper(Kind::Policy, |rows| *rows = before).await;
        assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terms_change_without_a_new_value_and_the_answer_says_what() {
    let kbs = Kbs::start().await;
    let admin = kbs.admin().await;
    let path = PATH.parse().unwrap();
    let guest = Guest::usual();
    kbs.admit(guest.measurement, guest.document.digest()).await;
    admin.put_policy(TENANT, "web", NO).await.unwrap();
    kbs.put(PATH, false).await;
    kbs.put(PATH, false).await;
    let client = kbs.connect(guest).await.unwrap();
    refused(ask(&client, PATH).await);
    let update = async |update: SecretUpdate| admin.update_secret(TENANT, &path, update).await.unwrap().unwrap();
    let simulated = SecretUpdate { allow_simulated: Some(true), ..SecretUpdate::default() };
    assert_eq!(update(simulated.clone()).await.changes(), ["simulated evidence allowed, was not allowed"]);
    assert!(update(simulated).await.changes().is_empty(), "nothing changed");
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE, "the value is the same under other terms");
    let old = client.secret_version(&path, 1).await;
    assert!(old.is_err(), "version 1 keeps its terms");

    let closed = SecretUpdate { policy: Some("web".into()), ..SecretUpdate::default() };
    assert_eq!(update(closed).await.changes(), ["policy web, was default"]);
    assert!(has_reason(&kbs.line_of(&refused(ask(&client, PATH).await)), "web: closed"));
    assert!(message(admin.remove_policy(TENANT, "web").await).contains("version 2 of secret"));
    let back = SecretUpdate { policy: Some("default".into()), ..SecretUpdate::default() };
    update(back).await;
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);

    let now = i64::try_from(common::unix()).unwrap();
    let soon = SecretUpdate { expires: Some(Expiry::At(UnixTime(now + 60))), ..SecretUpdate::default() };
    assert!(update(soon).await.changes()[0].contains("was never"));
    kbs.skew.store(61, std::sync::atomic::Ordering::Relaxed);
    assert!(has_reason(&kbs.line_of(&refused(ask(&client, PATH).await)), "expired"));
    let never = SecretUpdate { expires: Some(Expiry::Never), ..SecretUpdate::default() };
    assert!(update(never).await.changes()[0].starts_with("expires never, was "));
    let rules = Rules { chips: vec![vec![7; 64]], ..Rules::default() };
    update(SecretUpdate { rules: Some(rules), ..SecretUpdate::default() }).await;
    assert!(has_reason(&kbs.line_of(&refused(ask(&client, PATH).await)), "rule: chip"));

    let missing = SecretUpdate { version: Some(9), policy: Some("default".into()), ..SecretUpdate::default() };
    assert!(admin.update_secret(TENANT, &path, missing).await.unwrap().is_none());
    let unknown = SecretUpdate { policy: Some("nosuch".into()), ..SecretUpdate::default() };
    assert!(message(admin.update_secret(TENANT, &path, unknown).await).contains("policy: none of that name"));
    let line: serde_json::Value = serde_json::from_str(
        &admin.audit(0, 0).await.unwrap().into_iter().rfind(|line| line.contains("secret.update")).unwrap(),
    )
    .unwrap();
    assert_eq!(line["outcome"], "nothing-there");
}
