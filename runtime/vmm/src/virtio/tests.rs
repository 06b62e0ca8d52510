//! A transport and the chains behind it, with a driver that does all a guest can do.

use proptest::prelude::*;
use rustix::event::PollFlags;
use virtio_queue::{Queue, QueueT as _};

use super::chain;
use super::driver::{BUFFERS, Driver, ENTRIES, INDIRECT, MEMORY, NEXT, WRITE, available, table, used};
use super::transport::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, register};
use super::{Broken, Device, Interrupt, Waits};
use crate::Memory;

/// Copies what it may read to what it may write.
struct Echo;

impl Device for Echo {
    fn id(&self) -> u32 {
        42
    }

    fn features(&self) -> u64 {
        1 << 3
    }

    fn queues(&self) -> usize {
        2
    }

    fn configuration(&self) -> Vec<u8> {
        b"configured".to_vec()
    }

    fn serve(&mut self, memory: &Memory, queues: &mut [Queue]) -> Result<Interrupt, Broken> {
        let mut told = false;
        for queue in queues {
            while let Some(request) = chain::take(queue, memory)? {
                let mut bytes = vec![0; request.readable.len()];
                request.readable.copy_to(&mut bytes);
                let written = request.writable.copy_from(&bytes);
                chain::give_back(queue, memory, request.head, written)?;
                told |= queue.needs_notification(memory).map_err(|_| Broken::Ring)?;
            }
        }
        Ok(Interrupt(told))
    }

    fn reset(&mut self) {}
}

#[test]
fn a_request_is_answered_and_the_driver_hears_once() {
    let mut driver = Driver::start(Echo);
    driver.put(BUFFERS, b"abcdef");
    driver.send(
        0,
        3,
        &[(BUFFERS, 3, false), (BUFFERS + 3, 3, false), (BUFFERS + 0x100, 4, true), (BUFFERS + 0x200, 9, true)],
    );
    driver.serve();
    assert_eq!(driver.used(0), (1, 6));
    assert_eq!((driver.get(BUFFERS + 0x100, 4), driver.get(BUFFERS + 0x200, 3)), (b"abcd".to_vec(), b"ef\0".to_vec()));
    assert_eq!((driver.interrupts(), driver.read(register::INTERRUPT_STATUS)), (1, 1));
    driver.write(register::INTERRUPT_ACKNOWLEDGE, 1);
    assert_eq!(driver.read(register::INTERRUPT_STATUS), 0);
    driver.serve();
    assert_eq!((driver.used(0).0, driver.interrupts()), (1, 1), "nothing new");
}

#[test]
fn an_indirect_table_is_a_chain_like_any_other() {
    let mut driver = Driver::start(Echo);
    driver.put(BUFFERS, b"in");
    driver.describe(BUFFERS + 0x1000, 0, (BUFFERS, 2, NEXT, 1));
    driver.describe(BUFFERS + 0x1000, 1, (BUFFERS + 0x100, 2, WRITE, 0));
    driver.describe(table(0), 0, (BUFFERS + 0x1000, 32, INDIRECT, 0));
    driver.offer(0, 0);
    driver.serve();
    assert_eq!((driver.used(0), driver.get(BUFFERS + 0x100, 2)), ((1, 2), b"in".to_vec()));
}

/// A chain a driver made, and whether the device then stops.
fn stops(make: impl FnOnce(&mut Driver)) -> bool {
    let mut driver = Driver::start(Echo);
    make(&mut driver);
    driver.serve();
    let stopped = driver.read(register::STATUS) & NEEDS_RESET != 0;
    assert_eq!(stopped, driver.read(register::INTERRUPT_STATUS) & 2 != 0, "who stops says so");
    assert!(!stopped || driver.used(0).0 == 0, "a chain that is refused is not given back");
    stopped
}

