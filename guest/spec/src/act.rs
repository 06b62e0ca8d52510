//! What somebody may do with a running guest, and the two sets a spec grants: the host's and each owner's.

use core::{fmt, marker::PhantomData, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Something that can be done with a running guest from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Act {
    /// Ask for an orderly stop.
    Stop,
    /// Read coarse statistics.
    Stats,
    /// Read the workload's output.
    Logs,
    /// Run commands inside: gives whoever may everything the workload has.
    Exec,
    /// Write named values to `/run/secrets`.
    Inject,
    /// Seal, and get unsealed bytes back.
    Unseal,
    /// Copy files in and out, as the workload's root. Whoever may run commands may do so too.
    Cp,
    /// List the programs that run. Whoever may run commands may do so too.
    Top,
    /// See what the workload's own program writes from then on, and type at it. Whoever may run commands may do so too.
    Attach,
}

impl Act {
    /// Every act.
    pub const ALL: [Self; 9] = [
        Self::Stop,
        Self::Stats,
        Self::Logs,
        Self::Exec,
        Self::Inject,
        Self::Unseal,
        Self::Cp,
        Self::Top,
        Self::Attach,
    ];

    /// Its word in specs, flags and refusals.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Stats => "stats",
            Self::Logs => "logs",
            Self::Exec => "exec",
            Self::Inject => "inject",
            Self::Unseal => "unseal",
            Self::Cp => "cp",
            Self::Top => "top",
            Self::Attach => "attach",
        }
    }

    /// What whoever sends the workload's own program a signal must be let do: who may stop it gives it none but what a stop does.
    pub const fn of_signal(number: i32, stop_signal: i32) -> Self {
        if number == stop_signal || number == KILL { Self::Stop } else { Self::Exec }
    }

    /// Whoever may run commands can do it by them.
    const fn comes_with_exec(self) -> bool {
        matches!(self, Self::Cp | Self::Top | Self::Attach)
    }
}

/// Its number on Linux.
const KILL: i32 = 9;

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Act {
    type Err = ActError;

    fn from_str(word: &str) -> Result<Self, ActError> {
        let found = Self::ALL.into_iter().find(|act| act.word() == word);
        found.ok_or_else(|| ActError::Unknown { word: word.chars().take(80).collect() })
    }
}

/// Why a list is no set of acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ActError {
    /// No act has this word.
    #[error("{word:?} is no act: expected stop, stats, logs, exec, inject, unseal, cp, top or attach")]
    Unknown {
        /// The word.
        word: String,
    },
    /// It is an act, but not one that can be given to whom the list is for.
    #[error("{who} cannot be given {act}, only {}", words(may))]
    NotForThem {
        /// Whom the list is for.
        who: &'static str,
        /// The act.
        act: Act,
        /// What they can be given.
        may: &'static [Act],
    },
    /// The same act stands there twice.
    #[error("{act} stands there twice")]
    Twice {
        /// The act.
        act: Act,
    },
    /// `none` stands beside something.
    #[error("none stands beside acts: say one or the other")]
    NoneBesideActs,
    /// There is no word at all, which says neither `none` nor something.
    #[error("an empty list: say none, or {}", words(may))]
    Empty {
        /// What could stand there.
        may: &'static [Act],
    },
}

fn words(acts: &[Act]) -> String {
    let words: Vec<_> = acts.iter().map(|act| act.word()).collect();
    words.join(", ")
}

/// Somebody whom a spec gives acts to.
pub trait Grantee: Copy {
    /// What they are called in refusals.
    const WHO: &'static str;
    /// What they can be given, in the order in which a spec writes it.
    const MAY: &'static [Act];
}

/// The host, on its plain ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Host;

/// An owner, over RA-TLS. Stopping and coarse statistics come with being listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listed;

impl Grantee for Host {
    const WHO: &'static str = "the host";
    const MAY: &'static [Act] = &[Act::Stop, Act::Stats, Act::Logs, Act::Exec, Act::Cp, Act::Top, Act::Attach];
}

impl Grantee for Listed {
    const WHO: &'static str = "an owner";
    const MAY: &'static [Act] = &[Act::Exec, Act::Inject, Act::Unseal, Act::Logs, Act::Cp, Act::Top, Act::Attach];
}

/// A set of acts that its grantee can be given. Anything else cannot be written down.
///
/// ```
/// use coffer_spec::{Act, HostMay, OwnerMay};
/// let host = HostMay::parse("stop,logs").unwrap();
/// assert!(host.contains(Act::Logs) && !host.contains(Act::Exec));
/// assert!(HostMay::parse("unseal").is_err(), "no spec gives that to a host");
/// assert!(HostMay::parse("none,exec").is_err(), "a list that contradicts itself is no choice");
/// assert!(OwnerMay::parse("").is_err(), "empty is not absent");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Acts<G>(u16, PhantomData<G>);

