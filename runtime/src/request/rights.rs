//! What a user says about the rights of a box's programs, in Docker's words.
//!
//! Never: gives more than every box gives. What would is refused by name, and nothing is left out in silence.

use std::collections::BTreeSet;

use coffer_spec::{Capability, Resource, ResourceLimit, Rights};

use super::bytes;

/// What is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RightsWords {
    /// `--cap-add`.
    pub add: Vec<String>,
    /// `--cap-drop`.
    pub drop: Vec<String>,
    /// `--security-opt`.
    pub security: Vec<String>,
    /// `--ulimit`.
    pub limits: Vec<String>,
    /// `--group-add`.
    pub groups: Vec<String>,
    /// `--pids-limit`.
    pub programs: Option<i64>,
}

/// Why they make no rights.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RightsError {
    /// A capability that reaches around what a box is, or none at all.
    #[error("a box gives no capability {0:?}: those it has are {all}", all = list())]
    Capability(String),
    /// An option of Docker's that there is nothing of, or none at all.
    #[error("a box has no {0:?} to choose: {why}", why = why_not(.0))]
    Security(String),
    /// No limit.
    #[error("{0:?} is no limit: {1}")]
    Limit(String, &'static str),
    /// A number of programs that is none.
    #[error("at most {0} programs are none: 1 or more, or -1 for what the guest's kernel bears")]
    Programs(i64),
}

fn list() -> String {
    Capability::ALL.iter().map(|one| one.word()).collect::<Vec<_>>().join(", ")
}

fn why_not(option: &str) -> &'static str {
    match option.split(['=', ':']).next().unwrap_or_default() {
        "seccomp" => "the filter of system calls is part of what is measured, and the same for every box",
        "apparmor" | "label" => "there is no such module in a guest",
        "systempaths" => "what the kernel shows of itself is the same for every box",
        _ => "there is no-new-privileges",
    }
}

impl RightsWords {
    /// The rights.
    ///
    /// # Errors
    /// [`RightsError`].
    pub fn rights(&self) -> Result<Rights, RightsError> {
        let mut rights = Rights { capabilities: self.capabilities()?, ..Rights::default() };
        for group in &self.groups {
            if !rights.groups.contains(group) {
                rights.groups.push(group.clone());
            }
        }
        for option in &self.security {
            rights.no_new_privileges = match option.as_str() {
                "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true" => true,
                "no-new-privileges:false" | "no-new-privileges=false" => false,
                _ => return Err(RightsError::Security(option.clone())),
            };
        }
        for text in &self.limits {
            let Some(limit) = limit(text)? else { continue };
            // Of two of one resource the last holds, as in Docker.
            rights.limits.retain(|other| other.of != limit.of);
            rights.limits.push(limit);
        }
        rights.programs = match self.programs {
            None | Some(-1 | 0) => None,
            Some(most) => Some(u64::try_from(most).map_err(|_| RightsError::Programs(most))?),
        };
        Ok(rights)
    }

    /// As Docker reads them: all but those that are dropped, and on top those that are added; `--cap-drop ALL` leaves these alone.
    fn capabilities(&self) -> Result<Option<Vec<Capability>>, RightsError> {
        let all = || Capability::ALL.iter().copied().collect::<BTreeSet<_>>();
        let mut kept = all();
        for word in &self.drop {
            let upper = word.to_ascii_uppercase();
            match (upper.as_str(), word.parse()) {
                ("ALL", _) => kept.clear(),
                (_, Ok(one)) => drop(kept.remove(&one)),
                // No box has it. A word that is none at all may stand for one that it has.
                (known, Err(_)) if NEVER_GIVEN.contains(&known.trim_start_matches("CAP_")) => {}
                (_, Err(_)) => return Err(RightsError::Capability(word.clone())),
            }
        }
        for word in &self.add {
            kept.insert(word.parse().map_err(|_| RightsError::Capability(word.clone()))?);
        }
        Ok((kept != all()).then(|| kept.into_iter().collect()))
    }
}

