//! Rows in one SQLite file: a write-ahead log with `synchronous = FULL`, so that what was committed is on the disk before its
//! caller hears of it.
//!
//! The only file of the key broker with SQL. It also reads the tables of the formats before this one, as they lie there.
//! Trusts: nothing in the file. Believes: that the file system does what fsync promises.
//! Never: checks a MAC, knows what a row means, waits without an end.

mod beneath;
mod connection;
mod held;
mod room;
mod traces;

use std::{
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use beneath::Files;
use connection::{FORMAT, FORMAT_1, blocking, connect, format, patiently};
use held::{Held, Readers};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, StatementStatus, params};
use tokio::sync::Mutex;

use super::rows::{Intent, Kind, Row, Rows, RowsError, Traces, Transaction, Written};

/// Rows in a file.
pub struct SqliteRows {
    /// The one that writes.
    connection: Arc<Mutex<Connection>>,
    readers: Arc<Readers>,
    files: Arc<Files>,
    log: PathBuf,
}

/// What opening found.
pub enum Opened {
    /// Rows, as this version writes them.
    Current(SqliteRows),
    /// The tables of an earlier version, and the transaction that will hold their successors.
    Old {
        /// The store, once the transaction is committed.
        rows: SqliteRows,
        /// What lies there.
        tables: Box<OldTables>,
        /// In it the old tables are gone, and there are no rows yet.
        transaction: Box<dyn Transaction>,
    },
    /// Rows of format 3, whose head has no epoch, and the transaction that will hold a new head.
    Format3 {
        /// The store, once the transaction is committed.
        rows: SqliteRows,
        /// In it the format is this version's.
        transaction: Box<dyn Transaction>,
    },
}

/// What lies in a file that was asked under the write lock.
enum Found {
    Current,
    Format3,
    Tables(Box<OldTables>),
}

/// What becomes of a database of an earlier format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// Somebody said by name that it is the newest there is: it is brought to this version's format.
    Named,
    /// It is refused: nothing in it says that no newer one was served here.
    Refused,
}

impl From<rusqlite::Error> for RowsError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Malformed(Box::new(error)),
            _ => Self::Failed(Box::new(error)),
        }
    }
}

impl SqliteRows {
    /// Makes a new file; fails if it is there.
    ///
    /// # Errors
    /// [`RowsError`].
    pub fn create(path: &Path) -> Result<Self, RowsError> {
        // SQLite gives its log files the mode of the database file.
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(RowsError::File)?;
        let connection = patiently(|| connect(path))?;
        connection.execute_batch(SCHEMA)?;
        connection.pragma_update(None, "user_version", FORMAT)?;
        ready(&connection)?;
        Self::over(connection, path)
    }

    fn over(connection: Connection, path: &Path) -> Result<Self, RowsError> {
        let files = Arc::new(Files::of(path)?);
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let (connection, readers) = (Arc::new(Mutex::new(connection)), Arc::new(Readers::new(path.into())));
        Ok(Self { connection, readers, files, log: log.into() })
    }

    /// A connection for this, and how it begins.
    async fn hold(&self, intent: Intent) -> Result<(Held, &'static str), RowsError> {
        self.files.are_there()?;
        Ok(match intent {
            Intent::Read => (self.readers.take().await?, "BEGIN DEFERRED"),
            Intent::Write => (Held::writer(self.connection.clone().lock_owned().await), "BEGIN IMMEDIATE"),
        })
    }

