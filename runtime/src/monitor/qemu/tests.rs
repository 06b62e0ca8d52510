//! What QEMU's processes become at the seam, with small scripts in their places.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use coffer_machine::Refusal;
use coffer_rim::Class;
use tokio::sync::mpsc;

use super::*;
use crate::monitor::fake::ready;
use crate::monitor::{How, Limits, Measured};

/// A device that listens, and lives until it is killed.
const DEVICE: &str = "exec /usr/bin/python3 -c 'import socket,time\ns=socket.socket(socket.AF_UNIX)\ns.bind(\"vhost.sock\")\ns.listen()\ntime.sleep(60)'";

fn monitor(folder: &Path, device: &str, qemu: &str) -> Qemu {
    let script = |name: &str, text: &str| {
        let path = folder.join(name);
        let written = std::fs::write(&path, format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{text}\n"));
        written.and_then(|()| std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))).unwrap();
        path
    };
    let named =
        BTreeMap::from([(QEMU.variable, script("qemu", qemu)), (VHOST_VSOCK.variable, script("device", device))]);
    Qemu::new(&Search { named, ..Search::default() })
}

fn launch(folder: &Path) -> Launch {
    let measured = Measured {
        stage0: "stage0.bin".into(),
        hashes: "hashes.bin".into(),
        kernel: "kernel".into(),
        initrd: "initrd".into(),
        initrd_sha256: String::new(),
        command_line: "cmdline".into(),
    };
    Launch {
        folder: folder.into(),
        measured,
        secrets: None,
        snp: None,
        disks: Vec::new(),
        vcpus: 1,
        memory_bytes: 1 << 28,
        limits: Limits::default(),
        card: None,
    }
}

async fn start(folder: &Path, device: &str, qemu: &str) -> Result<Box<dyn Running>, Failure> {
    let (reached, _) = mpsc::unbounded_channel();
    monitor(folder, device, qemu).start(&launch(folder), Console::open(folder, reached), ready()).await
}

#[tokio::test]
async fn every_status_of_qemu_becomes_a_typed_end_with_its_last_words() {
    let refused = format!("exit {}", Refusal::InitrdHash.qemu_status());
    let quick = r#"[ "$3" = -version ] && echo QEMU emulator version 9.2.0; exit 0"#;
    let cases = [
        (quick, How::PoweredOff, None),
        (refused.as_str(), How::Refused(Refusal::InitrdHash), None),
        ("echo one >&2; echo two >&2; exit 1", How::Status(1), Some("one; two")),
        ("kill -9 $$", How::Signal(9), None),
    ];
    for (qemu, how, words) in cases {
        let dir = tempfile::tempdir().unwrap();
        let end = start(dir.path(), DEVICE, qemu).await.unwrap().wait().await;
        assert_eq!((end.how, end.last_words.as_deref()), (how, words), "{qemu}");
    }
}

#[tokio::test]
async fn a_program_that_is_no_qemu_is_said_to_be_none_by_a_start_and_by_the_doctor() {
    let asked = |folder: &Path, text: &str| version_line(&monitor(folder, DEVICE, text).programs().unwrap().qemu);
    let dir = tempfile::tempdir().unwrap();
    let genuine = "QEMU emulator version 9.2.0";
    assert_eq!(asked(dir.path(), &format!("echo {genuine}")).unwrap(), genuine);
    for (other, words) in
        [("exit 0", "it is no QEMU"), ("echo bash, version 5", "it is no QEMU"), ("echo bad >&2; exit 1", "bad")]
    {
        let failure = asked(dir.path(), other).unwrap_err();
        assert!(failure.class == Class::Platform && failure.message.contains(words), "{failure}");
    }
    let end = start(dir.path(), DEVICE, "exit 0").await.unwrap().wait().await;
    assert!(end.last_words.unwrap().contains("it is no QEMU"));
}

#[tokio::test]
async fn a_device_that_dies_takes_the_guest_along() {
    let dir = tempfile::tempdir().unwrap();
    let end = start(dir.path(), &DEVICE.replace("time.sleep(60)", "time.sleep(0.2)\nexit(3)"), "exec sleep 60")
        .await
        .unwrap()
        .wait()
        .await;
    assert_eq!(end.how, How::VsockLost("exit status: 3".into()));
    // As vhost-device-vsock 0.3.0: what carried breaks, and the process stays.
    let breaks = "import sys\nsys.stderr.write(\"thread 'vring_worker' panicked at src/vsock_conn.rs\\n\")\nsys.stderr.flush()\n";
    let dir = tempfile::tempdir().unwrap();
    let broken = DEVICE.replace("time.sleep(60)", &format!("\n{breaks}time.sleep(60)"));
    let end = start(dir.path(), &broken, "exec sleep 60").await.unwrap().wait().await;
    assert_eq!(end.how, How::VsockLost("a thread of it broke".into()));
}

