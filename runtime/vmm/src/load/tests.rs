//! What lies where after loading, and what is not loaded.

use std::io::Write as _;

use coffer_machine::handover;
use coffer_machine::map::{KERNEL_GPA, STAGE0_SIZE};

use super::*;

const RAM: u64 = 64 << 20;
const LINE: &[u8] = b"console=ttyS0\0";

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// A header a kernel could have, with `protected` bytes behind its setup part.
fn kernel(protected: usize, init_size: u32) -> Vec<u8> {
    let mut image = vec![0xAB; 1024 + protected];
    image[..1024].fill(0);
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1F1, &[1]);
    put(0x1F4, &(protected as u32).div_ceil(16).to_le_bytes());
    put(0x1FE, &0xAA55_u16.to_le_bytes());
    put(0x200, &[0xEB, 0x6A]);
    put(0x202, b"HdrS");
    put(0x206, &0x020F_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22C, &0x7FFF_FFFF_u32.to_le_bytes());
    put(0x230, &0x0020_0000_u32.to_le_bytes());
    put(0x234, &[1]);
    put(0x236, &0x3F_u16.to_le_bytes());
    put(0x238, &2047_u32.to_le_bytes());
    put(0x260, &init_size.to_le_bytes());
    image
}

fn files() -> Files {
    let mut rom = vec![0x11; ROM_SIZE];
    rom[ROM_SIZE - PAGE..].fill(0x22);
    Files {
        stage0: file(&rom),
        hashes: file(&[0x33; PAGE]),
        kernel: file(&kernel(1 << 20, 4 << 20)),
        initrd: file(&[0x44; 5000]),
        command_line: file(LINE),
        secrets: None,
    }
}

fn memory() -> Memory {
    Memory::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap()
}

fn bytes(memory: &Memory, range: Range) -> Vec<u8> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    memory.read_slice(&mut bytes, GuestAddress(range.start)).unwrap();
    bytes
}

fn page(memory: &Memory, gpa: u64) -> Vec<u8> {
    bytes(memory, Range::new(gpa, PAGE as u64).unwrap())
}

#[test]
fn stage0_finds_everything_where_the_model_has_it() {
    let memory = memory();
    load(&memory, RAM, 2, &files()).unwrap();
    let image = bytes(&memory, Range::new(STAGE0_GPA, STAGE0_SIZE).unwrap());
    assert!(image[..ROM_HASHES].iter().all(|byte| *byte == 0x11));
    assert!(image[ROM_HASHES..].iter().all(|byte| *byte == 0), "the ROM's last pages are no part of the image");
    assert_eq!(page(&memory, HASHES_GPA), [0x33; PAGE]);
    assert_eq!(page(&memory, SECRETS_GPA), [0; PAGE]);
    assert_eq!(page(&memory, PAGE_TABLES_GPA), page_tables(false)[..PAGE]);

    let descriptor: [u8; handover::SIZE] = page(&memory, HANDOVER_GPA)[..handover::SIZE].try_into().unwrap();
    let found = Handover::parse(&descriptor).unwrap().unwrap();
    assert_eq!((found.ram_bytes, found.vcpus), (RAM, 2));
    assert_eq!(bytes(&memory, found.kernel), kernel(1 << 20, 4 << 20));
    assert_eq!(bytes(&memory, found.initrd), [0x44; 5000]);
    assert_eq!(bytes(&memory, found.command_line), LINE);
}

#[test]
fn what_is_handed_over_meets_no_place_it_is_copied_to() {
    let memory = memory();
    load(&memory, RAM, 1, &files()).unwrap();
    let descriptor: [u8; handover::SIZE] = page(&memory, HANDOVER_GPA)[..handover::SIZE].try_into().unwrap();
    let found = Handover::parse(&descriptor).unwrap().unwrap();
    let head = kernel(1 << 20, 4 << 20);
    let image = BzImage::parse(&head, head.len()).unwrap();
    let placed = place(Ram::claimed(RAM).unwrap(), &image, head.len(), 5000, LINE.len()).unwrap();
    let runs = Range::new(KERNEL_GPA, image.init_size).unwrap();
    for handed in [found.kernel, found.initrd, found.command_line] {
        for copied in [placed.kernel, placed.initrd, runs] {
            assert!(!handed.overlaps(copied), "{handed:?} {copied:?}");
        }
    }
}

#[test]
fn a_simulated_guest_gets_its_secrets_page() {
    let memory = memory();
    load(&memory, RAM, 1, &Files { secrets: Some(file(&[0x55; PAGE])), ..files() }).unwrap();
    assert_eq!(page(&memory, SECRETS_GPA), [0x55; PAGE]);
}

