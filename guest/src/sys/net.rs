//! Brings the loopback interface up.
//!
//! Source: netdevice(7).

use std::{io, os::fd::AsRawFd};

const _: () = assert!(size_of::<libc::ifreq>() == 40);

/// `ip link set lo up`.
///
/// # Errors
/// The kernel's.
pub fn loopback_up() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: ifreq is integers, bytes and pointers; all zeros is a value of it.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = byte.cast_signed();
    }
    // SAFETY: `request` is a live ifreq with a terminated name; the kernel reads and writes inside it; reading the union's
    // `ifru_flags` is what SIOCGIFFLAGS just wrote.
    let result = unsafe {
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request) == 0 {
            request.ifr_ifru.ifru_flags |= (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
            libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request)
        } else {
            -1
        }
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
