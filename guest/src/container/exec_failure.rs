//! Why the kernel did not start a file that is there: the file, or what its first bytes say shall run it.
//!
//! Source: execve(2), "Interpreter scripts" (at most 255 bytes of the line count); elf(5), PT_INTERP.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use super::Cause;

/// Bytes of a first line the kernel looks at (BINPRM_BUF_SIZE).
const LINE: usize = 256;
/// Longest name of an ELF interpreter.
const PATH_MOST: u64 = 4096;
/// More program headers than any real file has.
const HEADERS_MOST: u16 = 512;

/// Whose fault a failed exec of `path` is, and words to put behind "start NAME".
pub(super) fn explain(path: &Path, error: &io::Error) -> (Cause, String) {
    let plain = |cause| (cause, String::new());
    match error.raw_os_error() {
        Some(libc::ENOENT) => match interpreter(path) {
            Some(interpreter) if path.exists() => {
                let lines = if interpreter.ends_with('\r') { "; the script has Windows line ends (CRLF)" } else { "" };
                (Cause::Interpreter, format!(": its interpreter {interpreter:?} is not in the image{lines}"))
            }
            None if path.exists() => (Cause::Interpreter, ": what shall run it is not in the image".into()),
            _ => plain(Cause::NotFound),
        },
        Some(libc::ENOEXEC) => {
            (Cause::NotExecutable, ": it is neither a program for this machine nor a script with a #! line".into())
        }
        Some(libc::ENOTDIR) => plain(Cause::NotFound),
        Some(libc::E2BIG) => (Cause::NotExecutable, ": its arguments and environment are too long for Linux".into()),
        _ => plain(Cause::NotExecutable),
    }
}

/// What shall run the file: the first word of a `#!` line, or the dynamic linker of an ELF file.
fn interpreter(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let mut start = Vec::new();
    Read::by_ref(&mut file).take(LINE as u64).read_to_end(&mut start).ok()?;
    match start.strip_prefix(b"#!") {
        Some(line) => {
            let line = line.split(|byte| *byte == b'\n').next()?.trim_ascii_start();
            let word = line.split(|byte| matches!(byte, b' ' | b'\t')).next()?;
            Some(String::from_utf8_lossy(word).into_owned())
        }
        None => elf_interpreter(&mut file, &start),
    }
}

/// `start`: the first bytes of a little-endian 64-bit ELF file.
fn elf_interpreter(file: &mut File, start: &[u8]) -> Option<String> {
    const PT_INTERP: u32 = 3;
    let word = |at: usize| Some(u64::from_le_bytes(start.get(at..at + 8)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_le_bytes(start.get(at..at + 2)?.try_into().ok()?));
    if !start.starts_with(&[0x7f, b'E', b'L', b'F', 2, 1]) {
        return None;
    }
    let (headers, size, count) = (word(32)?, half(54)?, half(56)?.min(HEADERS_MOST));
    for index in 0..u64::from(count) {
        let mut header = [0; 56];
        file.seek(SeekFrom::Start(headers.checked_add(index * u64::from(size))?)).ok()?;
        file.read_exact(&mut header).ok()?;
        let number = |at: usize| Some(u64::from_le_bytes(header.get(at..at + 8)?.try_into().ok()?));
        if u32::from_le_bytes(*header.first_chunk()?) == PT_INTERP {
            let mut name = Vec::new();
            file.seek(SeekFrom::Start(number(8)?)).ok()?;
            Read::by_ref(file).take(number(32)?.min(PATH_MOST)).read_to_end(&mut name).ok()?;
            let name = name.split(|byte| *byte == 0).next()?;
            return Some(String::from_utf8_lossy(name).into_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(content: &[u8], errno: i32) -> (Cause, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, content).unwrap();
        explain(&path, &io::Error::from_raw_os_error(errno))
    }

    #[test]
    fn an_interpreter_that_is_missing_is_named() {
        let (cause, words) = explained(b"#! /opt/nosuch -x\necho\n", libc::ENOENT);
        assert_eq!((cause, cause.status()), (Cause::Interpreter, 127));
        assert!(words.contains("\"/opt/nosuch\"") && !words.contains("CRLF"), "{words}");
        let (cause, words) = explained(b"#!/bin/sh\r\necho\r\n", libc::ENOENT);
        assert_eq!(cause, Cause::Interpreter);
        assert!(words.contains(r#""/bin/sh\r""#) && words.contains("CRLF"), "{words}");
    }

    #[test]
    fn the_linker_of_a_program_is_found_where_elf_says() {
        let mut file = File::open("/proc/self/exe").unwrap();
        let mut start = vec![0; LINE];
        file.read_exact(&mut start).unwrap();
        if let Some(linker) = elf_interpreter(&mut file, &start) {
            assert!(linker.starts_with('/') && Path::new(&linker).exists(), "{linker}");
        }
        assert_eq!(elf_interpreter(&mut file, &[0x7f, b'E', b'L', b'F', 2, 1, 0, 0]), None);
    }

    #[test]
    fn a_file_that_is_absent_or_no_program_is_said_to_be_so() {
        let absent = explain(Path::new("/nowhere/at/all"), &io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(absent, (Cause::NotFound, String::new()));
        assert_eq!(explained(b"words", libc::ENOEXEC).0, Cause::NotExecutable);
        assert_eq!(explained(b"words", libc::EACCES), (Cause::NotExecutable, String::new()));
    }
}
