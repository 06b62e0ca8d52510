//! Sealing with a counter: nothing is lost because its place cannot be written.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use coffer_tests::{
    World,
    demo::story::{kbs_admin, simulator_anchor},
    image::without_a_machine,
    process::{Finished, run},
    services::{Kbs, Registry},
};

/// A box whose key broker has terms for the context of [`Sealing::coffer`].
struct Sealing {
    world: World,
    _kbs: Kbs,
    _registry: Registry,
}

impl Sealing {
    /// Nothing where this host has no box without a machine.
    fn new() -> Result<Option<Self>> {
        let Some((world, registry, image)) = without_a_machine()? else { return Ok(None) };
        let anchor = simulator_anchor(&world)?;
        let anchor = anchor.to_str().context("a plain name")?;
        let kbs = Kbs::start(world.folder.path(), &["--allow-simulated", anchor, "--tenant", "default"])?;
        let flags = ["--tee-simulate", "--kbs", &kbs.address, "--kbs-pin", &kbs.pin, &image, "sleep", "4211"];
        crate::secrets::list(&world, &kbs, &flags)?;
        for context in ["app/backup", "app/other"] {
            let terms = ["sealing", "put", context, "--policies", "workload", "--allow-simulated"];
            kbs_admin(&world, &kbs, &terms, b"")?;
        }
        world.coffer(&[&["run", "-d", "--name", "box"], &flags[..]].concat())?.ok()?;
        fs::write(world.folder.path().join("plain"), "state")?;
        Ok(Some(Self { world, _kbs: kbs, _registry: registry }))
    }

    fn command(&self, words: &[&str]) -> Command {
        let common = ["box", "--context", "app/backup", "--allow-simulated"];
        let mut command = self.world.command(&[words, &common].concat());
        command.current_dir(self.world.folder.path());
        command
    }

    /// The second words stand behind the box.
    fn coffer(&self, words: &[&str], tail: &[&str]) -> Result<Finished> {
        run(self.command(words).args(tail), b"")
    }

    fn opens(&self, sealed: &str) -> Result<bool> {
        let opened = self.command(&["unseal"]).arg(sealed).output()?;
        Ok(opened.status.success() && opened.stdout == b"state")
    }
}

/// The file that a failure says it kept.
fn kept(failed: &Finished) -> Result<String> {
    ensure!(failed.status == 3, "{}", failed.describe());
    let (_, path) = failed.stderr.split_once("which is kept as ").with_context(|| failed.describe())?;
    Ok(path.lines().next().context("a path")?.to_owned())
}

#[test]
fn a_counted_file_is_never_lost_because_its_place_cannot_be_written() -> Result<()> {
    let Some(sealing) = Sealing::new()? else { return Ok(()) };
    sealing.coffer(&["seal", "--to", "workload", "--counted", "-o", "one"], &["plain"])?.ok()?;

    // Before anything is asked: the counter stays.
    let (reader, gone) = std::io::pipe()?;
    drop(reader);
    let unread = sealing.command(&["reseal"]).arg("one").stdout(gone).output()?;
    ensure!(unread.status.code() == Some(3), "{}", String::from_utf8_lossy(&unread.stderr));
    for (words, input) in [
        (&["seal", "--to", "workload", "--replaces", "one", "-o", "none/two"][..], "plain"),
        (&["reseal", "-o", "none/two"][..], "one"),
    ] {
        let refused = sealing.coffer(words, &[input])?;
        ensure!(refused.status == 3 && refused.stderr.contains("cannot write none/two: "), "{}", refused.describe());
        ensure!(!refused.stderr.contains(" at path "), "no name that nobody gave: {}", refused.describe());
    }
    ensure!(sealing.opens("one")?, "nothing has moved");

    // After it: what opens now is kept, and named.
    let two = kept(&sealing.coffer(&["reseal", "-o", "/dev/full"], &["one"])?)?;
    ensure!(Path::new(&two).parent() == Some(&fs::canonicalize(sealing.world.folder.path())?), "{two}");
    ensure!(!sealing.opens("one")? && sealing.opens(&two)?);
    let full = fs::File::options().write(true).open("/dev/full")?;
    let mut seal = sealing.command(&["seal", "--to", "workload", "--replaces", &two]);
    let output = seal.arg("plain").stdout(full).output()?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let three = kept(&Finished {
        status: output.status.code().unwrap_or(-1),
        stdout: String::new(),
        stderr: words,
        command: "seal".into(),
    })?;
    ensure!(!sealing.opens(&two)? && sealing.opens(&three)?);
    Ok(())
}

#[test]
fn what_does_not_open_is_no_file_of_ours_and_programs_are_told_why() -> Result<()> {
    let Some(sealing) = Sealing::new()? else { return Ok(()) };
    let at = |name: &str| sealing.world.folder.path().join(name);
    sealing.coffer(&["seal", "--to", "workload", "--counted", "-o", "one"], &["plain"])?.ok()?;
    sealing.coffer(&["reseal", "-o", "two"], &["one"])?.ok()?;
    let sealed = fs::read(at("two"))?;
    let last = sealed.len() - 1;
    fs::write(at("changed"), sealed.iter().enumerate().map(|(i, b)| b ^ u8::from(i == last)).collect::<Vec<_>>())?;
    fs::write(at("cut"), &sealed[..last])?;
    fs::write(at("longer"), [&sealed[..], b"x"].concat())?;
    fs::write(at("stub"), &sealed[..20])?;
    fs::write(at("empty"), "")?;
    for (file, reason) in [
        ("changed", "does-not-open"),
        ("cut", "does-not-open"),
        ("longer", "does-not-open"),
        ("stub", "not-sealed"),
        ("empty", "not-sealed"),
        ("one", "older"),
    ] {
        for command in ["unseal", "reseal"] {
            let words = ["--json", command, "-o", "out"];
            let refused = sealing.coffer(&words, &[file])?;
            ensure!(refused.status == 5 && !at("out").exists(), "{file}: {}", refused.describe());
            let said: serde_json::Value = serde_json::from_str(&refused.stdout)?;
            ensure!(said["error"]["class"] == "not-authentic", "{said}");
            ensure!(said["error"]["reason"]["code"] == reason, "{file}: {said}");
        }
    }
    // What is not for this guest and context is not called an older one, whatever its counter is at here.
    let mut other = sealing.world.command(&["--json", "unseal", "box", "--context", "app/other", "--allow-simulated"]);
    let refused = run(other.current_dir(sealing.world.folder.path()).arg("two"), b"")?;
    ensure!(refused.status == 5 && refused.stdout.contains("does-not-open"), "{}", refused.describe());
    // Under the same policy it is the same counter, which moved on.
    // docs/sealed-format.md: 16 bytes of a counter's id, and 8 of its generation.
    let (one, two) = (fs::read(at("one"))?, fs::read(at("two"))?);
    ensure!(one[92..108] == two[92..108] && one[115] == 1 && two[115] == 2, "{:?} {:?}", &one[92..116], &two[92..116]);
    for (words, tail) in [
        (&["seal", "--to", "workload"][..], &["nosuch"][..]),
        (&["seal", "--to", "workload"], &["--replaces", "nosuch", "plain"]),
        (&["reseal"], &["nosuch"]),
        (&["unseal"], &["nosuch"]),
    ] {
        let absent = sealing.coffer(words, tail)?;
        ensure!(absent.status == 3 && absent.stderr.contains("cannot read nosuch"), "{}", absent.describe());
    }
    Ok(())
}
