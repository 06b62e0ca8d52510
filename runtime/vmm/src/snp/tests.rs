//! Private memory on a real KVM, where it has machines of type KVM_X86_SW_PROTECTED_VM: a launch in the order of an SEV-SNP
//! guest's, and guests that change pages and touch them, run by [`vcpu::run`] in the jail of its thread. All of it is
//! what an SEV-SNP guest gets, but for the secure processor, its commands, encryption and the reverse map table.
//!
//! `make lab-kernel` runs them on such a KVM; on any other they say so and pass.
//! Source: KVM API §4.140 to §4.143, §5 (KVM_EXIT_MEMORY_FAULT); Linux Documentation/virt/kvm/x86/hypercalls.rst.

mod guest;
mod inner;
mod stand_in;

use std::fs::File;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use coffer_machine::map::{
    HASHES_GPA, LOW_MEMORY_GPA, PAGE, PAGE_TABLES_GPA, PAGE_TABLES_SIZE, PARKING_GPA, ROM_SIZE, SECRETS_GPA,
    STAGE0_GPA, STAGE0_SIZE,
};
use coffer_machine::memory::{Ram, Range};
use kvm_bindings::{KVM_MEMORY_ATTRIBUTE_PRIVATE, kvm_memory_attributes};
use kvm_ioctls::VmFd;
use vm_memory::{Bytes as _, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use self::guest::{FOUND_GPA, Step, code, keep, share};
use self::stand_in::StandIn;
use super::page_state::{MAP_GPA_RANGE, PageStateError};
use super::{Finish, Host as _, Launch, PrivateMemory, launch, plan};
use crate::bus::Bus;
use crate::jail::filters::{Thread, limit};
use crate::ports::{Line, Ports};
use crate::vcpu::{self, Gate};
use crate::{End, Memory, sys};

const RAM: u64 = 64 << 20;
const PRIVATE: u64 = KVM_MEMORY_ATTRIBUTE_PRIVATE as u64;
/// Some page of memory, in the middle of 2 MiB, and what the host wrote there before the guest ran.
const PAGE_GPA: u64 = (32 << 20) + 0x5_000;
const OF_HOST: u64 = 0x0707_0707_0707_0707;
/// As KVM answers a guest: `KVM_EINVAL`, `KVM_ENOSYS`.
const EINVAL: u64 = (-22_i64).cast_unsigned();
const ENOSYS: u64 = (-1000_i64).cast_unsigned();

/// A guest that ran to its end.
struct Ran {
    end: End,
    found: Vec<u64>,
    memory: &'static Memory,
    /// The machine, which holds the private memory until it is dropped.
    _kept: (Arc<Bus>, Arc<PrivateMemory>),
}

impl Ran {
    /// What the host reads in the guest's memory.
    fn host_reads(&self, at: u64) -> u64 {
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }
}

/// Launches a guest and runs it to its end; `None` where this KVM has no such machine. `before` may change
/// the machine and its memory.
fn ran(steps: &[Step], before: impl FnOnce(&VmFd, &Memory)) -> Option<Ran> {
    let memory: &'static Memory = Box::leak(Box::new(sys::memory::allocate(RAM as usize).unwrap()));
    let Some(mut host) = StandIn::new(memory) else {
        eprintln!("skipped: KVM has no machines of type KVM_X86_SW_PROTECTED_VM");
        return None;
    };
    for page in [PAGE_GPA - PAGE as u64, PAGE_GPA, PAGE_GPA + PAGE as u64] {
        memory.write_obj(OF_HOST, GuestAddress(page)).unwrap();
    }
    let mut rom = code(steps);
    assert!(rom.len() < STAGE0_SIZE as usize - 2 * PAGE);
    rom.resize(ROM_SIZE, 0);
    let range = |start, size| Range { start, end: start + size };
    let mut all = Launch {
        policy: 0x3_0000,
        memory_bytes: RAM,
        shared: vec![
            range(PAGE_TABLES_GPA, PAGE_TABLES_SIZE),
            range(STAGE0_GPA, STAGE0_SIZE),
            range(FOUND_GPA, inner::PAGES * PAGE as u64),
        ],
        vcpus: 1,
        runs: plan::plan(&rom, &[0x33; PAGE]),
        finish: Finish { host_data: [0; 32], identity: None },
    };
    assert_eq!(launch(&mut host, &mut all).unwrap(), []);
    assert_eq!(host.measured, all.runs.iter().map(|run| run.pages.len()).sum::<usize>());
    let (vm, mut processors, private) = host.kvm.made(Ram { end: RAM }).unwrap();
    before(&vm, memory);
    let serial = Ports::new(Line(EventFd::new(EFD_NONBLOCK).unwrap()), File::create("/dev/null").unwrap());
    let bus = Arc::new(Bus::new(serial, Vec::new(), vm, memory));
    let kept = (Arc::clone(&bus), Arc::new(private));
    let (processor, private) = (processors.remove(0), Arc::clone(&kept.1));
    let (sent, heard) = mpsc::channel();
    std::thread::spawn(move || {
        limit(Thread::SnpProcessor).unwrap();
        let _ = sent.send(vcpu::run(processor, &bus, &Gate::default(), Some(&private)));
    });
    let end = heard.recv_timeout(Duration::from_mins(2)).expect("the guest ends");
    let count = steps.iter().filter(|step| matches!(step, Step::Call(..) | Step::Read(_))).count();
    let found = (0..count).map(|index| memory.read_obj(GuestAddress(FOUND_GPA + 8 * index as u64)).unwrap()).collect();
    Some(Ran { end, found, memory, _kept: kept })
}

#[test]
fn private_memory_is_the_guests_alone_and_shared_memory_is_both_sides() {
    let steps = [
        Step::Read(PAGE_GPA),
        Step::Write(PAGE_GPA, 0x1111),
        Step::Read(PAGE_GPA),
        Step::Read(HASHES_GPA),
        Step::Write(FOUND_GPA + 0x800, 0x2222),
    ];
    let Some(ran) = ran(&steps, |_, _| ()) else { return };
    assert_eq!((&ran.end, &ran.found[..]), (&End::PoweredOff, &[0, 0x1111, 0][..]), "private memory starts as zeros");
    assert_eq!(ran.host_reads(PAGE_GPA), OF_HOST, "what the guest wrote is not the host's to see");
    assert_eq!(ran.host_reads(HASHES_GPA), 0x3333_3333_3333_3333, "nor is the host's copy the guest's");
    assert_eq!(ran.host_reads(FOUND_GPA + 0x800), 0x2222, "what is shared is");
    println!("private memory: guest_memfd alone, zeros at first; the host's copy stays as it was");
}

#[test]
fn a_page_that_changes_hands_takes_nothing_with_it_and_its_neighbours_stay() {
    let (left, right) = (PAGE_GPA - PAGE as u64, PAGE_GPA + PAGE as u64);
    let steps = [
        Step::Write(left, 0xA),
        Step::Write(PAGE_GPA, 0xB),
        Step::Write(right, 0xC),
        share(PAGE_GPA, 1),
        Step::Read(PAGE_GPA),
        Step::Write(PAGE_GPA, 0xD),
        keep(PAGE_GPA, 1),
        Step::Read(PAGE_GPA),
        Step::Write(PAGE_GPA, 0xE),
        share(PAGE_GPA, 1),
        Step::Read(PAGE_GPA),
        Step::Write(PAGE_GPA, 0xF),
        Step::Read(left),
        Step::Read(right),
    ];
    let Some(ran) = ran(&steps, |_, _| ()) else { return };
    let expected = [
        (0, "the first change is done"),
        (OF_HOST, "shared, it is the host's copy and not the guest's"),
        (0, "the second change is done"),
        (0, "private again, what was private before is gone: the hole was punched"),
        (0, "the third change is done"),
        (0, "shared again, what was shared before is gone: it was given back"),
        (0xA, "the page before it"),
        (0xC, "the page behind it"),
    ];
    for (index, (wanted, what)) in expected.into_iter().enumerate() {
        assert_eq!(ran.found[index], wanted, "{what}");
        println!("private, shared, private, shared: {what}: {wanted:#x}");
    }
    assert_eq!((ran.end.clone(), ran.host_reads(PAGE_GPA)), (End::PoweredOff, 0xF), "and the host sees what is shared");
    assert_eq!((ran.host_reads(left), ran.host_reads(right)), (OF_HOST, OF_HOST));
}

#[test]
fn a_request_for_large_pages_changes_all_of_them_and_no_other() {
    let (start, pages) = (32 << 20, 1024);
    let end = start + pages * PAGE as u64;
    let large = 1;
    let mut steps = vec![Step::Write(start - 8, 1), Step::Touch(start, pages), Step::Write(end, 2)];
    steps.extend([Step::Call(MAP_GPA_RANGE, [start, pages, large]), Step::Touch(start, pages)]);
    steps.extend([Step::Read(start - 8), Step::Read(end)]);
    let Some(ran) = ran(&steps, |_, _| ()) else { return };
    assert_eq!((&ran.end, &ran.found[..]), (&End::PoweredOff, &[0, 1, 2][..]));
    for page in 0..pages {
        assert_eq!(ran.host_reads(start + page * PAGE as u64), pages - page, "page {page} is shared");
    }
    assert_eq!((ran.host_reads(start - 8), ran.host_reads(end)), (0, 0), "their neighbours are not");
    println!("two large pages in one request: {pages} pages are shared, their neighbours are not");
}

/// KiB of the page cache, of which guest memory is a part, and of this process.
fn taken() -> (i64, i64) {
    let of = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_end_matches("kB").trim().parse().unwrap()
    };
    (of("/proc/meminfo", "Cached:"), of("/proc/self/status", "VmRSS:"))
}