#[test]
fn hostile_chains_stop_the_device_and_touch_nothing() {
    let one = |descriptors: &'static [super::driver::Descriptor]| {
        move |driver: &mut Driver| {
            for (index, descriptor) in (0..).zip(descriptors) {
                driver.describe(table(0), index, *descriptor);
            }
            driver.offer(0, 0);
        }
    };
    // A loop, onto itself and over two; a link out of the table.
    assert!(stops(one(&[(BUFFERS, 1, NEXT, 0)])));
    assert!(stops(one(&[(BUFFERS, 1, NEXT, 1), (BUFFERS, 1, NEXT, 0)])));
    assert!(stops(one(&[(BUFFERS, 1, NEXT, ENTRIES)])));
    assert!(stops(one(&[(BUFFERS, 1, NEXT, u16::MAX)])));
    // Outside memory: behind it, over its end, past all addresses.
    assert!(stops(one(&[(MEMORY, 1, 0, 0)])));
    assert!(stops(one(&[(MEMORY - 1, 2, WRITE, 0)])));
    assert!(stops(one(&[(u64::MAX, 2, WRITE, 0)])));
    assert!(stops(one(&[(u64::MAX - 8, 16, 0, 0)])));
    // Longer than any request, in one piece and in sum.
    assert!(stops(one(&[(0, u32::MAX, 0, 0)])));
    assert!(stops(one(&[
        (0, 4 << 20, NEXT, 1),
        (0, 4 << 20, NEXT, 2),
        (0, 4 << 20, NEXT, 3),
        (0, 4 << 20, NEXT, 4),
        (0, 1, 0, 0)
    ])));
    // To read behind to write.
    assert!(stops(one(&[(BUFFERS, 1, WRITE | NEXT, 1), (BUFFERS, 1, 0, 0)])));
    // Tables of descriptors: of no whole entries, in a table, outside memory, empty.
    assert!(stops(one(&[(BUFFERS, 17, INDIRECT, 0)])));
    assert!(stops(one(&[(MEMORY, 16, INDIRECT, 0)])));
    assert!(stops(one(&[(BUFFERS, 0, INDIRECT, 0)])));
    assert!(stops(|driver| {
        driver.describe(BUFFERS, 0, (BUFFERS, 16, INDIRECT, 0));
        driver.describe(table(0), 0, (BUFFERS, 16, INDIRECT, 0));
        driver.offer(0, 0);
    }));
    // A table that links to itself for ever.
    assert!(stops(|driver| {
        driver.describe(BUFFERS, 0, (BUFFERS + 0x1000, 0, NEXT, 0));
        driver.describe(table(0), 0, (BUFFERS, 16 * 4096, INDIRECT, 0));
        driver.offer(0, 0);
    }));
    // A head outside the table, an index that runs ahead of the ring.
    assert!(stops(|driver| driver.offer(0, ENTRIES)));
    assert!(stops(|driver| driver.put(available(0) + 2, &(ENTRIES + 1).to_le_bytes())));
}

#[test]
fn buffers_that_overlap_are_the_guests_own_affair() {
    assert!(!stops(|driver| {
        let ring = (used(0), 64, true);
        driver.send(0, 0, &[(BUFFERS, 16, false), (BUFFERS + 8, 16, true), ring]);
        driver.put(BUFFERS, &[0; 16]);
    }));
}

#[test]
fn rings_outside_memory_never_start_and_reset_mends_everything() {
    for (at, place) in [(0, MEMORY), (1, MEMORY - 2), (2, !0xF), (0, 0xFFFF_FFFF_0000_0000)] {
        let mut places = [table(0), available(0), used(0)];
        places[at] = place;
        let mut driver = Driver::of(Echo);
        driver.negotiate(0);
        assert_eq!(driver.read(register::STATUS) & DRIVER_OK, 0, "without version 1 there is no start");
        driver.write(register::STATUS, 0);
        driver.negotiate(u64::MAX);
        driver.write(register::STATUS, 0);
        driver.write(register::STATUS, ACKNOWLEDGE | DRIVER);
        driver.write(register::ACCEPTED_PAGE, 1);
        driver.write(register::ACCEPTED, 1);
        driver.write(register::STATUS, FEATURES_OK);
        driver.place(0, places[0], places[1], places[2]);
        driver.write(register::STATUS, DRIVER_OK);
        assert_ne!(driver.read(register::STATUS) & NEEDS_RESET, 0, "{at} {place:#x}");
        driver.serve();
        driver.write(register::STATUS, 0);
        assert_eq!((driver.read(register::STATUS), driver.read(register::INTERRUPT_STATUS)), (0, 0));
    }
}

