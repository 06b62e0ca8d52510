//! The two listeners take each their own peers, and the operator's mistakes are named.

use crate::common;
use crate::common::{Kbs, PATH, TENANT};
use coffer_kbs_client::{
    ALPN_ADMIN, AdminClient, AdminProfile, ClientError, Expected, PutSecret,
    kbs::{
        admin::v1::{ListSecretsRequest, admin_client},
        v1::{GetSecretRequest, broker_client},
    },
};
use coffer_ratls::{ClientTls, Identity, PeerPin, Purpose, connect_pinned};
use secrecy::SecretBox;
use tokio::net::TcpStream;
use tonic::Code;

fn profile(kbs: &Kbs) -> AdminProfile {
    AdminProfile::read(&kbs.state().join("admin.toml")).unwrap()
}

#[tokio::test]
async fn the_admin_listener_knows_only_listed_keys() {
    let kbs = Kbs::start().await;
    let stranger = AdminProfile { identity: Identity::generate("guest").unwrap(), ..profile(&kbs) };
    let refused = match AdminClient::connect(&stranger).await {
        Ok(client) => client.list_secrets(TENANT, false).await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(refused.is_err());
    assert!(profile_works(&kbs).await);
}

async fn profile_works(kbs: &Kbs) -> bool {
    kbs.admin().await.list_secrets(TENANT, false).await.is_ok()
}

#[tokio::test]
async fn the_guest_listener_has_no_admin_api_even_for_the_admin() {
    let kbs = Kbs::start().await;
    let pin = || PeerPin::Spki(vec![kbs.addresses.pin]);
    let admin = profile(&kbs).identity;
    let stream = TcpStream::connect(kbs.addresses.listen).await.unwrap();
    let tls = ClientTls::with_alpn(&admin, pin(), ALPN_ADMIN).unwrap();
    assert!(connect_pinned(stream, &tls).await.is_err(), "another ALPN was taken");

    let stream = TcpStream::connect(kbs.addresses.listen).await.unwrap();
    let tls = ClientTls::new(&admin, pin(), Purpose::Kbs).unwrap();
    let (channel, _) = connect_pinned(stream, &tls).await.unwrap();
    let status = admin_client::AdminClient::new(channel.clone())
        .list_secrets(ListSecretsRequest { tenant: TENANT.into(), deleted: false })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    // And without evidence there is no secret.
    let request = GetSecretRequest { path: PATH.into(), version: None };
    let status = broker_client::BrokerClient::new(channel).get_secret(request).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "attestation-required"));
}

#[tokio::test]
async fn the_two_listeners_have_two_keys() {
    let kbs = Kbs::start().await;
    let wrong = AdminProfile { pins: vec![kbs.addresses.pin], ..profile(&kbs) };
    assert!(matches!(AdminClient::connect(&wrong).await, Err(ClientError::PinMismatch { .. })));
}

#[tokio::test]
async fn the_operators_mistakes_are_named() {
    let kbs = Kbs::start().await;
    let (admin, path) = (kbs.admin().await, PATH.parse().unwrap());
    let put = async |value: &[u8], expected, policy: &str| {
        let value = SecretBox::new(Box::new(value.to_vec()));
        let put = PutSecret { expected, policy, ..common::put(&path, &value) };
        match admin.put_secret(put).await {
            Ok(stored) => Ok(stored.now.version),
            Err(ClientError::Rejected { message, .. }) => Err(message),
            Err(other) => panic!("{other:?}"),
        }
    };
    assert_eq!(put(b"a", Expected::Absent, "").await, Ok(1));
    assert!(put(b"b", Expected::Absent, "").await.unwrap_err().contains("version 1, expected 0"));
    assert!(put(b"b", Expected::Any, "no-such").await.unwrap_err().contains("default"));
    assert!(put(b"", Expected::Any, "").await.unwrap_err().contains("empty"));
    assert_eq!(put(b"b", Expected::Version(1), "").await, Ok(2));
    let lines = admin.audit(0, 0).await.unwrap();
    assert_eq!(lines.len(), 2, "only what was done stands in the trail: {lines:#?}");
    assert!(lines.iter().all(|line| line.contains("\"peer\":\"admin\"")));
}
