//! What is measured: predicted off the host, the same in the guest's own report, and different for every change; and what
//! differs gets no secret.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use coffer_platform::{files::Platform, plan::LaunchPlan};
use coffer_spec::Document;
use coffer_tests::{
    World,
    demo::{
        attack::{guest_on, released},
        story::{SECRET_PATH, kbs_admin, run_flags, simulator_anchor},
    },
    image::pulled,
    process::{cache, run},
    services::Kbs,
};
use coffer_verifier::measure::LaunchForm;
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::Value;

fn json(world: &World, arguments: &[String]) -> Result<Value> {
    let mut words = vec!["--json"];
    words.extend(arguments.iter().map(String::as_str));
    Ok(serde_json::from_str(&world.coffer(&words)?.ok()?)?)
}

/// Run flags somebody might type, in any mixture.
fn flags() -> impl Strategy<Value = Vec<String>> {
    let flag = |name: &'static str, values: BoxedStrategy<String>| {
        prop::option::of(values).prop_map(move |value| value.map_or(vec![], |value| vec![name.to_owned(), value]))
    };
    let words = |pattern: &'static str| proptest::string::string_regex(pattern).expect("a pattern").boxed();
    let parts = (
        flag("--vcpus", (1..=4_u32).prop_map(|count| count.to_string()).boxed()),
        flag("--hostname", words("[a-z]{1,12}")),
        flag("--env", words("[A-Z]{1,8}=[ -~]{0,40}")),
        flag("--workdir", words("/[a-z]{1,3}").prop_map(|_| "/tmp".to_owned()).boxed()),
        flag("--user", (0..3000_u32).prop_map(|id| id.to_string()).boxed()),
        flag("--inject", words("[a-z][a-z0-9]{0,10}")),
        flag("--host-may", prop::sample::select(vec!["stop", "stop,stats", "none"]).prop_map(str::to_owned).boxed()),
        flag("--tmpfs", words("/[a-z]{3,6}")),
        flag("--memory", prop::sample::select(vec!["384m", "512m", "700m"]).prop_map(str::to_owned).boxed()),
        flag("--tenant", words("[a-z]{1,10}")),
    );
    parts.prop_map(|(a, b, c, d, e, f, g, h, i, j)| [a, b, c, d, e, f, g, h, i, j].concat())
}

/// Boots `count` random configurations; each guest's own report must hold what was predicted.
fn predictions_hold(seed: u8, count: usize) -> Result<()> {
    let world = World::new()?;
    let (_registry, image) = pulled(&world)?;
    let key = |name: &str, extra: &[&str]| -> Result<(String, Value)> {
        let path = world.folder.path().join(name).to_string_lossy().into_owned();
        let words = [&["id-key", "init", "--out", &path], extra].concat();
        let made = json(&world, &words.into_iter().map(str::to_owned).collect::<Vec<_>>())?;
        Ok((path, made["key_digest"].clone()))
    };
    let ((id_key, id_digest), (author_key, author_digest)) = (key("id.pem", &[])?, key("author.pem", &["--author"])?);
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]));
    for round in 0..count {
        let mut flags = flags().new_tree(&mut runner).ok().context("a configuration")?.current();
        let argument = format!("sleep 600 # {round}");
        let signed = round % 2 == 0;
        if signed {
            let svn = round.to_string();
            let words = ["--id-key", &id_key, "--author-key", &author_key, "--image-id", "web", "--guest-svn", &svn];
            flags.extend(words.map(str::to_owned));
        }
        flags.extend(["--tee-simulate", &image, "sh", "-c", &argument].map(str::to_owned));
        println!("{seed}/{round}: {}", flags.join(" "));
        let predicted = json(&world, &[vec!["measure".to_owned()], flags.clone()].concat())?;
        let name = format!("box{round}");
        let start = [vec!["run".to_owned(), "-d".to_owned(), "--name".to_owned(), name.clone()], flags].concat();
        world.coffer(&start.iter().map(String::as_str).collect::<Vec<_>>())?.ok()?;
        let attested = json(&world, &["attest".to_owned(), name.clone(), "--allow-simulated".to_owned()])?;
        let report = &attested["claims"]["report"];
        for field in ["measurement", "host_data"] {
            ensure!(predicted[field].is_string(), "{predicted:#}");
            ensure!(report[field] == predicted[field], "{field}: {:#} {:#}", report[field], predicted[field]);
        }
        let (id, author, svn) =
            if signed { (&id_digest, &author_digest, round) } else { (&Value::Null, &Value::Null, 0) };
        let shown = (&report["id_key_digest"], &report["author_key_digest"], report["guest_svn"].as_u64());
        ensure!(shown == (id, author, Some(svn as u64)), "{shown:?} {id} {author} {svn}");
        world.coffer(&["rm", "-f", &name])?.ok()?;
    }
    Ok(())
}

