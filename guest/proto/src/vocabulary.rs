//! What a guest may say to its host: phases, failure codes and numbers. In TEE mode these are all it says.
//!
//! Trusts: nothing. What stands in an [`Event`] becomes a [`Told`], and what is in no list here does not come through.
//! Source: docs/design/guest.md §8.

use crate::{Event, Phase};

impl Phase {
    /// Every phase a guest reports, in the order of a life.
    pub const ALL: [Self; 9] = [
        Self::Booted,
        Self::SpecChecked,
        Self::RootReady,
        Self::AgentReady,
        Self::Attested,
        Self::SecretsReady,
        Self::Running,
        Self::Exited,
        Self::Failed,
    ];

    /// The fixed word, as it stands on the console, in timings and in `--json`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "unknown",
            Self::Booted => "booted",
            Self::SpecChecked => "spec-checked",
            Self::RootReady => "root-ready",
            Self::AgentReady => "agent-ready",
            Self::Attested => "attested",
            Self::SecretsReady => "secrets-ready",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Failed => "failed",
        }
    }

    /// The phase with this word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.word() == word)
    }

    /// Nothing comes after it.
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Exited | Self::Failed)
    }
}

macro_rules! failure_codes {
    ($($(#[$doc:meta])* $code:ident = $word:literal,)*) => {
        /// Why a guest gave up before its workload ran.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum FailureCode {
            $($(#[$doc])* $code,)*
        }

        impl FailureCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$code,)*];

            /// The word on the wire.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$code => $word,)*
                }
            }
        }
    };
}

failure_codes! {
    /// The spec's digest is not the one on the command line or in HOST_DATA.
    SpecMismatch = "spec-mismatch",
    /// The spec does not parse.
    SpecInvalid = "spec-invalid",
    /// The secure processor the spec demands is not the one that is there.
    TeeMismatch = "tee-mismatch",
    /// This guest's security version is below the spec's floor, or not signed by the key the spec names.
    SvnBelowFloor = "svn-below-floor",
    /// The network card cannot be held to the spec's rules, or the spec has none for it.
    CardNotHeld = "card-not-held",
    /// The root file system is not the one in the spec.
    RootCorrupt = "root-corrupt",
    /// A volume is not the one in the spec.
    VolumeCorrupt = "volume-corrupt",
    /// A data volume cannot be mounted, or a fresh one not be filled.
    VolumeUnusable = "volume-unusable",
    /// A sealed volume does not open here: it is of another chip, workload or tenant, or its header was changed.
    SealedVolumeClosed = "sealed-volume-closed",
    /// A sealed volume is not the one that the key broker's record is of: an older copy, or an empty one in its place.
    SealedVolumeOlder = "sealed-volume-older",
    /// A sealed volume was not closed when it was last used, and the spec does not let it be recovered.
    SealedVolumeUnclean = "sealed-volume-unclean",
    /// What lies on a sealed volume's disk is not what was written there.
    SealedVolumeCorrupt = "sealed-volume-corrupt",
    /// The workload has ended, and a sealed volume could not be closed behind it.
    SealedVolumeLeftOpen = "sealed-volume-left-open",
    /// Nobody answers at the key broker's address.
    KbsUnreachable = "kbs-unreachable",
    /// Somebody else answers there.
    KbsPinMismatch = "kbs-pin-mismatch",
    /// The key broker did not release a secret.
    NotReleased = "not-released",
    /// A released secret cannot go where the spec wants it.
    SecretUnusable = "secret-unusable",
    /// The spec's user or group is not in the image.
    UserNotFound = "user-not-found",
    /// A further group of the spec's user is not in the image.
    GroupNotFound = "group-not-found",
    /// The guest's kernel does not set a limit of the spec, or it would bind nobody.
    LimitRefused = "limit-refused",
    /// The guest's kernel does not take a setting of the spec.
    SettingRefused = "setting-refused",
    /// The image has no place for a mount or the working directory of the spec, or for a folder of the guest's own.
    NoPlace = "no-place",
    /// The program is not in the image.
    WorkloadNotFound = "workload-not-found",
    /// The program is in the image; the interpreter or dynamic linker that runs it is not.
    InterpreterNotFound = "interpreter-not-found",
    /// The program is there but does not execute.
    WorkloadNotExecutable = "workload-not-executable",
    /// Anything else.
    Internal = "internal",
}

impl FailureCode {
    /// The code with this word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.word() == word)
    }
}

/// Metadata of a refusal on an attested connection: its word, such as `older`, for programs.
pub const REASON: &str = "coffer-reason";

