//! What the target of streams of files does with its input; the stable replay of the corpus includes this file too.

use coffer_rim::carry::{Entry, Kind, LONGEST_PATH};

/// Entries up to the end or to what is none: each leads to something below, is bounded, and is written as it was read.
pub fn stream(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some(entry)) = Entry::read(&mut rest) {
        assert!(entry.path.len() < LONGEST_PATH && entry.mode <= 0o7777);
        assert!(!entry.path.starts_with(b"/") && !entry.path.split(|byte| *byte == b'/').any(|name| name == b".."));
        let mut again = Vec::new();
        entry.write(&mut again).expect("what was read can be written");
        assert_eq!(Entry::read(&mut &again[..]).expect("and read back"), Some(entry.clone()));
        if let Kind::File(size) = entry.kind {
            rest = usize::try_from(size).ok().and_then(|size| rest.get(size..)).unwrap_or_default();
        }
    }
}
