//! What the workload's programs may do less, or have more of, than any program of a box: each narrows, or is a number.
//!
//! Never: a capability beyond those every box gives ([`Capability::ALL`]). Others reach around the agent.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Rights of the workload's programs. Without any of them a program has those that every box gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rights {
    /// Capabilities of programs that are root's, in the order of [`Capability::ALL`]; without a list all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<Capability>>,
    /// No program gets more than the one that starts it had: set-user-ID bits and file capabilities mean nothing.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub no_new_privileges: bool,
    /// Further groups of its user, by name or number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Resource limits (setrlimit(2)), each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<ResourceLimit>,
    /// Most programs and threads at a time, where that is fewer than the guest's kernel could bear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub programs: Option<u64>,
}

impl Rights {
    /// Whether nothing is said.
    pub fn are_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// A list of words, each a variant.
macro_rules! words {
    ($(#[$about:meta])* $name:ident, $($(#[$doc:meta])* $variant:ident = $word:literal,)*) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its word.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words! {
    /// A capability that a box can give (capabilities(7)): Docker's default set without MKNOD.
    Capability,
    /// Change owners of files.
    Chown = "CHOWN",
    /// Pass by permissions of files.
    DacOverride = "DAC_OVERRIDE",
    /// Keep set-user-ID bits.
    Fsetid = "FSETID",
    /// Act as the owner of any file.
    Fowner = "FOWNER",
    /// Raw sockets.
    NetRaw = "NET_RAW",
    /// Change groups.
    Setgid = "SETGID",
    /// Change users.
    Setuid = "SETUID",
    /// Give files capabilities.
    Setfcap = "SETFCAP",
    /// Drop capabilities for good.
    Setpcap = "SETPCAP",
    /// Ports below 1024.
    NetBindService = "NET_BIND_SERVICE",
    /// Another root folder.
    SysChroot = "SYS_CHROOT",
    /// Send signals to anybody's programs.
    Kill = "KILL",
    /// Write to the kernel's audit log.
    AuditWrite = "AUDIT_WRITE",
}

words! {
    /// A resource that is limited (setrlimit(2)). `core` is not among them: no program of a box leaves a dump.
    Resource,
    /// Seconds of processor time.
    Cpu = "cpu",
    /// Bytes of data segments.
    Data = "data",
    /// Bytes of a file it writes.
    Fsize = "fsize",
    /// Locks of files.
    Locks = "locks",
    /// Bytes locked in memory.
    Memlock = "memlock",
    /// Bytes of POSIX message queues.
    Msgqueue = "msgqueue",
    /// Ceiling of the nice value.
    Nice = "nice",
    /// Open files.
    Nofile = "nofile",
    /// Programs of its user.
    Nproc = "nproc",
    /// Bytes resident; Linux heeds it no more.
    Rss = "rss",
    /// Ceiling of the real-time priority.
    Rtprio = "rtprio",
    /// Microseconds of real-time scheduling without a wait.
    Rttime = "rttime",
    /// Signals that wait.
    Sigpending = "sigpending",
    /// Bytes of its stack.
    Stack = "stack",
}

/// One limit; without a number there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceLimit {
    /// Of what.
    pub of: Resource,
    /// Enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft: Option<u64>,
    /// How far a program may raise it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hard: Option<u64>,
}

impl ResourceLimit {
    /// What is enforced is no more than what it may be raised to.
    pub fn is_possible(&self) -> bool {
        match (self.soft, self.hard) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(soft), Some(hard)) => soft <= hard,
        }
    }
}

impl fmt::Display for ResourceLimit {
    /// As it is written on a command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |limit: Option<u64>| limit.map_or_else(|| "unlimited".into(), |limit| limit.to_string());
        write!(f, "{}={}:{}", self.of, number(self.soft), number(self.hard))
    }
}

/// Not the word of any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such word")]
pub struct UnknownWord;

impl FromStr for Capability {
    type Err = UnknownWord;

    /// As Docker takes it: in either case, with or without `CAP_`.
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let upper = text.to_ascii_uppercase();
        let word = upper.strip_prefix("CAP_").unwrap_or(&upper);
        Self::ALL.iter().copied().find(|one| one.word() == word).ok_or(UnknownWord)
    }
}

impl FromStr for Resource {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL.iter().copied().find(|one| one.word() == text).ok_or(UnknownWord)
    }
}
