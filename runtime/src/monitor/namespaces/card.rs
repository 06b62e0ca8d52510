//! The network card of a box in namespaces: a tap in the box's network namespace, whose other end the holder has.
//!
//! The box's own root has the interface, and may do with it what a guest may with its card; frames go the way of a machine's: to
//! the socket in the box folder where the box's port of the switch listens, each behind its length. The box has neither the tap's
//! descriptor nor `/dev/net/tun`, and no other card leads out of its namespace.
//!
//! Trusts: whoever listens there, for frames. Never: looks into a frame, keeps more than one of each direction.
//! Source: QEMU net/stream.c, for the lengths.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use coffer_rim::{Class, Classify as _, Failure};
use coffer_vmm::net::{LONGEST, SHORTEST};

use super::order;
use crate::sys::tap::{tap, unplug};

/// How the box calls it.
const NAME: &str = "eth0";
/// Bytes that are read in one go.
const BATCH: usize = 64 << 10;

/// A card that is plugged in.
#[derive(Debug)]
pub struct Card {
    tap: File,
    line: UnixStream,
}

impl Card {
    /// Makes the card in a box's network namespace, and connects its other end.
    ///
    /// # Errors
    /// Class `platform`: what this host does not let us do.
    pub fn plug(card: &order::Card, network: &OwnedFd) -> Result<Self, Failure> {
        let tap = tap(network, NAME, card.mac, card.mtu).map_err(|error| {
            let failure = Failure::caused(Class::Platform, &error).while_doing("cannot make a network card");
            failure.hint("it takes /dev/net/tun: load the module `tun`, or leave the card out (--network none)")
        })?;
        let line = UnixStream::connect(&card.socket).class_while(Class::Platform, "cannot plug the network card in")?;
        Ok(Self { tap, line })
    }

    /// Carries its frames beside this thread, as long as both ends are there. When the other end is gone the cable is out.
    ///
    /// # Errors
    /// If the kernel gives no thread.
    pub fn carry(self) -> io::Result<()> {
        let (tap, line) = (Arc::new(self.tap), self.line.try_clone()?);
        let card = Arc::clone(&tap);
        let from = self.line;
        thread::Builder::new().spawn(move || from_box(&card, &from))?;
        thread::Builder::new().spawn(move || {
            let _ = to_box(&line, &tap);
            let _ = line.shutdown(std::net::Shutdown::Both);
            let _ = unplug(&tap);
        })?;
        Ok(())
    }
}

fn from_box(mut tap: &File, mut line: &UnixStream) -> io::Result<()> {
    const LENGTH: usize = 4;
    let mut bytes = vec![0; LENGTH + LONGEST];
    loop {
        match tap.read(&mut bytes[LENGTH..]) {
            Ok(length) if (SHORTEST..=LONGEST).contains(&length) => {
                bytes[..LENGTH].copy_from_slice(&(length as u32).to_be_bytes());
                line.write_all(&bytes[..LENGTH + length])?;
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn to_box(line: &UnixStream, mut tap: &File) -> io::Result<()> {
    let mut line = BufReader::with_capacity(BATCH, line);
    let mut frame = vec![0; LONGEST];
    loop {
        let mut length = [0; 4];
        line.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        let frame = frame.get_mut(..length).filter(|_| length >= SHORTEST).ok_or(io::ErrorKind::InvalidData)?;
        line.read_exact(frame)?;
        // One that the box does not take (its interface is down) is lost, as on any wire.
        let _ = tap.write(frame);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn frames_cross_whole_in_both_directions_and_no_length_of_none_is_believed() {
        let (tap, inside) = UnixDatagram::pair().unwrap();
        let (line, mut port) = UnixStream::pair().unwrap();
        Card { tap: File::from(OwnedFd::from(tap)), line }.carry().unwrap();
        for frame in [vec![1; SHORTEST], vec![2; LONGEST]] {
            let framed = [&(frame.len() as u32).to_be_bytes()[..], &frame].concat();
            inside.send(&frame).unwrap();
            let mut heard = vec![0; framed.len()];
            port.read_exact(&mut heard).unwrap();
            assert!(heard == framed);
            for piece in framed.chunks(9) {
                port.write_all(piece).unwrap();
            }
            let mut heard = vec![0; LONGEST + 1];
            let length = inside.recv(&mut heard).unwrap();
            assert!(heard[..length] == frame);
        }
        // What is no frame is not handed on.
        inside.send(&[3; SHORTEST - 1]).unwrap();
        inside.send(&[4; SHORTEST]).unwrap();
        let mut length = [0; 4];
        port.read_exact(&mut length).unwrap();
        assert_eq!(u32::from_be_bytes(length) as usize, SHORTEST);
        port.write_all(&(LONGEST as u32 + 1).to_be_bytes()).unwrap();
        let mut rest = Vec::new();
        port.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, [4; SHORTEST]);
    }
}