#[test]
fn memory_that_changed_hands_is_held_once() {
    const MEBIBYTES: i64 = 16;
    let (start, pages) = (40 << 20, (MEBIBYTES as u64) << 8);
    let touch = Step::Touch(start, pages);
    let cases = [
        ("private", vec![touch], (MEBIBYTES, 0)),
        ("private, then shared", vec![touch, share(start, pages)], (0, 0)),
        ("private, then shared and used", vec![touch, share(start, pages), touch], (0, MEBIBYTES)),
        ("and private again", vec![touch, share(start, pages), touch, keep(start, pages)], (0, 0)),
        ("and used", vec![touch, share(start, pages), touch, keep(start, pages), touch], (MEBIBYTES, 0)),
    ];
    let measured = |steps: &[Step]| {
        let before = taken();
        let ran = ran(steps, |_, _| ())?;
        let after = taken();
        Some((ran.end, after.0 - before.0, after.1 - before.1))
    };
    let Some((_, guest_memory, of_host)) = measured(&[]) else { return };
    let (at_rest, _) = taken();
    for (what, steps, wanted) in cases {
        // A machine that is gone gives its memory back a little later.
        let began = std::time::Instant::now();
        while taken().0 > at_rest + 512 {
            assert!(began.elapsed() < std::time::Duration::from_mins(1), "{what}: the machine before keeps its memory");
            std::thread::sleep(Duration::from_millis(20));
        }
        let Some((end, guest_more, host_more)) = measured(&steps) else { return };
        let taken = ((guest_more - guest_memory) / 1024, (host_more - of_host) / 1024);
        println!("{MEBIBYTES} MiB {what}: {} MiB of guest memory, {} MiB of the host's", taken.0, taken.1);
        assert_eq!(end, End::PoweredOff, "{what}");
        // Page tables and the like are part of it.
        assert!((taken.0 - wanted.0).abs() <= 3 && (taken.1 - wanted.1).abs() <= 3, "{what}: {taken:?} for {wanted:?}");
    }
}

