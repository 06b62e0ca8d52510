//! `coffer cp`: between a box and this machine, a tar stream or another box.
//!
//! Trusts: nothing that comes out of a box. What is made here lies in the place that was named, and is bounded.

mod across;
mod nowhere;
pub mod pump;
mod tar_stream;

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coffer_rim::carry::{Bounds, Keep, Source, pack, unpack};
use coffer_rim::out;
use coffer_runtime::engine::{Engine, Guest, Trust as MustProve, WriteFiles};
use coffer_runtime::request::bytes;
use serde_json::{Value, json};

use crate::boxes::attend::End;
use crate::context::Context;
use crate::error::{self, Class, Classify as _, CliError};
use crate::prove::guest::Trust;
use crate::terminal;
use nowhere::of_unpacking;
use pump::{give, take};

/// Copy files between a running box and this machine, or another box.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "coffer cp [OPTIONS] BOX:SRC DEST|-\n       coffer cp [OPTIONS] SRC|- BOX:DEST\n       coffer cp [OPTIONS] BOX:SRC BOX:DEST",
    after_help = "Where something is copied to follows Docker: into a folder that is there under its own name, else to that name; SRC/. is what is \
in a folder. Links are copied as links. Devices, sockets and pipes are left out. A path of a box begins at its root.
Where the spec does not let the host cp or exec, it is done as owner, in a guest that proves itself first.

Examples:
  coffer cp web:/etc/hostname .
  coffer cp site/. web:/www
  coffer cp web:/var/log - | tar t
  coffer cp web:/www other:/srv
  coffer cp --reference web.json site coffer://host.example:7443/www"
)]
pub struct Args {
    /// Keep users and groups, by number; else they are root's in the box, and ours here.
    #[arg(short, long)]
    archive: bool,
    /// Where SRC is a link itself, copy what it leads to.
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Say nothing of what was left out.
    #[arg(short, long)]
    quiet: bool,
    /// Most bytes that are taken out of a box.
    #[arg(long, value_name = "SIZE", default_value = "64g", value_parser = |text: &str| bytes(text).ok_or("expected a size such as 512m"))]
    limit: u64,
    #[command(flatten)]
    trust: Trust,
    /// A file or folder here or of a box, or - for a tar stream.
    #[arg(value_name = "SRC")]
    from: String,
    /// Where it goes.
    #[arg(value_name = "DEST")]
    to: String,
}

/// Files, folders and links that are taken out of a box.
const MOST_ENTRIES: u64 = 1_000_000;

/// One side of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Side {
    /// A tar stream of ours.
    Stream,
    /// Here.
    Here(PathBuf),
    /// In a box.
    There { name: String, path: String },
}

impl Side {
    /// As Docker reads it: what begins with `/` or `.` is here, whatever colons it has.
    fn of(text: &str) -> Self {
        // Behind an address the path begins at its slash.
        if Guest::is_elsewhere(text) {
            let scheme = text.find("//").map_or(0, |at| at + 2);
            let at = text[scheme..].find('/').map_or(text.len(), |at| scheme + at);
            return Self::There { name: text[..at].to_owned(), path: text[at..].to_owned() };
        }
        match text.split_once(':') {
            _ if text == "-" => Self::Stream,
            Some((name, path)) if !text.starts_with(['/', '.']) && !name.is_empty() => {
                Self::There { name: name.to_owned(), path: path.to_owned() }
            }
            _ => Self::Here(text.into()),
        }
    }
}

/// Copies.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let usage = |message: &str| Err(CliError::new(Class::Usage, message));
    let engine = context.engine()?;
    let trust = args.trust.read()?;
    let runtime = context.runtime()?;
    let copied = match (Side::of(&args.from), Side::of(&args.to)) {
        (Side::There { .. }, Side::Stream) if context.json => {
            return usage("--json and - both write to standard output");
        }
        (Side::There { .. }, Side::Stream) if terminal::shows() => {
            return usage("a tar stream is not written to a terminal");
        }
        (Side::There { path, .. }, _) | (_, Side::There { path, .. }) if path.is_empty() => {
            return usage("the path in the box is empty");
        }
        (Side::There { name, path }, to @ (Side::Stream | Side::Here(_))) => {
            runtime.block_on(outward(&engine, args, &name, &path, to, &trust))
        }
        (from @ (Side::Stream | Side::Here(_)), Side::There { name, path }) => {
            runtime.block_on(inward(&engine, args, from, &name, &path, &trust))
        }
        (Side::There { name, .. }, Side::There { name: to, .. })
            if [&name, &to].iter().all(|it| Guest::is_elsewhere(it)) =>
        {
            let message = "from one address to another nothing would say which of the two is which";
            return Err(CliError::new(Class::Usage, message)
                .hint("copy to this machine first, with the --reference of the one, then to the other with its own"));
        }
        (Side::There { name, path }, Side::There { name: to, path: at }) => {
            runtime.block_on(across(&engine, args, [&name, &path], [&to, &at], &trust))
        }
        _ => return usage("one of the two is in a box: BOX:PATH"),
    };
    runtime.shutdown_background();
    if Side::of(&args.to) == Side::Stream
        && copied.is_err()
        && out::check().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    {
        // Whoever reads has seen enough.
        return Ok(End::ReaderGone.told().1);
    }
    let mut copied = copied?;
    if context.json {
        (copied["source"], copied["destination"]) = (json!(args.from), json!(args.to));
        println!("{copied}");
    }
    Ok(ExitCode::SUCCESS)
}

