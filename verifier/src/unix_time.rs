//! Time as an argument: seconds since 1970, without leap seconds.

use core::fmt;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A point in time, given by the caller; the verifier reads no clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(into = "String")]
pub struct UnixTime(pub i64);

/// Text is not an RFC 3339 time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time such as 2026-09-20T00:00:00Z")]
pub struct TimeError;

impl UnixTime {
    /// From seconds since 1970.
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds)
    }

    /// From RFC 3339 text.
    ///
    /// # Errors
    /// [`TimeError`].
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        OffsetDateTime::parse(text, &Rfc3339).map(|time| Self(time.unix_timestamp())).map_err(|_| TimeError)
    }
}

impl From<std::time::SystemTime> for UnixTime {
    fn from(time: std::time::SystemTime) -> Self {
        let seconds = match time.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
        };
        Self(seconds)
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 32];
        let written = OffsetDateTime::from_unix_timestamp(self.0).ok().and_then(|time| {
            let length = time.format_into(&mut text.as_mut_slice(), &Rfc3339).ok()?;
            core::str::from_utf8(&text[..length]).ok()
        });
        match written {
            Some(text) => f.write_str(text),
            None => write!(f, "{} s", self.0),
        }
    }
}

impl From<UnixTime> for String {
    fn from(time: UnixTime) -> Self {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_it_parses() {
        let time = UnixTime::parse("2026-09-20T00:00:00Z").unwrap();
        assert_eq!(time, UnixTime(1_789_862_400));
        assert_eq!(time.to_string(), "2026-09-20T00:00:00Z");
        assert_eq!(UnixTime(i64::MAX).to_string(), format!("{} s", i64::MAX));
        assert_eq!(UnixTime::parse("yesterday"), Err(TimeError));
    }
}
