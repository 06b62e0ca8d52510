use std::fs;
use std::path::Path;

use serde_json::json;

use super::*;

fn trail() -> (tempfile::TempDir, Trail) {
    let dir = tempfile::tempdir().unwrap();
    let trail = Trail::at(dir.path().join("trail"));
    (dir, trail)
}

fn act(name: &str) -> Act {
    Act { names: vec![name.into()], ..Act::new("pull", Outcome::Done) }
}

fn names(folder: &Path) -> Vec<String> {
    let mut lines = Lines::all(folder);
    std::iter::from_fn(|| lines.next_line().unwrap()).map(|line| line.names.concat()).collect()
}

fn first_part(trail: &Trail) -> std::path::PathBuf {
    parts::path(trail.folder(), parts::all(trail.folder()).unwrap()[0])
}

/// Writes the lines of the first part anew.
fn edit(trail: &Trail, change: impl FnOnce(&mut Vec<String>)) {
    let path = first_part(trail);
    let mut lines: Vec<String> = fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
    change(&mut lines);
    fs::write(&path, lines.join("\n") + "\n").unwrap();
}

#[test]
fn lines_are_read_as_they_were_written_and_hold_together() {
    let (_dir, trail) = trail();
    assert_eq!(check(trail.folder()).unwrap().broken, None, "there is none yet");
    for number in 1..=5 {
        assert_eq!(trail.add(&act(&number.to_string())).unwrap(), number);
    }
    assert_eq!(names(trail.folder()), ["1", "2", "3", "4", "5"]);
    let checked = check(trail.folder()).unwrap();
    assert_eq!((checked.first, checked.last, checked.broken), (1, 5, None));
    let line = Lines::all(trail.folder()).next_line().unwrap().unwrap();
    assert!(line.nanos() > 1_600_000_000_000_000_000 && line.uid == rustix::process::getuid().as_raw());
}

#[test]
fn what_was_changed_removed_or_moved_is_found_and_named() {
    type Change = fn(&mut Vec<String>);
    let cases: [(Change, Broken); 7] = [
        (|lines| lines[2] = lines[2].replace("\"3\"", "\"x\""), Broken::Changed { number: 3 }),
        (|lines| lines[4] = lines[4].replace("\"5\"", "\"x\""), Broken::Changed { number: 5 }),
        (|lines| drop(lines.remove(2)), Broken::NotNext { expected: 3, found: 4 }),
        (|lines| drop(lines.remove(0)), Broken::NotNext { expected: 1, found: 2 }),
        (|lines| lines.swap(1, 3), Broken::NotNext { expected: 2, found: 4 }),
        (|lines| lines.truncate(3), Broken::Truncated { last: 3, written: 5 }),
        (|lines| lines[1] = "no line".into(), Broken::Unreadable { number: 2 }),
    ];
    for (change, broken) in cases {
        let (_dir, trail) = trail();
        for number in 1..=5 {
            trail.add(&act(&number.to_string())).unwrap();
        }
        edit(&trail, change);
        assert_eq!(check(trail.folder()).unwrap().broken, Some(broken.clone()));
        // Whoever writes on does not cover it.
        trail.add(&act("later")).unwrap();
        assert!(check(trail.folder()).unwrap().broken.is_some(), "{broken}");
        assert_eq!(names(trail.folder()).last().unwrap(), "later");
    }
    let (_dir, trail) = trail();
    trail.add(&act("1")).unwrap();
    fs::remove_file(trail.folder().join("head")).unwrap();
    assert_eq!(check(trail.folder()).unwrap().broken, Some(Broken::NoHead));
    trail.add(&act("2")).unwrap();
    let checked = check(trail.folder()).unwrap();
    let [Mended { number: 2, details }] = &checked.mended[..] else { panic!("{checked:?}") };
    assert_eq!((checked.broken, details["head"].as_str()), (None, Some("missing")), "it is said");
}

#[test]
fn an_end_that_was_cut_off_with_the_head_is_told_by_the_line_behind_it() {
    let (_dir, trail) = trail();
    for number in 1..=5 {
        trail.add(&act(&number.to_string())).unwrap();
    }
    edit(&trail, |lines| lines.truncate(3));
    fs::remove_file(trail.folder().join("head")).unwrap();
    trail.add(&act("later")).unwrap();
    let checked = check(trail.folder()).unwrap();
    assert_eq!((checked.broken, checked.mended.len(), checked.mended[0].number), (None, 1, 4));
}

