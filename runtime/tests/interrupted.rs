//! What ^C, and whoever kills, leaves of a command that is making an image: nothing.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The beginning of an archive whose one file is longer than what there is of it.
fn half_an_archive() -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path("layer.tar").unwrap();
    header.set_mode(0o644);
    header.set_size(8 << 20);
    header.set_cksum();
    [header.as_bytes().as_slice(), &vec![7; 2 << 20]].concat()
}

/// Whether it has a file open that is not finished.
fn is_making(child: &Child) -> bool {
    let open = fs::read_dir(format!("/proc/{}/fd", child.id())).into_iter().flatten().flatten();
    open.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|to| to.to_string_lossy().contains("images/tmp/"))
}

fn files(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().display().to_string()).collect()
}

#[test]
fn an_image_that_was_being_made_leaves_no_file() {
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        for words in [&["import", "-", "a:1"][..], &["load", "-q"]] {
            let home = tempfile::tempdir().unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_coffer"));
            command.env("COFFER_HOME", home.path()).args(words);
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let mut archive = child.stdin.take().unwrap();
            archive.write_all(&half_an_archive()).unwrap();
            let patience = Instant::now() + Duration::from_secs(20);
            while !is_making(&child) {
                assert!(Instant::now() < patience && child.try_wait().unwrap().is_none(), "{words:?} makes nothing");
                std::thread::sleep(Duration::from_millis(5));
            }
            kill_process(Pid::from_child(&child), signal).unwrap();
            assert!(!child.wait().unwrap().success());
            for folder in ["tmp", "blobs/sha256", "partial"] {
                let left = files(&home.path().join("images").join(folder));
                assert!(left.is_empty(), "{words:?} {signal:?}: {left:?}");
            }
        }
    }
}

#[test]
fn a_check_of_a_verifier_leaves_no_folder() {
    let home = tempfile::tempdir().unwrap();
    let temporary = home.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_coffer"));
    command.env("COFFER_HOME", home.path().join("home")).env("TMPDIR", &temporary);
    command.args(["sim", "check", "--product", "milan", "--cmd", "sleep 20"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let patience = Instant::now() + Duration::from_mins(1);
    // It has made evidence, and asks.
    while !files(&temporary).iter().any(|made| fs::read_dir(made).is_ok_and(|mut inside| inside.next().is_some())) {
        assert!(Instant::now() < patience && child.try_wait().unwrap().is_none(), "it makes nothing");
        std::thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(files(&temporary), Vec::<String>::new());
}

#[test]
fn what_cannot_be_read_is_named_and_no_file_of_ours() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("a-folder");
    fs::create_dir(&folder).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_coffer"));
    let refused = command.env("COFFER_HOME", home.path()).arg("import").arg(&folder).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("a-folder") && !said.contains("images/tmp"), "{said}");
}
