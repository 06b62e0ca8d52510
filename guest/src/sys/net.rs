//! Brings the loopback interface and a network card up.
//!
//! Source: netdevice(7); route requests: Linux include/uapi/linux/route.h.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
};

const _: () = assert!(size_of::<libc::ifreq>() == 40);
const _: () = assert!(size_of::<libc::rtentry>() == 120);

/// `ip link set lo up`.
///
/// # Errors
/// The kernel's.
pub fn loopback_up() -> io::Result<()> {
    up(&any_socket()?, "lo")
}

/// `ip address add`, `ip link set up` and `ip route add default`, for a card of Ethernet.
///
/// # Errors
/// The kernel's, and for a name that no interface has.
pub fn card_up(card: &str, address: Ipv4Addr, mask: Ipv4Addr, gateway: Ipv4Addr) -> io::Result<()> {
    let socket = any_socket()?;
    for (what, value) in [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, mask)] {
        let mut request = request_for(card)?;
        request.ifr_ifru.ifru_addr = socket_address(value);
        // SAFETY: `request` is a live ifreq with a terminated name and an address; the kernel reads inside it.
        check(unsafe { libc::ioctl(socket.as_raw_fd(), what as _, &raw mut request) })?;
    }
    up(&socket, card)?;
    // SAFETY: rtentry is integers, addresses and pointers; all zeros is a value of it, with no pointer to follow.
    let mut route: libc::rtentry = unsafe { core::mem::zeroed() };
    route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = socket_address(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: `route` is a live rtentry whose device pointer is null; the kernel reads inside it.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT as _, &raw mut route) })
}

fn any_socket() -> io::Result<UdpSocket> {
    UdpSocket::bind("0.0.0.0:0")
}

fn up(socket: &UdpSocket, name: &str) -> io::Result<()> {
    let mut request = request_for(name)?;
    // SAFETY: `request` is a live ifreq with a terminated name; the kernel reads and writes inside it; reading the union's
    // `ifru_flags` is what SIOCGIFFLAGS just wrote.
    check(unsafe {
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request) == 0 {
            request.ifr_ifru.ifru_flags |= (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
            libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request)
        } else {
            -1
        }
    })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A request about an interface, whose name leaves room for its NUL.
fn request_for(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is integers, bytes and pointers; all zeros is a value of it.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
        *place = byte.cast_signed();
    }
    Ok(request)
}

/// An address as `sockaddr_in` has it (ip(7)): two bytes of a port, then the address.
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (place, byte) in data[2..].iter_mut().zip(address.octets()) {
        *place = byte.cast_signed();
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}