    /// Copies a database as of one moment into a new file; others may go on writing to it.
    ///
    /// # Errors
    /// [`RowsError`].
    pub async fn snapshot(from: &Path, into: &Path) -> Result<(), RowsError> {
        let (from, into) = (from.to_owned(), into.to_owned());
        blocking(move || {
            // The copy is private from its first byte.
            std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&into)
                .map_err(RowsError::File)?;
            let connection = patiently(|| connect(&from))?;
            let name = into.to_str().ok_or_else(|| RowsError::File(std::io::ErrorKind::InvalidInput.into()))?;
            connection.execute("VACUUM INTO ?1", [name])?;
            std::fs::File::open(&into).and_then(|file| file.sync_all()).map_err(RowsError::File)
        })
        .await
    }

    /// Opens an existing file.
    ///
    /// # Errors
    /// [`RowsError::Format`], [`RowsError::Old`], [`RowsError::Schema`], [`RowsError::Durability`] or [`RowsError::Failed`].
    pub async fn open(path: &Path, upgrade: Upgrade) -> Result<Opened, RowsError> {
        let (file, before) = (path.to_owned(), Files::identity(path));
        let connection = blocking(move || patiently(|| connect(&file))).await?;
        let rows = Self::over(connection, path)?;
        rows.files.begin_with(before)?;
        let mut held = Held::writer(rows.connection.clone().lock_owned().await);
        // Asked without a lock: a format only ever goes up, and what is old is asked again below.
        let found = held.run(format).await?;
        if (FORMAT_1..FORMAT).contains(&found) {
            if upgrade == Upgrade::Refused {
                return Err(RowsError::Old { found });
            }
            held.run(|connection| Ok(connection.execute_batch("BEGIN IMMEDIATE")?)).await?;
            let tables = held
                .run(|connection| {
                    // Another process may have been faster.
                    let found = format(connection)?;
                    if found == FORMAT {
                        return Ok(Found::Current);
                    }
                    if found == FORMAT_3 {
                        schema_is_ours(connection)?;
                        connection.pragma_update(None, "user_version", FORMAT)?;
                        return Ok(Found::Format3);
                    }
                    let tables = OldTables::read(connection, found)?;
                    connection.execute_batch(DROP_OLD)?;
                    connection.execute_batch(SCHEMA)?;
                    connection.pragma_update(None, "user_version", FORMAT)?;
                    Ok(Found::Tables(Box::new(tables)))
                })
                .await?;
            let files = rows.files.clone();
            let transaction = |held| Box::new(SqliteTransaction { held, files });
            match tables {
                Found::Tables(tables) => return Ok(Opened::Old { rows, tables, transaction: transaction(held) }),
                Found::Format3 => return Ok(Opened::Format3 { rows, transaction: transaction(held) }),
                Found::Current => held.run(|connection| Ok(connection.execute_batch("ROLLBACK")?)).await?,
            }
        }
        held.run(|connection| {
            let found = format(connection)?;
            if found == FORMAT { ready(connection) } else { Err(RowsError::Format { found, expected: FORMAT }) }
        })
        .await?;
        drop(held);
        Ok(Opened::Current(rows))
    }
}

#[tonic::async_trait]
impl Rows for SqliteRows {
    async fn begin(&self, intent: Intent) -> Result<Box<dyn Transaction>, RowsError> {
        let (mut held, begin) = self.hold(intent).await?;
        held.run(move |connection| Ok(connection.execute_batch(begin)?)).await?;
        Ok(Box::new(SqliteTransaction { held, files: self.files.clone() }))
    }

    async fn begin_with(
        &self,
        intent: Intent,
        kind: Kind,
        key: &[u8],
    ) -> Result<(Box<dyn Transaction>, Option<Row>), RowsError> {
        let ((mut held, begin), key) = (self.hold(intent).await?, key.to_vec());
        let work = move |connection: &Connection| {
            connection.execute_batch(begin)?;
            row(connection, kind, &key)
        };
        let row = held.run(work).await?;
        Ok((Box::new(SqliteTransaction { held, files: self.files.clone() }), row))
    }

    fn are_there(&self) -> Result<(), RowsError> {
        self.files.are_there()
    }

    fn leave_reserve(&self) -> Result<(), RowsError> {
        room::leaves_reserve(self.files.database())
    }

    async fn overwrite(&self, traces: Traces) -> Result<(), RowsError> {
        traces::overwrite(&self.connection, &self.log, traces).await
    }
}

struct SqliteTransaction {
    held: Held,
    files: Arc<Files>,
}

#[tonic::async_trait]
impl Transaction for SqliteTransaction {
    async fn get(&mut self, kind: Kind, key: &[u8]) -> Result<Option<Row>, RowsError> {
        let key = key.to_vec();
        self.held.run(move |connection| row(connection, kind, &key)).await
    }

    async fn put(&mut self, kind: Kind, key: &[u8], row: Row) -> Result<(), RowsError> {
        self.write(vec![(kind, key.to_vec(), Some(row))]).await
    }

    async fn remove(&mut self, kind: Kind, key: &[u8]) -> Result<(), RowsError> {
        self.write(vec![(kind, key.to_vec(), None)]).await
    }

    async fn write(&mut self, rows: Vec<Written>) -> Result<(), RowsError> {
        self.held.run(move |connection| put(connection, rows)).await
    }

