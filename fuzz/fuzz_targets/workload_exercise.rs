//! What the target of a workload's requests does with its input; the stable replay of the corpus includes this file too.

use coffer_guest::workload_api::Asked;

/// Most that any call takes: what is sealed, behind the head of the file that it replaces.
const MOST: usize = (1 << 20) + 65_668;

/// A method, a space and a target, as both doors read them. What is read is bounded, and what is refused is not repeated.
pub fn request(data: &[u8]) {
    let Ok(line) = core::str::from_utf8(data) else { return };
    let Some((method, target)) = line.split_once(' ') else { return };
    for asked in Asked::at_each_door(method, target) {
        match asked {
            Asked::Call { longest_body } => assert!(longest_body <= MOST && (method == "POST" || longest_body == 0)),
            Asked::Refused { said } => {
                assert!(said.len() < 1024, "{said}");
                assert!(!said.contains("canary"), "{target}: {said}");
            }
        }
    }
}
