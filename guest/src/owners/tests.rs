use std::{sync::Mutex, time::Duration};

use coffer_kbs_client::Secret;
use coffer_spec::{AuthorityKey, OwnerMay, SecretPath, Tee};
use coffer_verifier::{P384PublicKey, abi::SpkiDigest};
use p384::ecdsa::{Signature, SigningKey, signature::Signer as _};
use secrecy::SecretBox;

use super::*;

const NOW: UnixTime = UnixTime::from_secs(1_000);
const DIGEST: [u8; 32] = [7; 32];

fn key() -> (SigningKey, P384PublicKey) {
    let key = SigningKey::from_slice(&[5; 48]).unwrap();
    let public = P384PublicKey::from_sec1(key.verifying_key().to_sec1_point(false).as_bytes()).unwrap();
    (key, public)
}

fn owner(name: &str, may: &str) -> Owner {
    Owner { key: SpkiDigest::of(name.as_bytes()), may: OwnerMay::parse(may).unwrap() }
}

/// Alice is of the spec.
fn owners(kept: bool) -> Owners {
    let authority = OwnerAuthority {
        key: AuthorityKey(key().1),
        name: "prod".parse().unwrap(),
        sequence: 0,
        kept: kept.then(|| "kbs:///default/owners/prod".parse().unwrap()),
    };
    Owners::of(&WorkloadSpec {
        owners: vec![owner("alice", "logs")],
        owner_authority: Some(authority),
        ..coffer_spec::sample::workload(Tee::Simulated)
    })
}

fn list(sequence: u64, expires: UnixTime, owners: Vec<Owner>) -> OwnerList {
    OwnerList { name: "prod".parse().unwrap(), sequence, expires, owners }
}

fn signed(list: &OwnerList) -> Vec<u8> {
    let (key, public) = key();
    let envelope = SignedOwnerList::of(list);
    let signature: Signature = key.sign(&envelope.signing_input());
    envelope.with_signature(&public, signature.to_bytes().into()).to_json().into_bytes()
}

fn far() -> UnixTime {
    UnixTime::from_secs(4_000_000_000)
}

#[test]
fn without_an_authority_they_are_the_specs() {
    let spec = WorkloadSpec { owners: vec![owner("alice", "exec")], ..coffer_spec::sample::workload(Tee::Simulated) };
    let owners = Owners::of(&spec);
    assert_eq!((owners.now(), owners.why_nobody()), (spec.owners, None));
    assert_eq!(owners.brought(b"{}").unwrap_err().word(), "no-owner-authority");
}

#[test]
fn a_list_that_is_brought_adds_and_takes_nobody_away() {
    let owners = owners(false);
    let bob = list(3, far(), vec![owner("bob", "exec"), owner("alice", "top")]);
    assert_eq!(owners.brought(&signed(&bob)).unwrap(), 3);
    assert_eq!(owners.now(), [owner("alice", "logs"), owner("bob", "exec"), owner("alice", "top")]);
    // The next one takes its place, and an older one is not taken again.
    assert_eq!(owners.brought(&signed(&list(4, far(), Vec::new()))).unwrap(), 4);
    assert_eq!(owners.now(), [owner("alice", "logs")]);
    assert_eq!(owners.brought(&signed(&bob)).unwrap_err().word(), "owner-list-older");
    assert_eq!(owners.brought(&signed(&list(9, NOW, Vec::new()))).unwrap_err().word(), "owner-list-expired");
    assert_eq!(owners.now(), [owner("alice", "logs")]);
}

#[test]
fn of_two_lists_with_one_sequence_the_one_that_was_taken_stays() {
    let owners = owners(false);
    let (bob, carol) = (list(3, far(), vec![owner("bob", "exec")]), list(3, far(), vec![owner("carol", "exec")]));
    assert_eq!(owners.brought(&signed(&bob)).unwrap(), 3);
    let other = owners.brought(&signed(&carol)).unwrap_err();
    assert_eq!((other.word(), other.is_unauthentic()), ("owner-list-sequence-twice", false));
    assert_eq!(owners.now(), [owner("alice", "logs"), owner("bob", "exec")]);
    // The same again is no other one, and the next one is the next one.
    assert_eq!(owners.brought(&signed(&bob)).unwrap(), 3);
    assert_eq!(owners.brought(&signed(&list(4, far(), Vec::new()))).unwrap(), 4);
}

