//! The arrows between crates, as ARCHITECTURE.md draws them: they point down, or this test fails.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use coffer_tests::sources::{Imports, code, is_test, root, rust_files};

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
    ("coffer-vmm", &["coffer-machine", "coffer-stage0"]),
    ("coffer-simulator", &["coffer-verifier"]),
    ("coffer-policies", &["coffer-verifier"]),
    ("coffer-ratls", &["coffer-verifier"]),
    ("coffer-token", &["coffer-verifier", "coffer-rim"]),
    ("coffer-kds", &["coffer-verifier", "coffer-rim"]),
    ("coffer-kbs-client", &["coffer-verifier", "coffer-ratls", "coffer-spec", "coffer-rim"]),
    ("coffer-verifier-service", &["coffer-verifier", "coffer-policies", "coffer-kds", "coffer-token", "coffer-rim"]),
    ("coffer-verifier-c", &["coffer-verifier"]),
    ("coffer-verifier-python", &["coffer-verifier"]),
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
        &[
            "coffer-verifier",
            "coffer-ratls",
            "coffer-token",
            "coffer-kds",
            "coffer-kbs-client",
            "coffer-policies",
            "coffer-spec",
            "coffer-rim",
        ],
    ),
    (
        "coffer-runtime",
        &[
            "coffer-rim",
            "coffer-verifier",
            "coffer-ratls",
            "coffer-token",
            "coffer-simulator",
            "coffer-machine",
            "coffer-platform",
            "coffer-spec",
            "coffer-seal",
            "coffer-vmm",
            "coffer-guest-proto",
            "coffer-kbs-client",
            "coffer-image",
            "coffer-kds",
            "coffer-policies",
        ],
    ),
];

/// Sees every crate, seen by none.
const TOP: &str = "coffer-tests";

/// Foreign crate, and the crates of ours in whose product it may end up. An oracle of tests may end up in none.
const FOREIGN: &[(&str, &[&str])] = &[
    ("regorus", &["coffer-policies", "coffer-kbs", "coffer-runtime", "coffer-verifier-service"]),
    ("rusqlite", &["coffer-kbs", "coffer-runtime"]),
    ("sev", &["coffer-runtime"]), // the firmware's commands of a host; never a verdict
    ("rsa", &[]),
    ("openssl", &[]),
    ("ring", &[]),
];

