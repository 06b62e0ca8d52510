//! Bytes that are said to be an item: parsed, of what was asked, by whom they should be, valid now. Whatever is fetched, read from
//! the folder or imported goes through here, each time; a folder and a mirror are believed as little as a host.

use std::sync::Arc;

use coffer_verifier::abi::{ProductLine, SpkiDigest};
use coffer_verifier::chain::{Certificate, CertificateRole};
use coffer_verifier::{
    Anchor, CertificateIssuerError, ChainError, CrlIssuerError, EndorsementError, Endorsements, TrustAnchors, UnixTime,
    verify_certificate, verify_crl,
};

use crate::address::Item;

/// Whose certificates a client asks for: AMD's, or a simulator's. One client has one.
#[derive(Clone, Debug)]
pub enum Issuer {
    /// AMD's pinned roots and no other.
    Amd,
    /// The simulators' roots that are listed here, and never AMD's.
    Simulated(TrustAnchors),
}

impl Issuer {
    pub(crate) fn anchors(&self) -> TrustAnchors {
        match self {
            Self::Amd => TrustAnchors::amd(),
            Self::Simulated(anchors) => anchors.clone(),
        }
    }

    /// Roots that may be those of an item of these lines.
    pub(crate) fn roots(&self, products: &[ProductLine]) -> Vec<SpkiDigest> {
        match self {
            Self::Amd => products.iter().map(|product| coffer_verifier::amd_root(*product)).collect(),
            Self::Simulated(anchors) => anchors.simulated().to_vec(),
        }
    }

    pub(crate) fn is(&self, anchor: &Anchor) -> bool {
        anchor.simulated == matches!(self, Self::Simulated(_))
    }
}

/// An item whose signatures and dates hold.
#[derive(Debug)]
pub(crate) struct Entry {
    /// It alone.
    pub bag: Endorsements,
    /// As it was given.
    pub bytes: Vec<u8>,
    /// The root it rests on.
    pub root: SpkiDigest,
    /// The leaf's public key; the root's for what is no leaf.
    pub spki: SpkiDigest,
    /// First second.
    pub from: UnixTime,
    /// Last second.
    pub to: UnixTime,
    /// Of a revocation list; else 0.
    pub number: u64,
}

impl Entry {
    pub(crate) fn valid_at(&self, now: UnixTime) -> bool {
        self.from <= now && now <= self.to
    }

    /// That it is no list below this number.
    pub(crate) const fn at_least(&self, least: u64) -> Result<(), Unfit> {
        if self.number < least { Err(Unfit::Older { found: self.number, least }) } else { Ok(()) }
    }

    /// That it takes nothing back which a list of the same root and number revokes.
    pub(crate) fn covers(&self, held: &Self) -> Result<(), Unfit> {
        let all = held.bag.crls().all(|held| self.bag.crls().all(|list| list.covers(held)));
        let same = (self.root, self.number) == (held.root, held.number);
        if same && !all { Err(Unfit::Unrevoked { number: self.number }) } else { Ok(()) }
    }
}

