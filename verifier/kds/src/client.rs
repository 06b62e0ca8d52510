//! The client: held, else kept, else asked for once, whoever wants it.
//!
//! What a report costs here is decided before its signature can be: its certificate is what is asked for. So strangers have a
//! budget, and share no queue with chips that are known. Those have one each, and beyond it are strangers too.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use coffer_rim::chain;
use coffer_verifier::abi::{ChipId, SpkiDigest};
use coffer_verifier::chain::{Certificate, CertificateRole};
use coffer_verifier::{Endorsements, UnixTime};
use futures_util::future::join_all;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::address::Item;
use crate::budget::{Bucket, Until};
use crate::check::{Entry, Unfit, check};
use crate::error::FetchError;
use crate::options::Options;
use crate::said::UnderWay;
use crate::store::{Found, Store, WriteError};
use crate::upstream::{Answer, Upstream};

/// A client cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The folder.
    #[error("the folder for certificates, {}, cannot be used", folder.display())]
    Folder {
        /// Which.
        folder: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// TLS, or roots of the platform.
    #[error("no HTTP client can be made: {0}")]
    Http(String),
}

/// A client of the key distribution service. Cheap to clone; clones share everything. Its futures want a tokio runtime.
#[derive(Clone)]
pub struct Kds(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub options: Options,
    upstream: Option<Upstream>,
    pub store: Option<Store>,
    state: Mutex<State>,
    /// Requests for strangers, and for everything else.
    strangers: Semaphore,
    others: Semaphore,
    /// Threads that read or write the folder: a disk that hangs has these, and no more.
    disk: Arc<Semaphore>,
}

type Outcome = Result<Arc<Entry>, FetchError>;

struct State {
    held: HashMap<Item, Held>,
    uses: u64,
    flights: HashMap<Item, watch::Receiver<Option<Outcome>>>,
    /// Why, and how often in a row.
    refused: Until<Item, (FetchError, u32)>,
    /// The service wants no request until then; and the status with which it said so last.
    pause: Instant,
    paused_by: u16,
    strangers: Bucket,
    chips: Until<ChipId, Bucket>,
}

/// What the folder has of an item.
#[derive(Default)]
struct Kept {
    files: Vec<Found>,
    /// It has a leaf of that chip.
    of_chip: bool,
    /// By root, the least number that a list may have.
    floors: Vec<(SpkiDigest, u64)>,
}

struct Held {
    entry: Arc<Entry>,
    /// From then on it is worth asking anew; a leaf's file, to be marked as used.
    due: Instant,
    used: u64,
}

/// What may be done for an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Nothing is asked.
    Held,
    /// Asked, where it is not held.
    Needed,
    /// Asked.
    Anew,
}

#[derive(Clone, Copy, Debug)]
enum Lane {
    Stranger,
    Chip(ChipId),
    Standing,
}

/// Requests at once that are not for strangers.
const OTHERS_AT_ONCE: usize = 16;
/// Threads in the folder at once.
const DISK_AT_ONCE: usize = 16;
/// Refusals that are remembered.
const MAX_REFUSED: usize = 1024;
/// Age at which a chain that does not hold is asked for anew: AMD replaces an intermediate once in years.
const CHAIN_AGE: Duration = Duration::from_hours(1);
/// Also the time after which the file of a leaf in use is marked as used again.
const DAY: Duration = Duration::from_hours(24);

impl Kds {
    /// A client. Nothing is asked yet.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let upstream = options.base.as_ref().map(|base| Upstream::new(base, options.timeout, options.longest_pause));
        let store = options.folder.as_ref().map(|folder| {
            Store::open(folder, options.max_leaves)
                .map_err(|source| OpenError::Folder { folder: folder.clone(), source })
        });
        let now = Instant::now();
        let state = State {
            held: HashMap::new(),
            uses: 0,
            flights: HashMap::new(),
            refused: Until::new(MAX_REFUSED),
            pause: now,
            paused_by: 0,
            strangers: Bucket::full(options.strangers, now),
            chips: Until::new(options.max_leaves.max(1)),
        };
        Ok(Self(Arc::new(Inner {
            upstream: upstream.transpose().map_err(OpenError::Http)?,
            store: store.transpose()?,
            state: Mutex::new(state),
            strangers: Semaphore::new(options.strangers_at_once.max(1)),
            others: Semaphore::new(OTHERS_AT_ONCE),
            disk: Arc::new(Semaphore::new(DISK_AT_ONCE)),
            options,
        })))
    }
}

