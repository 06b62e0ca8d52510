//! `coffer manifest export`: what other readers find in it is what the manifest says, in the one encoding and by the drafts' grammar.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use coffer_verifier::UnixTime;
use serde_json::{Value, json};

use crate::id_and_manifest::World;

/// What independent readers say of a file, or why they refuse it.
fn read(world: &World, corim: &str, key: Option<&str>) -> Output {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .expect("a home folder");
    let mut command = Command::new("/usr/bin/python3");
    command
        .env("PYTHONPATH", cache.join("coffer/tools/pycddl"))
        .arg(here.join("corim.py"))
        .arg(here.join("corim.cddl"));
    command.arg(world.path(corim)).args(key.map(|key| world.path(key))).output().unwrap()
}

fn believed(world: &World, corim: &str, key: Option<&str>) -> Value {
    let output = read(world, corim, key);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{corim}: `make setup` installs pycddl; {why}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn exported() -> (World, Value) {
    let world = World::new();
    world.ok(&["manifest", "keygen", "--out", "author.pem"]);
    let measure = ["measure", "--spec", "spec.toml", "--manifest", "web.json", "--sign", "author.pem", "--name", "web"];
    world.json(&[&measure[..], &["--sequence", "7"]].concat());
    let says = world.json(&["manifest", "verify", "web.json", "--key", "author.pem.pub"]);
    (world, says)
}

#[test]
fn other_readers_find_the_manifests_values_in_its_corim_signed_and_unsigned() {
    let (world, manifest) = exported();
    let export = |words: &[&str]| world.json(&[&["manifest", "export", "web.json"], words].concat());
    let unsigned = export(&["--key", "author.pem.pub", "--out", "a.corim"]);
    let signed = export(&["--sign", "author.pem", "--out", "b.corim"]);
    assert_eq!((&unsigned["key"], &signed["key"]), (&Value::Null, &manifest["key"]));
    let launches = manifest["measurements"].as_array().unwrap();
    let mut tags = serde_json::Map::new();
    for one in launches {
        let word = |key: &str| one[key].as_str().unwrap();
        let name = format!("coffer:web:{}:{}:{}", word("launch"), one["vcpus"], word("vcpu_type"));
        // VCEK and VLEK: 1.3.6.1.4.1.3704.3.1 and .2.
        let classes = json!({ "2b060104019c780301": one["measurement"], "2b060104019c780302": one["measurement"] });
        tags.insert(name, json!({ "version": 7, "classes": classes }));
    }
    assert_eq!((tags.len(), &unsigned["tags"]), (launches.len(), &json!(launches.len())));
    let time = |key: &str| UnixTime::parse(manifest[key].as_str().unwrap()).unwrap().0;
    let mut expected = json!({
        "id": "coffer:web:7", "tags": tags, "profile": "tag:amd.com,2025:snp-corim-profile",
        "from": time("created"), "until": time("expires"), "signer": null,
        // No bit of it is there for nothing: flipped, it is refused or says something else.
        "unseen": [],
    });
    assert_eq!(believed(&world, "a.corim", None), expected);
    expected["signer"] = json!({ "name": manifest["key"], "from": time("created"), "until": time("expires") });
    assert_eq!(believed(&world, "b.corim", Some("author.pem.pub")), expected);
    // The same manifest, the same bytes: what is signed holds what is not.
    let (a, b) = (std::fs::read(world.path("a.corim")).unwrap(), std::fs::read(world.path("b.corim")).unwrap());
    assert!(b.windows(a.len()).any(|part| part == a));
    export(&["--unverified", "--out", "c.corim"]);
    assert_eq!(std::fs::read(world.path("c.corim")).unwrap(), a);
    let unsaid: Vec<_> = signed["unsaid"].as_array().unwrap().iter().map(|one| &one["what"]).collect();
    assert_eq!(unsaid, ["guest_policy", "workload_digest", "components", "launch"]);

    // These readers do refuse: a changed byte of what is signed, and what the grammar does not have.
    let mut bent = b.clone();
    let at = bent.len() - 200;
    bent[at] ^= 1;
    std::fs::write(world.path("bent.corim"), &bent).unwrap();
    assert!(!read(&world, "bent.corim", Some("author.pem.pub")).status.success());
    let year = a.windows(4).position(|part| part == b"2025").unwrap() + 3;
    let mut other = a.clone();
    other[year] = b'4';
    for bent in [&other[..], &a[..a.len() - 1]] {
        std::fs::write(world.path("bent.corim"), bent).unwrap();
        assert!(!read(&world, "bent.corim", None).status.success());
    }
}

#[test]
fn only_what_is_believed_is_exported_and_what_is_not_is_named_so() {
    let (world, _) = exported();
    world.ok(&["manifest", "keygen", "--out", "other.pem"]);
    let exit = |words: &[&str]| {
        let words = [&["manifest", "export", "web.json", "--out", "x.corim"], words].concat();
        world.coffer(&words).status.code().unwrap()
    };
    assert_eq!(exit(&[]), 2, "neither a key nor a word that none is asked for");
    assert_eq!(exit(&["--unverified", "--sign", "author.pem"]), 2, "nobody signs what was not looked at");
    assert_eq!(exit(&["--format", "rvps", "--unverified"]), 2);
    assert_eq!(exit(&["--key", "other.pem.pub"]), 5);
    assert_eq!(exit(&["--sign", "other.pem"]), 5);
    assert!(!world.path("x.corim").exists());
    // Whoever is believed for it and whoever signs may differ, as with `re-endorse`.
    assert_eq!(exit(&["--sign", "other.pem", "--key", "author.pem.pub"]), 0);
    let said = world.ok(&["manifest", "export", "web.json", "--unverified", "--out", "y.corim"]);
    assert!(said.contains("NOT VERIFIED") && said.contains("unsaid    workload_digest: "), "{said}");
}
