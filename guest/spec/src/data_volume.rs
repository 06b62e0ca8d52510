//! Data volumes: what a plain guest keeps beyond its own life, on a disk of its host's.

use serde::{Deserialize, Serialize};

/// One of them. Which of the host's it is, the host says: to a plain guest all that is in it is its host's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataVolume {
    /// Absolute path in the workload's root.
    pub path: String,
    /// Nothing is written to it.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub read_only: bool,
    /// A fresh one begins empty; else with what the image has at that path.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub begins_empty: bool,
}

impl DataVolume {
    /// Folder of its disk, or of the host's folder, that is the workload's.
    pub const CONTENTS: &str = "data";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Document, Mount, SpecError, Tee, Volume, WorkloadSpec, sample};

    fn at(path: &str) -> DataVolume {
        DataVolume { path: path.into(), read_only: false, begins_empty: false }
    }

    fn written(tee: Tee, data_volumes: Vec<DataVolume>) -> Result<Document, SpecError> {
        let mounts = vec![Mount::new("/tmp", 1 << 20)];
        Document::write(&WorkloadSpec { mounts, data_volumes, ..sample::workload(tee) })
    }

    #[test]
    fn plain_guests_have_them_and_a_spec_without_is_written_as_before() {
        let read_only = DataVolume { read_only: true, begins_empty: true, ..at("/cold") };
        let document = written(Tee::None, vec![at("/var/lib/db"), read_only.clone()]).unwrap();
        assert_eq!(document.spec().data_volumes, [at("/var/lib/db"), read_only]);
        let without = written(Tee::None, vec![]).unwrap();
        assert!(!String::from_utf8_lossy(without.bytes()).contains("data_volumes"));
        assert_ne!(without.digest(), document.digest());
    }

    #[test]
    fn a_guest_with_a_tee_has_none_and_no_place_has_two_things() {
        for tee in [Tee::Snp, Tee::Simulated] {
            let refused = written(tee, vec![at("/d")]).unwrap_err().to_string();
            assert!(refused.contains("data_volumes") && refused.contains("TEE"), "{refused}");
        }
        for path in ["d", "/", "/a/../b", "/a//b", "/proc", "/dev/shm", "/run/secrets/x", "/run", "/tmp"] {
            let refused = written(Tee::None, vec![at(path)]).unwrap_err().to_string();
            assert!(refused.contains("data_volumes.path"), "{path}: {refused}");
        }
        assert!(written(Tee::None, vec![at("/d"), at("/d")]).is_err());
        let many = |count: usize| (0..count).map(|index| at(&format!("/d{index}"))).collect();
        assert!(written(Tee::None, many(Volume::MOST)).is_ok());
        assert!(written(Tee::None, many(Volume::MOST + 1)).unwrap_err().to_string().contains("fit"));
    }
}
