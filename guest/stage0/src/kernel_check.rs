//! The copies of kernel, initrd and command line against the hashes of the measured page.

use coffer_machine::{Refusal, hash_page::Hashes};
use sha2::{Digest, Sha256};

/// Compares the copies. `command_line`: with its NUL. `initrd`: empty if there is none.
///
/// # Errors
/// The first that differs, cheapest first.
pub fn check(measured: &Hashes, kernel: &[u8], initrd: &[u8], command_line: &[u8]) -> Result<(), Refusal> {
    let same = |bytes: &[u8], hash: &[u8; 32], refusal| {
        if Sha256::digest(bytes).as_slice() == hash { Ok(()) } else { Err(refusal) }
    };
    same(command_line, &measured.command_line, Refusal::CommandLineHash)?;
    same(kernel, &measured.kernel, Refusal::KernelHash)?;
    same(initrd, &measured.initrd, Refusal::InitrdHash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_copy_is_compared_with_its_own_entry() {
        const KERNEL: &[u8] = b"kernel";
        const LINE: &[u8] = b"quiet\0";
        let hash = |bytes: &[u8]| -> [u8; 32] { Sha256::digest(bytes).into() };
        let hashes = Hashes { kernel: hash(KERNEL), initrd: hash(b""), command_line: hash(LINE) };
        assert_eq!(check(&hashes, KERNEL, b"", LINE), Ok(()));
        assert_eq!(check(&hashes, b"kernel2", b"", LINE), Err(Refusal::KernelHash));
        assert_eq!(check(&hashes, KERNEL, b"x", LINE), Err(Refusal::InitrdHash));
        assert_eq!(check(&hashes, KERNEL, b"", b"quiet"), Err(Refusal::CommandLineHash));
        assert_eq!(check(&hashes, b"", KERNEL, LINE), Err(Refusal::KernelHash));
    }
}
