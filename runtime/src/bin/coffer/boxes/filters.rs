//! What `--filter` and its like are told: words of Docker's. Pure.

use coffer_runtime::BoxState;
use coffer_runtime::engine::{Filter, Port};
use coffer_runtime::health::HealthStatus;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Class, CliError};

/// Reads the filters of a list of boxes.
///
/// # Errors
/// Class `usage`, for a key that is none in particular.
pub fn boxes(texts: &[String]) -> Result<Filter, CliError> {
    let mut filter = Filter::default();
    for text in texts {
        let invalid = || CliError::new(Class::Usage, format!("invalid filter '{text}'")).hint(KEYS);
        match text.split_once('=').ok_or_else(invalid)? {
            (_, "") => return Err(invalid()),
            ("name", value) => filter.names.push(value.into()),
            ("id", value) => filter.ids.push(value.into()),
            ("status", value) => filter.states.push(BoxState::from_word(value).ok_or_else(invalid)?),
            ("label", value) => filter.labels.push(label(value)),
            ("exited", value) => filter.exits.push(value.parse().map_err(|_| invalid())?),
            ("ancestor", value) => filter.images.push(value.into()),
            ("before", value) => filter.before = Some(value.into()),
            ("since", value) => filter.since = Some(value.into()),
            ("health", "none") => filter.healths.push(None),
            ("health", value) => filter.healths.push(Some(HealthStatus::from_word(value).ok_or_else(invalid)?)),
            ("network", value) => filter.networks.push(value.into()),
            ("publish", value) => filter.ports.push(Port::OfHost(port(value).ok_or_else(invalid)?)),
            ("expose", value) => filter.ports.push(Port::OfBox(port(value).ok_or_else(invalid)?)),
            _ => return Err(invalid()),
        }
    }
    Ok(filter)
}

const KEYS: &str = "filters are name=TEXT, id=PREFIX, status=created|running|paused|restarting|exited|dead|removed, label=KEY[=VALUE], \
                    exited=CODE, ancestor=IMAGE, before=BOX, since=BOX, network=NAME, health=starting|healthy|unhealthy|none, publish=PORT and expose=PORT";

/// `KEY` or `KEY=VALUE`.
pub fn label(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((key, value)) => (key.into(), Some(value.into())),
        None => (text.into(), None),
    }
}

/// A port, with or without what is spoken there.
fn port(text: &str) -> Option<u16> {
    text.split('/').next()?.parse().ok()
}

/// A moment in Unix milliseconds: RFC 3339, a date, seconds since 1970, or a time before `now`, such as `10m` or `1h30m`.
///
/// # Errors
/// Class `usage`.
pub fn moment(text: &str, now: i64) -> Result<i64, CliError> {
    Ok(moment_nanos(text, now.saturating_mul(1_000_000))?.div_euclid(1_000_000))
}

/// The same in nanoseconds.
///
/// # Errors
/// Class `usage`.
pub fn moment_nanos(text: &str, now: i64) -> Result<i64, CliError> {
    let of = |time: OffsetDateTime| i64::try_from(time.unix_timestamp_nanos()).ok();
    let at = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok().and_then(of);
    let read = at(text)
        .or_else(|| at(&format!("{text}Z")))
        .or_else(|| at(&format!("{text}T00:00:00Z")))
        .or_else(|| seconds(text))
        .or_else(|| ago(text).and_then(|ago| now.checked_sub(ago.checked_mul(1_000_000)?)));
    read.ok_or_else(|| {
        CliError::new(Class::Usage, format!("invalid time {text:?}"))
            .hint("write a moment such as 2026-01-31T12:00:00Z, seconds since 1970, or a time ago such as 10m or 1h30m")
    })
}

/// `1700000000` or `1700000000.25`.
fn seconds(text: &str) -> Option<i64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.len() <= 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return None;
    }
    let nanos = format!("{part:0<9}").get(..9)?.parse::<i64>().ok()?;
    whole.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// Milliseconds of a length of time in Go's form: numbers, each with its unit.
pub fn ago(text: &str) -> Option<i64> {
    let (mut total, mut rest) = (0_i64, text);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = rest.split_at(digits);
        let letters = behind.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, behind) = behind.split_at(letters);
        let unit = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(unit)?)?;
        rest = behind;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_filters_and_states_are_refused() {
        for bad in [
            "bogus=1",
            "status=nosuch",
            "name",
            "name=",
            "id=",
            "status=",
            "exited=x",
            "publish=x",
            "expose=70000",
            "label=",
            "health=well",
        ] {
            assert_eq!(boxes(&[bad.into()]).err().unwrap().class, Class::Usage, "{bad}");
        }
        let both = boxes(&["status=exited".into(), "status=created".into(), "name=a".into()]).unwrap();
        assert_eq!((both.states.len(), both.names.as_slice(), both.ids.len()), (2, &["a".to_owned()][..], 0));
        let more = ["label=a=b", "label=c", "exited=3", "publish=8080/tcp", "expose=80", "before=web"];
        let more = boxes(&more.map(String::from)).unwrap();
        assert_eq!(more.labels, [("a".into(), Some("b".into())), ("c".into(), None)]);
        assert_eq!((more.exits, more.before.as_deref()), (vec![3], Some("web")));
        assert_eq!(more.ports, [Port::OfHost(8080), Port::OfBox(80)]);
    }

    #[test]
    fn moments_are_read_in_each_of_their_forms() {
        let now = 1_000_000_000;
        for (text, moment_ms) in [
            ("1970-01-01T00:00:02Z", 2000),
            ("1970-01-01T01:00:02+01:00", 2000),
            ("1970-01-01T00:00:02.5", 2500),
            ("1970-01-02", 86_400_000),
            ("12", 12_000),
            ("12.25", 12_250),
            ("10m", now - 600_000),
            ("1h30m", now - 5_400_000),
            ("0s", now),
        ] {
            assert_eq!(moment(text, now).unwrap(), moment_ms, "{text}");
        }
        for bad in ["", "m", "10", "1x", "-5m", "yesterday", "1h30", "99999999999999999999s", "9223372036854775807d"] {
            let read = moment(bad, now);
            assert!(bad == "10" || read.is_err_and(|error| error.class == Class::Usage), "{bad}");
        }
    }
}
