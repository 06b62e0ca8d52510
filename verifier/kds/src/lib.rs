//! Endorsements that a report did not bring, from AMD's key distribution service (KDS): VCEKs, chains, revocation lists.
//!
//! Gives the judge more endorsements, and decides nothing: what it gives is checked there like a host's. It checks all the same
//! (each answer, each file, each time it is read: form, that it is what was asked for, signatures up to a pinned root, dates), so
//! that what is kept is of use.
//!
//! Trusts: AMD's pinned roots, or those of the simulators its caller lists. The service, a mirror, the network and the folder
//! can withhold and delay; what they forge is refused, and a revocation list never goes back to a lower number.
//! Never: waits for a chip it does not know before it answers for one it knows; asks more often for strangers than its budget;
//! follows a redirect; speaks http to another machine; believes a simulator beside AMD.
//! Source: AMD 57230, "VCEK Certificate and KDS Interface".
#![forbid(unsafe_code)]

mod address;
mod budget;
mod check;
mod client;
mod collect;
mod error;
mod options;
mod said;
mod services;
mod shelf;
mod store;
mod upstream;

pub use address::{Base, BaseError, Item, appraisal_json, urls};
pub use budget::Rate;
pub use check::{Issuer, Unfit};
pub use client::{Kds, OpenError};
pub use collect::Collected;
pub use error::{Asked, FetchError};
pub use options::Options;
pub use said::{Failures, UnderWay, failure, failures_json};
pub use services::{Clients, KdsEntry, Services};
pub use shelf::{Exported, Imported, Kept, ShelfError};
