//! Files and standard input that a person names: read whole, and never more of them than could be meant. A device that never
//! ends, or a disk image given by mistake, is refused after that much. A pipe that this process was handed (`<(…)`, `/dev/stdin`) is
//! waited for, one that lies somewhere is not: nobody may ever write to it. What merely lies in a folder is opened only where it is a
//! regular file (`crate::regular`).

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Read};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// More than any document has: specs, policies, manifests, keys, lists, certificates.
pub const DOCUMENT: u64 = 4 << 20;
/// More than any firmware image has.
pub const FIRMWARE: u64 = 64 << 20;

/// A whole file.
///
/// # Errors
/// As [`open`], and [`io::ErrorKind::FileTooLarge`] for one that is longer than `most` bytes.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    all(open(path)?, most)
}

/// Opens one that a person names.
///
/// # Errors
/// The file system's, and one for a folder, and for a pipe that this process was not handed.
pub fn open(path: &Path) -> io::Result<File> {
    // A pipe that nobody writes to would be waited for at its opening.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a folder, and a file is due"));
    }
    if kind.is_fifo() && !is_handed(path) {
        return Err(io::Error::other("is a pipe, and a file is due"));
    }
    if !kind.is_file() {
        rustix::fs::fcntl_setfl(&file, OFlags::empty())?;
    }
    Ok(file)
}

/// It names one of this process's own open files.
fn is_handed(path: &Path) -> bool {
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    path == Path::new("/dev/stdin") || folder.is_some_and(|folder| folder.starts_with("/proc"))
}

/// What is said of a file that a person names: `-` is standard input.
pub fn name(path: &Path) -> Cow<'_, str> {
    if path == Path::new("-") { "standard input".into() } else { path.to_string_lossy() }
}

/// A whole file of text.
///
/// # Errors
/// As [`read`], and [`io::ErrorKind::InvalidData`] for what is not UTF-8.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    let text = String::from_utf8(read(path, most)?);
    text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "is not UTF-8 text"))
}

/// What is done with a file of a folder, by its name: read, passed over, or refused with why.
pub type Wanted<'a> = dyn Fn(&str) -> Result<bool, &'static str> + 'a;

/// Texts of a folder, and of folders in it, whose names are `wanted`, in the order of their paths; each at most `most` bytes long, `files`
/// of them. What is wanted and cannot be read is an error, and so is a link to a folder: nothing that is wanted is passed over. A link to
/// a file is read as the file. Of a folder as Kubernetes mounts it (`..data`), what the links lead to is read, once.
///
/// # Errors
/// As [`read_text`], with the path before it; [`io::ErrorKind::FileTooLarge`] for more files, or folders too deep in each other.
pub fn texts_below(folder: &Path, wanted: &Wanted<'_>, most: u64, files: usize) -> io::Result<Vec<(PathBuf, String)>> {
    let read = |(path, text): (PathBuf, io::Result<String>)| match text {
        Ok(text) => Ok((path, text)),
        Err(error) => Err(of(&path, &error)),
    };
    each_below(folder, wanted, most, files)?.into_iter().map(read).collect()
}

/// The same, with why one of them cannot be read beside its path.
///
/// # Errors
/// As [`texts_below`], of folders.
pub fn each_below(
    folder: &Path,
    wanted: &Wanted<'_>,
    most: u64,
    files: usize,
) -> io::Result<Vec<(PathBuf, io::Result<String>)>> {
    let mut all = Vec::new();
    collect(folder, wanted, (most, files, DEPTH), &mut all)?;
    Ok(all)
}

fn of(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn collect(
    folder: &Path,
    wanted: &Wanted<'_>,
    (most, files, depth): (u64, usize, usize),
    all: &mut Vec<(PathBuf, io::Result<String>)>,
) -> io::Result<()> {
    let too_many = |what: String| io::Error::new(io::ErrorKind::FileTooLarge, format!("{}: {what}", folder.display()));
    let depth = depth.checked_sub(1).ok_or_else(|| too_many("folders lie too deep in each other".into()))?;
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| of(folder, &error))? {
        let entry = entry.map_err(|error| of(folder, &error))?;
        entries.push((entry.path(), entry.file_type().map_err(|error| of(folder, &error))?));
    }
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    let is_mounted = entries.iter().any(|(path, kind)| kind.is_symlink() && path.ends_with("..data"));
    for (path, kind) in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if is_mounted && name.starts_with("..") {
            continue;
        }
        if kind.is_dir() {
            collect(&path, wanted, (most, files, depth), all)?;
            continue;
        }
        let bad = |why: &str| Some(Err(io::Error::new(io::ErrorKind::InvalidInput, why)));
        let leads_to = if kind.is_symlink() { path.metadata().ok().map(|there| there.file_type()) } else { Some(kind) };
        let text = match (wanted(&name), leads_to) {
            (_, Some(there)) if there.is_dir() => bad("is a link to a folder, which is not followed"),
            (Ok(false), _) => None,
            (Err(why), _) => bad(why),
            (Ok(true), Some(there)) if !there.is_file() => bad("is no regular file"),
            (Ok(true), _) => Some(read_text(&path, most)),
        };
        if let Some(text) = text {
            if all.len() == files {
                return Err(too_many(format!("more than {files} files")));
            }
            all.push((path, text));
        }
    }
    Ok(())
}

