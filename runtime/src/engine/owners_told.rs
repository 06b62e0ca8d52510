//! What a guest says of who its owners are, read once: bounded, and harmless to show.

use coffer_guest_proto::{OwnersAre, OwnersInForce};
use coffer_rim::foreign::foreign_at_most;
use coffer_verifier::UnixTime;

/// Who the owners of a guest are, as it says itself to one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnersTold {
    /// `spec`, `list`, `spec-and-list` or `nobody`.
    pub are: &'static str,
    /// Of the list in force; where nobody is an owner, of the newest that was known.
    pub sequence: Option<u64>,
    /// When the list in force ends.
    pub expires: Option<UnixTime>,
    /// SHA-256 of what the authority signed.
    pub digest: Option<String>,
    /// Why the last look at the key broker took no list: a word, and more of them.
    pub refused: Option<(String, String)>,
}

/// Characters of what a guest says.
const WORD: usize = 64;
const WHY: usize = 400;

impl OwnersTold {
    pub(super) fn read(told: OwnersInForce) -> Self {
        let are = match told.are() {
            OwnersAre::OfSpec => "spec",
            OwnersAre::OfList => "list",
            OwnersAre::OfSpecAndList => "spec-and-list",
            OwnersAre::Nobody => "nobody",
            OwnersAre::Unspecified => "unknown",
        };
        let in_force = told.digest.len() == 32;
        Self {
            are,
            sequence: (told.sequence != 0).then_some(told.sequence),
            expires: in_force.then(|| UnixTime::from_secs(told.expires)),
            digest: in_force.then(|| hex::encode(&told.digest)),
            refused: told.refused.map(|it| (foreign_at_most(&it.word, WORD), foreign_at_most(&it.why, WHY))),
        }
    }
}

#[cfg(test)]
mod tests {
    use coffer_guest_proto::RefusedOwnerList;

    use super::*;

    #[test]
    fn what_a_guest_says_is_bounded_and_harmless() {
        let hostile = "\u{1b}[2J\n".repeat(10_000);
        let refused = Some(RefusedOwnerList { word: hostile.clone(), why: hostile });
        let told = OwnersInForce { are: 77, digest: vec![1; 5_000], refused, ..OwnersInForce::default() };
        let told = OwnersTold::read(told);
        assert_eq!((told.are, told.sequence, told.expires, &told.digest), ("unknown", None, None, &None));
        let (word, why) = told.refused.unwrap();
        assert!(word.len() < 1_000 && why.len() < 5_000 && ![word, why].concat().contains(char::is_control));
    }
}
