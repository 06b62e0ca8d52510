use super::*;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn volumes() -> (tempfile::TempDir, Volumes) {
    let folder = tempfile::tempdir().unwrap();
    let volumes = Volumes::at(folder.path().join("volumes"));
    (folder, volumes)
}

fn asked(bytes: Option<u64>) -> VolumeRecord {
    VolumeRecord::new(7, bytes, false, BTreeMap::new())
}

fn of(text: &str, read_only: bool) -> [BoxVolume; 1] {
    [BoxVolume { name: name(text), read_only, anonymous: false }]
}

fn no_program() -> Result<PathBuf, Failure> {
    Err(Failure::new(Class::Platform, "no program"))
}

#[test]
fn a_volume_is_made_once_listed_and_gone_when_it_is_removed() {
    let (_folder, volumes) = volumes();
    assert!(volumes.all().unwrap().is_empty());
    let guard = volumes.guard().unwrap();
    let labels = BTreeMap::from([("tier".to_owned(), "db".to_owned())]);
    let made = volumes.make(&guard, &name("db"), &VolumeRecord::new(7, Some(LEAST), false, labels)).unwrap();
    assert_eq!((made.kind(), made.limit()), (None, Some(LEAST)));
    volumes.make(&guard, &name("a"), &asked(None)).unwrap();
    let again = volumes.make(&guard, &name("db"), &asked(None)).unwrap();
    assert_eq!((&again.record, again.record.labels.len()), (&made.record, 1));
    let names = || volumes.all().unwrap().iter().map(|found| found.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(), ["a", "db"]);
    let other = volumes.make(&guard, &name("db"), &asked(Some(2 * LEAST))).unwrap_err();
    assert!(matches!(other, VolumeStoreError::Other { .. }) && other.to_string().contains("16777216"), "{other}");
    volumes.remove(&guard, &name("a")).unwrap();
    assert_eq!(names(), ["db"]);
    for gone in [volumes.remove(&guard, &name("a")).unwrap_err(), volumes.find(&name("a")).unwrap_err()] {
        assert_eq!((gone.class(), gone.to_string().as_str()), (Class::NotFound, "no such volume: a"));
    }
}

#[test]
fn sizes_that_no_disk_has_are_refused() {
    let (_folder, volumes) = volumes();
    let guard = volumes.guard().unwrap();
    for bytes in [0, LEAST - 1, MOST + 1, u64::MAX] {
        let refused = volumes.make(&guard, &name("v"), &asked(Some(bytes))).unwrap_err();
        assert!(matches!(refused, VolumeStoreError::Size(found) if found == bytes), "{refused}");
    }
    assert!(volumes.all().unwrap().is_empty());
}

#[test]
fn what_was_cut_off_is_taken_away_and_what_is_no_record_of_ours_is_named() {
    let (_folder, volumes) = volumes();
    drop(volumes.guard().unwrap());
    let half = volumes.unfinished();
    fs::create_dir(&half).unwrap();
    assert!(volumes.all().unwrap().is_empty());
    let guard = volumes.guard().unwrap();
    assert!(!half.exists());
    volumes.make(&guard, &name("v"), &asked(None)).unwrap();
    let path = volumes.folder(&name("v")).join(RECORD);
    for text in ["", "{}", "{\"version\":2,\"created\":0}", "{\"version\":1,\"created\":0,\"more\":1}", "\u{0}"] {
        fs::write(&path, text).unwrap();
        let refused = volumes.find(&name("v")).unwrap_err();
        assert!(matches!(refused, VolumeStoreError::Record { .. }), "{text}: {refused}");
        assert!(refused.to_string().contains("volume.json") && volumes.all().is_err(), "{refused}");
    }
    File::create(&path).unwrap().set_len(input::DOCUMENT + 1).unwrap();
    assert!(matches!(volumes.find(&name("v")), Err(VolumeStoreError::File { .. })), "no more of it is read");
}