#[test]
fn a_list_whose_time_is_over_adds_nobody() {
    let owners = owners(false);
    let (_, known) = owners.known.as_ref().unwrap();
    *known.write().unwrap() = Known::List(list(1, UnixTime::from_secs(2_000), vec![owner("bob", "exec")]), DIGEST);
    assert_eq!(owners.at(Some(UnixTime::from_secs(1_999))).len(), 2);
    for later in [Some(UnixTime::from_secs(2_000)), None] {
        assert_eq!(owners.at(later), [owner("alice", "logs")]);
    }
}

#[test]
fn where_the_broker_keeps_the_list_nobody_is_an_owner_before_it_was_asked() {
    let owners = owners(true);
    assert!(owners.at(Some(NOW)).is_empty());
    assert_eq!(owners.brought(&signed(&list(1, far(), Vec::new()))).unwrap_err().word(), "owner-list-kept-at-broker");
    let (_, known) = owners.known.as_ref().unwrap();
    let bob = list(7, UnixTime::from_secs(2_000), vec![owner("bob", "exec")]);
    for (is, expected) in [
        (Known::NoList, vec![owner("alice", "logs")]),
        (Known::List(bob, DIGEST), vec![owner("bob", "exec")]),
        (Known::Lost(7), Vec::new()),
    ] {
        *known.write().unwrap() = is;
        assert_eq!(owners.at(Some(NOW)), expected);
    }
    // Nobody's clock says that it is over, and nobody's that it is not.
    let late = list(8, NOW, vec![owner("bob", "exec")]);
    *known.write().unwrap() = Known::List(late, DIGEST);
    for now in [Some(NOW), None] {
        assert!(owners.at(now).is_empty());
    }
}

/// Keeps one list and one counter.
#[derive(Default)]
struct Broker {
    /// Of none it says no.
    list: Option<Vec<u8>>,
    count: Mutex<u64>,
    /// Where others move the counter to, one before each step of ours.
    others: Mutex<Vec<u64>>,
    gives: Answer,
    steps: Answer,
}

#[derive(Clone, Copy, Default)]
enum Answer {
    #[default]
    Rightly,
    Broken,
    Never,
    /// What the broker says of a guest that asks too often.
    TooOften,
    /// A refusal that says nothing of what was asked for.
    Other,
}

impl Answer {
    async fn come(self) -> Result<(), ClientError> {
        match self {
            Self::Rightly => Ok(()),
            Self::Broken => Err(ClientError::Unreachable { cause: "reset".to_owned() }),
            Self::Never => std::future::pending().await,
            Self::TooOften => Err(ClientError::TooOften),
            Self::Other => Err(ClientError::Refused { code: "message-undecodable".to_owned(), id: "ab".to_owned() }),
        }
    }
}

impl Source for Broker {
    async fn current(&self, _: &SecretPath) -> Result<Secret, ClientError> {
        self.gives.come().await?;
        let refused = || ClientError::Refused { code: "not-released".to_owned(), id: "ab".to_owned() };
        let list = self.list.clone().ok_or_else(refused)?;
        Ok(Secret { value: SecretBox::new(Box::new(list)), version: 1 })
    }
}

impl Keeper for Broker {
    async fn count(&self, _: &SealingName) -> Result<Generation, ClientError> {
        Ok(Generation { current: *self.count.lock().unwrap(), set: false })
    }

    async fn step(&self, _: &SealingName, at: u64, to: u64) -> Result<Generation, ClientError> {
        self.steps.come().await?;
        let mut count = self.count.lock().unwrap();
        if let Some(other) = self.others.lock().unwrap().pop() {
            *count = other;
        }
        let set = *count == at;
        if set {
            *count = to;
        }
        Ok(Generation { current: *count, set })
    }
}