#[test]
fn what_was_predicted_stands_in_the_guests_own_report() -> Result<()> {
    predictions_hold(1, 4)
}

#[test]
fn what_was_predicted_stands_in_the_guests_own_report_again() -> Result<()> {
    predictions_hold(2, 4)
}

#[test]
#[ignore = "twenty more boots: make soak"]
fn what_was_predicted_stands_in_the_reports_of_many_guests() -> Result<()> {
    predictions_hold(3, 20)
}

/// One change of one measured thing.
type Change<'a> = (&'a str, Box<dyn Fn(&mut Platform, &mut u32, &mut String) + 'a>);

#[test]
fn whatever_differs_from_what_is_listed_gets_no_secret() -> Result<()> {
    let world = World::new()?;
    let (_registry, image) = pulled(&world)?;
    let anchor = simulator_anchor(&world)?;
    let anchor = anchor.to_str().context("a plain name")?;
    let kbs = Kbs::start(world.folder.path(), &["--allow-simulated", anchor, "--tenant", "default"])?;
    let flags = run_flags(&kbs, &image);
    let reference = json(&world, &[vec!["measure".to_owned()], flags.clone()].concat())?.to_string();
    kbs_admin(&world, &kbs, &["secret", "put", SECRET_PATH, "--allow-simulated"], b"secret")?;
    kbs_admin(&world, &kbs, &["reference", "add", "--from", "-", "--name", "app"], reference.as_bytes())?;
    let spec = |flags: &[String]| -> Result<Document> {
        let words: Vec<&str> = std::iter::once("spec").chain(flags.iter().map(String::as_str)).collect();
        Ok(Document::parse(world.coffer(&words)?.ok()?.into_bytes())?)
    };
    let document = spec(&flags)?;
    let guest = |document: &Document, change: &dyn Fn(&mut Platform, &mut u32, &mut String)| {
        let mut platform = Platform::load(&world.platform)?;
        let mut line = coffer_platform::command_line(&document.digest(), document.spec().tee);
        let mut vcpus = 1;
        change(&mut platform, &mut vcpus, &mut line);
        let signature = coffer_platform::plan::VCPU_TYPE.parse()?;
        let plan = LaunchPlan::new(&platform.launch_inputs(LaunchForm::ResetVector, &line, vcpus, signature))?;
        released(&kbs, guest_on(&world, &plan, document)?)
    };
    ensure!(guest(&document, &|_, _, _| {})?, "what is listed gets the secret\n{}", kbs.log());

    let changes: [Change<'_>; 7] = [
        ("stage0", Box::new(|platform, _, _| platform.stage0[0x100] ^= 1)),
        ("stage0's last page", Box::new(|platform, _, _| platform.stage0[0xFD00] ^= 1)),
        ("kernel", Box::new(|platform, _, _| platform.kernel[0x8000] ^= 1)),
        ("initrd", Box::new(|platform, _, _| platform.initrd[0x8000] ^= 1)),
        ("command line", Box::new(|_, _, line| line.push_str(" init=/bin/sh"))),
        ("processor wanted", Box::new(|_, _, line| *line = line.replace("simulated", "none"))),
        ("number of processors", Box::new(|_, vcpus, _| *vcpus = 2)),
    ];
    for (what, change) in &changes {
        ensure!(!guest(&document, change)?, "released although the {what} differs");
    }
    // Another spec: with its own digest on the command line and in HOST_DATA, or with only one of them.
    let changed = |at: usize, word: &str| {
        let mut flags = flags.clone();
        word.clone_into(&mut flags[at]);
        flags
    };
    let last = flags.len() - 1;
    for (what, flags) in [
        ("argv", changed(last, "cat /run/secrets/password")),
        ("environment", [&["--env".to_owned(), "LD_PRELOAD=/x".to_owned()], &flags[..]].concat()),
        ("what the host may", [&flags[..9], &["--host-may".to_owned(), "exec".to_owned()], &flags[11..]].concat()),
    ] {
        let other = spec(&flags).with_context(|| format!("{what}: {flags:?}"))?;
        ensure!(other.digest() != document.digest(), "{what}: {flags:?}");
        ensure!(!guest(&other, &|_, _, _| {})?, "released although the {what} differs");
        let old_line = coffer_platform::command_line(&document.digest(), document.spec().tee);
        ensure!(!guest(&other, &|_, _, line| line.clone_from(&old_line))?, "{what}: HOST_DATA alone");
        let new_line = coffer_platform::command_line(&other.digest(), other.spec().tee);
        ensure!(!guest(&document, &|_, _, line| line.clone_from(&new_line))?, "{what}: command line alone");
    }
    Ok(())
}

