//! The last step of a handshake, which some versions of passt leave out: a guest that was connected to waits for it before it says the first word,
//! and there are servers that speak first.
//!
//! A pure function of the guest's own answer, which only goes back to the guest: it can tell itself nothing that it did not say.
//! Source: RFC 9293 §3.5 (SYN, SYN and ACK, ACK), §3.10.7.4: one more ACK changes nothing.

use super::translate::checksum;
use crate::net::frame::{ACK, ETHERNET, IPV4, IPV4_HEADER, SYN, TCP, TCP_FLAGS, ethernet, packet};

/// Bytes of a TCP header without options.
const TCP_HEADER: usize = 20;
/// How much the guest may send before it hears more: little, and scaled as the other side said.
const WINDOW: u16 = 256;
const LIVES: u8 = 64;

/// The frame that tells a guest that its answer to an opening came, where its frame is one.
pub fn acknowledged(frame: &[u8]) -> Option<Vec<u8>> {
    let (header, rest) = ethernet(frame).ok()?;
    let packet =
        packet(rest).ok().filter(|packet| header[12..] == IPV4 && packet.protocol == TCP && !packet.is_part)?;
    let tcp: &[u8; TCP_HEADER] = packet.payload.first_chunk()?;
    // Nothing beside the two: not one that ends or resets.
    if tcp[TCP_FLAGS] & 0x17 != SYN | ACK {
        return None;
    }
    let number = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
    let mut segment = [&tcp[2..4], &tcp[..2]].concat();
    segment.extend(number(8).to_be_bytes());
    segment.extend(number(4).wrapping_add(1).to_be_bytes());
    segment.extend([(TCP_HEADER as u8 / 4) << 4, ACK]);
    segment.extend(WINDOW.to_be_bytes());
    segment.extend([0; 4]);
    let (from, to) = (packet.to.octets(), packet.from.octets());
    let pseudo = [&from[..], &to, &[0, TCP, 0, TCP_HEADER as u8], &segment].concat();
    let sum = checksum(&pseudo);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut ip = vec![0x45, 0, 0, (IPV4_HEADER + TCP_HEADER) as u8, 0, 0, 0x40, 0, LIVES, TCP, 0, 0];
    ip.extend(from);
    ip.extend(to);
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut all = [&header[6..12], &header[..6], &IPV4, &ip, &segment].concat();
    // The shortest frame there is.
    all.resize(all.len().max(ETHERNET + 46), 0);
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(flags: u8) -> Vec<u8> {
        let mut all = [&[2; 6][..], &[9; 6], &IPV4, &[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, TCP, 0, 0]].concat();
        all.extend([10, 0, 2, 15, 192, 0, 2, 7, 0, 22, 0x9C, 0x40]);
        all.extend([0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 77, 0x50, flags, 1, 0, 0, 0, 0, 0]);
        all
    }

    #[test]
    fn the_answer_to_an_opening_is_acknowledged_and_nothing_else_is() {
        let frame = acknowledged(&answer(SYN | ACK)).unwrap();
        assert_eq!((&frame[..6], &frame[6..12]), (&[9; 6][..], &[2; 6][..]));
        let ip = &frame[ETHERNET..][..40];
        assert_eq!((&ip[12..16], &ip[16..20]), (&[192, 0, 2, 7][..], &[10, 0, 2, 15][..]));
        assert_eq!(checksum(&ip[..20]), 0);
        let tcp = &ip[20..];
        assert_eq!(&tcp[..4], &[0x9C, 0x40, 0, 22]);
        // What the guest waits for next, and what came of it: its first number is the last there is.
        assert_eq!((&tcp[4..8], &tcp[8..12], tcp[13]), (&[0, 0, 0, 77][..], &[0; 4][..], ACK));
        assert_eq!(checksum(&[&ip[12..20], &[0, TCP, 0, 20], tcp].concat()), 0);
        for flags in [SYN, ACK, SYN | ACK | 1, SYN | ACK | 4, 0] {
            assert_eq!(acknowledged(&answer(flags)), None, "{flags}");
        }
        for cut in 0..ETHERNET + 40 {
            assert_eq!(acknowledged(&answer(SYN | ACK)[..cut]), None, "{cut}");
        }
    }
}
