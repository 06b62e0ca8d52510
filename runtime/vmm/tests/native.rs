//! The monitor on this machine's `/dev/kvm`, software-virtualised or not: a tiny kernel in stage0's place drives the devices,
//! with every thread in its jail. Where there is no `/dev/kvm`, a test says so and passes.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use coffer_machine::Refusal;
use coffer_machine::devices::{EXIT_PORT, IO_APICS, LOCAL_APIC, SERIAL_PORT, VIRTIO_MMIO_BASE, VIRTIO_MMIO_STRIDE};
use coffer_machine::map::{HASHES_GPA, PAGE, PAGE_TABLES_GPA, ROM_SIZE};
use coffer_vmm::description::{Card, HostData, Identity, MacAddress, Mtu, word};
use coffer_vmm::{Description, Disk, Snp};
use tempfile::TempDir;

/// What the kernel does.
const DEVICES: u8 = 0;
const DOTS: u8 = 1;
const FALL: u8 = 2;
const NETWORK: u8 = 3;

struct Guest {
    child: Child,
    line: UnixStream,
    folder: TempDir,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Guest {
    /// Starts the kernel; `None` where there is no KVM.
    fn start(mode: u8) -> Option<Self> {
        if File::options().read(true).write(true).open("/dev/kvm").is_err() {
            eprintln!("skipped: there is no /dev/kvm");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let description = describe(folder.path(), mode);
        Some(Self::of(folder, &description))
    }

    fn of(folder: TempDir, description: &Description) -> Self {
        let (line, theirs) = UnixStream::pair().unwrap();
        line.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_coffer-vmm"));
        command.current_dir(folder.path()).stdin(Stdio::from(OwnedFd::from(theirs)));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(command);
        let mut guest = Self { child, line, folder };
        guest.line.write_all(&description.to_line().unwrap()).unwrap();
        guest
    }

    /// Waits until the guest runs.
    fn runs(&mut self) {
        let mut byte = [0];
        let runs = self.line.read_exact(&mut byte).is_ok() && byte[0] == word::RUNS;
        assert!(runs, "{}", self.words());
    }

    fn words(&mut self) -> String {
        let _ = self.child.kill();
        let mut words = String::new();
        let _ = self.child.stderr.take().unwrap().read_to_string(&mut words);
        words
    }

    fn ask(&mut self, said: u8) -> u8 {
        self.line.write_all(&[said]).unwrap();
        let mut byte = [0];
        self.line.read_exact(&mut byte).unwrap();
        byte[0]
    }

    /// The end of the guest: its status, and all it said.
    fn end(mut self) -> (std::process::ExitStatus, String, String) {
        let (mut console, mut words) = (Vec::new(), String::new());
        self.child.stdout.take().unwrap().read_to_end(&mut console).unwrap();
        let status = self.child.wait().unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
        (status, String::from_utf8_lossy(&console).into_owned(), words)
    }
}

fn describe(folder: &Path, mode: u8) -> Description {
    let put = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
    let mut rom = kernel(folder);
    rom.resize(ROM_SIZE, 0);
    put("rom", &rom);
    let mut page = vec![0; PAGE];
    page[0] = mode;
    put("hashes", &page);
    put("bzimage", &bzimage());
    put("initrd", b"");
    put("line", b"\0");
    let mut disk = vec![0; 4096];
    disk[512..528].copy_from_slice(b"native: sector\n\0");
    put("disk", &disk);
    Description {
        memory_bytes: 64 << 20,
        vcpus: 1,
        stage0: "rom".into(),
        hashes: "hashes".into(),
        kernel: "bzimage".into(),
        initrd: "initrd".into(),
        command_line: "line".into(),
        secrets: None,
        disks: vec![Disk { serial: "one".into(), file: "disk".into(), writable: false, kept: false }],
        vsock: "v".into(),
        net: None,
        rng: false,
        snp: None,
    }
}

/// The kernel's bytes, assembled with the machine model's numbers.
fn kernel(folder: &Path) -> Vec<u8> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/native/kernel.s");
    let mut assemble = Command::new("as");
    for (name, value) in [
        ("SERIAL", u64::from(SERIAL_PORT)),
        ("EXIT", EXIT_PORT.into()),
        ("TRANSPORT", VIRTIO_MMIO_BASE),
        ("STRIDE", VIRTIO_MMIO_STRIDE),
        ("IO_APIC", IO_APICS[1].address.into()),
        ("LOCAL_APIC", LOCAL_APIC.into()),
        ("TABLES", PAGE_TABLES_GPA),
        ("MODE", HASHES_GPA),
    ] {
        assemble.args(["--defsym", &format!("{name}={value}")]);
    }
    let object = folder.join("kernel.o");
    assert!(assemble.arg("-o").arg(&object).arg(source).status().unwrap().success());
    let flat = folder.join("kernel.bin");
    let copied = Command::new("objcopy").args(["-O", "binary", "-j", ".text"]).arg(object).arg(&flat).status().unwrap();
    assert!(copied.success());
    std::fs::read(flat).unwrap()
}

/// A kernel in name alone, so that there is something to hand over.
fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 8192];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1F1, &[1]);
    put(0x1F4, &100_u32.to_le_bytes());
    put(0x1FE, &0xAA55_u16.to_le_bytes());
    put(0x200, &[0xEB, 0x6A]);
    put(0x202, b"HdrS");
    put(0x206, &0x020F_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22C, &0x7FFF_FFFF_u32.to_le_bytes());
    put(0x230, &0x0020_0000_u32.to_le_bytes());
    put(0x234, &[1]);
    put(0x236, &0x3F_u16.to_le_bytes());
    put(0x238, &2047_u32.to_le_bytes());
    put(0x260, &0x10_0000_u32.to_le_bytes());
    image
}

