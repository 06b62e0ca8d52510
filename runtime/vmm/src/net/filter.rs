//! Which frames pass between a guest's card and whoever carries them further.
//!
//! A guest speaks as itself alone, ARP and IPv4 alone, and to machines that are neither its host's loopback, nor on a link, nor many:
//! no 127.0.0.0/8, no 169.254.0.0/16 with the services of clouds, nor where some have them else, no gateway. Towards the gateway, which stands for clients on the
//! host, it may answer: TCP that opens nothing, UDP to who came in by a port of UDP. It may ask it for names where
//! a resolver of the host answers there. By UDP it hears what answers it, and who comes in by such a port.
//!
//! Trusts: neither the guest nor the other end. Never: keeps state but of [`Datagrams`], changes a frame, looks behind the headers named
//! here.
//! Source: RFC 791 §3.1; RFC 826; RFC 9293 §3.1; RFC 768; RFC 6890.

use std::net::Ipv4Addr;

use super::Refused;
use super::datagrams::Datagrams;
use super::frame::{ARP, DNS, IPV4, Packet, TCP, UDP, arp, ethernet, packet};

/// Where clouds tell machines about themselves at addresses that are not of the link: Azure's host, Alibaba's service, Oracle's older one.
const METADATA: [Ipv4Addr; 3] =
    [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];

/// Addresses of a guest's card, and what stands at its other end.
#[derive(Debug)]
pub struct Filter {
    /// The card's.
    pub mac: [u8; 6],
    /// The guest's.
    pub address: Ipv4Addr,
    /// Mask of the guest's network.
    pub mask: Ipv4Addr,
    /// The gateway's.
    pub gateway: Ipv4Addr,
    /// Names are asked for at the gateway, over UDP.
    pub resolver: bool,
    /// What went by UDP. Whoever lets a frame pass for good notes it here.
    pub datagrams: Datagrams,
}

