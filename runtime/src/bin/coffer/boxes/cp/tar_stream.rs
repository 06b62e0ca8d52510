//! Tar streams of ours, and the stream of files that a box takes and gives.

use std::collections::HashSet;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use coffer_image::tarball::{Archive, EntryKind};
use coffer_rim::carry::{Bounds, Entry, Kind, LONGEST_PATH, Source, Unpacked};
use coffer_rim::out;
use tar::{EntryType, Header};

use super::nowhere::of_unpacking;
use crate::error::{Class, Classify as _, CliError};

/// Bytes of the names of folders that a tar stream may have before its files take it for granted that they are there.
const ROOM: usize = 64 << 20;

/// Writes what comes out of a box to standard output.
pub fn write(from: &mut impl Read, source: &Source, bounds: Bounds) -> Result<Unpacked, CliError> {
    let mut to = tar::Builder::new(BufWriter::with_capacity(64 * 1024, out::Stdout));
    let done = convert(from, &mut to, source, bounds)?;
    to.into_inner().and_then(|mut stream| stream.flush()).class_while(Class::Config, "cannot write standard output")?;
    Ok(done)
}

fn convert(
    from: &mut impl Read,
    to: &mut tar::Builder<impl Write>,
    source: &Source,
    bounds: Bounds,
) -> Result<Unpacked, CliError> {
    let mut done = Unpacked::default();
    let root = if source.name.is_empty() { &b"."[..] } else { &source.name };
    while let Some(entry) = Entry::read(from).class(Class::Config)? {
        bounds.count(&entry, &mut done).map_err(|error| of_unpacking(&error))?;
        let size = if let Kind::File(size) = entry.kind { size } else { 0 };
        let path = if entry.path.is_empty() { root.to_vec() } else { [root, b"/", &entry.path].concat() };
        let path = PathBuf::from(std::ffi::OsString::from_vec(path));
        let mut header = Header::new_gnu();
        header.set_mode(entry.mode);
        header.set_uid(entry.uid.into());
        header.set_gid(entry.gid.into());
        header.set_mtime(entry.modified.try_into().unwrap_or(0));
        header.set_size(size);
        let written = match entry.kind {
            Kind::File(size) => {
                header.set_entry_type(EntryType::Regular);
                let mut data = from.take(size);
                let written = to.append_data(&mut header, &path, &mut data);
                if data.limit() > 0 {
                    return Err(CliError::new(Class::Config, "the stream of files breaks off"));
                }
                written
            }
            Kind::Folder => {
                header.set_entry_type(EntryType::Directory);
                to.append_data(&mut header, &path, io::empty())
            }
            Kind::Link(target) => {
                header.set_entry_type(EntryType::Symlink);
                to.append_link(&mut header, &path, PathBuf::from(std::ffi::OsString::from_vec(target)))
            }
        };
        written.class_while(Class::Config, "cannot write standard output")?;
    }
    Ok(done)
}

/// Reads standard input for a box; gives how much was left out.
pub fn read(to: &mut impl Write) -> Result<u64, CliError> {
    revert(io::stdin().lock(), to)
}

