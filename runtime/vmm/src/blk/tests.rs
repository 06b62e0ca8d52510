//! Disks, through a driver that may ask for anything.

use std::io::{Read as _, Seek as _, Write as _};

use proptest::prelude::*;

use super::*;
use crate::virtio::driver::{BUFFERS, Driver};
use crate::virtio::{NEEDS_RESET, register};

const HEADER_AT: u64 = BUFFERS;
const STATUS_AT: u64 = BUFFERS + 0x100;
const DATA_AT: u64 = BUFFERS + 0x1000;

fn disk(sectors: usize) -> File {
    let mut file = tempfile::tempfile().unwrap();
    for sector in 0..sectors {
        file.write_all(&[sector as u8 + 1; SECTOR as usize]).unwrap();
    }
    file
}

fn blk(file: &File, writable: bool, kept: bool) -> io::Result<Blk> {
    let disk = Disk { serial: "coffer-test".into(), file: "disk".into(), writable, kept };
    Blk::new(file.try_clone().unwrap(), &disk)
}

fn driver(file: &File, writable: bool) -> Driver {
    Driver::start(blk(file, writable, false).unwrap())
}

/// One request, and its status.
fn ask(driver: &mut Driver, kind: u32, sector: u64, data: &[(u64, u32)]) -> u8 {
    let mut header = kind.to_le_bytes().to_vec();
    header.extend([0; 4]);
    header.extend(sector.to_le_bytes());
    driver.put(HEADER_AT, &header);
    driver.put(STATUS_AT, &[0xEE]);
    let mut chain = vec![(HEADER_AT, HEADER as u32, false)];
    chain.extend(data.iter().map(|(at, length)| (*at, *length, ![WRITE, DISCARD].contains(&kind))));
    chain.push((STATUS_AT, 1, true));
    driver.send(0, 0, &chain);
    driver.serve();
    driver.get(STATUS_AT, 1)[0]
}

#[test]
fn sectors_are_read_into_any_number_of_buffers() {
    let mut driver = driver(&disk(8), false);
    assert_eq!(ask(&mut driver, READ, 2, &[(DATA_AT, 512), (DATA_AT + 0x1000, 100), (DATA_AT + 0x2000, 924)]), 0);
    assert_eq!(driver.used(0), (1, 3 * 512 + 1));
    assert_eq!(driver.get(DATA_AT, 512), [3; 512]);
    assert_eq!(driver.get(DATA_AT + 0x1000, 100), [4; 100]);
    assert_eq!(driver.get(DATA_AT + 0x2000, 412), [4; 412]);
    assert_eq!(driver.get(DATA_AT + 0x2000 + 412, 512), [5; 512]);
    assert_eq!(driver.interrupts(), 1);
}

#[test]
fn a_disk_to_be_read_is_not_written_though_its_file_could_be() {
    let mut file = disk(4);
    let mut driver = driver(&file, false);
    driver.put(DATA_AT, &[0xFF; 512]);
    assert_eq!(ask(&mut driver, WRITE, 0, &[(DATA_AT, 512)]), Status::Error as u8);
    let mut now = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut now).unwrap();
    assert_eq!(now[..512], [1; 512]);
    driver.write(register::OFFERED_PAGE, 0);
    assert_ne!(driver.read(register::OFFERED) & READ_ONLY as u32, 0, "and the guest is told");
}

#[test]
fn a_scratch_disk_keeps_what_it_is_given() {
    let file = disk(4);
    let mut driver = driver(&file, true);
    driver.put(DATA_AT, &[7; 1024]);
    assert_eq!(ask(&mut driver, WRITE, 1, &[(DATA_AT, 1024)]), 0);
    assert_eq!(ask(&mut driver, READ, 2, &[(DATA_AT + 0x1000, 512)]), 0);
    assert_eq!(driver.get(DATA_AT + 0x1000, 512), [7; 512]);
    assert_eq!(ask(&mut driver, READ, 3, &[(DATA_AT + 0x1000, 512)]), 0);
    assert_eq!(driver.get(DATA_AT + 0x1000, 512), [4; 512]);
}

#[test]
fn a_disk_that_is_kept_is_flushed_and_frees_what_is_discarded() {
    use std::os::unix::fs::MetadataExt as _;
    let file = disk(64);
    file.sync_all().unwrap();
    let before = file.metadata().unwrap().blocks();
    let mut kept = Driver::start(blk(&file, true, true).unwrap());
    kept.write(register::OFFERED_PAGE, 0);
    let offered = u64::from(kept.read(register::OFFERED));
    assert_eq!(offered & (FLUSHES | DISCARDS | READ_ONLY), FLUSHES | DISCARDS);
    assert_eq!(ask(&mut kept, FLUSH, 0, &[]), 0);
    let mut discard = |sector: u64, count: u32, flags: u32, length: u32| {
        let range = [&sector.to_le_bytes()[..], &count.to_le_bytes(), &flags.to_le_bytes()].concat();
        kept.put(DATA_AT, &range);
        ask(&mut kept, DISCARD, 0, &[(DATA_AT, length)])
    };
    assert_eq!(discard(8, 48, 0, 16), 0);
    let refused = Status::Error as u8;
    for (sector, count, flags, length) in [
        (60, 8, 0, 16),
        (u64::MAX, 8, 0, 16),
        (0, 0, 0, 16),
        (0, MOST_DISCARDED + 1, 0, 16),
        (0, 8, 1, 16),
        (0, 8, 0, 15),
        (0, 8, 0, 32),
    ] {
        assert_eq!(discard(sector, count, flags, length), refused, "{sector} {count} {flags} {length}");
    }
    assert_eq!(file.metadata().unwrap().len(), 64 * SECTOR);
    file.sync_all().unwrap();
    assert!(file.metadata().unwrap().blocks() < before, "nothing was freed");
    assert_eq!(ask(&mut kept, READ, 20, &[(DATA_AT, 512)]), 0);
    assert_eq!(kept.get(DATA_AT, 512), [0; 512]);
    assert_eq!(ask(&mut kept, READ, 63, &[(DATA_AT, 512)]), 0);
    assert_eq!(kept.get(DATA_AT, 512), [64; 512]);
}