#[test]
fn a_kernel_drives_disk_interrupt_and_vsock_and_its_refusal_is_the_status() {
    let Some(mut guest) = Guest::start(DEVICES) else { return };
    let listener = UnixListener::bind(guest.folder.path().join("v_4088")).unwrap();
    guest.runs();
    let host = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut four = [0; 4];
        socket.read_exact(&mut four).unwrap();
        socket.write_all(b"pong\n").unwrap();
        let _ = socket.read(&mut four);
        four
    });
    let (status, console, words) = guest.end();
    assert_eq!(
        console, "native: start\nnative: sector\nnative: read only\nnative: interrupt\npong\n",
        "{status} {words}"
    );
    assert_eq!(&host.join().unwrap(), b"ping");
    assert_eq!(status.code(), Some(Refusal::KernelHash.exit_byte().into()), "{words}");
}

#[test]
fn a_kernel_sends_and_gets_a_frame_and_random_bytes() {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        eprintln!("skipped: there is no /dev/kvm");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("net")).unwrap();
    let mac = MacAddress::try_from("52:54:00:01:02:03".to_string()).unwrap();
    let card = Card { socket: "net".into(), mac, mtu: Mtu::try_from(1500).unwrap() };
    let description = Description { net: Some(card), rng: true, ..describe(folder.path(), NETWORK) };
    let mut guest = Guest::of(folder, &description);
    let (mut peer, _) = listener.accept().unwrap();
    guest.runs();
    let mut heard = [0; 4 + 14 + 15];
    peer.read_exact(&mut heard).unwrap();
    assert_eq!((heard[..4].to_vec(), &heard[18..]), (29_u32.to_be_bytes().to_vec(), &b"native: a frame"[..]));
    let answer = [&heard[10..16], &[0x52, 0x54, 0, 9, 9, 9, 0x88, 0xB5], b"native: an answer\n\0"].concat();
    peer.write_all(&(answer.len() as u32).to_be_bytes()).unwrap();
    peer.write_all(&answer).unwrap();
    // No frame, behind one that is: the guest's link goes down, and it runs on.
    peer.write_all(&[0; 4]).unwrap();
    let (status, console, words) = guest.end();
    assert_eq!(console, "native: an answer\nnative: random\n", "{status} {words}");
    assert_eq!(status.code(), Some(Refusal::KernelHash.exit_byte().into()), "{words}");
    assert!(words.contains("network went down: its other end said a frame of 0 bytes"), "{words}");
}

#[test]
fn a_guest_that_falls_over_ends_the_process_without_blame() {
    let Some(mut guest) = Guest::start(FALL) else { return };
    guest.runs();
    let (status, console, words) = guest.end();
    assert_eq!((status.code(), &*console), (Some(0), ""), "{words}");
}

#[test]
fn a_paused_guest_says_nothing_and_goes_on_where_it_was() {
    let Some(mut guest) = Guest::start(DOTS) else { return };
    guest.runs();
    let mut output = guest.child.stdout.take().unwrap();
    let mut byte = [0; 64];
    output.read_exact(&mut byte).unwrap();
    assert_eq!(guest.ask(word::PAUSE), word::PAUSE);
    let (sent, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Ok(count @ 1..) = output.read(&mut byte) {
            if sent.send(count).is_err() {
                return;
            }
        }
    });
    // What was in the pipe when it stopped.
    while heard.recv_timeout(Duration::from_millis(100)).is_ok() {}
    assert!(heard.recv_timeout(Duration::from_millis(500)).is_err(), "a paused guest speaks");
    assert_eq!(guest.ask(word::RESUME), word::RESUME);
    heard.recv_timeout(Duration::from_secs(10)).expect("it goes on");
    assert_eq!(guest.ask(word::PAUSE), word::PAUSE, "and pauses again");
}

