//! Who the owners are: those of the spec, and what lists change that its authority signed.
//!
//! Where the key broker keeps the list, the newest stands in place of the spec's owners, and a counter at the broker remembers how new
//! that was: an older one is not taken again, and while nothing is known of it nobody is an owner. Without a broker a list can only add.
//! Trusts: the authority of the spec, and the broker behind the pinned key for which list is the newest. Never: takes a list of the
//! host's choice for the newest, or goes back to the spec's owners once there was a list.
//! Source: docs/design/guest.md §8.1.

use std::sync::{PoisonError, RwLock};

use coffer_guest_proto::{OwnersAre, OwnersInForce, RefusedOwnerList};
use coffer_kbs_client::{BrokerClient, ClientError, Generation, Scope, SealingName, SealingPolicy};
use coffer_rim::foreign;
use coffer_spec::{Owner, OwnerAuthority, OwnerList, OwnerListError, SignedOwnerList, WorkloadSpec};
use coffer_verifier::UnixTime;
use secrecy::ExposeSecret as _;

use crate::{
    broker::{Source, questions::again},
    clock::Clock,
};

/// Characters of what is said of a list that is not taken.
const WHY: usize = 400;

/// The broker's word for what it has not, or not for this guest.
const NOT_RELEASED: &str = "not-released";

/// Id of the counter that remembers the sequence.
const COUNTER: [u8; 16] = *b"coffer/owners/v1";

/// The owners of a guest.
pub struct Owners {
    listed: Vec<Owner>,
    clock: Clock,
    /// Where lists come from, and what is known of them.
    known: Option<(OwnerAuthority, RwLock<Known>)>,
    /// Sequence and digest of the list that was taken last, also where it is in force no more.
    taken: RwLock<Option<(u64, [u8; 32])>>,
    /// Why the last look took no list.
    refused: RwLock<Option<RefusedOwnerList>>,
}

/// What is known of lists.
#[derive(Debug)]
enum Known {
    /// The broker has not been asked.
    Nothing,
    /// There was none yet.
    NoList,
    /// The newest, and the digest of what was signed.
    List(OwnerList, [u8; 32]),
    /// The newest had this sequence, and is not to be had.
    Lost(u64),
}

/// Where lists are kept, and counted.
pub trait Keeper: Source {
    /// Reads the counter of this name.
    fn count(&self, name: &SealingName) -> impl Future<Output = Result<Generation, ClientError>> + Send;

    /// Moves it from `at` to `to`, if it is at the first.
    fn step(
        &self,
        name: &SealingName,
        at: u64,
        to: u64,
    ) -> impl Future<Output = Result<Generation, ClientError>> + Send;
}

impl Keeper for BrokerClient {
    fn count(&self, name: &SealingName) -> impl Future<Output = Result<Generation, ClientError>> + Send {
        self.generation(name, &COUNTER)
    }

    fn step(
        &self,
        name: &SealingName,
        at: u64,
        to: u64,
    ) -> impl Future<Output = Result<Generation, ClientError>> + Send {
        self.set_generation(name, &COUNTER, at, to)
    }
}

/// Why a list is not taken.
#[derive(Debug, thiserror::Error)]
pub enum OwnersError {
    /// The spec names nobody whose lists count.
    #[error("the spec names no authority whose lists of owners count")]
    NoAuthority,
    /// It has to come from elsewhere.
    #[error("the spec says that the key broker keeps the list: put it there")]
    KeptAtBroker,
    /// It is none, or not for here.
    #[error(transparent)]
    List(#[from] OwnerListError),
    /// The broker does not say.
    #[error("ask the key broker for the list of owners: {0}")]
    Broker(#[source] ClientError),
}

impl OwnersError {
    /// A word that stays the same.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NoAuthority => "no-owner-authority",
            Self::KeptAtBroker => "owner-list-kept-at-broker",
            Self::List(error) => error.word(),
            Self::Broker(_) => "owner-list-unknown",
        }
    }

    /// As [`OwnerListError::is_unauthentic`].
    pub const fn is_unauthentic(&self) -> bool {
        matches!(self, Self::List(error) if error.is_unauthentic())
    }

    /// In words that are safe to show: a list may come from anybody.
    pub fn why(&self) -> String {
        foreign(&self.to_string()).chars().take(WHY).collect()
    }
}

impl Owners {
    /// As the spec has them.
    pub fn of(spec: &WorkloadSpec) -> Self {
        let known = spec.owner_authority.as_ref().map(|authority| {
            let known = if authority.kept.is_some() { Known::Nothing } else { Known::NoList };
            (authority.clone(), RwLock::new(known))
        });
        let (listed, clock) = (spec.owners.clone(), Clock::of(spec));
        Self { listed, clock, known, taken: RwLock::default(), refused: RwLock::default() }
    }

    /// Who they are now. A key may stand there twice: it may do what either lets it.
    pub fn now(&self) -> Vec<Owner> {
        self.at(self.clock.now())
    }

