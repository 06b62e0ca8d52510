//! Settings of the guest's kernel that a workload may want otherwise: those that Docker gives a container of its own.
//!
//! Never: one by which the kernel, or who else is in the guest, is less safe.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A setting and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sysctl {
    /// As sysctl(8) has it, with dots.
    pub name: String,
    /// What is written.
    pub value: String,
}

/// Why text is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{found}\" is no setting of a box: {}", Sysctl::RULE)]
pub struct SysctlError {
    /// As it was given, its control characters escaped.
    pub found: String,
}

/// Of System V messages, semaphores and shared memory.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

impl Sysctl {
    /// Most of a spec.
    pub const MOST: usize = 64;
    /// What they are.
    pub const RULE: &str =
        "NAME=VALUE of net.*, kernel.msg*, kernel.sem, kernel.shm* or fs.mqueue.*, but none of net.core.bpf_*";
    /// Longest name, and longest value.
    const LONGEST: usize = 256;

    /// Whether a box may have it.
    pub fn is_possible(&self) -> bool {
        let Self { name, value } = self;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let is_name = name.len() <= Self::LONGEST
            && name.split('.').count() > 1
            && name.split('.').all(|part| !part.is_empty() && part.bytes().all(plain));
        let is_value = (1..=Self::LONGEST).contains(&value.len())
            && value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte));
        // The kernel's own compiler, which is not the network's.
        let of_net = name.starts_with("net.") && !name.starts_with("net.core.bpf_");
        is_name && is_value && (of_net || name.starts_with("fs.mqueue.") || IPC.contains(&name.as_str()))
    }

    /// Where the kernel has it, below `/proc/sys`.
    pub fn path(&self) -> String {
        self.name.replace('.', "/")
    }
}

impl FromStr for Sysctl {
    type Err = SysctlError;

    fn from_str(text: &str) -> Result<Self, SysctlError> {
        let none = || SysctlError { found: text.escape_debug().to_string() };
        let (name, value) = text.split_once('=').ok_or_else(none)?;
        let setting = Self { name: name.to_owned(), value: value.to_owned() };
        if setting.is_possible() { Ok(setting) } else { Err(none()) }
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_boxs_own_is_a_setting_and_nothing_else_is() {
        for good in [
            "net.core.somaxconn=1024",
            "net.ipv4.ip_local_port_range=1024 65000",
            "kernel.sem=250\t32000 32 128",
            "fs.mqueue.msg_max=20",
        ] {
            assert_eq!(good.parse::<Sysctl>().unwrap().to_string(), good);
        }
        assert_eq!("net.ipv4.tcp_fin_timeout=1".parse::<Sysctl>().unwrap().path(), "net/ipv4/tcp_fin_timeout");
        for bad in [
            "",
            "net.x",
            "=1",
            "net.x=",
            "net.=1",
            "net=1",
            "net..x=1",
            "net./x=1",
            "net.x=1\n2",
            "kernel.core_pattern=|/x",
            "kernel.semx=1",
            "kernel.shm_next_id=1",
            "vm.swappiness=1",
            "fs.file-max=1",
            "net.core.bpf_jit_harden=0",
            "kernel.dmesg_restrict=0",
        ] {
            assert!(bad.parse::<Sysctl>().is_err(), "{bad}");
        }
    }
}
