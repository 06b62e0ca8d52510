//! Who may ask what: the whole table, walked with real keys over real connections; and how operators come and go.

use crate::common;
use std::time::Duration;

use crate::common::{Kbs, PATH, RawAdmin, TENANT, admin_call};
use coffer_kbs::{About, METHODS, Role};
use coffer_kbs_client::{AdminClient, AdminProfile, AuditQuery, ClientError, Grant};
use coffer_ratls::{ClientTls, Identity, PeerPin, connect_pinned};
use tonic::Code;

const OTHER: &str = "globex";

fn profile(kbs: &Kbs, identity: Identity) -> AdminProfile {
    AdminProfile { identity, ..AdminProfile::read(&kbs.state().join("admin.toml")).unwrap() }
}

async fn raw(profile: &AdminProfile) -> RawAdmin {
    let stream = tokio::net::TcpStream::connect(&profile.address).await.unwrap();
    let pin = PeerPin::Spki(profile.pins.clone());
    let tls = ClientTls::with_alpn(&profile.identity, pin, coffer_kbs_client::ALPN_ADMIN).unwrap();
    RawAdmin::new(connect_pinned(stream, &tls).await.unwrap().0)
}

fn grant(role: Role, tenant: Option<&str>) -> Grant {
    Grant { role: role.name().to_owned(), tenant: tenant.map(str::to_owned) }
}

/// A request that says for whom it is, and nothing else.
fn request(method: &str, tenant: &str) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let named = field(1, tenant.as_bytes());
    match method {
        "AddReference"
        | "AddSigner"
        | "AddManifestKey"
        | "AddRevocation"
        | "PutSealingContext"
        | "PutCertificateProfile" => field(1, &named),
        "Audit" => field(3, tenant.as_bytes()),
        "PutCrl" | "ListCrls" | "RemoveCrl" | "ListTenants" | "AddAdmin" | "RemoveAdmin" | "ConfirmRestored" => {
            Vec::new()
        }
        _ => named,
    }
}