#[test]
fn what_is_no_range_is_refused_by_kvm_and_the_guest_goes_on() {
    let cases = [
        ("no page", Step::Call(MAP_GPA_RANGE, [PAGE_GPA, 0, 0]), EINVAL),
        ("half a page", Step::Call(MAP_GPA_RANGE, [PAGE_GPA + 0x800, 1, 0]), EINVAL),
        ("more pages than numbers", Step::Call(MAP_GPA_RANGE, [PAGE_GPA, u64::MAX, 0]), EINVAL),
        ("another hypercall", Step::Call(99, [PAGE_GPA, 1, 0]), ENOSYS),
    ];
    let mut steps = vec![Step::Write(PAGE_GPA, 5)];
    steps.extend(cases.map(|(_, step, _)| step));
    steps.push(Step::Read(PAGE_GPA));
    let Some(ran) = ran(&steps, |_, _| ()) else { return };
    for ((what, _, wanted), found) in cases.iter().zip(&ran.found) {
        println!("refused by KVM: {what}: {}", found.cast_signed());
        assert_eq!(found, wanted, "{what}");
    }
    assert_eq!((ran.end, ran.found.last()), (End::PoweredOff, Some(&5)), "nothing changed");
}

#[test]
fn a_request_for_what_is_not_the_guests_ends_it() {
    let outside = |start, pages: u64| {
        let range = Range { start, end: start + pages * PAGE as u64 };
        PageStateError::Outside { range, memory: RAM }
    };
    // As bytes it is past all addresses, as pages it is not: KVM lets it through.
    const PAST_ALL: u64 = u64::MAX >> 12;
    let kept = |start| PageStateError::Kept { range: Range { start, end: start + PAGE as u64 } };
    let cases = [
        (share(RAM, 1), outside(RAM, 1)),
        (keep(RAM - PAGE as u64, 2), outside(RAM - PAGE as u64, 2)),
        (share(1 << 40, 1), outside(1 << 40, 1)),
        (share(PAGE_GPA, PAST_ALL), PageStateError::Range { gpa: PAGE_GPA, pages: PAST_ALL }),
        (share(SECRETS_GPA, 1), kept(SECRETS_GPA)),
        (share(PARKING_GPA, 1), kept(PARKING_GPA)),
        (share(LOW_MEMORY_GPA - PAGE as u64, 1), kept(LOW_MEMORY_GPA - PAGE as u64)),
        (Step::Call(MAP_GPA_RANGE, [PAGE_GPA, 1, 3]), PageStateError::Attributes { gpa: PAGE_GPA, attributes: 3 }),
    ];
    for (step, wanted) in cases {
        let Some(ran) = ran(&[step, Step::Write(FOUND_GPA + 0x800, 1)], |_, _| ()) else { return };
        println!("ended: {wanted}");
        assert_eq!((&ran.end, ran.host_reads(FOUND_GPA + 0x800)), (&End::Pages(wanted), 0), "{step:?}");
    }
}

