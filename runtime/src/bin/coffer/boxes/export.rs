//! `coffer export`: the root file system of a box as a tar stream.
//!
//! Trusts: nothing of the stream. It is read on its way: what is no tar stream, leads out of it or is more than it may be is an error, and leaves
//! no file.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use coffer_image::tarball::{Archive, EntryKind};
use coffer_rim::file::Writer;
use coffer_rim::out;
use coffer_runtime::request::bytes;
use serde_json::json;

use crate::boxes::attend::End;
use crate::boxes::cp::pump::take;
use crate::context::Context;
use crate::error::{self, Class, Classify as _, CliError};
use crate::prove::guest::Trust;
use crate::terminal;

/// Write the root file system of a running box as a tar archive, which `coffer import` and `docker import` read.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "What is mounted in the box, volumes and memory, is not in it, nor are its host name files, which each box has of its own.
Where the spec does not let the host cp or exec, it is done as owner, in a guest that proves itself first.

Examples:
  coffer export -o web.tar web
  coffer export web | coffer import - web:1"
)]
pub struct Args {
    /// File to write; without it standard output, which must not be a terminal.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Most bytes that are taken out of a box.
    #[arg(long, value_name = "SIZE", default_value = "64g", value_parser = |text: &str| bytes(text).ok_or("expected a size such as 512m"))]
    limit: u64,
    #[command(flatten)]
    trust: Trust,
    /// Name or id; or coffer://HOST:PORT of a guest elsewhere, with --reference.
    #[arg(value_name = "BOX")]
    name: String,
}

/// Files, folders and links that are taken out of a box.
const MOST_ENTRIES: u64 = 4_000_000;

/// Writes it. A file is there whole or not at all.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let usage =
        |message: &str| Err(CliError::new(Class::Usage, message).hint("name a file with -o, or redirect the output"));
    if args.output.is_none() && context.json {
        return usage("--json and the archive both want standard output");
    }
    if args.output.is_none() && terminal::shows() {
        return usage("an archive is nothing for a terminal");
    }
    let engine = context.engine()?;
    let trust = args.trust.read()?;
    let runtime = context.runtime()?;
    let limit = args.limit;
    let read = async |to: Box<dyn Write + Send>| {
        let mut session = engine.read_root(&args.name, &trust).await.map_err(error::of)?;
        take(&mut session, false, move |from| pass(from, to, limit)).await
    };
    let Some(path) = &args.output else {
        let read = runtime.block_on(read(Box::new(io::BufWriter::with_capacity(256 << 10, out::Stdout))));
        if read.is_err() && out::check().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            // Whoever reads has seen enough.
            return Ok(End::ReaderGone.told().1);
        }
        return read.map(|_| ExitCode::SUCCESS);
    };
    let (mut failure, mut taken) = (None, Taken::default());
    let written = Writer::private().into_pipes().write_with(path, |file| {
        match runtime.block_on(read(Box::new(io::BufWriter::with_capacity(256 << 10, file.try_clone()?)))) {
            Ok(done) => taken = done,
            Err(error) => failure = Some(error),
        }
        if failure.is_none() { Ok(()) } else { Err(io::Error::other("not exported")) }
    });
    if let Some(failure) = failure {
        return Err(failure);
    }
    written.class_while(Class::Config, format!("cannot write {}", path.display()))?;
    if context.json {
        println!("{}", json!({ "box": args.name, "output": path, "entries": taken.entries, "bytes": taken.bytes }));
    }
    Ok(ExitCode::SUCCESS)
}

/// What was taken out of a box.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    entries: u64,
    /// Of the stream.
    bytes: u64,
}

/// A stream on its way to somebody else.
struct Passing<R, W> {
    from: R,
    to: W,
    bytes: u64,
    limit: u64,
    /// Why it does not get there.
    failed: Option<CliError>,
}

impl<R: Read, W: Write> Read for Passing<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.bytes = self.bytes.saturating_add(count as u64);
        let sent = if self.bytes > self.limit {
            let message = format!("the box has more than {} bytes", self.limit);
            Err(CliError::new(Class::Config, message).hint("--limit takes more"))
        } else {
            let written = self.to.write_all(buffer.get(..count).unwrap_or_default());
            written.class_while(Class::Config, "cannot write the archive")
        };
        sent.map(|()| count).map_err(|failure| {
            self.failed = Some(failure);
            io::ErrorKind::Other.into()
        })
    }
}

fn pass(from: impl Read, to: impl Write, limit: u64) -> Result<Taken, CliError> {
    let mut archive = Archive::new(Passing { from, to, bytes: 0, limit, failed: None });
    let read = follow(&mut archive);
    let Passing { mut to, bytes, failed, .. } = archive.into_inner();
    if let Some(failed) = failed {
        return Err(failed);
    }
    let entries = read?;
    to.flush().class_while(Class::Config, "cannot write the archive")?;
    Ok(Taken { entries, bytes })
}

/// Reads it to its end.
fn follow(archive: &mut Archive<impl Read>) -> Result<u64, CliError> {
    let wrong = |what: &str| CliError::new(Class::Config, format!("what came out of the box {what}"));
    let mut entries = 0;
    while let Some(entry) = archive.next_entry().class_while(Class::Config, "what came out of the box is no archive")? {
        entries += 1;
        if entries > MOST_ENTRIES {
            return Err(wrong("has too many files"));
        }
        let leads_out =
            |path: &[u8]| path.starts_with(b"/") || path.split(|byte| *byte == b'/').any(|name| name == b"..");
        let target = if let EntryKind::HardLink(target) = &entry.kind { leads_out(target) } else { false };
        if leads_out(&entry.path) || target {
            return Err(wrong("has a path that leads out of it"));
        }
        if matches!(entry.kind, EntryKind::CharDevice(..) | EntryKind::BlockDevice(..)) {
            return Err(wrong("has a device"));
        }
    }
    archive.drain().class_while(Class::Config, "what came out of the box is no archive")?;
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::{Builder, EntryType, Header};

    fn archive(path: &str, kind: EntryType, target: &str) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        header.set_cksum();
        builder.append(&header, io::empty()).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn a_stream_goes_on_byte_for_byte_and_what_is_none_is_an_error() {
        let good = archive("etc/x", EntryType::Link, "etc/passwd");
        let mut there = Vec::new();
        let taken = pass(&good[..], &mut there, 1 << 20).unwrap();
        assert_eq!((taken.entries, taken.bytes, &there), (1, good.len() as u64, &good));
        for (bad, why) in [
            (archive("/etc/x", EntryType::Regular, ""), "leads out"),
            (archive("a/../../b", EntryType::Regular, ""), "leads out"),
            (archive("a", EntryType::Link, "../b"), "leads out"),
            (archive("null", EntryType::Char, ""), "device"),
            (vec![b'x'; 2048], "no archive"),
            (good[..100].to_vec(), "no archive"),
        ] {
            let error = pass(&bad[..], &mut Vec::new(), 1 << 20).unwrap_err();
            assert!(error.message.contains(why), "{error:?}");
        }
        let error = pass(&good[..], &mut Vec::new(), 1000).unwrap_err();
        assert!(error.message.contains("more than 1000 bytes") && error.hint.is_some(), "{error:?}");
        // What does not end is bounded too.
        let endless = good.as_slice().chain(io::repeat(0));
        assert!(pass(endless, io::sink(), 1 << 20).unwrap_err().message.contains("more than"));
    }
}
