//! Simulated evidence counts only for who says so: every command, every service, every shipped policy, one by one.
//!
//! Each refusal is beside the same act with the simulator allowed, which must work: so it is refused for what it is.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use coffer_platform::{files::Platform, plan::LaunchPlan};
use coffer_policies::{Policy, SHIPPED, Shipped};
use coffer_spec::Document;
use coffer_tests::{
    World,
    demo::{
        attack::{guest_on, released},
        story::{SECRET_PATH, kbs_admin, run_flags, simulator_anchor},
    },
    image::pulled,
    monitors::{Monitor, on_each},
    process::{Finished, binary, run, wait_for},
    services::Kbs,
};
use coffer_verifier::measure::LaunchForm;
use serde_json::{Value, json};

const ALLOW: &str = "--allow-simulated";

/// What a command has to do with evidence.
enum Evidence {
    /// It decides about a guest's; words after the command, what it reads, and the exit status of its refusal.
    OfAGuest(&'static [&'static str], &'static [u8], i32),
    /// It decides, and has a test of its own below.
    Own,
    /// None reaches it.
    None,
}

/// Every command of `coffer`. One that is not here makes the test fail.
const COMMANDS: &[(&str, Evidence)] = &[
    ("attest", Evidence::OfAGuest(&["box"], b"", 5)),
    ("exec", Evidence::OfAGuest(&["box", "true"], b"", 125)),
    ("attach", Evidence::OfAGuest(&["box"], b"", 5)),
    ("logs", Evidence::OfAGuest(&["box"], b"", 5)),
    ("cp", Evidence::OfAGuest(&["box:/etc/hosts", "-"], b"", 5)),
    ("top", Evidence::OfAGuest(&["box"], b"", 5)),
    ("diff", Evidence::OfAGuest(&["box"], b"", 5)),
    ("export", Evidence::OfAGuest(&["box"], b"", 5)),
    ("inject-secret", Evidence::OfAGuest(&["box", "--secret", "note=-"], b"value", 5)),
    ("refresh-secrets", Evidence::OfAGuest(&["box"], b"", 5)),
    ("inspect", Evidence::OfAGuest(&["--owners", "box"], b"", 5)),
    ("seal", Evidence::OfAGuest(&["box"], b"state", 5)),
    ("unseal", Evidence::OfAGuest(&["box", SEALED], b"", 5)),
    ("reseal", Evidence::OfAGuest(&["box", SEALED], b"", 5)),
    ("run", Evidence::Own),
    ("start", Evidence::Own),
    ("verify", Evidence::Own),
    ("token", Evidence::Own), // verifier/tests/ear/issued.rs: a token of it is refused unless allowed
    ("policy", Evidence::Own), // runtime/tests/policies.rs: `policy input` prints nothing of it unless allowed
    ("sim", Evidence::Own),
    ("connect", Evidence::Own), // ingress.rs: refused unless allowed
    ("create", Evidence::None),
    ("commit", Evidence::None), // of no box with a TEE
    ("port", Evidence::None),
    ("stop", Evidence::Own),
    ("stats", Evidence::None), // where the host may not, the way is that of `logs`
    ("restart", Evidence::None),
    ("kill", Evidence::Own),
    ("wait", Evidence::None),
    ("rename", Evidence::None),
    ("update", Evidence::None),
    ("prune", Evidence::None),
    ("events", Evidence::None),
    ("audit", Evidence::None),
    ("metrics", Evidence::None),
    ("system", Evidence::None),
    ("network", Evidence::None),
    ("volume", Evidence::None),
    ("pause", Evidence::None),
    ("unpause", Evidence::None),
    ("ps", Evidence::None),
    ("rm", Evidence::None),
    ("pull", Evidence::None),
    ("images", Evidence::None),
    ("rmi", Evidence::None),
    ("tag", Evidence::None),
    ("push", Evidence::None),
    ("login", Evidence::None),
    ("logout", Evidence::None),
    ("history", Evidence::None),
    ("save", Evidence::None),
    ("load", Evidence::None),
    ("import", Evidence::None),
    ("image", Evidence::None),
    ("measure", Evidence::None),
    ("manifest", Evidence::None),
    ("id-key", Evidence::None),
    ("id-block", Evidence::None),
    ("spec", Evidence::None),
    ("platform", Evidence::None),
    ("owner", Evidence::Own), // owners.rs: `owner push` brings a guest nothing unless allowed
    ("collateral", Evidence::None), // keeps what verifies, gives no verdict
    ("report", Evidence::None), // prints fields, gives no verdict
    ("kbs", Evidence::None),  // trusts the broker's pinned key; guests' evidence comes to the broker itself
    ("bench", Evidence::None),
    ("doctor", Evidence::None),
    ("host", Evidence::None), // what this machine's firmware says of itself
    ("completion", Evidence::None),
    ("help", Evidence::None),
    ("version", Evidence::None),
];

