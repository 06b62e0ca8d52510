//! What the target of a guest's list of changes does with its input; the stable replay of the corpus includes this file too.

use coffer_runtime::changes::read;

/// Reads it, and what is read is what stands there, each once, by path.
pub fn list(data: &[u8]) {
    let Ok(changes) = read(data) else { return };
    assert!(changes.is_sorted_by(|one, other| one.path <= other.path));
    assert_eq!(changes.len(), data.split(|byte| *byte == 0).count() - 1);
    // Written again, it is the same list in its order.
    let written: Vec<u8> =
        changes.iter().flat_map(|change| format!("{}{}\0", change.kind.letter(), change.path).into_bytes()).collect();
    assert_eq!(read(&written).as_ref(), Ok(&changes));
    if data.is_ascii() {
        assert_eq!(written.len(), data.len());
    }
}
