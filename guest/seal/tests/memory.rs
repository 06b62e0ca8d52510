//! A stream takes the memory of a few chunks, however long it is.

use std::io::{Read, Write, pipe, sink};

use coffer_seal::{CHUNK, Header, Scope, SealPolicy, Secrets, seal_stream, unseal_stream};
use coffer_verifier::abi::DerivedKey;

const LENGTH: u64 = 4 << 30;
/// Two buffers on each side, the ciphers, a thread's stack, and what the allocator keeps.
const MOST: u64 = 64 * CHUNK as u64;

fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        sink().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn four_gibibytes_are_sealed_and_opened_in_the_memory_of_a_few_chunks() {
    let keys = || Secrets::Processor(DerivedKey::new([7; 32])).of(Scope::Agent);
    let header = Header::new(SealPolicy::MeasurementAndChip, true, 5, b"db", [9; 32]);
    let before = peak_memory();
    let (mut from, mut to) = pipe().unwrap();
    let sealing = std::thread::spawn(move || {
        seal_stream(&keys(), &header, b"db", &mut std::io::repeat(7).take(LENGTH), &mut to).unwrap();
    });
    let mut opened = Counted(0);
    unseal_stream(|_| Ok((keys(), None)), b"db", &mut from, &mut opened).unwrap();
    sealing.join().unwrap();
    assert_eq!(opened.0, LENGTH);
    let grown = peak_memory() - before;
    assert!(grown < MOST, "{grown} bytes more than before");
}
