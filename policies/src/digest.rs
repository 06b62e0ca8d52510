//! What names a policy of files, wherever they were read: a command line and a service call the same policy the same.

use sha2::{Digest as _, Sha256};

use crate::{File, deciding::is_test_file};

/// Names a policy of these files, unit tests left out: of one, SHA-256 of its text; of several, of all names and texts.
pub fn files_digest(files: &[File]) -> [u8; 32] {
    let deciding: Vec<&File> = files.iter().filter(|file| !is_test_file(&file.name)).collect();
    if let [file] = deciding[..] {
        return Sha256::digest(&file.text).into();
    }
    let mut all = Sha256::new();
    for file in deciding {
        for part in [&file.name, &file.text] {
            all.update((part.len() as u64).to_be_bytes());
            all.update(part);
        }
    }
    all.finalize().into()
}
