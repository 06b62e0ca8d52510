//! The ports of the machine: the serial line, and the one where stage0 says why it refuses.

use std::io::Write;

use coffer_machine::Refusal;
use coffer_machine::devices::{EXIT_PORT, SERIAL_PORT};
use vm_superio::{Serial, Trigger, serial::NoEvents};
use vmm_sys_util::eventfd::EventFd;

/// The serial line's interrupt.
#[derive(Debug)]
pub struct Line(pub EventFd);

impl Trigger for Line {
    type E = std::io::Error;

    fn trigger(&self) -> std::io::Result<()> {
        self.0.write(1)
    }
}

/// All ports.
pub struct Ports<W: Write> {
    serial: Serial<Line, NoEvents, W>,
}

impl<W: Write> Ports<W> {
    /// Ports whose serial line goes there.
    pub fn new(interrupt: Line, output: W) -> Self {
        Self { serial: Serial::new(interrupt, output) }
    }

    /// Reads; what nobody answers reads as ones.
    pub fn read(&mut self, port: u16, data: &mut [u8]) {
        match (serial_register(port), data) {
            (Some(register), [byte]) => *byte = self.serial.read(register),
            (_, data) => data.fill(0xFF),
        }
    }

    /// Writes; a refusal ends the machine.
    pub fn write(&mut self, port: u16, data: &[u8]) -> Option<Refusal> {
        match (port, data) {
            (EXIT_PORT, [byte, ..]) => return Refusal::of_exit_byte(*byte),
            (_, [byte]) => {
                if let Some(register) = serial_register(port) {
                    // A reader that is gone must not stop the guest.
                    let _ = self.serial.write(register, *byte);
                }
            }
            _ => {}
        }
        None
    }
}

fn serial_register(port: u16) -> Option<u8> {
    port.checked_sub(SERIAL_PORT).filter(|register| *register < 8).map(|register| register as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_speaks_a_refusal_ends_and_the_rest_is_silence() {
        let mut said = Vec::new();
        let mut ports = Ports::new(Line(EventFd::new(0).unwrap()), &mut said);
        for byte in *b"hi" {
            assert_eq!(ports.write(SERIAL_PORT, &[byte]), None);
        }
        assert_eq!(ports.write(EXIT_PORT, &[Refusal::KernelHash.exit_byte()]), Some(Refusal::KernelHash));
        for byte in [0, 1, 0x40, 0xFF] {
            assert_eq!(ports.write(EXIT_PORT, &[byte]), None);
        }
        let mut data = [0; 4];
        ports.read(0x64, &mut data);
        assert_eq!(data, [0xFF; 4]);
        ports.read(SERIAL_PORT + 5, &mut data[..1]);
        assert_eq!(data[0] & 0x20, 0x20, "the transmitter is always free");
        drop(ports);
        assert_eq!(said, b"hi");
    }
}
