//! One story's world: a scratch folder, a COFFER_HOME in it, and the `coffer` command.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::{
    monitors::Monitor,
    process::{Finished, binary, run},
};

/// Scratch folder and home. Boxes left in it are removed with it.
#[derive(Debug)]
pub struct World {
    /// The scratch folder.
    pub folder: TempDir,
    coffer: PathBuf,
    /// The platform folder used.
    pub platform: PathBuf,
    /// What every box of it runs on, where it is not for `coffer` to choose.
    monitor: Option<Monitor>,
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
        Ok(Self { folder: tempfile::Builder::new().prefix("coffer-").tempdir()?, coffer, platform, monitor: None })
    }

    /// A new, empty world, whose boxes all run on this monitor.
    ///
    /// # Errors
    /// If `coffer` or its platform was not built.
    pub fn on(monitor: Monitor) -> Result<Self> {
        let mut world = Self::new()?;
        world.monitor = Some(monitor);
        Ok(world)
    }

    /// What stands on the console of a box from the moment its workload runs, without `coffer: `.
    ///
    /// # Errors
    /// If anything stands there that is no word of the agent's.
    pub fn console_words(&self, name: &str) -> Result<Vec<String>> {
        let list: serde_json::Value = serde_json::from_str(&self.coffer(&["inspect", name])?.ok()?)?;
        let folder = list[0]["Folder"].as_str().context("a folder")?;
        let console = std::fs::read(std::path::Path::new(folder).join("console.log"))?;
        let console = String::from_utf8_lossy(&console).into_owned();
        let lines = console.lines().map(str::trim_end).skip_while(|line| *line != "coffer: running");
        let word = |line: &str| {
            let word = line.strip_prefix("coffer: ")?;
            word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-').then(|| word.to_owned())
        };
        let words = lines.filter(|line| !line.is_empty()).map(|line| word(line).with_context(|| console.clone()));
        words.collect()
    }

    /// COFFER_HOME.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// The root file systems of its images.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub fn roots(&self) -> Result<Vec<PathBuf>> {
        let (mut folders, mut found) = (vec![self.home().join("images")], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "erofs") {
                    found.push(path);
                }
            }
        }
        Ok(found)
    }

    /// A `coffer` command with this world's home.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.coffer);
        command.env("COFFER_HOME", self.home()).env("COFFER_PLATFORM", &self.platform);
        // Behind the command's word, where that is one that takes it.
        let at = arguments.iter().position(|word| !word.starts_with('-')).map_or(0, |first| first + 1);
        let (command_word, rest) = arguments.split_at(at);
        command.args(command_word);
        if let (Some(monitor), Some(&("run" | "create" | "measure"))) = (self.monitor, command_word.last()) {
            command.args(["--isolation", monitor.word]);
        }
        command.args(rest);
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