fn broker(count: u64, list: Option<&OwnerList>) -> Broker {
    Broker { count: Mutex::new(count), list: list.map(signed), ..Broker::default() }
}

fn bob(sequence: u64) -> OwnerList {
    list(sequence, far(), vec![owner("bob", "exec")])
}

/// The broker keeps the list, and this guest has Bob's second one.
async fn with_a_list() -> Owners {
    let owners = owners(true);
    owners.look(&broker(0, Some(&bob(2)))).await.unwrap();
    assert_eq!(owners.now(), [owner("bob", "exec")]);
    owners
}

fn word(looked: Result<(), OwnersError>) -> &'static str {
    looked.map_or_else(|error| error.word(), |()| "taken")
}

#[tokio::test]
async fn a_list_counts_at_the_broker_before_it_counts_here() {
    let (owners, broker) = (owners(true), broker(0, Some(&bob(7))));
    assert_eq!(owners.why_nobody().as_deref(), Some("owner-list-unknown"));
    owners.look(&broker).await.unwrap();
    assert_eq!((*broker.count.lock().unwrap(), owners.now()), (7, vec![owner("bob", "exec")]));
    assert_eq!(owners.why_nobody(), None);
    // Also one whose time is over: it takes away what the one before it gave.
    let over = Broker { list: Some(signed(&list(9, NOW, vec![owner("bob", "exec")]))), ..broker };
    assert_eq!(word(owners.look(&over).await), "owner-list-expired");
    assert_eq!((*over.count.lock().unwrap(), owners.now()), (9, Vec::new()));
    assert_eq!(owners.why_nobody().as_deref(), Some("owner-list-expired"));
}

#[tokio::test]
async fn a_later_list_that_cannot_be_counted_leaves_nobody() {
    let owners = with_a_list().await;
    let no_steps = Broker { steps: Answer::Broken, ..broker(2, Some(&bob(3))) };
    assert_eq!(word(owners.look(&no_steps).await), "owner-list-unknown");
    assert!(owners.now().is_empty());
    // Until it can.
    owners.look(&broker(2, Some(&bob(3)))).await.unwrap();
    assert_eq!(owners.now(), [owner("bob", "exec")]);
    // The one that is in force has been counted: a counter that somebody set back takes nobody away.
    let set_back = Broker { steps: Answer::Broken, ..broker(2, Some(&bob(3))) };
    assert_eq!(word(owners.look(&set_back).await), "owner-list-unknown");
    assert_eq!(owners.now(), [owner("bob", "exec")]);
}

#[tokio::test]
async fn nor_does_a_host_that_lets_the_counting_wait_until_nobody_does() {
    let owners = with_a_list().await;
    let never = Broker { steps: Answer::Never, ..broker(2, Some(&list(3, far(), Vec::new()))) };
    assert!(tokio::time::timeout(Duration::from_millis(1), owners.look(&never)).await.is_err());
    assert!(owners.now().is_empty());
}

#[tokio::test]
async fn a_counter_that_another_guest_moves_meanwhile_is_followed_and_never_back() {
    for (others, expected, count, is_there) in [
        // To less: ours is still the later.
        (vec![4], "taken", 7, true),
        (vec![6, 5, 4], "taken", 7, true),
        // To the same list, or a later one, which this guest has not seen.
        (vec![7], "taken", 7, true),
        (vec![8], "owner-list-older", 8, false),
        (vec![9, 4], "owner-list-older", 9, false),
        // Nobody moves it back.
        (vec![2], "owner-list-unknown", 2, false),
        (vec![4, 5], "owner-list-unknown", 4, false),
    ] {
        let owners = with_a_list().await;
        let raced = Broker { others: Mutex::new(others.clone()), ..broker(3, Some(&bob(7))) };
        assert_eq!(word(owners.look(&raced).await), expected, "{others:?}");
        assert_eq!((*raced.count.lock().unwrap(), !owners.now().is_empty()), (count, is_there), "{others:?}");
    }
}

