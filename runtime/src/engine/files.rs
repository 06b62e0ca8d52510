//! Files in and out of a running box, and the programs in it: by programs of the agent's own.
//!
//! Trusts: nothing of what comes. A stream of files has a form and bounds of its own ([`coffer_rim::carry`]).

use coffer_guest_proto::exec_request::Message as Ask;
use coffer_guest_proto::exec_start::Own;
use coffer_guest_proto::{ExecStart, ListPrograms, ReadChanges, ReadFiles, ReadRoot, WriteFiles as Write};
use coffer_rim::carry::Source;
use coffer_spec::Act;

use super::exec::{ExecError, ExecSession};
use super::{Engine, Trust};

/// What is to be made in a box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteFiles {
    /// Where; from its root on, with or without a slash.
    pub to: Vec<u8>,
    /// What its own side calls it.
    pub source: Source,
    /// Users and groups are kept, by number.
    pub owners: bool,
}

/// As Docker reads it: a path of a box begins at its root.
fn absolute(path: &[u8]) -> Vec<u8> {
    if path.starts_with(b"/") { path.to_vec() } else { [b"/", path].concat() }
}

impl Engine {
    /// Reads what is at a path of a box; it comes as standard output. `follow`: where it is a link, what it leads to.
    ///
    /// # Errors
    /// [`ExecError`].
    pub async fn read_files(
        &self,
        word: &str,
        path: &[u8],
        follow: bool,
        trust: &Trust,
    ) -> Result<ExecSession, ExecError> {
        self.own(word, Act::Cp, Own::ReadFiles(ReadFiles { path: absolute(path), follow }), trust).await
    }

    /// Makes files in a box; they go to standard input.
    ///
    /// # Errors
    /// [`ExecError`].
    pub async fn write_files(&self, word: &str, what: WriteFiles, trust: &Trust) -> Result<ExecSession, ExecError> {
        let WriteFiles { to, source: Source { name, contents }, owners } = what;
        self.own(word, Act::Cp, Own::WriteFiles(Write { to: absolute(&to), name, contents, owners }), trust).await
    }

    /// Reads the root file system of a box, without what is mounted in it; it comes as standard output, a tar stream.
    ///
    /// # Errors
    /// [`ExecError`].
    pub async fn read_root(&self, word: &str, trust: &Trust) -> Result<ExecSession, ExecError> {
        self.own(word, Act::Cp, Own::ReadRoot(ReadRoot {}), trust).await
    }

    /// Reads what the root file system of a box has that its image has not; it comes as standard output: with `contents` a layer, which is a
    /// tar stream, else a word, a path and NUL for each.
    ///
    /// # Errors
    /// [`ExecError`].
    pub async fn read_changes(&self, word: &str, contents: bool, trust: &Trust) -> Result<ExecSession, ExecError> {
        self.own(word, Act::Cp, Own::ReadChanges(ReadChanges { contents }), trust).await
    }

    /// Lists the programs in a box; they come as standard output, one line of JSON for each.
    ///
    /// # Errors
    /// [`ExecError`].
    pub async fn list_programs(&self, word: &str, trust: &Trust) -> Result<ExecSession, ExecError> {
        self.own(word, Act::Top, Own::ListPrograms(ListPrograms {}), trust).await
    }

    async fn own(&self, word: &str, act: Act, own: Own, trust: &Trust) -> Result<ExecSession, ExecError> {
        self.begin(word, act, Ask::Start(ExecStart { own: Some(own), ..ExecStart::default() }), trust).await
    }
}
