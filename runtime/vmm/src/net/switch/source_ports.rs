//! Ports of the host that a guest's datagrams leave from, in place of the guest's own.
//!
//! Who carries them out sends each from the very port that stands in it, and shares that port with whoever else asks for it: a guest that
//! chose it would hear what is meant for another box, or for a service of the host. So each port of the guest's has one of the host's that was
//! taken for this guest alone, for as long as it says something, and answers come back by it. Ports that others come in by stay as they are.
//!
//! Trusts: whoever gives the ports, that they are nobody else's. Never: gives two ports of the guest's the same, keeps more than it was given.
//! Source: RFC 768; RFC 4787 §4.1 (one mapping for all destinations) and §4.3.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::translate::report;
use crate::net::Refused;
use crate::net::datagrams::Datagrams;
use crate::net::frame::{ETHERNET, IPV4, IPV4_HEADER, UDP, ethernet, packet};
use crate::net::line::now;

/// After how long without a word another port of the guest's may have one.
const PATIENCE: Duration = Duration::from_mins(3);

/// Which port stands for which.
#[derive(Debug, Default)]
pub struct SourcePorts {
    /// Of the host's, and when it was used last, by the guest's.
    outside: HashMap<u16, (u16, Instant)>,
    /// Of the guest's, by the host's.
    inside: HashMap<u16, u16>,
}

impl SourcePorts {
    /// Writes the host's port into a frame that goes out, if it is a datagram. `take`: another port of the host's for this guest.
    ///
    /// # Errors
    /// [`Refused::Ports`] if there is none; a part of a datagram, in which whoever carries it out would read ports where none are.
    pub fn out(
        &mut self,
        frame: &mut [u8],
        datagrams: &Datagrams,
        take: impl FnMut() -> Option<u16>,
    ) -> Result<(), Refused> {
        let Some((own, _)) = ports(frame)? else { return Ok(()) };
        if datagrams.is_published(own) {
            return Ok(());
        }
        let now = now();
        let outside = match self.outside.get(&own) {
            Some((outside, _)) => *outside,
            None => self.another(datagrams, take, now).ok_or(Refused::Ports)?,
        };
        self.outside.insert(own, (outside, now));
        self.inside.insert(outside, own);
        report(&mut frame[ETHERNET..], IPV4_HEADER, outside);
        Ok(())
    }

    /// Writes the guest's port into a frame that comes back. One of a port that stands for none stays as it is.
    ///
    /// # Errors
    /// [`Refused::Broken`].
    pub fn back(&self, frame: &mut [u8]) -> Result<(), Refused> {
        if let Some((_, to)) = ports(frame)?
            && let Some(own) = self.inside.get(&to)
        {
            report(&mut frame[ETHERNET..], IPV4_HEADER + 2, *own);
        }
        Ok(())
    }

    /// One that nobody has, or the one that was silent longest, if it was for long enough.
    fn another(&mut self, datagrams: &Datagrams, mut take: impl FnMut() -> Option<u16>, now: Instant) -> Option<u16> {
        while let Some(free) = take() {
            if !datagrams.is_published(free) && !self.inside.contains_key(&free) {
                return Some(free);
            }
        }
        let (own, (outside, used)) = self.outside.iter().min_by_key(|(_, (_, used))| *used)?;
        let (own, outside) = (*own, *outside);
        if now.duration_since(*used) < PATIENCE {
            return None;
        }
        self.outside.remove(&own);
        self.inside.remove(&outside);
        Some(outside)
    }
}

