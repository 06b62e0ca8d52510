//! A listener's key changes while guests and operators go on: those who pin both keys notice nothing, those who pin the old one
//! alone are refused, by name.

use crate::common::{Guest, Kbs, PATH, TENANT, VALUE, anchor, ask};
use coffer_kbs::{ConfigFile, Listener, State, make_next_key, server_keys, switch_key};
use coffer_kbs_client::{AdminClient, AdminProfile, BrokerClient, ClientError};
use coffer_ratls::Identity;
use coffer_verifier::abi::SpkiDigest;
use std::sync::Arc;
use tokio::net::TcpStream;

async fn guest_with(kbs: &Kbs, pins: &[SpkiDigest], guest: &Arc<Guest>) -> Result<BrokerClient, ClientError> {
    let stream = TcpStream::connect(kbs.addresses.listen).await.unwrap();
    let identity = Identity::generate("guest").unwrap();
    BrokerClient::connect(stream, &identity, TENANT, pins.to_vec(), guest.clone()).await
}

async fn operator_with(kbs: &Kbs, pins: &[SpkiDigest]) -> Result<usize, ClientError> {
    let profile = AdminProfile::read(&kbs.state().join("admin.toml")).unwrap();
    let client = AdminClient::connect(&AdminProfile { pins: pins.to_vec(), ..profile }).await?;
    client.list_secrets(TENANT, false).await.map(|all| all.rows.len())
}

/// Whether this is the refusal that names the key which was shown.
fn is_refused<T>(result: Result<T, ClientError>, shown: SpkiDigest, pinned: &[SpkiDigest]) -> bool {
    matches!(result, Err(ClientError::PinMismatch { found, expected }) if found == shown && expected == pinned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_pins_both_keys_goes_on_over_the_switch_and_who_pins_the_old_one_is_refused_by_name() {
    let list = |config: &mut ConfigFile| {
        config.tenants.entry(TENANT.into()).or_default().simulated_anchors = vec![anchor().to_string()];
    };
    let kbs = Kbs::start_with(list).await;
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;

    // Made while the broker serves, which shows the present ones as before.
    let guests = make_next_key(&kbs.state(), Listener::Guests).unwrap();
    let operators = make_next_key(&kbs.state(), Listener::Operators).unwrap();
    let both = |keys: coffer_kbs::ServerKeys| [keys.present, keys.next.unwrap()];
    let (guests, operators) = (both(guests), both(operators));
    let first = AdminProfile::read(&kbs.state().join("admin.toml")).unwrap();
    assert_eq!(first.pins, operators, "the first operator's profile, which lies there, pins both");
    let client = guest_with(&kbs, &guests, &guest).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    assert_eq!(operator_with(&kbs, &operators).await.unwrap(), 1);
    assert!(is_refused(guest_with(&kbs, &guests[1..], &guest).await, guests[0], &guests[1..]), "not shown yet");
    assert!(is_refused(operator_with(&kbs, &operators[1..]).await, operators[0], &operators[1..]));

    // The switch counts from the next start on; an open connection goes on until then.
    for listener in Listener::ALL {
        switch_key(&kbs.state(), listener).unwrap();
    }
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    let kbs = Kbs::start_in(kbs.stop().await, list, async |state| State::open(state).await.unwrap()).await;
    assert_eq!(kbs.addresses.pin, guests[1]);
    assert_eq!(server_keys(&kbs.state(), Listener::Operators).unwrap().present, operators[1]);

    let client = guest_with(&kbs, &guests, &guest).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    assert_eq!(operator_with(&kbs, &operators).await.unwrap(), 1);
    kbs.admin().await.list_secrets(TENANT, false).await.unwrap();
    assert!(is_refused(guest_with(&kbs, &guests[..1], &guest).await, guests[1], &guests[..1]));
    assert!(is_refused(operator_with(&kbs, &operators[..1]).await, operators[1], &operators[..1]));
    // With the new one alone as well: the old pin may go.
    assert_eq!(ask(&guest_with(&kbs, &guests[1..], &guest).await.unwrap(), PATH).await.unwrap(), VALUE);
    assert_eq!(operator_with(&kbs, &operators[1..]).await.unwrap(), 1);
}

#[tokio::test]
async fn a_port_of_the_other_listener_is_called_that() {
    let kbs = Kbs::start().await;
    let keys = server_keys(&kbs.state(), Listener::Guests).unwrap();
    let profile = AdminProfile::read(&kbs.state().join("admin.toml")).unwrap();
    let wrong = AdminProfile { address: kbs.addresses.listen.to_string(), pins: vec![keys.present], ..profile };
    let Err(error) = AdminClient::connect(&wrong).await else { panic!("the guests' listener took an operator") };
    assert!(matches!(error, ClientError::OtherListener { wanted: "coffer-kbs-admin/1" }), "{error:?}");
    assert!(error.hint().unwrap().contains("admin_listen"), "{error:?}");
    let stream = TcpStream::connect(kbs.addresses.admin_listen).await.unwrap();
    let identity = Identity::generate("guest").unwrap();
    let pins = server_keys(&kbs.state(), Listener::Operators).unwrap().present;
    let refused = BrokerClient::connect(stream, &identity, TENANT, vec![pins], Guest::usual()).await;
    assert!(matches!(refused, Err(ClientError::OtherListener { wanted: "coffer-kbs/1" })));
}