#[test]
fn an_independent_tool_computes_the_same_digest() -> Result<()> {
    let tool = cache()?.join("tools/sev-snp-measure");
    let world = World::new()?;
    let rom = tempfile::NamedTempFile::new()?;
    let script = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts").join(name);
    let mut compared = 0;
    for vcpu_type in ["EPYC-Milan", "EPYC-Genoa"] {
        for vcpus in ["1", "2", "4"] {
            let words = ["measure", "--platform-files", "--vcpus", vcpus, "--vcpu-type", vcpu_type];
            let ours = json(&world, &words.map(str::to_owned))?;
            let text = |name: &str| ours[name].as_str().with_context(|| format!("{name}: {ours:#}"));
            ensure!(ours["vcpus"] == vcpus.parse::<u64>()? && text("vcpu_type")? == vcpu_type, "{ours:#}");
            let launched = [text("firmware")?, text("kernel")?, text("initrd")?, text("append")?];
            let made = Command::new("python3").arg(script("rom-with-hashes.py")).args(launched).output()?;
            std::fs::write(&rom, made.stdout)?;
            let mut command = Command::new("python3");
            command.env("PYTHONPATH", &tool).arg(tool.join("bin/sev-snp-measure"));
            command.args(["--mode", "snp", "--vmm-type", "QEMU", "--vcpus", vcpus, "--vcpu-type", vcpu_type]);
            command.arg("--ovmf").arg(rom.path());
            let theirs = run(&mut command, b"")?.ok().context("`make setup` installs sev-snp-measure")?;
            ensure!(theirs.trim() == text("measurement")?, "{vcpus} × {vcpu_type}: {theirs} {ours:#}");
            // The form that tool does not know, by a script without our code.
            let mut other = Command::new("python3");
            let theirs = run(other.arg(script("long-mode-digest.py")).args(launched).arg(vcpus), b"")?.ok()?;
            ensure!(theirs.trim() == ours["launches"]["long-mode"], "{vcpus} × {vcpu_type}: {theirs} {ours:#}");
            compared += 1;
        }
    }
    ensure!(compared == 6);
    Ok(())
}