async fn outward(
    engine: &Engine,
    args: &Args,
    name: &str,
    path: &str,
    to: Side,
    trust: &MustProve,
) -> Result<Value, CliError> {
    let source = Source::of(path.as_bytes());
    let bounds = Bounds { entries: MOST_ENTRIES, bytes: args.limit };
    let keep = Keep { owners: args.archive, special_bits: false };
    let mut session = engine.read_files(name, path.as_bytes(), args.follow_link, trust).await.map_err(error::of)?;
    let done = take(&mut session, args.quiet, move |mut from| match to {
        Side::Here(at) => {
            unpack(&mut from, &source, at.as_os_str().as_bytes(), keep, bounds).map_err(|error| of_unpacking(&error))
        }
        _ => tar_stream::write(&mut from, &source, bounds),
    })
    .await?;
    Ok(json!({ "box": name, "entries": done.entries, "bytes": done.bytes }))
}

async fn inward(
    engine: &Engine,
    args: &Args,
    from: Side,
    name: &str,
    path: &str,
    trust: &MustProve,
) -> Result<Value, CliError> {
    let source = match &from {
        Side::Here(at) => Source::of(at.as_os_str().as_bytes()),
        _ => Source { name: Vec::new(), contents: true },
    };
    if let Side::Here(at) = &from {
        // Before a box is asked.
        std::fs::symlink_metadata(at).map_err(|error| of_source(&error, at))?;
    }
    let what = WriteFiles { to: path.as_bytes().to_vec(), source, owners: args.archive };
    let mut session = engine.write_files(name, what, trust).await.map_err(error::of)?;
    let follow = args.follow_link;
    let left_out = give(&mut session, args.quiet, move |mut to| match from {
        Side::Here(at) => {
            pack(&at, follow, &mut to).map(|packed| packed.left_out).map_err(|error| of_source(&error, &at))
        }
        _ => tar_stream::read(&mut to),
    })
    .await?;
    if left_out > 0 && !args.quiet {
        eprintln!("coffer: {left_out} devices, sockets, pipes or endless files were left out");
    }
    Ok(json!({ "box": name, "left_out": left_out }))
}

/// Through this machine, where nothing of it is made. Both guests prove themselves where an owner asks.
async fn across(
    engine: &Engine,
    args: &Args,
    [name, path]: [&str; 2],
    [to, at]: [&str; 2],
    trust: &MustProve,
) -> Result<Value, CliError> {
    let what = WriteFiles { to: at.as_bytes().to_vec(), source: Source::of(path.as_bytes()), owners: args.archive };
    let mut reads = engine.read_files(name, path.as_bytes(), args.follow_link, trust).await.map_err(error::of)?;
    let mut writes = engine.write_files(to, what, trust).await.map_err(error::of)?;
    let bounds = Bounds { entries: MOST_ENTRIES, bytes: args.limit };
    let (hand, handed) = std::sync::mpsc::sync_channel(1);
    let reading = take(&mut reads, args.quiet, move |coming| hand.send(coming).class(Class::Internal));
    let writing = give(&mut writes, args.quiet, move |mut going| {
        let mut coming = handed.recv().class(Class::Internal)?;
        across::pass(&mut coming, &mut going, bounds)
    });
    let (read, written) = tokio::join!(reading, writing);
    read.map_err(|failure| failure.while_doing(format!("cannot read {name}:{path}")))?;
    let done = written.map_err(|failure| failure.while_doing(format!("cannot write {to}:{at}")))?;
    Ok(json!({ "box": name, "to": to, "entries": done.entries, "bytes": done.bytes }))
}

fn of_source(error: &io::Error, path: &Path) -> CliError {
    CliError::caused(Class::of_file(error), error).while_doing(format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_read_as_docker_reads_them() {
        let there = |name: &str, path: &str| Side::There { name: name.into(), path: path.into() };
        for (text, side) in [
            ("-", Side::Stream),
            ("web:/etc", there("web", "/etc")),
            ("web:a:b", there("web", "a:b")),
            ("web:", there("web", "")),
            ("./web:x", Side::Here("./web:x".into())),
            ("/a:b", Side::Here("/a:b".into())),
            ("coffer://host:7443/etc/a:b", there("coffer://host:7443", "/etc/a:b")),
            ("coffer://[::1]:1/", there("coffer://[::1]:1", "/")),
            ("coffer://host:7443", there("coffer://host:7443", "")),
            ("file", Side::Here("file".into())),
            (":x", Side::Here(":x".into())),
        ] {
            assert_eq!(Side::of(text), side, "{text}");
        }
    }
}
