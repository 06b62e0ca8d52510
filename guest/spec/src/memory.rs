//! How much memory a guest of a spec needs at least.
//!
//! The agent and the kernel keep some from the workload, whatever it does, and a workload that is left less than a quarter of what
//! they keep is not started. How much that is follows from the spec alone, so that whoever starts a guest can be told before it boots.

use crate::{Ingress, Peer, Scratch, SealedVolume, Tee, WorkloadSpec};

/// Left to the kernel and the agent.
const RESERVE: u64 = 32 << 20;
/// Left to them where they write a scratch disk or a sealed volume too.
const RESERVE_WITH_DISK: u64 = 48 << 20;
/// Taken by the kernel, the initrd and the agent before anything is available: 82 MiB of 128 with the kernel that Debian has.
const TAKEN: u64 = 84 << 20;
/// Taken besides by an encrypted guest's kernel, for what its devices read and write.
/// Source: Linux arch/x86/mm/mem_encrypt_amd.c, `mem_encrypt_setup_arch`: 6 of 100, and at least `IO_TLB_DEFAULT_SIZE`.
const SHOWN_TO_DEVICES: u64 = 64 << 20;

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

    /// Bytes that must be available inside before the workload starts: it has at least a quarter of what the others keep.
    pub fn least_available(&self) -> u64 {
        self.reserve() + self.reserve() / 4
    }

    /// Bytes of memory that a machine needs at least.
    pub fn least_memory(&self) -> u64 {
        let sealed: u64 = self.sealed_volumes.iter().map(SealedVolume::tag_bytes).sum();
        let shown = if self.tee == Tee::Snp { SHOWN_TO_DEVICES } else { 0 };
        self.least_available() + TAKEN + shown + sealed
    }

    /// What a spec has that needs more memory than a guest without it, as its author would call it; a comma and a blank between.
    pub fn needs_memory_for(&self) -> String {
        let of = [
            (self.tee == Tee::Snp, "SEV-SNP"),
            (matches!(self.root.scratch, Scratch::Disk { .. }), "scratch disk"),
            (!self.sealed_volumes.is_empty(), "sealed volumes"),
            (!self.ingress.is_empty(), "ingress"),
            (!self.peers.is_empty(), "peers"),
        ];
        let named: Vec<&str> = of.iter().filter_map(|(has, name)| has.then_some(*name)).collect();
        if named.is_empty() { "nothing but a kernel and a program".to_owned() } else { named.join(", ") }
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
        assert_eq!((spec.reserve(), spec.least_memory()), (32 << 20, 124 << 20));
        assert_eq!(spec.needs_memory_for(), "nothing but a kernel and a program");
        spec.tee = Tee::Snp;
        assert_eq!((spec.reserve(), spec.least_memory()), (32 << 20, 188 << 20));
        assert_eq!(spec.needs_memory_for(), "SEV-SNP");
        spec.tee = Tee::Simulated;
        spec.ingress.push(Ingress { port: 80, clients: IngressClients::Anyone });
        assert_eq!((spec.reserve(), spec.least_memory()), (96 << 20, 204 << 20));
        spec.root.scratch = Scratch::Disk { bytes: 1 << 20 };
        assert_eq!((spec.reserve(), spec.least_memory()), (112 << 20, 224 << 20));
        let guests = crate::Guests::default();
        let (name, address) = (sample::name("db"), "db:1".to_owned());
        spec.peers.push(Peer { name, address, listen: 1, port: 1, guests });
        assert_eq!((spec.reserve(), spec.least_memory()), (176 << 20, 304 << 20));
        assert_eq!(spec.needs_memory_for(), "scratch disk, ingress, peers");
        spec.peers.clear();
        spec.ingress.clear();
        assert_eq!((spec.reserve(), spec.least_memory()), (48 << 20, 144 << 20));
    }
}
