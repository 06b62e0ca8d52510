//! One story's world: a scratch folder, a COFFER_HOME in it, and the `coffer` command.

use std::{path::PathBuf, process::Command};

use anyhow::Result;
use tempfile::TempDir;

use crate::process::{Finished, binary, run};

/// Scratch folder and home. Boxes left in it are removed with it.
#[derive(Debug)]
pub struct World {
    /// The scratch folder.
    pub folder: TempDir,
    coffer: PathBuf,
    /// The platform folder used.
    pub platform: PathBuf,
}

impl World {
    /// A new, empty world.
    ///
    /// # Errors
    /// If `coffer` or its platform was not built.
    pub fn new() -> Result<Self> {
        let coffer = binary("coffer")?;
        let platform = coffer.with_file_name("platform");
        anyhow::ensure!(platform.join("platform.json").exists(), "no guest platform; run `make platform`");
        Ok(Self { folder: tempfile::Builder::new().prefix("coffer-").tempdir()?, coffer, platform })
    }

    /// COFFER_HOME.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// A `coffer` command with this world's home.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.coffer);
        command.env("COFFER_HOME", self.home()).env("COFFER_PLATFORM", &self.platform).args(arguments);
        command
    }

    /// Runs `coffer` to its end.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn coffer(&self, arguments: &[&str]) -> Result<Finished> {
        run(&mut self.command(arguments), b"")
    }

    /// Runs `coffer` to its end with standard input.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn coffer_with(&self, arguments: &[&str], input: &[u8]) -> Result<Finished> {
        run(&mut self.command(arguments), input)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Ok(list) = self.coffer(&["ps", "-aq"]) {
            for id in list.stdout.split_whitespace() {
                let _ = self.coffer(&["rm", "-f", id]);
            }
        }
    }
}
