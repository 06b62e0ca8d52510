//! The trail on standard output: what cannot be printed is said and counted, and holds up neither a call nor the end.

use std::{
    fs::File,
    io::{PipeWriter, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use coffer_kbs::init;
use coffer_kbs_client::{AdminClient, AdminProfile};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::common;

/// A broker of its own process, whose standard output leads somewhere.
pub(crate) struct Served {
    pub(crate) folder: tempfile::TempDir,
    child: Child,
    ready: serde_json::Value,
}

impl Served {
    pub(crate) async fn start(out: impl Into<Stdio>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        init(&state, "127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        let config = state.join("config.toml");
        let written = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, format!("metrics_listen = \"127.0.0.1:0\"\n{written}")).unwrap();
        let ready = folder.path().join("ready");
        let child = Command::new(env!("CARGO_BIN_EXE_coffer-kbs"))
            .args([Path::new("serve"), "--state".as_ref(), &state, "--ready-file".as_ref(), &ready])
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut served = Self { folder, child, ready: serde_json::Value::Null };
        let begun = Instant::now();
        while !ready.exists() {
            assert!(begun.elapsed() < Duration::from_mins(1), "{}", served.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        served.ready = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
        served
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    pub(crate) async fn admin(&self) -> AdminClient {
        let profile: PathBuf = self.folder.path().join("state/admin.toml");
        AdminClient::connect(&AdminProfile::read(&profile).unwrap()).await.unwrap()
    }

    async fn figures(&self) -> String {
        let address = self.ready["metrics_listen"].as_str().unwrap();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    fn told(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Whether it ends well when it is told to, in a while.
    fn end(&mut self) -> bool {
        self.told("-TERM");
        self.ended()
    }

    fn ended(&mut self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_mins(1) {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it does not end: {}", self.log());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The writer of a pipe that nobody reads any more.
fn closed() -> PipeWriter {
    std::io::pipe().unwrap().1
}

#[tokio::test]
async fn a_line_that_standard_output_does_not_take_is_an_error_each_time_and_a_figure() {
    for (out, why) in [
        (Stdio::from(File::options().write(true).open("/dev/full").unwrap()), "No space left"),
        (closed().into(), "Broken pipe"),
    ] {
        let mut served = Served::start(out).await;
        let admin = served.admin().await;
        for name in ["acme", "globex"] {
            admin.add_tenant(name).await.unwrap();
        }
        let begun = Instant::now();
        while served.log().matches("was not printed").count() < 2 {
            assert!(begun.elapsed() < Duration::from_mins(1), "{}", served.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(served.log().contains(why), "{}", served.log());
        let figures = served.figures().await;
        assert!(figures.contains("\ncoffer_kbs_log_lines_unprinted_total 2\n"), "{figures}");
        assert!(figures.contains("{event=\"tenant.add\",outcome=\"done\"} 2\n"), "{figures}");
        drop(admin);
        served.end();
    }
}

#[tokio::test]
async fn a_reader_that_stalls_holds_up_no_call_and_not_the_end() {
    // All but its last page is full before the broker begins; whoever has the other end reads nothing.
    let (stalled, mut pipe) = std::io::pipe().unwrap();
    pipe.write_all(&vec![b'\n'; 15 * 4096]).unwrap();
    let mut served = Served::start(pipe).await;
    let admin = served.admin().await;
    let (path, value) = ("kbs:///a/b/c".parse().unwrap(), secrecy::SecretBox::new(Box::new(b"v".to_vec())));
    admin.add_tenant(common::TENANT).await.unwrap();
    let begun = Instant::now();
    for _ in 0..40 {
        admin.put_secret(common::put(&path, &value)).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", begun.elapsed());
    drop(admin);
    served.end();
    let log = served.log();
    assert!(log.contains("standard output did not take the last lines of the audit trail"), "{log}");
    drop(stalled);
}

#[tokio::test]
async fn all_lines_are_out_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut served = Served::start(File::create(&out).unwrap()).await;
    let admin = served.admin().await;
    for at in 0..50 {
        admin.add_tenant(&format!("tenant-{at}")).await.unwrap();
    }
    drop(admin);
    assert!(served.end());
    let lines = std::fs::read_to_string(&out).unwrap();
    assert_eq!(lines.lines().filter(|line| line.contains("tenant.add")).count(), 50, "{lines}");
    let of = |field: &str| served.ready[field].as_str().unwrap();
    let first = format!("coffer-kbs listening on {}, admin on {}, pin {}", of("listen"), of("admin_listen"), of("pin"));
    assert_eq!(lines.lines().next(), Some(first.as_str()));
}

#[tokio::test]
async fn either_signal_lets_an_open_call_finish() {
    for signal in ["-TERM", "-INT"] {
        let mut served = Served::start(Stdio::null()).await;
        let admin = served.admin().await;
        admin.add_tenant("acme").await.unwrap();
        // Somebody else writes to the database, and the call waits for that.
        let database = rusqlite::Connection::open(served.folder.path().join("state/kbs.db")).unwrap();
        database.execute_batch("BEGIN IMMEDIATE").unwrap();
        let call = tokio::spawn(async move { admin.add_tenant("globex").await });
        tokio::time::sleep(Duration::from_millis(1500)).await;
        served.told(signal);
        let begun = Instant::now();
        while !served.log().contains("open calls may finish") {
            assert!(begun.elapsed() < Duration::from_mins(1), "{signal}: {}", served.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!call.is_finished(), "{signal}");
        database.execute_batch("ROLLBACK").unwrap();
        assert!(call.await.unwrap().unwrap(), "{signal}");
        assert!(served.ended(), "{signal}: {}", served.log());
    }
}
