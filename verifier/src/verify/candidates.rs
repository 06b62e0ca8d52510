//! Which of the certificates and lists at hand a report's chain is tried with, and which are missing.

use aws_lc_rs::signature::ParsedPublicKey;

use super::{
    error::{ChainError, VerifyError},
    facts::check_facts,
    given::{CrlPolicy, Given},
};
use crate::{
    Code,
    abi::{ProductLine, Report},
    anchors::Anchor,
    chain::{Certificate, CertificateRole, Crl, LeafFacts},
    endorsement_request::{EndorsementKind, EndorsementRequest, MissingEndorsements, products_of},
    endorsements::Endorsements,
    trail::Trail,
};

impl<'a> Given<'a> {
    fn certificates(&self) -> impl Iterator<Item = &'a Certificate> + use<'a> {
        self.bags.iter().flat_map(|bag| bag.certificates())
    }

    fn crls(&self) -> impl Iterator<Item = &'a Crl> + use<'a> {
        self.bags.iter().flat_map(|bag| bag.crls())
    }
}

/// Leaves of the stated kind, those that fit the report by their extensions first; at most two are tried.
pub(super) fn leaf_candidates<'a>(report: &Report, given: &Given<'a>) -> Result<Vec<&'a Certificate>, VerifyError> {
    let kind = report.signing_key();
    let chip = report.chip_id();
    let mut leaves: Vec<(bool, &Certificate)> = given
        .bags
        .iter()
        .flat_map(|bag| bag.leaves(&chip))
        .filter_map(|certificate| match certificate.leaf() {
            Some(facts) if facts.key == kind => {
                Some((check_facts(report, facts, &mut Trail::silent()).is_err(), certificate))
            }
            _ => None,
        })
        .collect();
    leaves.sort_by_key(|(misfit, _)| *misfit);
    if leaves.is_empty() {
        return Err(missing(report, EndorsementKind::Leaf(kind), None, given));
    }
    Ok(leaves.into_iter().take(2).map(|(_, certificate)| certificate).collect())
}

/// Intermediates under the name the leaf gives its issuer, each once.
pub(super) fn intermediates_of<'a>(leaf: &Certificate, facts: &LeafFacts, given: &Given<'a>) -> Vec<&'a Certificate> {
    let mut found: Vec<&Certificate> = Vec::new();
    for certificate in given.certificates().filter(|c| {
        matches!(c.role(), CertificateRole::Intermediate(_, key) if key == facts.key) && c.subject() == leaf.issuer()
    }) {
        if found.iter().all(|known| known.der() != certificate.der()) {
            found.push(certificate);
        }
    }
    found
}

/// The root the intermediate names, if it is an anchor.
pub(super) fn find_root<'a>(
    report: &Report,
    facts: &LeafFacts,
    intermediate: &Certificate,
    given: &Given<'a>,
) -> Result<(&'a Certificate, Anchor), VerifyError> {
    let roots = || {
        given.certificates().filter(|c| {
            matches!(c.role(), CertificateRole::Root(_))
                && c.subject() == intermediate.issuer()
                && c.issuer() == c.subject()
        })
    };
    let anchored = roots().find_map(|root| {
        if root.role() != CertificateRole::Root(facts.product) {
            return None;
        }
        Some((root, given.anchors.find(root.spki_digest(), facts.product)?))
    });
    match (anchored, roots().next()) {
        (Some(found), _) => Ok(found),
        (None, Some(root)) => {
            Err(ChainError::UntrustedRoot { spki: root.spki_digest(), product: facts.product }.into())
        }
        (None, None) => Err(missing(report, EndorsementKind::Root(facts.key), Some(facts.product), given)),
    }
}

