//! Gives a packet another address, and mends its checksums.
//!
//! Source: RFC 1624 §3; RFC 768 (a UDP checksum of zero is none); RFC 791 §3.1.

use std::net::Ipv4Addr;

use crate::net::frame::{IPV4_HEADER, TCP, UDP};

/// Where an IPv4 header has the sender's address.
pub const FROM: usize = 12;
/// Where it has the receiver's.
pub const TO: usize = 16;
const CHECKSUM: usize = 10;

/// Writes an address of a packet whose header was read. What an error message of ICMP quotes stays as it is.
pub fn readdress(packet: &mut [u8], at: usize, address: Ipv4Addr) {
    let Some(place) = packet.get_mut(at..at + 4) else { return };
    let new = address.octets();
    let Ok(old) = <[u8; 4]>::try_from(&*place) else { return };
    place.copy_from_slice(&new);
    adjust(packet, CHECKSUM, old, new, false);
    // Only the first part of a packet has the header that follows.
    let offset = packet.get(6..8).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]) & 0x1FFF);
    match packet.get(9) {
        Some(&TCP) if offset == 0 => adjust(packet, IPV4_HEADER + 16, old, new, false),
        Some(&UDP) if offset == 0 => adjust(packet, IPV4_HEADER + 6, old, new, true),
        _ => {}
    }
}

/// Writes the sender's or the receiver's port of a datagram of UDP, whole, whose header was read. `at`: [`IPV4_HEADER`] for the sender's, two
/// more for the receiver's.
pub fn report(packet: &mut [u8], at: usize, port: u16) {
    let Some(&[a, b]) = packet.get(at..at + 2) else { return };
    let [c, d] = port.to_be_bytes();
    packet[at..at + 2].copy_from_slice(&[c, d]);
    adjust(packet, IPV4_HEADER + 6, [a, b, 0, 0], [c, d, 0, 0], true);
}

fn adjust(packet: &mut [u8], at: usize, old: [u8; 4], new: [u8; 4], zero_is_none: bool) {
    let Some(place) = packet.get_mut(at..at + 2) else { return };
    let before = u16::from_be_bytes([place[0], place[1]]);
    if zero_is_none && before == 0 {
        return;
    }
    let words = |bytes: [u8; 4]| [u16::from_be_bytes([bytes[0], bytes[1]]), u16::from_be_bytes([bytes[2], bytes[3]])];
    let sum: u32 = words(old).map(|word| !word).into_iter().chain(words(new)).chain([!before]).map(u32::from).sum();
    let after = !fold(sum);
    let after = if zero_is_none && after == 0 { u16::MAX } else { after };
    place.copy_from_slice(&after.to_be_bytes());
}

/// The checksum of an IPv4 header in which that field is zero.
pub fn checksum(header: &[u8]) -> u16 {
    !fold(header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum())
}

/// Adds what carries; twice is enough for as many words as a packet has.
const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xFFFF) + (sum >> 16);
    ((once & 0xFFFF) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Checksum of TCP or UDP over the pseudo-header, zero where it is right.
    fn of_payload(packet: &[u8]) -> u16 {
        let length = (packet.len() - IPV4_HEADER) as u16;
        let pseudo = [&packet[12..20], &[0, packet[9]], &length.to_be_bytes(), &packet[IPV4_HEADER..]].concat();
        checksum(&pseudo)
    }

    fn packet(protocol: u8, from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut all = vec![0x45, 0, 0, (IPV4_HEADER + payload.len()) as u8, 1, 2, 0x40, 0, 64, protocol, 0, 0];
        all.extend(from);
        all.extend(to);
        all.extend(payload);
        let sum = checksum(&all[..IPV4_HEADER]);
        all[10..12].copy_from_slice(&sum.to_be_bytes());
        let at = IPV4_HEADER + if protocol == TCP { 16 } else { 6 };
        all[at..at + 2].fill(0);
        let sum = of_payload(&all);
        all[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        all
    }

    proptest! {
        #[test]
        fn checksums_that_were_right_are_right_again(
            from: [u8; 4], to: [u8; 4], new: [u8; 4], payload in prop::collection::vec(any::<u8>(), 20..60), tcp: bool, at_from: bool,
        ) {
            let mut all = packet(if tcp { TCP } else { UDP }, from, to, &payload);
            // A checksum of none stays none.
            prop_assume!(tcp || all[26..28] != [0, 0]);
            let at = if at_from { FROM } else { TO };
            readdress(&mut all, at, new.into());
            prop_assert_eq!(&all[at..at + 4], &new[..]);
            prop_assert_eq!((checksum(&all[..IPV4_HEADER]), of_payload(&all)), (0, 0));
        }
    }

    #[test]
    fn no_checksum_stays_none_and_a_later_part_is_left_alone() {
        let mut none = packet(UDP, [1, 2, 3, 4], [5, 6, 7, 8], &[9; 20]);
        none[26..28].fill(0);
        readdress(&mut none, TO, [10, 0, 0, 1].into());
        assert_eq!(none[26..28], [0, 0]);
        let mut part = packet(TCP, [1, 2, 3, 4], [5, 6, 7, 8], &[9; 20]);
        part[7] = 1;
        let before = part[IPV4_HEADER..].to_vec();
        readdress(&mut part, FROM, [10, 0, 0, 1].into());
        assert_eq!(part[IPV4_HEADER..], before);
        for end in 0..part.len() {
            readdress(&mut part[..end].to_vec(), TO, [10, 0, 0, 1].into());
        }
    }
}
