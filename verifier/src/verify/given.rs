//! With what a chain is built.

use crate::{UnixTime, anchors::TrustAnchors, endorsements::Endorsements};

/// What a revocation list is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CrlPolicy {
    /// A fresh list by the root must be there and must not name a certificate of the chain.
    #[default]
    Required,
    /// The same, and its number must be at least this: the highest one seen for that root.
    AtLeast(u64),
    /// Waives revocation; the result says so.
    Waived,
}

/// With what a chain is built, and when.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    /// Tried in this order.
    pub bags: &'a [&'a Endorsements],
    pub anchors: &'a TrustAnchors,
    pub crl: &'a CrlPolicy,
    pub now: UnixTime,
    /// Somebody waits, and a processor may be idle: the report's signature is looked at beside the chain's.
    pub soonest: bool,
}