#[test]
fn a_device_sleeps_until_its_driver_starts_whoever_knocks() {
    let Some(mut guest) = Guest::start(DOTS) else { return };
    guest.runs();
    let _draining = guest.child.stdout.take();
    let _knocks = UnixStream::connect(guest.folder.path().join("v")).unwrap();
    let tasks = format!("/proc/{}/task", guest.child.id());
    let devices = || -> Vec<String> {
        let stats =
            std::fs::read_dir(&tasks).unwrap().map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")));
        stats.map(Result::unwrap).filter(|stat| stat.contains("(disk)") || stat.contains("(vsock)")).collect()
    };
    // A thread names itself, once it runs.
    let began = std::time::Instant::now();
    while devices().len() < 2 {
        assert!(began.elapsed() < Duration::from_mins(1), "disk and vsock: {:?}", devices());
        std::thread::sleep(Duration::from_millis(10));
    }
    // Clock ticks of all devices' threads, in user and system mode: fields 14 and 15 (proc(5)).
    let used = || -> u64 {
        let ticks =
            |stat: &String| stat.split(' ').skip(13).take(2).map(|field| field.parse::<u64>().unwrap()).sum::<u64>();
        devices().iter().map(ticks).sum()
    };
    let before = used();
    std::thread::sleep(Duration::from_secs(1));
    assert!(used() - before < 20, "{} of 100 ticks", used() - before);
}

#[test]
fn a_guest_ends_with_the_line_to_its_supervisor() {
    let Some(mut guest) = Guest::start(DOTS) else { return };
    guest.runs();
    let _draining = guest.child.stdout.take();
    guest.line.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(guest.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_description_that_cannot_be_met_is_refused_before_anything_runs() {
    let refused = |change: fn(&mut Description)| {
        let folder = tempfile::tempdir().unwrap();
        let mut description = describe(folder.path(), FALL);
        change(&mut description);
        let (status, console, words) = Guest::of(folder, &description).end();
        assert_eq!((status.code(), &*console), (Some(3), ""), "{words}");
        assert_eq!(status.signal(), None);
        words
    };
    assert!(refused(|it| it.disks[0].file = "/no/such/disk".into()).contains("/no/such/disk"));
    assert!(refused(|it| it.disks = vec![it.disks[0].clone(); 23]).contains("devices"), "the vsock is one, too");
    assert!(refused(|it| it.vcpus = 0).contains("processors"));
    assert!(refused(|it| it.memory_bytes = 5 << 20).contains("memory"));
    assert!(refused(|it| it.kernel = "disk".into()).contains("kernel-format"));
    assert!(refused(|it| it.disks = vec![it.disks[0].clone(); 40]).contains("devices"));
}

#[test]
fn a_card_whose_socket_nobody_listens_at_is_no_machine() {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        eprintln!("skipped: there is no /dev/kvm");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mac = MacAddress::try_from("52:54:00:01:02:03".to_string()).unwrap();
    let card = Card { socket: "no-net".into(), mac, mtu: Mtu::try_from(1500).unwrap() };
    let description = Description { net: Some(card), ..describe(folder.path(), FALL) };
    let (status, console, words) = Guest::of(folder, &description).end();
    assert_eq!((status.code(), &*console), (Some(4), ""), "{words}");
    assert!(words.contains("cannot connect the network card to no-net"), "{words}");
}

fn snp() -> Snp {
    Snp { policy: 0x3_0000, host_data: HostData([0; 32]), identity: None }
}

fn signed(description: &mut Description, block: &str) {
    let identity = Identity { block: block.into(), auth: "hashes".into(), author_key: false };
    description.snp = Some(Snp { identity: Some(identity), ..snp() });
}

#[test]
fn an_snp_guest_is_refused_where_kvm_has_none_and_no_other_runs_instead() {
    let Ok(system) = kvm_ioctls::Kvm::new() else {
        eprintln!("skipped: there is no /dev/kvm");
        return;
    };
    if system.check_extension_raw(kvm_bindings::KVM_CAP_VM_TYPES.into()) >> kvm_bindings::KVM_X86_SNP_VM & 1 == 1 {
        eprintln!("skipped: this host has SEV-SNP");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let description = Description { snp: Some(snp()), ..describe(folder.path(), DOTS) };
    let (status, console, words) = Guest::of(folder, &description).end();
    assert_eq!((status.code(), &*console), (Some(4), ""), "{words}");
    let said = ["this host runs no SEV-SNP guest: its KVM lacks machines of type SEV-SNP", "hint: `coffer doctor`"];
    assert!(said.iter().all(|part| words.contains(part)), "{words}");
}

#[test]
fn an_snp_guest_that_cannot_be_meant_is_refused_by_its_description() {
    let refused = |change: fn(&mut Description)| {
        let folder = tempfile::tempdir().unwrap();
        let mut description = Description { snp: Some(snp()), ..describe(folder.path(), FALL) };
        change(&mut description);
        let (status, console, words) = Guest::of(folder, &description).end();
        assert_eq!((status.code(), &*console), (Some(3), ""), "{words}");
        words
    };
    assert!(refused(|it| it.secrets = Some("hashes".into())).contains("secrets page is for simulation"));
    assert!(refused(|it| it.stage0 = "hashes".into()).contains("stage0 has 4096 bytes"));
    assert!(refused(|it| signed(it, "hashes")).contains("the ID block has 4096 bytes, not 96"));
    assert!(refused(|it| signed(it, "no-such")).contains("cannot open no-such"));
}
