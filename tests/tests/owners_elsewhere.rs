//! Owners on other machines: an installation that has no box, reaches one by its address, and believes nothing of that.

use std::{
    fs,
    io::Write as _,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use coffer_guest_proto::{StateRequest, control_client::ControlClient};
use coffer_ratls::{
    Appraiser, AttestationService, AttestedConnection, Attester, AttesterError, ClientRule, Identity, Purpose, Refusal,
    ServeLimits, ServerTls, connect_and_verify, serve,
};
use coffer_runtime::owner_access;
use coffer_tests::{
    World,
    image::without_a_machine,
    process::{Finished, binary, run, says},
    services::Registry,
};
use coffer_verifier::{
    Evidence,
    abi::{ReportData, WorkloadDigest},
};
use serde_json::Value;
use tonic::{Code, service::Routes};

/// Of the box's host.
struct Host {
    world: World,
    _registry: Registry,
    image: String,
}

/// Somebody elsewhere.
struct Owner<'a> {
    host: &'a Host,
    home: PathBuf,
}

impl Host {
    fn new() -> Result<Option<Self>> {
        let Some((world, registry, image)) = without_a_machine()? else { return Ok(None) };
        Ok(Some(Self { world, _registry: registry, image }))
    }

    fn file(&self, name: &str) -> String {
        self.world.folder.path().join(name).display().to_string()
    }

    /// Runs a box with these flags, and gives the address of its owners, and the file with what it measures to.
    fn run(&self, name: &str, flags: &[&str]) -> Result<(String, String)> {
        let words = [&["--tee-simulate", "-p", "127.0.0.1:0:owners"], flags, &[&self.image], SERVICE].concat();
        let reference = self.file(&format!("{name}.json"));
        fs::write(&reference, self.world.coffer(&[&["--json", "measure"], words.as_slice()].concat())?.ok()?)?;
        self.world.coffer(&[&["run", "-d", "--name", name], words.as_slice()].concat())?.ok()?;
        let port = self.world.coffer(&["port", name, "owners"])?.ok()?;
        Ok((format!("coffer://{}", port.trim()), reference))
    }

    fn anchor(&self) -> String {
        self.world.home().join("sim/ark-milan.der").display().to_string()
    }
}

/// Its program says what it reads.
const SERVICE: &[&str] =
    &["sh", "-c", "echo begun; while read line; do [ $line = end ] && exit 3; echo said $line; done; sleep 600"];

impl<'a> Owner<'a> {
    fn new(host: &'a Host, name: &str) -> Result<Self> {
        let this = Self { host, home: host.world.folder.path().join(name) };
        this.coffer(&["owner", "init"], b"")?.ok()?;
        fs::write(this.pem(), this.coffer(&["owner", "show", "--pem"], b"")?.ok()?)?;
        Ok(this)
    }

    fn pem(&self) -> String {
        self.home.with_extension("pem").display().to_string()
    }

    fn coffer(&self, words: &[&str], input: &[u8]) -> Result<Finished> {
        let mut command = Command::new(binary("coffer")?);
        // No platform, no images: it has an address and a file.
        command.env("COFFER_HOME", &self.home).env_remove("COFFER_PLATFORM").args(words);
        run(&mut command, input)
    }

    /// A command, and what is believed.
    fn ask(&self, command: &[&str], reference: &str, rest: &[&str], input: &[u8]) -> Result<Finished> {
        let anchor = self.host.anchor();
        let trust = ["--allow-simulated", "--anchor", &anchor, "--reference", reference];
        self.coffer(&[command, &trust, rest].concat(), input)
    }
}

