//! QEMU's fw_cfg device: its DMA command and its file directory. All of it is the host's word.
//!
//! Source: QEMU docs/specs/fw_cfg.rst.

use crate::bytes::{be16, be32};

/// Ports of the DMA address register, high half first.
pub const DMA_PORT_HIGH: u16 = 0x514;
/// Low half; writing it starts the command.
pub const DMA_PORT_LOW: u16 = 0x518;

/// Items with fixed selectors.
pub mod item {
    /// `QEMU`.
    pub const SIGNATURE: u16 = 0x00;
    /// Bit 1: DMA.
    pub const ID: u16 = 0x01;
    /// RAM size, u64.
    pub const RAM_SIZE: u16 = 0x03;
    /// Virtual CPUs, u16.
    pub const CPUS: u16 = 0x05;
    /// File directory.
    pub const DIRECTORY: u16 = 0x19;
}

/// Items of ours. QEMU would patch a kernel that is given to it as one.
pub mod file {
    /// bzImage.
    pub const KERNEL: &str = "opt/coffer/kernel";
    /// Initrd.
    pub const INITRD: &str = "opt/coffer/initrd";
    /// Command line with its NUL.
    pub const COMMAND_LINE: &str = "opt/coffer/cmdline";
}

/// Bytes of a DMA command.
pub const COMMAND_SIZE: usize = 16;
/// In the answer: the command failed.
pub const ERROR: u32 = 1;
/// Read into memory.
const READ: u32 = 2;
/// Select an item first; without it the read goes on where the last one ended.
const SELECT: u32 = 8;

/// A command that reads `length` bytes to `gpa`: of an item from its start, or on from where the last read ended.
pub fn read_command(selector: Option<u16>, length: u32, gpa: u64) -> [u8; COMMAND_SIZE] {
    let control = selector.map_or(READ, |selector| READ | SELECT | u32::from(selector) << 16);
    let mut command = [0; COMMAND_SIZE];
    command[..4].copy_from_slice(&control.to_be_bytes());
    command[4..8].copy_from_slice(&length.to_be_bytes());
    command[8..].copy_from_slice(&gpa.to_be_bytes());
    command
}

/// Most bytes of the directory that are read: 63 files, more than any machine of ours has.
pub const DIRECTORY_LIMIT: usize = 4 + 63 * ENTRY;
const ENTRY: usize = 64;

/// One file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Selector.
    pub selector: u16,
    /// Bytes.
    pub size: u32,
}

/// Looks a file up in the directory's bytes. `None` if it is not there, or there twice.
pub fn find(directory: &[u8], name: &str) -> Option<File> {
    let count = usize::try_from(be32(directory, 0)?).ok()?;
    let mut found = None;
    for entry in directory.get(4..)?.chunks_exact(ENTRY).take(count) {
        let text = entry.get(8..)?;
        let end = text.iter().position(|byte| *byte == 0)?;
        if text.get(..end)? == name.as_bytes() {
            let file = File { size: be32(entry, 0)?, selector: be16(entry, 4)? };
            if found.replace(file).is_some() {
                return None;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn directory(files: &[(&str, u16, u32)]) -> Vec<u8> {
        let mut bytes = (files.len() as u32).to_be_bytes().to_vec();
        for (name, selector, size) in files {
            bytes.extend_from_slice(&size.to_be_bytes());
            bytes.extend_from_slice(&selector.to_be_bytes());
            bytes.extend_from_slice(&[0; 2]);
            let mut text = [0; 56];
            text[..name.len()].copy_from_slice(name.as_bytes());
            bytes.extend_from_slice(&text);
        }
        bytes
    }

    #[test]
    fn files_are_found_by_their_whole_name_once() {
        let bytes = directory(&[("opt/coffer/kernel2", 1, 2), (file::KERNEL, 0x21, 99), ("etc/e820", 3, 4)]);
        assert_eq!(find(&bytes, file::KERNEL), Some(File { selector: 0x21, size: 99 }));
        assert_eq!(find(&bytes, file::INITRD), None);
        let twice = directory(&[(file::KERNEL, 1, 1), (file::KERNEL, 2, 2)]);
        assert_eq!(find(&twice, file::KERNEL), None);
        assert_eq!(find(&bytes[..100], "etc/e820"), None);
    }

    #[test]
    fn a_command_is_big_endian() {
        assert_eq!(
            read_command(Some(0x19), 0x0102, 0x0304_0506_0708),
            [0, 0x19, 0, 0x0A, 0, 0, 1, 2, 0, 0, 3, 4, 5, 6, 7, 8]
        );
        assert_eq!(read_command(None, 0, 0)[..4], [0, 0, 0, 2]);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = find(&bytes, file::KERNEL);
        }
    }
}
