//! What one report needs beside what it carries.

use std::sync::Arc;

use coffer_verifier::abi::{ProductLine, Report, SigningKey};
use coffer_verifier::chain::CertificateRole;
use coffer_verifier::{
    CrlIssuerError, CrlPolicy, EndorsementKind, EndorsementRequest, Endorsements, UnixTime, verify_crl,
};
use futures_util::future::join_all;

use crate::address::{Base, Item};
use crate::check::{Entry, Issuer, of_leaf};
use crate::client::{Effort, Inner, Kds};
use crate::error::FetchError;

/// What was found, for the judge, and what was not.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// Endorsements like any others: the judge decides.
    pub endorsements: Endorsements,
    /// What is at hand of what was asked for, each once.
    pub items: Vec<Item>,
    /// What is not at hand, and why. A judgement that lacks nothing does without it.
    pub failures: Vec<(Item, FetchError)>,
    /// Where no list is at hand: the highest number seen of one, below which no list that the report brought may be. Else 0.
    pub list_floor: u64,
    /// Who was asked; nobody, of a client that asks none.
    pub service: Option<Base>,
}

impl Kds {
    /// What `report` needs beside what it carries: its leaf, where none that fits is carried; a simulator's chain, likewise; the
    /// list. What is held asks nobody; what is not is asked for at once and together. A list of its product line that came with the
    /// report, is of today by its dates and not older than one seen is not waited for, but the held one goes to the judge beside it.
    pub async fn collect(&self, report: &Report, carried: &Endorsements, now: UnixTime) -> Collected {
        let key = report.signing_key();
        let mut all = Collected { service: self.0.options.base.clone(), ..Collected::default() };
        if key == SigningKey::None {
            return all;
        }
        let wanted = |kind, product| Item::of(&EndorsementRequest::for_report(report, kind, product));
        let mut leaves = wanted(EndorsementKind::Leaf(key), report.product());
        let masked = report.chip_id().is_zero();
        let fitting = carried
            .certificates()
            .filter_map(|one| one.leaf())
            .find(|facts| facts.key == key && (masked || of_leaf(facts).is_some_and(|item| leaves.contains(&item))));
        let mut product = fitting.map(|facts| facts.product).or(report.product());
        if fitting.is_some() {
            leaves.clear();
        }
        // Of several that it may be, one that is held is the one: nobody is asked for the others.
        if leaves.len() > 1 {
            let held = join_all(leaves.iter().map(|leaf| self.0.obtain(*leaf, Effort::Held, now))).await;
            if let Some((leaf, _)) = leaves.iter().zip(held).find(|(_, found)| found.is_ok()) {
                product = Some(leaf.product());
                leaves = vec![*leaf];
            }
        }
        let mut others = Vec::new();
        let chain =
            |role| matches!(role, CertificateRole::Intermediate(line, of) if of == key && Some(line) == product);
        let has_chain = carried.certificates().any(|one| chain(one.role()));
        if matches!(self.0.options.issuer, Issuer::Simulated(_)) && !has_chain {
            others.extend(wanted(EndorsementKind::Intermediate(key), product));
        }
        let lists = wanted(EndorsementKind::Crl(key), product);
        let held = join_all(lists.iter().map(|list| self.0.obtain(*list, Effort::Held, now))).await;
        let mut floors = Vec::new();
        let mut at_hand = Endorsements::new();
        if held.iter().any(Result::is_err) {
            at_hand.merge(carried);
            at_hand.merge(&self.0.chains());
        }
        for (list, held) in lists.into_iter().zip(held) {
            let floor = match held {
                Ok(entry) => {
                    all.add(list, Ok(entry));
                    continue;
                }
                // It was waited for already.
                Err(FetchError::Folder) => 0,
                Err(_) => self.0.list_floor(list, &at_hand).await,
            };
            floors.push((list.product(), floor));
            if self.0.brings(carried, &at_hand, list, floor, now) { self.0.want(list, now) } else { others.push(list) }
        }
        let ask = |items: Vec<Item>| async move {
            let asked = items.iter().map(|item| self.0.obtain(*item, Effort::Needed, now));
            let found = join_all(asked).await;
            items.into_iter().zip(found).collect::<Vec<_>>()
        };
        let (leaf, others) = futures_util::future::join(ask(leaves), ask(others)).await;
        if let Some((found, _)) = leaf.iter().find(|(_, found)| found.is_ok()) {
            product = Some(found.product());
        }
        for (item, found) in leaf.into_iter().chain(others) {
            all.add(item, found);
        }
        // Of another line than it turned out to be.
        all.failures.retain(|(item, _)| product.is_none_or(|product| item.product() == product));
        let of_line = |(line, _): &&(ProductLine, u64)| product == Some(*line) || floors.len() == 1;
        if all.endorsements.crls().len() == 0 {
            all.list_floor = floors.iter().find(of_line).map_or(0, |(_, floor)| *floor);
        }
        all.endorsements.merge(&self.0.chains());
        all
    }

    /// These items: held, kept or asked for.
    pub async fn get(&self, items: &[Item], now: UnixTime) -> Collected {
        self.each(items, Effort::Needed, now).await
    }

    /// These items, asked for anew. One that cannot be got stays as it is held.
    pub async fn refresh(&self, items: &[Item], now: UnixTime) -> Collected {
        self.each(items, Effort::Anew, now).await
    }

    async fn each(&self, items: &[Item], effort: Effort, now: UnixTime) -> Collected {
        let found = join_all(items.iter().map(|item| self.0.obtain(*item, effort, now))).await;
        let mut all = Collected { service: self.0.options.base.clone(), ..Collected::default() };
        for (item, found) in items.iter().zip(found) {
            all.add(*item, found);
        }
        all
    }
}

impl Inner {
    /// True if a list that came with a report may stand for this one: of its line and of today, no older than one seen, and its root's,
    /// where that is at hand. Whether it counts, the judge decides.
    fn brings(&self, carried: &Endorsements, at_hand: &Endorsements, wanted: Item, floor: u64, now: UnixTime) -> bool {
        let (issuer, anchors) = (&self.options.issuer, self.options.issuer.anchors());
        carried.crls().any(|list| {
            let (from, to) = list.validity();
            let dated = from <= now && now <= to && list.number() >= floor;
            dated
                && match verify_crl(list, at_hand, &anchors, now) {
                    Ok(anchor) => issuer.is(&anchor) && anchor.product == wanted.product(),
                    Err(CrlIssuerError::NoRoot) => list.product() == Some(wanted.product()),
                    Err(_) => false,
                }
        })
    }
}

impl Collected {
    /// What is to be demanded about revocation in place of `policy`, which this does not widen.
    pub fn crl_policy(&self, policy: &CrlPolicy) -> CrlPolicy {
        match policy {
            CrlPolicy::Waived => CrlPolicy::Waived,
            CrlPolicy::Required if self.list_floor == 0 => CrlPolicy::Required,
            CrlPolicy::Required => CrlPolicy::AtLeast(self.list_floor),
            CrlPolicy::AtLeast(least) => CrlPolicy::AtLeast(self.list_floor.max(*least)),
        }
    }

    fn add(&mut self, item: Item, found: Result<Arc<Entry>, FetchError>) {
        match found {
            Ok(entry) => {
                self.endorsements.merge(&entry.bag);
                if !self.items.contains(&item) {
                    self.items.push(item);
                }
            }
            Err(error) => self.failures.push((item, error)),
        }
    }
}
