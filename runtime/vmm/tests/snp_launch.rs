//! The launch of an SEV-SNP guest, call by call, on a host that records: what is called, in which order, with what.
//!
//! No hardware and no kernel took part in this. Each line of the expected calls says who else does it so; `docs/vmm.md`
//! explains where they differ. Sources, as they were read: Linux arch/x86/kvm/svm/sev.c (of 6.16) and its
//! Documentation/virt/kvm/x86/amd-memory-encryption.rst; QEMU target/i386/sev.c (of 9.1); cloud-hypervisor at
//! ae44c2971c83dd2b1bd704fa81102ec0dec4e7d4.

#[path = "snp/recorder.rs"]
mod recorder;

use coffer_machine::entry::PARKED_RIP;
use coffer_machine::map::{
    CPUID_GPA, HASHES_GPA, PAGE, PAGE_TABLES_GPA, PARKING_GPA, ROM_SIZE, SECRETS_GPA, SHARED_HANDOVER_GPA, STAGE0_GPA,
};
use coffer_machine::memory::Range;
use coffer_vmm::snp::firmware::Status;
use coffer_vmm::snp::host::{Finish, Identity, Page, PageKind, Refused};
use coffer_vmm::snp::plan::plan;
use coffer_vmm::snp::policy::PolicyError;
use coffer_vmm::snp::{Launch, SnpError, launch};
use kvm_bindings::{
    KVM_CAP_EXIT_HYPERCALL, KVM_CAP_GUEST_MEMFD, KVM_CAP_MEMORY_ATTRIBUTES, KVM_CAP_USER_MEMORY2, KVM_CAP_VM_TYPES,
};
use recorder::{Call, Recorder, Update, leaf};

const RAM: u64 = 256 << 20;
const AREA: Range = Range { start: 0x800_0000, end: 0x900_0000 };

fn rom() -> Vec<u8> {
    let mut rom = vec![0; ROM_SIZE];
    rom[..3 * PAGE].fill(0x11);
    rom[ROM_SIZE - PAGE..].fill(0x22);
    rom
}

fn asked(vcpus: u32) -> Launch {
    let identity = Identity { block: Box::new([0x1D; 96]), auth: Box::new(Page([0xA7; PAGE])), author_key: true };
    Launch {
        policy: 0x3_0000,
        memory_bytes: RAM,
        shared: vec![Range::new(SHARED_HANDOVER_GPA, PAGE as u64).unwrap(), AREA],
        vcpus,
        runs: plan(&rom(), &[0x33; PAGE]),
        finish: Finish { host_data: [0xDA; 32], identity: Some(identity) },
    }
}

fn launched(recorder: &mut Recorder, vcpus: u32) -> Result<Vec<String>, SnpError> {
    launch(recorder, &mut asked(vcpus)).map(|all| all.iter().map(ToString::to_string).collect())
}

/// KVM's number of a private page, and of a call that fails.
const PRIVATE: u64 = 8;
const EINVAL: Refused = Refused::by_kernel(22);
const EAGAIN: Refused = Refused::by_kernel(11);

