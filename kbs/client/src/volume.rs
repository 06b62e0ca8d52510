//! The record of a sealed volume, as guest and broker both read it: a generation counter whose two lowest bits are a state.
//!
//! ```text
//! nobody began it ─► open 1 ─► closed 2 ─► open 3 ─► …          by the guest, each by compare-and-set
//!                    open g ─► confirmed g ─► open g+1           by an owner, where it was not closed
//!                    any g  ─► forgotten g+1 ─► open g+2         by an owner, where it is to begin anew
//! ```
//! A closed record stands for one set of contents: the header of that generation, which only the guest's key makes, has their root.
//! Source: docs/design/sealing.md §7.1.

/// How a volume was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum VolumeState {
    /// Closed: nothing was written to it since.
    Closed = 0,
    /// In use, or it was not closed.
    Open = 1,
    /// It was not closed, and an owner lets it be recovered.
    Confirmed = 2,
    /// An owner lets it begin anew, on an empty disk.
    Forgotten = 3,
}

impl VolumeState {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::Confirmed => "confirmed",
            Self::Forgotten => "forgotten",
        }
    }
}

/// What the broker knows of one volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeRecord {
    /// Rises with each opening and closing.
    pub generation: u64,
    /// How it was left.
    pub state: VolumeState,
}

impl VolumeRecord {
    /// Id of its counter: a subject has one volume of a name.
    pub const COUNTER: [u8; 16] = *b"coffer/volume/v1";
    /// The one before any: of a volume that is made now.
    pub const FIRST: Self = Self { generation: 1, state: VolumeState::Open };
    const MOST: u64 = u64::MAX >> 2;

    /// What a counter says; nothing if nobody began it.
    pub const fn of_counter(counter: u64) -> Option<Self> {
        let state = match counter & 3 {
            0 => VolumeState::Closed,
            1 => VolumeState::Open,
            2 => VolumeState::Confirmed,
            _ => VolumeState::Forgotten,
        };
        if counter >> 2 == 0 { None } else { Some(Self { generation: counter >> 2, state }) }
    }

    /// As a counter. It rises with each step.
    pub const fn counter(self) -> u64 {
        self.generation << 2 | self.state as u64
    }

    /// The next, in this state. A counter that is at its end stays there, and no step leads to where it is.
    const fn next(self, state: VolumeState) -> Self {
        let generation = if self.generation < Self::MOST { self.generation + 1 } else { Self::MOST };
        Self { generation, state }
    }

    /// Of a guest that opens it.
    #[must_use]
    pub const fn opened(self) -> Self {
        self.next(VolumeState::Open)
    }

    /// Of a guest that has closed it.
    #[must_use]
    pub const fn closed(self) -> Self {
        self.next(VolumeState::Closed)
    }

    /// Of an owner who lets it be recovered; nothing where there is nothing to confirm.
    #[must_use]
    pub fn confirmed(self) -> Option<Self> {
        (self.state == VolumeState::Open).then_some(Self { state: VolumeState::Confirmed, ..self })
    }

    /// Of an owner who lets it begin anew.
    #[must_use]
    pub const fn forgotten(self) -> Self {
        self.next(VolumeState::Forgotten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_rises_and_a_counter_is_read_back() {
        assert_eq!(VolumeRecord::of_counter(0), None);
        let closed = VolumeRecord::FIRST.closed();
        let steps = [
            VolumeRecord::FIRST,
            VolumeRecord::FIRST.confirmed().unwrap(),
            closed,
            closed.opened(),
            closed.opened().forgotten(),
            closed.opened().forgotten().opened(),
        ];
        assert!(steps.is_sorted_by(|one, next| one.counter() < next.counter()), "{steps:?}");
        for step in steps {
            assert_eq!(VolumeRecord::of_counter(step.counter()), Some(step));
        }
        assert_eq!(closed.confirmed(), None);
        let last = VolumeRecord::of_counter(u64::MAX).unwrap();
        assert!(last.opened().counter() < last.counter(), "no step leads on from the last");
    }
}