#[test]
fn an_owner_elsewhere_does_all_that_an_owner_may_and_no_more() -> Result<()> {
    let Some(host) = Host::new()? else { return Ok(()) };
    let (alice, bob) = (Owner::new(&host, "alice")?, Owner::new(&host, "bob")?);
    let flags = ["-i", "--inject", "token", "--owner", &alice.pem(), "--owner", &format!("{}=logs", bob.pem())];
    let (at, reference) = host.run("box", &flags)?;
    let ask = |command: &[&str], rest: &[&str], input: &[u8]| alice.ask(command, &reference, rest, input);

    says(&ask(&["exec"], &[&at, "echo", "inside"], b"")?, 0, &["inside"])?;
    says(&ask(&["exec", "-i"], &[&at, "sh", "-c", "cat; exit 7"], b"typed")?, 7, &["typed"])?;
    says(&ask(&["logs"], &[&at], b"")?, 0, &["begun"])?;
    says(&ask(&["top"], &[&at], b"")?, 0, &["while read line"])?;
    let figures: Value = serde_json::from_str(&ask(&["--json", "stats", "--no-stream"], &[&at], b"")?.ok()?)?;
    ensure!(figures["boxes"][0]["name"] == at.as_str() && figures["boxes"][0]["id"].is_null(), "{figures}");
    ensure!(figures["boxes"][0]["pids"].as_u64() > Some(0), "{figures}");

    let note = host.file("note");
    fs::write(&note, "a note")?;
    ask(&["cp"], &[&note, &format!("{at}/note")], b"")?.ok()?;
    let back = host.file("back");
    ask(&["cp"], &[&format!("{at}/note"), &back], b"")?.ok()?;
    ensure!(fs::read(&back)? == b"a note");
    says(&ask(&["diff"], &[&at], b"")?, 0, &["A /note"])?;

    says(&ask(&["inject-secret", "--secret", "token=-"], &[&at], b"hunter2")?, 0, &["injected token"])?;
    says(&ask(&["exec"], &[&at, "cat", "/run/secrets/token"], b"")?, 0, &["hunter2"])?;
    says(&ask(&["inject-secret", "--secret", "other=-"], &[&at], b"x")?, 6, &["lists no \"other\""])?;
    let (sealed, opened) = (host.file("sealed"), host.file("opened"));
    ask(&["seal", "--context", "a", "-o", &sealed], &[&at], b"state")?.ok()?;
    ask(&["unseal", "--context", "a", "-o", &opened], &[&at, &sealed], b"")?.ok()?;
    ensure!(fs::read(&opened)? == b"state");
    says(&ask(&["attest", "--nonce", "0102030405060708"], &[&at], b"")?, 0, &["runs what it should", "a simulator's"])?;

    // Another owner has his own rights, and who is none has none; the guest says so.
    says(&bob.ask(&["logs"], &reference, &[&at], b"")?, 0, &["begun"])?;
    says(&bob.ask(&["exec"], &reference, &[&at, "id"], b"")?, 125, &["owner-may-not:exec"])?;
    let stranger = Owner::new(&host, "stranger")?;
    says(&stranger.ask(&["attest"], &reference, &[&at], b"")?, 0, &["runs what it should"])?;
    says(&stranger.ask(&["logs"], &reference, &[&at], b"")?, 6, &["owner-not-listed", "coffer owner show"])?;
    says(&stranger.ask(&["stop"], &reference, &[&at], b"")?, 6, &["owner-not-listed"])?;
    // The host's own key is not listed either.
    says(&host.world.coffer(&["exec", "--allow-simulated", "box", "id"])?, 125, &["no owner's key here"])?;
    says(&host.world.coffer(&["ps"])?, 0, &["->owners"])?;

    says(&ask(&["kill", "-s", "WINCH"], &[&at], b"")?, 0, &[&at])?;
    says(&ask(&["attach"], &[&at], b"hello\nend\n")?, 3, &["said hello"])?;
    says(&host.world.coffer(&["wait", "box"])?, 0, &["3"])?;
    says(&ask(&["exec"], &[&at, "id"], b"")?, 125, &["nobody answers there", "-p PORT:owners"])?;
    Ok(())
}

