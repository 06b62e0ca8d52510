//! No crate lists a dependency it does not use, and the workspace lists none that no crate does.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Used without being named in Rust source, and why.
const UNNAMED: &[(&str, &str)] = &[("tonic-prost", "named by generated code"), ("prost", "named by generated code")];

fn sources(folder: &Path, out: &mut String) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            // What several crates share stands in another folder.
            let shared = text.lines().filter_map(|line| line.trim().strip_prefix("#[path = \"")?.strip_suffix("\"]"));
            for file in shared.map(|file| folder.join(file)) {
                out.push_str(&std::fs::read_to_string(&file).unwrap_or_default());
            }
            out.push_str(&text);
            out.push('\n');
        }
    }
}

fn uses(text: &str, name: &str) -> bool {
    let name = name.replace('-', "_");
    let mut rest = text;
    while let Some(at) = rest.find(&name) {
        let before = rest[..at].chars().next_back();
        let after = &rest[at + name.len()..];
        let bounded = before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
            && after.chars().next().is_none_or(|c| !c.is_alphanumeric() && c != '_');
        if bounded && (after.starts_with("::") || after.starts_with([';', ' ', ',', '}', ']', ')'])) {
            return true;
        }
        rest = after;
    }
    false
}

#[test]
fn every_dependency_is_used_by_whoever_lists_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .expect("cargo metadata");
    let (mut wrong, mut listed) = (Vec::new(), BTreeSet::new());
    for package in metadata.workspace_packages() {
        let folder: PathBuf = package.manifest_path.parent().unwrap().into();
        let text = |folders: &[&str]| {
            let mut text = String::new();
            for name in folders {
                sources(&folder.join(name), &mut text);
            }
            text
        };
        let (product, proof) = (text(&["src"]), text(&["src", "tests", "benches", "examples"]));
        let build = text(&["build"]) + &std::fs::read_to_string(folder.join("build.rs")).unwrap_or_default();
        for dependency in &package.dependencies {
            listed.insert(dependency.name.clone());
            let (text, kind) = match dependency.kind {
                DependencyKind::Development => (&proof, "dev-dependency"),
                DependencyKind::Build => (&build, "build-dependency"),
                _ => (&product, "dependency"),
            };
            let unnamed = UNNAMED.iter().any(|(name, _)| *name == dependency.name);
            if !unnamed && !uses(text, &dependency.name) {
                wrong.push(format!("{}: {kind} {} is not used", package.name, dependency.name));
            }
        }
    }
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let table = manifest.split("[workspace.dependencies]").nth(1).and_then(|rest| rest.split("\n[").next()).unwrap();
    for name in table.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.trim()) {
        if !name.starts_with('#') && !listed.contains(name) {
            wrong.push(format!("the workspace lists {name}, and no crate uses it"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_foreign_dependency_says_why_it_is_needed() {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml")).unwrap();
    let table = manifest.split("[workspace.dependencies]").nth(1).and_then(|rest| rest.split("\n[").next()).unwrap();
    let silent: Vec<_> = table
        .lines()
        .filter(|line| line.contains(" = ") && !line.starts_with(['#', ' ']) && !line.starts_with("coffer-"))
        .filter(|line| line.split_once(" # ").is_none_or(|(_, reason)| reason.trim().len() < 5))
        .collect();
    assert!(silent.is_empty(), "{silent:#?}");
}
