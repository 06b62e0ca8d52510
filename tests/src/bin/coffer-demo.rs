//! `coffer-demo`: what `make demo` runs.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args().len() > 1 {
        eprintln!(
            "usage: coffer-demo\n\nRuns the demonstration in a temporary folder; takes about a minute; leaves nothing behind."
        );
        return ExitCode::from(2);
    }
    match coffer_tests::demo::tell() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ncoffer-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