    fn at(&self, now: Option<UnixTime>) -> Vec<Owner> {
        let Some((authority, known)) = &self.known else { return self.listed.clone() };
        let known = known.read().unwrap_or_else(PoisonError::into_inner);
        let of_list = |list: &OwnerList| match now {
            Some(now) if list.current(now).is_ok() => list.owners.clone(),
            _ => Vec::new(),
        };
        match (&*known, authority.kept.is_some()) {
            (Known::NoList, _) => self.listed.clone(),
            (Known::Nothing | Known::Lost(_), _) => Vec::new(),
            (Known::List(list, _), true) => of_list(list),
            (Known::List(list, _), false) => [self.listed.clone(), of_list(list)].concat(),
        }
    }

    /// The word for the list that is not taken, where only a list could say who the owners are and none does.
    pub fn why_nobody(&self) -> Option<String> {
        let (authority, known) = self.known.as_ref()?;
        authority.kept.as_ref()?;
        let known = known.read().unwrap_or_else(PoisonError::into_inner);
        let refused = self.refused.read().unwrap_or_else(PoisonError::into_inner).clone();
        match &*known {
            Known::NoList => None,
            Known::Nothing | Known::Lost(_) => {
                Some(refused.map_or_else(|| "owner-list-unknown".to_owned(), |refused| refused.word))
            }
            Known::List(list, _) => {
                let current = self.clock.now().ok_or("owner-list-unknown");
                current.and_then(|now| list.current(now).map_err(|error| error.word())).err().map(str::to_owned)
            }
        }
    }

    /// Who they are now, for one of them. Nothing where no list can say so.
    pub fn in_force(&self) -> Option<OwnersInForce> {
        self.in_force_at(self.clock.now())
    }

    fn in_force_at(&self, now: Option<UnixTime>) -> Option<OwnersInForce> {
        let (authority, known) = self.known.as_ref()?;
        let known = known.read().unwrap_or_else(PoisonError::into_inner);
        let current = |list: &OwnerList| now.is_some_and(|now| list.current(now).is_ok());
        let refused = self.refused.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (are, list) = match (&*known, authority.kept.is_some()) {
            (Known::List(list, digest), true) if current(list) => (OwnersAre::OfList, Some((list, digest))),
            (Known::List(list, digest), false) if current(list) => (OwnersAre::OfSpecAndList, Some((list, digest))),
            (Known::NoList | Known::List(..), false) | (Known::NoList, true) => (OwnersAre::OfSpec, None),
            (Known::Nothing | Known::Lost(_) | Known::List(..), _) => (OwnersAre::Nobody, None),
        };
        let sequence = if are == OwnersAre::Nobody { known.sequence() } else { 0 };
        let nothing = OwnersInForce { are: are.into(), sequence, refused, ..OwnersInForce::default() };
        Some(match list {
            None => nothing,
            Some((list, digest)) => {
                OwnersInForce { sequence: list.sequence, expires: list.expires.0, digest: digest.to_vec(), ..nothing }
            }
        })
    }

    /// Takes a list that an owner brought. Gives its sequence.
    ///
    /// # Errors
    /// [`OwnersError`].
    pub fn brought(&self, file: &[u8]) -> Result<u64, OwnersError> {
        let (authority, known) = self.known.as_ref().ok_or(OwnersError::NoAuthority)?;
        if authority.kept.is_some() {
            return Err(OwnersError::KeptAtBroker);
        }
        let mut known = known.write().unwrap_or_else(PoisonError::into_inner);
        let floor = known.sequence();
        let signed = SignedOwnerList::parse(file)?;
        let list = signed.verify(authority, floor)?;
        let (sequence, digest) = (list.sequence, signed.digest());
        self.is_the_one(sequence, digest)?;
        list.current(self.clock.now().unwrap_or(UnixTime::from_secs(i64::MAX)))?;
        self.take(sequence, digest);
        *known = Known::List(list, digest);
        Ok(sequence)
    }

    /// Of two lists with one sequence none is the newer: the one that was taken stays.
    fn is_the_one(&self, sequence: u64, digest: [u8; 32]) -> Result<(), OwnerListError> {
        match *self.taken.read().unwrap_or_else(PoisonError::into_inner) {
            Some((taken, of)) if taken == sequence && of != digest => Err(OwnerListError::Twice { sequence }),
            _ => Ok(()),
        }
    }

    fn take(&self, sequence: u64, digest: [u8; 32]) {
        *self.taken.write().unwrap_or_else(PoisonError::into_inner) = Some((sequence, digest));
    }

    /// Looks for the newest list at the broker, if it keeps them. What was known stays where it does not answer, or has a list that is
    /// not taken.
    ///
    /// # Errors
    /// [`OwnersError`].
    pub async fn look(&self, broker: &impl Keeper) -> Result<(), OwnersError> {
        let looked = self.look_for_newest(broker).await;
        let said = looked.as_ref().err().map(|error| RefusedOwnerList { word: error.word().into(), why: error.why() });
        *self.refused.write().unwrap_or_else(PoisonError::into_inner) = said;
        looked
    }

