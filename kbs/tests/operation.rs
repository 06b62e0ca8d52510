//! Backups and what comes back from them, a configuration that is read again, floors, and what the doctor says.

use crate::common;
use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::common::{Guest, Kbs, Launch, PATH, TENANT, VALUE, anchor, ask, not_admitted, refused};

fn run(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coffer-kbs")).args(words).stdin(Stdio::null()).output().unwrap()
}

fn good(words: &[&str]) -> Output {
    let output = run(words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_running_broker_brings_back_what_it_held_and_never_the_root_key_in_clear() {
    let kbs = Kbs::start().await;
    kbs.put(PATH, true).await;
    let (state, folder) = (kbs.state().display().to_string(), kbs.folder.path().to_owned());
    let (key, public) = (path(&folder, "recovery"), path(&folder, "recovery.pub"));
    good(&["recovery-key", "--out", &key]);
    assert_eq!(run(&["recovery-key", "--out", &key]).status.code(), Some(3), "keys are never overwritten");
    let (plain, sealed) = (path(&folder, "plain.backup"), path(&folder, "sealed.backup"));
    // Writing goes on meanwhile.
    let writing = async {
        for _ in 0..20 {
            kbs.put(PATH, true).await;
        }
    };
    let backing = tokio::task::spawn_blocking({
        let (state, plain, sealed, public) = (state.clone(), plain.clone(), sealed.clone(), public.clone());
        move || {
            good(&["backup", "--state", &state, "--out", &plain]);
            good(&["backup", "--state", &state, "--out", &sealed, "--recovery-key", &public]);
        }
    });
    let ((), backed) = tokio::join!(writing, backing);
    backed.unwrap();
    let root = std::fs::read_to_string(kbs.state().join("root.key")).unwrap();
    let raw = hex::decode(root.trim_end()).unwrap();
    for file in [&plain, &sealed] {
        let bytes = std::fs::read(file).unwrap();
        for secret in [root.trim_end().as_bytes(), &raw, b"PRIVATE KEY", VALUE] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{file}");
        }
    }
    // Somewhere else, from the encrypted one alone.
    let new = path(&folder, "new");
    let from = ["restore", "--state", &new, "--from", &sealed, "--accept-rollback"];
    assert!(said(&run(&from)).contains("give --recovery-key"));
    let wrong = run(&[&from[..], &["--recovery-key", &public]].concat());
    assert_eq!(wrong.status.code(), Some(3), "the public half opens nothing");
    assert!(said(&wrong).contains("the public half") && said(&wrong).contains("without .pub"), "{}", said(&wrong));
    good(&[&from[..], &["--recovery-key", &key]].concat());
    good(&["state", "verify", "--state", &new]);
    assert_eq!(run(&["pin", "--state", &new]).stdout, run(&["pin", "--state", &state]).stdout);
    // Into the same folder: not while a server runs there.
    let back = ["restore", "--state", &state, "--from", &plain, "--accept-rollback"];
    assert!(said(&run(&back)).contains("in use by another"));
    let folder = kbs.stop().await;
    good(&back);
    good(&["state", "verify", "--state", &state]);
    let kept = std::fs::read_dir(&state).unwrap().flatten();
    assert!(
        kept.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("replaced-")),
        "the old one is kept"
    );
    drop(folder);
}