#[test]
fn a_touch_of_private_memory_that_is_in_no_slot_ends_the_guest() {
    const UNBACKED: u64 = RAM - PAGE as u64;
    let behind = |vm: &VmFd, _: &Memory| {
        let attributes = kvm_memory_attributes { address: RAM, size: PAGE as u64, attributes: PRIVATE, flags: 0 };
        vm.set_memory_attributes(attributes).unwrap();
    };
    for step in [Step::Read(RAM), Step::Write(RAM, 1)] {
        let Some(ran) = ran(&[step], behind) else { return };
        let wanted = PageStateError::Outside { range: Range { start: RAM, end: RAM + PAGE as u64 }, memory: RAM };
        println!("touched: private memory behind the guest's: {wanted}");
        assert_eq!(ran.end, End::Pages(wanted));
        let Some(ran) = self::ran(&[step], |_, _| ()) else { return };
        assert_eq!(ran.end, End::PoweredOff, "where it is not private it is nobody's, and no fault");
    }
    let Some(ran) = ran(&[Step::Read(UNBACKED)], |_, _| ()) else { return };
    let wanted = PageStateError::Unsettled { gpa: UNBACKED };
    println!("touched: private memory in no slot: {wanted}");
    assert_eq!(ran.end, End::Pages(wanted), "whatever is changed for it");
}

