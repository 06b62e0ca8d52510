//! What the holder of a box is told, as JSON behind its length, so that nothing which follows is taken for a part of it.

use std::io::Read;
use std::path::PathBuf;

use coffer_machine::disks;
use coffer_rim::{Class, Classify as _, Failure};
use serde::{Deserialize, Serialize};

use crate::monitor::{Access, Disk, Launch, Limits, Writes};

/// A box to hold. Relative paths start in its folder, where the holder runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The archive init is taken from.
    pub initrd: Initrd,
    /// The measured command line with its NUL.
    pub command_line: PathBuf,
    /// Bytes of the spec disk.
    pub spec: PathBuf,
    /// Secrets page of a simulated processor.
    pub secrets: Option<PathBuf>,
    /// Root, then the volumes.
    pub images: Vec<Image>,
    /// Folders of the host's that outlive it.
    pub folders: Vec<Folder>,
    /// What bounds it.
    pub limits: Limits,
    /// Its network card, if it has one.
    pub card: Option<Card>,
}

/// An initrd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Initrd {
    /// The file.
    pub file: PathBuf,
    /// Its SHA-256, hex.
    pub sha256: String,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Where whoever takes its frames listens.
    pub socket: PathBuf,
    /// Its address.
    pub mac: [u8; 6],
    /// Bytes of the longest packet.
    pub mtu: u16,
}

/// A folder that outlives the box.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Folder {
    /// Serial of its disk in a machine.
    pub serial: String,
    /// The folder.
    pub path: PathBuf,
    /// The box may write to it.
    pub writes: bool,
}

/// An image that is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Serial of its disk in a machine.
    pub serial: String,
    /// The file.
    pub file: PathBuf,
}

/// What the two ends of the line say.
pub mod word {
    /// What stands outside of the box is there: init may run.
    pub const BEGIN: u8 = b'b';
    /// init runs.
    pub const RUNS: u8 = b's';
    /// The box is to end.
    pub const KILL: u8 = b'k';
}

/// Longest order.
const LIMIT: u32 = 1 << 20;

impl Order {
    /// As it is sent.
    ///
    /// # Errors
    /// Class `internal` for one that is too long.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Failure> {
        let text = serde_json::to_vec(self).class(Class::Internal)?;
        let length = u32::try_from(text.len()).ok().filter(|length| *length <= LIMIT);
        let length = length.ok_or_else(|| Failure::new(Class::Internal, "the order of a box is too long"))?;
        Ok([&length.to_be_bytes()[..], &text].concat())
    }

    /// Reads one, and not a byte more.
    ///
    /// # Errors
    /// Class `internal` for what is none.
    pub fn read(mut from: impl Read) -> Result<Self, Failure> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > LIMIT {
            return Err(Failure::new(Class::Internal, "the order of a box is too long"));
        }
        let mut text = vec![0; length as usize];
        from.read_exact(&mut text)?;
        serde_json::from_slice(&text).class(Class::Internal)
    }

    /// What stands for a launch where there is no machine.
    ///
    /// # Errors
    /// Class `platform` for what only a machine has.
    pub fn of(launch: &Launch) -> Result<Self, Failure> {
        let lacks = |what: &str| Err(Failure::new(Class::Platform, format!("a box in namespaces has {what}")));
        if launch.snp.is_some() {
            return lacks("no memory that a processor could encrypt");
        }
        if launch.disks.iter().any(|disk| disk.access == Access::Ephemeral) {
            return lacks("no scratch disk: there is no device-mapper on the host");
        }
        let kept = |disk: &&Disk| matches!(disk.access, Access::Kept(_));
        let (folders, others): (Vec<_>, Vec<_>) = launch.disks.iter().partition(kept);
        let (spec, images): (Vec<_>, Vec<_>) = others.into_iter().partition(|disk| disk.serial == disks::SPEC);
        let [spec] = spec[..] else { return lacks("one spec") };
        if images.first().is_none_or(|disk| disk.serial != disks::ROOT) {
            return lacks("a root, before its volumes");
        }
        Ok(Self {
            initrd: Initrd { file: launch.measured.initrd.clone(), sha256: launch.measured.initrd_sha256.clone() },
            command_line: launch.measured.command_line.clone(),
            spec: spec.file.clone(),
            secrets: launch.secrets.clone(),
            limits: launch.limits,
            card: launch.card.map(|card| Card { socket: card.socket.into(), mac: card.mac, mtu: card.mtu }),
            folders: folders
                .into_iter()
                .map(|disk| Folder {
                    serial: disk.serial.clone(),
                    path: disk.file.clone(),
                    writes: disk.access == Access::Kept(Writes::Allowed),
                })
                .collect(),
            images: images
                .into_iter()
                .map(|disk| Image { serial: disk.serial.clone(), file: disk.file.clone() })
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_an_order_is_no_part_of_it() {
        let order = Order {
            initrd: Initrd { file: "initrd".into(), sha256: String::new() },
            command_line: "cmdline".into(),
            spec: "spec".into(),
            secrets: None,
            images: vec![],
            folders: vec![],
            limits: Limits::default(),
            card: None,
        };
        let sent = [order.to_bytes().unwrap(), vec![word::BEGIN]].concat();
        let mut line = &sent[..];
        assert_eq!(Order::read(&mut line).unwrap(), order);
        assert_eq!(line, [word::BEGIN]);
        for bad in [&sent[..3], &sent[..sent.len() - 2], &[0xFF; 4], &[0, 0, 0, 2, b'{', b'}']] {
            assert!(Order::read(bad).is_err());
        }
    }
}