/// Linux's other capabilities: they reach around the agent, or hold for the machine as a whole. Source: capabilities(7).
const NEVER_GIVEN: &[&str] = &[
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "DAC_READ_SEARCH",
    "IPC_LOCK",
    "IPC_OWNER",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BROADCAST",
    "PERFMON",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// `NAME=SOFT[:HARD]`; -1 or `unlimited` is none. Nothing, where every box is held to it anyway.
fn limit(text: &str) -> Result<Option<ResourceLimit>, RightsError> {
    let refuse = |why| RightsError::Limit(text.into(), why);
    let (name, values) = text.split_once('=').ok_or_else(|| refuse("write NAME=SOFT[:HARD]"))?;
    match (name, values) {
        ("core", "0" | "0:0") => return Ok(None),
        ("core", _) => {
            return Err(refuse("no program of a box leaves a dump, where its secrets would be in: only 0 is had"));
        }
        _ => {}
    }
    let of: Resource = name.parse().map_err(|_| refuse("there is no such resource"))?;
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(None),
        // Most of them are bytes.
        _ => text.parse().ok().or_else(|| bytes(text)).map(Some).ok_or_else(|| refuse("what is given is no number")),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let limit = ResourceLimit { of, soft: number(soft)?, hard: number(hard)? };
    if !limit.is_possible() {
        return Err(refuse("what is enforced is more than what it may be raised to"));
    }
    Ok(Some(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capabilities(drop: &[&str], add: &[&str]) -> Result<Option<Vec<&'static str>>, RightsError> {
        let all = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        let words = RightsWords { drop: all(drop), add: all(add), ..RightsWords::default() };
        Ok(words.rights()?.capabilities.map(|kept| kept.into_iter().map(Capability::word).collect()))
    }

    #[test]
    fn capabilities_are_dropped_and_given_back_and_no_more() {
        assert_eq!(capabilities(&[], &[]), Ok(None), "nothing is said of what every box gives");
        assert_eq!(capabilities(&["ALL"], &[]), Ok(Some(vec![])));
        assert_eq!(capabilities(&["all"], &["cap_chown", "KILL"]), Ok(Some(vec!["CHOWN", "KILL"])));
        assert_eq!(capabilities(&["NET_RAW"], &["NET_RAW"]), Ok(None));
        assert_eq!(capabilities(&[], &["CHOWN"]), Ok(None), "it is there");
        assert_eq!(capabilities(&["CAP_SYS_ADMIN"], &[]), Ok(None), "it is not there");
        assert_eq!(
            capabilities(&["NET_RAWW"], &[]),
            Err(RightsError::Capability("NET_RAWW".into())),
            "a slip keeps none"
        );
        assert_eq!(capabilities(&["NET_RAW"], &[]).unwrap().unwrap().len(), Capability::ALL.len() - 1);
        for bad in ["SYS_ADMIN", "CAP_SYS_PTRACE", "ALL", "MKNOD", "", "nosuch"] {
            assert_eq!(capabilities(&[], &[bad]), Err(RightsError::Capability(bad.into())), "{bad}");
        }
    }

    #[test]
    fn options_that_would_open_a_box_are_refused_by_name() {
        let of = |option: &str| RightsWords { security: vec![option.into()], ..RightsWords::default() }.rights();
        assert!(
            of("no-new-privileges").unwrap().no_new_privileges
                && of("no-new-privileges=true").unwrap().no_new_privileges
        );
        assert!(of("no-new-privileges:false").unwrap().are_usual());
        for bad in [
            "seccomp=unconfined",
            "apparmor=unconfined",
            "label:disable",
            "systempaths=unconfined",
            "",
            "no-new-privileges:maybe",
        ] {
            assert!(matches!(of(bad), Err(RightsError::Security(_))), "{bad}");
        }
    }

    #[test]
    fn limits_are_numbers_sizes_or_none() {
        let some = |of, soft, hard| Ok(Some(ResourceLimit { of, soft, hard }));
        assert_eq!(limit("nofile=1024"), some(Resource::Nofile, Some(1024), Some(1024)));
        assert_eq!(limit("nofile=1024:4096"), some(Resource::Nofile, Some(1024), Some(4096)));
        assert_eq!(limit("stack=8m:unlimited"), some(Resource::Stack, Some(8 << 20), None));
        assert_eq!(limit("memlock=-1"), some(Resource::Memlock, None, None));
        assert_eq!((limit("core=0"), limit("core=0:0")), (Ok(None), Ok(None)), "no box leaves a dump");
        for bad in [
            "",
            "nofile",
            "nofile=",
            "nofile=x",
            "nosuch=1",
            "core=1",
            "core=0:1",
            "nofile=2:1",
            "nofile=-1:5",
            "nofile=1:2:3",
        ] {
            assert!(matches!(limit(bad), Err(RightsError::Limit(..))), "{bad}");
        }
    }

    #[test]
    fn of_what_is_said_twice_the_last_holds() {
        let all = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        let limits = all(&["nofile=5", "stack=1m", "nofile=7:9", "core=0"]);
        let words = RightsWords { limits, groups: all(&["mail", "7", "mail"]), ..RightsWords::default() };
        let rights = words.rights().unwrap();
        let limits: Vec<_> = rights.limits.iter().map(ToString::to_string).collect();
        assert_eq!(limits, ["stack=1048576:1048576", "nofile=7:9"]);
        assert_eq!(rights.groups, ["mail", "7"]);
    }

    #[test]
    fn programs_are_bounded_where_that_is_said() {
        let of = |programs| {
            RightsWords { programs: Some(programs), ..RightsWords::default() }.rights().map(|it| it.programs)
        };
        assert_eq!((of(-1), of(0), of(5), of(-2)), (Ok(None), Ok(None), Ok(Some(5)), Err(RightsError::Programs(-2))));
    }
}