/// What has to be asked, with what, and who says so. `None`: what it holds is compared by tests of its own below.
fn expected(vcpus: u32) -> Vec<(&'static str, Option<Call>, &'static str)> {
    let exact = |call: Call, source| (call.name(), Some(call), source);
    let attributes =
        |start: u64, end: u64| Call::SetMemoryAttributes { gpa: start, bytes: end - start, attributes: PRIVATE };
    let update = |gpa: u64, kind: PageKind, count: usize, byte: u8| {
        let pages = vec![Page([byte; PAGE]); count];
        Call::LaunchUpdate { gpa, kind, pages, aligned: true }
    };
    let page = PAGE as u64;
    let mut all = vec![
        exact(Call::CheckExtension(KVM_CAP_VM_TYPES), "QEMU target/i386/kvm/kvm.c, kvm_is_vm_type_supported"),
        exact(Call::CheckExtension(KVM_CAP_GUEST_MEMFD), "cloud-hypervisor hypervisor/src/kvm/mod.rs, create_vm"),
        exact(Call::CheckExtension(KVM_CAP_USER_MEMORY2), "KVM API, KVM_SET_USER_MEMORY_REGION2: capability"),
        exact(Call::CheckExtension(KVM_CAP_MEMORY_ATTRIBUTES), "KVM API, KVM_SET_MEMORY_ATTRIBUTES: capability"),
        exact(Call::CheckExtension(KVM_CAP_EXIT_HYPERCALL), "cloud-hypervisor hypervisor/src/kvm/mod.rs, create_vm"),
        exact(
            Call::GetDeviceAttr { group: 1, which: 1 },
            "Linux arch/x86/kvm/svm/sev.c from 6.19, KVM_X86_SNP_POLICY_BITS; nobody else asks",
        ),
        exact(
            Call::GetSupportedCpuid,
            "KVM API, KVM_GET_SUPPORTED_CPUID; QEMU reads a made processor's (snp_launch_update_cpuid)",
        ),
        exact(
            Call::CreateVm(4),
            "QEMU target/i386/sev.c, sev_snp_kvm_type; cloud-hypervisor create_vm: KVM_X86_SNP_VM",
        ),
        exact(Call::ExitHypercall(1 << 12), "QEMU sev_snp_launch_start: BIT_ULL(KVM_HC_MAP_GPA_RANGE)"),
        exact(Call::OpenSev, "QEMU sev_common_kvm_init; cloud-hypervisor hypervisor/src/kvm/x86_64/sev.rs, SevFd::new"),
        exact(
            Call::Init2 { vmsa_features: 0, ghcb_version: 0 },
            "QEMU sev_common_kvm_init: args all zero; Linux __sev_guest_init: before any processor",
        ),
        exact(Call::CreateIrqchip, "QEMU sev_common_kvm_init: SEV-ES guests require the in-kernel chip"),
        exact(Call::CreatePit2, "KVM API, KVM_CREATE_PIT2: behind the chip"),
        exact(
            Call::CreateGuestMemfd { bytes: RAM, flags: 0 },
            "cloud-hypervisor create_user_memory_region: one for each slot, flags 0",
        ),
        exact(
            Call::SetUserMemoryRegion2 { slot: 0, gpa: 0, bytes: RAM, offset: 0 },
            "cloud-hypervisor create_user_memory_region: offset 0, KVM_MEM_GUEST_MEMFD",
        ),
        exact(attributes(0, SHARED_HANDOVER_GPA), "cloud-hypervisor create_user_memory_region: private from the start"),
        exact(attributes(SHARED_HANDOVER_GPA + page, AREA.start), "ours: between what is handed over"),
        exact(attributes(AREA.end, RAM), "ours: behind what is handed over"),
    ];
    for id in 0..vcpus {
        all.push(exact(Call::CreateVcpu(id), "Linux snp_launch_update_vmsa: in the order they were made"));
        all.push((
            "KVM_SET_CPUID2",
            None,
            "Linux sev_vcpu_after_set_cpuid: a CR3 with the C-bit is legal behind leaf 0x8000001f",
        ));
        all.push(exact(Call::GetSregs(id), "cloud-hypervisor setup_sev_snp_regs"));
        all.push(("KVM_SET_SREGS", None, "cloud-hypervisor setup_sev_snp_regs"));
        all.push(("KVM_SET_REGS", None, "cloud-hypervisor setup_sev_snp_regs"));
    }
    all.extend([
        exact(Call::LaunchStart { policy: 0x3_0000 }, DOCUMENT_18),
        ("KVM_SEV_SNP_LAUNCH_UPDATE", None, "scripts/long-mode-digest.py: the page tables"),
        exact(update(STAGE0_GPA, PageKind::Normal, 3, 0x11), DOCUMENT_19),
        exact(
            update(STAGE0_GPA + 3 * page, PageKind::Zero, 13, 0),
            "QEMU snp_metadata_desc_to_page_type: memory of zeros is a zero page",
        ),
        exact(update(PARKING_GPA, PageKind::Normal, 1, 0x22), DOCUMENT_19),
        exact(update(SECRETS_GPA, PageKind::Secrets, 1, 0), "QEMU snp_populate_metadata_pages"),
        ("KVM_SEV_SNP_LAUNCH_UPDATE", None, "QEMU snp_launch_update_cpuid"),
        exact(update(HASHES_GPA, PageKind::Normal, 1, 0x33), "QEMU snp_launch_update_kernel_hashes: a normal page"),
        exact(
            Call::LaunchFinish(Box::new(asked(1).finish)),
            "amd-memory-encryption.rst §20; once: Linux measures the processors in it",
        ),
    ]);
    assert!(all.iter().all(|(_, _, source)| !source.is_empty()));
    all
}