/// The newest list by the root of `chain`, which is its first, that is valid now. A list that fails its own checks is passed over,
/// unless there is no other: then its failure is the answer. Of several of one number, one that revokes any of the chain counts.
pub(super) fn find_crl<'a>(
    report: &Report,
    facts: &LeafFacts,
    chain: [&Certificate; 3],
    root_key: &ParsedPublicKey,
    given: &Given<'a>,
    least: u64,
    trail: &mut Trail,
) -> Result<&'a Crl, VerifyError> {
    let (now, [root, ..]) = (given.now, chain);
    let mut lists: Vec<&Crl> = given.crls().filter(|list| list.issuer() == root.subject()).collect();
    lists.sort_by_key(|list| !chain.iter().any(|one| list.revokes(one.serial())));
    lists.sort_by_key(|list| core::cmp::Reverse(list.number()));
    // The same list may come with the evidence and from the caller.
    lists.dedup_by(|one, other| one.der() == other.der());
    let mut first_error = None;
    for list in lists {
        let (from, to) = list.validity();
        let number = list.number();
        trail.cost.rsa += 1;
        let error = if !list.is_signed_by(root_key) {
            ChainError::CrlSignature { issuer: root.role() }
        } else if now < from || now > to {
            ChainError::CrlDates { number, from, to, now }
        } else if number < least {
            ChainError::CrlNumber { found: number, least }
        } else {
            trail.pass(Code::CrlSignature, "verifies", format_args!("signed by {}", root.role()));
            trail.pass(
                Code::CrlDates,
                format_args!("list {number} valid from {from} to {to}"),
                format_args!("valid at {now}"),
            );
            trail.pass(Code::CrlNumber, number, format_args!("{least} or higher"));
            return Ok(list);
        };
        first_error.get_or_insert(error);
    }
    Err(match first_error {
        Some(error) => error.into(),
        None => missing(report, EndorsementKind::Crl(facts.key), Some(facts.product), given),
    })
}

/// `kind`, and whatever else would be missing next: everything is named at once.
pub(super) fn missing(
    report: &Report,
    kind: EndorsementKind,
    product: Option<ProductLine>,
    given: &Given<'_>,
) -> VerifyError {
    let key = kind.signing_key();
    let products = product.map_or_else(|| products_of(report), |one| vec![one]);
    // A listed root of a simulator among what was given: its chain is no business of AMD's.
    let simulated = given.certificates().any(|certificate| match certificate.role() {
        CertificateRole::Root(line) => {
            given.anchors.find(certificate.spki_digest(), line).is_some_and(|anchor| anchor.simulated)
        }
        _ => false,
    });
    let request = |kind| EndorsementRequest { simulated, ..EndorsementRequest::for_report(report, kind, product) };
    let mut requests = vec![request(kind)];
    let holds = |role: CertificateRole| given.certificates().any(|certificate| certificate.role() == role);
    let next = |kind| match kind {
        EndorsementKind::Leaf(_) => !products.iter().any(|line| holds(CertificateRole::Intermediate(*line, key))),
        EndorsementKind::Intermediate(_) => !products.iter().any(|line| holds(CertificateRole::Root(*line))),
        EndorsementKind::Root(_) => lacks_crl(&products, given),
        EndorsementKind::Crl(_) => false,
    };
    let order = [
        EndorsementKind::Leaf(key),
        EndorsementKind::Intermediate(key),
        EndorsementKind::Root(key),
        EndorsementKind::Crl(key),
    ];
    let from = order.iter().position(|one| *one == kind).unwrap_or(0);
    for (index, earlier) in order.iter().enumerate().skip(from) {
        if next(*earlier)
            && let Some(wanted) = order.get(index + 1)
        {
            requests.push(request(*wanted));
        }
    }
    VerifyError::Missing(Box::new(MissingEndorsements { requests, given: Endorsements::describe(given.bags) }))
}

/// True if a list is demanded and none at hand is by a root of these products; by any root, where none is at hand.
fn lacks_crl(products: &[ProductLine], given: &Given<'_>) -> bool {
    if *given.crl == CrlPolicy::Waived {
        return false;
    }
    let is_root =
        |certificate: &&Certificate| products.iter().any(|line| certificate.role() == CertificateRole::Root(*line));
    let mut roots = given.certificates().filter(is_root).peekable();
    if roots.peek().is_none() {
        return given.crls().next().is_none();
    }
    roots.all(|root| given.crls().all(|list| list.issuer() != root.subject()))
}
