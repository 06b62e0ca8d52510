//! Times as operators type and read them.

use coffer_verifier::{Expiry, UnixTime};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A moment after 1970, in seconds since then; RFC 3339.
pub fn parse_time(text: &str) -> Result<i64, String> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "expected a time like 2027-01-01T00:00:00Z")?;
    if moment.unix_timestamp() <= 0 { Err("expected a time after 1970".into()) } else { Ok(moment.unix_timestamp()) }
}

/// The same, written.
pub fn rfc3339(unix: i64) -> String {
    OffsetDateTime::from_unix_timestamp(unix).ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

/// When a rule ends, if it does.
pub fn expiry(seconds: Option<i64>) -> Expiry {
    seconds.map_or(Expiry::Never, |seconds| Expiry::At(UnixTime(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_and_not_before_1970() {
        assert_eq!(parse_time("1970-01-01T00:00:10Z"), Ok(10));
        assert!(parse_time("tomorrow").is_err());
        assert!(parse_time("1969-01-01T00:00:00Z").is_err());
    }
}
