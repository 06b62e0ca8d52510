//! What a host needs for SEV-SNP guests, and what it lacks: asked before anything is made, and said all at once.
//!
//! Source: KVM API §4.4, KVM_CHECK_EXTENSION, and the capabilities by their names.

use std::fmt;

use kvm_bindings::{
    KVM_CAP_EXIT_HYPERCALL, KVM_CAP_GUEST_MEMFD, KVM_CAP_MEMORY_ATTRIBUTES, KVM_CAP_USER_MEMORY2, KVM_CAP_VM_TYPES,
    KVM_MEMORY_ATTRIBUTE_PRIVATE, KVM_X86_SNP_VM,
};

use super::page_state::MAP_GPA_RANGE;

/// Something that this KVM lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Machines of the type.
    Machine,
    /// Memory the host cannot map.
    GuestMemory,
    /// Slots with such memory.
    Slots,
    /// Private and shared pages.
    Attributes,
    /// A way for a guest to ask for either.
    PageStates,
}

impl fmt::Display for Lack {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Machine => "machines of type SEV-SNP (KVM_CAP_VM_TYPES)",
            Self::GuestMemory => "guest_memfd (KVM_CAP_GUEST_MEMFD)",
            Self::Slots => "memory slots with it (KVM_CAP_USER_MEMORY2)",
            Self::Attributes => "private memory (KVM_CAP_MEMORY_ATTRIBUTES)",
            Self::PageStates => "page-state requests (KVM_CAP_EXIT_HYPERCALL)",
        })
    }
}

/// All that this KVM lacks, joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacks(pub Vec<Lack>);

impl fmt::Display for Lacks {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(Lack::to_string).collect();
        out.write_str(&all.join(", "))
    }
}

/// What is lacking; empty where all is there. `capability` asks KVM for one.
pub fn lacking(capability: impl Fn(u32) -> i32) -> Vec<Lack> {
    // A negative answer is an error, not a word of bits.
    let bits = |which: u32| u64::try_from(capability(which)).unwrap_or(0);
    let needed = [
        (Lack::Machine, KVM_CAP_VM_TYPES, 1 << KVM_X86_SNP_VM),
        (Lack::GuestMemory, KVM_CAP_GUEST_MEMFD, 1),
        (Lack::Slots, KVM_CAP_USER_MEMORY2, 1),
        (Lack::Attributes, KVM_CAP_MEMORY_ATTRIBUTES, u64::from(KVM_MEMORY_ATTRIBUTE_PRIVATE)),
        (Lack::PageStates, KVM_CAP_EXIT_HYPERCALL, 1 << MAP_GPA_RANGE),
    ];
    needed.into_iter().filter(|(_, which, wanted)| bits(*which) & wanted == 0).map(|(lack, ..)| lack).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a kernel with SEV-SNP answers.
    fn complete(which: u32) -> i32 {
        match which {
            KVM_CAP_VM_TYPES => 0b1_1111,
            KVM_CAP_GUEST_MEMFD | KVM_CAP_USER_MEMORY2 => 1,
            KVM_CAP_MEMORY_ATTRIBUTES => 8,
            KVM_CAP_EXIT_HYPERCALL => 4096,
            _ => 0,
        }
    }

    #[test]
    fn each_thing_that_is_needed_is_asked_for() {
        assert_eq!(lacking(complete), []);
        let without = |gone: u32| lacking(move |which| if which == gone { 0 } else { complete(which) });
        assert_eq!(without(KVM_CAP_VM_TYPES), [Lack::Machine]);
        assert_eq!(without(KVM_CAP_GUEST_MEMFD), [Lack::GuestMemory]);
        assert_eq!(without(KVM_CAP_USER_MEMORY2), [Lack::Slots]);
        assert_eq!(without(KVM_CAP_MEMORY_ATTRIBUTES), [Lack::Attributes]);
        assert_eq!(without(KVM_CAP_EXIT_HYPERCALL), [Lack::PageStates]);
        assert_eq!(lacking(|_| -1).len(), 5, "an error is no answer");
    }

    #[test]
    fn other_types_of_machine_are_not_enough() {
        assert_eq!(lacking(|which| if which == KVM_CAP_VM_TYPES { 0b1111 } else { complete(which) }), [Lack::Machine]);
        let said = Lacks(lacking(|_| 0)).to_string();
        assert!(said.starts_with("machines of type SEV-SNP") && said.contains("guest_memfd"), "{said}");
    }
}