    async fn look_for_newest(&self, broker: &impl Keeper) -> Result<(), OwnersError> {
        let Some((authority, known)) = &self.known else { return Ok(()) };
        let Some(kept) = &authority.kept else { return Ok(()) };
        let counter = name_of(authority);
        let floor = again(|| broker.count(&counter)).await.map_err(OwnersError::Broker)?.current;
        let had = known.read().unwrap_or_else(PoisonError::into_inner).sequence();
        let file = match again(|| broker.current(kept)).await {
            Ok(secret) => secret,
            // There is none, or not for this guest: the broker does not say which. Whatever else it says no by says nothing of the list.
            Err(ClientError::Refused { code, .. }) if code == NOT_RELEASED => {
                let newest = floor.max(had);
                set(known, if newest == 0 { Known::NoList } else { Known::Lost(newest) });
                return Ok(());
            }
            Err(error) => {
                if floor > had {
                    set(known, Known::Lost(floor));
                }
                return Err(OwnersError::Broker(error));
            }
        };
        let list = SignedOwnerList::parse(file.value.expose_secret()).and_then(|signed| {
            let (list, digest) = (signed.verify(authority, floor.max(had))?, signed.digest());
            self.is_the_one(list.sequence, digest)?;
            Ok((list, digest))
        });
        let (list, digest) = match list {
            Ok(list) => list,
            Err(error) => {
                // Another guest has seen a later one: what this one has is over.
                if floor > had || had == 0 {
                    set(known, Known::Lost(floor.max(had)));
                }
                return Err(error.into());
            }
        };
        // Before it counts here: whoever starts after this knows of it.
        let uncounted = Uncounted { known, later: (list.sequence > had).then_some(list.sequence) };
        let current = raised(broker, &counter, floor, list.sequence).await.map_err(OwnersError::Broker)?;
        uncounted.counted();
        if current > list.sequence {
            set(known, Known::Lost(current));
            return Err(OwnerListError::Older { found: list.sequence, floor: current }.into());
        }
        self.take(list.sequence, digest);
        // What the authority took back stays so after its word has ended.
        if let Err(error) = list.current(self.clock.now().unwrap_or(UnixTime::from_secs(i64::MAX))) {
            set(known, Known::Lost(list.sequence));
            return Err(error.into());
        }
        set(known, Known::List(list, digest));
        Ok(())
    }
}

fn set(known: &RwLock<Known>, next: Known) {
    *known.write().unwrap_or_else(PoisonError::into_inner) = next;
}

/// A later list, until it is counted. Whatever ends the counting before that, a failure or the patience of whoever waits for it, leaves
/// nobody: the host, which carries the answer, does not choose between the list before it and this one.
struct Uncounted<'a> {
    known: &'a RwLock<Known>,
    later: Option<u64>,
}

impl Uncounted<'_> {
    fn counted(mut self) {
        self.later = None;
    }
}

impl Drop for Uncounted<'_> {
    fn drop(&mut self) {
        if let Some(sequence) = self.later {
            set(self.known, Known::Lost(sequence));
        }
    }
}

impl Known {
    /// Of the newest list that was ever known.
    const fn sequence(&self) -> u64 {
        match self {
            Self::Nothing | Self::NoList => 0,
            Self::List(list, _) => list.sequence,
            Self::Lost(sequence) => *sequence,
        }
    }
}

/// Moves the counter to `sequence`, if it is behind it. Gives where it is then.
async fn raised(broker: &impl Keeper, counter: &SealingName, from: u64, sequence: u64) -> Result<u64, ClientError> {
    let mut at = from;
    // Others move it too, and none of them back.
    while at < sequence {
        let moved = again(|| broker.step(counter, at, sequence)).await?;
        if moved.set {
            return Ok(sequence);
        }
        if moved.current <= at {
            return Err(ClientError::Protocol { cause: "a counter that went back".to_owned() });
        }
        at = moved.current;
    }
    Ok(at)
}

/// What the broker calls the counter: of this workload, for lists of this name.
fn name_of(authority: &OwnerAuthority) -> SealingName {
    let context = context_of(authority);
    SealingName { policy: SealingPolicy::Workload, scope: Scope::Agent, context, minimum_svn: None }
}

fn context_of(authority: &OwnerAuthority) -> Vec<u8> {
    format!("owners/{}", authority.name).into_bytes()
}

/// Whether counters under this context are for the guest's own lists: no owner seals there, who could use them up.
pub fn is_context_of_lists(spec: &WorkloadSpec, context: &[u8]) -> bool {
    spec.owner_authority.as_ref().is_some_and(|authority| context_of(authority) == context)
}

#[cfg(test)]
mod tests;
