//! Why a guest gives up before its workload runs: a stable word for programs, a sentence for people.

/// Stable words of `Event.code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The spec's digest is not the one on the command line or in HOST_DATA.
    SpecMismatch,
    /// The spec does not parse.
    SpecInvalid,
    /// The secure processor the spec demands is not the one that is there.
    TeeMismatch,
    /// This guest's security version is below the spec's floor, or not signed by the key the spec names.
    SvnBelowFloor,
    /// The root file system is not the one in the spec.
    RootCorrupt,
    /// A volume is not the one in the spec.
    VolumeCorrupt,
    /// Nobody answers at the key broker's address.
    KbsUnreachable,
    /// Somebody else answers there.
    KbsPinMismatch,
    /// The key broker did not release a secret.
    NotReleased,
    /// The program is not in the image.
    WorkloadNotFound,
    /// The program is there but does not execute.
    WorkloadNotExecutable,
    /// Anything else.
    Internal,
}

impl Code {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SpecMismatch => "spec-mismatch",
            Self::SpecInvalid => "spec-invalid",
            Self::TeeMismatch => "tee-mismatch",
            Self::SvnBelowFloor => "svn-below-floor",
            Self::RootCorrupt => "root-corrupt",
            Self::VolumeCorrupt => "volume-corrupt",
            Self::KbsUnreachable => "kbs-unreachable",
            Self::KbsPinMismatch => "kbs-pin-mismatch",
            Self::NotReleased => "not-released",
            Self::WorkloadNotFound => "workload-not-found",
            Self::WorkloadNotExecutable => "workload-not-executable",
            Self::Internal => "internal",
        }
    }
}

/// A failure with its code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.as_str())]
pub struct Failure {
    /// For programs.
    pub code: Code,
    /// For people; never holds workload output or a secret.
    pub detail: String,
}

impl Failure {
    /// From its parts.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// Gives an error its code and says what was being done.
pub trait OrFail<T> {
    /// `code`: what programs see; `what`: such as "mount /proc".
    ///
    /// # Errors
    /// The error it is called on.
    fn or_fail(self, code: Code, what: &str) -> Result<T, Failure>;
}

impl<T, E: core::fmt::Display> OrFail<T> for Result<T, E> {
    fn or_fail(self, code: Code, what: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(code, format!("{what}: {error}")))
    }
}
