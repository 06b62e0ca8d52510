//! What the judge said, in the words of AR4SI: six of its eight claims, and the tier of the worst.
//!
//! It says no more than was checked. Whatever was waived makes a warning: a reader of the status alone does not take a guest of
//! any measurement, a chain without revocation or firmware of any age for an approved one. Simulated evidence is never affirming: what
//! it cannot be, genuine hardware, has a value of its own (97), and nothing else hides behind that.
//! Source: draft-ietf-rats-ar4si §2.3; draft-ietf-rats-ear §3.2.

use std::borrow::Cow;

use crate::{CheckLine, Code, CrlStatus, Outcome, Verdict, VerifiedReport, abi::PolicyBit};

/// A tier of trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nothing is said.
    None,
    /// Appraised, and good.
    Affirming,
    /// Appraised, and something was waived or is not as it should be.
    Warning,
    /// Appraised, and bad.
    Contraindicated,
}

impl Status {
    /// The tier of one claim.
    const fn of(value: i8) -> Self {
        match value {
            2..=31 | -32..=-2 => Self::Affirming,
            32..=95 | -96..=-33 => Self::Warning,
            96.. | ..=-97 => Self::Contraindicated,
            -1..=1 => Self::None,
        }
    }

    /// The word in tokens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Affirming => "affirming",
            Self::Warning => "warning",
            Self::Contraindicated => "contraindicated",
        }
    }
}

impl core::fmt::Display for Status {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The status of a token, which is one whatever is asked of it: the tier that it states and, of simulated evidence, what counts where
/// simulators are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatedStatus {
    /// As stated, or of the worst claim if that is worse.
    pub stated: Status,
    /// Of simulated evidence: of the worst claim that is not about genuine hardware, which a simulator has not.
    pub but_for_hardware: Option<Status>,
}

impl StatedStatus {
    /// The tier that is held against what is demanded.
    pub const fn counted(self) -> Status {
        match self.but_for_hardware {
            Some(status) => status,
            None => self.stated,
        }
    }
}

impl core::fmt::Display for StatedStatus {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.but_for_hardware {
            Some(status) => write!(f, "{} ({status} but for its simulated hardware)", self.stated),
            None => self.stated.fmt(f),
        }
    }
}

/// The claims; 0 says nothing, and is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TrustVector {
    /// Is it a known chip: 2 a listed one, 96 a denied one, 97 not a listed one.
    #[serde(skip_serializing_if = "is_zero")]
    pub instance_identity: i8,
    /// POLICY, PLATFORM_INFO and privilege level: 2 as the policy wants them, 32 debugging allowed, 96 refused. Of simulated evidence 32
    /// also says what `hardware` and `runtime-opaque` have no room for: a migration agent, revocation or TCB that were not asked about.
    #[serde(skip_serializing_if = "is_zero")]
    pub configuration: i8,
    /// What was launched: 2 approved, 33 nobody asked, 96 refused.
    #[serde(skip_serializing_if = "is_zero")]
    pub executables: i8,
    /// Never said by us.
    #[serde(skip_serializing_if = "is_zero")]
    pub file_system: i8,
    /// 2 genuine and new enough, 32 revocation or TCB were not asked about, 96 refused, 97 none of AMD's.
    #[serde(skip_serializing_if = "is_zero")]
    pub hardware: i8,
    /// Memory: 2 encrypted, 32 a migration agent has the keys too, 96 the host may read it by the guest's policy, 97 no chip encrypts it.
    #[serde(skip_serializing_if = "is_zero")]
    pub runtime_opaque: i8,
    /// Never said by us.
    #[serde(skip_serializing_if = "is_zero")]
    pub storage_opaque: i8,
    /// Never said by us.
    #[serde(skip_serializing_if = "is_zero")]
    pub sourced_data: i8,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(value: &i8) -> bool {
    *value == 0
}

/// What a simulator cannot be.
const NO_HARDWARE: i8 = 97;
/// Cryptographic validation of the evidence failed.
const NOT_AUTHENTIC: i8 = 99;

impl TrustVector {
    /// Of evidence that is not authentic.
    pub(super) const fn not_authentic() -> Self {
        const BAD: i8 = NOT_AUTHENTIC;
        let (instance_identity, configuration, executables, hardware, runtime_opaque) = (BAD, BAD, BAD, BAD, BAD);
        Self {
            instance_identity,
            configuration,
            executables,
            hardware,
            runtime_opaque,
            file_system: 0,
            storage_opaque: 0,
            sourced_data: 0,
        }
    }