const DOCUMENT_18: &str =
    "amd-memory-encryption.rst §18; behind the processors as in cloud-hypervisor vmm/src/vm.rs; QEMU: before";
const DOCUMENT_19: &str = "amd-memory-encryption.rst §19: pages private before, addresses aligned";

#[test]
fn every_call_is_the_expected_one_with_the_expected_words() {
    for vcpus in [1, 2, 8] {
        let mut recorder = Recorder::default();
        assert_eq!(launched(&mut recorder, vcpus).unwrap(), [""; 0]);
        let calls = recorder.calls.borrow();
        let expected = expected(vcpus);
        for (index, (call, (name, wanted, source))) in calls.iter().zip(&expected).enumerate() {
            assert_eq!(call.name(), *name, "call {index}: {source}");
            if let Some(wanted) = wanted {
                assert_eq!(call, wanted, "call {index}: {source}");
            }
        }
        assert_eq!(calls.len(), expected.len());
    }
}

#[test]
fn every_page_that_is_measured_is_aligned_and_was_private_before() {
    let mut recorder = Recorder::default();
    launched(&mut recorder, 1).unwrap();
    let mut private = Vec::new();
    let mut updates = 0;
    for call in recorder.calls.borrow().iter() {
        match call {
            Call::SetMemoryAttributes { gpa, bytes, attributes: PRIVATE } => private.push(*gpa..*gpa + *bytes),
            Call::LaunchUpdate { gpa, pages, aligned, .. } => {
                let end = gpa + (pages.len() * PAGE) as u64;
                assert!(*aligned && private.iter().any(|range| range.start <= *gpa && end <= range.end), "{gpa:#x}");
                updates += 1;
            }
            _ => {}
        }
    }
    let shared = [SHARED_HANDOVER_GPA, AREA.start, AREA.end - 1];
    assert!(shared.iter().all(|at| private.iter().all(|range| !range.contains(at))), "what is handed over is shared");
    assert_eq!(updates, 7);
}

#[test]
fn processors_are_in_the_state_that_is_measured_and_nobody_touches_them_after_the_start() {
    let mut recorder = Recorder::default();
    launched(&mut recorder, 2).unwrap();
    let calls = recorder.calls.borrow();
    let start = calls.iter().position(|call| matches!(call, Call::LaunchStart { .. })).unwrap();
    let of_processor = |call: &Call| {
        matches!(call, Call::CreateVcpu(_) | Call::SetCpuid2 { .. } | Call::SetSregs { .. } | Call::SetRegs { .. })
    };
    assert!(calls[start..].iter().all(|call| !of_processor(call)));
    for call in calls.iter() {
        match call {
            Call::SetSregs { registers, .. } => {
                assert_eq!((registers.cr0, registers.cr3), (0x8000_0031, 1 << 51 | 0x1000));
                assert_eq!((registers.cr4, registers.efer, registers.cs.l), (0x20, 0x500, 1));
                assert_eq!((registers.gdt.limit, registers.idt.limit), (0, 0));
                assert_eq!(registers.apic_base, 0xFEE0_0900, "the rest is as at reset");
            }
            Call::SetRegs { id, registers } => {
                let rip = if *id == 0 { STAGE0_GPA } else { PARKED_RIP };
                assert_eq!((registers.rip, registers.rflags, registers.rdx, registers.rsp), (rip, 2, 0, 0));
            }
            _ => {}
        }
    }
}

#[test]
fn kvm_and_the_page_say_the_same_of_the_first_processor() {
    let mut recorder = Recorder::default();
    launched(&mut recorder, 2).unwrap();
    let calls = recorder.calls.borrow();
    let entries = calls.iter().find_map(|call| match call {
        Call::SetCpuid2 { id: 0, entries } => Some(entries.clone()),
        _ => None,
    });
    let page = calls.iter().find_map(|call| match call {
        Call::LaunchUpdate { gpa: CPUID_GPA, pages, .. } => Some(pages[0].clone()),
        _ => None,
    });
    let (entries, page) = (entries.unwrap(), page.unwrap());
    let one = entries.iter().find(|entry| entry.function == 1).unwrap();
    let seven = entries.iter().find(|entry| entry.function == 7).unwrap();
    assert_eq!((one.ecx >> 24 & 1, seven.ebx >> 1 & 1, seven.edx >> 26), (0, 0, 0), "what firmware refuses");
    let word = |at: usize| u32::from_le_bytes(page.0[at..at + 4].try_into().unwrap());
    assert_eq!(word(0), 5);
    // The second entry is leaf 1: EAX to EDX from 24 bytes behind its start.
    let at = 16 + 48 + 24;
    assert_eq!([word(at), word(at + 4), word(at + 8), word(at + 12)], [one.eax, one.ebx, one.ecx, one.edx]);
}