#[test]
fn nothing_is_believed_of_an_address() -> Result<()> {
    let Some(host) = Host::new()? else { return Ok(()) };
    let alice = Owner::new(&host, "alice")?;
    let (at, reference) = host.run("box", &["--owner", &alice.pem()])?;
    let (other, other_reference) = host.run("other", &["--owner", &alice.pem(), "-e", "A=B"])?;

    // Each act is refused for what is missing, and works beside it (above).
    for (words, code) in [(&["exec"][..], 125), (&["logs"], 5), (&["stop"], 5), (&["kill"], 5), (&["top"], 5)] {
        let rest: &[&str] = if words[0] == "exec" { &[&at, "id"] } else { &[&at] };
        let nobody = if words[0] == "exec" { 125 } else { 2 };
        let no_reference = alice.coffer(&[words, rest].concat(), b"")?;
        says(&no_reference, nobody, &["nobody says which guest", "--reference"])?;
        let not_allowed = alice.coffer(&[words, &["--reference", &reference], rest].concat(), b"")?;
        says(&not_allowed, code, &["not admitted", "--allow-simulated", "--anchor"])?;
    }
    // Another installation's simulator is not this one's.
    alice.coffer(&["sim", "init", "--product", "milan"], b"")?.ok()?;
    let own = ["logs", "--allow-simulated", "--reference", &reference, &at];
    says(&alice.coffer(&own, b"")?, 5, &["not admitted", "--anchor"])?;
    // A genuine guest in another's place, and one that is only led to.
    says(
        &alice.ask(&["inject-secret", "--secret", "a=-"], &reference, &[&other], b"value")?,
        6,
        &["not admitted", "genuine"],
    )?;
    says(&alice.ask(&["exec"], &reference, &["coffer://127.0.0.1:1", "id"], b"")?, 125, &["nobody answers"])?;
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let garbage = thread::spawn(move || -> Result<()> {
        let (mut stream, _) = silent.accept()?;
        Ok(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?)
    });
    let address = "coffer://nosuch.invalid:1";
    says(&alice.ask(&["logs"], &reference, &[address], b"")?, 7, &["nosuch.invalid"])?;
    drop(garbage);
    // Two guests at two addresses: nothing would say which is where.
    let both = ["--reference", &other_reference, &at, &other];
    for words in [&["stop"][..], &["kill"], &["stats", "--no-stream"]] {
        says(&alice.ask(words, &reference, &both, b"")?, 2, &["which of the guests"])?;
    }
    let [from, to] = [format!("{at}/etc/hosts"), format!("{other}/x")];
    says(
        &alice.ask(&["cp"], &reference, &["--reference", &other_reference, &from, &to], b"")?,
        2,
        &["which of the two"],
    )?;
    // What is a host's is not done to an address; nor is anything proved of what the host stops.
    for words in [&["rm", "-f"][..], &["start"], &["inspect"], &["wait"], &["pause"], &["port"]] {
        let refused = alice.coffer(&[words, &[at.as_str()]].concat(), b"")?;
        ensure!(refused.status != 0 && refused.stderr.contains("guest elsewhere"), "{words:?}: {}", refused.stderr);
    }
    says(&host.world.coffer(&["stop", "--allow-simulated", "box"])?, 2, &["its host does that"])?;
    says(&alice.coffer(&["logs", "coffer://host"], b"")?, 2, &["coffer://HOST:PORT"])?;
    says(&alice.ask(&["stop", "-t", "1"], &reference, &[&at], b"")?, 0, &[&at])?;
    host.world.coffer(&["wait", "box"])?.ok()?;
    let plain = host.world.coffer(&["run", "-d", "-p", "127.0.0.1:0:owners", &host.image, "true"])?;
    says(&plain, 125, &["proves itself", "--tee-simulate"])?;
    Ok(())
}

#[test]
fn strangers_at_the_port_of_owners_keep_no_owner_out() -> Result<()> {
    let Some(host) = Host::new()? else { return Ok(()) };
    let alice = Owner::new(&host, "alice")?;
    host.world.coffer(&["owner", "init"])?;
    let here = host.file("here.pem");
    fs::write(&here, host.world.coffer(&["owner", "show", "--pem"])?.ok()?)?;
    let (at, reference) = host.run("box", &["--owner", &alice.pem(), "--owner", &here])?;
    let address = at.strip_prefix("coffer://").context("an address")?.to_owned();

    // More than there are places, each anew when it is hung up on.
    let strangers: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(&address)).collect::<Result<_, _>>()?;
    let local = host.world.coffer(&["exec", "--allow-simulated", "box", "echo", "here"])?;
    says(&local, 0, &["here"])?;
    says(&alice.ask(&["exec"], &reference, &[&at, "echo", "elsewhere"], b"")?, 0, &["elsewhere"])?;
    drop(strangers);

    // Whoever is given evidence and is no owner has its place for no longer than that takes; an owner has his.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let answered = runtime.block_on(async {
        let mut answered = Vec::new();
        for _ in 0..4 {
            let stream = tokio::net::TcpStream::connect(&address).await?;
            let identity = Identity::generate("stranger")?;
            answered
                .push(connect_and_verify(stream, &identity, Purpose::Control, Arc::new(Credulous::default())).await?);
        }
        anyhow::Ok(answered)
    })?;
    let state = |connection: &AttestedConnection<()>| {
        let mut control = ControlClient::new(connection.channel());
        runtime.block_on(async move { tokio::time::timeout(WAIT, control.state(StateRequest {})).await })
    };
    let code = |connection| anyhow::Ok(state(connection)?.err().map(|status| status.code()));
    ensure!(code(&answered[0])? == Some(Code::PermissionDenied), "it is heard, and no owner");
    let script = format!("sleep {}; echo still", STRANGERS_TIME.as_secs() + 2);
    says(&alice.ask(&["exec"], &reference, &[&at, "sh", "-c", &script], b"")?, 0, &["still"])?;
    for connection in &answered {
        let code = code(connection)?;
        ensure!(code.is_some_and(|code| code != Code::PermissionDenied), "{code:?}: it is there still");
    }
    Ok(())
}