/// Stands for the path of a sealed file.
const SEALED: &str = "{sealed}";

/// Names in the list of commands of `coffer-kbs --help`.
fn listed_in(help: &str) -> BTreeSet<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let entries =
        lines.take_while(|line| !line.is_empty()).filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = entries.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    names.map(str::to_owned).collect()
}

/// First words of the commands that `coffer --json help` lists.
fn commands(help: &str) -> Result<BTreeSet<String>> {
    let rows: Vec<Value> = serde_json::from_str(help)?;
    let names = rows.iter().filter_map(|row| row["command"].as_str()?.split_whitespace().next());
    Ok(names.map(str::to_owned).collect())
}

fn says_untrusted(finished: &Finished, status: i32) -> Result<()> {
    ensure!(finished.status == status, "expected status {status}\n{}", finished.describe());
    let text = finished.text();
    ensure!(text.contains("untrusted-root") || text.contains(ALLOW), "refused, but for what?\n{}", finished.describe());
    Ok(())
}

#[test]
fn every_command_stands_in_the_table() -> Result<()> {
    let world = World::new()?;
    let listed: BTreeSet<String> = COMMANDS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let found = commands(&world.coffer(&["--json", "help"])?.ok()?)?;
    assert_eq!(found, listed, "a command that is not in the table, or no longer one");
    Ok(())
}

#[test]
fn no_command_believes_a_simulated_guest_unless_told_to() -> Result<()> {
    on_each(believed_by_none)
}

fn believed_by_none(monitor: Monitor) -> Result<()> {
    let world = World::on(monitor)?;
    let (_registry, image) = pulled(&world)?;
    world.coffer(&["owner", "init"])?.ok()?;
    let script = "while echo the output; do sleep 1; done";
    world
        .coffer(&["run", "-d", "--name", "box", "--tee-simulate", "--inject", "note", &image, "sh", "-c", script])?
        .ok()?;
    let sealed = world.folder.path().join("sealed");
    let sealed = sealed.to_str().context("a plain name")?;
    world.coffer_with(&["seal", "box", ALLOW, "-o", sealed], b"state")?.ok()?;
    for (name, evidence) in COMMANDS {
        let Evidence::OfAGuest(words, input, status) = evidence else { continue };
        let words = words.iter().map(|word| if *word == SEALED { sealed } else { word });
        let ask = |first: &[&'static str]| -> Result<Finished> {
            let words: Vec<&str> = first.iter().copied().chain(words.clone()).collect();
            world.coffer_with(&words, input)
        };
        let refused = ask(&[name])?;
        says_untrusted(&refused, *status).context(*name)?;
        ensure!(!refused.stdout.contains("the output") && !refused.stdout.contains("state"), "{}", refused.describe());
        if *name == "attach" {
            // It stays for as long as the program does.
            let mut attached = world.command(&["attach", ALLOW, "box"]).stdout(Stdio::piped()).spawn()?;
            let mut line = String::new();
            let read = BufReader::new(attached.stdout.take().context("piped")?).read_line(&mut line);
            attached.kill()?;
            attached.wait()?;
            read?;
            ensure!(line == "the output\n", "attach {ALLOW}: {line:?}");
            continue;
        }
        ask(&[name, ALLOW])?.ok().with_context(|| format!("{name} {ALLOW}"))?;
    }

    // With the box in the foreground the owner asks for its output at once.
    let words = ["run", "--name", "front", "--tee-simulate", &image, "echo", "the output"];
    let hidden = world.coffer(&words)?;
    ensure!(hidden.status == 0 && !hidden.stdout.contains("the output"), "{}", hidden.describe());
    ensure!(hidden.stderr.contains(ALLOW), "{}", hidden.describe());
    let shown = world.coffer(&["start", "--attach", ALLOW, "front"])?;
    ensure!(shown.status == 0 && shown.stdout == "the output\n", "{}", shown.describe());
    Ok(())
}