#[tokio::test]
async fn what_is_older_than_the_counter_or_not_there_leaves_nobody_and_never_the_specs_again() {
    let forged = Broker { list: Some(b"{}".to_vec()), ..broker(2, None) };
    let silent = Broker { gives: Answer::Broken, ..broker(2, None) };
    for (said, broker, is_there) in [
        // What this one has is still the newest.
        ("owner-list-older", broker(2, Some(&bob(1))), true),
        ("owner-list-malformed", forged, true),
        ("owner-list-unknown", silent, true),
        // Another guest has seen a later one.
        ("owner-list-older", broker(3, Some(&bob(2))), false),
        ("owner-list-malformed", Broker { list: Some(b"{}".to_vec()), ..broker(3, None) }, false),
        ("owner-list-unknown", Broker { gives: Answer::Broken, ..broker(3, None) }, false),
        ("taken", broker(2, None), false),
        // The broker's counter was set back, and the list with it.
        ("taken", broker(0, None), false),
        ("owner-list-older", broker(0, Some(&bob(1))), true),
    ] {
        let owners = with_a_list().await;
        assert_eq!(word(owners.look(&broker).await), said);
        assert_eq!(!owners.now().is_empty(), is_there, "{said}");
    }
    // One that starts has nothing but the counter.
    for (count, list, expected) in [
        (0, None, vec![owner("alice", "logs")]),
        (1, None, Vec::new()),
        (2, Some(bob(1)), Vec::new()),
        (2, Some(bob(2)), vec![owner("bob", "exec")]),
    ] {
        let owners = owners(true);
        let _ = owners.look(&broker(count, list.as_ref())).await;
        assert_eq!(owners.now(), expected, "{count}");
    }
}

#[tokio::test]
async fn what_the_broker_says_no_by_for_another_reason_takes_nobody_away_and_brings_nobody_back() {
    for no in [Answer::TooOften, Answer::Other] {
        let refusing = |count| Broker { gives: no, ..broker(count, Some(&bob(2))) };
        let owners = with_a_list().await;
        assert_eq!(word(owners.look(&refusing(2)).await), "owner-list-unknown");
        assert_eq!(owners.now(), [owner("bob", "exec")]);
        // Another guest has seen a later one.
        assert_eq!(word(owners.look(&refusing(3)).await), "owner-list-unknown");
        assert!(owners.now().is_empty());
        // Nor does it say that there is no list yet.
        let first = super::tests::owners(true);
        assert_eq!(word(first.look(&refusing(0)).await), "owner-list-unknown");
        assert!(first.now().is_empty());
    }
}

/// Says `TooOften` so often, of everything.
struct Busy(Broker, Mutex<u32>);

impl Busy {
    fn ask(&self) -> Result<(), ClientError> {
        let mut left = self.1.lock().unwrap();
        *left = left.saturating_sub(1);
        if left.is_multiple_of(3) { Ok(()) } else { Err(ClientError::TooOften) }
    }
}

impl Source for Busy {
    async fn current(&self, path: &SecretPath) -> Result<Secret, ClientError> {
        self.ask()?;
        self.0.current(path).await
    }
}

impl Keeper for Busy {
    async fn count(&self, name: &SealingName) -> Result<Generation, ClientError> {
        self.ask()?;
        self.0.count(name).await
    }

    async fn step(&self, name: &SealingName, at: u64, to: u64) -> Result<Generation, ClientError> {
        self.ask()?;
        self.0.step(name, at, to).await
    }
}

#[tokio::test]
async fn a_broker_that_was_asked_too_often_is_asked_again_for_the_list() {
    let owners = with_a_list().await;
    owners.look(&Busy(broker(2, Some(&list(3, far(), Vec::new()))), Mutex::new(9))).await.unwrap();
    assert_eq!((owners.now(), owners.in_force().unwrap().sequence), (Vec::new(), 3));
}