    async fn from(&mut self, kind: Kind, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Row)>, RowsError> {
        let from = from.to_vec();
        self.held
            .run(move |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT key, body, mac FROM rows WHERE kind = ?1 AND key >= ?2 ORDER BY key LIMIT ?3",
                )?;
                let rows = statement
                    .query_map(params![kind.name(), from, i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
                        Ok((row.get(0)?, Row { body: row.get(1)?, mac: row.get(2)? }))
                    })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    async fn commit(self: Box<Self>) -> Result<(), RowsError> {
        self.commit_with(Vec::new()).await
    }

    async fn commit_with(mut self: Box<Self>, rows: Vec<Written>) -> Result<(), RowsError> {
        let files = self.files.clone();
        let work = move |connection: &Connection| {
            put(connection, rows)?;
            files.are_there()?;
            commit(connection)
        };
        self.held.run(work).await
    }
}

fn row(connection: &Connection, kind: Kind, key: &[u8]) -> Result<Option<Row>, RowsError> {
    let mut statement = connection.prepare_cached("SELECT body, mac FROM rows WHERE kind = ?1 AND key = ?2")?;
    let row = statement.query_row(params![kind.name(), key], |row| Ok(Row { body: row.get(0)?, mac: row.get(1)? }));
    Ok(row.optional()?)
}

fn put(connection: &Connection, rows: Vec<Written>) -> Result<(), RowsError> {
    for (kind, key, row) in rows {
        // SQLite takes back a whole transaction after some failures: nothing is written outside of one.
        if connection.is_autocommit() {
            return Err(RowsError::Failed("the transaction was rolled back".into()));
        }
        let mut statement = connection.prepare_cached(if row.is_some() { PUT } else { REMOVE })?;
        let changed = match &row {
            Some(Row { body, mac }) => statement.execute(params![kind.name(), key, body, mac])?,
            None => statement.execute(params![kind.name(), key])?,
        };
        // Compiled anew: somebody has changed the schema since it was looked at.
        if statement.reset_status(StatementStatus::RePrepare) != 0 {
            schema_is_ours(connection)?;
        }
        let there =
            if row.is_some() { changed == 1 } else { changed > 0 || self::row(connection, kind, &key)?.is_none() };
        if !there {
            return Err(RowsError::Failed("a row was not written, and nothing said why".into()));
        }
    }
    Ok(())
}

fn commit(connection: &Connection) -> Result<(), RowsError> {
    Ok(connection.execute_batch("COMMIT")?)
}

/// Looks at the schema, and compiles what writes against just that.
fn ready(connection: &Connection) -> Result<(), RowsError> {
    connection.flush_prepared_statement_cache();
    let transaction = connection.unchecked_transaction()?;
    schema_is_ours(&transaction)?;
    drop((transaction.prepare_cached(PUT)?, transaction.prepare_cached(REMOVE)?));
    Ok(transaction.commit()?)
}

/// A trigger, a view or another index could act on its own, or answer in place of the rows.
fn schema_is_ours(connection: &Connection) -> Result<(), RowsError> {
    let mut statement = connection.prepare("SELECT type, name, coalesce(sql, '') FROM sqlite_schema ORDER BY name")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (kind, name, sql): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let ours = match (kind.as_str(), name.as_str()) {
            ("table", "rows") => sql.trim() == SCHEMA.trim().trim_end_matches(';'),
            ("index", "sqlite_autoindex_rows_1") => true,
            _ => false,
        };
        if !ours {
            return Err(RowsError::Schema { what: format!("{kind} {name}") });
        }
    }
    Ok(())
}

/// The tables of formats 1 and 2, unread: every value as SQLite has it.
#[derive(Default)]
pub struct OldTables {
    /// tenant, path, version, deleted, mac
    pub secret_heads: Vec<(String, String, i64, i64, Vec<u8>)>,
    /// Every version of every secret.
    pub secret_versions: Vec<OldVersion>,
    /// tenant, measurement, workload, name, expires, mac
    pub references: Vec<OldReference>,
    /// Signer rules.
    pub signers: Vec<OldSigner>,
    /// tenant, SPKI digest, name, public key, mac
    pub manifest_keys: Vec<OldManifestKey>,
    /// Manifests.
    pub manifests: Vec<OldManifest>,
    /// sequence, line, mac
    pub audit_lines: Vec<(i64, String, Vec<u8>)>,
    /// sequence, hash, mac
    pub audit_head: Option<(i64, Vec<u8>, Vec<u8>)>,
}

