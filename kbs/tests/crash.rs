//! Killed at any moment, and out of room at any write: what was acknowledged is there, and what left has its record.

use crate::common;
use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::common::{Guest, Kbs, PATH, TENANT, VALUE, anchor, ask};
use coffer_kbs_client::{
    AdminClient, AdminProfile, AuditQuery, BrokerClient, ClientError, Expected, PutSecret, Reference,
};
use coffer_ratls::Identity;
use coffer_verifier::{Expiry, abi::SpkiDigest};
use secrecy::SecretBox;
use tokio::net::TcpStream;

fn run(words: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_coffer-kbs")).args(words).stdin(Stdio::null()).output().unwrap()
}

struct Serving {
    child: Child,
    listen: std::net::SocketAddr,
    pin: SpkiDigest,
    state: String,
}

impl Serving {
    fn start(state: &str) -> Self {
        // The flag names a tenant, and makes none.
        let config = Path::new(state).join("config.toml");
        let written = std::fs::read_to_string(&config).unwrap();
        if !written.contains("[tenants.") {
            std::fs::write(&config, format!("{written}\n[tenants.{TENANT}]\n")).unwrap();
        }
        let anchor = anchor().to_string();
        let words = ["--json", "serve", "--state", state, "--allow-simulated", &anchor, "--tenant", TENANT];
        let mut child = Command::new(env!("CARGO_BIN_EXE_coffer-kbs"))
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        // Audit lines go on to come.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        let text = |field: &str| ready[field].as_str().unwrap().to_owned();
        let (listen, pin) = (text("listen").parse().unwrap(), text("pin").parse().unwrap());
        Self { child, listen, pin, state: state.to_owned() }
    }

