//! Moves old lines of the audit trail out of a state folder into a file that proves itself, also beside a running server.
//!
//! First the file is written and lasts, then the database records which lines are in it, then they are removed: cut off at any
//! moment, the lines are in the database, in the file, or in both. What policies saw of their decisions goes with them.
//! Trusts: the root key. Believes a file only as far as its chain leads to the database's record.
//! Never: archives a trail that does not hold; removes a line that is not in a file which lasts.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use coffer_kbs_client::trail::{Chain, ChainError, End};
use coffer_rim::file::Writer;
use sha2::{Digest as _, Sha256};

use crate::{
    checkpoint_place,
    clock::Clock,
    state::{StateError, kept_its_owners, open_store},
    store::{Archive, ArchiveFile, Store, StoreError, TrailStart, rfc3339},
};

/// Why nothing was archived, or archives do not hold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// State folder or store.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file the broker lives by.
    #[error("archive {path} {why}")]
    Place {
        /// Where the archive was to be written.
        path: PathBuf,
        /// What is there.
        why: String,
    },
    /// A file.
    #[error("archive {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No line is that old, or so few are there.
    #[error(
        "there is nothing to archive: the trail in the database begins with line {first} and ends with line {last}"
    )]
    Nothing {
        /// First line there.
        first: u64,
        /// Last line there.
        last: u64,
    },
    /// Somebody else archived at the same time.
    #[error("the trail was archived by somebody else meanwhile: nothing was removed")]
    Overtaken,
    /// Lines that are no chain.
    #[error("archive {path} does not hold")]
    Chain {
        /// Which.
        path: PathBuf,
        /// Where.
        #[source]
        source: ChainError,
    },
    /// A file of other lines, of another broker or another history.
    #[error("archive {path} has lines {first} to {last}, which are no archive that this database knows")]
    Unknown {
        /// Which.
        path: PathBuf,
        /// First line in it.
        first: u64,
        /// Last line in it.
        last: u64,
    },
    /// The lines hold, and the file is not the one that was written.
    #[error("archive {path} is not as it was written: it has SHA-256 {found}, the database recorded {expected}")]
    Changed {
        /// Which.
        path: PathBuf,
        /// SHA-256 of it, hex.
        found: String,
        /// SHA-256 recorded, hex.
        expected: String,
    },
    /// The same lines twice.
    #[error("lines {first} to {last} were given twice, the second time as {path}")]
    Twice {
        /// Which.
        path: PathBuf,
        /// First line in it.
        first: u64,
        /// Last line in it.
        last: u64,
    },
    /// A file is not there.
    #[error("the archive of lines {first} to {last} is missing{}", .name.as_ref().map(|name| format!(": it was written as {name}")).unwrap_or_default())]
    Missing {
        /// First line in it.
        first: u64,
        /// Last line in it.
        last: u64,
        /// Its name when it was written.
        name: Option<String>,
    },
    /// A copy of the log says something else about a line that is archived.
    #[error("line {0} of the log is not in the archives")]
    Log(u64),
}

impl ArchiveError {
    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::State(error) => error.hint(),
            Self::Place { .. } => "name a file outside the state folder",
            Self::File { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
                "name another file; one that was cut off before its lines were removed is not known to `coffer-kbs audit verify --archive` and can go"
            }
            Self::File { .. } => "check the path, its permissions and free space; the database is as it was",
            Self::Nothing { .. } => "take a later --before, or a smaller --keep",
            Self::Overtaken => "look at what is there with `coffer-kbs audit verify --state DIR`, and ask again",
            Self::Chain { .. } | Self::Changed { .. } | Self::Unknown { .. } => {
                "find out who changed it, and take another copy of the archive"
            }
            Self::Twice { .. } => "give each archive once",
            Self::Missing { .. } => "give every archive with --archive; without any, the database alone is looked at",
            Self::Log(_) => "this database was set back or is another, or the copy was changed: find out who did it",
        }
    }

    fn of(error: StoreError) -> Self {
        Self::State(error.into())
    }
}

/// Which lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those before the first that is not older than this second.
    Before(i64),
    /// All but the last ones.
    AllBut(u64),
}

/// What was archived.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ArchiveSummary {
    /// Number of the first line in the file.
    pub first: u64,
    /// Number of the last.
    pub last: u64,
    /// SHA-256 of the last, hex.
    pub head: String,
    /// Inputs of policies in it.
    pub inputs: u64,
    /// SHA-256 of the file, hex.
    pub sha256: String,
    /// The line that the trail has for it.
    #[serde(skip)]
    pub line: String,
}