/// A row of `reference_pairs`.
pub type OldReference = (String, Vec<u8>, Vec<u8>, String, i64, Vec<u8>);
/// A row of `manifest_keys`.
pub type OldManifestKey = (String, Vec<u8>, String, Vec<u8>, Vec<u8>);

/// A row of `secret_versions`.
pub struct OldVersion {
    pub tenant: String,
    pub path: String,
    pub version: i64,
    pub allow_simulated: bool,
    pub policy: String,
    pub created_unix: i64,
    pub salt: Vec<u8>,
    pub nonce: Vec<u8>,
    pub ciphertext: Vec<u8>,
}

/// A row of `signers`.
pub struct OldSigner {
    pub tenant: String,
    pub name: String,
    pub author_key: Vec<u8>,
    pub family_id: Vec<u8>,
    pub image_id: Vec<u8>,
    pub minimum_guest_svn: i64,
    pub expires_unix: i64,
    pub mac: Vec<u8>,
}

/// A row of `manifests`.
pub struct OldManifest {
    pub tenant: String,
    pub name: String,
    pub sequence: i64,
    pub revoked_through: i64,
    pub workload: Vec<u8>,
    pub envelope: Vec<u8>,
    pub added_unix: i64,
    pub mac: Vec<u8>,
}

impl OldTables {
    fn read(connection: &Connection, format: i64) -> Result<Self, RowsError> {
        let mut all = Self {
            secret_heads: every(connection, "SELECT * FROM secret_heads ORDER BY tenant, path", |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            })?,
            secret_versions: every(
                connection,
                "SELECT * FROM secret_versions ORDER BY tenant, path, version",
                |row| {
                    Ok(OldVersion {
                        tenant: row.get(0)?,
                        path: row.get(1)?,
                        version: row.get(2)?,
                        allow_simulated: row.get(3)?,
                        policy: row.get(4)?,
                        created_unix: row.get(5)?,
                        salt: row.get(6)?,
                        nonce: row.get(7)?,
                        ciphertext: row.get(8)?,
                    })
                },
            )?,
            references: every(
                connection,
                "SELECT * FROM reference_pairs ORDER BY tenant, measurement, workload",
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?)),
            )?,
            audit_lines: every(connection, "SELECT * FROM audit_lines ORDER BY sequence", |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?,
            audit_head: connection
                .query_row("SELECT sequence, hash, mac FROM audit_head WHERE only = 1", [], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
                .optional()?,
            ..Self::default()
        };
        if format == FORMAT_1 {
            return Ok(all);
        }
        all.signers = every(connection, "SELECT * FROM signers ORDER BY tenant, name", |row| {
            Ok(OldSigner {
                tenant: row.get(0)?,
                name: row.get(1)?,
                author_key: row.get(2)?,
                family_id: row.get(3)?,
                image_id: row.get(4)?,
                minimum_guest_svn: row.get(5)?,
                expires_unix: row.get(6)?,
                mac: row.get(7)?,
            })
        })?;
        all.manifest_keys = every(connection, "SELECT * FROM manifest_keys ORDER BY tenant, spki_sha256", |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        })?;
        all.manifests = every(connection, "SELECT * FROM manifests ORDER BY tenant, name", |row| {
            Ok(OldManifest {
                tenant: row.get(0)?,
                name: row.get(1)?,
                sequence: row.get(2)?,
                revoked_through: row.get(3)?,
                workload: row.get(4)?,
                envelope: row.get(5)?,
                added_unix: row.get(6)?,
                mac: row.get(7)?,
            })
        })?;
        Ok(all)
    }
}

