//! The programs at the card: loaded, attached, and held as long as the guest lives.

use std::io;

use coffer_spec::{CardRules, Network};

use super::{
    plan::Plan,
    program::{KEY, Maps, program},
    refused::{Direction, Refused},
};
use crate::sys::bpf::{Link, Map, Program};

/// So many are remembered of either direction by UDP.
const MOST: u32 = 4096;

/// Programs at a card. Dropped, they are there no more: whoever has it keeps it until the guest ends.
#[derive(Debug)]
pub struct Held {
    _links: [Link; 2],
    dropped: Map,
}

/// Why the rules are not in force.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The rules make no program.
    #[error("assemble the rules of the network card: {0}")]
    Assemble(#[from] super::assembler::AssembleError),
    /// The kernel.
    #[error("{what}: {error}")]
    Kernel {
        /// What was being done.
        what: &'static str,
        /// Its words.
        error: io::Error,
    },
}

/// Holds a card to its rules. `index`: of the card.
///
/// # Errors
/// [`HoldError`]; the card must not be used then.
pub fn hold(index: u32, card: &Network, rules: &CardRules) -> Result<Held, HoldError> {
    let Loaded { programs, dropped, .. } = Loaded::new(&Plan::of(card, rules))?;
    let attach = |(program, direction): (&Program, Direction)| {
        program.attach(index, direction).map_err(kernel("attach the rules of the network card"))
    };
    let [inward, outward] = [(&programs[0], Direction::In), (&programs[1], Direction::Out)].map(attach);
    Ok(Held { _links: [inward?, outward?], dropped })
}

impl Held {
    /// How many frames were dropped for each reason, of those for which any was.
    pub fn dropped(&self) -> Vec<(Direction, Refused, u64)> {
        let all = Direction::ALL.into_iter().flat_map(|way| Refused::ALL.map(|why| (way, why)));
        let counted = all.filter_map(|(way, why)| Some((way, why, self.dropped.counter(why.counter(way)).ok()?)));
        counted.filter(|(.., count)| *count > 0).collect()
    }
}

/// The two programs and their maps.
pub(super) struct Loaded {
    /// For each of [`Direction::ALL`].
    pub programs: [Program; 2],
    /// What the guest sent by UDP.
    #[cfg_attr(not(test), allow(dead_code, reason = "the programs hold it"))]
    pub sent: Map,
    /// What it heard.
    #[cfg_attr(not(test), allow(dead_code, reason = "the programs hold it"))]
    pub heard: Map,
    /// Counters of [`Refused::counter`].
    pub dropped: Map,
}

impl Loaded {
    /// Loads them, and attaches nothing.
    pub fn new(plan: &Plan) -> Result<Self, HoldError> {
        let recent = || Map::recent(KEY, MOST).map_err(kernel("make room for what goes by UDP"));
        let (sent, heard) = (recent()?, recent()?);
        let dropped = Map::counters(Refused::COUNTERS).map_err(kernel("make counters of what is dropped"))?;
        let maps = Maps { sent: sent.descriptor(), heard: heard.descriptor(), dropped: dropped.descriptor() };
        let load = |direction| {
            let instructions = program(plan, direction, maps)?;
            Program::load(&instructions, direction).map_err(kernel("load the rules of the network card"))
        };
        let [inward, outward] = Direction::ALL.map(load);
        Ok(Self { programs: [inward?, outward?], sent, heard, dropped })
    }
}

fn kernel(what: &'static str) -> impl FnOnce(io::Error) -> HoldError {
    move |error| HoldError::Kernel { what, error }
}
