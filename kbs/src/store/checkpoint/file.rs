//! A checkpoint in a file: two slots, written in turn, so that a torn write leaves the one before. Its length never changes, so
//! that a full disk does not stop it.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use coffer_rim::{file::Writer, regular};

use super::{super::apart, CheckpointError, CheckpointKeeper};

/// In one file.
#[derive(Clone, Debug)]
pub struct FileCheckpoint {
    path: PathBuf,
}

/// What a slot holds, and how many were written before it.
struct Slot {
    turn: u64,
    bytes: Vec<u8>,
}

impl FileCheckpoint {
    /// In this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    async fn off_the_loop<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, CheckpointError> {
        let path = self.path.clone();
        let done = if apart::is_here() {
            work(&path)
        } else {
            tokio::task::spawn_blocking(move || work(&path)).await.unwrap_or_else(|error| Err(io::Error::other(error)))
        };
        done.map_err(|source| CheckpointError::File { path: self.path.clone(), source })
    }
}

#[tonic::async_trait]
impl CheckpointKeeper for FileCheckpoint {
    async fn kept(&self) -> Result<Option<Vec<Vec<u8>>>, CheckpointError> {
        let read = |path: &Path| regular::read(path, 2 * SLOT as u64);
        match self.off_the_loop(move |path| Ok(read(path))).await? {
            Ok(file) if is_one(&file) => Ok(Some(slots(&file).into_iter().flatten().map(|slot| slot.bytes).collect())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) if source.kind() != io::ErrorKind::FileTooLarge => {
                Err(CheckpointError::File { path: self.path.clone(), source })
            }
            _ => Err(CheckpointError::Another { place: self.place() }),
        }
    }

    async fn begin(&self, checkpoint: &[u8], replace: bool) -> Result<(), CheckpointError> {
        if replace {
            // What is something else is not replaced.
            self.kept().await?;
        }
        let mut file = slot(1, checkpoint);
        file.resize(2 * SLOT, 0);
        self.off_the_loop(move |path| {
            let writer = if replace { Writer::private() } else { Writer::private().new_only() };
            writer.write(path, &file)
        })
        .await
    }

    async fn keep(&self, checkpoint: &[u8]) -> Result<(), CheckpointError> {
        let checkpoint = checkpoint.to_vec();
        self.off_the_loop(move |path| {
            // Opened anew each time: a file that was moved away is missed at once, not at the next start.
            let file = regular::open(OpenOptions::new().read(true).write(true), path)?;
            // An archive that is made beside a server moves it too: one after the other. Where the file system knows no locks, two slots
            // still leave the newer of two.
            let until = std::time::Instant::now() + PATIENCE;
            while matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)) && std::time::Instant::now() < until
            {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            let mut found = vec![0; 2 * SLOT];
            file.read_exact_at(&mut found, 0)?;
            if !is_one(&found) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "is no checkpoint any more"));
            }
            let turns = slots(&found).map(|slot| slot.map_or(0, |slot| slot.turn));
            let (at, turn) = if turns[0] <= turns[1] { (0, turns[1]) } else { (SLOT, turns[0]) };
            file.write_all_at(&slot(turn.saturating_add(1), &checkpoint), at as u64)?;
            file.sync_data()
        })
        .await
    }

    async fn ready(&self) -> Result<(), CheckpointError> {
        self.off_the_loop(|path| {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut tried = tempfile::Builder::new().prefix(".coffer-kbs-checkpoint-").tempfile_in(parent)?;
            io::Write::write_all(&mut tried, &[0; 2 * SLOT])?;
            tried.as_file().sync_data()
        })
        .await
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

/// How long somebody else may hold the file: then it is written all the same.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);

fn slot(turn: u64, checkpoint: &[u8]) -> Vec<u8> {
    let mut slot = turn.to_be_bytes().to_vec();
    slot.extend_from_slice(&u16::try_from(checkpoint.len()).unwrap_or(0).to_be_bytes());
    slot.extend_from_slice(checkpoint);
    slot.resize(SLOT, 0);
    slot
}

/// True for a file that a keeper wrote, of whichever broker: as long as it is, with at least one slot that is whole.
fn is_one(file: &[u8]) -> bool {
    let whole = |slot: &[u8]| {
        let length = slot.get(8..10).map_or(0, |length| usize::from(u16::from_be_bytes([length[0], length[1]])));
        length > 0 && slot.get(10 + length..).is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
    };
    file.len() == 2 * SLOT && file.chunks(SLOT).any(whole)
}

fn slots(file: &[u8]) -> [Option<Slot>; 2] {
    let parse = |at: usize| {
        let slot = file.get(at..at + SLOT)?;
        let (turn, rest) = slot.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let bytes = rest.get(..usize::from(u16::from_be_bytes(*length)))?.to_vec();
        Some(Slot { turn: u64::from_be_bytes(*turn), bytes }).filter(|slot| !slot.bytes.is_empty())
    };
    [parse(0), parse(SLOT)]
}

/// One sector: written whole or not.
const SLOT: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_last_two_in_a_file_that_never_grows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint");
        let keeper = FileCheckpoint::new(&path);
        assert_eq!(keeper.kept().await.unwrap(), None);
        assert!(keeper.keep(b"nowhere").await.is_err(), "a file that is gone is not made again");
        keeper.begin(b"0", false).await.unwrap();
        assert!(keeper.begin(b"other", false).await.is_err());
        for number in 1..=5_u8 {
            keeper.keep(&[b'0' + number]).await.unwrap();
            let mut kept = keeper.kept().await.unwrap().unwrap();
            kept.sort();
            assert_eq!(kept, [vec![b'0' + number - 1], vec![b'0' + number]]);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 1024);
        }
        let mut torn = std::fs::read(&path).unwrap();
        torn.truncate(100);
        std::fs::write(&path, torn).unwrap();
        assert!(matches!(keeper.kept().await, Err(CheckpointError::Another { .. })));
        std::fs::remove_file(&path).unwrap();
        keeper.begin(b"again", true).await.unwrap();
        keeper.begin(b"and again", true).await.unwrap();
        assert_eq!(keeper.kept().await.unwrap().unwrap(), [b"and again".to_vec()]);
    }

    #[tokio::test]
    async fn what_is_no_checkpoint_is_neither_read_as_one_nor_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint");
        let keeper = FileCheckpoint::new(&path);
        let key = format!("{}\n", "ab".repeat(32)).into_bytes();
        let mut database = b"SQLite format 3\0".to_vec();
        database.resize(4096, 0);
        for other in
            [key, database, vec![0; 1024], b"package web\n".repeat(100)[..1024].to_vec(), Vec::new(), vec![7; 1024]]
        {
            std::fs::write(&path, &other).unwrap();
            assert!(matches!(keeper.kept().await, Err(CheckpointError::Another { .. })));
            assert!(matches!(keeper.begin(b"new", true).await, Err(CheckpointError::Another { .. })));
            assert!(keeper.keep(b"new").await.is_err());
            assert_eq!(std::fs::read(&path).unwrap(), other);
        }
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(matches!(keeper.kept().await, Err(CheckpointError::File { .. })));
        assert!(keeper.keep(b"new").await.is_err());
    }
}
