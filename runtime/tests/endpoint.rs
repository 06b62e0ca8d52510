//! `coffer verify https://HOST:PORT` against servers in this process: honest guests, others, and those that stand between.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use coffer_ratls::{
    AttestationService, Attester, AttesterError, ClientRule, Identity, IdentityKey, Purpose, ServeLimits, ServerTls,
    serve,
};
use coffer_simulator::{Installation, LaunchOptions, LocalProcessor, SecureProcessor};
use coffer_spec::{Document, Tee, sample};
use coffer_verifier::abi::{
    Measurement, ProductLine, ReportData, ReportRequest, SecureProcessor as _, SpkiDigest, WorkloadDigest,
};
use coffer_verifier::binding::certificate_report_data;
use coffer_verifier::measure::PageType;
use coffer_verifier::{Evidence, UnixTime};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;

const PORT: u16 = 8080;

struct Guest {
    processor: Mutex<LocalProcessor>,
    document: Document,
    measurement: Measurement,
}

impl Guest {
    fn launch(installation: &Installation, page: u8) -> Self {
        let document = Document::write(&sample::workload(Tee::Simulated)).unwrap();
        let options = LaunchOptions { policy: 0x3_0000, ..LaunchOptions::new(ProductLine::Milan, now()) };
        let mut launching = SecureProcessor::launch_start(installation, options).unwrap();
        launching.update(PageType::Normal, 0x10_0000, &[page; 4096]).unwrap();
        let measurement = launching.digest();
        let launched = launching.finish(document.digest().host_data(), None).unwrap();
        Self { processor: Mutex::new(launched.into_processor()), document, measurement }
    }

    fn identity(&self) -> Identity {
        let key = IdentityKey::generate().unwrap();
        let evidence = self.evidence(&certificate_report_data(&key.spki(), &self.workload())).unwrap();
        Identity::attested(&key, "\u{1b}[2Jguest", &evidence.to_cmw()).unwrap()
    }

    /// As `coffer measure --json` writes it.
    fn reference(&self) -> Value {
        json!({ "measurement": self.measurement, "workload_digest": self.document.digest().to_string() })
    }
}

impl Attester for Guest {
    fn evidence(&self, report_data: &ReportData) -> Result<Evidence, AttesterError> {
        let extended = self.processor.lock().unwrap().report(&ReportRequest::new(*report_data))?;
        Ok(Evidence {
            report: extended.report,
            cert_table: extended.cert_table,
            crls: Vec::new(),
            workload_spec: self.document.bytes().to_vec(),
        })
    }

    fn workload(&self) -> WorkloadDigest {
        self.document.digest()
    }
}

/// Ends TLS itself, and has a genuine guest answer: which answers for its own connection, not for this one.
struct Relay(Guest);

impl Attester for Relay {
    fn evidence(&self, _: &ReportData) -> Result<Evidence, AttesterError> {
        self.0.evidence(&ReportData::new([0x42; 64]))
    }

    fn workload(&self) -> WorkloadDigest {
        self.0.workload()
    }
}

fn now() -> u64 {
    u64::try_from(UnixTime::from(SystemTime::now()).0).unwrap()
}

/// Servers, and the command that looks at them.
struct World {
    runtime: tokio::runtime::Runtime,
    installation: Installation,
    anchor: SpkiDigest,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let mut installation = Installation::create(now()).unwrap();
        installation.ensure(ProductLine::Milan, now()).unwrap();
        let anchor = installation.anchor(ProductLine::Milan).unwrap().spki;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { runtime, installation, anchor, folder: tempfile::tempdir().unwrap() }
    }

    fn guest(&self) -> Guest {
        Guest::launch(&self.installation, 1)
    }

    fn reference(&self, name: &str, guest: &Guest) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(guest.reference().to_string().as_bytes()).unwrap();
        path
    }

    fn listener(&self) -> (TcpListener, SocketAddr) {
        let listener = self.runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let at = listener.local_addr().unwrap();
        (listener, at)
    }

    /// RA-TLS in front of port 8080.
    fn ra_tls(&self, identity: &Identity, rule: ClientRule, attester: Arc<dyn Attester>) -> SocketAddr {
        let tls = ServerTls::new(identity, rule, Purpose::Ingress(PORT)).unwrap();
        let (listener, at) = self.listener();
        let attestation = AttestationService::attester(attester);
        let (incoming, limits) = (TcpListenerStream::new(listener), ServeLimits::default());
        self.runtime.spawn(serve(incoming, tls, attestation, Routes::default(), limits, std::future::pending()));
        at
    }

    /// TLS that knows nothing of evidence, with this certificate.
    fn plain_tls(&self, identity: &Identity) -> SocketAddr {
        let pem = identity.to_pem();
        let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).unwrap();
        let chain = vec![CertificateDer::from(identity.certificate_der().to_vec())];
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let (acceptor, (listener, at)) = (TlsAcceptor::from(Arc::new(config)), self.listener());
        self.runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = acceptor.accept(stream).await;
            }
        });
        at
    }

    fn verify(&self, at: SocketAddr, words: &[&str]) -> Output {
        let url = format!("https://{at}");
        let anchor = self.anchor.to_string();
        let mut all = vec!["verify", &url, "--allow-simulated", "--anchor", &anchor];
        all.extend(words);
        let coffer =
            Command::new(env!("CARGO_BIN_EXE_coffer")).env("COFFER_HOME", self.folder.path()).args(all).output();
        let output = coffer.unwrap();
        assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b), "{output:?}");
        output
    }

    fn json(&self, at: SocketAddr, words: &[&str]) -> (i32, Value) {
        let output = self.verify(at, &[&["--json"], words].concat());
        let said = serde_json::from_slice(&output.stdout);
        (output.status.code().unwrap(), said.unwrap_or_else(|error| panic!("{error}: {output:?}")))
    }
}

