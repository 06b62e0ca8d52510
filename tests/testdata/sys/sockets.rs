//! Asks its kernel for sockets: of each `FAMILY:TYPE:PROTOCOL` it says `made` or the number of the error, one line each. Of an order to a
//! datagram socket (`ioctl:NUMBER`) it says `taken`, or the same.

use std::{
    env,
    ffi::{c_int, c_long, c_ulong},
    io,
    os::fd::AsRawFd as _,
};

unsafe extern "C" {
    fn socket(family: c_int, of_type: c_int, protocol: c_int) -> c_int;
    fn ioctl(fd: c_int, order: c_ulong, ...) -> c_int;
}

fn main() {
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for wanted in env::args().skip(1) {
        let (result, word) = if let Some(order) = wanted.strip_prefix("ioctl:") {
            let order = c_ulong::from_str_radix(order, 16).expect("a number");
            // SAFETY: the address is none, and the kernel checks it.
            (unsafe { ioctl(datagrams.as_raw_fd(), order, 0 as c_long) }, "taken")
        } else {
            let numbers: Vec<c_int> = wanted.split(':').map(|number| number.parse().expect("a number")).collect();
            let [family, of_type, protocol] = numbers[..] else { panic!("{wanted} is no FAMILY:TYPE:PROTOCOL") };
            // SAFETY: takes numbers.
            (unsafe { socket(family, of_type, protocol) }, "made")
        };
        let error = io::Error::last_os_error().raw_os_error().unwrap_or_default();
        println!("{wanted} {}", if result < 0 { error.to_string() } else { word.to_owned() });
    }
}
