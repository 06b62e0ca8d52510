//! Why a frame does not pass the card, and in which direction: what is counted.

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the card to the guest.
    In,
    /// From the guest to the card.
    Out,
}

/// Why a frame does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refused {
    /// It is cut off.
    Broken,
    /// It is neither ARP nor IPv4, of none of the protocols that pass, or marked as another network's (VLAN).
    Kind,
    /// It has options of IPv4, or another version.
    Header,
    /// It is a part of a packet.
    Part,
    /// It is not for the guest, or not from it.
    NotItsOwn,
    /// Its other end is no machine, or none that a guest has to do with.
    NoMachine,
    /// Its other end is another box of a network whose boxes do not reach each other.
    Neighbour,
    /// It begins what no rule lets begin.
    Begins,
    /// No rule allows it.
    Rules,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::In, Self::Out];
}

impl Refused {
    /// Each.
    pub const ALL: [Self; 9] = [
        Self::Broken,
        Self::Kind,
        Self::Header,
        Self::Part,
        Self::NotItsOwn,
        Self::NoMachine,
        Self::Neighbour,
        Self::Begins,
        Self::Rules,
    ];
    /// Of how many it is counted: each in both directions.
    pub const COUNTERS: u32 = 2 * Self::ALL.len() as u32;

    /// Which counter is its.
    pub const fn counter(self, direction: Direction) -> u32 {
        let first = match direction {
            Direction::In => 0,
            Direction::Out => Self::ALL.len() as u32,
        };
        first + self as u32
    }

    /// In a few words, for whoever reads the guest's log.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Broken => "cut off",
            Self::Kind => "neither ARP, TCP, UDP nor ICMP over IPv4",
            Self::Header => "with options of IPv4",
            Self::Part => "in parts",
            Self::NotItsOwn => "of another address",
            Self::NoMachine => "of no machine",
            Self::Neighbour => "of a box that is kept apart",
            Self::Begins => "that would begin what no rule allows",
            Self::Rules => "that no rule allows",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_of_each_direction_has_a_counter_of_its_own() {
        let all = Direction::ALL.into_iter().flat_map(|way| Refused::ALL.map(|refused| refused.counter(way)));
        assert!(all.eq(0..Refused::COUNTERS));
    }
}
