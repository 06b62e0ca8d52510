//! The host's random numbers, for a guest that mixes them in: virtio-rng.
//!
//! What it gives is the host's word. A guest that trusts its host no further than it must never counts it as entropy: Linux
//! does by itself (its driver's quality is taken from `rng_core.default_quality`, which is full), so a kernel with the driver
//! wants `rng_core.default_quality=0` on its measured command line. The platform's kernel has no such driver.
//!
//! Never: gives more than [`MOST`] bytes for a request. Source: Virtio 1.2 §5.4; Linux drivers/char/hw_random/core.c.

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use virtio_queue::Queue;

use crate::Memory;
use crate::virtio::chain::{self, Request};
use crate::virtio::{Broken, Device, Interrupt};

/// Most bytes of a request; a longer one is answered with fewer bytes than it has room for.
pub const MOST: usize = 4096;

/// The source.
#[derive(Debug, Default)]
pub struct Rng;

/// Answers one request, and says how many bytes it wrote.
fn answer(request: &Request<'_>) -> Result<usize, Broken> {
    if request.writable.is_empty() || !request.readable.is_empty() {
        return Err(Broken::Parts);
    }
    let mut bytes = [0; MOST];
    let bytes = &mut bytes[..request.writable.len().min(MOST)];
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    Ok(request.writable.copy_from(&bytes[..filled]))
}

impl Device for Rng {
    fn id(&self) -> u32 {
        4
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> usize {
        1
    }

    fn configuration(&self) -> Vec<u8> {
        Vec::new()
    }

    fn serve(&mut self, memory: &Memory, queues: &mut [Queue]) -> Result<Interrupt, Broken> {
        let [queue] = queues else { return Err(Broken::Parts) };
        chain::answer_all(queue, memory, |request| answer(&request)).map(Interrupt)
    }

    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::driver::{BUFFERS, Driver};
    use crate::virtio::{NEEDS_RESET, register};

    #[test]
    fn a_request_is_filled_and_no_two_alike() {
        let mut driver = Driver::start(Rng);
        driver.send(0, 0, &[(BUFFERS, 32, true), (BUFFERS + 0x100, 32, true)]);
        driver.serve();
        assert_eq!((driver.used(0), driver.interrupts()), ((1, 64), 1));
        let (one, two) = (driver.get(BUFFERS, 32), driver.get(BUFFERS + 0x100, 32));
        assert!(one != two && one != [0; 32] && two != [0; 32]);
        driver.send(0, 4, &[(BUFFERS, 32, true)]);
        driver.serve();
        assert_ne!(driver.get(BUFFERS, 32), one);
    }

    #[test]
    fn a_long_request_gets_so_much_and_no_more() {
        let mut driver = Driver::start(Rng);
        driver.send(0, 0, &[(BUFFERS, 1 << 20, true)]);
        driver.serve();
        assert_eq!(driver.used(0), (1, MOST as u32));
        assert_eq!(driver.get(BUFFERS + MOST as u64, 64), [0; 64], "what is behind stays as it was");
    }

    #[test]
    fn requests_that_no_driver_makes_stop_it() {
        for chain in [&[(BUFFERS, 8, false)][..], &[(BUFFERS, 8, false), (BUFFERS, 8, true)], &[(BUFFERS, 0, false)]] {
            let mut driver = Driver::start(Rng);
            driver.send(0, 0, chain);
            driver.serve();
            assert_ne!(driver.read(register::STATUS) & NEEDS_RESET, 0, "{chain:?}");
        }
    }

    #[test]
    fn the_platforms_kernel_has_no_driver_that_would_count_it_as_entropy() {
        let kernel = include_str!("../../../guest/kernel/config");
        assert!(kernel.lines().any(|line| line == "# CONFIG_HW_RANDOM_VIRTIO is not set"));
    }
}
