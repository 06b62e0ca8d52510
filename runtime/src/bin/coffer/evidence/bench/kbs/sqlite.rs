//! One durable commit and one checkpoint write that a release cannot avoid: a database and a checkpoint with the settings of the
//! broker's, in files of its own in the same folder.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use rusqlite::{Connection, params};

use super::super::figures::micros;
use crate::error::{Class, Classify as _, CliError};

/// Both, and what goes into them.
pub struct Disk {
    database: Connection,
    checkpoint: File,
    line: Vec<u8>,
    number: u64,
}

impl Disk {
    pub fn new(folder: &Path) -> Result<Self, CliError> {
        let database = Connection::open(folder.join("yardstick.db")).class(Class::Config)?;
        let setup = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;
            CREATE TABLE rows (kind TEXT NOT NULL, key BLOB NOT NULL, body BLOB NOT NULL, mac BLOB NOT NULL,
                PRIMARY KEY (kind, key)) STRICT;";
        database.execute_batch(setup).class(Class::Config)?;
        let path = folder.join("yardstick.checkpoint");
        let checkpoint = OpenOptions::new().read(true).write(true).create_new(true).open(path).class(Class::Config)?;
        checkpoint.write_all_at(&[0; 1024], 0).and_then(|()| checkpoint.sync_all()).class(Class::Config)?;
        Ok(Self { database, checkpoint, line: vec![b'x'; 512], number: 0 })
    }

    /// Lines of this length.
    pub fn fit(&mut self, length: usize) {
        self.line = vec![b'x'; length];
    }

    /// Microseconds to make one line and a new head last.
    pub fn commit(&mut self) -> Result<f64, CliError> {
        self.number += 1;
        let start = Instant::now();
        let put = "INSERT OR REPLACE INTO rows (kind, key, body, mac) VALUES (?1, ?2, ?3, ?4)";
        self.database.execute_batch("BEGIN IMMEDIATE").class(Class::Config)?;
        for (kind, key, body) in
            [("audit-line", self.number.to_be_bytes().to_vec(), self.line.as_slice()), ("head", Vec::new(), &[7; 164])]
        {
            let mut statement = self.database.prepare_cached(put).class(Class::Config)?;
            statement.execute(params![kind, key, body, [9_u8; 32]]).class(Class::Config)?;
        }
        self.database.execute_batch("COMMIT").class(Class::Config)?;
        Ok(micros(start.elapsed()))
    }

    /// Microseconds to make a checkpoint last.
    pub fn checkpoint(&mut self) -> Result<f64, CliError> {
        let start = Instant::now();
        let at = (self.number % 2) * 512;
        let slot = [u8::try_from(self.number % 251).unwrap_or(0); 512];
        self.checkpoint.write_all_at(&slot, at).and_then(|()| self.checkpoint.sync_data()).class(Class::Config)?;
        Ok(micros(start.elapsed()))
    }
}