impl Kds {
    /// What is waited for at this moment: for whoever tells a person why nothing happens.
    pub fn under_way(&self) -> UnderWay {
        let service = self.0.options.base.clone();
        let state = self.0.state();
        let mut items: Vec<_> = state.flights.keys().copied().collect();
        items.sort_by_cached_key(ToString::to_string);
        UnderWay { service, items, pause_until: Some(state.pause).filter(|until| *until > Instant::now()) }
    }

    /// Waits until what is under way has come to its end, or for this long: for a program that is about to end.
    pub async fn settle(&self, longest: Duration) {
        let mut flights: Vec<_> = self.0.state().flights.values().cloned().collect();
        let landed = join_all(flights.iter_mut().map(async |flight| drop(flight.wait_for(Option::is_some).await)));
        // One that takes longer is given up with the program.
        let _ = timeout(longest, landed).await;
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An item that is valid at `now`.
    pub(crate) async fn obtain(self: &Arc<Self>, item: Item, effort: Effort, now: UnixTime) -> Outcome {
        let mut known = false;
        if effort != Effort::Anew {
            if let Some(entry) = self.held(item, now) {
                return Ok(entry);
            }
            let looked = async {
                let kept = self.kept(item).await;
                (kept.of_chip, self.read(item, kept, now).await)
            };
            // A disk that hangs is waited for as little as a service.
            let Ok((of_chip, found)) = timeout(self.options.patience / 2, looked).await else {
                return Err(FetchError::Folder);
            };
            known = of_chip;
            if let Some(entry) = found {
                // Held now; a list that is old is asked for anew.
                return Ok(self.held(item, now).unwrap_or(entry));
            }
        }
        if effort == Effort::Held {
            return Err(FetchError::Offline);
        }
        let mut flight = self.launch(item, known, effort, now)?;
        let deadline = Instant::now() + self.options.patience;
        match timeout_at(deadline, flight.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or_else(|| Err(self.options.slow())),
            Ok(Err(_)) => Err(FetchError::Failed { reason: "the request was dropped".to_owned() }),
            Err(_) => Err(self.options.slow()),
        }
    }

    /// From memory. A list of some age is asked for anew meanwhile, the file of a leaf marked as used.
    fn held(self: &Arc<Self>, item: Item, now: UnixTime) -> Option<Arc<Entry>> {
        let (entry, due) = {
            let mut state = self.state();
            state.uses += 1;
            let uses = state.uses;
            let held = state.held.get_mut(&item).filter(|held| held.entry.valid_at(now))?;
            held.used = uses;
            let due = held.due <= Instant::now();
            if due && item.is_leaf() {
                held.due = Instant::now() + DAY;
            }
            (Arc::clone(&held.entry), due)
        };
        if due && matches!(item, Item::Crl { .. }) {
            self.want(item, now);
        }
        if due && item.is_leaf() && self.store.is_some() {
            let (this, entry) = (Arc::clone(self), Arc::clone(&entry));
            tokio::spawn(async move {
                this.on_disk(move |inner| inner.store.as_ref().map(|store| store.touch(&item, &entry))).await;
            });
        }
        Some(entry)
    }

    /// Asks without waiting.
    pub(crate) fn want(self: &Arc<Self>, item: Item, now: UnixTime) {
        if let Err(error) = self.launch(item, true, Effort::Anew, now) {
            tracing::debug!(%item, %error, "not asked for anew");
        }
    }

    /// What the folder has under the item's name.
    async fn kept(self: &Arc<Self>, item: Item) -> Kept {
        if self.store.is_none() {
            return Kept::default();
        }
        self.on_disk(move |inner| {
            let roots = inner.options.issuer.roots(&[item.product()]);
            let Some(store) = &inner.store else { return Kept::default() };
            let floors = roots.iter().map(|root| (*root, inner.floor(root, &item))).collect();
            Kept { files: store.read(&roots, &item), of_chip: store.knows_chip(&roots, &item), floors }
        })
        .await
        .unwrap_or_default()
    }

    /// The highest number of this list that was ever kept; 0 of what is no list. Reads a file.
    pub(crate) fn floor(&self, root: &SpkiDigest, item: &Item) -> u64 {
        let of_lists = self.store.as_ref().filter(|_| matches!(item, Item::Crl { .. }));
        of_lists.map_or(0, |store| store.floor(root, item))
    }

    /// The least number that a list of this line may have: the highest seen; 0 where none was. Of several simulators, it is that of
    /// those whose root is among `at_hand`, where any is; and of them the one whose is lowest.
    pub(crate) async fn list_floor(self: &Arc<Self>, item: Item, at_hand: &Endorsements) -> u64 {
        let held = self.state().held.get(&item).map(|held| (held.entry.root, held.entry.number));
        let mut roots = self.options.issuer.roots(&[item.product()]);
        let role = CertificateRole::Root(item.product());
        let named: Vec<_> =
            at_hand.certificates().filter(|one| one.role() == role).map(Certificate::spki_digest).collect();
        let known = roots.iter().any(|root| named.contains(root));
        if known {
            roots.retain(|root| named.contains(root));
        }
        let looked = self.on_disk({
            let roots = roots.clone();
            move |inner| roots.iter().map(|root| inner.floor(root, &item)).collect::<Vec<_>>()
        });
        let kept = timeout(self.options.patience / 2, looked).await.ok().flatten().unwrap_or_default();
        let of = |(index, root): (usize, &SpkiDigest)| {
            let in_memory = held.filter(|(of, _)| of == root).map_or(0, |(_, number)| number);
            in_memory.max(kept.get(index).copied().unwrap_or(0))
        };
        roots.iter().enumerate().map(of).filter(|least| known || *least > 0).min().unwrap_or(0)
    }

    /// The first of these files that is the item; damaged ones are removed.
    async fn read(self: &Arc<Self>, item: Item, kept: Kept, now: UnixTime) -> Option<Arc<Entry>> {
        let Kept { files, floors, .. } = kept;
        for one in files {
            let age = SystemTime::now().duration_since(one.written).unwrap_or_default();
            let judged = self.judge(item, one.bytes, Effort::Held, now).await.and_then(|entry| {
                let least = floors.iter().find(|(root, _)| *root == entry.root).map_or(0, |(_, least)| *least);
                entry.at_least(least).map(|()| entry)
            });
            match judged {
                Ok(entry) => {
                    self.hold(item, &entry, age);
                    return Some(entry);
                }
                // A list that ran out stays, for its number; who looks at it often is no news.
                Err(unfit) if unfit.is_damage(&self.options.issuer) => {
                    let gone = std::fs::remove_file(&one.path).is_ok();
                    let file = one.path.display();
                    tracing::warn!(%file, gone, error = chain(&unfit), "a kept certificate or list is damaged");
                }
                Err(unfit) => {
                    let file = one.path.display();
                    tracing::debug!(%file, error = chain(&unfit), "a kept certificate or list is not of use");
                }
            }
        }
        None
    }

    /// Checks bytes under the chains at hand; under a chain got for it, where that could help.
    pub(crate) fn judge(
        self: &Arc<Self>,
        item: Item,
        bytes: Vec<u8>,
        effort: Effort,
        now: UnixTime,
    ) -> Pin<Box<dyn Future<Output = Result<Arc<Entry>, Unfit>> + Send>> {
        let this = Arc::clone(self);
        Box::pin(async move {
            let first = check(&item, &bytes, &this.chains(), &this.options.issuer, now);
            let Err(unfit) = first else { return first };
            if matches!(item, Item::Chain { .. }) || !unfit.wants_chain() {
                return Err(unfit);
            }
            let wanted = Item::Chain { product: item.product(), key: item.key() };
            let young = this.state().held.get(&wanted).is_some_and(|held| held.due > Instant::now());
            let effort = if young || effort == Effort::Held { Effort::Held } else { Effort::Needed };
            // Nothing held helped: what is of some age is asked for anew.
            let old = !young && this.state().held.contains_key(&wanted);
            let effort = if old && effort == Effort::Needed { Effort::Anew } else { effort };
            match this.obtain(wanted, effort, now).await {
                Ok(_) => check(&item, &bytes, &this.chains(), &this.options.issuer, now),
                Err(error) => {
                    tracing::debug!(%wanted, %error, "no other chain");
                    Err(unfit)
                }
            }
        })
    }

    /// Chains beside AMD's own.
    pub(crate) fn chains(&self) -> Endorsements {
        let mut all = Endorsements::new();
        for (item, held) in &self.state().held {
            if matches!(item, Item::Chain { .. }) {
                all.merge(&held.entry.bag);
            }
        }
        all
    }

    /// The one request for an item that is under way, or a new one.
    fn launch(
        self: &Arc<Self>,
        item: Item,
        known: bool,
        effort: Effort,
        now: UnixTime,
    ) -> Result<watch::Receiver<Option<Outcome>>, FetchError> {
        let started = Instant::now();
        let mut state = self.state();
        if let Some(flight) = state.flights.get(&item) {
            return Ok(flight.clone());
        }
        // One that was under way a moment ago has landed.
        if effort == Effort::Needed
            && let Some(held) = state.held.get(&item).filter(|held| held.entry.valid_at(now))
        {
            return Ok(watch::channel(Some(Ok(Arc::clone(&held.entry)))).1);
        }
        if self.upstream.is_none() {
            return Err(FetchError::Offline);
        }
        let url = self.options.base.as_ref().and_then(|base| base.url(&item)).ok_or(FetchError::NoAddress)?;
        if let Some((_, (error, _))) = state.refused.get(&item).filter(|(until, _)| *until > started) {
            return Err(error.clone());
        }
        if state.pause > started + self.options.patience {
            return Err(FetchError::Busy { retry_after: state.pause - started, status: state.paused_by });
        }
        let lane = match item {
            Item::Vcek { chip, .. } if known || state.chips.get(&chip).is_some() => Lane::Chip(chip),
            Item::Vcek { .. } => Lane::Stranger,
            _ => Lane::Standing,
        };
        let (lane, taken) = match lane {
            Lane::Standing => (lane, Ok(())),
            Lane::Stranger => (lane, state.strangers.take(started)),
            Lane::Chip(chip) => {
                let found = state.chips.get(&chip).map(|(_, bucket)| *bucket);
                let mut bucket = found.unwrap_or_else(|| Bucket::full(self.options.each_chip, started));
                let own = bucket.take(started);
                state.chips.put(chip, started + DAY, bucket);
                // Anybody may have used it up in this chip's name. It is no worse off than a chip that nobody has seen.
                match own {
                    Ok(()) => (lane, Ok(())),
                    Err(own) => (Lane::Stranger, state.strangers.take(started).map_err(|other| other.min(own))),
                }
            }
        };
        taken.map_err(|retry_after| FetchError::Budget { retry_after })?;
        let (sender, flight) = watch::channel(None);
        state.flights.insert(item, flight.clone());
        drop(state);
        let landing = Landing { inner: Arc::clone(self), item };
        tokio::spawn(async move {
            let outcome = landing.inner.fetch(&url, item, lane, started, now).await;
            landing.inner.remember(item, &outcome);
            drop(landing);
            sender.send_replace(Some(outcome));
        });
        Ok(flight)
    }

    async fn fetch(self: &Arc<Self>, url: &str, item: Item, lane: Lane, started: Instant, now: UnixTime) -> Outcome {
        let deadline = started + self.options.patience;
        let upstream = self.upstream.as_ref().ok_or(FetchError::Offline)?;
        let gate = if matches!(lane, Lane::Stranger) { &self.strangers } else { &self.others };
        let Ok(Ok(permit)) = timeout_at(deadline, gate.acquire()).await else { return Err(self.options.slow()) };
        let bytes = loop {
            let State { pause, paused_by: status, .. } = *self.state();
            if pause > deadline {
                return Err(FetchError::Busy { retry_after: pause.saturating_duration_since(Instant::now()), status });
            }
            sleep_until(pause).await;
            match timeout_at(deadline, upstream.get(url, item.limit())).await {
                Err(_) => return Err(self.options.slow()),
                Ok(Answer::Body(bytes)) => break bytes,
                Ok(Answer::None(status)) => return Err(FetchError::None { status }),
                Ok(Answer::Failed(error)) => return Err(error),
                Ok(Answer::Later(pause, status)) => {
                    let until = Instant::now() + pause;
                    let mut state = self.state();
                    state.pause = state.pause.max(until);
                    state.paused_by = status;
                }
            }
        };
        // A chain that is wanted for it is a request of its own.
        drop(permit);
        let entry = self.judge(item, bytes, Effort::Needed, now).await?;
        self.keep(item, entry, now).await.map_err(FetchError::from)
    }

    /// Takes a checked item into memory and folder, unless it is a list that goes back: by its number or, where that is the held
    /// one's, by what it revokes.
    pub(crate) async fn keep(
        self: &Arc<Self>,
        item: Item,
        entry: Arc<Entry>,
        now: UnixTime,
    ) -> Result<Arc<Entry>, Unfit> {
        if matches!(item, Item::Crl { .. }) {
            let held = self
                .state()
                .held
                .get(&item)
                .map_or(0, |held| if held.entry.root == entry.root { held.entry.number } else { 0 });
            let root = entry.root;
            let kept = self.on_disk(move |inner| inner.floor(&root, &item)).await;
            entry.at_least(held.max(kept.unwrap_or(0)))?;
            if let Ok(held) = self.obtain(item, Effort::Held, now).await {
                entry.covers(&held)?;
            }
        }
        // Before it is written: a disk that hangs keeps nobody from it.
        self.hold(item, &entry, Duration::ZERO);
        if self.store.is_some() {
            let kept = Arc::clone(&entry);
            let written = self.on_disk(move |inner| inner.store.as_ref().map(|store| store.write(&item, &kept))).await;
            match written {
                // Another program has written a newer one meanwhile, which is there to be read.
                Some(Some(Err(WriteError::Older(unfit)))) => {
                    let mut state = self.state();
                    if state.held.get(&item).is_some_and(|held| Arc::ptr_eq(&held.entry, &entry)) {
                        state.held.remove(&item);
                    }
                    return Err(unfit);
                }
                Some(Some(Err(error))) => tracing::warn!(%item, %error, "not kept in the folder"),
                _ => {}
            }
        }
        Ok(entry)
    }

    /// `age`: since the service was asked for it.
    fn hold(&self, item: Item, entry: &Arc<Entry>, age: Duration) {
        let life = match item {
            Item::Crl { .. } => self.options.refresh,
            Item::Chain { .. } => CHAIN_AGE,
            Item::Vcek { .. } | Item::Vlek { .. } => DAY,
        };
        let due = Instant::now() + life.saturating_sub(age);
        let mut state = self.state();
        // Two that were looked at at once are held in the order of their numbers, whichever comes last.
        let newer = |held: &Held| held.entry.root == entry.root && held.entry.number > entry.number;
        if state.held.get(&item).is_some_and(newer) {
            return;
        }
        state.uses += 1;
        let used = state.uses;
        if let Item::Vcek { chip, .. } = item {
            let rate = self.options.each_chip;
            if state.chips.get(&chip).is_none() {
                let now = Instant::now();
                state.chips.put(chip, now + DAY, Bucket::full(rate, now));
            }
        }
        if item.is_leaf() && state.held.len() >= self.options.max_leaves && !state.held.contains_key(&item) {
            let mut leaves: Vec<_> =
                state.held.iter().filter(|(item, _)| item.is_leaf()).map(|(item, held)| (held.used, *item)).collect();
            leaves.sort_by_key(|(used, _)| *used);
            for (_, old) in leaves.iter().take((self.options.max_leaves / 8).max(1)) {
                state.held.remove(old);
            }
        }
        state.held.insert(item, Held { entry: Arc::clone(entry), due, used });
    }

    /// Neither 429 nor a failure says that there is none: after a failure there is a short rest, longer after each in a row.
    fn remember(&self, item: Item, outcome: &Outcome) {
        let mut state = self.state();
        let now = Instant::now();
        let rest = match outcome {
            Ok(_) => return state.refused.remove(&item),
            Err(FetchError::Busy { .. } | FetchError::Budget { .. } | FetchError::Offline | FetchError::NoAddress) => {
                return;
            }
            Err(FetchError::None { .. }) => self.options.refused_for,
            Err(_) => {
                let fails = state.refused.get(&item).map_or(0, |(_, (_, fails))| *fails);
                let (first, longest) = self.options.rest;
                first.saturating_mul(2_u32.saturating_pow(fails.min(16))).min(longest)
            }
        };
        if let Err(error) = outcome {
            let fails = state.refused.get(&item).map_or(0, |(_, (_, fails))| *fails);
            tracing::debug!(%item, error = chain(error), "not got");
            state.refused.put(item, now + rest, (error.clone(), fails.saturating_add(1)));
        }
    }

    /// Files are no work for the event loop.
    pub(crate) async fn on_disk<T: Send + 'static>(
        self: &Arc<Self>,
        act: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Option<T> {
        let this = Arc::clone(self);
        let place = Arc::clone(&self.disk).acquire_owned().await.ok()?;
        let act = move || {
            let _place = place;
            act(&this)
        };
        tokio::task::spawn_blocking(act).await.ok()
    }
}

/// However a request ends, the next one may start.
struct Landing {
    inner: Arc<Inner>,
    item: Item,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.inner.state().flights.remove(&self.item);
    }
}

#[cfg(test)]
mod tests {
    use coffer_verifier::abi::{ProductLine, SigningKey};

    use super::*;

    #[tokio::test]
    async fn a_disk_that_hangs_is_not_waited_for_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options::amd().offline().kept_in(folder.path());
        options.patience = Duration::from_millis(50);
        let kds = Kds::open(options).unwrap();
        let all = u32::try_from(DISK_AT_ONCE).unwrap();
        let _hanging = Arc::clone(&kds.0.disk).acquire_many_owned(all).await.unwrap();
        let list = Item::Crl { product: ProductLine::Milan, key: SigningKey::Vcek };
        assert_eq!(kds.get(&[list], UnixTime::from_secs(0)).await.failures, [(list, FetchError::Folder)]);
    }
}