/// What is compressed is told by how it begins.
const COMPRESSED: [(&[u8], &str); 4] = [
    (&[0x1f, 0x8b], "gzip"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
    (b"BZh", "bzip2"),
];

fn revert(mut from: impl Read, to: &mut impl Write) -> Result<u64, CliError> {
    let mut head = Vec::new();
    from.by_ref().take(6).read_to_end(&mut head).class_while(Class::Config, "cannot read standard input")?;
    if let Some((_, program)) = COMPRESSED.iter().find(|(magic, _)| head.starts_with(magic)) {
        let message = format!("standard input is compressed by {program}, and a plain tar stream is expected");
        return Err(CliError::new(Class::Config, message)
            .hint(format!("unpack it on the way: {program} -dc FILE | coffer cp - …")));
    }
    let from = head.as_slice().chain(from);
    let sent = |result: io::Result<()>| result.class_while(Class::Unreachable, "cannot send to the box");
    let mut archive = Archive::new(from);
    let root = Entry { path: Vec::new(), kind: Kind::Folder, mode: 0o755, uid: 0, gid: 0, modified: 0 };
    let (mut folders, mut room, mut left_out) = (HashSet::new(), ROOM, 0);
    sent(root.write(to))?;
    while let Some(found) = archive.next_entry().class_while(Class::Config, "cannot read standard input")? {
        let path = below(&found.path)?;
        if path.is_empty() {
            continue; // the folder itself, which has its own mode
        }
        let kind = match found.kind {
            EntryKind::File => Kind::File(found.size),
            EntryKind::Directory => Kind::Folder,
            EntryKind::Symlink(target) => Kind::Link(target),
            EntryKind::HardLink(_) => {
                let message = "the tar stream has a file with two names, which is not copied";
                return Err(CliError::new(Class::Config, message).hint("tar --hard-dereference writes it twice"));
            }
            EntryKind::Fifo | EntryKind::CharDevice(..) | EntryKind::BlockDevice(..) => {
                left_out += 1;
                continue;
            }
        };
        // Folders that a stream leaves out are made.
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.collect::<Vec<_>>() {
            let folder = path.get(..end).unwrap_or_default().to_vec();
            if !folders.contains(&folder) && folder.len() < room {
                room -= folder.len();
                sent(Entry { path: folder.clone(), ..root.clone() }.write(to))?;
                folders.insert(folder);
            }
        }
        if kind == Kind::Folder && path.len() < room {
            room -= path.len();
            folders.insert(path.clone());
        }
        let modified = found.mtime.try_into().unwrap_or(0);
        let entry = Entry { path, kind, mode: found.mode.into(), uid: found.uid, gid: found.gid, modified };
        sent(entry.write(to))?;
        if let Kind::File(size) = entry.kind {
            let copied = io::copy(&mut (&mut archive).take(size), to);
            let copied = copied.class_while(Class::Config, "cannot copy standard input")?;
            if copied != size {
                return Err(CliError::new(Class::Config, "the tar stream breaks off"));
            }
        }
    }
    sent(Entry::write_end(to))?;
    Ok(left_out)
}

/// A path of the stream without what it begins with, unless it leads elsewhere.
fn below(path: &[u8]) -> Result<Vec<u8>, CliError> {
    let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
    let path = names.join(&b'/');
    if names.contains(&&b".."[..]) || path.len() >= LONGEST_PATH {
        return Err(CliError::new(Class::Config, "the tar stream has a path that leads out of it, or an endless one"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: Bounds = Bounds { entries: 100, bytes: 1 << 20 };

    fn archive(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        builder.into_inner().unwrap()
    }

    fn file(builder: &mut tar::Builder<Vec<u8>>, path: &str, data: &[u8]) {
        let mut header = Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o640);
        header.set_mtime(7);
        builder.append_data(&mut header, path, data).unwrap();
    }

    #[test]
    fn a_tar_stream_that_goes_in_comes_out_again() {
        let long = format!("{}/file", "deep/".repeat(40));
        let bytes = archive(|builder| {
            file(builder, "./a/b", b"data");
            file(builder, &long, b"");
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, "link", "/etc/passwd").unwrap();
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Fifo);
            header.set_size(0);
            builder.append_data(&mut header, "pipe", io::empty()).unwrap();
        });
        let mut stream = Vec::new();
        assert_eq!(revert(&bytes[..], &mut stream).unwrap(), 1);
        let mut out = tar::Builder::new(Vec::new());
        let source = Source { name: b"x".to_vec(), contents: false };
        let done = convert(&mut &stream[..], &mut out, &source, PLENTY).unwrap();
        assert_eq!(done.bytes, 4);
        let bytes = out.into_inner().unwrap();
        let mut read = tar::Archive::new(&bytes[..]);
        let found: Vec<(String, u64)> = read
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.path().unwrap().display().to_string(), entry.size()))
            .collect();
        for wanted in
            [("x", 0), ("x/a", 0), ("x/a/b", 4), ("x/link", 0), (&format!("x/{}", long.replace("//", "/")), 0)]
        {
            assert!(found.contains(&(wanted.0.to_owned(), wanted.1)), "{wanted:?}: {found:?}");
        }
        let few = Bounds { entries: 3, ..PLENTY };
        assert!(convert(&mut &stream[..], &mut tar::Builder::new(Vec::new()), &source, few).is_err());
        assert!(
            convert(&mut &stream[..stream.len() - 5], &mut tar::Builder::new(Vec::new()), &source, PLENTY).is_err()
        );
    }

    #[test]
    fn what_is_compressed_is_said_by_the_name_of_what_unpacks_it() {
        for (magic, program) in COMPRESSED {
            let bytes = [magic, &[0; 600]].concat();
            let refused = revert(&bytes[..], &mut Vec::new()).unwrap_err();
            assert!(refused.message.contains(program) && refused.message.contains("a plain tar"), "{refused:?}");
        }
    }

    #[test]
    fn what_leads_out_of_a_tar_stream_or_is_two_names_of_one_file_is_refused() {
        assert_eq!(below(b"/etc//x/./y").unwrap(), b"etc/x/y");
        for path in ["..", "a/../b", "/../x"] {
            assert!(below(path.as_bytes()).is_err(), "{path}");
        }
        let bytes = archive(|builder| {
            file(builder, "a", b"1");
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Link);
            header.set_size(0);
            builder.append_link(&mut header, "b", "a").unwrap();
        });
        assert!(revert(&bytes[..], &mut Vec::new()).unwrap_err().message.contains("two names"));
    }
}