/// Archives what [`Reach`] says into a new file.
///
/// # Errors
/// [`ArchiveError`]; then no line was removed. Where the answer to the commit was lost, the file stays.
pub async fn archive(folder: &Path, reach: Reach, out: &Path) -> Result<ArchiveSummary, ArchiveError> {
    if let Some(why) = checkpoint_place::objection(folder, out, []) {
        return Err(ArchiveError::Place { path: out.into(), why });
    }
    let _kept = kept_its_owners(folder);
    let store = std::sync::Arc::new(open_store(folder).await?);
    // Of an archive that was cut off.
    store.remove_archived().await.map_err(ArchiveError::of)?;
    let start = store.read().await.map_err(ArchiveError::of)?.trail_start();
    let (events, from, path) = (tokio::runtime::Handle::current(), store.clone(), out.to_owned());
    let writing = tokio::task::spawn_blocking(move || {
        let mut filled = None;
        let written = Writer::private().new_only().write_with(&path, |file| {
            filled = Some(events.block_on(fill(&from, start, reach, (&path, file))));
            match &filled {
                Some(Ok(_)) => Ok(()),
                _ => Err(io::Error::other("the trail could not be read")),
            }
        });
        match (filled, written) {
            (Some(Err(error)), _) => Err(error),
            (_, Err(source)) => Err(ArchiveError::File { path, source }),
            (Some(Ok(filled)), Ok(())) => Ok(filled),
            (None, Ok(())) => Err(ArchiveError::Overtaken),
        }
    });
    let Filled { end, inputs, sha256, file } =
        writing.await.map_err(|error| ArchiveError::of(StoreError::interrupted(error)))??;
    let now = Clock::system().now();
    let name = out.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let recorded = Archive {
        first: end.first,
        last: end.lines,
        head: bytes(&end.head),
        file: Some(ArchiveFile { name, sha256, at_unix: now }),
    };
    let line = match store.record_archive(&recorded, now).await {
        Ok(Some(line)) => line,
        Ok(None) => return Err(taken_back(out, file, ArchiveError::Overtaken)),
        Err(_) if store.has_archive(&recorded).await.is_ok_and(|is_there| is_there) => String::new(),
        // What a commit that failed left may still come to count: the file stays in any case.
        Err(error) => {
            tracing::warn!(file = %out.display(), "the file stays: keep it until `coffer-kbs audit verify` says what is archived");
            return Err(ArchiveError::of(error));
        }
    };
    store.remove_archived().await.map_err(ArchiveError::of)?;
    Ok(ArchiveSummary { first: end.first, last: end.lines, head: end.head, inputs, sha256: hex::encode(sha256), line })
}

/// Takes the file of an archive that did not happen away again, if it is still that one.
fn taken_back(out: &Path, file: (u64, u64), error: ArchiveError) -> ArchiveError {
    let is_it = std::fs::symlink_metadata(out).is_ok_and(|there| (there.dev(), there.ino()) == file);
    if is_it && let Err(error) = std::fs::remove_file(out) {
        tracing::warn!(%error, file = %out.display(), "the file of an archive that did not happen is still there");
    }
    error
}

struct Filled {
    end: End,
    inputs: u64,
    sha256: [u8; 32],
    /// Device and inode.
    file: (u64, u64),
}

/// Writes the lines that go.
async fn fill(
    store: &Store,
    start: TrailStart,
    reach: Reach,
    (path, file): (&Path, &mut File),
) -> Result<Filled, ArchiveError> {
    let there = file.metadata().map_err(|source| ArchiveError::File { path: path.to_owned(), source })?;
    let mut out = Hashed { out: BufWriter::new(file), hash: Sha256::new() };
    let written = |source| ArchiveError::File { path: path.to_owned(), source };
    let mut chain = Chain::after(start.archived, &hex::encode(start.hash), None);
    let (mut at, mut inputs, mut last) = (start, 0, None);
    let mut whole;
    'trail: loop {
        let stretch = store.lines_to_archive(at).await.map_err(ArchiveError::of)?;
        // What is written meanwhile stays.
        whole = stretch.end;
        let end = *last.get_or_insert(match reach {
            Reach::Before(_) => stretch.end,
            Reach::AllBut(kept) => stretch.end.saturating_sub(kept),
        });
        if stretch.lines.is_empty() {
            break;
        }
        for (number, time, line, input) in stretch.lines {
            let goes = number <= end && !matches!(reach, Reach::Before(until) if time >= rfc3339(until));
            if !goes {
                break 'trail;
            }
            chain.next(&line).map_err(|source| ArchiveError::Chain { path: path.to_owned(), source })?;
            writeln!(out, "{line}").map_err(written)?;
            if let Some(input) = input {
                inputs += 1;
                writeln!(out, "{}", text(&input)).map_err(written)?;
            }
            at = TrailStart { archived: number, hash: bytes(&chain.end().head) };
        }
    }
    if at == start {
        return Err(ArchiveError::Nothing { first: start.archived + 1, last: whole });
    }
    let end = chain.end();
    writeln!(out, "{}", text(&end)).and_then(|()| out.flush()).map_err(written)?;
    Ok(Filled { end, inputs, sha256: out.hash.finalize().into(), file: (there.dev(), there.ino()) })
}

