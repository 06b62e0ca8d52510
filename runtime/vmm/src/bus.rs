//! What lies behind the guest's ports and addresses that are no memory, and where its interrupts lead.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use coffer_machine::Refusal;
use coffer_machine::devices::{IO_APIC_INPUTS, IO_APICS, VIRTIO_MMIO_BASE, VIRTIO_MMIO_COUNT, VIRTIO_MMIO_STRIDE};
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    KvmIrqRouting, kvm_irq_routing_entry,
};
use kvm_ioctls::VmFd;

use crate::Memory;
use crate::io_apic::IoApic;
use crate::ports::Ports;
use crate::snp::PrivateMemory;
use crate::snp::page_state::Change;
use crate::virtio::{Transport, read_empty};

/// What the guest's processors reach: ports, transports, and the second I/O APIC.
pub struct Bus {
    ports: Mutex<Ports<File>>,
    transports: Vec<Arc<Transport>>,
    io_apic: Mutex<IoApic>,
    vm: VmFd,
    memory: &'static Memory,
}

impl Bus {
    /// All of them, with nothing routed from the second I/O APIC.
    pub fn new(ports: Ports<File>, transports: Vec<Arc<Transport>>, vm: VmFd, memory: &'static Memory) -> Self {
        Self { ports: Mutex::new(ports), transports, io_apic: Mutex::default(), vm, memory }
    }

    /// Lets pages of an SEV-SNP guest change hands.
    ///
    /// # Errors
    /// As the kernel's.
    pub fn change_pages(&self, private: &PrivateMemory, change: Change) -> std::io::Result<()> {
        private.change(&self.vm, self.memory, change)
    }

    /// Reads a port.
    pub fn read_port(&self, port: u16, data: &mut [u8]) {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).read(port, data);
    }

    /// Writes a port; a refusal ends the machine.
    pub fn write_port(&self, port: u16, data: &[u8]) -> Option<Refusal> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).write(port, data)
    }

    /// Reads memory that is a device's; what is nobody's reads as ones.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match place(address) {
            Place::Transport(index, offset) => match self.transports.get(index) {
                Some(transport) => transport.read(offset, data),
                None => read_empty(offset, data),
            },
            Place::IoApic(offset) => {
                let word = self.io_apic.lock().unwrap_or_else(PoisonError::into_inner).read(offset);
                data.fill(0);
                for (to, from) in data.iter_mut().zip(word.to_le_bytes()) {
                    *to = from;
                }
            }
            Place::Nowhere => data.fill(0xFF),
        }
    }

    /// Writes memory that is a device's.
    pub fn write(&self, address: u64, data: &[u8]) {
        match place(address) {
            Place::Transport(index, offset) => {
                if let Some(transport) = self.transports.get(index) {
                    transport.write(self.memory, offset, data);
                }
            }
            Place::IoApic(offset) => {
                let Ok(word) = <[u8; 4]>::try_from(data) else { return };
                let mut chip = self.io_apic.lock().unwrap_or_else(PoisonError::into_inner);
                if chip.write(offset, u32::from_le_bytes(word)) {
                    // KVM refuses a route only for a defect of ours; the guest then hears nothing from its device.
                    let _ = set_routes(&self.vm, &chip);
                }
            }
            Place::Nowhere => {}
        }
    }
}

enum Place {
    Transport(usize, u64),
    IoApic(u64),
    Nowhere,
}

fn place(address: u64) -> Place {
    const TRANSPORTS: u64 = VIRTIO_MMIO_COUNT as u64 * VIRTIO_MMIO_STRIDE;
    let chip = u64::from(IO_APICS[1].address);
    match (address.checked_sub(VIRTIO_MMIO_BASE), address.checked_sub(chip)) {
        (Some(offset), _) if offset < TRANSPORTS => {
            Place::Transport((offset / VIRTIO_MMIO_STRIDE) as usize, offset % VIRTIO_MMIO_STRIDE)
        }
        (_, Some(offset)) if offset < IO_APIC_WINDOW => Place::IoApic(offset),
        _ => Place::Nowhere,
    }
}

/// Bytes of an I/O APIC's registers.
const IO_APIC_WINDOW: u64 = 0x100;

/// The routes of all interrupts: a PC's own, and those of the second I/O APIC.
///
/// # Errors
/// If KVM does not take them.
pub fn set_routes(vm: &VmFd, chip: &IoApic) -> Result<(), kvm_ioctls::Error> {
    let mut all = Vec::new();
    let mut to_chip = |gsi: u32, irqchip: u32, pin: u32| {
        let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
        (entry.u.irqchip.irqchip, entry.u.irqchip.pin) = (irqchip, pin);
        all.push(entry);
    };
    for gsi in 0..16 {
        let chip = if gsi < 8 { KVM_IRQCHIP_PIC_MASTER } else { KVM_IRQCHIP_PIC_SLAVE };
        to_chip(gsi, chip, gsi % 8);
    }
    // The timer arrives at input 2, as on every PC and as the measured tables say.
    for gsi in (0..IO_APIC_INPUTS).filter(|gsi| *gsi != 2) {
        to_chip(gsi, KVM_IRQCHIP_IOAPIC, if gsi == 0 { 2 } else { gsi });
    }
    for (input, route) in chip.routes() {
        let gsi = IO_APICS[1].first_gsi + input as u32;
        let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
        (entry.u.msi.address_lo, entry.u.msi.data) = (route.address, route.data);
        all.push(entry);
    }
    let table = KvmIrqRouting::from_entries(&all).map_err(|_| kvm_ioctls::Error::new(libc::E2BIG))?;
    vm.set_gsi_routing(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_a_device_has_its_place_and_no_other_has() {
        let found = |address: u64| match place(address) {
            Place::Transport(index, offset) => Some((index, offset)),
            Place::IoApic(offset) => Some((usize::MAX, offset)),
            Place::Nowhere => None,
        };
        let last = u64::from(VIRTIO_MMIO_COUNT - 1);
        assert_eq!(found(VIRTIO_MMIO_BASE + 4), Some((0, 4)));
        assert_eq!(found(VIRTIO_MMIO_BASE + last * VIRTIO_MMIO_STRIDE + 0x1FF), Some((last as usize, 0x1FF)));
        assert_eq!(found(VIRTIO_MMIO_BASE + (last + 1) * VIRTIO_MMIO_STRIDE), None);
        assert_eq!(found(VIRTIO_MMIO_BASE - 1), None);
        assert_eq!(found(u64::from(IO_APICS[1].address) + 0x10), Some((usize::MAX, 0x10)));
        assert_eq!(found(u64::from(IO_APICS[0].address)), None, "KVM's own");
        assert_eq!(found(u64::MAX), None);
    }
}
