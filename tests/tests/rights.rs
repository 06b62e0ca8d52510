//! Each right of an owner, end to end: what it opens, and that it opens nothing else. One box, and a key for each word of `--owner`.

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use coffer_tests::{World, image::without_a_machine};

/// Every word that an owner may have.
const RIGHTS: [&str; 7] = ["exec", "attach", "cp", "top", "logs", "inject", "unseal"];

/// What an owner types, and the rights each of which lets it: docs/owner-access.md, "Who may".
const COMMANDS: [(&[&str], &[&str]); 11] = [
    (&["exec", "box", "true"], &["exec"]),
    (&["attach", "--no-stdin", "box"], &["attach", "exec"]),
    (&["cp", "box:/etc/passwd", "-"], &["cp", "exec"]),
    (&["diff", "box"], &["cp", "exec"]),
    (&["export", "box"], &["cp", "exec"]),
    (&["top", "box"], &["top", "exec"]),
    (&["kill", "-s", "WINCH", "box"], &["exec"]),
    (&["logs", "box"], &["logs"]),
    (&["inject-secret", "box", "--secret", "note=@NOTE"], &["inject"]),
    (&["seal", "box"], &["unseal"]),
    (&["refresh-secrets", "box"], &["inject"]),
];

/// Whatever stays that long was let in.
const STAYS: Duration = Duration::from_secs(4);

/// Whether it was let, or the words of its refusal.
fn asks(world: &World, words: &[&str]) -> Result<Result<(), String>> {
    let mut child = world
        .command(&[&words[..1], &["--allow-simulated"], &words[1..]].concat())
        .stdin(Stdio::from(fs::File::open(world.folder.path().join("note"))?))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let until = Instant::now() + STAYS;
    loop {
        match child.try_wait()? {
            None if words[0] == "attach" && Instant::now() > until => {
                child.kill()?;
                child.wait()?;
                return Ok(Ok(()));
            }
            None => std::thread::sleep(Duration::from_millis(20)),
            Some(status) if status.success() => return Ok(Ok(())),
            Some(status) => {
                let output = child.wait_with_output()?;
                return Ok(Err(format!("{status}: {}", String::from_utf8_lossy(&output.stderr))));
            }
        }
    }
}

#[test]
fn a_right_opens_what_it_says_and_nothing_else() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    let scratch = world.folder.path();
    let note = scratch.join("note");
    fs::write(&note, "a value")?;
    let note = format!("note=@{}", note.to_str().context("a plain name")?);
    let (mut flags, mut homes) = (Vec::new(), Vec::new());
    for right in RIGHTS {
        let theirs = World::new()?;
        theirs.coffer(&["owner", "init"])?.ok()?;
        let pem = scratch.join(format!("{right}.pem"));
        fs::write(&pem, theirs.coffer(&["owner", "show", "--pem"])?.ok()?)?;
        flags.extend(["--owner".to_owned(), format!("{}={right}", pem.display())]);
        homes.push(theirs);
    }
    let stranger = World::new()?;
    stranger.coffer(&["owner", "init"])?.ok()?;
    homes.push(stranger);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let run = ["run", "-d", "--name", "box", "--tee-simulate", "--host-may", "none", "--inject", "note"];
    world.coffer(&[&run[..], &flags, &[&image, "sh", "-c", "echo said; exec sleep 600"]].concat())?.ok()?;

    // Whoever sits at this machine has another key each time.
    let own = world.home().join("owner");
    for (number, theirs) in homes.iter().enumerate() {
        let _ = fs::remove_dir_all(&own);
        fs::create_dir(&own)?;
        for file in ["key.pem", "cert.pem"] {
            fs::copy(theirs.home().join("owner").join(file), own.join(file))?;
        }
        let right = RIGHTS.get(number).copied().unwrap_or("nothing");
        // What it is it shows to everybody, and to stop it is every listed owner's.
        world.coffer(&["attest", "box", "--allow-simulated"])?.ok()?;
        for (words, opened_by) in COMMANDS {
            let words: Vec<&str> =
                words.iter().map(|word| if *word == "note=@NOTE" { note.as_str() } else { word }).collect();
            match (asks(&world, &words)?, opened_by.contains(&right)) {
                (Ok(()), true) => {}
                (Err(said), false)
                    if said.contains("gives neither the host nor the local owner")
                        || said.contains("owner-may-not:")
                        || said.contains("owner-not-listed") => {}
                (found, _) => anyhow::bail!("with {right}, {words:?}: {found:?}"),
            }
        }
        let figures = world.coffer(&["stats", "--no-stream", "--allow-simulated", "box"])?;
        ensure!((figures.status == 0) == (right != "nothing"), "with {right}\n{}", figures.describe());
    }
    Ok(())
}
