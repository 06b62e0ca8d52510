//! How terms and their rules lie in a row.

use coffer_verifier::{
    TcbRule,
    abi::{ChipId, KeyDigest, Measurement, ProductLine, WorkloadDigest},
    binding::length_prefixed,
};

use sha2::{Digest as _, Sha256};

use super::record::Fields;
use crate::terms::{AuthorRule, Rules, Terms};

/// As one field of a row.
pub(super) fn encode(terms: &Terms) -> Vec<u8> {
    length_prefixed(&[&[u8::from(terms.allow_simulated)], terms.policy.as_bytes(), &encode_rules(&terms.rules)])
}

/// From that field.
pub(super) fn decode(bytes: &[u8]) -> Option<Terms> {
    let mut fields = Fields(bytes);
    let terms =
        Terms { allow_simulated: fields.flag()?, policy: fields.text()?, rules: decode_rules(fields.bytes()?)? };
    fields.end(terms)
}

/// What tells rules apart in the trail: SHA-256 of their form in a row.
pub(crate) fn rules_digest(rules: &Rules) -> String {
    hex::encode(Sha256::digest(encode_rules(rules)))
}

/// Rules as one field.
pub(super) fn encode_rules(rules: &Rules) -> Vec<u8> {
    let list = |items: Vec<Vec<u8>>| length_prefixed(&items.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let author =
        |one: &AuthorRule| [one.author_key.as_bytes().as_slice(), &one.minimum_guest_svn.to_be_bytes()].concat();
    let tcb = |(product, least): &(ProductLine, TcbRule)| {
        let TcbRule { fmc, bootloader, tee, snp, microcode } = *least;
        [&[fmc, bootloader, tee, snp, microcode], product.name().as_bytes()].concat()
    };
    length_prefixed(&[
        &list(rules.measurements.iter().map(|one| one.as_bytes().to_vec()).collect()),
        &list(rules.workloads.iter().map(|one| one.as_bytes().to_vec()).collect()),
        &list(rules.authors.iter().map(author).collect()),
        &list(rules.chips.iter().map(|one| one.as_bytes().to_vec()).collect()),
        &list(rules.tcb.iter().map(tcb).collect()),
    ])
}

/// Rules from a field.
pub(super) fn decode_rules(bytes: &[u8]) -> Option<Rules> {
    let mut fields = Fields(bytes);
    let rules = Rules {
        measurements: list(fields.bytes()?, |one| Measurement::try_from(one).ok())?,
        workloads: list(fields.bytes()?, |one| WorkloadDigest::try_from(one).ok())?,
        authors: list(fields.bytes()?, |one| {
            let (author, svn) = one.split_at_checked(KeyDigest::LEN)?;
            let minimum_guest_svn = u32::from_be_bytes(svn.try_into().ok()?);
            Some(AuthorRule { author_key: KeyDigest::try_from(author).ok()?, minimum_guest_svn })
        })?,
        chips: list(fields.bytes()?, |one| ChipId::try_from(one).ok())?,
        tcb: list(fields.bytes()?, |one| {
            let (&[fmc, bootloader, tee, snp, microcode], product) = one.split_first_chunk::<5>()?;
            let product = core::str::from_utf8(product).ok()?.parse().ok()?;
            Some((product, TcbRule { fmc, bootloader, tee, snp, microcode }))
        })?,
    };
    fields.end(rules)
}

fn list<T>(bytes: &[u8], one: impl Fn(&[u8]) -> Option<T>) -> Option<Vec<T>> {
    let (mut fields, mut all) = (Fields(bytes), Vec::new());
    while !fields.0.is_empty() {
        all.push(one(fields.bytes()?)?);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_come_back_from_their_bytes() {
        let rules = Rules {
            measurements: vec![Measurement::new([1; 48]), Measurement::new([2; 48])],
            workloads: vec![WorkloadDigest::new([3; 32])],
            authors: vec![AuthorRule { author_key: KeyDigest::new([4; 48]), minimum_guest_svn: 5 }],
            chips: vec![ChipId::new([6; 64])],
            tcb: vec![(ProductLine::Turin, TcbRule { fmc: 1, bootloader: 2, tee: 3, snp: 4, microcode: 5 })],
        };
        for rules in [Rules::default(), rules] {
            let terms = Terms { allow_simulated: true, policy: "strict".into(), rules };
            let bytes = encode(&terms);
            assert_eq!(decode(&bytes), Some(terms));
            for end in 0..bytes.len() {
                assert_eq!(decode(&bytes[..end]), None, "cut at {end}");
            }
        }
    }
}
