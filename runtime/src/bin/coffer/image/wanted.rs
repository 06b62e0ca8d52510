//! Which images a list has: words of Docker's. Pure.
//!
//! Source: `docker images`; Go's path.Match, as far as people write it.

use coffer_image::{Image, familiar};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::boxes::filters::label;
use crate::error::{Class, CliError};

/// What is wanted; values of one kind are alternatives, but for labels.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Names with `*` and `?`.
    references: Vec<String>,
    labels: Vec<(String, Option<String>)>,
    dangling: Option<bool>,
    /// Made before one of these, and after one of those.
    before: Vec<Of>,
    since: Vec<Of>,
}

/// An image that others are older or newer than, and when it was made.
#[derive(Clone, Debug)]
struct Of {
    name: String,
    made: Option<OffsetDateTime>,
}

const KEYS: &str =
    "filters are reference=NAME[:TAG], label=KEY[=VALUE], dangling=true|false, before=IMAGE and since=IMAGE";

impl Wanted {
    /// Reads a name and filters.
    ///
    /// # Errors
    /// Class `usage`.
    pub fn parse(name: Option<&str>, filters: &[String]) -> Result<Self, CliError> {
        let mut wanted = Self { references: name.map(of_people).into_iter().collect(), ..Self::default() };
        for text in filters {
            let invalid = || CliError::new(Class::Usage, format!("invalid filter '{text}'")).hint(KEYS);
            match text.split_once('=').ok_or_else(invalid)? {
                (_, "") => return Err(invalid()),
                ("reference", value) => wanted.references.push(of_people(value)),
                ("label", value) => wanted.labels.push(label(value)),
                ("before", value) => wanted.before.push(Of { name: value.into(), made: None }),
                ("since", value) => wanted.since.push(Of { name: value.into(), made: None }),
                ("dangling", value) => wanted.dangling = Some(value.parse().map_err(|_| invalid())?),
                _ => return Err(invalid()),
            }
        }
        Ok(wanted)
    }

    /// Asks when the images that filters name were made.
    ///
    /// # Errors
    /// What `find` gives.
    pub fn look_up(&mut self, find: impl Fn(&str) -> Result<Image, CliError>) -> Result<(), CliError> {
        for of in self.before.iter_mut().chain(&mut self.since) {
            of.made = made(&find(&of.name)?);
        }
        Ok(())
    }

    /// Whether nothing was said.
    pub fn is_all(&self) -> bool {
        self.references.is_empty()
            && self.labels.is_empty()
            && self.dangling.is_none()
            && self.before.is_empty()
            && self.since.is_empty()
    }

    /// Whether an image is one of them.
    pub fn admits(&self, image: &Image) -> bool {
        let labelled = |(key, wanted): &(String, Option<String>)| {
            image.config.labels.get(key).is_some_and(|value| wanted.as_ref().is_none_or(|wanted| wanted == value))
        };
        (self.references.is_empty() || self.references.iter().any(|pattern| is_named(pattern, image.familiar_name())))
            && self.labels.iter().all(labelled)
            && self.dangling.is_none_or(|dangling| dangling == image.is_unnamed())
            && is_between(&self.before, &self.since, made(image))
    }
}

/// When an image was made, by what it says itself.
fn made(image: &Image) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(image.config.created.as_deref()?, &Rfc3339).ok()
}

/// What does not say when it was made is neither before nor after anything.
fn is_between(before: &[Of], since: &[Of], made: Option<OffsetDateTime>) -> bool {
    let any = |of: &[Of], fits: fn(OffsetDateTime, OffsetDateTime) -> bool| {
        let one = |of: &Of| of.made.zip(made).is_some_and(|(of, made)| fits(made, of));
        of.is_empty() || of.iter().any(one)
    };
    any(before, |made, of| made < of) && any(since, |made, of| made > of)
}

fn of_people(pattern: &str) -> String {
    familiar(pattern).to_owned()
}

/// By all of the name, or by what stands before its tag or digest.
fn is_named(pattern: &str, name: &str) -> bool {
    let before = name.split('@').next().unwrap_or(name);
    let repository = match before.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => before,
    };
    matches(pattern.as_bytes(), name.as_bytes()) || matches(pattern.as_bytes(), repository.as_bytes())
}

/// `*` is any text and `?` any character, but for a `/`.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // Where to go on if this way ends: the last `*`, and what it stood for so far.
    let (mut at, mut of, mut back) = (0, 0, None);
    while of < text.len() {
        match (pattern.get(at), text.get(of)) {
            (Some(b'*'), _) => {
                back = Some((at, of));
                at += 1;
            }
            (Some(wanted), Some(found)) if wanted == found || *wanted == b'?' && *found != b'/' => {
                at += 1;
                of += 1;
            }
            _ => match back {
                Some((star, from)) if text.get(from) != Some(&b'/') => {
                    back = Some((star, from + 1));
                    (at, of) = (star + 1, from + 1);
                }
                _ => return false,
            },
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|rest| *rest == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_meant_with_and_without_its_tag_and_by_parts() {
        for (pattern, name, is) in [
            ("busybox", "busybox:latest", true),
            ("busybox:latest", "busybox:latest", true),
            ("busybox:1", "busybox:latest", false),
            ("busy", "busybox:latest", false),
            ("busy*", "busybox:latest", true),
            ("*box", "busybox:latest", true),
            ("b?sybox:l*t", "busybox:latest", true),
            ("team/*", "team/tools:1", true),
            ("*", "team/tools:1", false),
            ("*/*", "team/tools:1", true),
            ("localhost:5000/a", "localhost:5000/a", true),
            ("a", "a@sha256:00", true),
            ("*a*b*c", "xaxbxbxc:1", true),
            ("", "a", false),
        ] {
            assert_eq!(is_named(pattern, name), is, "{pattern} {name}");
        }
        assert_eq!(of_people("docker.io/library/busybox:1"), "busybox:1");
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for bad in ["bogus=1", "label", "label=", "dangling=maybe", "before=", "since="] {
            assert_eq!(Wanted::parse(None, &[bad.into()]).unwrap_err().class, Class::Usage, "{bad}");
        }
        assert!(Wanted::parse(None, &[]).unwrap().is_all());
        for some in ["dangling=true", "before=a", "since=a"] {
            assert!(!Wanted::parse(None, &[some.into()]).unwrap().is_all(), "{some}");
        }
    }

    #[test]
    fn an_image_is_older_or_newer_than_another_by_what_both_say() {
        let at = |seconds: i64| OffsetDateTime::from_unix_timestamp(seconds).ok();
        let of = |seconds: Option<i64>| [Of { name: "x".into(), made: seconds.and_then(at) }];
        for (before, since, made, is) in [
            (Some(10), None, Some(9), true),
            (Some(10), None, Some(10), false),
            (None, Some(10), Some(11), true),
            (None, Some(10), Some(10), false),
            (Some(20), Some(10), Some(15), true),
            (Some(20), Some(10), Some(20), false),
            (Some(20), Some(10), None, false),
        ] {
            let list = |seconds: Option<i64>| if seconds.is_some() { of(seconds).to_vec() } else { Vec::new() };
            assert_eq!(is_between(&list(before), &list(since), made.and_then(at)), is, "{before:?} {since:?} {made:?}");
        }
        assert!(!is_between(&of(None), &[], at(1)), "nobody knows when the other was made");
        assert!(is_between(&[], &[], None));
    }
}