#[test]
fn verify_and_the_attack_kit_believe_no_simulated_evidence_unless_told_to() -> Result<()> {
    let world = World::new()?;
    for product in ["milan", "genoa", "turin"] {
        let folder = world.folder.path().join(product);
        let folder = folder.to_str().context("a plain name")?;
        world.coffer(&["sim", "evidence", "--product", product, "--out", folder])?.ok()?;
        for file in ["report.bin", "evidence.cmw"] {
            let file = format!("{folder}/{file}");
            let good = ["verify", &file, "--certs", folder];
            world.coffer(&[&good[..], &[ALLOW]].concat())?.ok()?;
            for policy in [&[][..], &["--policy", "strict"], &["--no-crl"]] {
                says_untrusted(&world.coffer(&[&good[..], policy].concat())?, 5)?;
            }
        }
    }
    // To a verifier that is not told of the simulator, good evidence is as false as any attack.
    let coffer = binary("coffer")?;
    let check = |allow: &str| -> Result<Value> {
        let (coffer, home) = (coffer.display(), world.home());
        let cmd = format!(
            "{coffer} --home {} verify $COFFER_EVIDENCE --policy $COFFER_POLICY \
             --report-data $COFFER_REPORT_DATA {allow}",
            home.display()
        );
        let words = ["--json", "sim", "check", "--product", "milan", "--cmd", &cmd];
        Ok(serde_json::from_str(&world.coffer(&words)?.stdout)?)
    };
    let (told, not_told) = (check(ALLOW)?, check("")?);
    assert_eq!(told["wrong"], 0, "{told:#}");
    let accepted = |answer: &&Value| answer["answer"] == "accepted";
    assert_eq!(not_told["results"].as_array().context("results")?.iter().find(accepted), None);
    assert_eq!(not_told["results"][0]["answer"], "not-authentic", "{}", not_told["results"][0]);
    Ok(())
}

/// A simulated guest that has everything right: its measurement and workload are listed, its secret is there.
fn is_released(world: &World, kbs: &Kbs, image: &str, put: &[&str], form: LaunchForm) -> Result<bool> {
    let flags = run_flags(kbs, image);
    let words = |command: &[&'static str]| -> Result<String> {
        let words: Vec<&str> = command.iter().copied().chain(flags.iter().map(String::as_str)).collect();
        world.coffer(&words)?.ok()
    };
    kbs_admin(world, kbs, &[&["secret", "put", SECRET_PATH], put].concat(), b"secret")?;
    let reference = words(&["--json", "measure"])?;
    kbs_admin(world, kbs, &["reference", "add", "--from", "-", "--name", "app"], reference.as_bytes())?;
    let document = Document::parse(words(&["spec"])?.into_bytes())?;
    let line = coffer_platform::command_line(&document.digest(), document.spec().tee);
    let platform = Platform::load(&world.platform)?;
    let plan = LaunchPlan::new(&platform.launch_inputs(form, &line, 1, coffer_platform::plan::VCPU_TYPE.parse()?))?;
    released(kbs, guest_on(world, &plan, &document)?)
}

#[test]
fn the_key_broker_releases_to_simulated_guests_only_what_was_put_for_them_where_their_root_is_listed() -> Result<()> {
    let world = World::new()?;
    let (_registry, image) = pulled(&world)?;
    let anchor = simulator_anchor(&world)?;
    let anchor = anchor.to_str().context("a plain name")?;
    let listed = ["--allow-simulated", anchor, "--tenant", "default"];
    let elsewhere = ["--allow-simulated", anchor, "--tenant", "another"];
    let (unknown_root, not_for_it) = ("untrusted-root: found", "does not carry allow_simulated");
    let vm = LaunchForm::ResetVector;
    for (what, serve, put, form, reason) in [
        ("all-allowed", &listed[..], &[ALLOW][..], vm, None),
        ("root-not-listed", &[], &[ALLOW], vm, Some(unknown_root)),
        ("root-listed-for-another-tenant", &elsewhere, &[ALLOW], vm, Some(unknown_root)),
        ("secret-not-for-simulated-guests", &listed, &[], vm, Some(not_for_it)),
        // Of the same platform and workload, and no machine: not what was listed.
        ("no-machine", &listed, &[ALLOW], LaunchForm::Namespaces, Some("measurement-and-workload: found")),
    ] {
        let folder = world.folder.path().join(what);
        fs::create_dir(&folder)?;
        let mut kbs = Kbs::start(&folder, serve)?;
        let released = is_released(&world, &kbs, &image, put, form).context(what)?;
        ensure!(released == reason.is_none(), "{what}\n{}", kbs.log());
        if let Some(reason) = reason {
            // Those of strangers are written within a second.
            wait_for(Duration::from_secs(10), || kbs.log().contains(reason))
                .with_context(|| format!("{what}: refused, but not for {reason:?}\n{}", kbs.log()))?;
        }
        kbs.stop();
    }
    let help = run(Command::new(binary("coffer-kbs")?).arg("--help"), b"")?.ok()?;
    let known = [
        "audit",
        "backup",
        "doctor",
        "init",
        "pin",
        "recovery-key",
        "restore",
        "rotate-root",
        "serve",
        "server-key",
        "state",
        "upgrade",
    ]
    .map(str::to_owned);
    assert_eq!(listed_in(&help), BTreeSet::from(known), "only `serve` decides about evidence");
    Ok(())
}

