//! Plain TLS in front of a workload: a client that knows nothing of evidence has a name and an issuer to go by, and nothing else
//! passes there.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use coffer_tests::{
    World,
    demo::story::{kbs_admin, simulator_anchor},
    image::pulled,
    monitors::{Monitor, on_each},
    process::{run, says, wait_for},
    services::Kbs,
};

use crate::secrets::list;

const WAIT: Duration = Duration::from_mins(1);
/// Answers with what it was sent, and notes that it was reached.
const ECHO: &str = "exec nc -ll -p 8080 -e sh -c 'echo reached >&2; exec cat'";

/// A client with OpenSSL: which roots it believes, whom it asks for, over which protocol, and what it says.
const CLIENT: &str = r#"
import socket, ssl, sys
port, root, name, alpn = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
context = ssl.create_default_context(cafile=root)
if name == "-":
    context.check_hostname = False
if alpn != "-":
    context.set_alpn_protocols(alpn.split(","))
try:
    line = socket.create_connection(("127.0.0.1", port), timeout=30)
    with context.wrap_socket(line, server_hostname=None if name == "-" else name) as tls:
        tls.sendall(b"over and back\n")
        said = tls.recv(100)
        print("said", said, tls.selected_alpn_protocol(), tls.version())
except ssl.SSLError as error:
    print("refused", error.reason)
except OSError as error:
    print("broken", error)
"#;

fn client(port: &str, root: &Path, name: &str, alpn: &str) -> Result<String> {
    let mut python = Command::new("python3");
    python.args(["-c", CLIENT, port]).arg(root).args([name, alpn]);
    run(&mut python, b"")?.ok()
}

#[test]
fn a_browser_reaches_a_port_whose_spec_says_so_by_name_and_issuer_and_nobody_else_does() -> Result<()> {
    on_each(browsers)
}

fn browsers(monitor: Monitor) -> Result<()> {
    let world = World::on(monitor)?;
    let (_registry, image) = pulled(&world)?;
    let anchor = simulator_anchor(&world)?;
    let anchor = anchor.to_str().context("a plain name")?;
    let kbs = Kbs::start(world.folder.path(), &["--allow-simulated", anchor, "--tenant", "default"])?;
    let profile =
        ["certificate", "put", "web", "--dns", "web.example", "--server", "--lifetime", "1h", "--allow-simulated"];
    kbs_admin(&world, &kbs, &profile, b"")?;
    let root = world.folder.path().join("root.pem");
    fs::write(&root, kbs_admin(&world, &kbs, &["certificate", "root"], b"")?)?;
    let memory: &[&str] = if monitor.has_machine() { &["-m", "256m"] } else { &[] };
    let flags = |profile| -> Vec<&str> {
        let to = ["--tee-simulate", "--kbs", &kbs.address, "--kbs-pin", &kbs.pin, "--tls-profile", profile];
        let ports = ["-p", "127.0.0.1::8080/tls", "-p", "127.0.0.1::9090/ra-tls", &image, "sh", "-c", ECHO];
        [memory, &to, &ports].concat()
    };
    list(&world, &kbs, &flags("web"))?;
    world.coffer(&[&["run", "-d", "--name", "web"][..], &flags("web")].concat())?.ok()?;
    let address = world.coffer(&["port", "web", "8080/tls"])?.ok()?.trim().to_owned();
    says(&world.coffer(&["port", "web"])?, 0, &[&format!("8080/tls -> {address}"), "9090/ra-tls -> "])?;
    let port = address.rsplit(':').next().context("a port")?;

    let mut found = String::new();
    wait_for(WAIT, || {
        found = client(port, &root, "web.example", "h2,http/1.1").unwrap_or_default();
        found.starts_with("said")
    })
    .with_context(|| found.clone())?;
    ensure!(found.contains("over and back") && found.contains("http/1.1") && found.contains("TLSv1.3"), "{found}");
    let plain = client(port, &root, "web.example", "-")?;
    ensure!(plain.contains("over and back") && plain.contains("None"), "{plain}");
    let reached = || -> Result<usize> {
        Ok(world.coffer(&["logs", "web", "--allow-simulated"])?.text().matches("reached").count())
    };
    wait_for(WAIT, || reached().is_ok_and(|count| count >= 2))?;
    let before = reached()?;

    // Another name, none, a protocol of RA-TLS's: each ends in the handshake.
    for (name, alpn) in
        [("other.example", "-"), ("-", "-"), ("web.example", "coffer-ingress/1/8080"), ("web.example", "h2")]
    {
        let found = client(port, &root, name, alpn)?;
        ensure!(found.starts_with("refused"), "{name} {alpn}: {found}");
    }
    // Nor is it a way for who wants evidence.
    let reference = world.coffer(&[&["--json", "measure"][..], &flags("web")].concat())?.ok()?;
    let expected = world.folder.path().join("expected.json");
    fs::write(&expected, reference)?;
    let expected = expected.to_str().context("a plain name")?;
    let connect = ["connect", "--reference", expected, "--allow-simulated", "--guest-port", "8080", &address];
    says(&world.coffer_with(&connect, b"secret")?, 7, &["offers no ingress for port 8080"])?;
    ensure!(reached()? == before, "the workload was reached by whom it was not meant for");

    // A profile that the broker does not have: the workload does not start, and whoever asks is told why.
    list_as(&world, &kbs, &flags("nosuch"), "other")?;
    let refused = world.coffer(&[&["run", "--name", "other"][..], &flags("nosuch")].concat())?;
    says(&refused, 125, &["not-released", "coffer kbs audit --id"])?;
    Ok(())
}

fn list_as(world: &World, kbs: &Kbs, flags: &[&str], name: &str) -> Result<()> {
    let reference = world.coffer(&[&["--json", "measure"], flags].concat())?.ok()?;
    kbs_admin(world, kbs, &["reference", "add", "--from", "-", "--name", name], reference.as_bytes()).map(drop)
}

#[test]
fn what_does_not_fit_together_is_refused_before_anything_starts() -> Result<()> {
    let world = World::new()?;
    for (flags, words) in [
        (&["--tee-simulate", "-p", "80/tls"][..], &["--tls-profile"][..]),
        (
            &["--tee-simulate", "-p", "80/ra-tls", "--tls-profile", "web", "--kbs", "k:1", "--kbs-pin", "00"],
            &["there is none"],
        ),
        (&["--tee-simulate", "-p", "80/tls", "--tls-profile", "web"], &["--kbs"]),
    ] {
        let refused = world.coffer(&[&["run"], flags, &["nosuch"]].concat())?;
        ensure!(refused.status == 125 || refused.status == 2, "{}", refused.describe());
        ensure!(words.iter().all(|word| refused.text().contains(word)), "{}", refused.describe());
    }
    Ok(())
}