#[test]
fn what_stands_before_the_oldest_line_that_is_kept_leads_to_it_or_is_found() {
    let long = || {
        let dir = tempfile::tempdir().unwrap();
        let trail = Trail::small(dir.path().join("trail"), 2000, 3);
        let mut oldest = None;
        for number in 0..60 {
            let kept = parts::all(trail.folder()).unwrap_or_default();
            if kept.len() == 3 {
                let path = parts::path(trail.folder(), kept[0]);
                oldest = Some((path.clone(), fs::read_to_string(path).unwrap()));
            }
            trail.add(&act(&number.to_string())).unwrap();
            // Until a part has just gone.
            if oldest.as_ref().is_some_and(|(path, _)| !path.exists()) {
                break;
            }
        }
        (dir, trail, oldest.unwrap())
    };
    // As a writer leaves it that is killed before the old part is gone.
    let (_dir, trail, (path, text)) = long();
    fs::write(&path, &text).unwrap();
    let checked = check(trail.folder()).unwrap();
    assert_eq!((checked.broken, checked.first), (None, 1));
    assert_eq!(names(trail.folder())[0], "0");
    for forged in [
        text.replace("\"names\":[\"2\"]", "\"names\":[\"x\"]"),
        text.split_inclusive('\n').take(2).collect(),
        "no line\n".to_owned(),
        String::new(),
    ] {
        assert_ne!(forged, text);
        let (_dir, trail, (path, _)) = long();
        let first = check(trail.folder()).unwrap().first;
        fs::write(&path, forged).unwrap();
        assert_eq!(check(trail.folder()).unwrap().broken, Some(Broken::Before { number: 1, first }));
    }
}

#[test]
fn what_is_no_regular_file_is_neither_read_nor_written_and_nobody_is_waited_for() {
    type Put = fn(&Path);
    let puts: [Put; 4] = [
        |path| assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success()),
        |path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
        |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        |path| fs::create_dir(path).unwrap(),
    ];
    for put in puts {
        for is_head in [true, false] {
            let (_dir, trail) = trail();
            trail.add(&act("1")).unwrap();
            let path = if is_head { trail.folder().join("head") } else { first_part(&trail) };
            fs::remove_file(&path).unwrap();
            put(&path);
            assert!(check(trail.folder()).is_err());
            assert!(trail.add(&act("2")).is_err());
            assert!(is_head || Lines::all(trail.folder()).next_line().is_err());
        }
    }
}

#[test]
fn a_writer_that_was_killed_leaves_a_trail_that_goes_on() {
    for at in 0..3 {
        let (_dir, trail) = trail();
        trail.add(&act("1")).unwrap();
        let head = fs::read(trail.folder().join("head")).unwrap();
        trail.add(&act("2")).unwrap();
        match at {
            // Before the head, within the line, and before the line's first byte.
            0 => fs::write(trail.folder().join("head"), head).unwrap(),
            1 => {
                fs::write(trail.folder().join("head"), head).unwrap();
                let text = fs::read(first_part(&trail)).unwrap();
                fs::write(first_part(&trail), &text[..text.len() - 7]).unwrap();
                assert!(check(trail.folder()).unwrap().half_line_bytes > 0);
            }
            _ => {}
        }
        assert_eq!(check(trail.folder()).unwrap().broken, None, "{at}");
        trail.add(&act("3")).unwrap();
        let checked = check(trail.folder()).unwrap();
        assert_eq!((checked.broken, checked.half_line_bytes), (None, 0), "{at}");
        let mut lines = Lines::all(trail.folder());
        let said = std::iter::from_fn(|| lines.next_line().unwrap()).any(|line| line.action == "audit.mended");
        assert_eq!(said, at == 1);
    }
}

#[test]
fn lines_that_somebody_wrote_behind_the_head_are_told() {
    let (_dir, trail) = trail();
    let head = || fs::read(trail.folder().join("head")).unwrap();
    trail.add(&act("1")).unwrap();
    let first = head();
    for number in 2..=4 {
        trail.add(&act(&number.to_string())).unwrap();
    }
    // Each has the digest of the one before. One is what a writer leaves that was killed, three are more than that.
    fs::write(trail.folder().join("head"), &first).unwrap();
    assert_eq!(check(trail.folder()).unwrap().broken, Some(Broken::Behind { number: 3, written: 1 }));
    let text = Broken::Behind { number: 3, written: 1 }.to_string();
    assert!(text.contains("line 3") && text.contains("line 1"), "{text}");
    trail.add(&act("later")).unwrap();
    assert!(check(trail.folder()).unwrap().broken.is_some(), "whoever writes on does not cover it");
}