fn every<T>(
    connection: &Connection,
    sql: &str,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, RowsError> {
    Ok(connection.prepare(sql)?.query_map([], read)?.collect::<Result<_, _>>()?)
}

const PUT: &str = "INSERT OR REPLACE INTO rows (kind, key, body, mac) VALUES (?1, ?2, ?3, ?4)";
const REMOVE: &str = "DELETE FROM rows WHERE kind = ?1 AND key = ?2";
const FORMAT_3: i64 = 3;
const SCHEMA: &str = "
CREATE TABLE rows (
    kind TEXT NOT NULL, key BLOB NOT NULL, body BLOB NOT NULL, mac BLOB NOT NULL,
    PRIMARY KEY (kind, key)
) STRICT;
";
const DROP_OLD: &str = "
DROP TABLE secret_heads; DROP TABLE secret_versions; DROP TABLE reference_pairs;
DROP TABLE audit_lines; DROP TABLE audit_head;
DROP TABLE IF EXISTS signers; DROP TABLE IF EXISTS manifest_keys; DROP TABLE IF EXISTS manifests;
";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whatever_could_act_on_its_own_or_answer_for_the_rows_is_refused_by_name() {
        for (sql, name) in [
            (
                "CREATE TRIGGER busy AFTER DELETE ON rows BEGIN INSERT INTO rows VALUES ('k', x'', x'', x''); END",
                "busy",
            ),
            ("CREATE TRIGGER back BEFORE UPDATE ON rows BEGIN SELECT raise(IGNORE); END", "back"),
            ("CREATE VIEW other AS SELECT * FROM rows", "other"),
            ("CREATE INDEX fast ON rows (mac)", "fast"),
            ("CREATE TABLE more (x)", "more"),
            ("DROP TABLE rows; CREATE VIEW rows AS SELECT '' AS kind, x'' AS key, x'' AS body, x'' AS mac", "rows"),
            ("ALTER TABLE rows ADD COLUMN more TEXT", "rows"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("kbs.db");
            drop(SqliteRows::create(&path).unwrap());
            assert!(matches!(SqliteRows::open(&path, Upgrade::Refused).await, Ok(Opened::Current(_))));
            Connection::open(&path).unwrap().execute_batch(sql).unwrap();
            match SqliteRows::open(&path, Upgrade::Refused).await {
                Err(RowsError::Schema { what }) => assert!(what.ends_with(name), "{sql}: {what}"),
                Err(other) => panic!("{sql}: {other}"),
                Ok(_) => panic!("{sql}: opened"),
            }
        }
    }

    /// A row is written while somebody plants things beneath, and then looked for.
    async fn written_beside(planted: &str) -> (Result<(), RowsError>, bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kbs.db");
        drop(SqliteRows::create(&path).unwrap());
        let Ok(Opened::Current(rows)) = SqliteRows::open(&path, Upgrade::Refused).await else { panic!("not opened") };
        let put = async |key: u8| {
            let mut transaction = rows.begin(Intent::Write).await?;
            transaction.put(Kind::AuditLine, &[key], Row { body: vec![key], mac: vec![key] }).await?;
            transaction.commit().await
        };
        put(1).await.unwrap();
        Connection::open(&path).unwrap().execute_batch(planted).unwrap();
        let said = put(2).await;
        let there =
            Connection::open(&path)
                .unwrap()
                .query_row("SELECT count(*) FROM rows WHERE key = x'02'", [], |row| row.get(0));
        (said, there == Ok(1))
    }

    #[tokio::test]
    async fn what_is_planted_while_it_is_open_neither_acts_nor_takes_a_write() {
        for planted in [
            "CREATE TRIGGER t BEFORE INSERT ON rows WHEN new.kind LIKE 'audit%' BEGIN SELECT raise(IGNORE); END",
            "CREATE TRIGGER t AFTER INSERT ON rows BEGIN DELETE FROM rows WHERE key = new.key; END",
            "CREATE VIEW other AS SELECT * FROM rows",
            "ALTER TABLE rows RENAME TO kept; CREATE VIEW rows AS SELECT * FROM kept; \
             CREATE TRIGGER t INSTEAD OF INSERT ON rows BEGIN SELECT 1; END",
            "ALTER TABLE rows RENAME TO kept; CREATE VIRTUAL TABLE rows USING fts5(kind, key, body, mac, content = 'kept')",
            "CREATE TABLE more (x)",
        ] {
            let (said, there) = written_beside(planted).await;
            assert!(matches!(said, Err(RowsError::Schema { .. } | RowsError::Failed(_))), "{planted}: {said:?}");
            assert!(!there, "{planted}: nothing of a transaction that failed is kept");
        }
        // What leaves the schema as it was stops nothing.
        for harmless in ["", "ANALYZE; DROP TABLE sqlite_stat1; DROP TABLE sqlite_stat4; VACUUM"] {
            let (said, there) = written_beside(harmless).await;
            assert!(said.is_ok() && there, "{harmless}: {said:?}");
        }
    }
}