fn codes(said: &Value) -> Vec<&str> {
    said["server"]["not_shown"].as_array().unwrap().iter().map(|one| one["code"].as_str().unwrap()).collect()
}

#[test]
fn a_guest_is_challenged_and_must_be_the_one_that_is_named() {
    let world = World::new();
    let (guest, other) = (world.guest(), Guest::launch(&world.installation, 2));
    let (this, that) = (world.reference("this.json", &guest), world.reference("that.json", &other));
    let (this, that) = (this.to_str().unwrap(), that.to_str().unwrap());
    let at = world.ra_tls(&guest.identity(), ClientRule::AuthorizedPerCall, Arc::new(guest));
    let port = ["--guest-port", "8080", "--fresh"];
    let (exit, said) = world.json(at, &[&port[..], &["--reference", this]].concat());
    assert_eq!((exit, said["verdict"].as_str()), (0, Some("accepted")), "{said}");
    assert_eq!(said["server"]["challenged"], true);
    assert_eq!(said["server"]["not_challenged"], Value::Null);
    assert_eq!(codes(&said), [""; 0]);
    assert_eq!(said["claims"]["report_data_binding"], "demanded");

    let (exit, said) = world.json(at, &port);
    assert_eq!((exit, codes(&said)), (0, vec!["guest"]));
    let (exit, said) = world.json(at, &[&port[..], &["--reference", that]].concat());
    assert_eq!((exit, said["verdict"].as_str()), (6, Some("refused")));
    assert_eq!(said["reasons"][0]["code"], "measurement-and-workload");
    // Only whom the caller lists is believed.
    let url = format!("https://{at}");
    let amd =
        Command::new(env!("CARGO_BIN_EXE_coffer")).args(["verify", &url, "--guest-port", "8080"]).output().unwrap();
    assert_eq!(amd.status.code(), Some(5), "{amd:?}");
}

#[test]
fn a_relay_is_refused_by_name() {
    let world = World::new();
    let identity = Identity::generate("in the middle").unwrap();
    let at = world.ra_tls(&identity, ClientRule::AuthorizedPerCall, Arc::new(Relay(world.guest())));
    let (exit, said) = world.json(at, &["--guest-port", "8080"]);
    assert_eq!(exit, 5, "{said}");
    assert_eq!(said["error"]["class"], "not-authentic");
    assert_eq!(said["error"]["reason"]["code"], "report-data");
}

#[test]
fn evidence_in_a_certificate_counts_for_its_key_and_what_it_does_not_show_is_said() {
    let world = World::new();
    let guest = world.guest();
    let this = world.reference("this.json", &guest);
    let at = world.plain_tls(&guest.identity());
    let (exit, said) = world.json(at, &["--reference", this.to_str().unwrap()]);
    assert_eq!((exit, said["verdict"].as_str()), (0, Some("accepted")), "{said}");
    assert_eq!(said["server"]["challenged"], false);
    assert!(said["server"]["not_challenged"].is_string());
    assert_eq!(codes(&said), ["freshness", "connection"]);
    let text = String::from_utf8(world.verify(at, &[]).stdout).unwrap();
    assert!(text.starts_with(&format!("accepted; SIMULATED: {at}, by its certificate alone\n")), "{text}");
    assert_eq!(text.matches("\n  not shown    ").count(), 3, "{text}");

    let (exit, said) = world.json(at, &["--fresh"]);
    assert_eq!((exit, said["error"]["reason"]["code"].as_str()), (6, Some("not-challenged")), "{said}");

    // Somebody's evidence, shown by whoever saw it, in a certificate for another key.
    let theirs = guest.evidence(&certificate_report_data(&guest.identity().spki(), &guest.workload())).unwrap();
    let copied = Identity::attested(&IdentityKey::generate().unwrap(), "guest", &theirs.to_cmw()).unwrap();
    let (exit, said) = world.json(world.plain_tls(&copied), &[]);
    assert_eq!((exit, said["reasons"][0]["code"].as_str()), (5, Some("report-data")), "{said}");

    let garbled = Identity::attested(&IdentityKey::generate().unwrap(), "guest", b"\x1b[2J").unwrap();
    let (exit, said) = world.json(world.plain_tls(&garbled), &[]);
    assert_eq!((exit, said["error"]["reason"]["code"].as_str()), (5, Some("evidence-malformed")), "{said}");
}

