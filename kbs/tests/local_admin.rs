//! The local admin socket: another road to the admin API, for one role, open when every other road is full.

use std::{
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::common::{Kbs, PATH, TENANT, VALUE, put};
use coffer_kbs::{AdminSocketEntry, admin_socket_path};
use coffer_kbs_client::{AdminClient, AdminProfile, ClientError};
use secrecy::SecretBox;

async fn with(role: &str, tenant: Option<&str>) -> Kbs {
    Kbs::start_with(|config| {
        config.admin_socket = Some(AdminSocketEntry { role: role.into(), tenant: tenant.map(str::to_owned) });
        config.tenants.entry(TENANT.into()).or_default();
    })
    .await
}

async fn local(kbs: &Kbs) -> AdminClient {
    AdminClient::connect_local(&admin_socket_path(&kbs.state())).await.unwrap()
}

async fn store(admin: &AdminClient) -> Result<u64, ClientError> {
    let (value, path) = (SecretBox::new(Box::new(VALUE.to_vec())), PATH.parse().unwrap());
    admin.put_secret(put(&path, &value)).await.map(|stored| stored.now.version)
}

fn code<T>(result: Result<T, ClientError>) -> String {
    match result {
        Err(ClientError::Refused { code, .. }) => code,
        Err(ClientError::RoleMissing { .. }) => "role-missing".to_owned(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("allowed"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_has_one_role_and_the_trail_names_the_user() {
    let kbs = with("operator", Some(TENANT)).await;
    let admin = local(&kbs).await;
    assert_eq!(store(&admin).await.unwrap(), 1);
    // What its role does not allow, and what is another tenant's.
    assert_eq!(code(admin.add_tenant("other").await), "role-missing");
    assert_eq!(code(admin.audit_of(Some(TENANT), 0, 0).await), "role-missing");
    kbs.admin().await.add_tenant("other").await.unwrap();
    assert_eq!(code(admin.list_secrets("other", false).await), "role-missing");

    let name = format!("local uid {}", rustix::process::geteuid().as_raw());
    let lines = kbs.admin().await.audit(0, 0).await.unwrap();
    let lines: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |event: &str| lines.iter().find(|line| line["event"] == event).unwrap()["peer"].clone();
    assert_eq!((of("secret.put"), of("admin.call")), (name.clone().into(), name.clone().into()));
    // Nobody else is called so.
    let key = coffer_ratls::Identity::generate("x").unwrap().spki();
    let grant = coffer_kbs_client::Grant { role: "operator".into(), tenant: None };
    match kbs.admin().await.add_admin(&name, &key, &[grant]).await {
        Err(ClientError::Rejected { message, .. }) => assert!(message.contains("local socket"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_there_where_the_configuration_says_so_alone_and_goes_with_the_broker() {
    let kbs = Kbs::start().await;
    let path = admin_socket_path(&kbs.state());
    assert!(!path.exists() && !path.parent().unwrap().exists());
    assert!(matches!(AdminClient::connect_local(&path).await, Err(ClientError::Unreachable { .. })));

    let kbs = with("auditor", None).await;
    let path = admin_socket_path(&kbs.state());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    let admin = local(&kbs).await;
    admin.audit(0, 0).await.unwrap();
    assert_eq!(code(store(&admin).await), "role-missing");
    drop(admin);
    kbs.stop().await;
    assert!(!path.exists());
}

/// Whether a user gets an answer: HTTP/2 begins with the server's settings.
fn answers(path: &Path, user: u32) -> bool {
    const SAY: &str = "use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0) or exit 3; connect(S, pack_sockaddr_un($ARGV[0])) \
                       or exit 4; exit(sysread(S, my $said, 1) ? 0 : 1)";
    let status = Command::new("perl").args(["-e", SAY]).arg(path).uid(user).status().expect("perl is part of Debian");
    assert!(matches!(status.code(), Some(0 | 1)), "it did not come as far as the broker: {status}");
    status.success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_is_refused_even_where_the_files_would_let_them() {
    let me = rustix::process::geteuid();
    if !me.is_root() {
        eprintln!("skipped: only root can ask as another user");
        return;
    }
    let kbs = with("operator", None).await;
    let path = admin_socket_path(&kbs.state());
    assert!(answers(&path, 0));
    // Somebody has opened every door on the way.
    for (path, mode) in
        [(kbs.folder.path(), 0o755), (&kbs.state(), 0o755), (path.parent().unwrap(), 0o755), (path.as_path(), 0o777)]
    {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    assert!(!answers(&path, 65534));
    assert!(answers(&path, 0));
}

/// How long a silent connection keeps its place.
const SILENCE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_while_strangers_hold_every_place_there_is() {
    let kbs = with("operator", None).await;
    // From the operator's own address, too: not even a connection is to be had there.
    let mut held = Vec::new();
    for _ in 0..96 {
        held.push(tokio::net::TcpStream::connect(kbs.addresses.admin_listen).await.unwrap());
    }
    let listening = Instant::now();
    let profile = AdminProfile::read(&kbs.state().join("admin.toml")).unwrap();
    let direct = AdminClient::connect(&profile).await;
    assert!(listening.elapsed() > SILENCE || direct.is_err(), "the network listener is full");
    assert_eq!(store(&local(&kbs).await).await.unwrap(), 1);
    drop(held);
}