#[test]
fn a_part_of_holes_and_a_head_that_is_held_keep_nobody() {
    let (_dir, trail) = trail();
    trail.add(&act("1")).unwrap();
    let part = fs::OpenOptions::new().write(true).open(first_part(&trail)).unwrap();
    // More than can be read: 2 TB, where the file system has room for a name of such a length.
    let longest = if part.set_len(2 << 40).is_ok() { 2 << 40 } else { 4 << 30 };
    part.set_len(longest).unwrap();
    assert_eq!(check(trail.folder()).unwrap().broken, Some(Broken::Unreadable { number: 2 }));
    assert_eq!(names(trail.folder()), ["1"]);
    Lines::new(trail.folder()).unwrap();
    trail.add(&act("2")).unwrap();
    assert!(part.metadata().unwrap().len() < longest, "what nobody can read is cut off");
    assert_eq!(names(trail.folder()).last().unwrap(), "2");

    let head = fs::File::open(trail.folder().join("head")).unwrap();
    head.lock().unwrap();
    let failed = trail.clone().waiting(std::time::Duration::from_millis(20)).add(&act("3")).unwrap_err();
    assert!(std::error::Error::source(&failed).unwrap().to_string().contains("lock"), "{failed:?}");
    assert!(failed.hint().unwrap().contains("head"));
    drop(head);
    trail.add(&act("3")).unwrap();
}

#[test]
fn parts_are_bounded_and_what_is_kept_holds_together_wherever_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    let trail = Trail::small(dir.path().join("trail"), 2000, 3);
    let mut follower = Lines::all(trail.folder());
    let mut followed = Vec::new();
    for number in 0..60 {
        trail.add(&act(&number.to_string())).unwrap();
        followed.extend(std::iter::from_fn(|| follower.next_line().unwrap()).map(|line| line.names.concat()));
        let checked = check(trail.folder()).unwrap();
        assert_eq!((checked.last, checked.broken), (number + 1, None));
    }
    assert_eq!(followed, (0..60).map(|number: u64| number.to_string()).collect::<Vec<_>>());
    let kept = parts::all(trail.folder()).unwrap();
    assert!(kept.len() == 3 && check(trail.folder()).unwrap().first == kept[0] && kept[0] > 1);
    let bytes: u64 = kept.iter().map(|part| fs::metadata(parts::path(trail.folder(), *part)).unwrap().len()).sum();
    assert!(bytes <= 3 * 2000);
    fs::remove_file(parts::path(trail.folder(), kept[0])).unwrap();
    let expected = kept[0];
    assert_eq!(check(trail.folder()).unwrap().broken, Some(Broken::NotNext { expected, found: kept[1] }));
}

#[test]
fn twenty_at_once_write_one_chain_and_whoever_follows_sees_each_line_once() {
    let dir = tempfile::tempdir().unwrap();
    let trail = Trail::small(dir.path().join("trail"), 20_000, 40);
    trail.add(&act("before")).unwrap();
    let mut follower = Lines::new(trail.folder()).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..20 {
            let trail = trail.clone();
            scope.spawn(move || {
                for number in 0..20 {
                    trail.add(&act(&format!("{writer} {number}"))).unwrap();
                }
            });
        }
        for _ in 0..50 {
            assert_eq!(check(trail.folder()).unwrap().broken, None);
        }
    });
    let checked = check(trail.folder()).unwrap();
    assert_eq!((checked.last, checked.broken), (401, None));
    let mut seen: Vec<_> = std::iter::from_fn(|| follower.next_line().unwrap()).map(|line| line.number).collect();
    assert_eq!(seen.len(), 400);
    seen.dedup();
    assert_eq!(seen.len(), 400);
}

#[test]
fn a_line_is_bounded_whatever_it_is_told() {
    let (_dir, trail) = trail();
    let long = "x".repeat(1 << 20);
    let mut big = Act::new("pull", Outcome::Failed(coffer_rim::Class::Refused));
    big.names = vec![long.clone(); 1000];
    big.details.insert("labels".into(), json!({ "a": long, "b": vec![long.clone(); 900] }));
    trail.add(&big).unwrap();
    let line = Lines::all(trail.folder()).next_line().unwrap().unwrap();
    assert_eq!(line.outcome, "refused");
    assert!(fs::metadata(first_part(&trail)).unwrap().len() < 32 << 10);
    assert_eq!(check(trail.folder()).unwrap().broken, None);
}
