//! Sealed volumes: what a guest with a TEE keeps beyond its own life, on a disk of its host's that is never believed.
//!
//! Where its parts lie on that disk is fixed here, for the guest that writes them and the host that makes the file:
//! ```text
//! 0           two headers, a block each: the keys of the volume, sealed
//! 64 KiB      copy of the tags (and of the journal) that the guest keeps in its memory
//! behind it   data: ciphertext
//! ```
//! Source: docs/design/sealing.md §7.1.

use serde::{Deserialize, Serialize};

use crate::{Name, Scratch};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedVolume {
    /// Its name: the context of its key, and of its record at the key broker.
    pub name: Name,
    /// Absolute path in the workload's root.
    pub path: String,
    /// Bytes of its file system's disk; a multiple of 4096.
    pub bytes: u64,
    /// Who opens it again.
    pub policy: VolumePolicy,
    /// What becomes of it after a stop that did not close it.
    pub unclean: Unclean,
    /// An older copy of the whole disk is noticed. `false` has to be written where nobody keeps a record.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub rollback_protected: bool,
    /// The workload writes nothing to it.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub read_only: bool,
    /// A fresh one begins empty; else with what the image has at that path.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub begins_empty: bool,
}

const fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_yes(said: &bool) -> bool {
    *said
}

/// A sealing policy that volumes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumePolicy {
    /// Same platform and workload, same chip; without a key broker, so that nobody notices an older copy.
    MeasurementAndChip,
    /// Same chip, and whoever the key broker admits there.
    Chip,
    /// Same measurement, on any chip.
    Measurement,
    /// Same workload spec, on any platform version that the key broker admits.
    Workload,
}

impl VolumePolicy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::MeasurementAndChip, Self::Chip, Self::Measurement, Self::Workload];

    /// Its name, as sealing has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MeasurementAndChip => "measurement-and-chip",
            Self::Chip => "chip",
            Self::Measurement => "measurement",
            Self::Workload => "workload",
        }
    }

    /// A key broker has part of the key, and keeps the record.
    pub const fn needs_broker(self) -> bool {
        !matches!(self, Self::MeasurementAndChip)
    }
}

/// What becomes of a volume that was not closed. Each of its blocks may then be any that was ever written there, and its host
/// can bring that about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unclean {
    /// It stays closed until an owner confirms.
    Refuse,
    /// Its journals are played back, and it is used.
    Recover,
}

impl SealedVolume {
    /// Least bytes.
    pub const LEAST: u64 = 16 << 20;
    /// Most bytes: its tags take about 1.2 % of that in guest memory.
    pub const MOST_BYTES: u64 = Scratch::MOST_DISK;
    /// Bytes of one of which nobody says how large it may be.
    pub const USUAL: u64 = 1 << 30;
    /// Bytes of a block: of encryption, of authentication, and of a header.
    pub const BLOCK: u64 = Scratch::BLOCK;
    /// Bytes of the journal that keeps data and tags together over a crash.
    pub const JOURNAL: u64 = 4 << 20;
    /// Where the copy of the tags begins.
    pub const TAGS_AT: u64 = 64 << 10;

    /// Bytes of guest memory that tags and journal take, all of it from the start.
    pub fn tag_bytes(&self) -> u64 {
        Self::tags_for(self.bytes)
    }

    fn tags_for(bytes: u64) -> u64 {
        // The superblock of dm-integrity, the rest of the last buffer, and of the journal's last section.
        const EXTRA: u64 = 1 << 20;
        let tags = bytes / Self::BLOCK * Scratch::TAG;
        (tags + Self::JOURNAL + EXTRA).next_multiple_of(64 << 10)
    }

    /// Where the data begins.
    pub fn data_at(&self) -> u64 {
        Self::TAGS_AT + self.tag_bytes()
    }

    /// Bytes of the host's disk of a volume of so many bytes.
    pub fn disk_for(bytes: u64) -> u64 {
        Self::TAGS_AT + Self::tags_for(bytes) + bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataVolume, Document, KbsPin, Mount, SpecError, Tee, Volume, WorkloadSpec, sample};

    fn volume(name: &str, path: &str) -> SealedVolume {
        SealedVolume {
            name: sample::name(name),
            path: path.into(),
            bytes: 16 << 20,
            policy: VolumePolicy::Workload,
            unclean: Unclean::Refuse,
            rollback_protected: true,
            read_only: false,
            begins_empty: false,
        }
    }