/// Archives that were looked at with their database.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ArchivesSummary {
    /// Number of files.
    pub files: u64,
    /// Lines in them.
    pub lines: u64,
    /// Lines of a log that was compared with them.
    pub compared: u64,
}

/// Checks archives against the records of their database: each line of each, that none is missing, and with `log` that each of these
/// lines of a log is in them.
///
/// # Errors
/// [`ArchiveError`] names the first that does not hold.
pub async fn verify_archives(
    store: &Store,
    files: &[PathBuf],
    log: &BTreeMap<u64, [u8; 32]>,
) -> Result<ArchivesSummary, ArchiveError> {
    let mut known = BTreeMap::new();
    for archive in store.read().await.map_err(ArchiveError::of)?.archives().await.map_err(ArchiveError::of)? {
        let archive = archive.map_err(ArchiveError::of)?;
        known.insert((archive.first, archive.last), (archive, false));
    }
    let (mut summary, mut left) = (ArchivesSummary::default(), log.clone());
    for path in files {
        let (end, sha256, gap) = looked_through(path, &mut left)?;
        let (first, last) = (end.first, end.lines);
        let unknown = || ArchiveError::Unknown { path: path.clone(), first, last };
        let (archive, given) = known.get_mut(&(first, last)).ok_or_else(unknown)?;
        if bytes(&end.head) != archive.head {
            return Err(unknown());
        }
        if std::mem::replace(given, true) {
            return Err(ArchiveError::Twice { path: path.clone(), first, last });
        }
        if let Some(file) = archive.file.as_ref().filter(|file| file.sha256 != sha256) {
            let (found, expected) = (hex::encode(sha256), hex::encode(file.sha256));
            return Err(ArchiveError::Changed { path: path.clone(), found, expected });
        }
        // What lies before a gap hangs from the line that accepts it, or from the whole file as it was recorded.
        if let (None, Some(line)) = (&archive.file, gap) {
            return Err(ArchiveError::Chain { path: path.clone(), source: ChainError::Lost(line) });
        }
        summary.files += 1;
        summary.lines += last - first + 1;
    }
    if let Some((archive, _)) = known.into_values().find(|(_, given)| !given) {
        let Archive { first, last, file, .. } = archive;
        return Err(ArchiveError::Missing { first, last, name: file.map(|file| file.name) });
    }
    match left.first_key_value() {
        Some((line, _)) => Err(ArchiveError::Log(*line)),
        None => Ok(ArchivesSummary { compared: log.len() as u64, ..summary }),
    }
}

/// Checks one file by itself. Takes out of `log` what is in it. Gives its end, its SHA-256, and a gap that it leaves open.
fn looked_through(
    path: &Path,
    log: &mut BTreeMap<u64, [u8; 32]>,
) -> Result<(End, [u8; 32], Option<u64>), ArchiveError> {
    let at = |source| ArchiveError::File { path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(at)?);
    let mut hash = Sha256::new();
    let bad = |what: &str| Either::Read(io::Error::new(io::ErrorKind::InvalidData, what));
    let lines = std::iter::from_fn(|| {
        let mut line = Vec::new();
        match reader.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(read) if read as u64 == LONGEST => Some(Err(bad("a line is longer than any of a trail"))),
            Ok(_) => {
                hash.update(&line);
                let text = std::str::from_utf8(line.strip_suffix(b"\n").unwrap_or(&line)).map(str::to_owned);
                Some(text.map_err(|_| bad("a line is no text")))
            }
            Err(error) => Some(Err(Either::Read(error))),
        }
    });
    let mut chain = Chain::anywhere(None);
    let found = chain.file(lines, |line| {
        if log.is_empty() {
            return;
        }
        let digest: [u8; 32] = Sha256::digest(line).into();
        let digits: String =
            line.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        if let Ok(number) = digits.parse::<u64>()
            && log.get(&number) == Some(&digest)
        {
            log.remove(&number);
        }
    });
    match found {
        Ok(end) => Ok((end, hash.finalize().into(), chain.open_gap())),
        Err(Either::Read(source)) => Err(at(source)),
        Err(Either::Chain(source)) => Err(ArchiveError::Chain { path: path.to_owned(), source }),
    }
}

enum Either {
    Read(io::Error),
    Chain(ChainError),
}

impl From<ChainError> for Either {
    fn from(error: ChainError) -> Self {
        Self::Chain(error)
    }
}

/// Counts what goes through into a digest.
struct Hashed<W> {
    out: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// One line of JSON.
fn text(value: &impl serde::Serialize) -> String {
    // Of texts and numbers alone: that cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}

/// A hash that this program wrote as hex.
fn bytes(hash: &str) -> [u8; 32] {
    hex::decode(hash).ok().and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()
}

/// Longest line of a file that is looked at, in bytes: an input is longer than any line of the trail.
const LONGEST: u64 = 1024 * 1024;