    async fn admin(&self) -> Result<AdminClient, ClientError> {
        AdminClient::connect(&AdminProfile::read(&Path::new(&self.state).join("admin.toml")).unwrap()).await
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn put(admin: &AdminClient, path: &str, value: Vec<u8>) -> Result<u64, ClientError> {
    let (path, value) = (path.parse().unwrap(), SecretBox::new(Box::new(value)));
    let put = PutSecret {
        tenant: TENANT,
        path: &path,
        value: &value,
        allow_simulated: Some(true),
        expected: Expected::Any,
        policy: "",
        rules: None,
        labels: None,
        expires: None,
    };
    Ok(admin.put_secret(put).await?.now.version)
}

/// What was acknowledged: highest version per path, and secrets that left.
#[derive(Default)]
struct Acknowledged {
    versions: [u64; 4],
    released: usize,
}

/// A secret that is put and deleted in turn.
const FLEETING: &str = "kbs:///default/app/fleeting";

#[derive(Default)]
struct Fleeting {
    /// Whether it is there, as far as anybody was told.
    acknowledged: bool,
    /// What was asked for, and not answered.
    asked: Option<bool>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_nothing_acknowledged_is_lost_and_nothing_left_without_its_record() {
    let folder = tempfile::tempdir().unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let state = folder.path().join("state").display().to_string();
    assert!(
        run(&["init", "--state", &state, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]).status.success()
    );
    let guest = Guest::usual();
    let mut acknowledged = Acknowledged::default();
    let seed = common::seed();
    let mut random = common::random(seed);
    let mut fleeting = Fleeting::default();
    let recovery = folder.path().join("recovery").display().to_string();
    let public = format!("{recovery}.pub");
    assert!(run(&["recovery-key", "--out", &recovery]).status.success());
    let out = folder.path().join("backup").display().to_string();
    for round in 0..common::rounds(100) {
        let mut serving = Serving::start(&state);
        let admin = serving.admin().await.unwrap();
        if round == 0 {
            let (measurement, workload) = (guest.measurement, guest.document.digest());
            let reference =
                Reference { tenant: TENANT.into(), measurement, workload, name: "test".into(), expires: Expiry::Never };
            admin.add_reference(&reference).await.unwrap();
            put(&admin, PATH, common::VALUE.to_vec()).await.unwrap();
        }
        let listed = admin.list_secrets(TENANT, false).await.unwrap().rows;
        let there = listed.iter().any(|info| info.path == FLEETING);
        let Fleeting { acknowledged: last, asked } = fleeting;
        assert!(
            there == last || asked.is_some_and(|asked| there == asked),
            "round {round} of seed {seed}: {FLEETING} there: {there}, acknowledged: {last}, asked for: {asked:?}"
        );
        fleeting = Fleeting { acknowledged: there, asked: None };
        for (number, version) in acknowledged.versions.iter().enumerate() {
            let path = format!("kbs:///default/app/k{number}");
            let found = listed.iter().find(|info| info.path == path).map_or(0, |info| info.current.version);
            assert!(
                found >= *version,
                "round {round} of seed {seed}: {path} is at {found}, {version} was acknowledged"
            );
        }
        let backing = (round % 10 == 9).then(|| {
            let words =
                ["backup", "--state", &state, "--out", &out, "--recovery-key", &public, "--replace-existing-backup"];
            Command::new(env!("CARGO_BIN_EXE_coffer-kbs"))
                .args(words)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        });
        let client = if round % 5 == 0 {
            let stream = TcpStream::connect(serving.listen).await.unwrap();
            let identity = Identity::generate("guest").unwrap();
            Some(BrokerClient::connect(stream, &identity, TENANT, vec![serving.pin], guest.clone()).await.unwrap())
        } else {
            None
        };
        let Acknowledged { versions, released } = &mut acknowledged;
        if let Some(client) = &client {
            // Once in peace, so that something has left whatever the machine is busy with.
            if let Err(error) = client.secret(&PATH.parse().unwrap()).await {
                let trail = admin.audit(0, 10_000).await.unwrap_or_default();
                panic!("round {round} of seed {seed}: {error}: {:#?}", trail.iter().rev().take(3).collect::<Vec<_>>());
            }
            *released += 1;
        }
        let working = async {
            for step in 0.. {
                let number = (round + step) % 4;
                match put(&admin, &format!("kbs:///default/app/k{number}"), vec![7; 100 * (step % 50 + 1)]).await {
                    Ok(version) => versions[number] = version,
                    Err(_) => break,
                }
                if step % 3 == 2 {
                    fleeting.asked = Some(!fleeting.acknowledged);
                    let done = if fleeting.acknowledged {
                        admin.delete_secret(TENANT, &FLEETING.parse().unwrap(), None).await.map(|_| ())
                    } else {
                        put(&admin, FLEETING, vec![8; 100]).await.map(|_| ())
                    };
                    if done.is_err() {
                        break;
                    }
                    fleeting = Fleeting { acknowledged: !fleeting.acknowledged, asked: None };
                }
            }
        };
        let asking = async {
            let Some(client) = &client else { return };
            while client.secret(&PATH.parse().unwrap()).await.is_ok() {
                *released += 1;
                tokio::time::sleep(Duration::from_millis(60)).await;
            }
        };
        let killing = async {
            let micros = 500 + random(if round % 16 == 15 { 1_500_000 } else { 60_000 }) as u64;
            // In some rounds the root key changes meanwhile, and the end comes at any moment of that.
            if round % 8 == 7 {
                let _ = Command::new("kill").args(["-USR1", &serving.child.id().to_string()]).status();
            }
            tokio::time::sleep(Duration::from_micros(micros)).await;
            serving.kill();
        };
        tokio::join!(working, asking, killing);
        if let Some(mut backing) = backing {
            let _ = backing.kill();
            let _ = backing.wait();
        }
        if round % 20 == 19 {
            let verified = run(&["state", "verify", "--state", &state]);
            assert!(
                verified.status.success(),
                "round {round} of seed {seed}: {}",
                String::from_utf8_lossy(&verified.stderr)
            );
        }
    }
    let verified = run(&["--json", "audit", "verify", "--state", &state]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    let serving = Serving::start(&state);
    let admin = serving.admin().await.unwrap();
    let (mut from, mut recorded) = (1, 0);
    loop {
        let lines = admin.audit(from, 0).await.unwrap();
        if lines.is_empty() {
            break;
        }
        recorded +=
            lines.iter().filter(|line| line.contains("\"event\":\"secret.release\",\"outcome\":\"released\"")).count();
        from += lines.len() as u64;
    }
    assert!(
        acknowledged.released > 0 && recorded >= acknowledged.released,
        "{recorded} recorded, {} left",
        acknowledged.released
    );
    assert!(acknowledged.versions.iter().all(|version| *version > 0));
    // A backup that is there is a whole one, of whichever root key.
    if Path::new(&out).exists() {
        drop(serving);
        let again = folder.path().join("again").display().to_string();
        let words = ["restore", "--state", &again, "--from", &out, "--recovery-key", &recovery, "--accept-rollback"];
        let restored = run(&words);
        assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    }
}

/// A file system of 8 MiB, gone when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs"]).arg(folder.path()).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_room_nothing_is_lost_and_service_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("not run: mounting a file system needs root");
        return;
    };
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let state = disk.0.path().join("state").display().to_string();
    assert!(
        run(&["init", "--state", &state, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]).status.success()
    );
    let serving = Serving::start(&state);
    let admin = serving.admin().await.unwrap();
    let filler = disk.0.path().join("filler");
    let mut acknowledged = 0;
    // Full at ever other moments: what is left shrinks by a page each time.
    for round in 0..12_usize {
        std::fs::write(&filler, vec![1; (5 << 20) - round * 4096]).unwrap_or(());
        let said = loop {
            match put(&admin, "kbs:///default/app/big", vec![3; 40_000 + round * 1000]).await {
                Ok(version) => acknowledged = version,
                Err(ClientError::Rejected { message, .. }) => break message,
                Err(other) => break format!("{other:?}"),
            }
            assert!(acknowledged < 5000, "an 8 MiB disk never fills");
        };
        assert!(said.contains("full") && said.contains("nothing was changed") && said.contains("make room"), "{said}");
        let listed = admin.list_secrets(TENANT, false).await.unwrap().rows;
        assert_eq!(listed.first().map(|info| info.current.version), Some(acknowledged).filter(|version| *version > 0));
        std::fs::remove_file(&filler).unwrap();
        if round == 0 {
            acknowledged = put(&admin, "kbs:///default/app/big", vec![4; 1000]).await.unwrap();
        }
        if put(&admin, "kbs:///default/app/small", vec![5; 10]).await.is_err() {
            break;
        }
    }
    drop(admin);
    drop(serving);
    let verified = run(&["state", "verify", "--state", &state]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_leave_operators_the_room_in_which_they_are_revoked() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("not run: mounting a file system needs root");
        return;
    };
    let folder = tempfile::tempdir_in(disk.0.path()).unwrap();
    coffer_kbs::init(&folder.path().join("state"), "127.0.0.1:0", "127.0.0.1:0").await.unwrap();
    let list = |config: &mut coffer_kbs::ConfigFile| {
        config.tenants.entry(TENANT.into()).or_default().simulated_anchors = vec![anchor().to_string()];
    };
    let kbs = Kbs::start_in(folder, list, async |state| coffer_kbs::State::open(state).await.unwrap()).await;
    let guest = Guest::usual();
    kbs.admit(guest.measurement, guest.document.digest()).await;
    kbs.put(PATH, true).await;
    let client = kbs.connect(guest).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    // Others filled the disk, but for less than an eighth of it.
    let filler = disk.0.path().join("filler");
    let there = rustix::fs::statvfs(disk.0.path()).unwrap();
    let left = there.f_bavail * there.f_frsize;
    std::fs::write(&filler, vec![1; usize::try_from(left - (900 << 10)).unwrap()]).unwrap();
    let lines = kbs.admin().await.audit_search(&AuditQuery::default(), 1000).await.unwrap().len();
    for _ in 0..50 {
        let asked = ask(&client, PATH).await;
        assert!(matches!(&asked, Err(ClientError::Undecided { code, .. }) if code == "broker-failed"), "{asked:?}");
    }
    let admin = kbs.admin().await;
    assert_eq!(
        admin.audit_search(&AuditQuery::default(), 1000).await.unwrap().len(),
        lines,
        "what it asks costs nothing"
    );
    assert!(admin.revoke(Some(TENANT), "report-id", &"05".repeat(32), None).await.unwrap().0);
    std::fs::remove_file(&filler).unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
}
