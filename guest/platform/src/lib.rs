//! What the guest platform is made of: stage0, kernel, initrd, command line; and the launch plan over them.
//!
//! Everything here is a pure function of its inputs: same kernel package, same init, same bytes, same measurement.
//! [`files`] alone reads and writes the platform folder.
//! Trusts: the files it is given. Never: puts anything host-specific on the measured command line.
#![forbid(unsafe_code)]

mod cpio;
pub mod files;
pub mod igvm_file;
pub mod initrd;
pub mod plan;
pub mod sample;

use coffer_spec::{Tee, workload_argument};
use coffer_verifier::abi::WorkloadDigest;

/// The measured kernel command line of a guest.
///
/// It names the workload digest and the secure processor demanded, exactly once each, and holds no value of the host's.
pub fn command_line(workload: &WorkloadDigest, tee: Tee) -> String {
    format!("{FIXED_COMMAND_LINE} {}", workload_argument(workload, tee))
}

/// The part that is the same for every guest.
///
/// `random.*`: keys wait for the CPU's own randomness, never for a seed the boot loader hands over.
/// `reboot=t panic=-1`: every end is a triple fault, which the VMM sees as the end of the guest.
pub const FIXED_COMMAND_LINE: &str = "console=ttyS0 quiet loglevel=4 reboot=t panic=-1 \
     random.trust_cpu=on random.trust_bootloader=off";

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_spec::MeasuredCommandLine;

    #[test]
    fn init_reads_back_what_the_command_line_states() {
        let digest = WorkloadDigest::of(b"spec");
        let parsed = MeasuredCommandLine::parse(&command_line(&digest, Tee::Simulated)).unwrap();
        assert_eq!(parsed, MeasuredCommandLine { workload: digest, tee: Tee::Simulated });
    }
}
