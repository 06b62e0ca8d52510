//! What the target of image layers does with its input; the stable replay of the corpus includes this file too.

use coffer_image::layer::{Limits, Merger};
use coffer_image::tarball::{Archive, EntryKind};
use coffer_image::{Digest, erofs, verity};

/// Reads a stream of any compression as two layers, and where it is one writes the image: limits are kept, and what a file
/// with holes says of itself is so.
pub fn layer(data: &[u8]) {
    let mut archive = Archive::new(data);
    while let Ok(Some(entry)) = archive.next_entry() {
        assert!(entry.mode <= 0o7777 && (entry.size == 0 || entry.kind == EntryKind::File));
        let Some(parts) = entry.parts else { continue };
        let mut end = 0;
        for part in parts {
            assert!(part.offset >= end && part.offset + part.length <= entry.size);
            end = part.offset + part.length;
        }
    }
    let limits = Limits { entries: 500, bytes: 1 << 22, memory: 1 << 20, steps: 1 << 16 };
    let Ok(spool) = tempfile::tempfile() else { return };
    let mut merger = Merger::new(spool, std::path::Path::new("spool"), limits);
    for _ in 0..2 {
        // The stream's own digest is not known before it was read.
        match merger.add(Digest::of(data), data, Digest::of(b"")) {
            Ok(()) | Err(coffer_image::ImageError::CorruptDiffId { .. }) => {}
            Err(error) => return assert!(error.to_string().len() < 4096),
        }
    }
    merger.make_folders(&["/a/b".to_owned(), "x".to_owned()]).ok();
    let Ok(merged) = merger.finish() else { return };
    let Ok(out) = tempfile::tempfile() else { return };
    assert!(merged.spool.metadata().is_ok_and(|meta| meta.len() <= limits.bytes));
    if let Ok(written) = erofs::write(&merged.tree, &merged.spool, &out, [0; 16]) {
        assert!(written.bytes.is_multiple_of(erofs::BLOCK_SIZE) && verity::append(&out, b"salt").is_ok());
        let look = erofs::Look::of_file(out).expect("what was written can be looked into");
        look.find(look.root(), b"a").expect("and is whole");
    }
}
