//! The monitor's tests of private memory on a KVM that has some: in the nested laboratory, on a host kernel of our own, which
//! has machines of type KVM_X86_SW_PROTECTED_VM. What they are is in `runtime/vmm/src/snp/tests.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use coffer_tests::lab::{ALIVE, Lab, PROGRAMS};
use serde_json::Value;

/// For a host that is emulated and some fifty small guests inside it.
const PATIENCE: Duration = Duration::from_mins(8);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The folder of the kernel, which is not built here.
fn kernel() -> Result<PathBuf> {
    let built = Command::new(root().join("guest/kernel/build")).args(["--cached", "lab"]).output()?;
    ensure!(built.status.success(), "the laboratory's own kernel is not there; `make lab-kernel` builds it");
    Ok(PathBuf::from(String::from_utf8(built.stdout)?.trim_end()))
}

/// The program of the monitor's unit tests.
fn tests_of_the_monitor() -> Result<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--profile", "quick", "-p", "coffer-vmm", "--lib", "--no-run", "--message-format", "json"]);
    let built = cargo.current_dir(root()).output()?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let said = String::from_utf8(built.stdout)?;
    let messages = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    programs.next().context("cargo names no program")
}

#[test]
#[ignore = "needs a host kernel of our own; `make lab-kernel` builds it and runs this"]
fn private_memory_is_made_and_changes_hands_on_a_kvm_that_has_some() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::bare(kernel()?, 1024, folder.path())?;
    let tests = tests_of_the_monitor()?;
    lab.program(&tests, PROGRAMS)?;
    let name = tests.file_name().and_then(|name| name.to_str()).context("a plain name")?;
    let story = format!("uname -r\n{name} snp::tests:: snp::kvm:: snp::convert:: --test-threads 1 --nocapture\n");
    let said = lab.run(&story, PATIENCE)?;
    println!("{said}");
    let alive = said.split_once(ALIVE).and_then(|(_, rest)| rest.split_once(" s\n")?.0.parse::<f64>().ok());
    println!("the host's first program ran {} s after its clock started", alive.context("it says when")?);
    for expected in [
        "-coffer-lab\n",
        "test result: ok.",
        "private, shared, private, shared: shared again, what was shared before is gone",
        "16 MiB private, then shared: 0 MiB of guest memory",
        "touched: private, as shared: PoweredOff",
        "touched: shared, as private: PoweredOff",
        "touched: what the launch keeps, as shared: Pages(Kept",
        "touched: private memory in no slot: the guest's access to 0x3fff000 failed 64 times in a row",
        "ended: the guest asked to share",
        "refused by KVM: half a page: -22",
    ] {
        ensure!(said.contains(expected), "no {expected:?} in:\n{said}");
    }
    for skipped in ["skipped", "as far as this KVM goes"] {
        ensure!(!said.contains(skipped), "{skipped:?} in:\n{said}");
    }
    Ok(())
}
