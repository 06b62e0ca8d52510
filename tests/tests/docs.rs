//! Every example in README and docs is run as it stands there; one that is not says why, on the page.

use crate::vectors;
use std::{
    fmt::Write,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use coffer_tests::{
    World,
    demo::attack::changed_platform,
    image,
    page::{Kind, Page, shows},
    process::{Finished, binary, run},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn pages() -> Vec<PathBuf> {
    let mut all = vec![root().join("README.md")];
    for entry in fs::read_dir(root().join("docs")).unwrap().flatten() {
        if entry.path().extension().is_some_and(|e| e == "md") {
            all.push(entry.path());
        }
    }
    all.sort();
    all
}

/// What pages may need, put into the folder they run in.
fn provide(need: &str, world: &World, folder: &Path) -> Result<bool> {
    match need {
        "busybox" => {
            let (_registry, reference) = image::pulled(world)?;
            // Docker Hub is not here: its name is given to the same image.
            let index = world.home().join("images/index.json");
            let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&index)?)?;
            let entry = json["references"][&reference].clone();
            ensure!(entry.is_object(), "{reference} is not in {json}");
            json["references"]["docker.io/library/busybox:latest"] = entry;
            fs::write(&index, serde_json::to_vec(&json)?)?;
            Ok(true)
        }
        // The next release of the platform: measured otherwise, and good for the same.
        "next platform" => changed_platform(&world.platform, &folder.join("next"), 2).map(|_| true),
        "report" => {
            let Some(sample) = vectors::folder("snp/milan-v2-kvm") else { return Ok(false) };
            for entry in fs::read_dir(&sample).with_context(|| format!("{}", sample.display()))?.flatten() {
                fs::copy(entry.path(), folder.join(entry.file_name()))?;
            }
            Ok(true)
        }
        other => bail!("pages can run with busybox, next platform or report, not with {other}"),
    }
}

/// Runs a script as a reader's shell would, in a network of its own, so that pages may name ports.
fn shell(script: &Path, world: &World, folder: &Path) -> Result<Finished> {
    let mut path = std::ffi::OsString::from(binary("coffer")?.parent().context("a folder")?);
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut command = Command::new("unshare");
    command.args(["--net", "--kill-child", "sh", "-c", "ip link set lo up && exec bash \"$0\""]).arg(script);
    command.current_dir(folder).env("PATH", path).env("COFFER_HOME", world.home());
    command.env("COFFER_PLATFORM", &world.platform).env_remove("COFFER_KBS_PROFILE");
    command.process_group(0);
    run(&mut command, b"")
}

const MARK: &str = "=====coffer-page=====";

fn run_page(path: &Path) -> Result<Option<String>> {
    let page = Page::parse(&fs::read_to_string(path)?).with_context(|| format!("{}", path.display()))?;
    let world = World::new()?;
    let folder = world.folder.path().join("reader");
    fs::create_dir(&folder)?;
    for need in &page.needs {
        if !provide(need, &world, &folder)? {
            return Ok(None);
        }
    }
    // Sessions are compared afterwards; commands end the script where they fail.
    let mut script = String::from("exec 2>&1\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n");
    let mut expected = Vec::new();
    for block in &page.blocks {
        match &block.kind {
            Kind::Skipped(_) => {}
            Kind::Commands(text) => {
                writeln!(script, "echo '{MARK}line {}'\nset -euo pipefail\n{text}", block.line)?;
                expected.push((block.line, None));
            }
            Kind::Session(exchanges) => {
                for exchange in exchanges {
                    writeln!(script, "echo '{MARK}line {}'\nset +e\n{}", block.line, exchange.command)?;
                    expected.push((block.line, Some(exchange)));
                }
            }
        }
    }
    writeln!(script, "echo '{MARK}end'")?;
    let file = world.folder.path().join("page.sh");
    fs::write(&file, &script)?;
    let finished = shell(&file, &world, &folder)?;
    let printed: Vec<&str> = finished.stdout.split(MARK).skip(1).collect();
    ensure!(
        finished.status == 0 && printed.last().is_some_and(|last| last.starts_with("end")),
        "{} {}: {}",
        path.display(),
        printed.last().and_then(|last| last.lines().next()).unwrap_or("start"),
        finished.describe()
    );
    for ((line, exchange), text) in expected.iter().zip(&printed) {
        if let Some(exchange) = exchange {
            let output = text.split_once('\n').map_or("", |(_, rest)| rest);
            if let Err(why) = shows(&exchange.output, output) {
                bail!("{} line {line}: `{}`: {why}\n--- printed\n{output}", path.display(), exchange.command);
            }
        }
    }
    Ok(Some(finished.stdout))
}

fn page(name: &str) {
    match run_page(&root().join(name)) {
        Ok(Some(_)) => {}
        Ok(None) => eprintln!("{name}: not run, the vectors are not here (COFFER_VECTORS)"),
        Err(error) => panic!("{error:#}"),
    }
}

macro_rules! runs {
    ($($test:ident: $page:literal),* $(,)?) => {
        $(#[test] fn $test() { page($page); })*
        const RUN: &[&str] = &[$($page),*];
    };
}

runs! {
    audit: "docs/audit.md",
    readme: "README.md",
    collateral: "docs/collateral.md",
    disks: "docs/disks.md",
    getting_started: "docs/getting-started.md",
    id_block_and_manifests: "docs/id-block-and-manifests.md",
    kbs: "docs/kbs.md",
    measured_boot: "docs/measured-boot.md",
    owner_access: "docs/owner-access.md",
    packages: "docs/packages.md",
    policies: "docs/policies.md",
    images: "docs/images.md",
    ingress: "docs/ingress.md",
    network: "docs/network.md",
    sealing: "docs/sealing.md",
    simulator: "docs/simulator.md",
    verifier: "docs/verifier.md",
    verifier_service: "docs/verifier-service.md",
    volumes: "docs/volumes.md",
}

#[test]
fn every_page_with_examples_is_run_and_what_is_skipped_says_why() {
    let mut skipped = Vec::new();
    for path in pages() {
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let page = Page::parse(&fs::read_to_string(&path).unwrap()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let runs = page.blocks.iter().any(|block| !matches!(block.kind, Kind::Skipped(_)));
        assert!(!runs || RUN.contains(&name.as_str()), "{name} has examples and is not run");
        for block in page.blocks {
            if let Kind::Skipped(reason) = block.kind {
                skipped.push(format!("{name}:{}: {reason}", block.line));
            }
        }
    }
    assert!(skipped.len() < 12, "most examples must run: {skipped:#?}");
}