#[test]
fn an_update_that_stops_on_the_way_goes_on_where_it_stopped() {
    let updates =
        vec![Update::Pages(13), Update::Pages(2), Update::Refused(EAGAIN), Update::Pages(1), Update::Pages(4)];
    let mut recorder = Recorder { updates, ..Recorder::default() };
    launched(&mut recorder, 1).unwrap();
    let calls = recorder.calls.borrow();
    let asked: Vec<_> = calls
        .iter()
        .filter_map(|call| match call {
            Call::LaunchUpdate { gpa, pages, .. } => Some((*gpa, pages.len())),
            _ => None,
        })
        .collect();
    let page = PAGE as u64;
    let expected = [
        (PAGE_TABLES_GPA, 4),
        (STAGE0_GPA, 3),
        (STAGE0_GPA + page, 2),
        (STAGE0_GPA + page, 2),
        (STAGE0_GPA + 3 * page, 13),
    ];
    assert_eq!(asked[..5], expected);
}

#[test]
fn an_update_that_never_ends_or_cannot_be_is_given_up() {
    let mut recorder = Recorder { updates: vec![Update::Refused(EAGAIN); 5000], ..Recorder::default() };
    assert!(matches!(launched(&mut recorder, 1), Err(SnpError::Stalled { gpa: PAGE_TABLES_GPA })));
    assert!(recorder.updates.len() > 3000, "it gives up");
    let mut still = Recorder { updates: vec![Update::Pages(0); 5000], ..Recorder::default() };
    assert!(matches!(launched(&mut still, 1), Err(SnpError::Stalled { .. })));
    for left in [1, 5 * 4096, u64::MAX] {
        let mut recorder = Recorder { updates: vec![Update::Left(left)], ..Recorder::default() };
        assert!(matches!(launched(&mut recorder, 1), Err(SnpError::Progress { bytes: 0x4000, .. })), "{left}");
    }
}

#[test]
fn a_correction_of_the_cpuid_page_is_shown_and_tried_once() {
    let mut recorder = Recorder { updates: vec![Update::Corrected(9)], ..Recorder::default() };
    assert_eq!(launched(&mut recorder, 1).unwrap(), ["CPUID 0x0.0x0 EAX: 0x10 is 0x9"]);
    let calls = recorder.calls.borrow();
    let pages: Vec<_> = calls
        .iter()
        .filter_map(|call| match call {
            Call::LaunchUpdate { gpa: CPUID_GPA, pages, .. } => Some((pages[0].0[40], pages[0].0[44..].to_vec())),
            _ => None,
        })
        .collect();
    assert_eq!((pages.len(), pages[0].0, pages[1].0), (2, 0x10, 9));
    assert_eq!(pages[0].1, pages[1].1, "nothing else changed");
    drop(calls);

    let mut again = Recorder { updates: vec![Update::Corrected(8), Update::Corrected(9)], ..Recorder::default() };
    let refused = launched(&mut again, 1).unwrap_err().to_string();
    assert!(refused.contains("EAX: 0x10 is 0x9") && refused.contains("EAX: 0x9 is 0x8"), "{refused}");
    let mut same = Recorder { updates: vec![Update::Corrected(0x10)], ..Recorder::default() };
    assert!(matches!(launched(&mut same, 1), Err(SnpError::CpuidPage { .. })), "refused, and nothing corrected");
    assert!(
        !again.names().contains(&"KVM_SEV_SNP_LAUNCH_FINISH") && !same.names().contains(&"KVM_SEV_SNP_LAUNCH_FINISH")
    );
}

#[test]
fn firmware_that_refuses_another_page_is_not_asked_again() {
    let status = Status::of(0x1A);
    let refused = Refused { errno: 5, firmware: status };
    let mut recorder = Recorder { updates: vec![Update::Refused(refused)], ..Recorder::default() };
    let error = launched(&mut recorder, 1).unwrap_err();
    assert_eq!(recorder.names().iter().filter(|name| **name == "KVM_SEV_SNP_LAUNCH_UPDATE").count(), 1);
    assert!(error.to_string().contains("INVALID_PAGE_STATE (0x1a)") && error.hint().is_some(), "{error}");
}

