//! The platform an image is wanted for. Guests are linux/amd64, and no other is taken.

use std::fmt;
use std::str::FromStr;

/// linux/amd64, of any level or of a certain one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Platform {
    /// Level of the architecture, such as `v3`; without one the plain one, or the lowest there is.
    variant: Option<String>,
}

/// A text names no platform that guests have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{}\" is no platform of a guest: linux/amd64, maybe with a level (linux/amd64/v3)",
    coffer_rim::Foreign(found)
)]
pub struct PlatformError {
    /// What stood there.
    pub found: String,
}

impl Platform {
    /// How well an entry of an index for this system, architecture and variant fits: less is better, `None` not at all.
    pub(crate) fn rank(&self, os: &str, architecture: &str, variant: Option<&str>) -> Option<String> {
        let variant = variant.unwrap_or_default();
        let fits =
            (os, architecture) == ("linux", "amd64") && self.variant.as_deref().is_none_or(|wanted| wanted == variant);
        fits.then(|| variant.to_owned())
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let error = || PlatformError { found: text.chars().take(80).collect() };
        let mut words = text.split('/');
        let (os, architecture, variant) = (words.next(), words.next(), words.next());
        let is_ours = os == Some("linux") && matches!(architecture, Some("amd64" | "x86_64" | "x86-64"));
        let is_level = |level: &str| matches!(level.as_bytes(), [b'v', b'1'..=b'4']);
        match variant {
            _ if !is_ours || words.next().is_some() => Err(error()),
            None | Some("v1") => Ok(Self { variant: None }),
            Some(level) if is_level(level) => Ok(Self { variant: Some(level.to_owned()) }),
            Some(_) => Err(error()),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("linux/amd64")?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_platform_is_taken_at_any_level() {
        for (text, shown) in
            [("linux/amd64", "linux/amd64"), ("linux/x86_64/v1", "linux/amd64"), ("linux/amd64/v3", "linux/amd64/v3")]
        {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), shown);
        }
        for text in
            ["", "linux", "amd64", "linux/arm64", "windows/amd64", "linux/amd64/v9", "linux/amd64/v3/x", "linux/amd64/"]
        {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_level_that_was_named_is_the_only_one_that_fits() {
        let any = Platform::default();
        assert!(any.rank("linux", "amd64", None) < any.rank("linux", "amd64", Some("v3")));
        assert_eq!(any.rank("linux", "arm64", None), None);
        let third: Platform = "linux/amd64/v3".parse().unwrap();
        assert!(third.rank("linux", "amd64", Some("v3")).is_some());
        assert_eq!(third.rank("linux", "amd64", None), None);
    }
}
