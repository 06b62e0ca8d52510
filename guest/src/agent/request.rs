//! Requests to the agent, read once at its door: what is empty, contradicts itself or names no thing is refused by its field.
//!
//! Refusals are fixed words. They never repeat what was sent, since the host may hear them.
#![allow(clippy::result_large_err)] // tonic's own error type

use coffer_guest_proto::{
    Attach as AskedAttach, EvidenceRequest, ExecStart, InjectRequest, ListPrograms, PutOwnersRequest, ReadChanges,
    ReadFiles, ReadRoot, ResealRequest, SealRequest, Sealed, Shown, SignalRequest, StopRequest, TerminalSize,
    UnsealRequest, WriteFiles, exec_start::Own as Asked,
};
use coffer_seal::SealPolicy;
use coffer_spec::{Act, Name, SecretTarget, SignedOwnerList, WorkloadSpec};
use coffer_verifier::ear::Nonce;
use tonic::Status;

use super::StopOrder;
use crate::{
    container,
    sealing::{Counter, HEAD},
};

/// Longest grace of a stop, in seconds: a day.
const LONGEST_GRACE: u32 = 86_400;
/// Longest value injected or sealed in one call, in bytes; a request is read no further than a little above.
pub(super) const LONGEST_VALUE: usize = 5 << 19;
/// Longest label of something sealed.
const LONGEST_CONTEXT: usize = 4096;
/// The kernel takes no longer string from a program it starts (MAX_ARG_STRLEN, without its final NUL).
const LONGEST_WORD: usize = 128 * 1024 - 1;

/// PATH_MAX, with its final NUL.
const LONGEST_PATH: usize = 4096;

/// A program to run beside the workload.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) argv: Vec<String>,
    /// On top of the workload's.
    pub(super) env: Vec<String>,
    /// The workload's where absent.
    pub(super) cwd: Option<String>,
    /// The workload's where absent.
    pub(super) user: Option<String>,
    /// None where absent.
    pub(super) terminal: Option<container::TerminalSize>,
    /// It goes on without its caller.
    pub(super) detached: bool,
    /// What runs in place of `argv`.
    pub(super) own: Option<container::Own>,
}

type Read<T> = Result<T, Status>;

fn field<T>(name: &str, expected: &str) -> Read<T> {
    Err(Status::invalid_argument(format!("{name}: expected {expected}")))
}

fn fits_exec(word: &str) -> bool {
    word.len() <= LONGEST_WORD && !word.contains('\0')
}

pub(super) fn stop(request: StopRequest) -> Read<StopOrder> {
    let StopRequest { grace_seconds } = request;
    if grace_seconds > LONGEST_GRACE {
        return field("grace_seconds", "at most 86400");
    }
    Ok(StopOrder { grace_seconds })
}

pub(super) fn exec_start(order: ExecStart, spec: &WorkloadSpec) -> Read<Start> {
    let ExecStart { argv, env, cwd, user, terminal, detached, own } = order;
    if let Some(own) = own {
        let alone = argv.is_empty() && env.is_empty() && cwd.is_none() && user.is_none() && terminal.is_none();
        if !alone || detached {
            return field("own", "nothing beside a program of the agent's own");
        }
        let (cwd, user) = (Some("/".to_owned()), Some("0:0".to_owned()));
        return Ok(Start { argv, env, cwd, user, terminal: None, detached, own: Some(self::own(own)?) });
    }
    if argv.first().is_none_or(String::is_empty) || !argv.iter().all(|word| fits_exec(word)) {
        return field("argv", "a program and its arguments, each at most 131071 bytes without NUL");
    }
    let mut names = Vec::with_capacity(env.len());
    for entry in &env {
        match entry.split_once('=') {
            Some((name, _)) if !name.is_empty() && fits_exec(entry) => names.push(name),
            _ => return field("env", "NAME=value, at most 131071 bytes without NUL"),
        }
    }
    let secret = |name: &str| {
        spec.secrets.iter().any(|wanted| matches!(&wanted.to, SecretTarget::Env(env) if env.as_str() == name))
    };
    if names.iter().any(|name| secret(name)) {
        return field("env", "no variable that holds a secret of the spec");
    }
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return field("env", "each name once");
    }
    if cwd.as_ref().is_some_and(|cwd| !cwd.starts_with('/') || cwd.contains('\0')) {
        return field("cwd", "an absolute path, or none");
    }
    if user.as_ref().is_some_and(|user| user.split(':').any(str::is_empty) || user.split(':').count() > 2) {
        return field("user", "user or user:group, or none");
    }
    let terminal = terminal.map(|size| terminal_size("terminal", size)).transpose()?;
    Ok(Start { argv, env, cwd, user, terminal, detached, own: None })
}