#[tokio::test]
async fn another_list_of_the_same_sequence_is_not_taken_from_the_broker_either() {
    let owners = with_a_list().await;
    let other = list(2, far(), vec![owner("carol", "exec")]);
    assert_eq!(word(owners.look(&broker(2, Some(&other))).await), "owner-list-sequence-twice");
    assert_eq!(owners.now(), [owner("bob", "exec")]);
    assert_eq!(word(owners.look(&broker(2, Some(&bob(2)))).await), "taken");
    // Not by way of taking it away in between, either.
    owners.look(&broker(2, None)).await.unwrap();
    assert_eq!(word(owners.look(&broker(2, Some(&other))).await), "owner-list-sequence-twice");
    assert!(owners.now().is_empty());
    assert_eq!(word(owners.look(&broker(2, Some(&bob(2)))).await), "taken");
    assert_eq!(owners.now(), [owner("bob", "exec")]);
    // As documented: one that starts knows the sequence alone.
    let anew = super::tests::owners(true);
    anew.look(&broker(2, Some(&other))).await.unwrap();
    assert_eq!(anew.now(), [owner("carol", "exec")]);
}

#[test]
fn whoever_is_an_owner_is_told_by_which_list() {
    let told = |kept: bool, known: Known, now: Option<UnixTime>| {
        let owners = owners(kept);
        *owners.known.as_ref().unwrap().1.write().unwrap() = known;
        let told = owners.in_force_at(now).unwrap();
        // Nobody is told of owners that there are not.
        assert_eq!(told.are() == OwnersAre::Nobody, owners.at(now).is_empty());
        (told.are(), told.sequence, told.expires, told.digest)
    };
    let bob = || Known::List(list(7, UnixTime::from_secs(2_000), vec![owner("bob", "exec")]), DIGEST);
    let (now, late) = (Some(NOW), Some(UnixTime::from_secs(2_000)));
    assert_eq!(told(true, bob(), now), (OwnersAre::OfList, 7, 2_000, DIGEST.to_vec()));
    assert_eq!(told(false, bob(), now), (OwnersAre::OfSpecAndList, 7, 2_000, DIGEST.to_vec()));
    for (kept, known, now, are, sequence) in [
        (true, bob(), late, OwnersAre::Nobody, 7),
        (true, bob(), None, OwnersAre::Nobody, 7),
        (true, Known::Lost(9), now, OwnersAre::Nobody, 9),
        (true, Known::Nothing, now, OwnersAre::Nobody, 0),
        (true, Known::NoList, now, OwnersAre::OfSpec, 0),
        (false, Known::NoList, now, OwnersAre::OfSpec, 0),
        (false, bob(), late, OwnersAre::OfSpec, 0),
    ] {
        assert_eq!(told(kept, known, now), (are, sequence, 0, Vec::new()));
    }
    let spec = WorkloadSpec { owners: vec![owner("alice", "exec")], ..coffer_spec::sample::workload(Tee::Simulated) };
    assert!(Owners::of(&spec).in_force().is_none(), "no list can say so");
}

#[tokio::test]
async fn why_a_list_is_not_taken_is_told_in_words_that_are_safe_to_show_until_one_is() {
    let owners = with_a_list().await;
    let refused = || owners.in_force().unwrap().refused;
    assert_eq!(refused(), None);
    let hostile = format!("{{\"\u{1b}[2J\\n{}\": 1}}", "x".repeat(5_000)).into_bytes();
    for (broker, word) in [
        (Broker { list: Some(hostile), ..broker(2, None) }, "owner-list-malformed"),
        (broker(2, Some(&bob(1))), "owner-list-older"),
        (Broker { gives: Answer::Broken, ..broker(2, None) }, "owner-list-unknown"),
    ] {
        let _ = owners.look(&broker).await;
        let said = refused().unwrap();
        assert_eq!(said.word, word);
        assert!(said.why.chars().count() <= WHY && !said.why.contains(char::is_control), "{said:?}");
    }
    owners.look(&broker(2, Some(&bob(2)))).await.unwrap();
    let told = owners.in_force().unwrap();
    assert_eq!((told.sequence, told.digest, told.refused), (2, SignedOwnerList::of(&bob(2)).digest().to_vec(), None));
}
