//! PID 1 of a guest that writes to its host's vsock, and does nothing else: what a line out of a guest carries at most. Loads the modules
//! of its initrd as the guest's own init does. Needs nothing but libc.
//!
//! Its command line has `vsock_port=N vsock_bytes=N`. Each connection has that many bytes and ends; then it is opened again.

use std::{
    ffi::{c_char, c_int, c_long, c_uint},
    fs::{self, File},
    io::Write as _,
    os::fd::{AsRawFd as _, FromRawFd as _},
    thread::sleep,
    time::Duration,
};

unsafe extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn connect(fd: c_int, address: *const Address, length: c_uint) -> c_int;
    fn mount(from: *const c_char, to: *const c_char, kind: *const c_char, flags: u64, data: *const c_char) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
}

const AF_VSOCK: c_int = 40;
const SOCK_STREAM: c_int = 1;
const FINIT_MODULE: c_long = 313;
const HOST: c_uint = 2;

/// `struct sockaddr_vm`.
#[repr(C)]
struct Address {
    family: u16,
    reserved: u16,
    port: c_uint,
    cid: c_uint,
    rest: [u8; 4],
}

fn load_modules() {
    let mut names: Vec<_> = fs::read_dir("/modules").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    names.sort();
    for path in names.iter().filter(|path| path.is_file()) {
        if let Ok(file) = File::open(path) {
            // SAFETY: an open file and a string that ends; what is there already, or finds no device, is refused.
            unsafe { syscall(FINIT_MODULE, file.as_raw_fd(), c"".as_ptr(), 0) };
        }
    }
}

fn argument(line: &str, name: &str) -> u32 {
    let word = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    word.and_then(|word| word.parse().ok()).expect("the argument of this name")
}

fn opened(port: u32) -> Option<File> {
    let address = Address { family: AF_VSOCK as u16, reserved: 0, port, cid: HOST, rest: [0; 4] };
    // SAFETY: the address lives until the call is over, and has the length that is said; the descriptor is ours alone.
    unsafe {
        let fd = socket(AF_VSOCK, SOCK_STREAM, 0);
        if fd < 0 {
            return None;
        }
        let file = File::from_raw_fd(fd);
        (connect(fd, &address, size_of::<Address>() as c_uint) == 0).then_some(file)
    }
}

fn main() {
    // SAFETY: strings that end.
    unsafe { mount(c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr(), 0, c"".as_ptr()) };
    load_modules();
    let line = fs::read_to_string("/proc/cmdline").expect("a command line");
    let (port, bytes) = (argument(&line, "vsock_port"), argument(&line, "vsock_bytes") as usize);
    println!("writing {bytes} bytes to port {port}");
    let piece = vec![0; 64 << 10];
    loop {
        if let Some(mut host) = opened(port) {
            let mut left = bytes;
            while left > 0 && host.write_all(&piece[..left.min(piece.len())]).is_ok() {
                left -= left.min(piece.len());
            }
        }
        sleep(Duration::from_millis(100));
    }
}