#[test]
fn no_shipped_policy_allows_what_rests_on_a_simulated_root() -> Result<()> {
    let shipped: [Shipped; 3] = SHIPPED;
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let mut files = BTreeSet::new();
    for folder in ["evidence", "results"] {
        for entry in fs::read_dir(policies.join(folder))? {
            let name = format!("{folder}/{}", entry?.file_name().to_string_lossy());
            files.extend((!name.ends_with("_test.rego")).then_some(name));
        }
    }
    assert_eq!(files, shipped.iter().map(|policy| policy.name.to_owned()).collect(), "a policy that is not asked here");

    let world = World::new()?;
    let folder = world.folder.path().join("evidence");
    let folder = folder.to_str().context("a plain name")?;
    world.coffer(&["sim", "evidence", "--product", "milan", "--out", folder])?.ok()?;
    let report = format!("{folder}/report.bin");
    let words = ["--json", "verify", &report, "--certs", folder, ALLOW];
    let verified: Value = serde_json::from_str(&world.coffer(&words)?.ok()?)?;
    let claims = &verified["claims"];
    assert_eq!(claims["anchor"]["simulated"], true, "{claims:#}");
    let workload = "11".repeat(32);
    let input = json!({
        "now_unix": 0,
        "result": { "status": "affirming", "workload_digest": workload, "claims": claims },
        "tenant": { "name": "default", "simulated_anchors": [] },
        "spec": { "secrets": [SECRET_PATH], "tee": "simulated" },
        "secret": { "path": SECRET_PATH, "allow_simulated": false },
        "references": [
            { "measurement": claims["report"]["measurement"], "workload_digest": workload, "expires_unix": 0 }
        ],
        "signers": [],
    });
    // What Azure's policy asks for beside.
    let azure = "0356215882a825279a85b300b0b742931d113bf7e32dde2e50ffde7ec743ca491ecdd7f336dc28a6e0b2bb57af7a44a3";
    let input = edited(&input, "/result/claims/report/id_key_digest", json!(azure));
    let input = edited(&input, "/result/claims/report_data_binding", json!("attachment"));
    let on_amd = edited(&input, "/result/claims/anchor/simulated", json!(false));
    let anchors = json!([claims["anchor"]["spki_sha256"]]);
    let tenant = edited(&input, "/tenant/simulated_anchors", anchors);
    let secret = edited(&input, "/secret/allow_simulated", json!(true));
    for shipped in shipped {
        let policy = Policy::parse(shipped.name, shipped.text)?;
        ensure!(policy.decide(&on_amd).allows(), "{}: {:?}", shipped.name, policy.decide(&on_amd).reasons());
        for refused in [&input, &tenant, &secret] {
            let decision = policy.decide(refused);
            ensure!(!decision.allows(), "{} allows {refused:#}", shipped.name);
            let anchors = decision.reasons().iter().any(|reason| reason.starts_with("anchor: "));
            ensure!(anchors, "{}: {:?}", shipped.name, decision.reasons());
        }
    }
    Ok(())
}

fn edited(input: &Value, at: &str, value: Value) -> Value {
    let mut input = input.clone();
    if let Some(place) = input.pointer_mut(at) {
        *place = value;
    }
    input
}