#[test]
fn a_port_that_is_for_another_purpose_or_for_others_shows_its_certificate() {
    let world = World::new();
    let guest = world.guest();
    let identity = guest.identity();
    let guest: Arc<dyn Attester> = Arc::new(guest);
    // The port of the address is not the workload's.
    let at = world.ra_tls(&identity, ClientRule::AuthorizedPerCall, guest.clone());
    let (exit, said) = world.json(at, &[]);
    assert_eq!((exit, said["server"]["challenged"].as_bool()), (0, Some(false)), "{said}");
    // Nobody is listed.
    let at = world.ra_tls(&identity, ClientRule::Spki(Vec::new()), guest);
    let (exit, said) = world.json(at, &["--guest-port", "8080"]);
    assert_eq!((exit, said["server"]["challenged"].as_bool()), (0, Some(false)), "{said}");
    let (exit, said) = world.json(at, &["--guest-port", "8080", "--fresh"]);
    assert_eq!((exit, said["error"]["reason"]["code"].as_str()), (6, Some("not-challenged")), "{said}");
}

#[test]
fn what_shows_no_evidence_is_refused_by_name_and_what_does_not_speak_is_not_reached() {
    let world = World::new();
    let (exit, said) = world.json(world.plain_tls(&Identity::generate("plain").unwrap()), &[]);
    assert_eq!((exit, said["error"]["class"].as_str()), (5, Some("not-authentic")), "{said}");
    assert_eq!(said["error"]["reason"]["code"], "no-evidence");

    let (listener, at) = world.listener();
    world.runtime.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"\x1b[2J\x1b]0;owned\x07 400 speak up\r\n").await;
        }
    });
    let (exit, said) = world.json(at, &[]);
    assert_eq!((exit, said["error"]["class"].as_str()), (7, Some("unreachable")), "{said}");
    assert_eq!(world.verify(at, &[]).status.code(), Some(7));

    let (silent, at) = world.listener();
    let held = world.runtime.spawn(async move {
        let mut all = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            all.push(stream);
        }
    });
    let (exit, said) = world.json(at, &["--timeout", "1"]);
    assert_eq!((exit, said["error"]["class"].as_str()), (7, Some("unreachable")), "{said}");
    assert!(
        said["error"]["message"].as_str().unwrap().contains("within 1 s: it was waited for to end a TLS"),
        "{said}"
    );
    held.abort();

    let (closed, at) = world.listener();
    drop(closed);
    assert_eq!(world.verify(at, &[]).status.code(), Some(7));
}

#[test]
fn whoever_drips_or_takes_no_connection_is_waited_for_no_longer_than_is_said() {
    let world = World::new();
    // The head of a record of TLS that says it has 16 KiB, and then a byte of it now and then: each of them is in time.
    let (listener, at) = world.listener();
    world.runtime.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(b"\x16\x03\x03\x40\x00").await;
                while stream.write_all(b"\x02").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        }
    });
    let (exit, said) = world.json(at, &["--timeout", "2"]);
    assert_eq!((exit, said["error"]["class"].as_str()), (7, Some("unreachable")), "{said}");
    assert!(
        said["error"]["message"].as_str().unwrap().contains("within 2 s: it was waited for to end a TLS"),
        "{said}"
    );
    // A queue that is full: the system answers nobody any more.
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
    let full = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&full, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    listen(&full, 0).unwrap();
    let at = std::net::SocketAddr::try_from(getsockname(&full).unwrap()).unwrap();
    let fill = |_| std::net::TcpStream::connect_timeout(&at, Duration::from_millis(200)).ok();
    let held: Vec<_> = (0..16).map_while(fill).collect();
    assert!(held.len() < 16, "the queue has no end");
    let (exit, said) = world.json(at, &["--timeout", "1"]);
    assert_eq!((exit, said["error"]["class"].as_str()), (7, Some("unreachable")), "{said}");
    assert!(said["error"]["message"].as_str().unwrap().ends_with("to take the connection"), "{said}");
}

#[test]
fn flags_are_about_a_file_or_about_a_server() {
    let world = World::new();
    let (_, at) = world.listener();
    for words in [&["--at", "2026-09-20T00:00:00Z"][..], &["--report-data", &"00".repeat(64)]] {
        assert_eq!(world.verify(at, words).status.code(), Some(2), "{words:?}");
    }
    let exit = |words: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_coffer")).arg("verify").args(words).output().unwrap().status.code()
    };
    for words in [&["x", "--fresh"][..], &["x", "--guest-port", "1"], &["http://x:1"], &["https://x:1/y"]] {
        assert_eq!(exit(words), Some(2), "{words:?}");
    }
}
