//! The measured kernel command line: which words of ours stand on it, and that each stands there exactly once.

use coffer_verifier::abi::WorkloadDigest;

use crate::Tee;

/// `coffer.tee=` word.
pub type TeeWord = Tee;

/// Why a command line is not ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandLineError {
    /// Absent.
    #[error("kernel command line lacks {0}")]
    Missing(&'static str),
    /// There twice.
    #[error("kernel command line has {0} more than once")]
    Duplicate(&'static str),
    /// Unreadable.
    #[error("kernel command line has {key}{value}, expected {expected}")]
    Value {
        /// Which word.
        key: &'static str,
        /// What follows.
        value: String,
        /// What should follow.
        expected: &'static str,
    },
}

/// The two words init reads from the measured command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeasuredCommandLine {
    /// Digest of the workload spec.
    pub workload: WorkloadDigest,
    /// Secure processor demanded.
    pub tee: Tee,
}

const WORKLOAD: &str = "coffer.workload=";
const TEE: &str = "coffer.tee=";

impl MeasuredCommandLine {
    /// Reads the words from a kernel command line.
    ///
    /// # Errors
    /// [`CommandLineError`] unless each stands there exactly once with a value we know.
    pub fn parse(line: &str) -> Result<Self, CommandLineError> {
        let workload = once(line, WORKLOAD)?;
        let workload = workload.parse().map_err(|_| CommandLineError::Value {
            key: WORKLOAD,
            value: workload.into(),
            expected: "64 hex digits",
        })?;
        let tee = match once(line, TEE)? {
            "snp" => Tee::Snp,
            "simulated" => Tee::Simulated,
            "none" => Tee::None,
            other => {
                return Err(CommandLineError::Value {
                    key: TEE,
                    value: other.into(),
                    expected: "snp, simulated or none",
                });
            }
        };
        Ok(Self { workload, tee })
    }
}

/// The words as they are put onto a command line.
pub fn workload_argument(workload: &WorkloadDigest, tee: Tee) -> String {
    let tee = match tee {
        Tee::Snp => "snp",
        Tee::Simulated => "simulated",
        Tee::None => "none",
    };
    format!("{TEE}{tee} {WORKLOAD}{workload}")
}

fn once<'a>(line: &'a str, key: &'static str) -> Result<&'a str, CommandLineError> {
    let mut values = line.split_ascii_whitespace().filter_map(|word| word.strip_prefix(key));
    let value = values.next().ok_or(CommandLineError::Missing(key))?;
    if values.next().is_some() { Err(CommandLineError::Duplicate(key)) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_refuses_doubles() {
        let digest = WorkloadDigest::of(b"spec");
        let line = format!("console=ttyS0 {}", workload_argument(&digest, Tee::Simulated));
        let parsed = MeasuredCommandLine::parse(&line).unwrap();
        assert_eq!(parsed, MeasuredCommandLine { workload: digest, tee: Tee::Simulated });
        let twice = format!("{line} coffer.workload=00");
        assert_eq!(MeasuredCommandLine::parse(&twice), Err(CommandLineError::Duplicate(WORKLOAD)));
        assert_eq!(MeasuredCommandLine::parse("quiet"), Err(CommandLineError::Missing(WORKLOAD)));
        assert!(MeasuredCommandLine::parse(&line.replace("simulated", "pretend")).is_err());
    }
}
