//! Ports of the host's that were taken for one box's datagrams.
//!
//! passt opens a port so that others may open it too, so the port itself keeps nobody away. Boxes of one host agree on who has which: by
//! sockets of the abstract namespace, one for each block of ports, which hold no file and are gone with the supervisor however that ends.
//! A port that a service of the host has already is left out.
//!
//! Trusts: the supervisors of other boxes, whoever runs them, to ask first; one who does not can take ports from a box, as every program of
//! the host can, and a service that shares its port from the same range may be heard by the box that began before it. Never: gives one port to two boxes.
//! Source: unix(7) "Abstract sockets"; socket(7) SO_REUSEADDR.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The first port of all blocks: those that the kernel gives to whoever asks for none begin here.
const FIRST: u16 = 32_768;
/// Ports of a block.
const BLOCK: u16 = 64;
const BLOCKS: u16 = 440;
/// Blocks that one box may have: 512 ports.
const MOST: usize = 8;

/// Blocks that are this box's, for as long as it is kept.
#[derive(Debug, Default)]
pub struct Reserved {
    blocks: Vec<UnixDatagram>,
    free: Vec<u16>,
}

impl Reserved {
    /// A port that was not given before; `None` if the box has as many as it may, or the host has no more.
    pub fn take(&mut self) -> Option<u16> {
        loop {
            while let Some(port) = self.free.pop() {
                // Not so that others may have it too: whoever has it keeps it.
                if UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
                    return Some(port);
                }
            }
            self.another_block()?;
        }
    }

    fn another_block(&mut self) -> Option<()> {
        if self.blocks.len() == MOST {
            return None;
        }
        let mut chance = [0; 2];
        // Without chance the first that is free is as good.
        let _ = getrandom::fill(&mut chance);
        let from = u16::from_le_bytes(chance) % BLOCKS;
        let (block, held) = (from..BLOCKS).chain(0..from).find_map(|block| Some((block, held(block)?)))?;
        self.blocks.push(held);
        let first = FIRST + block * BLOCK;
        self.free.extend((first..first + BLOCK).rev());
        Some(())
    }
}

fn held(block: u16) -> Option<UnixDatagram> {
    let name = SocketAddr::from_abstract_name(format!("coffer/udp-ports/{block}")).ok()?;
    UnixDatagram::bind_addr(&name).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice_nor_more_than_a_box_may_have() {
        let (mut one, mut other) = (Reserved::default(), Reserved::default());
        let mut all = BTreeSet::new();
        for _ in 0..2 * MOST * usize::from(BLOCK) {
            for reserved in [&mut one, &mut other] {
                if let Some(port) = reserved.take() {
                    assert!(port >= FIRST && all.insert(port), "{port}");
                }
            }
        }
        assert!(all.len() <= 2 * MOST * usize::from(BLOCK));
        assert!(all.len() > MOST * usize::from(BLOCK), "{}", all.len());
    }

    #[test]
    fn a_port_that_somebody_has_is_left_out() {
        let mut reserved = Reserved::default();
        let first = reserved.take().unwrap();
        let taken = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, first + 1));
        let next = reserved.take().unwrap();
        assert!(taken.is_err() || next != first + 1, "{next}");
    }
}
