//! Tries, from inside a workload, every way around the agent that somebody has thought of, and says of each whether it was open.
//! One line each: `refused NAME: WHY`, or `OPEN NAME: WHAT`. Needs nothing but libc.

use std::{
    ffi::{CString, c_char, c_int, c_long, c_void},
    fs,
    io::{self, Read as _},
    path::Path,
    process::exit,
};

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn mknod(path: *const c_char, mode: u32, device: u64) -> c_int;
    fn fork() -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
}

/// A call with these arguments.
fn call(number: c_long, arguments: [c_long; 6]) -> io::Result<c_long> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: what the arguments point to, if anything, is static or lives through the call, and the kernel checks the rest.
    let result = unsafe { syscall(number, a, b, c, d, e, f) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn say<T>(name: &str, tried: io::Result<T>, what: &str) {
    match tried {
        Ok(_) => println!("OPEN {name}: {what}"),
        Err(error) => println!("refused {name}: {error}"),
    }
}

fn at(text: &std::ffi::CStr) -> c_long {
    text.as_ptr() as c_long
}

/// In a child, because it changes who is asked next.
fn apart(name: &str, what: &str, tried: impl FnOnce() -> io::Result<c_long>) {
    // SAFETY: the child makes one call and ends.
    match unsafe { fork() } {
        0 => exit(i32::from(tried().is_err())),
        child => {
            let mut status = 0;
            // SAFETY: `status` lives through the call.
            unsafe { waitpid(child, &mut status, 0) };
            let refused = io::Error::other("refused, or killed");
            say(name, if status == 0 { Ok(()) } else { Err(refused) }, what);
        }
    }
}

const BLOCK: u32 = 0o060_000;
const CHARACTER: u32 = 0o020_000;

/// A device node of one's own, and whether it leads to the device.
fn device(name: &str, kind: u32, major: u64, minors: impl Iterator<Item = u64>) {
    for minor in minors {
        let path = format!("/tmp/door-{major}-{minor}");
        let text = CString::new(path.as_str()).unwrap();
        // SAFETY: a terminated path.
        let made = unsafe { mknod(text.as_ptr(), kind | 0o600, (major << 8) | (minor & 0xff) | ((minor & !0xff) << 12)) };
        if made == 0 {
            let opened = fs::OpenOptions::new().read(true).open(&path);
            let _ = fs::remove_file(&path);
            if opened.is_ok() {
                println!("OPEN {name}: a node {major}:{minor} of its own");
                return;
            }
        }
    }
    println!("refused {name}: no node leads there");
}

/// A file with something in it: what is covered with an empty one is no door.
fn path(name: &str, path: &str) {
    let tried = fs::File::open(path).and_then(|mut file| file.read_exact(&mut [0]));
    say(name, tried, path);
}

fn write(name: &str, path: &str) {
    // Opened and not written: what is open for writing would do it.
    say(name, fs::OpenOptions::new().write(true).open(path), path);
}

/// Names in a folder that hold one of these words.
fn names(name: &str, folder: &str, words: &[&str]) {
    let all = fs::read_dir(folder).into_iter().flatten().flatten();
    let found: Vec<_> = all
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|entry| words.iter().any(|word| entry.contains(word)))
        .collect();
    let tried = if found.is_empty() { Err(io::Error::other("none is there")) } else { Ok(()) };
    say(name, tried, &found.join(" "));
}

/// A process that is not the workload's.
fn processes() {
    let mut strange = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.chars().all(|c| c.is_ascii_digit()) {
            continue;
        }
        let program = fs::read_link(entry.path().join("exe")).unwrap_or_default();
        let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if program.to_string_lossy().contains("init") || line.contains("coffer-init") || line.contains("in-namespaces") {
            strange.push(format!("{name} {}", program.display()));
        }
        // Whoever started the first process is not among us.
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        if name == "1" && !status.contains("PPid:\t0\n") {
            strange.push("the first process has a parent".into());
        }
    }
    let tried = if strange.is_empty() { Err(io::Error::other("none is seen")) } else { Ok(()) };
    say("agent-process", tried, &strange.join(", "));
}

fn sockets_of_the_agent() {
    let found: Vec<_> = fs::read_dir("/run/coffer").into_iter().flatten().flatten().collect();
    let names: Vec<_> = found.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let tried =
        if names.iter().all(|name| name == "agent.sock") { Err(io::Error::other("its own alone")) } else { Ok(()) };
    say("another-agents-socket", tried, &names.join(" "));
}

