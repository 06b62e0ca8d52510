//! Challenges: values that a guest puts into REPORT_DATA, which this service knows again without having kept them.
//!
//! A challenge is 64 bytes, as REPORT_DATA is: the second it ends at, 24 random bytes of which 8 are its giver's, and a MAC over all.
//! Replicas that share the key know each other's. That one was used is remembered where it was used, until it ends: single use holds
//! within a replica. What a process before this one has taken back this one cannot know: of others' challenges it takes none that was
//! given before it began.
//! Trusts: the key. Never: forgets one that was used before it has ended; takes more memory than for so many.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use coffer_verifier::UnixTime;
use coffer_verifier::abi::ReportData;

use crate::refusal::Refusal;

/// Bytes of a key.
pub const KEY_LEN: usize = 32;
/// Seconds that one is good for.
pub const LIFETIME: i64 = 60;
/// Seconds that the clock of another replica may be ahead.
const AHEAD: i64 = 30;
/// Used ones that are remembered. Whoever comes while these are all of the last minute has to wait.
const SPENT: usize = 100_000;
/// Seconds that the clock may have gone back over a restart.
const BACK: i64 = 5;
const RANDOM: usize = 24;
/// Of those, what is the giver's.
const OWN: usize = 8;
const SIGNED: usize = 8 + RANDOM;

/// Gives challenges, and takes each back once.
pub struct Challenges {
    key: hmac::Key,
    /// Of this process: its challenges are known by it.
    own: [u8; OWN],
    /// Second in which it began.
    began: i64,
    spent: Mutex<Spent>,
    room: usize,
}

#[derive(Default)]
struct Spent {
    used: BTreeSet<(i64, [u8; RANDOM])>,
    /// The latest second seen: what ended by then was forgotten, whatever the clock says next.
    latest: i64,
}

/// One challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge(pub [u8; 64]);

impl Challenge {
    /// From its text.
    ///
    /// # Errors
    /// [`Refusal::Field`].
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        BASE64URL
            .decode(text)
            .ok()
            .and_then(|bytes| Self::new(&bytes))
            .ok_or(Refusal::Field { field: "challenge", expected: "base64url without padding, of 64 bytes" })
    }

    /// From bytes, if they are as many.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its text.
    pub fn text(&self) -> String {
        BASE64URL.encode(self.0)
    }

    /// What REPORT_DATA must be.
    pub const fn report_data(&self) -> ReportData {
        ReportData::new(self.0)
    }

    fn ends(&self) -> UnixTime {
        let mut ends = [0; 8];
        ends.copy_from_slice(&self.0[..8]);
        UnixTime(i64::from_be_bytes(ends))
    }
}

impl Challenges {
    /// Under this key, of a process that begins `now`. `own`: of the system's source.
    pub fn new(key: &[u8; KEY_LEN], own: [u8; OWN], now: UnixTime) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        Self { key, own, began: now.0, spent: Mutex::default(), room: SPENT }
    }

    /// Another one. `random`: of the system's source.
    pub fn issue(&self, random: [u8; RANDOM - OWN], now: UnixTime) -> Challenge {
        let mut bytes = [0; 64];
        bytes[..8].copy_from_slice(&now.0.saturating_add(LIFETIME).to_be_bytes());
        bytes[8..8 + OWN].copy_from_slice(&self.own);
        bytes[8 + OWN..SIGNED].copy_from_slice(&random);
        let tag = self.tag(&bytes[..SIGNED]);
        bytes[SIGNED..].copy_from_slice(tag.as_ref());
        Challenge(bytes)
    }

    /// Takes one back, for good.
    ///
    /// # Errors
    /// [`Refusal::ChallengeForged`], [`Refusal::ChallengeExpired`], [`Refusal::ChallengeSpent`]; [`Refusal::ChallengeOfBefore`] for
    /// another's, given before this process began; [`Refusal::Busy`] while too many of this minute are remembered.
    pub fn spend(&self, challenge: &Challenge, now: UnixTime) -> Result<(), Refusal> {
        let (signed, tag) = challenge.0.split_at(SIGNED);
        let context = [LABEL, signed].concat();
        hmac::verify(&self.key, &context, tag).map_err(|_| Refusal::ChallengeForged)?;
        let ends = challenge.ends().0;
        let mut random = [0; RANDOM];
        random.copy_from_slice(&signed[8..]);
        // It may have been taken back by the process before this one, which has told nobody.
        if !random.starts_with(&self.own) && ends.saturating_sub(LIFETIME) <= self.began.saturating_add(BACK) {
            return Err(Refusal::ChallengeOfBefore);
        }
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.latest = spent.latest.max(now.0);
        if ends <= spent.latest || ends > now.0.saturating_add(LIFETIME + AHEAD) {
            return Err(Refusal::ChallengeExpired);
        }
        let lasting = (spent.latest.saturating_add(1), [0; RANDOM]);
        spent.used = spent.used.split_off(&lasting);
        if spent.used.contains(&(ends, random)) {
            return Err(Refusal::ChallengeSpent);
        }
        if spent.used.len() >= self.room {
            return Err(Refusal::Busy);
        }
        spent.used.insert((ends, random));
        Ok(())
    }

    fn tag(&self, signed: &[u8]) -> hmac::Tag {
        hmac::sign(&self.key, &[LABEL, signed].concat())
    }
}