#[test]
fn a_call_that_fails_is_the_last_and_finish_is_never_repeated() {
    let mut whole = Recorder::default();
    launched(&mut whole, 2).unwrap();
    let mut names = whole.names();
    names.retain(|name| !["KVM_CHECK_EXTENSION", "KVM_GET_DEVICE_ATTR"].contains(name));
    names.dedup();
    for name in names {
        let mut recorder = Recorder { refused: Some((name, EAGAIN)), ..Recorder::default() };
        let error = launched(&mut recorder, 2).unwrap_err();
        assert_eq!(recorder.names().last(), Some(&name), "{error}");
        if name != "KVM_SEV_SNP_LAUNCH_UPDATE" {
            assert_eq!(recorder.names().iter().filter(|it| **it == name).count(), 1, "{name}");
        }
    }
    let finish = Refused { errno: 5, firmware: Status::of(0x0B) };
    let mut recorder = Recorder { refused: Some(("KVM_SEV_SNP_LAUNCH_FINISH", finish)), ..Recorder::default() };
    let error = launched(&mut recorder, 1).unwrap_err();
    assert!(error.to_string().contains("BAD_MEASUREMENT") && error.hint().unwrap().contains("coffer measure"));
}

#[test]
fn a_host_that_lacks_something_is_told_all_of_it_and_asked_for_nothing() {
    let mut recorder = Recorder { capability: |_| 0, ..Recorder::default() };
    let error = launched(&mut recorder, 1).unwrap_err();
    assert!(
        error.to_string().contains("machines of type SEV-SNP") && error.to_string().contains("guest_memfd"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("coffer doctor") && !error.is_of_description());
    assert!(recorder.names().iter().all(|name| *name == "KVM_CHECK_EXTENSION"), "{:?}", recorder.names());
}

#[test]
fn policy_is_what_was_asked_and_what_the_kernel_passes_on() {
    let with = |policy: u64, policy_bits: Option<u64>| {
        let mut recorder = Recorder { policy_bits, ..Recorder::default() };
        let done = launch(&mut recorder, &mut Launch { policy, ..asked(1) });
        let started = recorder.calls.borrow().iter().find_map(|call| match call {
            Call::LaunchStart { policy } => Some(*policy),
            _ => None,
        });
        (done.map(drop), started, recorder.names().contains(&"KVM_CREATE_VM"))
    };
    let single_socket = 0x13_0000;
    assert_eq!(with(single_socket, None).1, Some(single_socket));
    assert_eq!(with(single_socket, Some(0x1B_FFFF)).1, Some(single_socket));
    let (refused, _, made) = with(single_socket | 1 << 24, Some(0x1B_FFFF));
    assert!(matches!(refused, Err(SnpError::Policy(PolicyError::NotPassed(_)))) && !made);
    let (debug, _, made) = with(0xB_0000, Some(u64::MAX));
    assert!(debug.unwrap_err().is_of_description() && !made);
    let mut old = Recorder { refused: Some(("KVM_SEV_SNP_LAUNCH_START", EINVAL)), ..Recorder::default() };
    assert!(launched(&mut old, 1).unwrap_err().hint().unwrap().contains("6.16"));
}

#[test]
fn what_a_host_can_mend_is_said() {
    let hint = |call: &'static str, errno: i32| {
        let mut recorder = Recorder { refused: Some((call, Refused::by_kernel(errno))), ..Recorder::default() };
        let error = launched(&mut recorder, 1).unwrap_err();
        assert!(error.to_string().contains(if call == "open" { "/dev/sev" } else { call }), "{error}");
        error.hint()
    };
    assert!(hint("KVM_SEV_INIT2", libc::EBUSY).unwrap().contains("ASIDs"));
    assert!(hint("open", libc::EACCES).unwrap().contains("group"));
    assert!(hint("open", libc::ENOENT).unwrap().contains("ccp"));
    assert_eq!(hint("KVM_CREATE_VCPU", libc::EMFILE), None, "nothing is better than a guess");
}

#[test]
fn a_processor_without_snp_gets_no_machine() {
    let cpuid = vec![leaf(1, 0, [1; 4])];
    let mut recorder = Recorder { cpuid, ..Recorder::default() };
    assert!(matches!(launched(&mut recorder, 1), Err(SnpError::Cpuid(_))));
    assert!(!recorder.names().contains(&"KVM_CREATE_VM"));
}