#[test]
fn a_damaged_state_is_not_backed_up_as_if_it_were_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (state, out) = (path(folder.path(), "state"), path(folder.path(), "out"));
    good(&["init", "--state", &state]);
    good(&["restore", "--state", &state, "--accept-rollback"]);
    good(&["backup", "--state", &state, "--out", &out]);
    let before = std::fs::read(&out).unwrap();
    let again = run(&["backup", "--state", &state, "--out", &out]);
    assert_eq!(again.status.code(), Some(3));
    assert!(said(&again).contains("is there already") && said(&again).contains("--replace-existing-backup"));
    assert_eq!(std::fs::read(&out).unwrap(), before, "the earlier one is still there");
    let replace = ["backup", "--state", &state, "--out", &out, "--replace-existing-backup"];
    good(&replace);
    let before = std::fs::read(&out).unwrap();
    let other = path(folder.path(), "other");
    std::fs::write(&other, "no backup").unwrap();
    let refused = run(&["backup", "--state", &state, "--out", &other, "--replace-existing-backup"]);
    assert!(said(&refused).contains("is no backup"), "{}", said(&refused));
    assert_eq!(std::fs::read(&other).unwrap(), b"no backup");
    let database = rusqlite::Connection::open(Path::new(&state).join("kbs.db")).unwrap();
    database.execute("DELETE FROM rows WHERE kind = 'restored'", []).unwrap();
    drop(database);
    let refused = run(&replace);
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    assert_eq!(std::fs::read(&out).unwrap(), before, "the earlier one is still there");
    std::fs::write(&out, &before[..before.len() / 2]).unwrap();
    let cut = run(&["restore", "--state", &state, "--from", &out, "--accept-rollback"]);
    assert_eq!(cut.status.code(), Some(3));
    assert!(said(&cut).contains("the rest of it is missing"), "{}", said(&cut));
    assert!(Path::new(&state).join("kbs.db").exists(), "nothing was taken away");
}

/// What of a state folder is kept beside a backup that is not encrypted.
fn kept(state: &str, folder: &Path) -> String {
    let kept = path(folder, "kept");
    std::fs::create_dir(&kept).unwrap();
    for name in ["root.key", "server.pem", "admin-server.pem"] {
        std::fs::copy(Path::new(state).join(name), Path::new(&kept).join(name)).unwrap();
    }
    kept
}

#[test]
fn a_restore_says_what_is_in_its_way_and_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| path(folder.path(), name);
    let (state, other, plain, sealed) = (at("state"), at("other"), at("plain"), at("sealed"));
    let (key, public) = (at("key"), at("key.pub"));
    for one in [&state, &other] {
        good(&["init", "--state", one]);
    }
    good(&["recovery-key", "--out", &key]);
    good(&["backup", "--state", &state, "--out", &plain]);
    let wrong = run(&["backup", "--state", &state, "--out", &sealed, "--recovery-key", &key]);
    assert!(said(&wrong).contains("the secret half") && said(&wrong).contains("FILE.pub"), "{}", said(&wrong));

    // Another root key, none, and what is no backup.
    let restore = |state: &str, from: &str, more: &[&str]| {
        run(&[&["restore", "--state", state, "--from", from, "--accept-rollback"], more].concat())
    };
    let before = std::fs::read(Path::new(&other).join("kbs.db")).unwrap();
    let refused = restore(&other, &plain, &[]);
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    assert!(said(&refused).contains("another one") && said(&refused).contains("root.key of its time"));
    assert_eq!(std::fs::read(Path::new(&other).join("kbs.db")).unwrap(), before);
    std::fs::create_dir(at("empty")).unwrap();
    let refused = restore(&at("empty"), &plain, &[]);
    assert!(said(&refused).contains("has no root.key") && said(&refused).contains("admin-server.pem"));
    let refused = restore(&other, &public, &[]);
    assert!(said(&refused).contains("is no backup"), "{}", said(&refused));

    // What was kept beside a backup is enough for it, on a machine that has nothing else, once somebody has read the
    // configuration: nothing protects that.
    let kept = kept(&state, folder.path());
    let refused = restore(&kept, &plain, &[]);
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
    assert!(said(&refused).contains("config.toml.from-backup"), "{}", said(&refused));
    let (unread, config) = (Path::new(&kept).join("config.toml.from-backup"), Path::new(&kept).join("config.toml"));
    assert!(!config.exists() && !Path::new(&kept).join("kbs.db").exists());
    std::fs::rename(unread, config).unwrap();
    let restored = restore(&kept, &plain, &[]);
    assert!(restored.status.success(), "{}", said(&restored));
    let text = String::from_utf8(restored.stdout).unwrap();
    assert!(
        text.contains("not in the backup: admin.toml") && text.contains("coffer kbs admin confirm-restore"),
        "{text}"
    );
    good(&["state", "verify", "--state", &kept]);
    assert_eq!(run(&["pin", "--state", &kept]).stdout, run(&["pin", "--state", &state]).stdout);
    let text = String::from_utf8(good(&["doctor", "--state", &kept]).stdout).unwrap();
    assert!(text.contains("confirm-restore"), "{text}");

    // Files that the configuration names are in no backup, and a checkpoint that cannot be had leaves nothing.
    let config = Path::new(&state).join("config.toml");
    let written = std::fs::read_to_string(&config).unwrap();
    let checkpoint = at("disk/checkpoint");
    std::fs::create_dir(at("disk")).unwrap();
    std::fs::rename(Path::new(&state).join("checkpoint"), &checkpoint).unwrap();
    let web = "[policies]\nweb = \"web.rego\"\n";
    std::fs::write(Path::new(&state).join("web.rego"), "package web\nallow := true\n").unwrap();
    let with = format!("checkpoint = {checkpoint:?}\n{}\n{web}", written.replace("[policies]\n", ""));
    std::fs::write(&config, with).unwrap();
    good(&["backup", "--state", &state, "--out", &sealed, "--recovery-key", &public]);
    std::fs::rename(at("disk"), at("unplugged")).unwrap();
    let refused = restore(&at("new"), &sealed, &["--recovery-key", &key]);
    assert!(said(&refused).contains("disk/checkpoint"), "{}", said(&refused));
    assert!(!Path::new(&at("new")).exists());
    std::fs::rename(at("unplugged"), at("disk")).unwrap();
    // It is the first broker's, which may still serve.
    let seen = std::fs::read(&checkpoint).unwrap();
    let refused = restore(&at("new"), &sealed, &["--recovery-key", &key]);
    assert!(said(&refused).contains("--replace-checkpoint"), "{}", said(&refused));
    assert!(std::fs::read(&checkpoint).unwrap() == seen && !Path::new(&at("new")).exists());
    good(&["state", "verify", "--state", &state]);
    let restored = run(&[
        "--json",
        "restore",
        "--state",
        &at("new"),
        "--from",
        &sealed,
        "--accept-rollback",
        "--recovery-key",
        &key,
        "--replace-checkpoint",
    ]);
    assert!(restored.status.success(), "{}", said(&restored));
    let restored: serde_json::Value = serde_json::from_slice(&restored.stdout).unwrap();
    let lacks = restored["lacks"].to_string();
    for word in ["admin.toml", "web.rego: policies.web", "disk/checkpoint"] {
        assert!(lacks.contains(word), "{word}: {lacks}");
    }
    assert!(restored["next"].as_str().unwrap().contains("confirm-restore"));
}