/// What its caller must be let do.
pub(super) fn act(order: &ExecStart) -> Act {
    match order.own {
        None => Act::Exec,
        Some(Asked::ReadFiles(_) | Asked::WriteFiles(_) | Asked::ReadRoot(_) | Asked::ReadChanges(_)) => Act::Cp,
        Some(Asked::ListPrograms(_)) => Act::Top,
    }
}

fn own(asked: Asked) -> Read<container::Own> {
    let is_path = |path: &[u8]| path.starts_with(b"/") && path.len() < LONGEST_PATH && !path.contains(&0);
    Ok(match asked {
        Asked::ReadFiles(ReadFiles { path, follow }) if is_path(&path) => container::Own::ReadFiles { path, follow },
        Asked::ReadFiles(_) => return field("path", "an absolute path"),
        Asked::WriteFiles(WriteFiles { to, .. }) if !is_path(&to) => return field("to", "an absolute path"),
        Asked::WriteFiles(WriteFiles { to, name, contents, owners }) => {
            if name.contains(&b'/') || name.contains(&0) || name.len() > 255 || contents != name.is_empty() {
                return field("name", "one name, or none with `contents`");
            }
            container::Own::WriteFiles { to, name, contents, owners }
        }
        Asked::ListPrograms(ListPrograms {}) => container::Own::ListPrograms,
        Asked::ReadRoot(ReadRoot {}) => container::Own::ReadRoot,
        Asked::ReadChanges(ReadChanges { contents }) => container::Own::ReadChanges { contents },
    })
}

/// To be attached to the workload's own program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attach {
    pub(super) shown: Shown,
    /// The caller's terminal, if it has one.
    pub(super) terminal: Option<container::TerminalSize>,
}

pub(super) fn attach(order: AskedAttach) -> Read<Attach> {
    let AskedAttach { shown, terminal } = order;
    let Ok(shown) = Shown::try_from(shown) else { return field("shown", "0 to 2") };
    Ok(Attach { shown, terminal: terminal.map(|size| terminal_size("terminal", size)).transpose()? })
}

/// What a terminal's owner says its size is; 0 where it does not know.
pub(super) fn terminal_size(name: &str, size: TerminalSize) -> Read<container::TerminalSize> {
    let TerminalSize { rows, columns } = size;
    match (u16::try_from(rows), u16::try_from(columns)) {
        (Ok(rows), Ok(columns)) => Ok(container::TerminalSize { rows, columns }),
        (Err(_), _) => field(name, "rows of at most 65535"),
        (_, Err(_)) => field(name, "columns of at most 65535"),
    }
}

/// A signal's number.
pub(super) fn exec_signal(number: i32) -> Read<i32> {
    if (1..=64).contains(&number) { Ok(number) } else { field("signal", "1 to 64") }
}

/// Signals that a caller may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sendable {
    /// All: the program is its own.
    All,
    /// To the workload's own program.
    Some {
        /// The spec's.
        stop_signal: i32,
        /// Those of a stop.
        stop: bool,
        /// All others.
        exec: bool,
    },
}

impl Sendable {
    /// This one among them.
    pub(super) fn admits(self, number: i32) -> bool {
        match self {
            Self::All => true,
            Self::Some { stop_signal, stop, exec } => {
                if Act::of_signal(number, stop_signal) == Act::Stop {
                    stop
                } else {
                    exec
                }
            }
        }
    }
}

