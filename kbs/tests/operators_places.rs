//! What one operator takes, others have left: connections by key, and lists that are long.

use crate::common::{self, Kbs, TENANT};
use coffer_kbs_client::{AdminClient, AdminProfile, Grant, PutSecret};
use coffer_ratls::Identity;
use secrecy::SecretBox;

fn profile(kbs: &Kbs) -> AdminProfile {
    AdminProfile::read(&kbs.state().join("admin.toml")).unwrap()
}

#[tokio::test]
async fn a_hostile_operators_connections_leave_the_owner_its_own() {
    let kbs = Kbs::start().await;
    let owner = kbs.admin().await;
    let mut hostile = Vec::new();
    for name in ["mallory", "oscar", "trudy", "eve"] {
        let identity = Identity::generate("operator").unwrap();
        let grant = Grant { role: "auditor".into(), tenant: Some(TENANT.into()) };
        owner.add_admin(name, &identity.spki(), &[grant]).await.unwrap();
        hostile.push(AdminProfile { identity, ..profile(&kbs) });
    }
    drop(owner);
    // Each as many as it can have and more: together all places of those that the configuration does not name.
    let (mut held, mut closed) = (Vec::new(), 0);
    for one in &hostile {
        for _ in 0..18 {
            let client = AdminClient::connect(one).await;
            match client {
                Ok(client) if client.list_secrets(TENANT, false).await.is_ok() => held.push(client),
                _ => closed += 1,
            }
        }
    }
    assert_eq!((held.len(), closed), (64, 8));
    for _ in 0..4 {
        kbs.admin().await.list_admins(None).await.unwrap();
    }
    drop(held);
}

#[tokio::test]
async fn a_list_that_is_longer_than_a_message_usually_is_comes_through() {
    let kbs = Kbs::start().await;
    let (admin, value) = (kbs.admin().await, SecretBox::new(Box::new(b"v".to_vec())));
    let labels: std::collections::BTreeMap<String, String> =
        (0..32).map(|at| (format!("label-{at}-{}", "k".repeat(40)), "v".repeat(120))).collect();
    for at in 0..800 {
        let path = format!("kbs:///many/secret/number-{at}").parse().unwrap();
        let put = PutSecret { labels: Some(labels.clone()), ..common::put(&path, &value) };
        admin.put_secret(put).await.unwrap();
    }
    assert_eq!(admin.list_secrets(TENANT, false).await.unwrap().rows.len(), 800);
}
