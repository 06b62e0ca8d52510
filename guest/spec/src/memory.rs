//! How much memory a guest of a spec needs at least.
//!
//! The agent and the kernel keep some from the workload, whatever it does, and a workload that is left less than half of what they
//! keep is not started. How much that is follows from the spec alone, so that whoever starts a guest can be told before it boots.

use crate::{Ingress, Peer, Scratch, SealedVolume, WorkloadSpec};

/// Left to the kernel and the agent.
const RESERVE: u64 = 32 << 20;
/// Left to them where they write a scratch disk or a sealed volume too.
const RESERVE_WITH_DISK: u64 = 48 << 20;
/// Taken by the kernel, the initrd and the agent before anything is available.
const TAKEN: u64 = 96 << 20;

impl WorkloadSpec {
    /// The least that is left to the kernel and the agent, whatever a spec says.
    pub const LEAST_RESERVE: u64 = RESERVE;

    /// Bytes that are left to the kernel and the agent, and never to the workload.
    pub fn reserve(&self) -> u64 {
        let writes = matches!(self.root.scratch, Scratch::Disk { .. }) || !self.sealed_volumes.is_empty();
        let own = if writes { RESERVE_WITH_DISK } else { RESERVE };
        let ingress = if self.ingress.is_empty() { 0 } else { Ingress::MEMORY };
        let peers = if self.peers.is_empty() { 0 } else { Peer::MEMORY };
        own + ingress + peers
    }

    /// Bytes that must be available inside before the workload starts: it has at least half of what the others keep.
    pub fn least_available(&self) -> u64 {
        self.reserve() + self.reserve() / 2
    }

    /// Bytes of memory that a machine needs at least.
    pub fn least_memory(&self) -> u64 {
        let sealed: u64 = self.sealed_volumes.iter().map(SealedVolume::tag_bytes).sum();
        self.least_available() + TAKEN + sealed
    }

    /// Bytes of guest memory that tags of disks take, all of it from the start.
    pub fn tag_bytes(&self) -> u64 {
        self.root.scratch.tag_bytes() + self.sealed_volumes.iter().map(SealedVolume::tag_bytes).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IngressClients, Tee, sample};

    #[test]
    fn more_is_left_where_the_agent_does_more() {
        let mut spec = sample::workload(Tee::Simulated);
        assert_eq!((spec.reserve(), spec.least_memory()), (32 << 20, 144 << 20));
        spec.ingress.push(Ingress { port: 80, clients: IngressClients::Anyone });
        assert_eq!((spec.reserve(), spec.least_memory()), (96 << 20, 240 << 20));
        spec.root.scratch = Scratch::Disk { bytes: 1 << 20 };
        assert_eq!((spec.reserve(), spec.least_memory()), (112 << 20, 264 << 20));
        let guests = crate::Guests::default();
        let (name, address) = (sample::name("db"), "db:1".to_owned());
        spec.peers.push(Peer { name, address, listen: 1, port: 1, guests });
        assert_eq!((spec.reserve(), spec.least_memory()), (176 << 20, 360 << 20));
        spec.peers.clear();
        spec.ingress.clear();
        assert_eq!((spec.reserve(), spec.least_memory()), (48 << 20, 168 << 20));
    }
}