impl Filter {
    /// Whether a frame of the guest's passes.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn outbound(&self, frame: &[u8]) -> Result<(), Refused> {
        let (header, rest) = ethernet(frame)?;
        if header[6..12] != self.mac {
            return Err(Refused::SenderCard);
        }
        match [header[12], header[13]] {
            ARP => {
                let arp = arp(rest)?;
                // Whoever asks whether an address is free has none yet.
                let sender = arp.sender == self.address || arp.sender == Ipv4Addr::UNSPECIFIED;
                if arp.sender_mac != self.mac {
                    Err(Refused::SenderCard)
                } else if !sender {
                    Err(Refused::SenderAddress)
                } else {
                    Ok(())
                }
            }
            IPV4 => self.packet_out(&packet(rest)?),
            _ => Err(Refused::Protocol),
        }
    }

    /// Whether a frame for the guest passes.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn inbound(&self, frame: &[u8]) -> Result<(), Refused> {
        let (header, rest) = ethernet(frame)?;
        if header[..6] != self.mac && header[..6] != [0xFF; 6] {
            return Err(Refused::NotForIt);
        }
        match [header[12], header[13]] {
            ARP => arp(rest).map(drop),
            IPV4 => self.packet_in(&packet(rest)?),
            _ => Err(Refused::Protocol),
        }
    }

    fn packet_in(&self, packet: &Packet<'_>) -> Result<(), Refused> {
        if packet.to != self.address {
            return Err(Refused::NotForIt);
        }
        if packet.protocol == UDP && !self.datagrams.comes_in(packet) && !self.datagrams.was_asked(packet) {
            return Err(Refused::Unasked);
        }
        Ok(())
    }

    fn packet_out(&self, packet: &Packet<'_>) -> Result<(), Refused> {
        if packet.from != self.address {
            return Err(Refused::SenderAddress);
        }
        let to = packet.to;
        if to.is_loopback() {
            return Err(Refused::Loopback);
        }
        if to.is_link_local() {
            return Err(Refused::LinkLocal);
        }
        if METADATA.contains(&to) {
            return Err(Refused::Metadata);
        }
        let of_many = to.octets()[0] >= 224 || to == (self.address & self.mask) | !self.mask;
        if of_many || to.octets()[0] == 0 || to == self.address {
            return Err(Refused::NoMachine);
        }
        if to == self.gateway && !self.answers(packet) {
            return Err(Refused::Gateway);
        }
        Ok(())
    }

    /// Whether a packet can only be part of what somebody else began, or a question for a name.
    fn answers(&self, packet: &Packet<'_>) -> bool {
        match packet.protocol {
            TCP => !packet.opens(),
            UDP => {
                let asks = self.resolver && packet.ports().is_some_and(|(_, to)| to == DNS);
                asks || self.datagrams.answers(packet)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{ACK, ARP_OF_IPV4, IPV4_HEADER, SYN, TCP_FLAGS};
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn filter() -> Filter {
        Filter {
            mac: MAC,
            address: Ipv4Addr::new(10, 0, 2, 15),
            mask: Ipv4Addr::new(255, 255, 255, 0),
            gateway: Ipv4Addr::new(10, 0, 2, 2),
            resolver: true,
            datagrams: Datagrams::of([53]),
        }
    }

    fn ethernet(from: [u8; 6], to: [u8; 6], kind: [u8; 2], rest: &[u8]) -> Vec<u8> {
        [&to[..], &from, &kind, rest].concat()
    }

    fn ip(from: [u8; 4], to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let length = (IPV4_HEADER + payload.len()) as u16;
        let mut all = vec![0x45, 0];
        all.extend(length.to_be_bytes());
        all.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
        all.extend(from);
        all.extend(to);
        all.extend(payload);
        all
    }

    fn out(packet: &[u8]) -> Result<(), Refused> {
        filter().outbound(&ethernet(MAC, [9; 6], IPV4, packet))
    }

    fn tcp(flags: u8) -> [u8; 20] {
        let mut header = [0; 20];
        header[TCP_FLAGS] = flags;
        header
    }

    const OWN: [u8; 4] = [10, 0, 2, 15];
    const GATEWAY: [u8; 4] = [10, 0, 2, 2];

    #[test]
    fn machines_elsewhere_are_reached_and_nobody_that_is_none() {
        let to = |to: [u8; 4]| out(&ip(OWN, to, TCP, &tcp(SYN)));
        for there in [[192, 0, 2, 1], [10, 0, 2, 3], [8, 8, 8, 8], [169, 253, 255, 255], [128, 0, 0, 1], [126, 0, 0, 1]]
        {
            assert_eq!(to(there), Ok(()), "{there:?}");
        }
        for (there, why) in [
            ([127, 0, 0, 1], Refused::Loopback),
            ([127, 255, 255, 254], Refused::Loopback),
            ([169, 254, 169, 254], Refused::LinkLocal),
            ([169, 254, 0, 1], Refused::LinkLocal),
            ([168, 63, 129, 16], Refused::Metadata),
            ([100, 100, 100, 200], Refused::Metadata),
            ([192, 0, 0, 192], Refused::Metadata),
            ([0, 0, 0, 0], Refused::NoMachine),
            ([0, 1, 2, 3], Refused::NoMachine),
            ([224, 0, 0, 251], Refused::NoMachine),
            ([255, 255, 255, 255], Refused::NoMachine),
            ([10, 0, 2, 255], Refused::NoMachine),
            (OWN, Refused::NoMachine),
            (GATEWAY, Refused::Gateway),
        ] {
            assert_eq!(to(there), Err(why), "{there:?}");
        }
    }

    #[test]
    fn a_guest_speaks_as_itself_alone() {
        let packet = ip(OWN, [192, 0, 2, 1], UDP, &[0; 8]);
        assert_eq!(filter().outbound(&ethernet([3; 6], [9; 6], IPV4, &packet)), Err(Refused::SenderCard));
        assert_eq!(out(&ip([10, 0, 2, 16], [192, 0, 2, 1], UDP, &[0; 8])), Err(Refused::SenderAddress));
        let asks = |mac: [u8; 6], address: [u8; 4], from: [u8; 6]| {
            let body = [&ARP_OF_IPV4[..], &[0, 1], &mac, &address, &[0; 6], &GATEWAY].concat();
            filter().outbound(&ethernet(from, [0xFF; 6], ARP, &body))
        };
        assert_eq!((asks(MAC, OWN, MAC), asks(MAC, [0; 4], MAC)), (Ok(()), Ok(())));
        assert_eq!(asks([3; 6], OWN, MAC), Err(Refused::SenderCard));
        assert_eq!(asks(MAC, OWN, [3; 6]), Err(Refused::SenderCard));
        assert_eq!(asks(MAC, GATEWAY, MAC), Err(Refused::SenderAddress));
    }

    #[test]
    fn to_the_gateway_it_only_answers() {
        let to = |protocol, payload: &[u8]| out(&ip(OWN, GATEWAY, protocol, payload));
        for flags in [ACK, SYN | ACK, ACK | 1, 1 << 2] {
            assert_eq!(to(TCP, &tcp(flags)), Ok(()), "{flags:#x}");
        }
        for flags in [SYN, SYN | 1, SYN | 1 << 6] {
            assert_eq!(to(TCP, &tcp(flags)), Err(Refused::Gateway), "{flags:#x}");
        }
        assert_eq!(to(TCP, &tcp(ACK)[..TCP_FLAGS]), Err(Refused::Gateway), "no flags");
        let (asks, other) = ([1, 1, 0, 53, 0, 8, 0, 0], [0, 53, 1, 1, 0, 8, 0, 0]);
        assert_eq!((to(UDP, &asks), to(UDP, &other)), (Ok(()), Err(Refused::Gateway)));
        let without = Filter { resolver: false, ..filter() };
        let question = ethernet(MAC, [9; 6], IPV4, &ip(OWN, GATEWAY, UDP, &asks));
        assert_eq!(without.outbound(&question), Err(Refused::Gateway));
        assert_eq!(to(1, &[8, 0, 0, 0]), Err(Refused::Gateway));
        for offset in [[0x20, 0], [0, 1], [0x1F, 0xFF]] {
            let mut part = ip(OWN, GATEWAY, TCP, &tcp(ACK));
            part[6..8].copy_from_slice(&offset);
            assert_eq!(out(&part), Err(Refused::Gateway), "{offset:?}");
        }
    }

    #[test]
    fn to_the_gateway_datagrams_answer_who_came_in() {
        let filter = filter();
        let ports = |from: u16, to: u16| [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0, 8, 0, 0]].concat();
        let inside = |from: [u8; 4], payload: &[u8]| ethernet([9; 6], MAC, IPV4, &ip(from, OWN, UDP, payload));
        let outside = |from: u16, to: u16| ethernet(MAC, [9; 6], IPV4, &ip(OWN, GATEWAY, UDP, &ports(from, to)));
        assert_eq!(filter.outbound(&outside(53, 5000)), Err(Refused::Gateway), "nobody asked");
        let asks = inside(GATEWAY, &ports(5000, 53));
        assert_eq!(filter.inbound(&asks), Ok(()));
        filter.datagrams.is_given(&packet(&asks[14..]).unwrap());
        assert_eq!(filter.outbound(&outside(53, 5000)), Ok(()));
        for (from, to) in [(53, 5001), (54, 5000), (5000, 53 + 1)] {
            assert_eq!(filter.outbound(&outside(from, to)), Err(Refused::Gateway), "{from} {to}");
        }
        // And nobody comes in by another port, but for the guest's asking.
        for from in [GATEWAY, [192, 0, 2, 1]] {
            assert_eq!(filter.inbound(&inside(from, &ports(53, 4000))), Err(Refused::Unasked));
        }
        let asks = ethernet(MAC, [9; 6], IPV4, &ip(OWN, [192, 0, 2, 1], UDP, &ports(4000, 53)));
        filter.datagrams.goes_out(&packet(&asks[14..]).unwrap());
        assert_eq!(filter.inbound(&inside([192, 0, 2, 1], &ports(53, 4000))), Ok(()));
        assert_eq!(filter.inbound(&inside(GATEWAY, &ports(53, 4000))), Err(Refused::Unasked));
        let mut part = inside([192, 0, 2, 1], &ports(53, 4000));
        part[14 + 7] = 1;
        assert_eq!(filter.inbound(&part), Err(Refused::Unasked), "ports of which nothing is known");
    }

    #[test]
    fn what_is_no_whole_packet_of_ipv4_does_not_pass() {
        let good = ip(OWN, [192, 0, 2, 1], UDP, &[0; 8]);
        assert_eq!(out(&good), Ok(()));
        for end in 0..good.len() {
            assert_eq!(out(&good[..end]), Err(Refused::Broken), "{end}");
        }
        let with = |at: usize, byte: u8| {
            let mut other = good.clone();
            other[at] = byte;
            out(&other)
        };
        assert_eq!(with(0, 0x46), Err(Refused::Options));
        assert_eq!((with(0, 0x44), with(0, 0x65)), (Err(Refused::Broken), Err(Refused::Broken)));
        assert_eq!((with(3, 19), with(3, 29)), (Err(Refused::Broken), Err(Refused::Broken)));
        for kind in [[0x86, 0xDD], [0x81, 0], [0x88, 0xA8], [0, 60]] {
            assert_eq!(filter().outbound(&ethernet(MAC, [9; 6], kind, &good)), Err(Refused::Protocol), "{kind:?}");
            assert_eq!(filter().inbound(&ethernet([9; 6], MAC, kind, &good)), Err(Refused::Protocol), "{kind:?}");
        }
        assert_eq!(filter().outbound(&[0; 13]), Err(Refused::Broken));
        assert_eq!(filter().inbound(&[]), Err(Refused::Broken));
    }

    #[test]
    fn a_guest_hears_what_is_for_it() {
        let inside = |to: [u8; 6], address: [u8; 4]| {
            filter().inbound(&ethernet([9; 6], to, IPV4, &ip([192, 0, 2, 1], address, TCP, &tcp(SYN))))
        };
        assert_eq!(inside(MAC, OWN), Ok(()));
        assert_eq!(inside([3; 6], OWN), Err(Refused::NotForIt));
        assert_eq!(inside(MAC, [10, 0, 2, 16]), Err(Refused::NotForIt));
        let answer = [&ARP_OF_IPV4[..], &[0, 2], &[9; 6], &GATEWAY, &MAC, &OWN].concat();
        assert_eq!(filter().inbound(&ethernet([9; 6], MAC, ARP, &answer)), Ok(()));
        assert_eq!(filter().inbound(&ethernet([9; 6], MAC, ARP, &answer[..27])), Err(Refused::Broken));
    }
}