/// The table of 32-bit calls, which a filter of the other sees nothing of: socket(AF_VSOCK, SOCK_STREAM, 0).
fn old_table() -> c_long {
    let mut result: i32 = 359;
    // SAFETY: takes no pointer; registers are restored.
    unsafe {
        std::arch::asm!("push rbx", "mov ebx, 40", "int 0x80", "pop rbx", inout("eax") result, in("ecx") 1, in("edx") 0,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    result.into()
}

fn main() {
    let null: *const c_void = std::ptr::null();
    let none = null as c_long;
    let calls: &[(&str, c_long, [c_long; 6])] = &[
        ("vsock", 41, [40, 1, 0, 0, 0, 0]),
        ("vsock-pair", 53, [40, 1, 0, none, 0, 0]),
        ("xdp", 41, [44, 3, 0, 0, 0, 0]),
        // Past what holds the card to its rules: SOL_PACKET, PACKET_QDISC_BYPASS, of whatever socket.
        ("qdisc-bypass", 54, [-1, 263, 20, none, 4, 0]),
        // The same behind the rules: a ring of frames that the sender still writes to (PACKET_TX_RING), and a checksum that the kernel
        // writes into a frame where the sender says (PACKET_VNET_HDR, PACKET_VNET_HDR_SZ).
        ("tx-ring", 54, [-1, 263, 13, none, 16, 0]),
        ("vnet-hdr", 54, [-1, 263, 15, none, 4, 0]),
        ("vnet-hdr-sz", 54, [-1, 263, 24, none, 4, 0]),
        ("io_uring", 425, [1, none, 0, 0, 0, 0]),
        ("bpf", 321, [0, none, 0, 0, 0, 0]),
        ("perf", 298, [none, 0, -1, -1, 0, 0]),
        ("userfaultfd", 323, [0, 0, 0, 0, 0, 0]),
        ("init_module", 175, [none, 0, at(c""), 0, 0, 0]),
        ("finit_module", 313, [0, at(c""), 0, 0, 0, 0]),
        ("delete_module", 176, [at(c"no_such_module"), 0, 0, 0, 0, 0]),
        ("kexec_load", 246, [0, 0, none, 0, 0, 0]),
        ("kexec_file_load", 320, [-1, -1, 0, none, 0, 0]),
        ("mount-root-disk", 165, [at(c"/dev/vda"), at(c"/tmp"), at(c"erofs"), 1, none, 0]),
        ("mount-configfs", 165, [at(c"none"), at(c"/tmp"), at(c"configfs"), 0, none, 0]),
        ("mount-proc", 165, [at(c"none"), at(c"/tmp"), at(c"proc"), 0, none, 0]),
        ("fsopen", 430, [at(c"configfs"), 0, 0, 0, 0, 0]),
        ("open_tree", 428, [-100, at(c"/"), 1, 0, 0, 0]),
        // Of a later kernel than the guest's: there is none, or nobody is told of it.
        ("open_tree_attr", 467, [-100, at(c"/"), 1, none, 0, 0]),
        ("pivot_root", 155, [at(c"/tmp"), at(c"/tmp"), 0, 0, 0, 0]),
        ("open_by_handle", 304, [-100, none, 0, 0, 0, 0]),
        ("iopl", 172, [3, 0, 0, 0, 0, 0]),
        ("ioperm", 173, [0x80, 1, 1, 0, 0, 0]),
        ("swapon", 167, [at(c"/tmp/none"), 0, 0, 0, 0, 0]),
        ("clock", 227, [0, none, 0, 0, 0, 0]),
        ("keyctl", 250, [0, -3, 1, 0, 0, 0]),
        ("reboot", 169, [0xfee1_dead, 672_274_793, 0, none, 0, 0]),
        ("clone3-user", 435, [none, 88, 0, 0, 0, 0]),
        ("x32-table", 0x4000_0000 | 41, [40, 1, 0, 0, 0, 0]),
    ];
    for (name, number, arguments) in calls {
        // A call that the kernel would take with other arguments is open: EINVAL, EFAULT and the like come from behind the door.
        let tried = match call(*number, *arguments) {
            Err(error) if matches!(error.raw_os_error(), Some(1 | 13 | 38 | 97)) => Err(error),
            Err(error) => Ok(error.to_string()),
            Ok(_) => Ok("done".to_owned()),
        };
        let what = tried.as_ref().map(String::clone).unwrap_or_default();
        say(name, tried, &what);
    }
    apart("user-namespace", "unshare", || call(272, [0x1000_0000, 0, 0, 0, 0, 0]));
    apart("mount-namespace", "unshare", || call(272, [0x0002_0000, 0, 0, 0, 0, 0]));
    apart("clone-user", "clone", || match call(56, [0x1000_0000 | 17, 0, 0, 0, 0, 0])? {
        0 => exit(0),
        child => Ok(child),
    });
    apart("another-mount-namespace", "setns", || {
        use std::os::fd::AsRawFd as _;
        call(308, [fs::File::open("/proc/1/ns/mnt")?.as_raw_fd().into(), 0, 0, 0, 0, 0])
    });
    apart("32-bit-table", "int 0x80", || match old_table() {
        failed if failed < 0 => Err(io::Error::other("refused")),
        made => Ok(made),
    });

    names("secure-processor", "/dev", &["sev", "tdx", "tpm", "csv"]);
    names("configfs", "/sys/kernel/config", &["tsm"]);
    names("raw-disks", "/dev", &["vd", "sd", "nvme", "dm-", "loop", "mapper"]);
    names("memory-devices", "/dev", &["mem", "port", "kmsg", "vsock", "fuse", "kvm"]);
    device("secure-processor-node", CHARACTER, 10, 0..256);
    device("memory-node", CHARACTER, 1, [1, 2, 4].into_iter());
    device("disk-node", BLOCK, 254, 0..64);
    device("mapper-node", BLOCK, 253, 0..8);
    path("kernel-memory", "/proc/kcore");
    path("physical-memory", "/dev/mem");
    write("core_pattern", "/proc/sys/kernel/core_pattern");
    write("modprobe", "/proc/sys/kernel/modprobe");
    write("sysrq", "/proc/sysrq-trigger");
    write("uevent_helper", "/sys/kernel/uevent_helper");
    write("power", "/sys/power/state");
    write("release_agent", "/sys/fs/cgroup/release_agent");
    processes();
    sockets_of_the_agent();
    say("agents-program", fs::metadata("/init").or_else(|_| fs::metadata("/proc/1/root/init")), "its file");
    let above = Path::new("/..").canonicalize();
    let tried = match above {
        Ok(path) if path == Path::new("/") => Err(io::Error::other("the root is the top")),
        other => other.map(drop),
    };
    say("above-the-root", tried, "a folder");
    println!("all tried");
}