    /// Of an authentic report and the checks that were made of it.
    pub(super) fn of(verified: &VerifiedReport, checks: &[Cow<'_, CheckLine>]) -> Self {
        let passed =
            |codes: &[Code]| checks.iter().any(|line| line.outcome == Outcome::Passed && codes.contains(&line.code));
        let failed =
            |about: About| checks.iter().any(|line| line.outcome == Outcome::Failed && About::of(line.code) == about);
        let policy = verified.report().policy();
        let (debug, migration) = (policy.has(PolicyBit::Debug), policy.has(PolicyBit::MigrateMa));
        let asked = passed(&[Code::TcbMinimum]) && verified.crl() != CrlStatus::Waived;
        let simulated = verified.simulated();
        let approved = passed(&[Code::Guest, Code::Signer, Code::Measurement, Code::IdKey, Code::AuthorKey]);
        Self {
            instance_identity: if failed(About::Denied) {
                96
            } else if failed(About::Chip) {
                97
            } else if passed(&[Code::ChipNotListed]) {
                2
            } else {
                0
            },
            configuration: if failed(About::Configuration) {
                96
            } else if debug || simulated && (migration || !asked) {
                32
            } else {
                2
            },
            executables: if failed(About::Guest) {
                96
            } else if approved {
                2
            } else {
                33
            },
            hardware: if failed(About::Hardware) {
                96
            } else if simulated {
                NO_HARDWARE
            } else if asked {
                2
            } else {
                32
            },
            runtime_opaque: if debug {
                96
            } else if simulated {
                NO_HARDWARE
            } else if migration {
                32
            } else {
                2
            },
            ..Self::default()
        }
    }

    /// The tier of the worst claim, and never better than the verdict.
    pub(super) fn status(self, verdict: Verdict) -> Status {
        match verdict {
            Verdict::Accepted => self.worst(),
            Verdict::Refused | Verdict::NotAuthentic => Status::Contraindicated,
        }
    }

    /// The tier of the worst claim.
    pub fn worst(self) -> Status {
        self.all().into_iter().map(Status::of).max().unwrap_or(Status::None)
    }

    /// The tier of the worst claim about the guest, leaving out what a simulator cannot be: genuine hardware.
    pub(super) fn worst_but_hardware(self) -> Status {
        let forgiven = |value| if value == NO_HARDWARE { 0 } else { value };
        let (hardware, runtime_opaque) = (forgiven(self.hardware), forgiven(self.runtime_opaque));
        Self { hardware, runtime_opaque, ..self }.worst()
    }

    const fn all(self) -> [i8; 8] {
        [
            self.instance_identity,
            self.configuration,
            self.executables,
            self.file_system,
            self.hardware,
            self.runtime_opaque,
            self.storage_opaque,
            self.sourced_data,
        ]
    }
}

/// What a check is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    Authentic,
    Guest,
    Hardware,
    Chip,
    Denied,
    Configuration,
}

impl About {
    const fn of(code: Code) -> Self {
        use Code as C;
        match code {
            C::Guest | C::Signer | C::Measurement | C::HostData | C::IdKey | C::AuthorKey | C::GuestSvn => Self::Guest,
            C::ProductRefused
            | C::ProductDenied
            | C::TcbNoMinimum
            | C::TcbMinimum
            | C::TcbMinimumCommitted
            | C::TcbMinimumLaunch
            | C::ProvisionalFirmware
            | C::LaunchMitigations
            | C::CurrentMitigations
            | C::CrlAge => Self::Hardware,
            C::ChipNotListed => Self::Chip,
            C::ChipDenied => Self::Denied,
            C::Vmpl
            | C::Debug
            | C::MigrationAgent
            | C::GuestPolicy
            | C::MinimumAbi
            | C::PlatformInfo
            | C::PlatformInfoUnknown
            | C::Rego => Self::Configuration,
            _ => Self::Authentic,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stage;

    #[test]
    fn every_check_of_a_policy_has_its_place_in_the_vector() {
        for code in Code::ALL.iter().copied() {
            let of_a_policy = matches!(code.stage(), Stage::Expected | Stage::Policy) || code == Code::Rego;
            assert_eq!(About::of(code) != About::Authentic, of_a_policy, "{code}");
        }
    }

    #[test]
    fn the_status_is_the_tier_of_the_worst() {
        for (value, status) in [
            (i8::MIN, Status::Contraindicated),
            (-97, Status::Contraindicated),
            (-96, Status::Warning),
            (-33, Status::Warning),
            (-32, Status::Affirming),
            (-2, Status::Affirming),
            (-1, Status::None),
            (1, Status::None),
            (2, Status::Affirming),
            (31, Status::Affirming),
            (32, Status::Warning),
            (95, Status::Warning),
            (96, Status::Contraindicated),
            (127, Status::Contraindicated),
        ] {
            let vector = TrustVector { hardware: value, ..TrustVector::default() };
            assert_eq!(vector.status(Verdict::Accepted), status, "{value}");
            assert_eq!(vector.status(Verdict::Refused), Status::Contraindicated);
        }
        let mixed = TrustVector { hardware: 2, executables: 33, ..TrustVector::default() };
        assert_eq!((mixed.worst(), mixed.worst_but_hardware()), (Status::Warning, Status::Warning));
        let simulated = TrustVector { configuration: 2, hardware: 97, runtime_opaque: 97, ..TrustVector::default() };
        assert_eq!((simulated.worst(), simulated.worst_but_hardware()), (Status::Contraindicated, Status::Affirming));
        for worse in [
            TrustVector { runtime_opaque: 96, ..simulated },
            TrustVector { hardware: 96, ..simulated },
            TrustVector { configuration: 97, ..simulated },
        ] {
            assert_eq!(worse.worst_but_hardware(), Status::Contraindicated, "{worse:?}");
        }
        assert_eq!(TrustVector::not_authentic().worst(), Status::Contraindicated);
    }
}