#[test]
fn a_page_that_is_touched_as_what_it_is_not_changes_hands_and_takes_nothing_with_it() {
    const SHARED: u64 = inner::SAVED_GPA + 0x800;
    // No memory is there, so no attribute either; private memory.
    let (shared, private) = (256 << 20, 48 << 20);
    let kept = Range { start: SECRETS_GPA, end: SECRETS_GPA + PAGE as u64 };
    let kept = End::Pages(PageStateError::Kept { range: kept });
    let ask = Some(share(PAGE_GPA, 1));
    let cases = [
        ("shared, as such", shared, SHARED, None, End::PoweredOff, 0x9, 0x9),
        ("private, as such", private, PAGE_GPA, None, End::PoweredOff, 0x5, OF_HOST),
        ("private, as shared", shared, PAGE_GPA, None, End::PoweredOff, OF_HOST, OF_HOST),
        ("shared, as private", private, SHARED, None, End::PoweredOff, 0, 0),
        ("private, shared by request", shared, PAGE_GPA, ask, End::PoweredOff, OF_HOST, OF_HOST),
        ("what the launch keeps, as shared", shared, SECRETS_GPA, None, kept, inner::NOTHING, 0),
    ];
    for (what, at, is, first, end, read, of_host) in cases {
        let mut steps = vec![Step::Write(SHARED, 0x9), Step::Write(PAGE_GPA, 0x5)];
        steps.extend(first);
        steps.push(Step::Enter);
        let Some(ran) = ran(&steps, |_, memory| inner::put(memory, at, is)) else { return };
        println!("touched: {what}: {:?}", ran.end);
        let found = (&ran.end, ran.host_reads(inner::READ_GPA), ran.host_reads(is));
        assert_eq!(found, (&end, read, of_host), "{what}");
    }
}

#[test]
fn kvm_refuses_what_cannot_be() {
    const BYTES: u64 = 4 << 20;
    let memory: &'static Memory = Box::leak(Box::new(sys::memory::allocate(2 * BYTES as usize).unwrap()));
    let Some(StandIn { kvm: mut host, .. }) = StandIn::new(memory) else {
        return eprintln!("skipped: KVM has no machines of type KVM_X86_SW_PROTECTED_VM");
    };
    let refused = |what: &str, done: Result<(), super::Refused>, errno: i32| {
        println!("refused by KVM: {what}: {done:?}");
        assert_eq!(done, Err(super::Refused::by_kernel(errno)), "{what}");
    };
    host.create_machine(1).unwrap();
    refused("another hypercall", host.exit_on_hypercalls(1 << 11), libc::EINVAL);
    host.exit_on_hypercalls(1 << MAP_GPA_RANGE).unwrap();
    refused("half a page of guest memory", host.create_guest_memory(BYTES + 0x800, 0), libc::EINVAL);
    refused("none", host.create_guest_memory(0, 0), libc::EINVAL);
    refused("with flags nobody knows", host.create_guest_memory(BYTES, 1 << 40), libc::EINVAL);
    host.create_guest_memory(BYTES, 0).unwrap();
    refused("a slot past its end", host.set_slot(0, 0, 2 * BYTES, 0), libc::EINVAL);
    refused("a slot that begins past its end", host.set_slot(0, 0, BYTES, BYTES), libc::EINVAL);
    refused("a slot at half a page", host.set_slot(0, 0, BYTES - 0x1000, 0x800), libc::EINVAL);
    host.set_slot(0, 0, BYTES, 0).unwrap();
    refused("the same slot, changed", host.set_slot(0, 0, BYTES / 2, 0), libc::EINVAL);
    refused("the same guest memory in a second slot", host.set_slot(1, BYTES, BYTES, 0), libc::EINVAL);
    for (address, size, attributes) in [
        (0x800, 0x1000, PRIVATE),
        (0, 0x800, PRIVATE),
        (0, 0, PRIVATE),
        (!0xFFF, 0x2000, PRIVATE),
        (0, 0x1000, PRIVATE | 1),
    ] {
        let done = host.set_attributes(address, size, attributes);
        refused(&format!("attributes {attributes:#x} at {address:#x} for {size:#x}"), done, libc::EINVAL);
    }
    host.set_attributes(0, BYTES, PRIVATE).unwrap();
}