#[test]
fn a_disk_that_is_kept_has_one_writer_or_readers_and_those_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, [1; 4096]).unwrap();
    let open = || File::options().read(true).write(true).open(&path).unwrap();
    let writer = blk(&open(), true, true).unwrap();
    for writable in [true, false] {
        assert_eq!(blk(&open(), writable, true).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    }
    drop(writer);
    let reader = blk(&open(), false, true).unwrap();
    assert!(blk(&open(), true, true).is_err());
    let mut other = Driver::start(blk(&open(), false, true).unwrap());
    other.put(DATA_AT, &[0xFF; 512]);
    assert_eq!(ask(&mut other, WRITE, 0, &[(DATA_AT, 512)]), Status::Error as u8);
    assert_eq!(ask(&mut other, DISCARD, 0, &[(DATA_AT, 16)]), Status::Unsupported as u8);
    assert_eq!(std::fs::read(&path).unwrap(), [1; 4096]);
    drop(reader);
}

#[test]
fn what_lies_behind_the_disk_is_neither_read_nor_written() {
    let file = disk(4);
    let mut driver = driver(&file, true);
    for kind in [READ, WRITE] {
        for (sector, length) in [(4, 512), (3, 1024), (u64::MAX, 512), (u64::MAX / 512, 512), (0, 511), (1 << 55, 512)]
        {
            assert_eq!(
                ask(&mut driver, kind, sector, &[(DATA_AT, length)]),
                Status::Error as u8,
                "{kind} {sector} {length}"
            );
        }
    }
    assert_eq!(file.metadata().unwrap().len(), 4 * 512);
    assert_eq!(ask(&mut driver, READ, 3, &[(DATA_AT, 512)]), 0, "and it goes on");
}

#[test]
fn it_says_who_it_is_and_knows_no_other_request() {
    let mut driver = driver(&disk(1), false);
    assert_eq!(ask(&mut driver, ID, 0, &[(DATA_AT, 20)]), 0);
    assert_eq!(driver.get(DATA_AT, 20), b"coffer-test\0\0\0\0\0\0\0\0\0");
    for kind in [2, 3, 4, 11, 13, u32::MAX] {
        assert_eq!(ask(&mut driver, kind, 0, &[(DATA_AT, 512)]), Status::Unsupported as u8, "{kind}");
    }
}

#[test]
fn a_disk_that_became_shorter_is_an_error_of_that_request() {
    let file = disk(4);
    let mut driver = driver(&file, false);
    file.set_len(1024).unwrap();
    assert_eq!(ask(&mut driver, READ, 1, &[(DATA_AT, 1024)]), Status::Error as u8);
    assert_eq!(ask(&mut driver, READ, 0, &[(DATA_AT, 1024)]), 0);
}

#[test]
fn requests_without_header_or_status_stop_the_disk() {
    let chains: [&[(u64, u32, bool)]; 4] = [
        &[(HEADER_AT, 15, false), (STATUS_AT, 1, true)],
        &[(HEADER_AT, 16, false)],
        &[(STATUS_AT, 1, true)],
        &[(HEADER_AT, 16, false), (STATUS_AT, 0, true)],
    ];
    for chain in chains {
        let mut driver = driver(&disk(1), false);
        driver.send(0, 0, chain);
        driver.serve();
        assert_ne!(driver.read(register::STATUS) & NEEDS_RESET, 0, "{chain:?}");
    }
}

#[test]
fn a_full_ring_is_served_in_one_go() {
    let mut driver = driver(&disk(4), false);
    driver.put(HEADER_AT, &[0; 16]);
    for head in [0, 3, 6, 9, 12] {
        let at = DATA_AT + u64::from(head) * 0x1000;
        driver.send(0, head, &[(HEADER_AT, 16, false), (at, 512, true), (STATUS_AT, 1, true)]);
    }
    driver.serve();
    assert_eq!((driver.used(0).0, driver.interrupts()), (5, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_header_and_any_buffers_are_survived(
        header in prop::collection::vec(any::<u8>(), 16),
        buffers in prop::collection::vec((0_u64..crate::virtio::driver::MEMORY, 0_u32..70_000, any::<bool>()), 0..12),
    ) {
        let file = disk(4);
        let mut driver = driver(&file, true);
        driver.put(HEADER_AT, &header);
        let mut chain = vec![(HEADER_AT, 16, false)];
        chain.extend(buffers);
        driver.send(0, 0, &chain);
        driver.serve();
        prop_assert_eq!(file.metadata().unwrap().len(), 4 * 512);
    }
}