/// Every word with which the agent refuses a call on the host's ports, whoever may do what.
pub const REFUSALS: &[&str] = &[
    "host-may-not:stop",
    "host-may-not:stats",
    "host-may-not:logs",
    "host-may-not:exec",
    "host-may-not:cp",
    "host-may-not:top",
    "host-may-not:attach",
    "workload-not-running",
    "expected-start",
    "too-many-programs",
    "too-many-attached",
    "too-many-readers",
    "no-such-method",
    "request-too-long",
    "request-late",
    "busy",
];

/// The word of a refusal that came over a port of the host's; anything else in its place is not ours to repeat.
pub fn refusal_word(message: &str) -> Option<&'static str> {
    REFUSALS.iter().copied().find(|word| *word == message)
}

/// How freely a guest may speak to its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// In TEE mode: words of this module and numbers.
    FixedWords,
    /// Without a TEE: a sentence for people, too. Foreign text, to be escaped where it is shown.
    Sentences,
}

/// An event, as far as the host may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// How far the guest has come.
    pub phase: Phase,
    /// The guest kernel's clock.
    pub since_boot_us: u64,
    /// With [`Phase::Exited`]: 0 to 255.
    pub exit_status: u8,
    /// With [`Phase::Failed`]: why.
    pub failure: Option<ToldFailure>,
}

/// Why a guest gave up, as far as the host may know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldFailure {
    /// What kind; none where the guest used a word we do not know.
    pub code: Option<FailureCode>,
    /// The kernel's error number, 0 where there is none.
    pub errno: u16,
    /// The key broker's number for its refusal, which its log has too; 0 where there is none.
    pub denial_id: u64,
    /// The agent's sentence; always empty under [`Speech::FixedWords`].
    pub detail: String,
}

impl Event {
    /// What may be used of it: whatever is free text from a TEE guest is left behind, even if it was sent.
    pub fn told(&self, speech: Speech) -> Told {
        let phase = self.phase();
        let failure = (phase == Phase::Failed).then(|| ToldFailure {
            code: FailureCode::of_word(&self.code),
            errno: u16::try_from(self.errno).ok().filter(|errno| *errno < 4096).unwrap_or(0),
            denial_id: self.denial_id,
            detail: match speech {
                Speech::FixedWords => String::new(),
                Speech::Sentences => self.detail.clone(),
            },
        });
        let exit_status = if phase == Phase::Exited { u8::try_from(self.exit_status).unwrap_or(u8::MAX) } else { 0 };
        Told { phase, since_boot_us: self.since_boot_us, exit_status, failure }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back_and_none_stands_for_two() {
        for phase in Phase::ALL {
            assert_eq!(Phase::of_word(phase.word()), Some(phase));
        }
        assert_eq!(Phase::of_word("unknown"), None);
        for code in FailureCode::ALL {
            assert_eq!(FailureCode::of_word(code.word()), Some(*code));
        }
        assert!((0..=9).all(|number| Phase::try_from(number).is_ok_and(|p| number == 0 || Phase::ALL.contains(&p))));
        assert!(Phase::try_from(10).is_err(), "a new phase goes into ALL");
    }

    #[test]
    fn a_refusal_is_a_word_of_the_list_or_nothing() {
        assert!(REFUSALS.iter().all(|word| refusal_word(word) == Some(*word)));
        for text in ["", "host-may-not:", "host-may-not:exec and hunter2", "Host-May-Not:exec"] {
            assert_eq!(refusal_word(text), None, "{text}");
        }
    }

    #[test]
    fn a_tee_guest_says_words_of_the_list_and_numbers_and_nothing_else() {
        let leak = "the database password is hunter2";
        let event = Event {
            phase: Phase::Failed.into(),
            since_boot_us: 7,
            exit_status: 0x1234_5678,
            code: leak.into(),
            detail: leak.into(),
            errno: i32::MAX,
            denial_id: 9,
        };
        let told = event.told(Speech::FixedWords);
        let failure = ToldFailure { code: None, errno: 0, denial_id: 9, detail: String::new() };
        assert_eq!(told, Told { phase: Phase::Failed, since_boot_us: 7, exit_status: 0, failure: Some(failure) });
        assert!(!format!("{told:?}").contains("hunter2"));
        assert_eq!(
            event.told(Speech::Sentences).failure.unwrap().detail,
            leak,
            "a plain box has no secrets from its host"
        );
        let exited = Event { phase: Phase::Exited.into(), ..event };
        assert_eq!((exited.told(Speech::FixedWords).exit_status, exited.told(Speech::Sentences).failure), (255, None));
    }
}