    fn written(tee: Tee, broker: bool, sealed_volumes: Vec<SealedVolume>) -> Result<Document, SpecError> {
        let pin = || KbsPin { address: "kbs:1".into(), spki: vec![coffer_verifier::abi::SpkiDigest::new([1; 32])] };
        let mounts = vec![Mount::new("/tmp", 1 << 20)];
        Document::write(&WorkloadSpec { kbs: broker.then(pin), mounts, sealed_volumes, ..sample::workload(tee) })
    }

    #[test]
    fn guests_with_a_tee_have_them_and_a_spec_without_is_written_as_before() {
        let local = SealedVolume {
            policy: VolumePolicy::MeasurementAndChip,
            rollback_protected: false,
            unclean: Unclean::Recover,
            ..volume("own", "/own")
        };
        let document = written(Tee::Simulated, true, vec![volume("db", "/db"), local.clone()]).unwrap();
        assert_eq!(document.spec().sealed_volumes, [volume("db", "/db"), local.clone()]);
        assert_eq!(Document::parse(document.bytes().to_vec()).unwrap(), document);
        assert!(written(Tee::Snp, false, vec![local]).is_ok(), "it needs no broker");
        let without = written(Tee::Simulated, true, vec![]).unwrap();
        assert!(!String::from_utf8_lossy(without.bytes()).contains("sealed_volumes"));
        assert_ne!(without.digest(), document.digest());
    }

    #[test]
    fn what_nobody_protects_says_so_and_what_a_broker_keeps_does_not() {
        let local = SealedVolume { policy: VolumePolicy::MeasurementAndChip, ..volume("db", "/db") };
        let waived = SealedVolume { rollback_protected: false, ..volume("db", "/db") };
        for (broker, volume, field) in [
            (true, local, "rollback_protected"),
            (true, waived, "rollback_protected"),
            (false, volume("db", "/db"), "policy"),
        ] {
            let refused = written(Tee::Simulated, broker, vec![volume]).unwrap_err().to_string();
            assert!(refused.contains(&format!("sealed_volumes.{field}")), "{refused}");
        }
    }

    #[test]
    fn a_plain_guest_has_none_and_no_name_or_place_has_two_things() {
        let refused = written(Tee::None, false, vec![volume("db", "/db")]).unwrap_err().to_string();
        assert!(refused.contains("sealed_volumes") && refused.contains("TEE"), "{refused}");
        for path in ["d", "/", "/a/../b", "/proc", "/run/secrets/x", "/run", "/tmp"] {
            let refused = written(Tee::Simulated, true, vec![volume("db", path)]).unwrap_err().to_string();
            assert!(refused.contains("sealed_volumes.path"), "{path}: {refused}");
        }
        assert!(written(Tee::Simulated, true, vec![volume("a", "/d"), volume("b", "/d")]).is_err());
        assert!(written(Tee::Simulated, true, vec![volume("a", "/d"), volume("a", "/e")]).is_err());
        let many = |count: usize| (0..count).map(|at| volume(&format!("v{at}"), &format!("/d{at}"))).collect();
        assert!(written(Tee::Simulated, true, many(Volume::MOST)).is_ok());
        assert!(written(Tee::Simulated, true, many(Volume::MOST + 1)).unwrap_err().to_string().contains("fit"));
        let data = DataVolume { path: "/x".into(), read_only: false, begins_empty: false };
        let both = WorkloadSpec { data_volumes: vec![data], ..sample::workload(Tee::Simulated) };
        assert!(Document::write(&both).is_err());
    }

    #[test]
    fn parts_of_the_disk_follow_each_other_in_whole_blocks() {
        for bytes in [SealedVolume::LEAST, 20 << 20, SealedVolume::USUAL, SealedVolume::MOST_BYTES] {
            let volume = SealedVolume { bytes, ..volume("db", "/db") };
            assert!(volume.tag_bytes() >= bytes / 4096 * 48 + SealedVolume::JOURNAL + (1 << 20), "{bytes}");
            assert!(volume.tag_bytes() <= bytes / 85 + (6 << 20), "{bytes}");
            assert!(volume.data_at().is_multiple_of(4096) && SealedVolume::disk_for(bytes) == volume.data_at() + bytes);
        }
    }
}