/// The ports of a datagram; of other frames nothing. A part of one is refused, and so is one without a whole header.
fn ports(frame: &[u8]) -> Result<Option<(u16, u16)>, Refused> {
    let (header, rest) = ethernet(frame)?;
    if header[12..] != IPV4 {
        return Ok(None);
    }
    let packet = packet(rest)?;
    if packet.protocol == UDP { packet.ports().ok_or(Refused::Broken).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::line::clock;

    /// A datagram, with a checksum over its ports and payload alone, which is how much it may change by.
    fn frame(from: u16, to: u16) -> Vec<u8> {
        let mut all = vec![0; ETHERNET + IPV4_HEADER + 12];
        all[12..14].copy_from_slice(&IPV4);
        all[ETHERNET] = 0x45;
        all[ETHERNET + 3] = (IPV4_HEADER + 12) as u8;
        all[ETHERNET + 9] = UDP;
        let udp = &mut all[ETHERNET + IPV4_HEADER..];
        udp[..2].copy_from_slice(&from.to_be_bytes());
        udp[2..4].copy_from_slice(&to.to_be_bytes());
        udp[8..].copy_from_slice(b"data");
        let sum = super::super::translate::checksum(udp);
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
        all
    }

    fn ports_of(frame: &[u8]) -> (u16, u16) {
        // Still right: all words with the checksum among them give nothing.
        assert_eq!(super::super::translate::checksum(&frame[ETHERNET + IPV4_HEADER..]), 0);
        ports(frame).unwrap().unwrap()
    }

    #[test]
    fn each_port_of_the_guests_has_one_that_was_taken_for_it_and_answers_come_back_by_it() {
        let (mut all, none) = (SourcePorts::default(), Datagrams::default());
        let mut free = (40_000..40_002_u16).rev().collect::<Vec<_>>();
        let sent = |from, all: &mut SourcePorts, free: &mut Vec<u16>| {
            let mut frame = frame(from, 53);
            all.out(&mut frame, &none, || free.pop()).map(|()| ports_of(&frame))
        };
        // However often, and whatever port it asks for: also one that is somebody's.
        assert_eq!(sent(15_360, &mut all, &mut free), Ok((40_000, 53)));
        assert_eq!(sent(15_360, &mut all, &mut free), Ok((40_000, 53)));
        assert_eq!(sent(40_000, &mut all, &mut free), Ok((40_001, 53)));
        assert_eq!(sent(1, &mut all, &mut free), Err(Refused::Ports));
        for (came, given) in [(40_000, 15_360), (40_001, 40_000), (15_360, 15_360)] {
            let mut answer = frame(53, came);
            all.back(&mut answer).unwrap();
            assert_eq!(ports_of(&answer), (53, given));
        }
        // The one that was silent longest is another's then, and no answer to it comes back any more.
        clock::pass(Duration::from_secs(100));
        assert_eq!(sent(40_000, &mut all, &mut free), Ok((40_001, 53)));
        clock::pass(Duration::from_secs(100));
        assert_eq!(sent(1, &mut all, &mut free), Ok((40_000, 53)));
        assert_eq!(sent(15_360, &mut all, &mut free), Err(Refused::Ports));
    }

    #[test]
    fn ports_that_others_come_in_by_stay_as_they_are_and_are_no_others() {
        let (mut all, published) = (SourcePorts::default(), Datagrams::of([5353, 40_001]));
        let mut free = vec![40_002, 40_001];
        let mut answer = frame(5353, 700);
        all.out(&mut answer, &published, || free.pop()).unwrap();
        assert_eq!(ports_of(&answer), (5353, 700));
        let mut asked = frame(9, 700);
        all.out(&mut asked, &published, || free.pop()).unwrap();
        assert_eq!(ports_of(&asked), (40_002, 700));
    }

    #[test]
    fn a_part_of_a_datagram_goes_nowhere_and_what_is_none_stays() {
        let (mut all, none) = (SourcePorts::default(), Datagrams::default());
        let mut part = frame(9, 9);
        part[ETHERNET + 6] = 0x20;
        assert_eq!(all.out(&mut part, &none, || Some(40_000)), Err(Refused::Broken));
        let mut other = frame(9, 9);
        other[ETHERNET + 9] = 6;
        let before = other.clone();
        all.out(&mut other, &none, || Some(40_000)).unwrap();
        assert_eq!(other, before);
    }
}
