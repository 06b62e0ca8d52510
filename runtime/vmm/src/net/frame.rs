//! Headers of Ethernet, ARP and IPv4, as far as a filter or a switch looks at them.
//!
//! Source: RFC 826; RFC 791 §3.1; RFC 9293 §3.1; RFC 768.

use std::net::Ipv4Addr;

use super::Refused;

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// EtherType of ARP.
pub const ARP: [u8; 2] = [0x08, 0x06];
/// EtherType of IPv4.
pub const IPV4: [u8; 2] = [0x08, 0x00];
/// Ethernet and IPv4, as ARP has them: kinds, lengths of addresses.
pub const ARP_OF_IPV4: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const ARP_LENGTH: usize = 28;
/// Bytes of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// Bytes of a UDP header.
pub const UDP_HEADER: usize = 8;
/// Protocol numbers.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// Port of resolvers.
pub const DNS: u16 = 53;
/// Where TCP has its flags.
pub const TCP_FLAGS: usize = 13;
/// Opens a connection.
pub const SYN: u8 = 1 << 1;
/// Answers something.
pub const ACK: u8 = 1 << 4;

/// The Ethernet header, and what is behind it.
pub fn ethernet(frame: &[u8]) -> Result<(&[u8; ETHERNET], &[u8]), Refused> {
    frame.split_first_chunk().ok_or(Refused::Broken)
}

/// Who asks whom, or answers.
pub struct Arp {
    pub is_question: bool,
    pub sender_mac: [u8; 6],
    pub sender: Ipv4Addr,
    pub target: Ipv4Addr,
}

/// Reads what is behind the Ethernet header of an ARP frame.
pub fn arp(bytes: &[u8]) -> Result<Arp, Refused> {
    let arp: &[u8; ARP_LENGTH] = bytes.first_chunk().ok_or(Refused::Broken)?;
    if arp[..6] != ARP_OF_IPV4 || arp[6] != 0 || !matches!(arp[7], 1 | 2) {
        return Err(Refused::Broken);
    }
    let [m0, m1, m2, m3, m4, m5, a, b, c, d] = *arp[8..].first_chunk().ok_or(Refused::Broken)?;
    Ok(Arp {
        is_question: arp[7] == 1,
        sender_mac: [m0, m1, m2, m3, m4, m5],
        sender: Ipv4Addr::new(a, b, c, d),
        target: Ipv4Addr::new(arp[24], arp[25], arp[26], arp[27]),
    })
}

/// An IPv4 packet.
pub struct Packet<'a> {
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    pub protocol: u8,
    /// Of a packet that was cut up: ports and flags are in one part alone.
    pub is_part: bool,
    /// Whole, or the part that they are in.
    pub is_first: bool,
    pub payload: &'a [u8],
}

impl Packet<'_> {
    /// Whether it can begin a connection of TCP: it does, or there is no telling.
    pub fn opens(&self) -> bool {
        let answers = |flags: &u8| flags & (SYN | ACK) != SYN;
        self.protocol == TCP && (self.is_part || !self.payload.get(TCP_FLAGS).is_some_and(answers))
    }

    /// The sender's port and the receiver's, where they stand here.
    pub fn ports(&self) -> Option<(u16, u16)> {
        self.ports_of_first().filter(|_| !self.is_part)
    }

    /// The same, be it of the first part alone. Others follow it with no word of theirs: a part is eight bytes at least.
    pub fn ports_of_first(&self) -> Option<(u16, u16)> {
        let [a, b, c, d] = *self.payload.first_chunk()?;
        let has_ports = matches!(self.protocol, TCP | UDP) && self.is_first;
        has_ports.then_some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }
}

/// Reads what is behind the Ethernet header of an IPv4 frame.
pub fn packet(bytes: &[u8]) -> Result<Packet<'_>, Refused> {
    let header: &[u8; IPV4_HEADER] = bytes.first_chunk().ok_or(Refused::Broken)?;
    match header[0] {
        0x45 => {}
        0x46..=0x4F => return Err(Refused::Options),
        _ => return Err(Refused::Broken),
    }
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let payload = bytes.get(IPV4_HEADER..length).ok_or(Refused::Broken)?;
    // "More fragments", or an offset.
    let cut = u16::from_be_bytes([header[6], header[7]]);
    let (more, offset) = (cut & 0x2000 != 0, cut & 0x1FFF);
    let (is_part, is_first) = (more || offset != 0, offset == 0);
    let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    Ok(Packet { from: address(12), to: address(16), protocol: header[9], is_part, is_first, payload })
}