#[test]
fn a_recovery_key_is_there_whole_or_not_at_all() {
    for taken in ["key", "key.pub"] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(taken), "mine").unwrap();
        let refused = run(&["recovery-key", "--out", &path(folder.path(), "key")]);
        assert_eq!(refused.status.code(), Some(3));
        assert!(said(&refused).contains("keys are never replaced"), "{}", said(&refused));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{taken}");
        assert_eq!(std::fs::read(folder.path().join(taken)).unwrap(), b"mine");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_is_named_is_not_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let lax = folder.path().join("lax.rego");
    std::fs::write(&lax, "package lax\nallow := true\n").unwrap();
    let tenant = |config: &mut coffer_kbs::ConfigFile| {
        config.tenants.entry(TENANT.into()).or_default().simulated_anchors = vec![anchor().to_string()];
    };
    let kbs = Kbs::start_with(|config| {
        tenant(config);
        config.policies.insert("lax".into(), lax);
    })
    .await;
    let guest = Guest::usual();
    kbs.put_under(PATH, true, "lax").await.unwrap();
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = kbs.connect(guest).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    // All or nothing: the tenant's root goes neither.
    let refused = kbs.try_reload(|_| {}).await.unwrap_err();
    let text = refused.to_string();
    for word in ["policy lax", "version 1", PATH, "tenant acme"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    let update = coffer_kbs_client::SecretUpdate { policy: Some("web".into()), ..Default::default() };
    let admin = kbs.admin().await;
    admin.put_policy(TENANT, "web", "package web\nallow := true\n").await.unwrap();
    admin.update_secret(TENANT, &PATH.parse().unwrap(), update).await.unwrap().unwrap();
    kbs.reload(tenant).await;
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
}

