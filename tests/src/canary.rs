//! Looks for a secret wherever a host could find it: files, arguments, environments and memory of processes.
//!
//! A value is looked for as it is, in hexadecimal and in base64. Of a process that holds a guest, the guest's memory is left out:
//! with a simulated secure processor that is the host's to read, and on hardware it is ciphertext.
//! Never: misses silently. What could not be read is a finding.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::{FileExt as _, FileTypeExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use memchr::memmem::Finder;

/// A value that must be nowhere, and what it would look like.
pub struct Canary {
    name: String,
    forms: Vec<(&'static str, Finder<'static>)>,
}

impl Canary {
    /// `value`: long and random, so that it is nowhere by chance.
    pub fn new(name: &str, value: &[u8]) -> Self {
        let finder = |bytes: &[u8]| Finder::new(bytes).into_owned();
        let mut forms = vec![("plain", finder(value)), ("hex", finder(hex::encode(value).as_bytes()))];
        // Behind 0, 1 or 2 other bytes; what the neighbours have a part in is left out.
        for before in 0..3 {
            let text = STANDARD.encode([&vec![0; before][..], value].concat());
            let inner = &text.as_bytes()[if before == 0 { 0 } else { 4 }..text.len() - 4];
            forms.push(("base64", finder(inner)));
        }
        Self { name: name.to_owned(), forms }
    }

    fn longest(&self) -> usize {
        self.forms.iter().map(|(_, form)| form.needle().len()).max().unwrap_or(0)
    }

    /// Whether it is in `bytes`, and how.
    pub fn find(&self, bytes: &[u8]) -> Option<&'static str> {
        self.forms.iter().find(|(_, form)| form.find(bytes).is_some()).map(|(how, _)| *how)
    }
}

/// A number of canaries, and where they were found.
pub struct Search {
    canaries: Vec<Canary>,
    /// Places where one was found, or that could not be looked at.
    pub found: Vec<String>,
    /// Bytes looked through.
    pub looked: u64,
}

impl Search {
    /// For these.
    pub fn new(canaries: Vec<Canary>) -> Self {
        Self { canaries, found: Vec::new(), looked: 0 }
    }

    /// In bytes that somebody printed.
    pub fn bytes(&mut self, place: &str, bytes: &[u8]) {
        self.looked += bytes.len() as u64;
        for canary in &self.canaries {
            if let Some(how) = canary.find(bytes) {
                self.found.push(format!("{} in {place} ({how})", canary.name));
            }
        }
    }

    /// In what `read` gives for offsets from 0 on, to its end.
    fn stream(&mut self, place: &str, mut read: impl FnMut(u64, &mut [u8]) -> std::io::Result<usize>) {
        let overlap = self.canaries.iter().map(Canary::longest).max().unwrap_or(0);
        let mut buffer = vec![0; CHUNK + overlap];
        let (mut kept, mut at) = (0, 0);
        let before = self.found.len();
        loop {
            match read(at, &mut buffer[kept..kept + CHUNK]) {
                Ok(0) => return,
                Ok(count) => {
                    let whole = kept + count;
                    let found: Vec<String> = self
                        .canaries
                        .iter()
                        .filter_map(|canary| {
                            Some(format!("{} in {place} ({})", canary.name, canary.find(&buffer[..whole])?))
                        })
                        .collect();
                    self.looked += count as u64;
                    at += count as u64;
                    self.found.extend(found);
                    if self.found.len() > before {
                        return;
                    }
                    kept = overlap.min(whole);
                    buffer.copy_within(whole - kept..whole, 0);
                }
                Err(error) => return self.found.push(format!("{place} cannot be read: {error}")),
            }
        }
    }

    /// In every file below a folder that was written since then, but for those below `left_out`.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn files(&mut self, folder: &Path, since: SystemTime, left_out: &[&Path]) -> Result<()> {
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            // Others come and go in shared folders.
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for path in entries.flatten().map(|entry| entry.path()) {
                let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
                if left_out.iter().any(|out| path.starts_with(out)) || metadata.file_type().is_socket() {
                    continue;
                }
                self.bytes("the name of a file", path.as_os_str().as_encoded_bytes());
                if metadata.is_dir() {
                    folders.push(path);
                } else if metadata.is_file() && metadata.modified()? >= since {
                    let Ok(mut file) = File::open(&path) else { continue };
                    self.stream(&path.display().to_string(), |_, buffer| file.read(buffer));
                }
            }
        }
        Ok(())
    }

    /// In arguments and environment of a process and, where `memory` says so, in its memory but for the guest's.
    ///
    /// # Errors
    /// If it ended.
    pub fn process(&mut self, process: &Process, memory: bool) -> Result<()> {
        let at = |name: &str| process.folder().join(name);
        let who = format!("process {} ({})", process.pid, process.name);
        for name in ["cmdline", "environ", "comm"] {
            self.bytes(&format!("{name} of {who}"), &fs::read(at(name)).with_context(|| who.clone())?);
        }
        if !memory {
            return Ok(());
        }
        let maps = fs::read_to_string(at("maps"))?;
        let file = File::open(at("mem"))?;
        for region in maps.lines().filter_map(Region::parse).filter(|region| !region.is_a_guests()) {
            let place = format!("memory {:x} {} of {who}", region.start, region.name);
            self.stream(&place, |offset, buffer| {
                let left = usize::try_from(region.length - offset.min(region.length)).unwrap_or(usize::MAX);
                let most = left.min(buffer.len());
                match file.read_at(&mut buffer[..most], region.start + offset) {
                    // A page behind the end of a mapped file.
                    Err(error) if error.raw_os_error() == Some(5) => Ok(0),
                    read => read,
                }
            });
        }
        Ok(())
    }
}

const CHUNK: usize = 4 << 20;

/// A line of /proc/PID/maps that can be read.
struct Region {
    start: u64,
    length: u64,
    name: String,
}

impl Region {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        let readable = words.next()?.starts_with('r');
        let name = words.skip(3).collect::<Vec<_>>().join(" ");
        (readable && !matches!(name.as_str(), "[vvar]" | "[vvar_vclock]" | "[vsyscall]")).then_some(Self {
            start,
            length: end - start,
            name,
        })
    }

    /// QEMU's, and its vsock device's view of it.
    fn is_a_guests(&self) -> bool {
        self.name.starts_with("/memfd:memory-backend-memfd")
    }
}

/// A process that runs.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its program.
    pub name: String,
    parent: u32,
}

impl Process {
    /// Where the kernel tells of it.
    pub fn folder(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.pid))
    }

    /// All that name this folder or work in it, and all that they started.
    ///
    /// # Errors
    /// If there is no /proc.
    pub fn of(folder: &Path) -> Result<Vec<Self>> {
        let named = folder.as_os_str().as_encoded_bytes();
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        for path in fs::read_dir("/proc")?.flatten().map(|entry| entry.path()) {
            let pid = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            let (Some(pid), Ok(status)) = (pid, fs::read_to_string(path.join("status"))) else { continue };
            let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim();
            let parent = field("PPid:").parse().unwrap_or(0);
            let process = Self { pid, name: field("Name:").to_owned(), parent };
            let command = fs::read(path.join("cmdline")).unwrap_or_default();
            let works_there = fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
            let is_ours = pid != std::process::id() && (works_there || memchr::memmem::find(&command, named).is_some());
            if is_ours { &mut ours } else { &mut others }.push(process);
        }
        while let Some(at) = others.iter().position(|other| ours.iter().any(|it| it.pid == other.parent)) {
            ours.push(others.swap_remove(at));
        }
        Ok(ours)
    }
}