#[test]
fn every_method_stands_in_the_table_once() {
    let set = protox::compile(["client/proto/kbs_admin.proto"], ["client/proto"]).unwrap();
    let services = set.file.iter().flat_map(|file| &file.service);
    let mut methods: Vec<_> = services.flat_map(|one| &one.method).map(|one| one.name().to_owned()).collect();
    let mut table: Vec<_> = METHODS.iter().map(|one| one.name.to_owned()).collect();
    methods.sort();
    table.sort();
    assert_eq!(methods, table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_may_what_the_table_says_for_its_tenant_and_nothing_else() {
    let kbs = Kbs::start().await;
    let owner = kbs.admin().await;
    assert!(owner.add_tenant(OTHER).await.unwrap());
    let (mut asked, mut refusals) = (0, Vec::new());
    for role in Role::ALL {
        for scope in [None, Some(TENANT), Some(OTHER)] {
            let identity = Identity::generate("operator").unwrap();
            let name = format!("{role}-{}", scope.unwrap_or("all"));
            assert!(owner.add_admin(&name, &identity.spki(), &[grant(role, scope)]).await.unwrap());
            let admin = raw(&profile(&kbs, identity)).await;
            for method in METHODS {
                let status =
                    admin_call(&admin, &format!("{}Request", method.name), &request(method.name, TENANT)).await;
                let refused = status.as_ref().err().is_some_and(|status| status.message() == "role-missing");
                let reaches = match method.about {
                    About::Tenant => scope.is_none() || scope == Some(TENANT),
                    About::Broker => scope.is_none(),
                };
                let may = reaches && (role == Role::Owner || method.roles.contains(&role));
                assert_eq!(refused, !may, "{name} {}: {status:?}", method.name);
                if let Err(status) = status
                    && refused
                {
                    assert_eq!(status.code(), Code::PermissionDenied);
                    refusals.push((coffer_ratls::Denial::of(&status).unwrap().id, name.clone(), method.name));
                }
                asked += 1;
            }
        }
    }
    assert_eq!(asked, METHODS.len() * 12);
    // Whoever reads the trail finds what was refused until now.
    owner.audit(0, 0).await.unwrap();
    for (id, name, method) in refusals {
        let line = kbs.line_of(&id);
        assert_eq!((&line["event"], &line["peer"]), (&"admin.call".into(), &name.into()), "{line}");
        assert!(line["name"] == method && common::has_reason(&line, "role: "), "{line}");
    }
}

fn code(error: &ClientError) -> &str {
    match error {
        ClientError::Refused { code, .. } => code,
        ClientError::RoleMissing { .. } => "role-missing",
        other => panic!("{other:?}"),
    }
}

fn is_nobody(error: &ClientError) -> bool {
    code(error) == "key-not-admitted"
}

/// Carries bytes to a broker, and of what it answers whatever comes before the client has shown its key.
async fn loses_the_alert(broker: &str) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (listener, broker) = (tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(), broker.to_owned());
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = tokio::net::TcpStream::connect(&broker).await.unwrap();
            let (mut flights, mut out, mut back) = (0, [0; 16 * 1024], [0; 16 * 1024]);
            loop {
                tokio::select! {
                    read = client.read(&mut out) => match read {
                        Ok(read @ 1..) => {
                            // More than the change of cipher that says nothing.
                            flights += u32::from(read > 16);
                            let _ = server.write_all(&out[..read]).await;
                        }
                        _ => break,
                    },
                    read = server.read(&mut back) => match read {
                        Ok(read @ 1..) if flights < 2 => client.write_all(&back[..read]).await.unwrap(),
                        Ok(1..) => {}
                        _ => break,
                    },
                }
            }
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_nobody_has_is_told_so_every_time_and_a_line_that_breaks_is_no_refusal() {
    let kbs = Kbs::start().await;
    let unknown = profile(&kbs, Identity::generate("nobody").unwrap());
    for _ in 0..20 {
        let error = AdminClient::connect(&unknown).await.map(|_| ()).unwrap_err();
        assert!(is_nobody(&error), "{error:?}");
    }
    let address = loses_the_alert(&unknown.address).await.to_string();
    let lost = AdminProfile { address, ..unknown };
    // Whoever carries the bytes has refused nobody, and a broker that is gone has not either.
    let error = AdminClient::connect(&lost).await.map(|_| ()).unwrap_err();
    let ClientError::Unreachable { cause } = error else { panic!("{error:?}") };
    assert!(cause.contains("does not know this key"), "{cause}");
    kbs.stop().await;
    let error = AdminClient::connect(&lost).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
}

fn message(error: ClientError) -> String {
    match error {
        ClientError::Rejected { message, .. } => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_comes_changes_its_key_and_goes_without_a_restart() {
    let kbs = Kbs::start().await;
    let owner = kbs.admin().await;
    let (first, second) = (Identity::generate("ops").unwrap(), Identity::generate("ops").unwrap());
    let (old, new) = (first.spki(), second.spki());
    let (first, second) = (profile(&kbs, first), profile(&kbs, second));
    let refused = async |profile: &AdminProfile| match AdminClient::connect(profile).await {
        Ok(admin) => admin.list_secrets(TENANT, false).await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(is_nobody(&refused(&first).await.unwrap_err()));
    let operator = [grant(Role::Operator, Some(TENANT))];
    assert!(owner.add_admin("ops", &old, &operator).await.unwrap());
    let open = AdminClient::connect(&first).await.unwrap();
    open.list_secrets(TENANT, false).await.unwrap();

    // Rollover: the new key beside the old one, then the old one goes.
    assert!(message(owner.add_admin("ops", &new, &operator).await.unwrap_err()).contains("another operator has it"));
    assert!(owner.add_admin("ops-2", &new, &operator).await.unwrap());
    refused(&second).await.unwrap();
    assert!(owner.remove_admin(&old).await.unwrap());
    assert!(!owner.remove_admin(&old).await.unwrap());
    let gone = open.list_secrets(TENANT, false).await.unwrap_err();
    assert!(is_nobody(&gone), "an open connection, too: {gone:?}");
    assert!(is_nobody(&refused(&first).await.unwrap_err()));
    // Also who asks for nothing has no connection any more.
    let silent = AdminClient::connect(&second).await.unwrap();
    silent.list_secrets(TENANT, false).await.unwrap();
    assert!(owner.remove_admin(&new).await.unwrap());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let gone = silent.list_secrets(TENANT, false).await.unwrap_err();
    assert!(matches!(gone, ClientError::Unreachable { .. }), "{gone:?}");
    assert!(owner.add_admin("ops-2", &new, &operator).await.unwrap(), "and whoever stays has theirs");

    // Fewer grants count at once.
    let open = AdminClient::connect(&second).await.unwrap();
    open.delete_secret(TENANT, &PATH.parse().unwrap(), None).await.unwrap();
    assert!(!owner.add_admin("ops-2", &new, &[grant(Role::Auditor, Some(TENANT))]).await.unwrap());
    let error = open.delete_secret(TENANT, &PATH.parse().unwrap(), None).await.unwrap_err();
    assert_eq!(code(&error), "role-missing");
    let listed = owner.list_admins(None).await.unwrap().rows;
    let names: Vec<_> = listed.iter().map(|one| (one.name.as_str(), one.configured)).collect();
    assert_eq!(names, [("admin", true), ("ops-2", false)]);
    // Of one tenant: its own alone, with the roles for it.
    let both = [grant(Role::Auditor, Some(TENANT)), grant(Role::Owner, Some(OTHER))];
    assert!(owner.add_tenant(OTHER).await.unwrap());
    assert!(!owner.add_admin("ops-2", &new, &both).await.unwrap());
    let listed = open.list_admins(Some(TENANT)).await.unwrap().rows;
    assert_eq!(listed.iter().map(|one| &one.grants[..]).collect::<Vec<_>>(), [&both[..1]]);
    assert_eq!(code(&open.list_admins(None).await.unwrap_err()), "role-missing");
    assert!(owner.list_admins(Some("default")).await.unwrap().rows.is_empty());
    let lines = owner.audit(0, 0).await.unwrap().concat();
    assert!(lines.contains("admin.add") && lines.contains("operator@acme") && lines.contains("admin.remove"));
}

/// Takes an operator away while its call looks at the clock; what that call then hears, if it was the one that looked.
async fn removed_meanwhile(kbs: &Kbs, owner: &AdminClient) -> Result<(), ClientError> {
    let identity = Identity::generate("ops").unwrap();
    let key = identity.spki();
    owner.add_admin("ops", &key, &[grant(Role::PolicyAuthor, Some(TENANT))]).await.unwrap();
    let author = AdminClient::connect(&profile(kbs, identity)).await.unwrap();
    author.list_secrets(TENANT, false).await.unwrap();
    let (reached, was_reached) = tokio::sync::oneshot::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let mut stop = Some((reached, may_go_on));
    *kbs.at_clock.lock().unwrap() = Some(Box::new(move || {
        let (reached, may_go_on) = stop.take()?;
        Some(Box::new(move || {
            let _ = reached.send(());
            let _ = may_go_on.recv_timeout(Duration::from_secs(10));
        }))
    }));
    let reference = coffer_kbs_client::Reference {
        tenant: TENANT.into(),
        measurement: coffer_verifier::abi::Measurement::new([1; 48]),
        workload: coffer_verifier::abi::WorkloadDigest::new([2; 32]),
        name: "ops".into(),
        expires: coffer_verifier::Expiry::At(coffer_verifier::UnixTime(4_000_000_000)),
    };
    let removed = async {
        was_reached.await.unwrap();
        assert!(owner.remove_admin(&key).await.unwrap());
        let _ = go_on.send(());
    };
    tokio::join!(author.add_reference(&reference), removed).0.map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_operator_that_is_taken_away_while_it_asks_is_told_so() {
    let kbs = Kbs::start().await;
    let owner = kbs.admin().await;
    // Others look at the clock as well.
    for _ in 0..20 {
        if let Err(error) = removed_meanwhile(&kbs, &owner).await {
            assert_eq!(code(&error), "key-not-admitted", "{error:?}");
            return;
        }
    }
    panic!("its call never was the one that looked at the clock");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_takes_itself_away_is_told_that_it_did() {
    let kbs = Kbs::start().await;
    let identity = Identity::generate("owner").unwrap();
    let key = identity.spki();
    kbs.admin().await.add_admin("second", &key, &[grant(Role::Owner, None)]).await.unwrap();
    let owner = AdminClient::connect(&profile(&kbs, identity)).await.unwrap();
    assert!(owner.remove_admin(&key).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_not_allowed_are_summed_by_operator_and_have_a_rate() {
    let kbs = Kbs::start().await;
    let owner = kbs.admin().await;
    let mut operators = Vec::new();
    for name in ["mallory", "bob"] {
        let identity = Identity::generate(name).unwrap();
        owner.add_admin(name, &identity.spki(), &[grant(Role::Auditor, None)]).await.unwrap();
        operators.push(AdminClient::connect(&profile(&kbs, identity)).await.unwrap());
    }
    let before = owner.audit(0, 0).await.unwrap().len();
    let (mut words, mut ids) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        match operators[0].add_tenant("mine").await {
            Err(ClientError::Refused { code, id }) => {
                words.push(code);
                ids.push(id);
            }
            Err(ClientError::RoleMissing { id, .. }) => {
                words.push("role-missing".to_owned());
                ids.push(id);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(words[..100].iter().all(|word| word == "role-missing"), "{words:?}");
    assert!(words.iter().any(|word| word == "too-many-requests"), "{words:?}");
    // What one asks too often is nothing to another, and what it may ask is answered.
    assert_eq!(code(&operators[1].add_tenant("mine").await.unwrap_err()), "role-missing");
    operators[0].audit(0, 0).await.unwrap();

    let of_id = AuditQuery { id: Some(ids[1].clone()), ..AuditQuery::default() };
    assert_eq!(owner.audit_search(&of_id, 1).await.unwrap().len(), 1, "whoever asks for an id finds it");
    let lines = owner.audit(0, 0).await.unwrap();
    assert!(lines.len() <= before + 4, "{} lines for 201 calls", lines.len() - before);
    let lines: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |name: &str| -> u64 {
        let lines = lines.iter().filter(|line| line["event"] == "admin.call" && line["peer"] == name);
        lines.map(|line| line["count"].as_u64().unwrap()).sum()
    };
    assert_eq!(
        (kbs.line_of(&ids[0])["name"].as_str(), kbs.line_of(&ids[1])["peer"].as_str()),
        (Some("AddTenant"), Some("mallory"))
    );
    let counted = kbs.stop_and_count().await;
    assert!(of("mallory") > 0 && counted == 201, "each is counted: {counted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditor_of_a_tenant_reads_its_lines_alone() {
    let kbs = Kbs::start().await;
    let owner = kbs.admin().await;
    owner.add_tenant(OTHER).await.unwrap();
    kbs.put(PATH, true).await;
    owner.delete_secret(OTHER, &PATH.parse().unwrap(), None).await.unwrap();
    let identity = Identity::generate("auditor").unwrap();
    owner.add_admin("auditor", &identity.spki(), &[grant(Role::Auditor, Some(TENANT))]).await.unwrap();
    let auditor = AdminClient::connect(&profile(&kbs, identity)).await.unwrap();
    let lines = auditor.audit_of(Some(TENANT), 0, 0).await.unwrap();
    assert!(lines.len() == 1 && lines[0].contains("secret.put"), "{lines:?}");
    assert_eq!(code(&auditor.audit(0, 0).await.unwrap_err()), "role-missing");
    assert_eq!(code(&auditor.audit_of(Some(OTHER), 0, 0).await.unwrap_err()), "role-missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_is_there_when_it_was_created_and_not_by_a_typo() {
    let kbs = Kbs::start().await;
    let owner = kbs.admin().await;
    assert_eq!(owner.list_tenants().await.unwrap(), [TENANT, "default"]);
    let path = PATH.parse().unwrap();
    let typo = message(owner.delete_secret("amce", &path, None).await.unwrap_err());
    assert!(typo.contains("no tenant amce") && typo.contains("coffer kbs tenant add amce"), "{typo}");
    let unknown = owner
        .add_admin("x", &coffer_verifier::abi::SpkiDigest::new([1; 32]), &[grant(Role::Owner, Some("amce"))])
        .await;
    assert!(message(unknown.unwrap_err()).contains("no tenant amce"));
    assert!(owner.add_tenant("amce").await.unwrap());
    assert!(!owner.add_tenant("amce").await.unwrap());
    assert!(!owner.delete_secret("amce", &path, None).await.unwrap());
}
