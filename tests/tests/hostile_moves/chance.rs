//! Chance that can be had again: everything a mover does comes from one number.

use std::time::{SystemTime, UNIX_EPOCH};

/// Names the seed of a run that is to be had again.
pub const SEED: &str = "COFFER_HOSTILE_SEED";

/// A stream of numbers. Source: splitmix64, G. Steele, D. Lea, C. Flood, 2014.
pub struct Chance(u64);

/// The seed that was asked for, or one of the moment.
pub fn seed() -> u64 {
    let asked = std::env::var(SEED).ok().and_then(|text| text.parse().ok());
    asked.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.as_secs() << 20 | u64::from(now.subsec_micros())
    })
}

impl Chance {
    /// One of several: `part` says which.
    pub fn new(seed: u64, part: u64) -> Self {
        let mut chance = Self(seed ^ part.wrapping_mul(0xA076_1D64_78BD_642F));
        chance.number();
        chance
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `limit`, or 0.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.number() >> 1).unwrap_or(0) % limit.max(1)
    }

    /// One time in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    pub fn byte(&mut self) -> u8 {
        self.number().to_le_bytes()[0]
    }

    /// At most so many, short ones more often.
    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        let most = self.below(most + 1);
        let length = self.below(most + 1);
        (0..length).map(|_| self.byte()).collect()
    }

    /// A few of them are others, there are fewer of them, or some are there twice.
    pub fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            if bytes.is_empty() {
                return;
            }
            let at = self.below(bytes.len());
            match self.below(4) {
                0 => bytes.truncate(at),
                1 => {
                    let again = bytes[at..(at + 64).min(bytes.len())].to_vec();
                    bytes.splice(at..at, again);
                }
                _ => bytes[at] ^= 1 << self.below(8),
            }
        }
    }
}
