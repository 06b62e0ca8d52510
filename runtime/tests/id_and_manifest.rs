//! The command about ID keys, ID blocks and signed manifests, from files alone: no image, no VMM.

use crate::vectors;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use coffer_platform::files::{Platform, Sources};
use coffer_spec::{CardRules, Document, Network, Tee};
use serde_json::Value;
use sha2::Digest as _;

pub struct World {
    folder: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, bytes) in [("k", "kernel"), ("i", "init"), ("m.ko", "module")] {
            std::fs::write(path(name), bytes).unwrap();
        }
        std::fs::write(path("s"), coffer_platform::sample::rom(1)).unwrap();
        let sources = Sources {
            stage0: &path("s"),
            kernel_package: "test 1",
            kernel: &path("k"),
            init: &path("i"),
            modules: &[path("m.ko")],
        };
        Platform::build(&path("platform"), &sources).unwrap();
        for (name, tee) in [("spec.toml", Tee::Simulated), ("none.toml", Tee::None), ("snp.toml", Tee::Snp)] {
            std::fs::write(path(name), Document::write(&coffer_spec::sample::workload(tee)).unwrap().bytes()).unwrap();
        }
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn coffer(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_coffer"))
            .args(words)
            .env("COFFER_PLATFORM", self.path("platform"))
            .env("COFFER_HOME", self.path("home"))
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    #[track_caller]
    pub fn ok(&self, words: &[&str]) -> String {
        let output = self.coffer(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    pub fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[&["--json"], words].concat())).unwrap()
    }

    /// Standard error of a command that ends with this status.
    #[track_caller]
    fn fails(&self, status: i32, words: &[&str]) -> String {
        let output = self.coffer(words);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{words:?}: {text}");
        assert!(!text.contains("panicked"), "{text}");
        text
    }
}

