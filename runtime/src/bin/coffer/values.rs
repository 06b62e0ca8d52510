//! Values of flags. Empty is not absent: no command takes an empty value but where it has a meaning, and that is listed here.

use std::ffi::OsStr;
use std::path::Path;

use clap::ArgMatches;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use coffer_image::Platform;

/// Arguments that may be empty, by their ids; from which of their values on; and why.
pub const MAY_BE_EMPTY: &[(&str, usize, &str)] = &[
    ("words", 1, "behind image or box: words of the workload's program, which are none of our business"),
    ("entrypoint", 0, "the empty one takes the image's away, as Docker has it"),
];

const EMPTY: &str = "it must not be empty";

/// Looks through everything that was given on the command line, of every command, so that no flag can be forgotten.
///
/// # Errors
/// As the parser's own, naming the argument.
pub fn check(parser: &mut clap::Command, matches: &ArgMatches) -> Result<(), clap::Error> {
    let refused = parser.get_arguments().find_map(|arg| {
        let id = arg.get_id().as_str();
        let given = matches.try_get_raw(id).ok().flatten()?;
        let defaulted = matches.value_source(id) == Some(ValueSource::DefaultValue);
        let why = given.filter(|_| !defaulted).enumerate().find_map(|(at, value)| why_not(id, at, value))?;
        Some(format!("invalid value {} for '{arg}': {}", why.0, why.1))
    });
    if let Some(message) = refused {
        return Err(parser.error(ErrorKind::ValueValidation, message));
    }
    match matches.subcommand().and_then(|(name, inner)| Some((parser.find_subcommand_mut(name)?, inner))) {
        Some((parser, matches)) => check(parser, matches),
        None => Ok(()),
    }
}

/// The value as it is shown, and what is wrong with it.
fn why_not(id: &str, at: usize, value: &OsStr) -> Option<(String, &'static str)> {
    if value.is_empty() && !MAY_BE_EMPTY.iter().any(|(name, from, _)| *name == id && at >= *from) {
        return Some(("''".into(), EMPTY));
    }
    let text = value.to_string_lossy();
    let is_ours = || text.parse::<Platform>().is_ok();
    if id == "platform" && is_docker_platform(&text) && !Path::new(value).exists() && !is_ours() {
        return Some((
            format!("'{text}'"),
            "guests are linux/amd64, and so are their images (or it names a folder with the guest's kernel)",
        ));
    }
    None
}

/// Whether somebody means what Docker's `--platform` means, one of an image's: `linux/amd64`, `linux/arm64/v8`.
fn is_docker_platform(text: &str) -> bool {
    let mut words = text.split('/');
    let (os, architecture) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let known = ["amd64", "x86_64", "arm64", "aarch64", "arm", "386", "ppc64le", "s390x", "riscv64"];
    matches!(os, "linux" | "windows" | "darwin" | "freebsd") && known.contains(&architecture)
}

#[cfg(test)]
mod every_argument;

#[cfg(test)]
mod tests {
    use super::*;

    fn check_line(line: &[&str]) -> Result<(), String> {
        let mut parser = crate::parser::parser();
        let matches = parser.try_get_matches_from_mut(line).map_err(|error| error.to_string())?;
        check(&mut parser, &matches).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_value_is_refused_by_the_name_of_its_flag() {
        let error = check_line(&["coffer", "run", "--name", "", "busybox"]).unwrap_err();
        assert!(error.starts_with("error: invalid value '' for '--name <NAME>': it must not be empty"), "{error}");
        let error = check_line(&["coffer", "stop", "one", ""]).unwrap_err();
        assert!(error.contains("''") && error.contains("BOX"), "{error}");
        assert_eq!(check_line(&["coffer", "run", "--entrypoint", "", "busybox", "echo", ""]), Ok(()));
        let error = check_line(&["coffer", "run", "", "echo"]).unwrap_err();
        assert!(error.contains("''") && error.contains("IMAGE"), "{error}");
    }

    #[test]
    fn an_image_platform_is_not_taken_for_a_folder() {
        let said = |platform: &str| check_line(&["coffer", "run", "--platform", platform, "busybox"]);
        for word in ["linux/amd64/v9", "linux/arm64/v8", "windows/amd64"] {
            let error = said(word).unwrap_err();
            assert!(error.contains("guests are linux/amd64"), "{error}");
        }
        for word in ["linux/amd64", "linux/x86_64", "linux/amd64/v3"] {
            assert_eq!(said(word), Ok(()), "{word}");
        }
        for folder in ["/srv/platform", "linux/platform", "/srv/amd64", "target/release/platform"] {
            assert_eq!(said(folder), Ok(()), "{folder}");
        }
    }
}
