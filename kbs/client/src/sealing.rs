//! Names of sealing keys and counters, as guest and broker both write them.

use core::{fmt, str::FromStr};

use coffer_verifier::binding::length_prefixed;

/// Who gets the same sealing key again. `measurement-and-chip` is not here: it needs no broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SealingPolicy {
    /// The same chip, whatever admitted guest runs there; half of a key, mixed with the secure processor's.
    Chip,
    /// The same measurement, on any chip.
    Measurement,
    /// The same workload digest, on any admitted platform.
    Workload,
    /// The same author, family and image, from a version on.
    Signer,
}

/// Who inside the guest uses a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// The agent, which seals for owners.
    Agent,
    /// The workload.
    Workload,
    /// The agent, for a sealed volume: neither of the other two has its key.
    Volume,
}

/// Neither a policy nor a scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct SealingWordError {
    /// What would do.
    pub expected: &'static str,
}

impl SealingPolicy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Chip, Self::Measurement, Self::Workload, Self::Signer];

    /// Its name, which is hashed into the key.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chip => "chip",
            Self::Measurement => "measurement",
            Self::Workload => "workload",
            Self::Signer => "signer",
        }
    }
}

impl FromStr for SealingPolicy {
    type Err = SealingWordError;

    fn from_str(text: &str) -> Result<Self, SealingWordError> {
        let expected = "chip, measurement, workload or signer";
        Self::ALL.into_iter().find(|one| one.name() == text).ok_or(SealingWordError { expected })
    }
}

impl fmt::Display for SealingPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Scope {
    /// Its name, which is hashed into the key.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Workload => "workload",
            Self::Volume => "volume",
        }
    }
}

impl FromStr for Scope {
    type Err = SealingWordError;

    fn from_str(text: &str) -> Result<Self, SealingWordError> {
        let expected = "agent, workload or volume";
        [Self::Agent, Self::Workload, Self::Volume]
            .into_iter()
            .find(|one| one.name() == text)
            .ok_or(SealingWordError { expected })
    }
}

/// Which of its own keys a guest wants. Whose key it is, only its report says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealingName {
    /// Who gets it again.
    pub policy: SealingPolicy,
    /// Who uses it.
    pub scope: Scope,
    /// What for; the broker has terms for each.
    pub context: Vec<u8>,
    /// Policy `signer`: the least GUEST_SVN that gets this key, at most the guest's own, which is meant where it is left out.
    pub minimum_svn: Option<u32>,
}

impl SealingName {
    /// Longest context in bytes.
    pub const CONTEXT: usize = 128;

    /// HPKE AAD of the key: lp(tenant) lp(policy) lp(scope) lp(context) lp(minimum svn, u32 big-endian, or nothing).
    pub fn key_aad(&self, tenant: &str) -> Vec<u8> {
        length_prefixed(&self.fields(tenant, &self.svn()))
    }

    /// HPKE AAD of a generation: the same, then lp(counter id) lp(1 if it was set, else 0).
    pub fn generation_aad(&self, tenant: &str, counter: &[u8; 16], set: bool) -> Vec<u8> {
        let (svn, set) = (self.svn(), [u8::from(set)]);
        let mut fields = self.fields(tenant, &svn).to_vec();
        fields.extend([counter.as_slice(), &set]);
        length_prefixed(&fields)
    }

    fn fields<'a>(&'a self, tenant: &'a str, svn: &'a [u8]) -> [&'a [u8]; 5] {
        [tenant.as_bytes(), self.policy.name().as_bytes(), self.scope.name().as_bytes(), &self.context, svn]
    }

    fn svn(&self) -> Vec<u8> {
        self.minimum_svn.map(|svn| svn.to_be_bytes().to_vec()).unwrap_or_default()
    }
}

impl fmt::Display for SealingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context = coffer_rim::foreign(&String::from_utf8_lossy(&self.context)).to_string();
        write!(f, "{}/{}/{context}", self.policy.name(), self.scope.name())?;
        match self.minimum_svn {
            Some(svn) => write!(f, " from svn {svn}"),
            None => Ok(()),
        }
    }
}