#[test]
fn an_owner_with_few_rights_keeps_no_other_owner_out() -> Result<()> {
    let Some(host) = Host::new()? else { return Ok(()) };
    let (alice, bob) = (Owner::new(&host, "alice")?, Owner::new(&host, "bob")?);
    host.world.coffer(&["owner", "init"])?;
    let here = host.file("here.pem");
    fs::write(&here, host.world.coffer(&["owner", "show", "--pem"])?.ok()?)?;
    let bobs = format!("{}=logs", bob.pem());
    let (at, reference) = host.run("box", &["--owner", &alice.pem(), "--owner", &bobs, "--owner", &here])?;
    let address = at.strip_prefix("coffer://").context("an address")?.to_owned();

    // He asks for nothing, and is only there, as often as he is let in.
    let identity = owner_access::load(&bob.home.join("owner"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let held = runtime.block_on(async {
        let mut held = Vec::new();
        for _ in 0..24 {
            let stream = tokio::net::TcpStream::connect(&address).await?;
            let coming = connect_and_verify(stream, &identity, Purpose::Control, Arc::new(Credulous::default()));
            held.extend(tokio::time::timeout(WAIT, coming).await?.ok());
        }
        anyhow::Ok(held)
    })?;
    ensure!((4..=14).contains(&held.len()), "{} connections of one owner", held.len());
    says(&host.world.coffer(&["exec", "--allow-simulated", "box", "echo", "here"])?, 0, &["here"])?;
    says(&alice.ask(&["exec"], &reference, &[&at, "echo", "elsewhere"], b"")?, 0, &["elsewhere"])?;
    says(&bob.ask(&["cp"], &reference, &[&format!("{at}/etc/hosts"), "-"], b"")?, 6, &["owner-may-not:cp"])
        .or_else(|_| says(&bob.ask(&["logs"], &reference, &[&at], b"")?, 7, &["hung up"]))?;
    drop(held);
    Ok(())
}

#[test]
fn evidence_that_somebody_between_hands_on_is_refused_by_name() -> Result<()> {
    let Some(host) = Host::new()? else { return Ok(()) };
    let alice = Owner::new(&host, "alice")?;
    let (at, reference) = host.run("box", &["--owner", &alice.pem()])?;
    let address = at.strip_prefix("coffer://").context("an address")?.to_owned();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let between = runtime.block_on(async {
        let (seen, identity) = (Arc::new(Credulous::default()), Identity::generate("between")?);
        let stream = tokio::net::TcpStream::connect(&address).await?;
        connect_and_verify(stream, &identity, Purpose::Control, seen.clone()).await?;
        let genuine = seen.0.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.clone().context("evidence")?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let here = listener.local_addr()?;
        let tls = ServerTls::new(&identity, ClientRule::AuthorizedPerCall, Purpose::Control)?;
        let service = AttestationService::attester(Arc::new(Between(genuine)));
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let never = std::future::pending();
        tokio::spawn(serve(incoming, tls, service, Routes::default(), ServeLimits::default(), never));
        anyhow::Ok(format!("coffer://{here}"))
    })?;
    for (words, code) in
        [(&["attest"][..], 5), (&["logs"], 5), (&["inject-secret", "--secret", "a=-"], 5), (&["stop"], 5)]
    {
        let refused = alice.ask(&[&["--json"], words].concat(), &reference, &[&between], b"value")?;
        says(&refused, code, &["report-data", "somebody stands between"]).context(format!("{words:?}"))?;
    }
    says(&alice.ask(&["attest"], &reference, &[&at], b"")?, 0, &["runs what it should"])?;
    Ok(())
}

/// Shows what another guest showed to it.
struct Between(Evidence);

impl Attester for Between {
    fn evidence(&self, _: &ReportData) -> Result<Evidence, AttesterError> {
        Ok(self.0.clone())
    }

    fn workload(&self) -> WorkloadDigest {
        WorkloadDigest::of(&self.0.workload_spec)
    }
}

/// As documented.
const STRANGERS_TIME: Duration = Duration::from_secs(20);
const WAIT: Duration = Duration::from_mins(1);

/// A stranger who believes everything.
#[derive(Default)]
struct Credulous(Mutex<Option<Evidence>>);

impl Appraiser for Credulous {
    type Admitted = ();

    fn appraise(&self, evidence: &Evidence, _: &ReportData) -> Result<(), Refusal> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(evidence.clone());
        Ok(())
    }
}
