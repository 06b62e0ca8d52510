//! The seam between a box and whatever runs its guest.
//!
//! A [`Monitor`] takes a [`Launch`], a full description of one guest in values and files, and gives a [`Running`] guest with
//! a typed [`End`]. What lies above the seam (supervisor, engine, commands) knows no program, flag or exit status of a
//! monitor; what lies below knows no box record, spec or fate.
//!
//! What every monitor owes: it loads exactly the measured files it is given, at the addresses of the machine model; it
//! offers the guest's vsock as hybrid sockets in the box folder ([`vsock`]), where commands in other processes reach the
//! guest without asking the supervisor; it hands on the console ([`Console`]); its guest never outlives the supervisor.
//!
//! To add a monitor: a folder or file here with an implementation of [`Monitor`], and its line in [`of`]; if people are to
//! name it by a new word, that word in [`Isolation`]. Nothing else names it.
//!
//! Trusts: the files of the box folder. Never: reads a box record, tells the user anything, decides how a box ended.

mod acceleration;
mod child;
mod console;
#[cfg(test)]
pub mod fake;
mod isolation;
pub mod kvm;
pub mod lent;
mod limits;
pub mod namespaces;
pub mod network;
pub mod qemu;
mod seam;
pub mod vsock;

use coffer_rim::{Class, Failure};

use crate::tools::Search;
use crate::volumes::MKE2FS;

pub use console::{BLOCK_CORRUPT, Console};
pub use isolation::Isolation;
pub use limits::Limits;
pub use seam::{
    Access, Capabilities, Card, Disk, End, How, Launch, Measured, Monitor, Ready, Running, SnpId, SnpLaunch, Starting,
    Writes,
};

/// Environment variables by which the operator names a monitor's programs, and the one that makes disks of volumes.
pub const VARIABLES: [&str; 6] = [
    qemu::QEMU.variable,
    qemu::VHOST_VSOCK.variable,
    kvm::VMM.variable,
    namespaces::HOLDER.variable,
    network::PASST.variable,
    MKE2FS.variable,
];

/// The monitor behind a word. Every monitor stands here, and only here.
///
/// # Errors
/// Class `platform` for a word that has no monitor yet.
pub fn of(isolation: Isolation, search: &Search) -> Result<Box<dyn Monitor>, Failure> {
    match isolation {
        Isolation::Qemu => Ok(Box::new(qemu::Qemu::new(search))),
        Isolation::Kvm => Ok(Box::new(kvm::Kvm::new(search))),
        Isolation::Process => Ok(Box::new(namespaces::Namespaces::new(search))),
    }
}

/// The strongest isolation that works on this machine, where nobody asked for one.
///
/// # Errors
/// Of the weakest: what it lacks, when none works.
pub fn strongest(search: &Search) -> Result<Isolation, Failure> {
    let mut lacking = None;
    for isolation in Isolation::UNASKED {
        match of(isolation, search).and_then(|monitor| monitor.check()) {
            Ok(_) => return Ok(isolation),
            // What is not built yet is no remedy for what is missing.
            Err(failure) if isolation == Isolation::default() => lacking = Some(failure),
            Err(_) => {}
        }
    }
    Err(lacking.unwrap_or_else(|| Failure::new(Class::Platform, "no monitor works on this machine")))
}

/// What launches a box on SEV-SNP, where nobody named it: the first that can on this machine.
///
/// # Errors
/// Of the last: what it lacks, when none can.
pub fn strongest_with_snp(search: &Search) -> Result<Isolation, Failure> {
    let mut lacking = Failure::new(Class::Platform, "no monitor launches SEV-SNP guests on this machine");
    for isolation in Isolation::WITH_SNP {
        let checked = of(isolation, search).and_then(|monitor| {
            monitor.check_snp()?;
            monitor.check().map(drop)
        });
        match checked {
            Ok(()) => return Ok(isolation),
            Err(failure) => lacking = failure,
        }
    }
    Err(lacking)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_a_monitor_or_says_that_it_has_none_yet() {
        let search = Search::default();
        for isolation in Isolation::ALL {
            match of(isolation, &search) {
                Ok(monitor) => assert!(!monitor.name().is_empty()),
                Err(failure) => {
                    assert_eq!(failure.class, Class::Platform);
                    assert!(failure.message.contains(isolation.word()), "{failure}");
                }
            }
        }
    }

    #[test]
    fn without_any_monitor_the_failure_says_what_to_install() {
        let failure = strongest(&Search::default()).unwrap_err();
        assert_eq!(failure.class, Class::Platform);
        assert!(failure.hint.unwrap().contains("install"), "{}", failure.message);
    }
}
