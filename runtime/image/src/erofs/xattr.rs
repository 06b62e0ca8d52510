//! Extended attributes behind an inode.
//!
//! Source: `erofs_xattr_ibody_header`, `erofs_xattr_entry` in fs/erofs/erofs_fs.h.

use std::collections::BTreeMap;

/// `sizeof(struct erofs_xattr_ibody_header)`.
const HEADER: usize = 12;
/// Linux' own limits (`XATTR_NAME_MAX`, `XATTR_SIZE_MAX` less what the 16-bit field cannot say).
const MAX_NAME: usize = 255;
const MAX_VALUE: usize = u16::MAX as usize;
/// All attributes of one inode; `i_xattr_icount` counts words in 16 bits.
const MAX_TOTAL: usize = HEADER + 4 * (u16::MAX as usize - 1);

/// Name indices EROFS has, longest prefix first where it matters.
const PREFIXES: &[(&[u8], u8)] = &[
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

/// Whether an attribute from an image goes into it.
///
/// Not those EROFS has no place for, nor `overlay.` ones: the image becomes the lower side of an overlay, and they would
/// redirect or hide files there.
pub fn keeps_xattr(name: &[u8], value: &[u8]) -> bool {
    let overlay = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    !overlay && name.len() <= MAX_NAME && value.len() <= MAX_VALUE && !name.contains(&0) && index(name).is_some()
}

fn index(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|(prefix, index)| {
        let rest = name.strip_prefix(*prefix)?;
        // An ACL's name is its prefix; any other attribute has a name of its own.
        (rest.is_empty() != prefix.ends_with(b".")).then_some((*index, rest))
    })
}

/// Attributes as they stand behind the inode; empty where there are none. A multiple of 4 bytes long.
///
/// `None` where together they are too many.
pub(super) fn encode(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> Option<Vec<u8>> {
    if xattrs.is_empty() {
        return Some(Vec::new());
    }
    let mut bytes = vec![0; HEADER];
    for (name, value) in xattrs {
        let (index, suffix) = index(name)?;
        bytes.push(u8::try_from(suffix.len()).ok()?);
        bytes.push(index);
        bytes.extend(u16::try_from(value.len()).ok()?.to_le_bytes());
        bytes.extend(suffix);
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    (bytes.len() <= MAX_TOTAL).then_some(bytes)
}

/// `i_xattr_icount` for attributes of this encoded length.
pub(super) fn icount(encoded: usize) -> u16 {
    if encoded == 0 { 0 } else { ((encoded - HEADER) / 4 + 1) as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_erofs_can_hold_and_overlayfs_does_not_obey() {
        for name in
            ["user.a", "security.capability", "trusted.x", "system.posix_acl_access", "system.posix_acl_default"]
        {
            assert!(keeps_xattr(name.as_bytes(), b"v"), "{name}");
        }
        for name in [
            "user.",
            "system.nfs4_acl",
            "system.posix_acl_accessX",
            "trusted.overlay.opaque",
            "user.overlay.redirect",
            "",
            "x",
        ] {
            assert!(!keeps_xattr(name.as_bytes(), b"v"), "{name}");
        }
        assert!(!keeps_xattr(b"user.big", &vec![0; 65_536]));
    }

    #[test]
    fn an_entry_is_laid_out_as_the_kernel_reads_it() {
        let xattrs = BTreeMap::from([(b"user.ab".to_vec(), b"xyz".to_vec())]);
        let bytes = encode(&xattrs).unwrap();
        assert_eq!(&bytes[12..], &[2, 1, 3, 0, b'a', b'b', b'x', b'y', b'z', 0, 0, 0]);
        assert_eq!(icount(bytes.len()), 4);
        assert_eq!(icount(0), 0);
    }
}