#[tokio::test]
async fn a_guest_is_paused_goes_on_and_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = start(dir.path(), DEVICE, "exec sleep 60").await.unwrap();
    let state = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ");
    let pid = running.pid().unwrap();
    running.pause().unwrap();
    assert!((0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(2));
        state(pid)
    }));
    running.resume().unwrap();
    assert!((0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(2));
        !state(pid)
    }));
    running.kill();
    assert_eq!(running.wait().await.how, How::Signal(9));
}

#[tokio::test]
async fn what_does_not_start_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let failure = start(dir.path(), "echo no such feature >&2; exit 2", "exit 0").await.err().unwrap();
    assert_eq!(failure.class, Class::Platform);
    assert!(failure.message.contains("vhost-device-vsock did not start"), "{failure}");
    assert!(failure.message.ends_with("no such feature"), "{failure}");
    let missing = Qemu::new(&Search::default());
    let failure = missing.check().unwrap_err();
    assert_eq!(failure.message, "qemu-system-x86_64 was not found");
    assert!(failure.hint.unwrap().contains("apt-get install"));
}

#[tokio::test]
async fn the_installed_qemu_is_asked_what_it_can_do() {
    let program = Search::default().program(&QEMU);
    // Debian 12's: it has no SEV-SNP guests, and says its version.
    let Ok(program) = program else { return eprintln!("skipped: there is no QEMU here") };
    let found = probe::Found::of(&program).unwrap();
    assert!(found.version >= (7, 2), "{found:?}");
    assert_eq!(found.snp.is_some(), found.version >= (9, 1), "{found:?}");
}

/// QEMU 9.1 or later, where `make setup` unpacked one.
fn newer() -> Option<std::path::PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(std::path::PathBuf::from);
    let cache = cache.or_else(|| Some(std::path::PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let program = cache.join("coffer/newer-qemu/qemu-system-x86_64");
    if program.exists() {
        Some(program)
    } else {
        eprintln!("skipped: there is no newer QEMU in {}; run `make setup`", program.display());
        None
    }
}

#[tokio::test]
async fn a_newer_qemu_takes_every_option_of_an_snp_launch_and_ends_where_kvm_has_none() {
    let Some(program) = newer() else { return };
    let found = probe::Found::of(&program).unwrap();
    found.check_snp().unwrap();
    if !Path::new("/dev/kvm").exists() || Path::new("/dev/sev").exists() {
        return eprintln!("skipped: for machines with KVM and without SEV-SNP");
    }
    let dir = tempfile::tempdir().unwrap();
    for file in ["stage0.bin", "kernel", "initrd", "cmdline"] {
        std::fs::write(dir.path().join(file), [0; 4096]).unwrap();
    }
    let id = crate::monitor::SnpId { block: vec![0; 96], auth: vec![0; 4096], author: true };
    let snp = Some(crate::monitor::SnpLaunch { id: Some(id), ..crate::monitor::seam::tests::snp() });
    let monitor = monitor(dir.path(), DEVICE, "exit 9");
    let search = Search { named: BTreeMap::from([(QEMU.variable, program)]), ..Search::default() };
    let programs = Programs { qemu: search.program(&QEMU).unwrap(), ..monitor.programs().unwrap() };
    let launch = Launch { snp, ..launch(dir.path()) };
    let (reached, _) = mpsc::unbounded_channel();
    let console = Console::open(dir.path(), reached);
    let mut processes = Processes::start(&programs, &launch, Accelerator::Tcg, console).await.unwrap();
    let end = crate::monitor::Running::wait(&mut processes).await;
    let words = end.last_words.unwrap();
    // Options are looked at in front of this end: one that it did not know would be what it names.
    assert!(words.starts_with("KVM on this machine launches no SEV-SNP guests"), "{words}");
    assert!(words.contains("vm-type SEV-SNP not supported by KVM"), "{words}");
    assert_eq!(end.how, How::Status(1));
}
