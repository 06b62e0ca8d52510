//! When something ends, if it does: that it never does is a variant, not a number.

use core::fmt;

use crate::unix_time::UnixTime;

/// The end of a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expiry {
    /// It has none.
    Never,
    /// From this moment on it permits nothing.
    At(UnixTime),
}

/// Seconds that are no expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expiry {0} lies before 1970")]
pub struct ExpiryError(pub i64);

impl Expiry {
    /// From how it is stored and sent: seconds since 1970, and 0 where there is none.
    ///
    /// # Errors
    /// [`ExpiryError`] for a negative number.
    pub const fn from_secs(seconds: i64) -> Result<Self, ExpiryError> {
        match seconds {
            0 => Ok(Self::Never),
            ..0 => Err(ExpiryError(seconds)),
            _ => Ok(Self::At(UnixTime::from_secs(seconds))),
        }
    }

    /// How it is stored and sent. An end in or before 1970 is written as the first second after, which is as far in the
    /// past and is never taken for none.
    pub const fn to_secs(self) -> i64 {
        match self {
            Self::Never => 0,
            Self::At(UnixTime(seconds)) if seconds < 1 => 1,
            Self::At(UnixTime(seconds)) => seconds,
        }
    }

    /// True from the end on.
    pub fn is_over(self, now: UnixTime) -> bool {
        match self {
            Self::Never => false,
            Self::At(end) => end <= now,
        }
    }
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("never"),
            Self::At(end) => end.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_is_no_moment_and_no_moment_is_never() {
        assert_eq!(Expiry::from_secs(0), Ok(Expiry::Never));
        assert_eq!(Expiry::from_secs(-1), Err(ExpiryError(-1)));
        assert_eq!(Expiry::from_secs(5), Ok(Expiry::At(UnixTime(5))));
        assert!(!Expiry::Never.is_over(UnixTime(i64::MAX)));
        assert!(Expiry::At(UnixTime(5)).is_over(UnixTime(5)) && !Expiry::At(UnixTime(5)).is_over(UnixTime(4)));
        for end in [i64::MIN, -1, 0, 1, 2] {
            let back = Expiry::from_secs(Expiry::At(UnixTime(end)).to_secs()).unwrap();
            assert!(matches!(back, Expiry::At(_)), "{end}");
        }
        assert_eq!(Expiry::Never.to_string(), "never");
    }
}