/// Crates that do no I/O, and what would give it to them.
const PURE: &[&str] = &[
    "coffer-verifier",
    "coffer-verifier-c",
    "coffer-verifier-python",
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
    let folders = ["verifier", "simulator", "guest", "kbs", "policies", "runtime", "tests"];
    let files: Vec<_> = folders.iter().flat_map(|folder| rust_files(&root().join(folder))).collect();
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

/// Files of libraries that speak for themselves, and why they may.
const SPEAKERS: &[(&str, &str)] = &[
    ("runtime/rim/src/out.rs", "defines what the programs print with"),
    ("guest/src/init.rs", "PID 1 has no voice but its console"),
    ("guest/src/events.rs", "the same, where the host does not listen"),
    ("verifier/src/measure/vectors.rs", "tests alone, which say which vectors they read"),
];

#[test]
fn libraries_take_no_command_lines_print_nothing_and_end_no_process() {
    let forbidden = ["clap", "println!", "print!", "eprintln!", "eprint!", "process::exit", "process::abort"];
    let (root, mut looked_at, mut wrong) = (root(), 0, Vec::new());
    for package in metadata().workspace_packages().into_iter().filter(|package| package.name.as_str() != TOP) {
        let source = package.manifest_path.parent().expect("a folder").join("src");
        for file in rust_files(source.as_std_path()) {
            let name = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
            let of_a_program = file.components().any(|part| part.as_os_str() == "bin") || file.ends_with("src/main.rs");
            if of_a_program || is_test(&file) || SPEAKERS.iter().any(|(speaker, _)| name == *speaker) {
                continue;
            }
            looked_at += 1;
            let words = code(&file).join("\n");
            let found = forbidden.iter().filter(|word| mentions(&words, word));
            wrong.extend(found.map(|word| format!("{name}: {word}")));
        }
    }
    assert!(looked_at > 150, "only {looked_at} files found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The word stands there, and not as the end of a longer one.
fn mentions(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

#[test]
fn what_libraries_must_not_do_is_found_where_it_is_done() {
    assert!(mentions("std::println!(x)", "println!") && mentions("use clap::Args;", "clap"));
    assert!(!mentions("eprintln!(x)", "println!") && !mentions("writer.sprint!()", "print!"));
}

/// Lines of code under `folder` that hold one of these words, in any case, as `file:line: text`.
fn lines_with(folder: &str, words: &[&str], apart: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    for file in rust_files(&root.join(folder)) {
        let name = file.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        if is_test(&file) || apart(&name) {
            continue;
        }
        for (number, line) in code(&file).iter().enumerate() {
            let lower = line.to_lowercase();
            if words.iter().any(|word| lower.contains(word)) {
                found.push((name.clone(), format!("{name}:{}: {}", number + 1, line.trim())));
            }
        }
    }
    found
}

/// Files that may still do what only others should, each with its reason. One that does no longer must go from its list.
fn still(found: &[(String, String)], allowed: &[(&str, &str)]) -> Vec<String> {
    let named = |name: &str| allowed.iter().any(|(file, _)| *file == name);
    let mut wrong: Vec<_> = found.iter().filter(|(name, _)| !named(name)).map(|(_, line)| line.clone()).collect();
    for (file, _) in allowed.iter().filter(|(file, _)| !found.iter().any(|(name, _)| name == file)) {
        wrong.push(format!("{file} may go from the list of those that still do"));
    }
    wrong
}

/// What writes a file by pieces, in place or through a link.
const WRITES: &[&str] =
    &["fs::write(", "file::create(", "fs::copy(", "fs::rename(", ".truncate(true)", ".create(true)"];
const WRITES_STILL: &[(&str, &str)] = &[
    ("runtime/src/bin/coffer/evidence/bench/kbs/broker.rs", "a configuration in a folder of its own, for one run"),
    ("runtime/src/bin/coffer/evidence/bench/service/program.rs", "the same"),
];

#[test]
fn programs_write_files_whole_by_the_one_writer() {
    let mut found = Vec::new();
    for folder in ["runtime/src/bin", "kbs/src/bin", "verifier/service/src", "verifier/token/src", "deploy"] {
        found.extend(lines_with(folder, WRITES, |_| false));
    }
    let wrong = still(&found, WRITES_STILL);
    assert!(wrong.is_empty(), "`coffer_rim::file::Writer` writes files: {wrong:#?}");
}

const SQL: &[&str] = &["rusqlite", "insert into ", "delete from ", "create table ", "select count(", "pragma "];
const SQL_STILL: &[(&str, &str)] = &[];

#[test]
fn sql_stands_where_a_database_is_and_nowhere_else() {
    let home = |name: &str| {
        let folders = ["kbs/src/store/sqlite/", "runtime/src/state/"];
        name.ends_with("/sqlite.rs")
            || name == "runtime/src/state.rs"
            || folders.iter().any(|folder| name.starts_with(folder))
    };
    let mut found = lines_with("runtime", SQL, home);
    found.extend(lines_with("kbs", SQL, home));
    let wrong = still(&found, SQL_STILL);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

const QEMU: &[&str] = &["qemu", "vhost", "qmp", "\"-accel", "microvm,"];
/// The word of `--isolation`, the one list of monitors, and what is not about running a guest of ours.
const QEMU_NAMED: &[(&str, &str)] = &[
    ("runtime/src/monitor/isolation.rs", "the isolation word"),
    ("runtime/src/monitor/mod.rs", "the one list of monitors"),
    ("runtime/src/bin/coffer/boxes/flags.rs", "the isolation word on the command line"),
    ("runtime/src/host/needs.rs", "which of its versions an SEV-SNP host needs"),
    ("runtime/src/bin/coffer/launch/measure_firmware.rs", "who else launches guests that are measured"),
];

#[test]
fn what_is_qemus_stands_behind_the_monitor_seam() {
    let behind = |name: &str| name.starts_with("runtime/src/monitor/qemu") || name.ends_with("/doctor.rs");
    let found = lines_with("runtime/src", QEMU, behind);
    let wrong = still(&found, QEMU_NAMED);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_engine_knows_no_command_line() {
    let found = lines_with("runtime/src/engine", &["--", "`coffer "], |_| false);
    let wrong = still(&found, &[]);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Circles of files that are left: crate, files, reason.
const CIRCLES: &[(&str, &[&str], &str)] = &[
    ("coffer-kbs", &["admin", "admin::changed"], "what changed is said of the requests that the admin API defines"),
    (
        "coffer-kbs",
        &["checkpoint_place", "config", "state"],
        "the state folder names the files that a checkpoint may not be, which the configuration asks and the folder obeys",
    ),
    (
        "coffer-kbs",
        &["store::sqlite", "store::sqlite::traces"],
        "the log is overwritten with the connection of the rows",
    ),
    ("coffer-kbs", &["admission", "guest"], "a guest's evidence is admitted by what its connection knows"),
    (
        "coffer-kbs",
        &[
            "store::audit",
            "store::batch",
            "store::checkpoint",
            "store::head",
            "store::known",
            "store::ledger",
            "store::view",
        ],
        "the ledger appends to the trail and names its faults, which the trail's file defines beside what reads the ledger, \
         and is committed in batches of what the head and the known rows say",
    ),
    (
        "stage0 (program)",
        &["platform", "serial"],
        "the platform's faults are said on the serial line, which the platform knows",
    ),
];

#[test]
fn no_file_imports_in_a_circle() {
    let metadata = metadata();
    let roots = metadata.workspace_packages().into_iter().flat_map(|package| {
        let program = |kind: &cargo_metadata::Target| kind.is_lib() || kind.is_bin();
        let name = |target: &cargo_metadata::Target| {
            if target.is_lib() { package.name.to_string() } else { format!("{} (program)", target.name) }
        };
        let targets = package.targets.iter().filter(|target| program(target));
        targets.map(|target| (name(target), target.src_path.clone())).collect::<Vec<_>>()
    });
    let (mut wrong, mut left) = (Vec::new(), BTreeSet::new());
    for (name, root) in roots.collect::<Vec<_>>() {
        for circle in Imports::of_crate(root.as_std_path()).circles() {
            let inside = |files: &[&str]| circle.iter().all(|file| files.contains(&file.as_str()));
            match CIRCLES.iter().position(|(of, files, _)| *of == name && inside(files)) {
                Some(known) => drop(left.insert(known)),
                None => wrong.push(format!("{name}: {circle:?}")),
            }
        }
    }
    let gone = CIRCLES.iter().enumerate().filter(|(at, _)| !left.contains(at));
    wrong.extend(
        gone.map(|(_, (name, files, _))| format!("{name}: {files:?} is no circle any more; take it off the list")),
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_circle_is_found_through_what_a_module_passes_on_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("lib.rs", "mod a;\nmod b;\nmod c;\npub use a::Thing;\n#[cfg(test)]\nmod tests {\n    use crate::c::X;\n}\n");
    write("a/mod.rs", "mod inner;\npub use inner::{Thing, Other as Renamed};\n");
    write("a/inner.rs", "use crate::{\n    b::{self, Of},\n    c,\n};\n");
    write("b.rs", "// use crate::c::X;\nuse super::Thing;\n");
    write("c.rs", "fn f() { crate::b::g(\"crate::a\") }\n");
    let circles = Imports::of_crate(&dir.path().join("lib.rs")).circles();
    assert_eq!(circles, [["a::inner", "b", "c"]]);
    write("b.rs", "fn g() {}\n");
    assert!(Imports::of_crate(&dir.path().join("lib.rs")).circles().is_empty());
}

#[test]
fn every_file_of_tests_is_compiled() {
    let mut programs = 0;
    for file in rust_files(&root()).into_iter().filter(|file| file.ends_with("tests/all.rs")) {
        programs += 1;
        let named = std::fs::read_to_string(&file).unwrap();
        for beside in std::fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()) {
            let name = beside.file_stem().unwrap().to_str().unwrap();
            let test = beside.extension().is_some_and(|end| end == "rs") && name != "all";
            assert!(!test || named.contains(&format!("\nmod {name};")), "{} is not named in all.rs", beside.display());
        }
    }
    assert!(programs >= 5, "{programs} programs of tests found");
}
