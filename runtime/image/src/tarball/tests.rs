use super::*;
use std::os::unix::fs::FileExt as _;

fn archive(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    build(&mut builder);
    builder.into_inner().unwrap()
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o4755);
    header.set_uid(1);
    header.set_gid(2);
    header.set_mtime(3);
    header
}

fn read(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut archive = Archive::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = archive.next_entry()? {
        let mut data = Vec::new();
        archive.read_to_end(&mut data).map_err(TarError::Read)?;
        entries.push((entry, data));
    }
    archive.drain()?;
    Ok(entries)
}

#[test]
fn reads_names_longer_than_the_header_and_their_data() {
    let long = format!("{}/file", "d".repeat(200));
    let target = "t".repeat(300);
    let bytes = archive(|builder| {
        let mut file = Header::new_gnu();
        file.set_size(5);
        file.set_mode(0o644);
        builder.append_data(&mut file, &long, &b"hello"[..]).unwrap();
        let mut link = Header::new_gnu();
        link.set_entry_type(EntryType::Symlink);
        link.set_size(0);
        builder.append_link(&mut link, "link", &target).unwrap();
    });
    let entries = read(&bytes).unwrap();
    assert_eq!(entries[0].0.path, long.as_bytes());
    assert_eq!(entries[0].1, b"hello");
    assert_eq!((entries[0].0.uid, entries[0].0.mtime), (0, 0), "fields left empty are 0");
    assert_eq!(entries[1].0.kind, EntryKind::Symlink(target.into_bytes()));
}

#[test]
fn extended_headers_win_over_the_header() {
    let bytes = archive(|builder| {
        builder
            .append_pax_extensions([
                ("mtime", &b"12.5"[..]),
                ("uid", b"4000000"),
                ("SCHILY.xattr.user.a", b"x=\ny"),
                ("size", b"3"),
                ("path", b"other"),
            ])
            .unwrap();
        builder.append_data(&mut header(EntryType::Regular, 3), "name", &b"abc"[..]).unwrap();
        builder.append_data(&mut header(EntryType::Regular, 1), "next", &b"z"[..]).unwrap();
    });
    let entries = read(&bytes).unwrap();
    let first = &entries[0].0;
    assert_eq!((first.mtime, first.mtime_nsec, first.uid, first.gid), (12, 500_000_000, 4_000_000, 2));
    assert_eq!((first.path.as_slice(), first.mode), (&b"other"[..], 0o4755));
    assert_eq!(first.xattrs[&b"user.a"[..]], b"x=\ny");
    assert_eq!((entries[1].0.path.as_slice(), entries[1].0.mtime), (&b"next"[..], 3), "they hold for one entry");
    assert!(entries[1].0.xattrs.is_empty());
}

#[test]
fn refuses_damaged_headers_and_short_streams() {
    let bytes = archive(|builder| {
        builder.append_data(&mut header(EntryType::Regular, 600), "name", &[7; 600][..]).unwrap();
    });
    let mut flipped = bytes.clone();
    flipped[0] ^= 1;
    assert!(matches!(read(&flipped), Err(TarError::Checksum { .. })));
    assert!(matches!(read(&bytes[..100]), Err(TarError::Truncated)));
    assert!(matches!(read(&bytes[..1000]), Err(TarError::Truncated)));
    assert_eq!(read(&bytes[..512 + 1024]).unwrap().len(), 1, "a missing end marker is not missing data");
}

#[test]
fn refuses_what_layers_do_not_have_and_what_would_eat_memory() {
    let sparse = archive(|builder| {
        builder.append_data(&mut header(EntryType::new(b'Z'), 0), "s", &b""[..]).unwrap();
    });
    assert!(matches!(read(&sparse), Err(TarError::Unsupported { found: 'Z', .. })));
    let mut huge = Header::new_ustar();
    huge.set_entry_type(EntryType::XHeader);
    huge.set_path("x").unwrap();
    huge.set_size(1 << 33);
    huge.set_cksum();
    assert!(matches!(read(huge.as_bytes()), Err(TarError::ExtendedTooLong { .. })));
    let mut endless = Header::new_ustar();
    endless.set_path("x").unwrap();
    endless.set_size(u64::MAX);
    endless.set_mode(0);
    endless.set_uid(0);
    endless.set_gid(0);
    endless.set_mtime(0);
    endless.set_cksum();
    assert!(read(endless.as_bytes()).is_err());
}

#[test]
fn extended_headers_of_one_entry_are_limited_together() {
    let value = vec![b'v'; 300_000];
    let with = |count: usize| {
        archive(|builder| {
            for number in 0..count {
                let key = format!("SCHILY.xattr.user.{number}");
                builder.append_pax_extensions([(key.as_str(), &value[..])]).unwrap();
            }
            builder.append_data(&mut header(EntryType::Regular, 0), "name", &b""[..]).unwrap();
        })
    };
    assert_eq!(read(&with(3)).unwrap()[0].0.xattrs.len(), 3);
    assert!(matches!(read(&with(4)), Err(TarError::ExtendedTooLong { found: 1_200_000.. })));
    let long = |count: usize| {
        archive(|builder| {
            for _ in 0..count {
                let mut name = Header::new_gnu();
                name.set_entry_type(EntryType::GNULongName);
                name.set_size(300_000);
                name.set_path("././@LongLink").unwrap();
                name.set_mode(0);
                name.set_cksum();
                builder.append(&name, &value[..]).unwrap();
            }
            builder.append_data(&mut header(EntryType::Regular, 0), "name", &b""[..]).unwrap();
        })
    };
    assert!(read(&long(3)).is_ok());
    assert!(matches!(read(&long(4)), Err(TarError::ExtendedTooLong { .. })));
    let two = [with(3), with(3)].map(|bytes| bytes[..bytes.len() - 1024].to_vec()).concat();
    assert_eq!(read(&two).unwrap().len(), 2, "each entry has its own");
}