/// Folders within each other.
const DEPTH: usize = 16;

/// All that a reader gives.
///
/// # Errors
/// As [`read`].
pub fn all(from: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("is longer than {most} bytes")));
    }
    Ok(bytes)
}

/// Lines of text, each with its end where it has one, so that nobody takes the beginning of one for a whole. One that is longer than `most`
/// bytes, or no text, is an error and the last: a device may never end a line.
pub fn lines(mut from: impl BufRead, most: u64) -> impl Iterator<Item = io::Result<String>> {
    let mut ended = false;
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        let read = if ended { Ok(0) } else { from.by_ref().take(most + 1).read_until(b'\n', &mut line) };
        let result = match read {
            Ok(0) => return None,
            Ok(_) if line.len() as u64 > most => Err(bad("a line is longer than any that belongs there")),
            Ok(_) => String::from_utf8(line).map_err(|_| bad("is not UTF-8 text")),
            Err(error) => Err(error),
        };
        ended = result.is_err();
        Some(result)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_is_refused_after_as_much_as_could_be_meant() {
        let error = read(Path::new("/dev/zero"), 4096).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (io::ErrorKind::FileTooLarge, "is longer than 4096 bytes")
        );
        assert_eq!(all(io::repeat(7).take(4096), 4096).unwrap(), [7; 4096]);
        assert_eq!(read_text(Path::new("/dev/zero"), 9).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"\xff").unwrap();
        assert_eq!(read_text(file.path(), 9).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_pipe_is_waited_for_where_it_was_handed_on_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(read(&pipe, 9).unwrap_err().to_string(), "is a pipe, and a file is due");
        assert_eq!(read(folder.path(), 9).unwrap_err().to_string(), "is a folder, and a file is due");
        let (reader, mut writer) = io::pipe().unwrap();
        let handed = PathBuf::from(format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader)));
        let late = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            io::Write::write_all(&mut writer, b"word").unwrap();
        });
        assert_eq!(read(&handed, 9).unwrap(), b"word");
        late.join().unwrap();
        assert_eq!((name(Path::new("-")), name(Path::new("a"))), ("standard input".into(), "a".into()));
    }

    #[test]
    fn nothing_that_is_wanted_of_a_folder_is_passed_over() {
        let wanted = |name: &str| match name {
            "bad" => Err("is never read"),
            name => Ok(name.strip_suffix(".rego").is_some()),
        };
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, at(name)).unwrap();
        let found = || -> Vec<_> {
            let all = each_below(folder.path(), &wanted, 9, 9).unwrap();
            let said = |text: io::Result<String>| text.unwrap_or_else(|error| error.to_string());
            let name = |path: &Path| path.strip_prefix(folder.path()).unwrap().display().to_string();
            all.into_iter().map(|(path, text)| (name(&path), said(text))).collect()
        };
        let is = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        std::fs::write(elsewhere.path().join("b"), "b").unwrap();
        std::fs::create_dir(at("in")).unwrap();
        std::fs::write(at("in/a.rego"), "a").unwrap();
        std::fs::write(at("other"), "passed over").unwrap();
        link(&elsewhere.path().join("b"), "b.rego");
        assert_eq!(found(), [is("b.rego", "b"), is("in/a.rego", "a")]);
        assert!(std::process::Command::new("mkfifo").arg(at("c.rego")).status().unwrap().success());
        link(elsewhere.path(), "d");
        std::fs::write(at("bad"), "").unwrap();
        link(Path::new("nowhere"), "e.rego");
        let said = found();
        assert_eq!(said[1], is("bad", "is never read"));
        assert_eq!(said[2], is("c.rego", "is no regular file"));
        assert_eq!(said[3], is("d", "is a link to a folder, which is not followed"));
        assert!(said[4].0 == "e.rego" && said[4].1.contains("No such file"), "{said:?}");
        assert!(texts_below(folder.path(), &wanted, 9, 9).unwrap_err().to_string().contains("bad: is never read"));
    }

    #[test]
    fn a_folder_as_kubernetes_mounts_it_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("..2026_09_20")).unwrap();
        std::fs::write(at("..2026_09_20/a.rego"), "a").unwrap();
        std::os::unix::fs::symlink("..2026_09_20", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/a.rego", at("a.rego")).unwrap();
        let all = texts_below(folder.path(), &|name| Ok(name.strip_suffix(".rego").is_some()), 9, 9).unwrap();
        assert_eq!(all, [(at("a.rego"), "a".to_owned())]);
    }

    #[test]
    fn a_line_has_its_end_or_is_the_last_and_none_is_without_one() {
        let all: Vec<_> = lines(&b"one\r\n\nlast"[..], 9).map(Result::unwrap).collect();
        assert_eq!(all, ["one\r\n", "\n", "last"]);
        let mut endless = lines(io::BufReader::new(io::repeat(0)), 9);
        assert_eq!(endless.next().unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(endless.next().is_none());
        assert!(lines(&[0xff, b'\n'][..], 9).next().unwrap().is_err());
    }
}
