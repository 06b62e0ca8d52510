//! A new root key while the broker serves, by signal, by command, and killed at any moment of it.

use crate::common;
use std::{
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::common::{Guest, Kbs, PATH, TENANT, VALUE, ask};
use coffer_kbs::{NewSecret, State, StateError, Tenant, open_store};
use coffer_kbs_client::{Scope, SealingContext, SealingName, SealingPolicy, kbs::admin::v1::Terms};
use secrecy::ExposeSecret as _;

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coffer-kbs"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn run(words: &[&str]) -> Output {
    command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
}

fn key(state: &Path) -> String {
    std::fs::read_to_string(state.join("root.key")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_get_the_same_before_and_after_and_the_old_key_opens_nothing() {
    let kbs = Kbs::start().await;
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let context = SealingContext {
        tenant: TENANT.into(),
        context: b"db".to_vec(),
        policies: vec![SealingPolicy::Workload.to_string()],
        terms: Some(Terms { allow_simulated: true, policy: None, rules: None }),
        created_unix: 0,
    };
    kbs.admin().await.put_sealing_context(context).await.unwrap();
    let client = kbs.connect(guest.clone()).await.unwrap();
    let wanted = SealingName {
        policy: SealingPolicy::Workload,
        scope: Scope::Agent,
        context: b"db".to_vec(),
        minimum_svn: None,
    };
    let sealing = async || *client.sealing_key(&wanted).await.unwrap().0.expose_secret();
    let (before, old) = (sealing().await, key(&kbs.state()));
    let asking = async {
        for _ in 0..10 {
            assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
            kbs.put("kbs:///default/app/other", false).await;
        }
    };
    let (rotated, ()) = tokio::join!(kbs.rotation.apply(), asking);
    rotated.unwrap();
    assert_ne!(key(&kbs.state()), old);
    assert_eq!(sealing().await, before, "what was sealed opens");
    let lines = kbs.admin().await.audit(0, 0).await.unwrap().concat();
    assert!(lines.contains("root.rotate"));
    kbs.rotation.apply().await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    let folder = kbs.stop().await;
    let state = folder.path().join("state");
    let new = key(&state);
    let verified = run(&["state", "verify", "--state", &state.display().to_string()]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    std::fs::write(state.join("root.key"), old).unwrap();
    assert!(open_store(&state).await.is_err());
    std::fs::write(state.join("root.key"), new).unwrap();
    State::open(&state).await.unwrap();
}

#[tokio::test]
async fn a_server_changes_its_key_on_sigusr1() {
    let folder = tempfile::tempdir().unwrap();
    let (state, ready) = (folder.path().join("state"), folder.path().join("ready"));
    let (name, printed) = (state.display().to_string(), folder.path().join("printed"));
    assert!(
        run(&["init", "--state", &name, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]).status.success()
    );
    let old = key(&state);
    let mut server = command(&["serve", "--state", &name, "--ready-file", &ready.display().to_string()])
        .stdout(std::fs::File::create(&printed).unwrap())
        .spawn()
        .unwrap();
    let wait = async |what: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !what() {
            assert!(began.elapsed() < Duration::from_mins(1));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    wait(&|| ready.exists()).await;
    let refused = run(&["rotate-root", "--state", &name]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("SIGUSR1"));
    assert!(Command::new("kill").args(["-USR1", &server.id().to_string()]).status().unwrap().success());
    wait(&|| key(&state) != old).await;
    assert!(run(&["state", "verify", "--state", &name]).status.success());
    assert!(Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap().success());
    assert!(server.wait().unwrap().success());
    let printed = std::fs::read_to_string(printed).unwrap();
    let line = printed.lines().find(|line| line.contains("root.rotate")).expect("it is printed as every line is");
    assert_eq!(serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().len(), 16);
    assert!(run(&["rotate-root", "--state", &name]).status.success());
    assert!(run(&["audit", "verify", "--state", &name]).status.success());
}

async fn fill(state: &Path) -> Result<(), StateError> {
    let (tenant, store) = (Tenant::parse(TENANT).unwrap(), open_store(state).await?);
    let mut ledger = store.write().await?;
    for number in 0..40_u8 {
        let path = format!("kbs:///default/app/k{number}").parse().unwrap();
        let new = NewSecret {
            tenant: &tenant,
            path: &path,
            value: &vec![number; 20_000],
            allow_simulated: None,
            policy: None,
            rules: None,
            labels: None,
            expires: None,
            expected_version: None,
        };
        ledger.put_secret(new, 1).await?;
    }
    Ok(ledger.commit().await?)
}

async fn values(state: &Path) -> usize {
    let (tenant, store) = (Tenant::parse(TENANT).unwrap(), open_store(state).await.unwrap());
    let mut ledger = store.read().await.unwrap();
    let mut found = 0;
    for number in 0..40_u8 {
        let path = format!("kbs:///default/app/k{number}").parse().unwrap();
        let secret = ledger.secret(&tenant, &path).await.unwrap().unwrap();
        assert_eq!(*ledger.open_secret(&tenant, &path, &secret).unwrap(), vec![number; 20_000]);
        found += 1;
    }
    found
}

#[tokio::test]
async fn killed_at_any_moment_one_of_two_keys_opens_everything() {
    let seed = common::seed();
    let mut random = common::random(seed);
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let name = state.display().to_string();
    assert!(
        run(&["init", "--state", &name, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]).status.success()
    );
    fill(&state).await.unwrap();
    let began = Instant::now();
    assert!(run(&["rotate-root", "--state", &name]).status.success());
    let whole = began.elapsed();
    let (mut kept, mut changed, mut cut_off) = (0, 0, 0);
    for round in 0..common::rounds(30) {
        let before = key(&state);
        let mut child = command(&["rotate-root", "--state", &name]).spawn().unwrap();
        let micros = usize::try_from(whole.as_micros()).unwrap() * 11 / 10;
        tokio::time::sleep(Duration::from_micros(random(micros) as u64)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        cut_off += usize::from(state.join("root.key.next").exists());
        // Whoever only looks finds everything, and leaves it to the next server to end what was begun.
        assert_eq!(values(&state).await, 40, "round {round} of seed {seed}");
        let opened = State::open(&state).await;
        drop(opened.unwrap_or_else(|error| panic!("round {round} of seed {seed}: {error:?}")));
        assert!(!state.join("root.key.next").exists());
        if key(&state) == before { kept += 1 } else { changed += 1 }
    }
    assert_eq!(values(&state).await, 40);
    let verified = run(&["state", "verify", "--state", &name]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    eprintln!("kept {kept}, changed {changed}, of which {cut_off} were cut off while there were two keys");
}
