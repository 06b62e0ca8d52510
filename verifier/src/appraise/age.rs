//! How old something may be, as a policy file has it: `"7d"`, `"12h"`, `"90m"`, `"30s"`.

use core::{fmt, str::FromStr};

/// How old something may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaxAge {
    /// Waives it.
    #[default]
    Any,
    /// So many seconds, and no second more.
    Seconds(u32),
}

/// Why text is no age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a number above zero and s, m, h or d, such as \"7d\"")]
pub struct AgeError;

const UNITS: [(&str, u32); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

impl MaxAge {
    /// True if something of this age will do. What was made later than now is not too old.
    pub fn admits(self, seconds: i64) -> bool {
        match self {
            Self::Any => true,
            Self::Seconds(most) => seconds <= i64::from(most),
        }
    }

    /// Whichever admits less.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        match (self, other) {
            (Self::Seconds(one), Self::Seconds(two)) => Self::Seconds(one.min(two)),
            (Self::Any, other) | (other, Self::Any) => other,
        }
    }
}

impl FromStr for MaxAge {
    type Err = AgeError;

    fn from_str(text: &str) -> Result<Self, AgeError> {
        let found = UNITS.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)));
        let (number, seconds) = found.ok_or(AgeError)?;
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AgeError);
        }
        let number: u32 = number.parse().map_err(|_| AgeError)?;
        match number.checked_mul(seconds) {
            Some(0) | None => Err(AgeError),
            Some(most) => Ok(Self::Seconds(most)),
        }
    }
}

impl<'de> serde::Deserialize<'de> for MaxAge {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for MaxAge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any age"),
            Self::Seconds(most) => write!(f, "at most {} old", Age(i64::from(*most))),
        }
    }
}

/// Seconds, for a reader.
pub(crate) struct Age(pub i64);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().find(|(_, seconds)| self.0 != 0 && self.0 % i64::from(*seconds) == 0);
        let (unit, seconds) = whole.copied().unwrap_or(("s", 1));
        write!(f, "{}{unit}", self.0 / i64::from(seconds))
    }
}

impl Age {
    /// Of what is older than a day, in days and hours: nobody reads millions of seconds.
    pub(crate) fn rough(&self) -> String {
        match (self.0 / 86_400, self.0 / 3600 % 24) {
            (1.., _) if self.0 % 86_400 == 0 => self.to_string(),
            (days @ 1.., hours) => format!("{days}d {hours}h"),
            _ => self.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read_said_and_compared() {
        for (text, seconds, said) in [
            ("7d", 604_800, "7d"),
            ("36h", 129_600, "36h"),
            ("48h", 172_800, "2d"),
            ("90m", 5_400, "90m"),
            ("61s", 61, "61s"),
        ] {
            let age: MaxAge = text.parse().unwrap();
            assert_eq!((age, age.to_string()), (MaxAge::Seconds(seconds), format!("at most {said} old")));
            assert!(age.admits(i64::from(seconds)) && age.admits(-1) && !age.admits(i64::from(seconds) + 1));
        }
        for bad in ["", "d", "0d", "7", "7w", "-1d", "+7d", "1.5h", "99999999d", "7 d"] {
            assert_eq!(bad.parse::<MaxAge>(), Err(AgeError), "{bad}");
        }
        for (seconds, said) in [(2_713_237, "31d 9h"), (172_800, "2d"), (3_601, "3601s"), (-5, "-5s")] {
            assert_eq!(Age(seconds).rough(), said);
        }
        let (short, long) = (MaxAge::Seconds(1), MaxAge::Seconds(2));
        assert_eq!((short.stricter(long), long.stricter(short)), (short, short));
        assert_eq!((MaxAge::Any.stricter(long), long.stricter(MaxAge::Any)), (long, long));
        assert!(MaxAge::Any.admits(i64::MAX));
    }
}