/// What the host may do.
pub type HostMay = Acts<Host>;
/// What an owner may do beyond stopping and coarse statistics.
pub type OwnerMay = Acts<Listed>;

impl<G: Grantee> Acts<G> {
    /// The word for the empty set on command lines.
    pub const NONE: &'static str = "none";

    /// Nothing.
    pub const fn none() -> Self {
        Self(0, PhantomData)
    }

    /// Everything that this grantee can be given; what comes with exec is not named beside it.
    pub fn all() -> Self {
        G::MAY
            .iter()
            .filter(|act| !act.comes_with_exec())
            .fold(Self::none(), |set, act| Self(set.0 | bit(*act), PhantomData))
    }

    /// These acts.
    ///
    /// # Errors
    /// [`ActError`] for one that the grantee cannot be given, and for one that stands there twice.
    pub fn of(acts: &[Act]) -> Result<Self, ActError> {
        let mut set = Self::none();
        for act in acts {
            if !G::MAY.contains(act) {
                return Err(ActError::NotForThem { who: G::WHO, act: *act, may: G::MAY });
            }
            if set.contains(*act) {
                return Err(ActError::Twice { act: *act });
            }
            set.0 |= bit(*act);
        }
        Ok(set)
    }

    /// Reads `exec,logs`, or `none`.
    ///
    /// # Errors
    /// [`ActError`].
    pub fn parse(list: &str) -> Result<Self, ActError> {
        match list {
            "" => return Err(ActError::Empty { may: G::MAY }),
            Self::NONE => return Ok(Self::none()),
            _ => {}
        }
        if list.split(',').any(|word| word == Self::NONE) {
            return Err(ActError::NoneBesideActs);
        }
        let acts: Vec<Act> = list.split(',').map(str::parse).collect::<Result<_, _>>()?;
        Self::of(&acts)
    }

    /// Whether its holder may do `act`: it is in it, or comes with what is.
    pub fn allows(self, act: Act) -> bool {
        self.contains(act) || act.comes_with_exec() && self.contains(Act::Exec)
    }

    /// Whether `act` is in it.
    pub fn contains(self, act: Act) -> bool {
        self.0 & bit(act) != 0
    }

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The acts, in the order in which a spec writes them.
    pub fn iter(self) -> impl Iterator<Item = Act> {
        G::MAY.iter().copied().filter(move |act| self.contains(*act))
    }
}

const fn bit(act: Act) -> u16 {
    1 << act as u8
}

impl<G: Grantee> fmt::Display for Acts<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.iter().map(Act::word).collect();
        f.pad(&if words.is_empty() { Self::NONE.to_owned() } else { words.join(",") })
    }
}

impl<G: Grantee> Serialize for Acts<G> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Act::word))
    }
}

impl<'de, G: Grantee> Deserialize<'de> for Acts<G> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = Vec::<String>::deserialize(deserializer)?;
        let acts: Result<Vec<Act>, _> = words.iter().map(|word| word.parse()).collect();
        acts.and_then(|acts| Self::of(&acts)).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_act_is_read_back_from_its_word_and_some_grantee_can_have_it() {
        for act in Act::ALL {
            assert_eq!(act.word().parse(), Ok(act));
            assert!(HostMay::all().allows(act) || OwnerMay::all().allows(act), "{act}");
        }
        assert!("everything".parse::<Act>().is_err());
    }

    #[test]
    fn a_set_holds_what_its_grantee_can_have_each_once() {
        assert_eq!(HostMay::parse("logs,stop").unwrap().to_string(), "stop,logs");
        assert_eq!(HostMay::parse("none").unwrap(), HostMay::none());
        assert_eq!(HostMay::none().to_string(), "none");
        assert_eq!(OwnerMay::all().iter().count(), 4);
        let (copies, runs) = (OwnerMay::parse("cp").unwrap(), OwnerMay::parse("exec").unwrap());
        assert!(copies.allows(Act::Cp) && !copies.allows(Act::Top) && !copies.allows(Act::Exec));
        assert!(
            runs.allows(Act::Cp)
                && runs.allows(Act::Top)
                && runs.allows(Act::Attach)
                && !runs.allows(Act::Logs)
                && !runs.contains(Act::Cp)
        );
        let host = |list| HostMay::parse(list).unwrap_err();
        assert_eq!(host("logs,logs"), ActError::Twice { act: Act::Logs });
        assert_eq!(host("none,exec"), ActError::NoneBesideActs);
        assert!(matches!(host("inject"), ActError::NotForThem { act: Act::Inject, .. }));
        assert!(matches!(host("stop,"), ActError::Unknown { .. }));
        assert!(matches!(host(""), ActError::Empty { .. }));
        assert!(matches!(OwnerMay::parse("stop").unwrap_err(), ActError::NotForThem { act: Act::Stop, .. }));
    }
}
