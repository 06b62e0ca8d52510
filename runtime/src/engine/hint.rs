//! What an operator can do about a fault. How it is asked for (a flag, a field, a button) is the caller's to say.

use std::fmt;

use coffer_spec::Act;

/// What can be done. Its text names no flag: callers have a table of their own words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hint {
    /// In words that hold for every caller.
    Words(String),
    /// Pull the image, or let it be pulled.
    PullImage {
        /// As it was asked for.
        name: String,
    },
    /// Start the box.
    StartBox {
        /// Its name.
        name: String,
    },
    /// Let the paused box go on.
    UnpauseBox {
        /// Its name.
        name: String,
    },
    /// Look at the list of all boxes.
    ListBoxes,
    /// Stop the box first, or remove it by force.
    StopFirst,
    /// End it at once, or let it end in good order.
    KillOrStop,
    /// Four times what the tags of a scratch disk need.
    MoreMemory,
    /// Bind something there.
    BindVolume {
        /// Where the spec has a volume.
        path: String,
    },
    /// Say which volume.
    NameVolume {
        /// Where the spec has one.
        path: String,
    },
    /// Name a key broker, or a policy that needs none and that older copies are accepted.
    SealVolume,
    /// List the name when the box is made.
    ListInjected {
        /// Name of the secret.
        secret: String,
    },
    /// Make the box with a secure processor, real or simulated.
    WithProcessor,
    /// The same, or leave the ID block away.
    WithProcessorOrNoIdBlock,
    /// Let the simulator be the processor that the spec demands.
    AllowSimulator,
    /// Believe the simulator of this installation.
    BelieveSimulator,
    /// Believe this simulator or another one.
    BelieveSomeSimulator,
    /// Name a box of this machine's.
    NameBox,
    /// Say which guest may be there.
    NameGuest,
    /// It is a genuine guest, and none that was named.
    AnotherGuest,
    /// Publish the box's port for owners, and name it.
    PublishForOwners,
    /// Put the new value where the guest fetches it from.
    PutAtBroker {
        /// The box.
        name: String,
        /// Path at the broker.
        path: String,
    },
    /// Have an owner send the signal from inside, or end the box.
    SignalInside {
        /// The box.
        name: String,
        /// Number of the signal.
        signal: i32,
    },
    /// The workload is the expected one: say on which platform it runs.
    NamePlatform {
        /// The box.
        name: String,
    },
    /// It is another workload than was expected.
    NameWorkload {
        /// The box.
        name: String,
    },
    /// List the owner's key for an act when the box is made, or let the host do it where that can be.
    ListOwner {
        /// What was wanted.
        act: Act,
    },
}

impl Hint {
    /// Whether the spec can let the host do it, too.
    pub fn host_may(act: Act) -> bool {
        matches!(act, Act::Exec | Act::Logs | Act::Cp | Act::Top)
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Words(words) => f.write_str(words),
            Self::PullImage { name } => write!(f, "pull {name}, or let it be pulled"),
            Self::StartBox { name } => write!(f, "start {name}"),
            Self::UnpauseBox { name } => write!(f, "let {name} go on"),
            Self::ListBoxes => f.write_str("the list of all boxes, also of those that do not run, has every name"),
            Self::StopFirst => f.write_str("stop it first, or remove it by force"),
            Self::KillOrStop => f.write_str("end it at once, or stop it"),
            Self::MoreMemory => f.write_str("give the box four times that"),
            Self::NameVolume { path } => {
                write!(f, "name the volume for {path}, to be written or begun as the spec says")
            }
            Self::SealVolume => {
                f.write_str("name a key broker, or policy measurement-and-chip and that nobody notices an older copy")
            }
            Self::BindVolume { path } => write!(f, "bind something read-only at {path}"),
            Self::ListInjected { secret } => write!(f, "create the box with {secret} among the secrets to be injected"),
            Self::WithProcessor => f.write_str("create it with a secure processor, or a simulated one for development"),
            Self::WithProcessorOrNoIdBlock => {
                f.write_str("use a secure processor, real or simulated, or leave the ID block away")
            }
            Self::AllowSimulator => f.write_str("allow the simulator, for development"),
            Self::BelieveSimulator => f.write_str(
                "this box is simulated: the simulator of this installation can be believed, for development",
            ),
            Self::BelieveSomeSimulator => f.write_str(
                "simulated evidence is believed where that is allowed alone, and another installation's where its root is named",
            ),
            Self::NameBox => f.write_str("name a box of this machine: an address does for what an owner does inside a guest"),
            Self::NameGuest => f.write_str("name the guest that is expected: what it measures to, or a signed manifest"),
            Self::AnotherGuest => f.write_str(
                "it is a genuine guest, and none of those named: they are of another workload or platform, or the address is not the box's",
            ),
            Self::PublishForOwners => f.write_str("the box's host publishes a port for owners: is it that one?"),
            Self::PutAtBroker { name, path } => {
                write!(f, "put it into the key broker, at {path}, and have {name} look for it")
            }
            Self::SignalInside { name, signal } => {
                write!(f, "an owner may send signal {signal} from inside {name}; its host may end it, or stop it")
            }
            Self::NamePlatform { name } => {
                write!(f, "it runs the expected workload on another platform: name the one that {name} was started on")
            }
            Self::NameWorkload { name } => {
                write!(f, "{name} runs another workload than is expected: look whether it is the box that is meant")
            }
            Self::ListOwner { act } => {
                write!(f, "create the box with your key listed for {act}")?;
                if Self::host_may(*act) { write!(f, ", or let the host do it") } else { Ok(()) }
            }
        }
    }
}

impl From<String> for Hint {
    fn from(words: String) -> Self {
        Self::Words(words)
    }
}

impl From<&str> for Hint {
    fn from(words: &str) -> Self {
        Self::Words(words.to_owned())
    }
}