#[test]
fn files_of_another_length_and_machines_of_another_size_are_refused() {
    let refused = |files: Files, bytes: u64| load(&memory(), bytes, 1, &files).unwrap_err();
    let short = refused(Files { stage0: file(&vec![0; ROM_SIZE - 1]), ..files() }, RAM);
    assert!(matches!(short, LoadError::Length { part: "stage0", .. }), "{short}");
    let long = refused(Files { hashes: file(&[0; PAGE + 1]), ..files() }, RAM);
    assert!(matches!(long, LoadError::Length { part: "hash page", .. }), "{long}");
    let none = refused(Files { secrets: Some(file(&[])), ..files() }, RAM);
    assert!(matches!(none, LoadError::Length { part: "secrets page", .. }), "{none}");
    let kernel_less = refused(Files { kernel: file(&[0; 4096]), ..files() }, RAM);
    assert!(matches!(kernel_less, LoadError::Kernel { .. }), "{kernel_less}");
    for bytes in [0, RAM + 1, 1 << 40] {
        assert!(matches!(refused(files(), bytes), LoadError::MemorySize { .. }), "{bytes}");
    }
}

#[test]
fn what_fits_once_and_not_twice_is_refused() {
    let big = |init_size: u32| Files { kernel: file(&kernel(20 << 20, init_size)), ..files() };
    assert!(load(&memory(), RAM, 1, &big(24 << 20)).is_ok());
    let refused = load(&memory(), RAM, 1, &big(30 << 20)).unwrap_err();
    assert!(matches!(refused, LoadError::NoRoom { .. }), "{refused}");
}

#[test]
fn an_snp_guest_is_handed_over_in_shared_pieces_apart_and_nothing_else_is_written() {
    let memory = memory();
    let loaded = load_snp(&memory, RAM, 2, &files()).unwrap();
    assert_eq!((loaded.rom[0], loaded.rom[ROM_SIZE - 1], loaded.hashes[0]), (0x11, 0x22, 0x33));
    let descriptor: [u8; handover::SIZE] = page(&memory, SHARED_HANDOVER_GPA)[..handover::SIZE].try_into().unwrap();
    let found = Handover::parse(&descriptor).unwrap().unwrap();
    let area = found.shared_area().unwrap();
    let own = Range::new(SHARED_HANDOVER_GPA, PAGE as u64).unwrap();
    assert_eq!(loaded.shared, [own, area]);
    assert!(own.end <= area.start);
    assert_eq!(bytes(&memory, found.kernel), kernel(1 << 20, 4 << 20));
    assert_eq!(bytes(&memory, found.initrd), [0x44; 5000]);
    assert_eq!(bytes(&memory, found.command_line), LINE);

    let head = kernel(1 << 20, 4 << 20);
    let image = BzImage::parse(&head, head.len()).unwrap();
    let placed = place(Ram::claimed(RAM).unwrap(), &image, head.len(), 5000, LINE.len()).unwrap();
    for copied in [placed.kernel, placed.initrd, Range::new(KERNEL_GPA, image.init_size).unwrap()] {
        assert!(!area.overlaps(copied), "{area:x?} {copied:x?}");
    }
    for range in [Range { start: 0, end: own.start }, Range { start: own.end, end: area.start }] {
        assert!(bytes(&memory, range).iter().all(|byte| *byte == 0), "{range:x?} is the launch's");
    }
}

#[test]
fn an_snp_guest_with_much_memory_is_handed_over_in_the_first_gib() {
    let ram = 3 << 30;
    // Pages of it are taken where they are touched.
    let memory = Memory::from_ranges(&[(GuestAddress(0), ram as usize)]).unwrap();
    let loaded = load_snp(&memory, ram, 2, &files()).unwrap();
    assert_eq!(loaded.shared[1].end, 1 << 30);
}

#[test]
fn what_does_not_fit_in_pieces_and_a_simulated_secret_are_refused() {
    let close = Files { kernel: file(&kernel(20 << 20, 26 << 20)), ..files() };
    assert!(load(&memory(), RAM, 1, &close).is_ok(), "it fits in pages");
    assert!(matches!(load_snp(&memory(), RAM, 1, &close), Err(LoadError::NoRoom { .. })));
    let simulated = Files { secrets: Some(file(&[0; PAGE])), ..files() };
    assert!(matches!(load_snp(&memory(), RAM, 1, &simulated), Err(LoadError::SecretsOfSimulation)));
    let short = Files { stage0: file(&[0; 5]), ..files() };
    assert!(matches!(load_snp(&memory(), RAM, 1, &short), Err(LoadError::Length { part: "stage0", .. })));
}
