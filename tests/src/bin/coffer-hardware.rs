//! `coffer-hardware`: what `make hardware` runs.

use std::path::PathBuf;
use std::process::ExitCode;

use coffer_tests::hardware::{Options, Verdict, tell};

const USAGE: &str = "usage: coffer-hardware [--simulated] [--boxes N] [--out FILE]

Looks at this host, launches SEV-SNP guests through each monitor that can, and writes one archive to send back:
logs, reports, certificates, versions; no key and no secret. Needs what `coffer doctor` lists, a quarter of an hour.

  --simulated   the simulator in the processor's place: the same stories on any machine
  --boxes N     boxes at once in the last story [default: 20]
  --out FILE    the archive [default: coffer-hardware.tar.gz]

Exit code: 0 every story went as told, 1 one did not, 2 the command line is wrong, 4 this host cannot launch.";

fn main() -> ExitCode {
    let mut options = Options { simulated: false, boxes: 20, out: PathBuf::from("coffer-hardware.tar.gz") };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let understood = match word.as_str() {
            "--simulated" => {
                options.simulated = true;
                true
            }
            "--boxes" => words.next().and_then(|text| text.parse().ok()).is_some_and(|boxes| {
                options.boxes = boxes;
                (1..=100).contains(&boxes)
            }),
            "--out" => words.next().is_some_and(|path| {
                options.out = path.into();
                true
            }),
            _ => false,
        };
        if !understood {
            eprintln!("coffer-hardware: {word:?} is no option, or lacks its value\n\n{USAGE}");
            return ExitCode::from(2);
        }
    }
    match tell(&options) {
        Ok(Verdict::Passed) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::FAILURE,
        Ok(Verdict::NoHardware) => ExitCode::from(4),
        Err(error) => {
            eprintln!("\ncoffer-hardware: {error:#}");
            ExitCode::FAILURE
        }
    }
}