#[test]
fn a_volume_is_of_the_kind_of_its_first_box_and_of_no_other() {
    let (_folder, volumes) = volumes();
    let guard = volumes.guard().unwrap();
    let folder = volumes.make(&guard, &name("f"), &asked(None)).unwrap();
    volumes.become_kind(&guard, &folder, Kind::Folder, no_program).unwrap();
    volumes.become_kind(&guard, &folder, Kind::Folder, no_program).unwrap();
    assert_eq!((folder.kind(), folder.limit()), (Some(Kind::Folder), None));
    fs::write(volumes.path(&name("f"), Kind::Folder).join("x"), [1; 5000]).unwrap();
    assert!(folder.disk_bytes() >= 5000);
    let other = volumes.become_kind(&guard, &folder, Kind::Disk, no_program).unwrap_err();
    assert!(other.to_string().contains("without a machine"), "{other}");
    let bounded = volumes.make(&guard, &name("b"), &asked(Some(LEAST))).unwrap();
    let refused = volumes.become_kind(&guard, &bounded, Kind::Folder, no_program).unwrap_err();
    assert!(matches!(refused, VolumeStoreError::NoLimit { .. }), "{refused}");
    let unmade = volumes.become_kind(&guard, &bounded, Kind::Disk, no_program).unwrap_err();
    assert_eq!((unmade.to_string().as_str(), unmade.class()), ("no program", Class::Platform));
    let fails = || Ok(PathBuf::from("/bin/false"));
    let unmade = volumes.become_kind(&guard, &bounded, Kind::Disk, fails).unwrap_err();
    assert!(unmade.to_string().contains("made no file system"), "{unmade}");
    assert_eq!(bounded.kind(), None, "half a disk is none");
    assert_eq!(fs::read_dir(&bounded.folder).unwrap().count(), 1, "and none is left");
}

#[test]
fn a_disk_has_a_file_system_of_its_size_and_takes_little() {
    let Some(program) = ["/usr/sbin/mke2fs", "/sbin/mke2fs"].map(PathBuf::from).into_iter().find(|path| path.exists())
    else {
        return eprintln!("skipped: no mke2fs on this machine");
    };
    let (_folder, volumes) = volumes();
    let guard = volumes.guard().unwrap();
    for bytes in [LEAST, 1 << 30] {
        let volume = volumes.make(&guard, &name(&format!("v{bytes}")), &asked(Some(bytes))).unwrap();
        volumes.become_kind(&guard, &volume, Kind::Disk, || Ok(program.clone())).unwrap();
        assert_eq!((volume.kind(), volume.limit()), (Some(Kind::Disk), Some(bytes)));
        assert!(volume.disk_bytes() < 8 << 20, "{}", volume.disk_bytes());
        let mut start = [0; 2048];
        std::os::unix::fs::FileExt::read_exact_at(
            &File::open(volumes.path(&volume.name, Kind::Disk)).unwrap(),
            &mut start,
            0,
        )
        .unwrap();
        assert_eq!(start[1024 + 56..1024 + 58], [0x53, 0xEF], "the superblock's magic number");
    }
}

#[test]
fn a_writer_has_a_disk_alone_readers_share_it_and_a_folder_is_everybodys() {
    let (_folder, volumes) = volumes();
    let guard = volumes.guard().unwrap();
    volumes.make(&guard, &name("v"), &asked(None)).unwrap();
    let hold = |read_only, kind| volumes.hold(&of("v", read_only), kind);
    let writer = hold(false, Kind::Disk).unwrap();
    for read_only in [true, false] {
        let busy = hold(read_only, Kind::Disk).unwrap_err();
        assert!(busy.to_string().contains("volume v is in use") && busy.class() == Class::Config, "{busy}");
    }
    drop(writer);
    let readers = [hold(true, Kind::Disk).unwrap(), hold(true, Kind::Disk).unwrap()];
    assert!(hold(false, Kind::Disk).is_err());
    drop(readers);
    let _both = [hold(false, Kind::Folder).unwrap(), hold(false, Kind::Folder).unwrap()];
    assert!(matches!(volumes.hold(&of("nosuch", true), Kind::Disk), Err(VolumeStoreError::Unknown(_))));
}
