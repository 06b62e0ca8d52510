//! `coffer-demo`: what `make demo` runs.

use std::process::ExitCode;

use coffer_tests::monitors::Monitor;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let monitor = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => None,
        ["--isolation", word] if Monitor::of(word).is_some() => Monitor::of(word),
        _ => {
            eprintln!(
                "usage: coffer-demo [--isolation kvm|qemu|process]\n\nRuns the demonstration in a temporary folder; takes about a minute; leaves nothing behind."
            );
            return ExitCode::from(2);
        }
    };
    match coffer_tests::demo::tell(monitor) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ncoffer-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
