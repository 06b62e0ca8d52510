//! Attested ingress: clients reach a port of the workload when the guest has proved itself, and nobody else does, nor anything else.

use std::{
    fs,
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use coffer_tests::{
    World,
    image::pulled,
    monitors::{Monitor, on_each},
    process::{says, wait_for},
    services::free_port,
};
use serde_json::Value;

const PAGE: &str = "what only an attested guest serves";
/// Answers each request with the page, and notes in the output that there was one.
const SERVER: &str = "mkdir /www && printf '%s' \"$PAGE\" >/www/index.html && httpd -p 127.0.0.1:8080 -h /www && \
    exec nc -ll -p 9090 -e sh -c 'echo asked >&2; exec cat'";
const WAIT: Duration = Duration::from_mins(1);

/// A listener of `coffer connect`, ended with this value.
struct Connected {
    child: Child,
    at: SocketAddr,
    said: Value,
}

impl Connected {
    fn start(world: &World, words: &[&str]) -> Result<Self> {
        let words = [&["--json", "connect", "--listen", "127.0.0.1:0"], words].concat();
        let mut child = world.command(&words).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
        let said: Value = serde_json::from_str(&line).with_context(|| format!("no line of a listener: {line:?}"))?;
        let at = said["listening"].as_str().with_context(|| said.to_string())?.parse()?;
        Ok(Self { child, at, said })
    }

    fn get(&self) -> Result<String> {
        get(self.at)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request over HTTP/1.0, and all that came back.
fn get(at: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The reference of a run with these words, in a file.
fn reference(world: &World, name: &str, words: &[&str]) -> Result<PathBuf> {
    let file = world.folder.path().join(name);
    fs::write(&file, world.coffer(&[&["--json", "measure"], words].concat())?.ok()?)?;
    Ok(file)
}

fn plain(path: &Path) -> Result<&str> {
    path.to_str().context("a plain name")
}

#[test]
fn a_client_reaches_the_workload_of_the_guest_it_expects_and_of_no_other() -> Result<()> {
    on_each(|monitor| {
        let world = World::on(monitor)?;
        let (_registry, image) = pulled(&world)?;
        let port = free_port()?;
        let publish = format!("127.0.0.1:{port}:8080/ra-tls");
        let page = format!("PAGE={PAGE}");
        let memory: &[&str] = if monitor.has_machine() { &["-m", "256m"] } else { &[] };
        let workload = ["-p", &publish, "-p", "127.0.0.1::9090/ra-tls", "-e", &page, &image, "sh", "-c", SERVER];
        let flags = [memory, &["--tee-simulate"], &workload].concat();
        let expected = reference(&world, "expected.json", &flags)?;
        let other = reference(&world, "other.json", &["--tee-simulate", "-p", &publish, &image, "true"])?;
        let (expected, other) = (plain(&expected)?, plain(&other)?);
        world.coffer(&[&["run", "-d", "--name", "web"][..], &flags].concat())?.ok()?;

        // What leads where, in each place that says so.
        says(&world.coffer(&["port", "web", "8080"])?, 0, &[&format!("127.0.0.1:{port}\n")])?;
        says(&world.coffer(&["port", "web"])?, 0, &[&format!("8080/ra-tls -> 127.0.0.1:{port}\n"), "9090/ra-tls -> "])?;
        says(&world.coffer(&["ps"])?, 0, &["PORTS", &format!("127.0.0.1:{port}->8080/ra-tls")])?;
        says(&world.coffer(&["port", "web", "81"])?, 1, &["No public port '81/tcp' published for web"])?;
        let echo = world.coffer(&["port", "web", "9090"])?.ok()?.trim().to_owned();

        // The guest that is expected: by a local port, and between two pipes.
        let address = format!("127.0.0.1:{port}");
        let to = ["--allow-simulated", "--guest-port", "8080", &address];
        let connected = Connected::start(&world, &[&["--reference", expected], to.as_slice()].concat())?;
        ensure!(connected.said["simulated"] == true, "{}", connected.said);
        let mut found = String::new();
        wait_for(WAIT, || {
            found = connected.get().unwrap_or_default();
            found.contains(PAGE)
        })
        .with_context(|| found.clone())?;
        let request = b"GET /index.html HTTP/1.0\r\n\r\n";
        let piped = [&["connect", "--attest", "--reference", expected], to.as_slice()].concat();
        says(&world.coffer_with(&piped, request)?, 0, &[PAGE])?;

        // Another guest, no simulator, another port, nobody there: each by its class, before a byte of the client's was sent.
        let echo_of = |reference| ["connect", "--reference", reference, "--guest-port", "9090"];
        let sent = b"GET / HTTP/1.0\r\n\r\n";
        let allowed = [echo_of(other).as_slice(), &["--allow-simulated", &echo]].concat();
        says(&world.coffer_with(&allowed, sent)?, 6, &["is not admitted"])?;
        let believed = [echo_of(expected).as_slice(), &[&echo]].concat();
        says(&world.coffer_with(&believed, sent)?, 5, &["is not admitted"])?;
        let crossed = ["connect", "--reference", expected, "--allow-simulated", "--guest-port", "9091", &echo];
        says(&world.coffer_with(&crossed, sent)?, 7, &["offers no ingress for port 9091", "--guest-port"])?;
        let nobody = format!("127.0.0.1:{}", free_port()?);
        let nobody = ["connect", "--reference", expected, "--allow-simulated", &nobody];
        says(&world.coffer_with(&nobody, sent)?, 7, &["does not answer"])?;
        says(&world.coffer(&["connect", "--allow-simulated", &address])?, 2, &["no guest is named", "--reference"])?;
        let logs = world.coffer(&["logs", "web", "--allow-simulated"])?.text();
        ensure!(!logs.contains("asked"), "the workload was reached by whom it was not meant for:\n{logs}");
        let genuine = [echo_of(expected).as_slice(), &["--allow-simulated", &echo]].concat();
        says(&world.coffer_with(&genuine, b"over and back")?, 0, &["over and back"])?;
        let mut enough = world.command(&genuine);
        let mut enough = enough.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut input = enough.stdin.take().context("it was piped")?;
        input.write_all(b"x")?;
        enough.stdout.take().context("it was piped")?.read_exact(&mut [0])?;
        let ended = enough.wait_with_output()?;
        ensure!(ended.status.code() == Some(141) && ended.stderr.is_empty(), "{ended:?}");
        drop(input);
        wait_for(WAIT, || {
            world.coffer(&["logs", "web", "--allow-simulated"]).is_ok_and(|it| it.text().contains("asked"))
        })?;

        without_tls(&address)?;
        // A host may stop a workload; what that closes is no end either.
        for end in [&["stop", "-t", "1", "web"][..], &["kill", "web"]] {
            // The host's port is another one after each start, and the program listens a moment later.
            let echo = world.coffer(&["port", "web", "9090"])?.ok()?.trim().to_owned();
            let genuine = [echo_of(expected).as_slice(), &["--allow-simulated", &echo]].concat();
            wait_for(WAIT, || world.coffer_with(&genuine, b"there").is_ok_and(|it| it.stdout == "there"))?;
            // Whose standard input stays open, as under ssh, until the guest is cut off.
            let mut held = world.command(&genuine);
            let held = held.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
            a_listener_outlives_its_guest(&world, &connected, held, end).with_context(|| end.join(" "))?;
        }
        Ok(())
    })
}

/// The host's port speaks TLS and nothing else.
fn without_tls(address: &str) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => bail!(error),
    }
    ensure!(!String::from_utf8_lossy(&answer).contains(PAGE), "served without RA-TLS");
    Ok(())
}

/// A guest that ends takes its clients along; the same one, started again, proves itself to the next client.
fn a_listener_outlives_its_guest(world: &World, connected: &Connected, mut held: Child, end: &[&str]) -> Result<()> {
    let (mut input, mut output) =
        (held.stdin.take().context("it was piped")?, held.stdout.take().context("it was piped")?);
    input.write_all(b"x")?;
    output.read_exact(&mut [0])?;
    world.coffer(end)?.ok()?;
    wait_for(WAIT, || held.try_wait().is_ok_and(|ended| ended.is_some()))
        .context("a client of a guest that is gone")?;
    let ended = held.wait_with_output()?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.code() == Some(7) && said.contains("coffer: "), "{:?} {said}", ended.status);
    drop(input);
    world.coffer(&["wait", "web"])?;
    let gone = connected.get();
    ensure!(gone.as_ref().is_ok_and(String::is_empty) || gone.is_err(), "answered by a box that is gone: {gone:?}");
    world.coffer(&["start", "web"])?.ok()?;
    wait_for(WAIT, || connected.get().is_ok_and(|answer| answer.contains(PAGE)))
}

#[test]
fn a_port_for_listed_clients_takes_their_keys_alone_and_no_port_opens_that_the_spec_does_not_name() -> Result<()> {
    let monitor = Monitor::of("process").context("a row")?;
    let world = World::on(monitor)?;
    if let Some(why) = monitor.lacks(&world)? {
        println!("skipped: {why}");
        return Ok(());
    }
    let (_registry, image) = pulled(&world)?;
    let page = format!("PAGE={PAGE}");
    let flags = ["--tee-simulate", "-p", "8080/ra-tls", "-e", &page, &image, "sh", "-c", SERVER];
    let text = world.coffer(&[&["spec"], flags.as_slice()].concat())?.ok()?;
    let owner = world.coffer(&["--json", "owner", "show"])?.ok()?;
    let owner: Value = serde_json::from_str(&owner)?;
    let key = owner["spki"].as_str().with_context(|| owner.to_string())?;
    let listed = text.replace("clients = \"anyone\"", &format!("clients = {{ keys = [\"{key}\"] }}"));
    ensure!(listed != text, "the spec says who may connect:\n{text}");
    let spec = world.folder.path().join("spec.toml");
    fs::write(&spec, listed)?;
    let spec = plain(&spec)?;

    let closed = ["create", "--tee-simulate", "--spec", spec, "-p", "81/ra-tls"];
    says(&world.coffer(&closed)?, 125, &["the spec's ingress has no port 81"])?;
    let plainly = ["create", "-p", "8080/ra-tls", &image];
    says(
        &world.coffer(&plainly)?,
        125,
        &["--publish …/ra-tls, …/tls and …:owners lead to a guest that proves itself"],
    )?;

    world
        .coffer(&["run", "-d", "--name", "web", "--tee-simulate", "--spec", spec, "-p", "127.0.0.1::8080/ra-tls"])?
        .ok()?;
    let address = world.coffer(&["port", "web", "8080/ra-tls"])?.ok()?.trim().to_owned();
    let expected = reference(&world, "expected.json", &["--tee-simulate", "--spec", spec])?;
    let to = ["--reference", plain(&expected)?, "--allow-simulated", "--guest-port", "8080", &address];
    says(&world.coffer(&[&["connect"], to.as_slice()].concat())?, 6, &["takes listed clients alone", "--as-owner"])?;
    let connected = Connected::start(&world, &[&["--as-owner"], to.as_slice()].concat())?;
    wait_for(WAIT, || connected.get().is_ok_and(|answer| answer.contains(PAGE)))?;

    // A port of the host's that is taken is named, and the box did not start.
    let taken = ["run", "-d", "--tee-simulate", "--spec", spec, "-p", &format!("{address}:8080/ra-tls")];
    says(&world.coffer(&taken)?, 125, &["cannot listen on", &address])
}
