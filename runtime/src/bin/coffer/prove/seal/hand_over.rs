//! Where the bytes go that a guest gives.
//!
//! A counter at the key broker moves before they are here. So their place is opened before the guest is asked, and what then
//! cannot be written there all the same is kept elsewhere: the file before opens no more.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coffer_rim::file::{self, Writer};
use coffer_rim::out;
use zeroize::Zeroizing;

use crate::error::{Class, Classify as _, CliError};

/// What a guest gave.
pub struct Given {
    pub bytes: Zeroizing<Vec<u8>>,
    /// There is a counter.
    pub rollback_protected: bool,
}

/// Where it goes.
pub struct Place<'a> {
    /// A file, or standard output.
    pub output: Option<&'a Path>,
    /// As a document.
    pub json: bool,
    /// It is sealed: it may be the only file that opens, and may be kept anywhere.
    pub sealed: bool,
    /// It is the first of its line: no file before it opens no more.
    pub first: bool,
    /// `$COFFER_HOME`.
    pub home: &'a Path,
}

impl Place<'_> {
    /// Has `ask` give the bytes, about `room` of them, once their place is there.
    ///
    /// # Errors
    /// Class `config` for the place; else what `ask` says.
    pub fn hand_over(&self, room: usize, ask: impl FnOnce() -> Result<Given, CliError>) -> Result<ExitCode, CliError> {
        match self.output {
            Some(path) => self.to_file(path, room, ask),
            None => self.to_output(ask),
        }?;
        Ok(ExitCode::SUCCESS)
    }

    fn to_file(&self, path: &Path, room: usize, ask: impl FnOnce() -> Result<Given, CliError>) -> Result<(), CliError> {
        let mut answer = None;
        let writer = Writer::private().into_pipes().room(room as u64);
        let written = writer.write_with(path, |file| match answer.insert(ask()) {
            Ok(given) => file.write_all(&given.bytes),
            Err(_) => Err(io::Error::other("there is nothing to write")),
        });
        let given = answer.transpose()?;
        let written = written.class_while(Class::Config, format!("cannot write {}", path.display()));
        let given = match (written, given) {
            (Ok(()), Some(given)) => given,
            (Err(failure), Some(given)) => return Err(self.kept(&given, failure)),
            (Err(failure), None) => return Err(failure),
            (Ok(()), None) => return Err(CliError::new(Class::Internal, "a file was written that nobody gave")),
        };
        if self.json {
            out::document(&serde_json::json!({
                "output": path, "bytes": given.bytes.len(), "rollback_protected": given.rollback_protected
            }));
        }
        Ok(())
    }

    fn to_output(&self, ask: impl FnOnce() -> Result<Given, CliError>) -> Result<(), CliError> {
        out::check().map_err(|error| out::unwritten(&error))?;
        let given = ask()?;
        let written = if self.json {
            // Not through a value of a document: it would leave copies of what may be a secret.
            let text = Zeroizing::new(STANDARD.encode(&given.bytes));
            let (bytes, protected) = (given.bytes.len(), given.rollback_protected);
            let rest = format!("\",\"bytes\":{bytes},\"rollback_protected\":{protected}}}\n");
            let parts = ["{\"base64\":\"", text.as_str(), rest.as_str()];
            parts.into_iter().try_for_each(|part| out::write_all(part.as_bytes()))
        } else {
            out::write_all(&given.bytes)
        };
        match written {
            Ok(()) => Ok(()),
            // Whoever reads what was opened may stop when they please.
            Err(gone) if !self.is_last(&given) && gone.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(self.kept(&given, out::unwritten(&error))),
        }
    }

    /// Nothing else of its line opens any more.
    fn is_last(&self, given: &Given) -> bool {
        self.sealed && given.rollback_protected
    }

    /// Keeps what cannot be written where it was to go, and says so.
    fn kept(&self, given: &Given, failure: CliError) -> CliError {
        if !self.is_last(given) {
            return failure;
        }
        let moved = format!("{}; the counter is at the new file already", failure.message);
        match file::write_anywhere(&[Path::new("."), self.home, Path::new("/var/tmp")], ".sealed", &given.bytes) {
            Ok(path) => CliError { message: format!("{moved}, which is kept as {}", path.display()), ..failure }.hint(
                if self.first {
                    "that file is the first of its line: keep it, the next one --replaces it"
                } else {
                    "that file takes the place of the one before, which opens no more"
                },
            ),
            Err(error) => CliError { message: format!("{moved}, and it cannot be kept either: {error}"), ..failure }
                .hint(if self.first {
                    "seal the plaintext anew, with --counted, where there is room for it"
                } else {
                    "the file before opens no more: seal the plaintext anew, with --counted"
                }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(rollback_protected: bool) -> Given {
        Given { bytes: Zeroizing::new(b"sealed".to_vec()), rollback_protected }
    }

    fn place<'a>(output: &'a Path, home: &'a Path) -> Place<'a> {
        Place { output: Some(output), json: false, sealed: true, first: false, home }
    }

    #[test]
    fn nothing_is_asked_for_what_has_no_place() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("there");
        std::fs::write(&there, "before").unwrap();
        let (none, link) = (folder.path().join("none/file"), folder.path().join("link"));
        std::os::unix::fs::symlink("there", &link).unwrap();
        for (output, room) in [(&none, 6), (&link, 6), (&there, 1 << 62), (&folder.path().to_path_buf(), 6)] {
            let mut asked = false;
            let refused = place(output, folder.path()).hand_over(room, || {
                asked = true;
                Ok(given(true))
            });
            let refused = refused.unwrap_err();
            assert!(!asked && refused.class == Class::Config && !refused.message.contains("counter"), "{refused:?}");
        }
        assert_eq!(std::fs::read(&there).unwrap(), b"before");
        place(&there, folder.path()).hand_over(6, || Ok(given(true))).unwrap();
        assert_eq!(std::fs::read(&there).unwrap(), b"sealed");
    }

    #[test]
    fn while_a_guest_is_asked_there_is_no_file_that_whoever_is_killed_would_leave() {
        let folder = tempfile::tempdir().unwrap();
        place(&folder.path().join("new"), folder.path())
            .hand_over(6, || {
                assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
                Ok(given(true))
            })
            .unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_guest_refuses_is_said_as_it_said_it_and_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("there");
        std::fs::write(&there, "before").unwrap();
        let refusal = || CliError::new(Class::Refused, "not-released");
        assert_eq!(place(&there, folder.path()).hand_over(6, || Err(refusal())).unwrap_err(), refusal());
        assert_eq!(std::fs::read(&there).unwrap(), b"before");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_only_file_that_opens_is_kept_where_its_place_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let full = Path::new("/dev/full");
        // Whatever else is kept would be another one's plaintext, or one of many.
        for (sealed, counted) in [(true, false), (false, true)] {
            let place = Place { sealed, ..place(full, folder.path()) };
            let failure = place.hand_over(6, || Ok(given(counted))).unwrap_err();
            assert!(!failure.message.contains("kept"), "{failure:?}");
        }
        let failure = place(full, folder.path()).hand_over(6, || Ok(given(true))).unwrap_err();
        let (_, path) = failure.message.split_once("which is kept as ").expect("it says where");
        assert_eq!(std::fs::read(path).unwrap(), b"sealed");
        std::fs::remove_file(path).unwrap();
        assert_eq!(failure.class, Class::Config);
        assert!(failure.hint.unwrap().contains("the one before"));
        let first = Place { first: true, ..place(full, folder.path()) };
        let failure = first.hand_over(6, || Ok(given(true))).unwrap_err();
        let (_, path) = failure.message.split_once("which is kept as ").expect("it says where");
        std::fs::remove_file(path).unwrap();
        let hint = failure.hint.unwrap();
        assert!(hint.contains("first of its line") && !hint.contains("before"), "{hint}");
    }
}