#[test]
fn id_keys_are_private_never_overwritten_and_named_by_one_digest() {
    let world = World::new();
    let made = world.ok(&["id-key", "init", "--out", "id.pem"]);
    assert_eq!(world.path("id.pem").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(made.trim().len(), 96);
    assert_eq!(world.ok(&["id-key", "show", "id.pem"]), made);
    std::fs::write(world.path("id.pub"), world.ok(&["id-key", "show", "--pem", "id.pem"])).unwrap();
    assert_eq!(world.ok(&["id-key", "show", "id.pub"]), made);
    assert_eq!(world.json(&["id-key", "show", "id.pem"])["key_digest"], made.trim());
    let before = std::fs::read(world.path("id.pem")).unwrap();
    assert!(world.fails(3, &["id-key", "init", "--out", "id.pem"]).contains("is there already"));
    assert_eq!(std::fs::read(world.path("id.pem")).unwrap(), before);
    assert_eq!(world.json(&["id-key", "init", "--author", "--out", "author.pem"])["purpose"], "author key");
    assert!(world.fails(3, &["id-key", "show", "k"]).contains('k'));
}

#[test]
fn an_author_signs_elsewhere_and_the_launch_host_checks_it() {
    let world = World::new();
    world.ok(&["id-key", "init", "--out", "id.pem"]);
    let author = world.ok(&["id-key", "init", "--author", "--out", "author.pem"]);
    let measured = world.json(&["measure", "--spec", "spec.toml"]);
    let measurement = measured["measurement"].as_str().unwrap();
    let sign = |measurement: &str, policy: &str, out: &str| {
        world.json(&[
            "id-block",
            "sign",
            "--measurement",
            measurement,
            "--policy",
            policy,
            "--id-key",
            "id.pem",
            "--author-key",
            "author.pem",
            "--family-id",
            "acme",
            "--image-id",
            &"0a".repeat(16),
            "--guest-svn",
            "7",
            "--out",
            out,
        ])
    };
    let signed = sign(measurement, "0x30000", "signed");
    assert_eq!(signed["author_key_digest"], author.trim());
    assert_eq!(signed["family_id"], format!("{}{}", hex::encode("acme"), "00".repeat(12)));
    assert_eq!(world.json(&["id-block", "show", "signed"]), signed);
    let launch = |folder: &str| {
        let file = |name: &str| format!("{folder}/{name}");
        ["measure", "--spec", "spec.toml", "--id-block", &file("id_block.bin"), "--id-auth", &file("id_auth.bin")]
            .map(str::to_owned)
    };
    let with = launch("signed");
    let refs: Vec<&str> = with.iter().map(String::as_str).collect();
    assert_eq!(world.json(&refs)["id_block"], signed);

    let wrong = |folder: &str| {
        let with = launch(folder);
        let refs: Vec<&str> = with.iter().map(String::as_str).collect();
        world.fails(3, &refs)
    };
    sign(&"12".repeat(48), "0x30000", "other");
    let text = wrong("other");
    assert!(text.contains(measurement) && text.contains(&"12".repeat(48)), "{text}");
    sign(measurement, "0x20000", "policy");
    let text = wrong("policy");
    assert!(text.contains("0x20000") && text.contains("0x30000"), "{text}");
    for (policy, why) in
        [("0xb0000", "debugging"), ("0x70000", "migration"), ("0x10000", "17"), ("0x8000000030000", "63:26")]
    {
        let words = [
            "id-block",
            "sign",
            "--measurement",
            measurement,
            "--policy",
            policy,
            "--id-key",
            "id.pem",
            "--out",
            "never",
        ];
        let text = world.fails(2, &words);
        assert!(text.contains(why) && !world.path("never").exists(), "{policy}: {text}");
    }
    for (at, what) in [(0x40, "ID key over the ID block"), (0x680, "author key over the ID key")] {
        let mut auth = std::fs::read(world.path("signed/id_auth.bin")).unwrap();
        auth[at] ^= 1;
        std::fs::create_dir_all(world.path("bad")).unwrap();
        std::fs::write(world.path("bad/id_auth.bin"), auth).unwrap();
        std::fs::copy(world.path("signed/id_block.bin"), world.path("bad/id_block.bin")).unwrap();
        assert!(wrong("bad").contains(what));
        assert!(world.fails(5, &["id-block", "show", "bad"]).contains(what));
    }
    // Signed here, the facts are the same.
    let here = world.json(&[
        "measure",
        "--spec",
        "spec.toml",
        "--id-key",
        "id.pem",
        "--author-key",
        "author.pem",
        "--family-id",
        "acme",
        "--image-id",
        &"0a".repeat(16),
        "--guest-svn",
        "7",
    ]);
    assert_eq!(here["id_block"], signed);
}

#[test]
fn both_launch_forms_are_measured_and_one_is_picked_by_name() {
    let world = World::new();
    let measured = |flags: &[&str]| world.json(&[&["measure", "--spec", "spec.toml"], flags].concat());
    let both = measured(&[]);
    assert_eq!(both["launch"], "reset-vector");
    assert_eq!(both["measurement"], both["launches"]["reset-vector"]);
    assert_ne!(both["launches"]["reset-vector"], both["launches"]["long-mode"]);
    // A run may be launched by either monitor, unless one was named, or the hardware was, which only one is asked for.
    let (reset, long) = (&both["launches"]["reset-vector"], &both["launches"]["long-mode"]);
    assert_eq!(both["run_measurements"], serde_json::json!([reset, long]));
    assert_eq!(measured(&["--isolation", "kvm"])["run_measurements"], serde_json::json!([long]));
    assert_eq!(measured(&["--isolation", "qemu"])["run_measurements"], serde_json::json!([reset]));
    // Either gives it the card of its spec, too.
    let mut with_card = coffer_spec::sample::workload(Tee::Simulated);
    let rules = CardRules::of_own_wire(vec![80], Vec::new());
    with_card.network = Some(Network { rules: Some(rules), ..Network::user() });
    std::fs::write(world.path("card.toml"), Document::write(&with_card).unwrap().bytes()).unwrap();
    let card = world.json(&["measure", "--spec", "card.toml"]);
    let forms = ["reset-vector", "long-mode"].map(|form| &card["launches"][form]);
    assert_eq!(card["run_measurements"], serde_json::json!(forms));
    assert_ne!(forms, [reset, long]);
    for form in ["reset-vector", "long-mode"] {
        let one = measured(&["--launch", form]);
        assert_eq!((&one["launch"], &one["measurement"]), (&form.into(), &both["launches"][form]));
        assert!(one["launches"].is_null(), "{one}");
        assert_eq!(one["run_measurements"], serde_json::json!([one["measurement"]]));
        assert_eq!(one["workload_digest"], both["workload_digest"]);
    }
    let text = world.ok(&["measure", "--spec", "spec.toml"]);
    let has = |name: &str, value: &Value| {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
        assert_eq!(line.and_then(|line| line.split_whitespace().nth(1)), value.as_str(), "{text}");
    };
    has("measurement", &both["measurement"]);
    has("reset-vector", &both["launches"]["reset-vector"]);
    has("long-mode", &both["launches"]["long-mode"]);
    // RDX alone says what processor it is, and is zero in 64-bit mode.
    let genoa = measured(&["--vcpu-type", "EPYC-Genoa"]);
    assert_eq!(genoa["launches"]["long-mode"], both["launches"]["long-mode"]);
    assert_ne!(genoa["launches"]["reset-vector"], both["launches"]["reset-vector"]);
    assert!(world.fails(2, &["measure", "--spec", "spec.toml", "--launch", "real-mode"]).contains("long-mode"));
    // A manifest holds one form, so that none is signed under the other's name.
    let manifest = ["--launch", "long-mode", "--manifest", "x.json", "--sign", "manifest.pem"];
    world.fails(2, &[&["measure", "--spec", "spec.toml"], &manifest[..]].concat());
    // Nor is one signed that would not list what was measured.
    let manifest = ["--isolation", "process", "--manifest", "x.json", "--sign", "manifest.pem"];
    let why = world.fails(2, &[&["measure", "--spec", "spec.toml"], &manifest[..]].concat());
    assert!(why.contains("kbs reference add") && !world.path("x.json").exists(), "{why}");
    // An ID block is of the form that was picked.
    world.ok(&["id-key", "init", "--out", "id.pem"]);
    let signed = measured(&["--launch", "long-mode", "--id-key", "id.pem"]);
    assert_eq!(signed["id_block"]["measurement"], both["launches"]["long-mode"]);
}

#[test]
fn a_run_on_hardware_is_predicted_without_hardware_and_never_for_another_processor() {
    let world = World::new();
    let measured = |spec: &str, flags: &[&str]| world.json(&[&["measure", "--spec", spec], flags].concat());
    let snp = measured("snp.toml", &["--isolation", "snp"]);
    assert_eq!(snp, measured("snp.toml", &["--tee"]));
    // As a run with no monitor named would launch it.
    assert_eq!(snp["run_measurements"], serde_json::json!([snp["measurement"]]));
    assert_eq!((&snp["launch"], &snp["measurement"]), (&"long-mode".into(), &snp["launches"]["long-mode"]));
    assert_eq!(measured("snp.toml", &["--isolation", "qemu"])["launch"], "reset-vector");
    assert_eq!(measured("spec.toml", &[])["launch"], "reset-vector");
    assert_eq!(snp, measured("snp.toml", &[]));
    assert_ne!(snp["measurement"], measured("spec.toml", &[])["measurement"]);
    let text = world.fails(2, &["measure", "--spec", "spec.toml", "--isolation", "snp"]);
    assert!(text.contains("written for the simulator, asked for is SEV-SNP"), "{text}");
    let text = world.fails(2, &["measure", "--spec", "spec.toml", "--isolation", "snp", "--tee-simulate"]);
    assert!(text.contains("leave one of them out"), "{text}");
    let text = world.fails(125, &["run", "--isolation", "snp", "busybox"]);
    assert!(text.contains("SEV-SNP"), "{text}");
}

#[test]
fn the_vectors_blocks_are_shown_and_believed() {
    let world = World::new();
    let Some(folder) = vectors::folder("measure/idblock") else { return };
    let folder = folder.to_str().unwrap();
    let key = world.ok(&["id-key", "show", &format!("{folder}/id_key.pem")]);
    assert!(key.starts_with("88e4b2db0e36c6d7"), "a key of another tool: {key}");
    let shown = world.json(&["id-block", "show", folder]);
    assert!(shown["id_key_digest"].as_str().unwrap().starts_with("88e4b2db"));
    assert!(shown["author_key_digest"].as_str().unwrap().starts_with("25860fd9"));
    assert_eq!(shown["guest_svn"], 7);
}

#[test]
fn an_id_block_nobody_checks_and_keys_of_another_purpose_are_refused() {
    let world = World::new();
    world.ok(&["id-key", "init", "--out", "id.pem"]);
    world.ok(&["id-key", "init", "--author", "--out", "author.pem"]);
    world.ok(&["manifest", "keygen", "--out", "manifest.pem"]);
    let text = world.fails(2, &["measure", "--spec", "none.toml", "--id-key", "id.pem"]);
    assert!(text.contains("no secure processor checks the ID block"), "{text}");
    let text = world.fails(125, &["run", "--id-key", "id.pem", "busybox"]);
    assert!(text.contains("--tee-simulate"), "{text}");
    let id = |key: &'static str, author: &'static str| {
        ["measure", "--spec", "spec.toml", "--id-key", key, "--author-key", author]
    };
    assert!(world.fails(3, &id("author.pem", "author.pem")).contains("was made as author key"));
    assert!(world.fails(3, &id("id.pem", "manifest.pem")).contains("was made as manifest key"));
    let plain = std::fs::read_to_string(world.path("id.pem")).unwrap();
    std::fs::write(world.path("plain.pem"), plain.split_once('\n').unwrap().1).unwrap();
    assert!(world.fails(3, &id("id.pem", "plain.pem")).contains("one key"));
    world.fails(2, &["measure", "--spec", "spec.toml", "--author-key", "author.pem"]);
    world.fails(2, &["measure", "--spec", "spec.toml", "--id-block", "x"]);
    world.fails(2, &["measure", "--spec", "spec.toml", "--id-key", "id.pem", "--id-block", "x", "--id-auth", "y"]);
    world.fails(2, &["measure", "--spec", "spec.toml", "--id-key", "id.pem", "--family-id", "longer than sixteen"]);
    world.fails(2, &["measure", "--spec", "spec.toml", "--manifest", "out.json"]);
    assert!(
        world
            .fails(3, &["measure", "--spec", "spec.toml", "--manifest", "out.json", "--sign", "id.pem"])
            .contains("was made as ID key")
    );
}

#[test]
fn a_manifest_holds_what_measure_prints_and_its_exit_codes_tell_why_not() {
    let world = World::new();
    world.ok(&["manifest", "keygen", "--out", "manifest.pem"]);
    world.ok(&["manifest", "keygen", "--out", "other.pem"]);
    assert!(world.fails(3, &["manifest", "keygen", "--out", "manifest.pem"]).contains("is there already"));
    assert_eq!(world.path("manifest.pem").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let measured = world.json(&[
        "measure",
        "--spec",
        "spec.toml",
        "--vcpus",
        "3",
        "--manifest",
        "web.json",
        "--sign",
        "manifest.pem",
        "--name",
        "web",
        "--sequence",
        "7",
        "--expires",
        "30d",
    ]);
    assert_eq!(measured["manifest"]["sequence"], 7);
    let verified = world.json(&["manifest", "verify", "web.json", "--key", "manifest.pem.pub"]);
    assert_eq!(verified["verdict"], "valid");
    assert_eq!(verified["name"], "web");
    assert_eq!(verified["workload_digest"], measured["workload_digest"]);
    let measurements = verified["measurements"].as_array().unwrap();
    let mut counts: Vec<_> = measurements.iter().map(|one| one["vcpus"].as_u64().unwrap()).collect();
    counts.sort_unstable();
    let each = [1, 2, 3, 4, 8].map(|count| [count; 6]).concat();
    assert_eq!(counts, each, "three vCPU types and two launch forms each");
    assert!(measurements.iter().any(|one| one["measurement"] == measured["measurement"] && one["vcpus"] == 3));
    for one in measurements {
        let vcpus = one["vcpus"].to_string();
        let vcpu_type = one["vcpu_type"].as_str().unwrap();
        let again = world.json(&["measure", "--spec", "spec.toml", "--vcpus", &vcpus, "--vcpu-type", vcpu_type]);
        assert_eq!(one["measurement"], again["launches"][one["launch"].as_str().unwrap()], "{one}");
    }
    let kernel = verified["components"].as_array().unwrap().iter().find(|one| one["name"] == "kernel").unwrap();
    let digest = hex::encode(sha2::Sha256::digest("kernel"));
    assert_eq!(kernel["sha256"], digest);

    let verify = |file: &'static str, rest: &[&'static str]| [&["manifest", "verify", file, "--key"], rest].concat();
    assert!(world.fails(5, &verify("web.json", &["other.pem.pub"])).contains("none of the manifest keys listed (1)"));
    let output = world.coffer(&[&["--json"], &verify("web.json", &["other.pem.pub"])[..]].concat());
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &said["verdict"]), (Some(5), &"not-authentic".into()), "{said}");
    assert_eq!(said["error"]["class"], "not-authentic");
    let late = verify("web.json", &["manifest.pem.pub", "--at", "2999-01-01T00:00:00Z"]);
    assert!(world.fails(5, &late).contains("expired"));
    let text = std::fs::read_to_string(world.path("web.json")).unwrap();
    let mut envelope: Value = serde_json::from_str(&text).unwrap();
    envelope["extra"] = Value::from(1);
    std::fs::write(world.path("extra.json"), envelope.to_string()).unwrap();
    assert!(world.fails(3, &verify("extra.json", &["manifest.pem.pub"])).contains("extra"));
    let mut envelope: Value = serde_json::from_str(&text).unwrap();
    let payload = envelope["payload"].as_str().unwrap().to_owned();
    let swapped = if payload.as_bytes()[20] == b'A' { "B" } else { "A" };
    envelope["payload"] = Value::from(format!("{}{swapped}{}", &payload[..20], &payload[21..]));
    std::fs::write(world.path("bad.json"), envelope.to_string()).unwrap();
    assert!(world.fails(5, &verify("bad.json", &["manifest.pem.pub"])).contains("does not verify"));
    world.fails(3, &verify("absent.json", &["manifest.pem.pub"]));

    let shown = world.json(&["manifest", "show", "web.json"]);
    assert_eq!((&shown["sequence"], &shown["measurements"]), (&verified["sequence"], &verified["measurements"]));
    assert!(world.ok(&["manifest", "show", "web.json"]).starts_with("not verified"));
    // Without a name and number: the image's reference, and the time.
    world.ok(&["measure", "--spec", "spec.toml", "--manifest", "web.json", "--sign", "manifest.pem"]);
    let verified = world.json(&["manifest", "verify", "web.json", "--key", "manifest.pem.pub"]);
    assert_eq!(verified["name"], "registry.example/app:1");
    assert!(verified["sequence"].as_u64().unwrap() > 1_700_000_000);
    let wrong = ["measure", "--spec", "spec.toml", "--manifest", "x.json", "--sign", "manifest.pem"];
    world.fails(2, &[&wrong[..], &["--expires", "1999-01-01T00:00:00Z"]].concat());
    world.fails(2, &[&wrong[..], &["--name", "a b"]].concat());
    assert!(!Path::new(&world.path("x.json")).exists());
}

