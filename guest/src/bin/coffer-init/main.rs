//! PID 1 of the guest and, started again by itself, the helper that becomes a program of the workload.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(coffer_guest::container::helper::STAGE) {
        return coffer_guest::container::helper::run();
    }
    coffer_guest::init::run()
}
