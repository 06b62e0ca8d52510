//! A tap: a network card of one network namespace, whose frames whoever has its descriptor takes and gives, one a read and one a write.
//!
//! Source: Linux Documentation/networking/tuntap.rst, include/uapi/linux/if_tun.h; netdevice(7).
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const _: () = assert!(size_of::<libc::ifreq>() == 40);
const TUNSETIFF: libc::c_ulong = 0x4004_54CA;
const TUNSETPERSIST: libc::c_ulong = 0x4004_54CB;
const TUNSETCARRIER: libc::c_ulong = 0x4004_54E2;
const IFF_TAP: libc::c_short = 2;
const IFF_NO_PI: libc::c_short = 0x1000;
/// What makes one.
pub const TUN: &str = "/dev/net/tun";
/// In `sa_family` of a hardware address.
const ARPHRD_ETHER: libc::sa_family_t = 1;

/// Makes a card in a network namespace, which ends it with itself, once the descriptor is closed. `mtu`: bytes of the longest packet.
///
/// This thread is in that namespace meanwhile, and out of it again afterwards.
///
/// # Errors
/// The kernel's: ENOENT without [`TUN`], EPERM without rights over the namespace.
pub fn tap(namespace: &OwnedFd, name: &str, mac: [u8; 6], mtu: u16) -> io::Result<File> {
    let own = File::open("/proc/thread-self/ns/net")?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let made = tap_here(name, mac, mtu);
    move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Network))?;
    made
}

fn tap_here(name: &str, mac: [u8; 6], mtu: u16) -> io::Result<File> {
    // The card is of the namespace that opens it.
    let tap = File::options().read(true).write(true).open(TUN)?;
    let mut request = request_for(name)?;
    request.ifr_ifru.ifru_flags = IFF_TAP | IFF_NO_PI;
    ask(&tap, TUNSETIFF, &mut request)?;
    // Otherwise whoever closes it waits until no processor looks at it any more (16 ms, mostly a box's whole end).
    set(&tap, TUNSETPERSIST, 1)?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let mut request = request_for(name)?;
    let mut data = [0; 14];
    for (place, byte) in data.iter_mut().zip(mac) {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_hwaddr = libc::sockaddr { sa_family: ARPHRD_ETHER, sa_data: data };
    ask(&socket, libc::SIOCSIFHWADDR as _, &mut request)?;
    let mut request = request_for(name)?;
    request.ifr_ifru.ifru_mtu = mtu.into();
    ask(&socket, libc::SIOCSIFMTU as _, &mut request)?;
    Ok(tap)
}

/// Takes the cable out, as whoever has the card sees it.
///
/// # Errors
/// The kernel's.
pub fn unplug(tap: &File) -> io::Result<()> {
    let carrier: libc::c_int = 0;
    // SAFETY: the kernel reads one live c_int.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETCARRIER as _, &raw const carrier) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn set(tap: &File, what: libc::c_ulong, to: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the argument is a number, not an address.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), what as _, to) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn ask(whom: &impl AsRawFd, what: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: `request` is a live ifreq with a terminated name and the part of the union that `what` reads; the kernel stays inside it.
    let result = unsafe { libc::ioctl(whom.as_raw_fd(), what as _, std::ptr::from_mut(request)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A request about an interface, whose name leaves room for its NUL.
fn request_for(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is integers, bytes and pointers; all zeros is a value of it.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
        *place = byte.cast_signed();
    }
    Ok(request)
}