/// What else the key might ever sign begins with another word.
const LABEL: &[u8] = b"coffer/verifier/challenge/v1";

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_789_862_400);

    fn later(seconds: i64) -> UnixTime {
        UnixTime(NOW.0 + seconds)
    }

    /// One that began long ago.
    fn replica(own: u8) -> Challenges {
        Challenges::new(&[1; KEY_LEN], [own; OWN], later(-3600))
    }

    #[test]
    fn a_challenge_is_good_once_for_a_minute_and_at_every_replica_with_the_key() {
        let (one, other) = (replica(1), replica(2));
        let challenge = one.issue([7; RANDOM - OWN], NOW);
        assert_eq!(Challenge::parse(&challenge.text()), Ok(challenge));
        assert_eq!(challenge.report_data().as_bytes(), &challenge.0);
        assert_eq!(other.spend(&challenge, later(59)), Ok(()));
        assert_eq!(other.spend(&challenge, later(59)), Err(Refusal::ChallengeSpent));
        assert_eq!(one.spend(&challenge, later(-31)), Err(Refusal::ChallengeExpired), "of no clock of ours");
        assert_eq!(one.spend(&challenge, later(-30)), Ok(()), "a replica's clock is a little behind");
        let late = replica(3);
        assert_eq!(late.spend(&challenge, later(60)), Err(Refusal::ChallengeExpired));
        assert_eq!(late.spend(&challenge, later(0)), Err(Refusal::ChallengeExpired), "a clock that goes back");
        let stranger = Challenges::new(&[2; KEY_LEN], [1; OWN], later(-3600));
        assert_eq!(stranger.spend(&challenge, NOW), Err(Refusal::ChallengeForged));
    }

    #[test]
    fn what_a_process_before_this_one_gave_is_not_taken_again() {
        let before = replica(1);
        let challenge = before.issue([7; RANDOM - OWN], NOW);
        assert_eq!(before.spend(&challenge, NOW), Ok(()));
        // In the same second, later, and with a clock that went back a little.
        for began in [0, 1, 59, -BACK] {
            let after = Challenges::new(&[1; KEY_LEN], [2; OWN], later(began));
            assert_eq!(after.spend(&challenge, later(began.max(0))), Err(Refusal::ChallengeOfBefore), "{began}");
            let own = after.issue([7; RANDOM - OWN], later(began));
            assert_eq!(after.spend(&own, later(began)), Ok(()), "its own is good at once");
        }
        let other = before.issue([8; RANDOM - OWN], later(BACK + 1));
        let after = Challenges::new(&[1; KEY_LEN], [2; OWN], NOW);
        assert_eq!(after.spend(&other, later(BACK + 1)), Ok(()), "another replica's, given since");
    }

    #[test]
    fn a_challenge_with_any_bit_changed_is_none() {
        let challenges = replica(1);
        let challenge = challenges.issue([7; RANDOM - OWN], NOW);
        for bit in 0..512 {
            let mut bent = challenge;
            bent.0[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(challenges.spend(&bent, NOW), Err(Refusal::ChallengeForged), "bit {bit}");
        }
        for text in ["", "AA", &challenge.text()[1..], &format!("{}=", challenge.text())] {
            assert!(Challenge::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_was_used_is_remembered_while_it_lasts_and_no_longer() {
        let challenges = Challenges { room: 3, ..replica(1) };
        let given: Vec<_> = (0..4).map(|at| challenges.issue([at; RANDOM - OWN], later(at.into()))).collect();
        for one in &given[..3] {
            assert_eq!(challenges.spend(one, later(3)), Ok(()));
        }
        assert_eq!(challenges.spend(&given[3], later(3)), Err(Refusal::Busy), "none is forgotten for another");
        assert_eq!(challenges.spend(&given[0], later(3)), Err(Refusal::ChallengeSpent));
        assert_eq!(challenges.spend(&given[3], later(60)), Ok(()), "the first has ended");
        assert_eq!(challenges.spent.lock().unwrap().used.len(), 3);
    }
}