/// Why bytes are not the item.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// No certificate or list.
    #[error("not in AMD's form")]
    Form(#[from] EndorsementError),
    /// Nobody has looked into it.
    #[error("it cannot be read, or has more than the {longest} bytes that any of AMD's may have")]
    Unread {
        /// Most that is read.
        longest: usize,
    },
    /// A certificate or list of something else.
    #[error("it is {found}")]
    Other {
        /// Of what.
        found: String,
    },
    /// A signature, date or root.
    #[error("its chain does not hold")]
    Certificate(#[from] CertificateIssuerError),
    /// The list's.
    #[error("the list does not hold")]
    Crl(#[from] CrlIssuerError),
    /// It rests on a root of the other kind: a simulator's for AMD's, or AMD's for a simulator's.
    #[error("it rests on {anchor}")]
    Foreign {
        /// Which.
        anchor: Anchor,
    },
    /// More than one import takes in.
    #[error("{most} bytes were taken in before it, as many as may be at once")]
    TooMuch {
        /// Most.
        most: usize,
    },
    /// A list of that number is held, and revokes more.
    #[error("another list {number} is held, which revokes what this one does not")]
    Unrevoked {
        /// Of both.
        number: u64,
    },
    /// A newer list was seen.
    #[error("list {found} is older than {least}, which was seen before")]
    Older {
        /// Its number.
        found: u64,
        /// The least that is taken.
        least: u64,
    },
}

impl Unfit {
    /// Another chain could mend it: the one at hand has not its issuer, or one of the same name.
    pub(crate) const fn wants_chain(&self) -> bool {
        match self {
            Self::Certificate(error) => matches!(
                error,
                CertificateIssuerError::NoIssuer { .. } | CertificateIssuerError::Chain(ChainError::Signature { .. })
            ),
            Self::Crl(error) => matches!(
                error,
                CrlIssuerError::NoRoot
                    | CrlIssuerError::Chain(ChainError::UntrustedRoot { .. } | ChainError::CrlSignature { .. })
            ),
            _ => false,
        }
    }

    /// It is signed, and not under a root that this client believes.
    pub const fn is_of_another_root(&self) -> bool {
        match self {
            Self::Foreign { .. } => true,
            Self::Certificate(error) => {
                self.wants_chain() || matches!(error, CertificateIssuerError::Chain(ChainError::UntrustedRoot { .. }))
            }
            Self::Crl(_) => self.wants_chain(),
            _ => false,
        }
    }

    /// True of damage, and not of a clock or of another client's roots. A simulator's chain may just not be at hand.
    pub(crate) const fn is_damage(&self, issuer: &Issuer) -> bool {
        match self {
            Self::Form(_) | Self::Other { .. } => true,
            Self::Certificate(CertificateIssuerError::Chain(ChainError::Signature { .. }))
            | Self::Crl(CrlIssuerError::Chain(ChainError::CrlSignature { .. })) => matches!(issuer, Issuer::Amd),
            Self::Unread { .. }
            | Self::Certificate(_)
            | Self::Crl(_)
            | Self::Foreign { .. }
            | Self::TooMuch { .. }
            | Self::Unrevoked { .. }
            | Self::Older { .. } => false,
        }
    }
}

/// Reads `bytes` as `item`. `chains`: issuers beside AMD's own.
pub(crate) fn check(
    item: &Item,
    bytes: &[u8],
    chains: &Endorsements,
    issuer: &Issuer,
    now: UnixTime,
) -> Result<Arc<Entry>, Unfit> {
    let anchors = issuer.anchors();
    let mut bag = Endorsements::new();
    let (anchor, spki, from, to, number) = if let Item::Crl { .. } = item {
        bag.add_crl(bytes)?;
        let mut lists = bag.crls();
        let (Some(list), None) = (lists.next(), lists.next()) else {
            return Err(Unfit::Other { found: "not one list".to_owned() });
        };
        let anchor = verify_crl(list, chains, &anchors, now)?;
        if anchor.product != item.product() {
            return Err(Unfit::Other { found: format!("a list of {}", anchor.product) });
        }
        let (from, to) = list.validity();
        (anchor, anchor.spki_sha256, from, to, list.number())
    } else {
        bag.add_certificates(bytes)?;
        let asked = asked(item, &bag)?;
        let mut others = bag.clone();
        others.merge(chains);
        // The leaf rests on what is at hand; a chain, on itself.
        let anchor = verify_certificate(asked, &others, &anchors, now)?;
        if let Item::Chain { product, .. } = item {
            let root = bag.certificates().find(|one| one.role() == CertificateRole::Root(*product));
            let root = root.ok_or_else(|| Unfit::Other { found: "a chain without its root".to_owned() })?;
            verify_certificate(root, &others, &anchors, now)?;
        }
        let (from, to) = bag
            .certificates()
            .map(Certificate::validity)
            .reduce(|one, other| (one.0.max(other.0), one.1.min(other.1)))
            .unwrap_or(asked.validity());
        let spki = if asked.leaf().is_some() { asked.spki_digest() } else { anchor.spki_sha256 };
        (anchor, spki, from, to, 0)
    };
    if !issuer.is(&anchor) {
        return Err(Unfit::Foreign { anchor });
    }
    Ok(Arc::new(Entry { bag, bytes: bytes.to_vec(), root: anchor.spki_sha256, spki, from, to, number }))
}

/// The certificate that was asked for, among those given.
fn asked<'a>(item: &Item, bag: &'a Endorsements) -> Result<&'a Certificate, Unfit> {
    let given = || {
        let names: Vec<_> = bag.certificates().map(described).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    };
    let is_it = |one: &&Certificate| match (item, one.role(), one.leaf()) {
        (Item::Chain { product, key }, role, _) => role == CertificateRole::Intermediate(*product, *key),
        (_, _, Some(facts)) => of_leaf(facts).is_some_and(|found| found == *item),
        _ => false,
    };
    let few = match item {
        Item::Chain { .. } => 2,
        _ => 1,
    };
    if bag.certificates().len() != few {
        return Err(Unfit::Other { found: given() });
    }
    bag.certificates().find(is_it).ok_or_else(|| Unfit::Other { found: given() })
}

/// The item a leaf is.
pub(crate) fn of_leaf(facts: &coffer_verifier::chain::LeafFacts) -> Option<Item> {
    let (product, tcb) = (facts.product, facts.tcb);
    let Some(hwid) = &facts.hwid else { return Some(Item::Vlek { product, tcb }) };
    let mut chip = [0; coffer_verifier::abi::ChipId::LEN];
    chip.get_mut(..hwid.len())?.copy_from_slice(hwid);
    Some(Item::Vcek { product, chip: coffer_verifier::abi::ChipId::new(chip), tcb })
}

fn described(one: &Certificate) -> String {
    match one.leaf().and_then(of_leaf) {
        Some(item) => format!("the {item}"),
        None => one.role().to_string(),
    }
}