#[test]
fn the_doctor_says_what_is_not_as_it_should_be() {
    let folder = tempfile::tempdir().unwrap();
    let state = path(folder.path(), "state");
    good(&["init", "--state", &state]);
    let text = String::from_utf8(good(&["doctor", "--state", &state]).stdout).unwrap();
    for word in [
        "checkpoint lies on the database's device",
        "root key lies beside",
        "floor is strict",
        "state holds",
        "admin.toml",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let config = Path::new(&state).join("config.toml");
    let written = std::fs::read_to_string(&config).unwrap();
    let weaker = written.replace("floor = \"strict\"", "floor = \"vmpl-and-debug-alone\"");
    assert_ne!(weaker, written);
    std::fs::write(&config, weaker).unwrap();
    let text = String::from_utf8(good(&["doctor", "--state", &state]).stdout).unwrap();
    assert!(text.contains("the floor is vmpl-and-debug-alone"), "{text}");
    std::fs::write(&config, written.replace("floor = \"strict\"", "floor = \"none.toml\"\nfloor_waivers = [\"x\"]"))
        .unwrap();
    let broken = run(&["doctor", "--state", &state]);
    assert_eq!(broken.status.code(), Some(3));
    let text = String::from_utf8(broken.stdout).unwrap();
    assert!(
        text.matches("broken   configuration: ").count() == 2 && text.contains("configuration: floor (none.toml)"),
        "{text}"
    );
    std::fs::remove_file(Path::new(&state).join("checkpoint")).unwrap();
    assert!(String::from_utf8(run(&["doctor", "--state", &state]).stdout).unwrap().contains("checkpoint"));
}

/// A floor file that only names what is asked for here.
fn floor(folder: &Path, text: &str) -> String {
    let file = folder.join("floor.toml");
    std::fs::write(&file, format!("measurements = \"any\"\n{text}")).unwrap();
    file.display().to_string()
}

pub async fn with_floor(text: &str, of_tenant: bool) -> (tempfile::TempDir, Kbs) {
    let folder = tempfile::tempdir().unwrap();
    let file = floor(folder.path(), text);
    let kbs = Kbs::start_with(|config| {
        let tenant = config.tenants.entry(TENANT.into()).or_default();
        tenant.simulated_anchors = vec![anchor().to_string()];
        if of_tenant { tenant.floor = Some(file) } else { config.floor = Some(file) }
    })
    .await;
    (folder, kbs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_below_the_floor_of_broker_or_tenant_is_refused() {
    let guest = Guest::usual();
    let chip = guest.chip();
    for text in [
        "products = [\"Genoa\"]".to_owned(),
        "denied_products = [\"Milan\"]".to_owned(),
        format!("denied_chips = [\"{chip}\"]"),
        "[[tcb]]\nproduct = \"Milan\"\nreported = { snp = 255 }".to_owned(),
        "[[tcb]]\nproduct = \"Milan\"\nreported = { snp = 0 }\ncommitted = { microcode = 255 }".to_owned(),
        "[[tcb]]\nproduct = \"Genoa\"\nreported = { snp = 1 }".to_owned(),
        "minimum_guest_svn = 1".to_owned(),
        "current_mitigations = 1".to_owned(),
    ] {
        for of_tenant in [false, true] {
            let (_folder, kbs) = with_floor(&text, of_tenant).await;
            assert_eq!(
                not_admitted(kbs.connect(guest.clone()).await),
                "evidence-refused",
                "{text}, tenant {of_tenant}"
            );
        }
    }
    let (_folder, kbs) = with_floor("denied_chips = []", true).await;
    assert!(kbs.connect(guest).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_again_counts_at_the_next_release_of_a_connected_guest() {
    let kbs = Kbs::start().await;
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = kbs.connect(guest.clone()).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    let folder = tempfile::tempdir().unwrap();
    let denied = floor(folder.path(), &format!("denied_chips = [\"{}\"]", guest.chip()));
    kbs.reload(|config| {
        config.tenants.entry(TENANT.into()).or_default().simulated_anchors = vec![anchor().to_string()];
        config.floor = Some(denied);
    })
    .await;
    let line = kbs.line_of(&refused(ask(&client, PATH).await));
    assert!(common::has_reason(&line, "chip"), "{line}");
    kbs.reload(|config| {
        config.tenants.entry(TENANT.into()).or_default().simulated_anchors = vec![anchor().to_string()];
    })
    .await;
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    assert!(kbs.try_reload(|_| {}).await.unwrap().contains(&"tenants that are there without `tenant add`"));
    refused(ask(&client, PATH).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_again_and_waits_for_the_next_start_is_named() {
    let kbs = Kbs::start_with(|_| ()).await;
    assert_eq!(kbs.try_reload(|_| {}).await.unwrap(), [""; 0], "nothing has changed");
    let waiting = kbs.try_reload(|config| {
        config.admins.clear();
        config.admin_listen = "127.0.0.1:4".into();
        config.limits.unattested = 7;
    });
    assert_eq!(waiting.await.unwrap(), ["admin_listen", "admins", "[limits] unattested"]);
}

async fn figures(kbs: &Kbs) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(kbs.addresses.metrics_listen.unwrap()).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_count_decisions_and_name_nothing() {
    let kbs = Kbs::start_with(|config| {
        config.metrics_listen = Some("127.0.0.1:0".into());
        config.tenants.entry(TENANT.into()).or_default();
    })
    .await;
    assert!(figures(&kbs).await.contains("coffer_kbs_audit_lines 0"));
    kbs.put(PATH, true).await;
    kbs.put(PATH, true).await;
    let text = figures(&kbs).await;
    assert!(text.contains("coffer_kbs_decisions_total{event=\"secret.put\",outcome=\"done\"} 2"), "{text}");
    assert!(text.contains("coffer_kbs_audit_lines 2") && text.contains("coffer_kbs_store_up 1"), "{text}");
    // A guest that has shown nothing, an operator, and operators whose key has all its places.
    let _stranger = tokio::net::TcpStream::connect(kbs.addresses.listen).await.unwrap();
    let mut admins = Vec::new();
    while admins.len() < 16 {
        admins.push(kbs.admin().await);
    }
    let profile = coffer_kbs_client::AdminProfile::read(&kbs.state().join("admin.toml")).unwrap();
    assert!(coffer_kbs_client::AdminClient::connect(&profile).await.is_err());
    let text = figures(&kbs).await;
    for wanted in [
        "coffer_kbs_connections{listener=\"guests\",who=\"strangers\"} 1",
        "coffer_kbs_connections{listener=\"guests\",who=\"known\"} 0",
        "coffer_kbs_connections{listener=\"operators\",who=\"known\"} 16",
        "coffer_kbs_connections_closed_total{listener=\"operators\",limit=\"place\"} 1",
        "coffer_kbs_connections_closed_total{listener=\"guests\",limit=\"source\"} 0",
        "coffer_kbs_requests_over_rate_total{who=\"guests\"} 0",
        "coffer_kbs_log_lines_unprinted_total 0",
    ] {
        assert!(text.lines().any(|line| line == wanted), "{wanted}: {text}");
    }
    for name in [PATH, "password", TENANT, "admin"] {
        assert!(!text.contains(name), "{name}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_count_what_is_too_much_of_guests_strangers_operators_and_sources() {
    let kbs = Kbs::start_with(|config| {
        config.metrics_listen = Some("127.0.0.1:0".into());
        config.tenants.entry(TENANT.into()).or_default().simulated_anchors = vec![anchor().to_string()];
        config.limits.requests_per_second_per_guest = 1;
        config.limits.connections_per_source = 4;
    })
    .await;
    let figure = async |name: &str| -> u64 {
        let text = figures(&kbs).await;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("coffer_kbs_{name} ")));
        line.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
    };
    let over_rate = async || {
        let of = |who: &str| format!("requests_over_rate_total{{who=\"{who}\"}}");
        (figure(&of("guests")).await, figure(&of("operators")).await)
    };
    let (guest, stranger) = (Guest::usual(), Guest::launch(&Launch { platform: 2, ..Launch::default() }));
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let mut before = over_rate().await;
    let (guest, stranger) = (kbs.connect(guest).await.unwrap(), kbs.connect(stranger).await.unwrap());
    for client in [&guest, &stranger] {
        let mut told = 0;
        for _ in 0..8 {
            told += u64::from(ask(client, PATH).await.is_err_and(|error| error.to_string().contains("too-many")));
        }
        let now = over_rate().await;
        assert!(told > 0 && now == (before.0 + told, 0), "{told} more than {before:?}: {now:?}");
        before = now;
    }

    let identity = coffer_ratls::Identity::generate("auditor").unwrap();
    let grant = coffer_kbs_client::Grant { role: "auditor".into(), tenant: None };
    kbs.admin().await.add_admin("auditor", &identity.spki(), &[grant]).await.unwrap();
    let owner = coffer_kbs_client::AdminProfile::read(&kbs.state().join("admin.toml")).unwrap();
    let profile = coffer_kbs_client::AdminProfile { identity, ..owner };
    let auditor = coffer_kbs_client::AdminClient::connect(&profile).await.unwrap();
    let mut told = 0;
    for _ in 0..130 {
        let error = auditor.add_tenant("mine").await.unwrap_err();
        told += u64::from(format!("{error:?}").contains("too-many-requests"));
    }
    assert_eq!((told > 0, over_rate().await), (true, (before.0, told)));

    let mut many = Vec::new();
    for _ in 0..6 {
        many.push(tokio::net::TcpStream::connect(kbs.addresses.listen).await.unwrap());
    }
    let closed = "connections_closed_total{listener=\"guests\",limit=\"source\"}";
    for _ in 0..100 {
        if figure(closed).await >= 4 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(figure(closed).await, 4, "two of six had room beside two guests");
}

/// A server that does not outlive its test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn sighup_reads_all_of_the_configuration_or_none_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let state = path(folder.path(), "state");
    good(&["init", "--state", &state, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let config = Path::new(&state).join("config.toml");
    let written = std::fs::read_to_string(&config).unwrap();
    std::fs::write(Path::new(&state).join("lax.rego"), "package lax\nallow := true\n").unwrap();
    let with_policy = format!("{}\n[policies]\nlax = \"lax.rego\"\n", written.replace("[policies]\n", ""));
    std::fs::write(&config, with_policy).unwrap();
    let log = folder.path().join("log");
    let child = Command::new(env!("CARGO_BIN_EXE_coffer-kbs"))
        .args(["serve", "--state", &state, "--ready-file", &path(folder.path(), "ready")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut child = Ended(child);
    let logged = async |word: &str| {
        for _ in 0..600 {
            if word == "ready" && folder.path().join("ready").exists()
                || std::fs::read_to_string(&log).unwrap().contains(word)
            {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("{word}: {}", std::fs::read_to_string(&log).unwrap());
    };
    logged("ready").await;
    let hangup = || assert!(Command::new("kill").args(["-HUP", &child.0.id().to_string()]).status().unwrap().success());
    hangup();
    logged("configuration read again").await;
    // One that a secret names is not taken away.
    let profile = coffer_kbs_client::AdminProfile::read(&Path::new(&state).join("admin.toml")).unwrap();
    let admin = coffer_kbs_client::AdminClient::connect(&profile).await.unwrap();
    let (value, at) = (secrecy::SecretBox::new(Box::new(VALUE.to_vec())), PATH.parse().unwrap());
    let named = coffer_kbs_client::PutSecret { tenant: "default", policy: "lax", ..common::put(&at, &value) };
    admin.put_secret(named).await.unwrap();
    std::fs::write(&config, &written).unwrap();
    hangup();
    logged("policy lax is not there, and is named by version 1 of secret").await;
    let wrong =
        written.replace("\"strict\"", "\"lax.toml\"").replace("endorsements = []", "endorsements = [\"missing.crl\"]");
    assert!(wrong.contains("missing.crl") && wrong.contains("lax.toml"));
    std::fs::write(&config, wrong).unwrap();
    hangup();
    logged("missing.crl").await;
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains("missing.crl") && log.contains("lax.toml"), "{log}");
    assert!(Command::new("kill").args(["-TERM", &child.0.id().to_string()]).status().unwrap().success());
    assert!(child.0.wait().unwrap().success());
}
