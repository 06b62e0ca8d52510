//! PID 1 of the guest and, started again by itself, the helper that becomes a program of the workload.

use std::process::ExitCode;

use coffer_guest::{container::helper, init};
use coffer_machine::namespaces;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first() {
        Some((stage, _)) if stage == helper::STAGE => helper::run(),
        Some((stage, left)) if stage == namespaces::STAGE => init::run_in_namespaces(left),
        _ => init::run(),
    }
}