/// A signal to the workload.
pub(super) fn signal(request: SignalRequest) -> Read<i32> {
    let SignalRequest { number } = request;
    if (1..=64).contains(&number) { Ok(number) } else { field("number", "1 to 64") }
}

/// A value for a name that the spec lists.
#[derive(Debug)]
pub(super) struct Inject<'a> {
    pub(super) name: &'a Name,
    pub(super) value: &'a Sealed,
    /// Also a variable.
    pub(super) set_env: bool,
}

pub(super) fn inject<'a>(request: &'a InjectRequest, spec: &'a WorkloadSpec) -> Read<Inject<'a>> {
    let InjectRequest { name, value, set_env } = request;
    let Some(name) = spec.inject.iter().find(|listed| listed.as_str() == name) else {
        return Err(Status::permission_denied("not-injectable"));
    };
    if *set_env && !spec.may_be_variable(name) {
        return field("set_env", "a name that is a variable's, and that nothing else sets");
    }
    Ok(Inject { name, value: sealed("value", value.as_ref())?, set_env: *set_env })
}

pub(super) fn put_owners(request: &PutOwnersRequest) -> Read<&[u8]> {
    let PutOwnersRequest { list } = request;
    let fits = (1..=SignedOwnerList::LONGEST).contains(&list.len());
    if fits { Ok(list) } else { field("list", "a signed list of owners, at most 49152 bytes") }
}

/// Something to seal.
#[derive(Debug)]
pub(super) struct Seal<'a> {
    pub(super) policy: SealPolicy,
    pub(super) context: &'a [u8],
    pub(super) counter: Counter<'a>,
    pub(super) plaintext: &'a Sealed,
}

pub(super) fn seal(request: &SealRequest) -> Read<Seal<'_>> {
    let SealRequest { policy, context, plaintext, counted, replaces } = request;
    let counter = match (counted, replaces.len()) {
        (false, 0) => Counter::None,
        (true, 0) => Counter::Begin,
        (false, 1..=HEAD) => Counter::Replace(replaces),
        _ => return field("replaces", "at most 65668 bytes of a sealed file, and no `counted`"),
    };
    let plaintext = sealed("plaintext", plaintext.as_ref())?;
    Ok(Seal { policy: self::policy(policy)?, context: label(context)?, counter, plaintext })
}

fn policy(name: &str) -> Read<SealPolicy> {
    let expected = "measurement-and-chip, chip, measurement, workload or signer";
    name.parse().or_else(|_| field("policy", expected))
}

pub(super) fn unseal(request: &UnsealRequest) -> Read<(&[u8], &[u8])> {
    let UnsealRequest { sealed, context } = request;
    Ok((file(sealed)?, label(context)?))
}

pub(super) fn reseal(request: &ResealRequest) -> Read<(&[u8], &[u8], Option<SealPolicy>)> {
    let ResealRequest { sealed, context, policy } = request;
    let policy = if policy.is_empty() { None } else { Some(self::policy(policy)?) };
    Ok((file(sealed)?, label(context)?, policy))
}

pub(super) fn evidence(request: &EvidenceRequest) -> Read<Nonce> {
    let EvidenceRequest { nonce } = request;
    Nonce::new(nonce).or_else(|_| field("nonce", "8 to 64 bytes"))
}

fn file(sealed: &[u8]) -> Read<&[u8]> {
    if sealed.is_empty() { field("sealed", "a sealed file") } else { Ok(sealed) }
}

fn label(context: &[u8]) -> Read<&[u8]> {
    if context.len() > LONGEST_CONTEXT { field("context", "at most 4096 bytes") } else { Ok(context) }
}

fn sealed<'a>(name: &str, sealed: Option<&'a Sealed>) -> Read<&'a Sealed> {
    sealed
        .filter(|message| !message.enc.is_empty() && (1..=LONGEST_VALUE).contains(&message.ciphertext.len()))
        .map_or_else(|| field(name, "an HPKE message of at most 3145728 bytes"), Ok)
}

#[cfg(test)]
mod tests;
