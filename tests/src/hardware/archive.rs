//! What comes of each step, and the one file that it all goes into.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use crate::process::Finished;

/// A folder of files, and the list of stories.
pub struct Record {
    folder: PathBuf,
    results: Vec<Value>,
    commands: usize,
}

impl Record {
    /// An empty one.
    pub fn new(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, results: Vec::new(), commands: 0 })
    }

    /// Keeps a file.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        Ok(fs::write(self.folder.join(name), bytes)?)
    }

    /// Keeps what was typed and printed, in order.
    pub fn typed(&mut self, finished: &Finished) -> Result<()> {
        self.commands += 1;
        self.put(&format!("command-{:03}.txt", self.commands), finished.describe().as_bytes())
    }

    /// A story came to its end.
    pub fn told(&mut self, monitor: &str, story: &str, took: Duration, told: Result<String>) {
        let (outcome, said) = match told {
            Ok(said) => ("passed", said),
            Err(error) => ("failed", format!("{error:#}")),
        };
        let first = said.lines().next().unwrap_or_default();
        println!("{outcome:7} {monitor:5} {story:28} {:6.1} s  {first}", took.as_secs_f32());
        let seconds = (took.as_secs_f64() * 10.0).round() / 10.0;
        self.results.push(json!({
            "monitor": monitor, "story": story, "outcome": outcome, "seconds": seconds, "said": said,
            "commands": self.commands,
        }));
    }

    /// No story of a monitor can be told.
    pub fn skipped(&mut self, monitor: &str, why: &str) {
        println!("skipped {monitor:5} {why}");
        self.results.push(json!({ "monitor": monitor, "outcome": "skipped", "said": why }));
    }

    /// Every story so far.
    pub fn results(&self) -> Vec<Value> {
        self.results.clone()
    }

    /// Writes the archive.
    pub fn write(&self, to: &Path) -> Result<()> {
        let mut archive = tar::Builder::new(GzEncoder::new(File::create(to)?, Compression::default()));
        archive.append_dir_all("coffer-hardware", &self.folder)?;
        archive.into_inner()?.finish()?.sync_all()?;
        Ok(())
    }
}