/// A simulated key distribution service; it ends with its test.
struct Service(std::process::Child, String);

impl Service {
    fn start(world: &World, fault: &str) -> Self {
        use std::io::BufRead as _;
        let mut child = Command::new(env!("CARGO_BIN_EXE_coffer"))
            .env("COFFER_HOME", world.path("home"))
            .args(["sim", "kds", "--fault", fault])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut address = String::new();
        std::io::BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut address).unwrap();
        Self(child, address.trim().to_owned())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_release_gets_a_new_date_only_while_nothing_speaks_against_it() {
    let world = World::new();
    for name in ["author.pem", "witness.pem"] {
        world.ok(&["manifest", "keygen", "--out", name]);
    }
    let measure = ["measure", "--spec", "spec.toml", "--manifest", "web.json", "--sign", "author.pem"];
    let measured = world.json(&[&measure[..], &["--name", "web", "--sequence", "7", "--expires", "30d"]].concat());
    let before = std::fs::read(world.path("web.json")).unwrap();
    std::fs::write(world.path("revoked.toml"), "until = \"never\"\n").unwrap();
    let service = Service::start(&world, "none");
    let asks = |mirror: &str, words: &[&str]| -> Vec<String> {
        let words = [&["--json", "manifest", "re-endorse", "web.json", "--sign", "witness.pem"], words].concat();
        let of = ["--allow-simulated", "--product", "milan", "--mirror", mirror];
        words.iter().chain(&of).map(|word| (*word).to_owned()).collect()
    };
    let run = |mirror: &str, words: &[&str]| {
        let words = asks(mirror, words);
        let output = world.coffer(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        (output.status.code().unwrap(), said)
    };
    let good = ["--key", "author.pem.pub", "--revoked", "revoked.toml", "--out", "next.json"];

    // Whoever signed it is not the witness: it is believed for the keys that are named, and for no others.
    let (exit, said) = run(&service.1, &["--revoked", "revoked.toml"]);
    assert_eq!((exit, said["error"]["class"].as_str()), (5, Some("not-authentic")), "{said}");
    // Neither a list nor a word that there is none.
    assert_eq!(run(&service.1, &["--key", "author.pem.pub"]).0, 2);
    assert_eq!(run(&service.1, &[&good[..], &["--sequence", "7"]].concat()).0, 2);

    let kernel = hex::encode(sha2::Sha256::digest("kernel"));
    let measurement = measured["measurement"].as_str().unwrap();
    let lists = [
        (format!("until = \"never\"\ncomponents = [\"{kernel}\"]\n"), 6),
        (format!("until = \"never\"\nmeasurements = [\"{measurement}\"]\n"), 6),
        ("until = \"never\"\n[[manifests]]\nname = \"web\"\nup_to_sequence = 7\n".to_owned(), 6),
        ("until = \"2026-01-01T00:00:00Z\"\n".to_owned(), 3),
        ("until = \"never\"\nunknown = 1\n".to_owned(), 3),
    ];
    for (list, expected) in lists {
        std::fs::write(world.path("list.toml"), &list).unwrap();
        let (exit, said) =
            run(&service.1, &["--key", "author.pem.pub", "--revoked", "list.toml", "--out", "next.json"]);
        assert_eq!(exit, expected, "{list}: {said}");
        assert_eq!(said["error"]["reason"]["code"] == "revoked", expected == 6, "{said}");
    }
    // In the place of what its author signed it would leave nothing to endorse the next time.
    let (exit, said) = run(&service.1, &["--key", "author.pem.pub", "--revoked", "revoked.toml"]);
    assert_eq!((exit, said["error"]["class"].as_str()), (5, Some("not-authentic")), "{said}");
    assert_eq!(std::fs::read(world.path("web.json")).unwrap(), before);
    // A service that does not answer, or not well, endorses nothing.
    for (fault, expected) in [("500", 7), ("stale-crl", 5)] {
        let broken = Service::start(&world, fault);
        let (exit, said) = run(&broken.1, &good);
        assert_eq!(exit, expected, "{fault}: {said}");
    }
    assert!(!world.path("next.json").exists());

    let (exit, said) = run(&service.1, &good);
    assert_eq!((exit, said["sequence"].as_u64(), said["name"].as_str()), (0, Some(8), Some("web")), "{said}");
    assert_eq!(said["lists"].as_array().unwrap().len(), 1, "{said}");
    assert_eq!((&said["simulated"], &said["lists"][0]["product"]), (&Value::Bool(true), &"Milan".into()), "{said}");
    assert!(!said["simulated_roots"].as_array().unwrap().is_empty());
    let text = asks(&service.1, &good);
    let text: Vec<_> = text.iter().map(String::as_str).filter(|word| *word != "--json").collect();
    let text = world.coffer(&text);
    assert!(String::from_utf8_lossy(&text.stdout).contains("SIMULATED: "), "{text:?}");
    // Its author's span is the longest that a witness gives.
    let (exit, said) = run(&service.1, &[&good[..], &["--expires", "31d"]].concat());
    assert_eq!((exit, said["error"]["class"].as_str()), (6, Some("refused")), "{said}");
    // The next tick of a timer goes on behind the last; what is something else stays.
    let (exit, said) = run(&service.1, &good);
    assert_eq!((exit, said["sequence"].as_u64()), (0, Some(10)), "{said}");
    assert_eq!(run(&service.1, &[&good[..], &["--sequence", "10"]].concat()).0, 2);
    for other in ["revoked.toml", "author.pem.pub"] {
        let there = std::fs::read(world.path(other)).unwrap();
        let words = ["--key", "author.pem.pub", "--revoked", "revoked.toml", "--out", other];
        assert_eq!(run(&service.1, &words).0, 3, "{other}");
        assert_eq!(std::fs::read(world.path(other)).unwrap(), there);
    }
    assert_eq!(std::fs::read(world.path("web.json")).unwrap(), before);
    let next = world.json(&["manifest", "verify", "next.json", "--key", "witness.pem.pub"]);
    let old = world.json(&["manifest", "verify", "web.json", "--key", "author.pem.pub"]);
    for same in ["name", "workload_digest", "components", "measurements"] {
        assert_eq!(next[same], old[same]);
    }
    assert!(next["created"].as_str() >= old["created"].as_str());
    // The author's next release takes its place whatever the witness's number; the older one does not come back with a higher number.
    assert_eq!((&next["sequence"], &next["release"]), (&10.into(), &7.into()));
    std::fs::copy(world.path("web.json"), world.path("7.json")).unwrap();
    let later = ["measure", "--spec", "snp.toml", "--manifest", "8.json", "--sign", "author.pem", "--name", "web"];
    world.json(&[&later[..], &["--sequence", "8", "--expires", "30d"]].concat());
    std::fs::copy(world.path("next.json"), world.path("newest.json")).unwrap();
    let newest = ["--key", "author.pem.pub", "--revoked", "revoked.toml", "--out", "newest.json"];
    std::fs::copy(world.path("8.json"), world.path("web.json")).unwrap();
    let (exit, said) = run(&service.1, &newest);
    assert_eq!((exit, said["sequence"].as_u64(), said["release"].as_u64()), (0, Some(11), Some(8)), "{said}");
    std::fs::copy(world.path("7.json"), world.path("web.json")).unwrap();
    let there = std::fs::read(world.path("newest.json")).unwrap();
    let (exit, said) = run(&service.1, &newest);
    assert_eq!((exit, said["error"]["reason"]["code"].as_str()), (6, Some("older-release")), "{said}");
    assert_eq!(std::fs::read(world.path("newest.json")).unwrap(), there);
    // A policy that bounds its age is asked of a manifest, before anybody is dialled.
    let reference = |most: &str| {
        std::fs::write(world.path("policy.toml"), format!("measurements = \"any\"\nmax_manifest_age = \"{most}\"\n"))
            .unwrap();
        let connect = ["connect", "--reference", "next.json", "--manifest-key", "witness.pem.pub"];
        let words = [&connect[..], &["--policy", "policy.toml", "--guest-port", "1", "127.0.0.1:1"]].concat();
        let verify = ["verify", "https://127.0.0.1:1", "--reference", "next.json", "--manifest-key", "witness.pem.pub"];
        let exits = [words, [&verify[..], &["--policy", "policy.toml"]].concat()];
        exits.map(|words| world.coffer(&words).status.code().unwrap())
    };
    assert_eq!(reference("7d"), [7, 7], "nobody is there");
    let created = coffer_verifier::UnixTime::parse(next["created"].as_str().unwrap()).unwrap();
    while coffer_verifier::UnixTime::from(std::time::SystemTime::now()).0 <= created.0 + 1 {
        std::thread::yield_now();
    }
    assert_eq!(reference("1s"), [6, 6]);
    // As of when it is decided, where a file is: what is no evidence is said of that one alone.
    let file = ["verify", "next.json", "--reference", "next.json", "--manifest-key", "witness.pem.pub"];
    let file = [&file[..], &["--policy", "policy.toml"]].concat();
    let exit = |words: &[&str]| world.coffer(words).status.code();
    assert_eq!(exit(&file), Some(6));
    assert_eq!(exit(&[&file[..], &["--at", next["created"].as_str().unwrap()]].concat()), Some(3));
    // In place where it is the witness's own, with the list waived by name.
    std::fs::copy(world.path("next.json"), world.path("web.json")).unwrap();
    let words = ["--key", "witness.pem.pub", "--no-revocation-list", "--expires", "7d", "--out", "./web.json"];
    let (exit, said) = run(&service.1, &words);
    assert_eq!((exit, &said["revocation_list"]), (0, &Value::Null), "{said}");
    world.json(&["manifest", "verify", "web.json", "--key", "witness.pem.pub"]);
}

/// The command line of a unit that is shipped, with its folders here and ended by these words.
fn of_unit(world: &World, unit: &str, more: &[&str]) -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(unit)).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/coffer ")).unwrap();
    let here = world.folder.path().to_str().unwrap();
    let line = line.replace("${CREDENTIALS_DIRECTORY}", here).replace("${STATE_DIRECTORY}", &format!("{here}/home"));
    let line = line.replace("/etc/coffer/releases", here).replace("/etc/coffer", here).replace("%i", "web");
    line.split(' ').chain(more.iter().copied()).map(str::to_owned).collect()
}

#[test]
fn the_units_that_timers_start_do_what_they_are_for() {
    let world = World::new();
    for name in ["author.pem", "witness.pem"] {
        world.ok(&["manifest", "keygen", "--out", name]);
    }
    let measure = ["measure", "--spec", "spec.toml", "--manifest", "web.json", "--sign", "author.pem"];
    world.ok(&[&measure[..], &["--name", "web", "--sequence", "7", "--expires", "30d"]].concat());
    std::fs::write(world.path("revoked.toml"), "until = \"never\"\n").unwrap();
    let service = Service::start(&world, "none");
    let of = ["--allow-simulated", "--product", "milan", "--mirror", &service.1];
    let words = of_unit(&world, "coffer-endorse@.service", &of);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    for sequence in [8, 9] {
        world.ok(&words);
        let made = world.json(&["manifest", "verify", "home/web.json", "--key", "witness.pem.pub"]);
        assert_eq!(made["sequence"], sequence, "each day has its own number");
    }
    let words = of_unit(&world, "coffer-collateral.service", &["--allow-simulated", "--mirror", &service.1]);
    world.ok(&words.iter().map(String::as_str).collect::<Vec<_>>());
}
