//! Why a guest gives up before its workload runs: a stable word for programs, a sentence for people.

use std::{any::Any, io};

pub use coffer_guest_proto::FailureCode as Code;

/// A failure with its code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.word())]
pub struct Failure {
    /// For programs.
    pub code: Code,
    /// For people; never holds workload output or a secret. Stays inside in TEE mode.
    pub detail: String,
    /// The kernel's error number, 0 where there is none.
    pub errno: i32,
    /// The key broker's number for its refusal, 0 where there is none.
    pub denial_id: u64,
}

impl Failure {
    /// From its parts.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errno: 0, denial_id: 0 }
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

impl<T, E: core::fmt::Display + 'static> OrFail<T> for Result<T, E> {
    fn or_fail(self, code: Code, what: &str) -> Result<T, Failure> {
        self.map_err(|error| {
            let errno = errno_of(&error);
            Failure { errno, ..Failure::new(code, format!("{what}: {error}")) }
        })
    }
}

/// The number in an error of the kernel's.
fn errno_of(error: &dyn Any) -> i32 {
    let io = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    io.or_else(|| error.downcast_ref::<rustix::io::Errno>().map(|errno| errno.raw_os_error())).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_kernels_keeps_its_number() {
        let failed: Result<(), _> = Err(io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(failed.or_fail(Code::Internal, "write").unwrap_err().errno, libc::ENOSPC);
        let failed: Result<(), _> = Err(rustix::io::Errno::PERM);
        assert_eq!(failed.or_fail(Code::Internal, "mount").unwrap_err().errno, libc::EPERM);
        assert_eq!(Err::<(), _>("words").or_fail(Code::Internal, "x").unwrap_err().errno, 0);
    }
}
