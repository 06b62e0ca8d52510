//! The arrows between crates, as ARCHITECTURE.md draws them: they point down, or this test fails.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Crate, and the crates of ours it may use. What is absent is forbidden.
const ARROWS: &[(&str, &[&str])] = &[
    ("coffer-verifier", &[]),
    ("coffer-rim", &[]),
    ("coffer-image", &["coffer-rim"]),
    ("coffer-guest-proto", &[]),
    ("coffer-machine", &[]),
    ("coffer-spec", &["coffer-verifier", "coffer-machine"]),
    ("coffer-seal", &["coffer-verifier"]),
    ("coffer-stage0", &["coffer-machine"]),
    ("coffer-platform", &["coffer-verifier", "coffer-spec", "coffer-machine"]),
    ("coffer-simulator", &["coffer-verifier"]),
    ("coffer-policies", &["coffer-verifier"]),
    ("coffer-ratls", &["coffer-verifier"]),
    ("coffer-kbs-client", &["coffer-verifier", "coffer-ratls", "coffer-spec", "coffer-rim"]),
    (
        "coffer-guest",
        &[
            "coffer-verifier",
            "coffer-ratls",
            "coffer-machine",
            "coffer-spec",
            "coffer-seal",
            "coffer-guest-proto",
            "coffer-kbs-client",
            "coffer-rim",
        ],
    ),
    (
        "coffer-kbs",
        &["coffer-verifier", "coffer-ratls", "coffer-kbs-client", "coffer-policies", "coffer-spec", "coffer-rim"],
    ),
    (
        "coffer-runtime",
        &[
            "coffer-rim",
            "coffer-verifier",
            "coffer-ratls",
            "coffer-simulator",
            "coffer-machine",
            "coffer-platform",
            "coffer-spec",
            "coffer-guest-proto",
            "coffer-kbs-client",
            "coffer-image",
            "coffer-policies",
        ],
    ),
];

/// Sees every crate, seen by none.
const TOP: &str = "coffer-tests";

/// Foreign crate, and the crates of ours in whose product it may end up. An oracle of tests may end up in none.
const FOREIGN: &[(&str, &[&str])] = &[
    ("regorus", &["coffer-policies", "coffer-kbs", "coffer-runtime"]),
    ("rusqlite", &["coffer-kbs", "coffer-runtime"]),
    ("sev", &[]),
    ("rsa", &[]),
    ("openssl", &[]),
    ("ring", &[]),
];

/// Crates that do no I/O, and what would give it to them.
const PURE: &[&str] = &[
    "coffer-verifier",
    "coffer-simulator",
    "coffer-machine",
    "coffer-stage0",
    "coffer-platform",
    "coffer-spec",
    "coffer-seal",
    "coffer-policies",
];
const IO: &[&str] = &["tokio", "hyper", "reqwest", "tonic", "rusqlite", "tracing-subscriber"];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .expect("cargo metadata")
}

/// Everything that is linked into a crate, by name: what `cargo tree` says of normal dependencies, all the way down.
/// (`cargo metadata` also lists what only weak features could bring in.)
fn linked(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    metadata
        .workspace_packages()
        .into_iter()
        .map(|package| {
            let output = Command::new(env!("CARGO"))
                .args(["tree", "--offline", "-e", "normal", "--prefix", "none", "--target", "x86_64-unknown-linux-gnu"])
                .args(["--format", "{p}", "-p", package.name.as_str()])
                .current_dir(metadata.workspace_root.as_std_path())
                .output()
                .expect("cargo tree");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).expect("names are UTF-8");
            let names = text.lines().skip(1).filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
            (package.name.to_string(), names)
        })
        .collect()
}

#[test]
fn arrows_between_our_crates_point_down() {
    let metadata = metadata();
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        if package.name.as_str() == TOP {
            continue;
        }
        let Some(may) = allowed.get(package.name.as_str()) else {
            wrong.push(format!("{} stands on no map; add it to ARCHITECTURE.md and here", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            let ours = dependency.name.starts_with("coffer-");
            if ours && dependency.kind == DependencyKind::Normal && !may.contains(&dependency.name.as_str()) {
                wrong.push(format!("{} uses {}", package.name, dependency.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn foreign_crates_stay_where_they_belong() {
    let mut wrong = Vec::new();
    let linked = linked(&metadata());
    assert!(linked["coffer-runtime"].contains("tokio") && linked["coffer-kbs"].contains("regorus"), "no graph");
    for (package, linked) in linked {
        if package == TOP {
            continue;
        }
        for (foreign, may) in FOREIGN {
            if linked.contains(*foreign) && !may.contains(&package.as_str()) {
                wrong.push(format!("{package} links {foreign}"));
            }
        }
        if PURE.contains(&package.as_str()) {
            wrong.extend(IO.iter().filter(|io| linked.contains(**io)).map(|io| format!("{package} links {io}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unsafe_stands_in_sys_folders_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in ["verifier", "simulator", "guest", "kbs", "policies", "runtime", "tests"] {
        rust_files(&root.join(folder), &mut files);
    }
    assert!(files.len() > 30, "only {} files found", files.len());
    let block = concat!("uns", "afe {");
    let function = concat!("uns", "afe fn");
    let implementation = concat!("uns", "afe impl");
    for file in files {
        if file.components().any(|part| part.as_os_str() == "sys") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        for word in [block, function, implementation] {
            assert!(!text.contains(word), "{}: {word} outside sys/", file.display());
        }
    }
}

fn rust_files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}