#[test]
fn a_device_that_no_driver_runs_waits_for_its_driver_alone() {
    let driver = Driver::of(Echo);
    assert_eq!(driver.transport.serve(&driver.memory), Waits::NONE, "what knocks before the driver starts stays there");
    let mut driver = Driver::start(Echo);
    assert_eq!(driver.transport.serve(&driver.memory).events, PollFlags::IN);
    driver.offer(0, ENTRIES);
    assert_eq!(driver.transport.serve(&driver.memory), Waits::NONE, "it broke");
    assert_eq!(driver.transport.serve(&driver.memory), Waits::NONE, "and stays so");
}

#[test]
fn features_nobody_offered_are_not_agreed_on() {
    let driver = Driver::of(Echo);
    driver.write(register::STATUS, ACKNOWLEDGE | DRIVER);
    driver.write(register::ACCEPTED_PAGE, 1);
    driver.write(register::ACCEPTED, 1 | 1 << 9);
    driver.write(register::STATUS, FEATURES_OK);
    assert_eq!(driver.read(register::STATUS), ACKNOWLEDGE | DRIVER);
    driver.write(register::ACCEPTED, 1);
    driver.write(register::STATUS, FEATURES_OK);
    assert_eq!(driver.read(register::STATUS), ACKNOWLEDGE | DRIVER | FEATURES_OK);
    driver.write(register::ACCEPTED, 3);
    driver.write(register::STATUS, DRIVER_OK);
    assert_ne!(driver.read(register::STATUS) & DRIVER_OK, 0, "what was agreed on stays");
}

#[test]
fn queues_do_not_move_while_the_device_runs() {
    let mut driver = Driver::start(Echo);
    driver.place(0, BUFFERS, BUFFERS, BUFFERS);
    driver.put(BUFFERS + 0x100, b"x");
    driver.send(0, 0, &[(BUFFERS + 0x100, 1, false), (BUFFERS + 0x200, 1, true)]);
    driver.serve();
    assert_eq!(driver.used(0), (1, 1));
}

#[test]
fn the_configuration_space_is_read_at_any_width_and_ends() {
    let driver = Driver::of(Echo);
    let mut byte = [0];
    driver.transport.read(0x101, &mut byte);
    assert_eq!(byte, *b"o");
    let mut eight = [9; 8];
    driver.transport.read(0x108, &mut eight);
    assert_eq!(&eight, b"ed\0\0\0\0\0\0");
    driver.transport.read(u64::MAX, &mut eight);
    assert_eq!(eight, [0; 8]);
    driver.transport.read(0x1, &mut byte);
    assert_eq!(byte, [0], "registers are words");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any register, any word, any memory: nothing panics, and the device works for the next driver.
    #[test]
    fn any_driver_is_survived(
        writes in prop::collection::vec((0_u64..0x108, any::<u32>()), 0..60),
        rings in prop::collection::vec(any::<u8>(), 0x1000),
    ) {
        let mut driver = Driver::start(Echo);
        driver.put(table(0), &rings);
        driver.serve();
        for (register, word) in writes {
            driver.write(register & !3, word);
            driver.read(register & !3);
            driver.serve();
        }
        driver.write(register::STATUS, 0);
        driver.put(table(0), &[0; 0x1000]);
        driver.restart();
        driver.put(BUFFERS, b"x");
        driver.send(0, 0, &[(BUFFERS, 1, false), (BUFFERS + 0x100, 1, true)]);
        driver.serve();
        prop_assert_eq!(driver.used(0), (1, 1));
    }
}
