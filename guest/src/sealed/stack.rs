//! The devices of an open volume.
//!
//! ```text
//! ext4 ─► dm-crypt: AES-XTS and HMAC-SHA-256, random IVs ─► dm-integrity, with a journal ─► linear: the host's disk, data
//!                                                           └─► mirror ─► RAM disk: tags and journal, and all that is read of them
//!                                                                     └─► the host's disk: a copy, only ever written
//! ```
//! A mirror reads from its first leg as long as that has no error, and a RAM disk whose pages are all there has none. So what the
//! host gives for tags is never read while the volume is open, and after a crash it has both halves of what was being written.
//! Source: Linux Documentation/admin-guide/device-mapper/{dm-crypt,dm-integrity,linear,dm-raid1}; drivers/md/dm-raid1.c,
//! `choose_mirror` and `fail_mirror` (no leg becomes another's stand-in without `handle_errors`).

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use coffer_spec::{Scratch, SealedVolume};
use zeroize::Zeroizing;

use super::{header::Secrets, tags};
use crate::{
    boot::devices::Disk,
    sys::dm::{Access, DeviceMapper, Mapped, Target},
};

const SECTOR: u64 = 512;
/// How long whoever still holds a device may take to let go of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Devices, from the lowest up.
#[derive(Default)]
pub struct Stack(Vec<Mapped>);

impl Stack {
    /// Makes them over the volume's RAM disk, which holds its tags, or zeros for a new volume.
    ///
    /// # Errors
    /// The kernel's, with what could not be made. Nothing is left of it.
    pub fn open(
        index: usize,
        disk: &Disk,
        volume: &SealedVolume,
        secrets: &Secrets,
    ) -> Result<Self, (&'static str, io::Error)> {
        let mapper = DeviceMapper::open().map_err(|error| ("the device mapper", error))?;
        let mut stack = Self::default();
        let tags = volume.tag_bytes() / SECTOR;
        stack.add(
            &mapper,
            index,
            "linear",
            volume.bytes / SECTOR,
            &format!("{} {}", disk.numbers, volume.data_at() / SECTOR),
        )?;
        stack.add(&mapper, index, "mirror", tags, &mirror_line(index, &disk.numbers))?;
        let [data, copy] = [0, 1].map(|at: usize| stack.0[at].numbers.clone());
        stack.add(&mapper, index, "integrity", volume.bytes / SECTOR, &integrity_line(&data, &copy, secrets))?;
        let integrity = stack.0[2].numbers.clone();
        stack.add(&mapper, index, "crypt", volume.bytes / SECTOR, &crypt_line(&integrity, secrets))?;
        Ok(stack)
    }

    fn add(
        &mut self,
        mapper: &DeviceMapper,
        index: usize,
        kind: &'static str,
        sectors: u64,
        parameters: &str,
    ) -> Result<(), (&'static str, io::Error)> {
        let target = Target { kind, sectors, parameters };
        match mapper.create(&format!("sealed-{index}-{kind}"), Access::ReadWrite, &target) {
            Ok(mapped) => {
                self.0.push(mapped);
                Ok(())
            }
            Err(error) => {
                let _ = self.take_away(mapper, Instant::now());
                Err((kind, error))
            }
        }
    }

    /// The device that a file system is on.
    pub fn node(&self) -> &Path {
        self.0.last().map_or(Path::new(""), |top| &top.node)
    }

    /// Takes them away, from the top; what was written is on its way down then. Waits for whoever still has one of them.
    ///
    /// # Errors
    /// The kernel's.
    pub fn close(mut self) -> io::Result<()> {
        if self.0.is_empty() { Ok(()) } else { self.take_away(&DeviceMapper::open()?, Instant::now() + PATIENCE) }
    }

    fn take_away(&mut self, mapper: &DeviceMapper, until: Instant) -> io::Result<()> {
        while let Some(top) = self.0.last() {
            match mapper.remove(top) {
                Ok(()) => drop(self.0.pop()),
                Err(error) if error.raw_os_error() != Some(libc::EBUSY) || Instant::now() > until => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        Ok(())
    }
}

/// Regions of 512 KiB; `nosync`: both legs are alike already, or nobody reads where they are not.
fn mirror_line(index: usize, disk: &str) -> String {
    let (ram, at) = (tags::numbers(index), SealedVolume::TAGS_AT / SECTOR);
    format!("core 2 1024 nosync 2 {ram} 0 {disk} {at}")
}

fn integrity_line(data: &str, tags: &str, secrets: &Secrets) -> Zeroizing<String> {
    let (tag, block, journal) = (Scratch::TAG, SealedVolume::BLOCK, SealedVolume::JOURNAL / SECTOR);
    let key = Zeroizing::new(hex::encode(secrets.journal));
    Zeroizing::new(format!(
        "{data} 0 {tag} J 5 block_size:{block} journal_sectors:{journal} meta_device:{tags} journal_mac:hmac(sha256):{} fix_hmac",
        key.as_str()
    ))
}

fn crypt_line(device: &str, secrets: &Secrets) -> Zeroizing<String> {
    let (tag, block) = (Scratch::TAG, SealedVolume::BLOCK);
    let key = Zeroizing::new(hex::encode(secrets.key));
    Zeroizing::new(format!(
        "capi:authenc(hmac(sha256),xts(aes))-random {} 0 {device} 0 2 integrity:{tag}:aead sector_size:{block}",
        key.as_str()
    ))
}

/// Where the file system of the volume of an index is mounted.
pub fn mount_point(index: usize) -> PathBuf {
    format!("{}/sealed/{index}", crate::boot::mounts::OWN).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealed::header::KEY;

    #[test]
    fn the_tables_are_those_the_kernel_documents() {
        let secrets = Secrets { key: [0xab; KEY], journal: [0xcd; 32], superblock: [0; 32] };
        assert_eq!(mirror_line(0, "254:32"), "core 2 1024 nosync 2 1:1 0 254:32 128");
        assert_eq!(
            *integrity_line("253:0", "253:1", &secrets),
            format!(
                "253:0 0 48 J 5 block_size:4096 journal_sectors:8192 meta_device:253:1 journal_mac:hmac(sha256):{} fix_hmac",
                "cd".repeat(32)
            )
        );
        assert_eq!(
            *crypt_line("253:2", &secrets),
            format!(
                "capi:authenc(hmac(sha256),xts(aes))-random {} 0 253:2 0 2 integrity:48:aead sector_size:4096",
                "ab".repeat(KEY)
            )
        );
    }
}
