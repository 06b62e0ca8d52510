//! Challenges: values that a guest puts into REPORT_DATA, which this service knows again without having kept them.
//!
//! A challenge is 64 bytes, as REPORT_DATA is: the second it ends at, 24 random bytes, and a MAC over both. Replicas that share the
//! key know each other's. That one was used is remembered where it was used, until it ends: single use holds within a replica.
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
const RANDOM: usize = 24;
const SIGNED: usize = 8 + RANDOM;

/// Gives challenges, and takes each back once.
pub struct Challenges {
    key: hmac::Key,
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
    /// Under this key.
    pub fn new(key: &[u8; KEY_LEN]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), spent: Mutex::default(), room: SPENT }
    }

    /// Another one. `random`: of the system's source.
    pub fn issue(&self, random: [u8; RANDOM], now: UnixTime) -> Challenge {
        let mut bytes = [0; 64];
        bytes[..8].copy_from_slice(&now.0.saturating_add(LIFETIME).to_be_bytes());
        bytes[8..SIGNED].copy_from_slice(&random);
        let tag = self.tag(&bytes[..SIGNED]);
        bytes[SIGNED..].copy_from_slice(tag.as_ref());
        Challenge(bytes)
    }

    /// Takes one back, for good.
    ///
    /// # Errors
    /// [`Refusal::ChallengeForged`], [`Refusal::ChallengeExpired`], [`Refusal::ChallengeSpent`]; [`Refusal::Busy`] while too many
    /// of this minute are remembered.
    pub fn spend(&self, challenge: &Challenge, now: UnixTime) -> Result<(), Refusal> {
        let (signed, tag) = challenge.0.split_at(SIGNED);
        let context = [LABEL, signed].concat();
        hmac::verify(&self.key, &context, tag).map_err(|_| Refusal::ChallengeForged)?;
        let ends = challenge.ends().0;
        let mut random = [0; RANDOM];
        random.copy_from_slice(&signed[8..]);
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

    #[test]
    fn a_challenge_is_good_once_for_a_minute_and_at_every_replica_with_the_key() {
        let (one, other) = (Challenges::new(&[1; KEY_LEN]), Challenges::new(&[1; KEY_LEN]));
        let challenge = one.issue([7; RANDOM], NOW);
        assert_eq!(Challenge::parse(&challenge.text()), Ok(challenge));
        assert_eq!(challenge.report_data().as_bytes(), &challenge.0);
        assert_eq!(other.spend(&challenge, later(59)), Ok(()));
        assert_eq!(other.spend(&challenge, later(59)), Err(Refusal::ChallengeSpent));
        assert_eq!(one.spend(&challenge, later(-31)), Err(Refusal::ChallengeExpired), "of no clock of ours");
        assert_eq!(one.spend(&challenge, later(-30)), Ok(()), "a replica's clock is a little behind");
        let late = Challenges::new(&[1; KEY_LEN]);
        assert_eq!(late.spend(&challenge, later(60)), Err(Refusal::ChallengeExpired));
        assert_eq!(late.spend(&challenge, later(0)), Err(Refusal::ChallengeExpired), "a clock that goes back");
        assert_eq!(Challenges::new(&[2; KEY_LEN]).spend(&challenge, NOW), Err(Refusal::ChallengeForged));
    }

    #[test]
    fn a_challenge_with_any_bit_changed_is_none() {
        let challenges = Challenges::new(&[1; KEY_LEN]);
        let challenge = challenges.issue([7; RANDOM], NOW);
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
        let challenges = Challenges { room: 3, ..Challenges::new(&[1; KEY_LEN]) };
        let given: Vec<_> = (0..4).map(|at| challenges.issue([at; RANDOM], later(at.into()))).collect();
        for one in &given[..3] {
            assert_eq!(challenges.spend(one, later(3)), Ok(()));
        }
        assert_eq!(challenges.spend(&given[3], later(3)), Err(Refusal::Busy), "none is forgotten for another");
        assert_eq!(challenges.spend(&given[0], later(3)), Err(Refusal::ChallengeSpent));
        assert_eq!(challenges.spend(&given[3], later(60)), Ok(()), "the first has ended");
        assert_eq!(challenges.spent.lock().unwrap().used.len(), 3);
    }
}