#[test]
fn refuses_damaged_pax_records() {
    for record in
        ["", "x", "5 a=b\n", "6 a=b", "99 a=b\n", "2 \n", "7 abcd\n", "-6 a=b\n", "18446744073709551616 a=b\n"]
    {
        let mut extended = Extended::default();
        assert_eq!(parse_pax(record.as_bytes(), &mut extended).is_err(), !record.is_empty(), "{record:?}");
    }
    for time in ["", "x", "1.x", "-x", "1e9"] {
        assert!(pax_time(time.as_bytes()).is_err(), "{time:?}");
    }
    assert_eq!(pax_time(b"-5.5").unwrap(), (0, 0));
    assert_eq!(pax_time(b"1.0000000019").unwrap(), (1, 1));
}

/// Writes with GNU tar what a shell makes; `None` without one.
fn gnu_tar(format: &[&str]) -> Option<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("holes")).unwrap();
    // More parts than a header holds, the first and the last of them holes.
    for number in 1..40u64 {
        file.write_all_at(&[number as u8; 5000], number << 20).unwrap();
    }
    file.set_len(1 << 26).unwrap();
    let mut tar = std::process::Command::new("tar");
    tar.args(["-C", &dir.path().display().to_string(), "--sparse", "-cf", "-"]).args(format).arg("holes");
    let output = tar.output().ok()?;
    assert!(output.status.success(), "{output:?}");
    Some(output.stdout)
}

#[test]
fn files_with_holes_are_read_as_gnu_tar_writes_them() {
    let formats: [&[&str]; 4] = [
        &["--format=gnu"],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ];
    for format in formats {
        let Some(bytes) = gnu_tar(format) else { return eprintln!("SKIPPED: no GNU tar") };
        assert!(bytes.len() < 1 << 20, "{format:?}: {}", bytes.len());
        let entries = read(&bytes).unwrap();
        let (entry, data) = &entries[0];
        assert_eq!((entry.path.as_slice(), entry.size, entries.len()), (&b"holes"[..], 1 << 26, 1), "{format:?}");
        let parts = entry.parts.as_deref().unwrap();
        let mut at = 0;
        let mut file = vec![0; 1 << 26];
        for part in parts {
            file[part.offset as usize..][..part.length as usize].copy_from_slice(&data[at..][..part.length as usize]);
            at += part.length as usize;
        }
        assert_eq!(at, data.len());
        for number in 1..40usize {
            assert!(file[number << 20..][..5000].iter().all(|byte| *byte == number as u8), "{format:?} {number}");
        }
        assert_eq!(file.iter().filter(|byte| **byte != 0).count(), 39 * 5000, "{format:?}");
    }
}

#[test]
fn a_map_of_holes_that_cannot_be_is_refused() {
    let with = |records: &[(&str, &str)], data: &[u8]| {
        let bytes = archive(|builder| {
            let records = records.iter().map(|(key, value)| (*key, value.as_bytes()));
            builder.append_pax_extensions(records).unwrap();
            builder.append_data(&mut header(EntryType::Regular, data.len() as u64), "s", data).unwrap();
        });
        read(&bytes)
    };
    let map = |map, size| [("GNU.sparse.map", map), ("GNU.sparse.size", size)];
    assert_eq!(with(&map("1,2,8,1", "9"), b"abc").unwrap()[0].0.size, 9);
    assert_eq!(with(&map("", "9"), b"").unwrap()[0].0.parts.as_deref(), Some(&[][..]));
    let wrong: [(&str, &str, &[u8]); 8] = [
        ("1,2,8,1", "8", b"abc"),
        ("1,2,2,1", "9", b"abc"),
        ("8,1,1,2", "9", b"abc"),
        ("1,2", "9", b"abc"),
        ("1,2,8,2", "10", b"abc"),
        ("1", "9", b"abc"),
        ("1,x", "9", b"abc"),
        ("18446744073709551615,2", "9", b"ab"),
    ];
    for (text, size, data) in wrong {
        assert!(with(&map(text, size), data).is_err(), "{text}");
    }
    let in_data = |text: &str, data: &[u8]| {
        let mut all = text.as_bytes().to_vec();
        all.resize(512, 0);
        all.extend(data);
        with(&[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "9")], &all)
    };
    assert_eq!(in_data("1\n6\n3\n", b"abc").unwrap()[0].1, b"abc");
    for text in ["2\n1\n3\n", "99999999999999999999\n", "1\n6\n4\n", "x\n", "", "1\n7\n3\n"] {
        assert!(in_data(text, b"abc").is_err(), "{text:?}");
    }
}

proptest::proptest! {
    #[test]
    fn never_panics_and_always_ends(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..3000)) {
        let _ = read(&bytes);
        let _ = parse_pax(&bytes, &mut Extended::default());
    }
}
