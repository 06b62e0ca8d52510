//! The header of a packet.

use coffer_machine::vsock::{GUEST_CID, HOST_CID};

/// Bytes of a header.
pub const SIZE: usize = 44;

/// What a packet is for (Virtio 1.2 §5.10.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Opens a stream.
    Request,
    /// Accepts it.
    Response,
    /// Ends or refuses it.
    Reset,
    /// Says that one end reads or writes no more.
    Shutdown,
    /// Bytes.
    Data,
    /// Tells how much room there is.
    CreditUpdate,
    /// Asks how much room there is.
    CreditRequest,
}

impl Operation {
    fn of(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }

    const fn number(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Reset => 3,
            Self::Shutdown => 4,
            Self::Data => 5,
            Self::CreditUpdate => 6,
            Self::CreditRequest => 7,
        }
    }
}

/// The two ports of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ports {
    /// The guest's.
    pub guest: u32,
    /// The host's.
    pub host: u32,
}

/// In the flags of a shutdown: the sender reads no more.
pub const NO_MORE_READING: u32 = 1;
/// The sender writes no more.
pub const NO_MORE_WRITING: u32 = 2;

/// A header, between the guest and this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Of which stream.
    pub ports: Ports,
    /// What for.
    pub operation: Operation,
    /// Bytes behind the header.
    pub length: u32,
    /// Of a shutdown.
    pub flags: u32,
    /// Bytes the sender keeps for the stream.
    pub buffer: u32,
    /// Bytes the sender has passed on, in all.
    pub forwarded: u32,
}

/// Why a packet is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odd {
    /// It is from or to somebody else: dropped.
    Stranger,
    /// It belongs to these ports and is no stream's: answered with a reset.
    Unknown(Ports),
}

impl Header {
    /// Reads what the guest sent.
    ///
    /// # Errors
    /// [`Odd`].
    pub fn parse(bytes: &[u8; SIZE]) -> Result<Self, Odd> {
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
        let half = |at: usize| u16::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
        if [word(0), word(4), word(8), word(12)] != [GUEST_CID, 0, HOST_CID, 0] {
            return Err(Odd::Stranger);
        }
        let ports = Ports { guest: word(16), host: word(20) };
        match Operation::of(half(30)) {
            Some(operation) if half(28) == STREAM => {
                Ok(Self { ports, operation, length: word(24), flags: word(32), buffer: word(36), forwarded: word(40) })
            }
            _ => Err(Odd::Unknown(ports)),
        }
    }

    /// Writes what the guest is sent.
    pub fn to_bytes(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        let words = [
            (0, HOST_CID),
            (8, GUEST_CID),
            (16, self.ports.host),
            (20, self.ports.guest),
            (24, self.length),
            (28, u32::from(STREAM) | u32::from(self.operation.number()) << 16),
            (32, self.flags),
            (36, self.buffer),
            (40, self.forwarded),
        ];
        for (at, word) in words {
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// Type of a packet: of a stream.
const STREAM: u16 = 1;

#[cfg(test)]
pub mod tests {
    use super::*;

    /// What a guest would write.
    pub fn from_guest(header: &Header) -> [u8; SIZE] {
        let mut bytes = header.to_bytes();
        let (one, other) = bytes.split_at_mut(8);
        one.swap_with_slice(&mut other[..8]);
        bytes[16..20].copy_from_slice(&header.ports.guest.to_le_bytes());
        bytes[20..24].copy_from_slice(&header.ports.host.to_le_bytes());
        bytes
    }

    #[test]
    fn a_packet_is_from_the_guest_to_the_host_or_nobodys() {
        let header = Header {
            ports: Ports { guest: 7, host: 4088 },
            operation: Operation::Shutdown,
            length: 3,
            flags: NO_MORE_WRITING,
            buffer: 5,
            forwarded: 6,
        };
        let bytes = from_guest(&header);
        assert_eq!(Header::parse(&bytes), Ok(header));
        for at in 0..16 {
            let mut other = bytes;
            other[at] ^= 1;
            assert_eq!(Header::parse(&other), Err(Odd::Stranger), "byte {at}");
        }
        for at in 28..32 {
            let mut other = bytes;
            other[at] ^= 0x40;
            assert_eq!(Header::parse(&other), Err(Odd::Unknown(header.ports)), "byte {at}");
        }
        assert_eq!(Header::parse(&header.to_bytes()), Err(Odd::Stranger));
    }
}
