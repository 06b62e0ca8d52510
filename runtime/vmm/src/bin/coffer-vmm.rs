//! Runs one guest. Started by `coffer` in the folder of a box, with the guest's description on standard input, which is a
//! socket and stays the line to the supervisor; standard output is the guest's serial line, standard error the monitor's own
//! words.
//!
//! Ends with 0 when the guest ended, with the byte of stage0's reason when it refused ([`coffer_machine::Refusal::exit_byte`]), and
//! below those with 1 for a defect or a guest that asks of its pages what none of ours does, 2 for another use, 3 for a bad description or file, 4 for what the host lacks.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use coffer_vmm::machine::News;
use coffer_vmm::{Description, End, machine};

const DEFECT: u8 = 1;
const USE: u8 = 2;
const CONFIGURATION: u8 = 3;
const PLATFORM: u8 = 4;

fn main() -> ExitCode {
    if std::env::args_os().len() > 1 {
        return say(USE, "takes no arguments: `coffer run --isolation kvm` starts it");
    }
    let (control, line, output) = match inherited() {
        Ok(all) => all,
        Err(error) => return say(USE, &format!("standard input is not a supervisor's line: {error}")),
    };
    let description = match Description::parse(&line) {
        Ok(description) => description,
        Err(error) => return say(CONFIGURATION, &format!("cannot read the description: {error}")),
    };
    let told = |news: News| match news {
        News::Corrected(correction) => {
            say(0, &format!("the secure processor corrected {correction}"));
        }
        News::Lost(network) => {
            if let Some(why) = network.link {
                say(0, &format!("the guest's network went down: {why}"));
            }
            let (from, to) = (network.from_guest, network.to_guest);
            say(0, &format!("network frames dropped: {from} of the guest, {to} for it"));
        }
        News::Jail(layers) => {
            if !layers.namespaces {
                say(0, "this host lets it leave no namespace: the jail is Landlock and system call filters");
            }
            if !layers.landlock {
                say(0, "this kernel has no Landlock: the jail is namespaces and system call filters");
            }
        }
    };
    match machine::run(&description, control, output, told) {
        Ok(End::PoweredOff | End::Unwanted) => ExitCode::SUCCESS,
        Ok(End::Refused(refusal)) => ExitCode::from(refusal.exit_byte()),
        Ok(End::Stuck(why)) => say(DEFECT, &format!("the machine stopped: {why}")),
        Ok(End::Pages(why)) => say(DEFECT, &format!("the guest was ended: {why}")),
        Err(error) => {
            let class = if error.is_of_description() { CONFIGURATION } else { PLATFORM };
            let status = say(class, &chain(&error));
            if let Some(hint) = error.hint() {
                say(class, &format!("hint: {hint}"));
            }
            status
        }
    }
}

/// The line to the supervisor, the description that came over it, and the guest's serial line.
fn inherited() -> io::Result<(UnixStream, Vec<u8>, File)> {
    let mut control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut line = Vec::new();
    let mut bytes = [0; 4096];
    while line.last() != Some(&b'\n') && line.len() < LONGEST {
        match control.read(&mut bytes)? {
            0 => break,
            count => line.extend_from_slice(&bytes[..count]),
        }
    }
    Ok((control, line, output))
}

/// Most bytes of a description.
const LONGEST: usize = 1 << 20;

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

fn say(status: u8, what: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "coffer-vmm: {what}");
    ExitCode::from(status)
}
