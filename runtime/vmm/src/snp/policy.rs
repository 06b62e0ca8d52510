//! POLICY of a launch: judged by what every launch of ours must and must not have, and by what this kernel passes on.
//!
//! Source: SNP ABI, guest policy; Linux arch/x86/kvm/svm/sev.c, `snp_launch_start`.

use std::fmt;

/// Why a launch with a policy is not tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The bit that is always one.
    #[error("policy {0:#x} lacks bit 17, which must be one")]
    Reserved(u64),
    /// The host could read the guest, or move it.
    #[error("policy {policy:#x} allows {bits}, and a guest that the host may read is none of ours")]
    Open {
        /// As asked.
        policy: u64,
        /// What it allows.
        bits: Bits,
    },
    /// The kernel would refuse it.
    #[error("this kernel passes no policy on with {0}")]
    NotPassed(Bits),
}

/// Bits of a policy, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits(u64);

impl fmt::Display for Bits {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = (0..64).filter(|bit| self.0 >> bit & 1 == 1);
        for (index, bit) in set.enumerate() {
            let name = NAMES.iter().find(|(at, _)| *at == bit).map_or("unknown", |(_, name)| name);
            write!(out, "{}{name} (bit {bit})", if index > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// Judges. `passed_on` is what the kernel says it passes on to the firmware; kernels before 6.19 do not say, and
/// SNP_LAUNCH_START has the last word either way.
///
/// # Errors
/// [`PolicyError`].
pub fn judge(policy: u64, passed_on: Option<u64>) -> Result<(), PolicyError> {
    if policy & MUST_BE_ONE == 0 {
        return Err(PolicyError::Reserved(policy));
    }
    if policy & (DEBUG | MIGRATE) != 0 {
        return Err(PolicyError::Open { policy, bits: Bits(policy & (DEBUG | MIGRATE)) });
    }
    match passed_on.map_or(0, |passed_on| policy & !passed_on) {
        0 => Ok(()),
        bits => Err(PolicyError::NotPassed(Bits(bits))),
    }
}

/// What to do where the kernel itself refuses a policy (EINVAL of SNP_LAUNCH_START).
pub const KERNEL_REFUSES: &str = "Linux up to 6.16 wants a policy that allows SMT (bit 16) and none that demands a single \
                                  socket (bit 20), whatever the firmware could do; a newer kernel leaves both to the firmware";

const MUST_BE_ONE: u64 = 1 << 17;
const MIGRATE: u64 = 1 << 18;
const DEBUG: u64 = 1 << 19;
const NAMES: &[(u32, &str)] = &[
    (16, "SMT"),
    (17, "the bit that must be one"),
    (18, "a migration agent"),
    (19, "debugging"),
    (20, "single socket"),
    (21, "CXL"),
    (22, "AES-256-XTS"),
    (23, "RAPL off"),
    (24, "ciphertext hiding"),
    (25, "page swap off"),
];

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: u64 = 0x3_0000;

    #[test]
    fn the_usual_policy_passes_and_one_the_host_could_read_through_does_not() {
        assert_eq!(judge(USUAL, None), Ok(()));
        assert_eq!(judge(0x1_0000, None), Err(PolicyError::Reserved(0x1_0000)));
        for bit in [18, 19] {
            assert!(matches!(judge(USUAL | 1 << bit, Some(u64::MAX)), Err(PolicyError::Open { .. })), "{bit}");
        }
    }

    #[test]
    fn what_the_kernel_does_not_pass_on_is_named() {
        let passed_on = 0x1B_FFFF;
        assert_eq!(judge(USUAL | 1 << 20, Some(passed_on)), Ok(()));
        let refused = judge(USUAL | 1 << 22 | 1 << 24 | 1 << 40, Some(passed_on)).unwrap_err().to_string();
        assert!(refused.ends_with("AES-256-XTS (bit 22), ciphertext hiding (bit 24), unknown (bit 40)"), "{refused}");
    }
}
