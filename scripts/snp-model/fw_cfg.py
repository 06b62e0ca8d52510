"""QEMU's fw_cfg device with its DMA interface, on the host's side of shared memory.

Source: QEMU docs/specs/fw_cfg.rst.
"""

import struct

SIGNATURE, ID, RAM_SIZE, CPUS = 0x00, 0x01, 0x03, 0x05
KERNEL_SIZE, INITRD_SIZE, KERNEL_DATA, INITRD_DATA = 0x08, 0x0B, 0x11, 0x12
LINE_SIZE, LINE_DATA, SETUP_SIZE, SETUP_DATA = 0x14, 0x15, 0x17, 0x18


class FwCfg:
    """`boot`: what the host gives, a `launch.Boot`."""

    def __init__(self, boot, ram_bytes, vcpus=1):
        setup = min((boot.kernel[0x1F1] or 4) * 512 + 512, len(boot.kernel) - 1)
        word = lambda value: struct.pack("<I", value)
        self.items = {
            SIGNATURE: b"QEMU", ID: word(3), RAM_SIZE: struct.pack("<Q", ram_bytes), CPUS: struct.pack("<H", vcpus),
            SETUP_SIZE: word(setup), SETUP_DATA: boot.kernel[:setup],
            KERNEL_SIZE: word(len(boot.kernel) - setup), KERNEL_DATA: boot.kernel[setup:],
            INITRD_SIZE: word(len(boot.initrd)), INITRD_DATA: boot.initrd,
            LINE_SIZE: word(len(boot.line)), LINE_DATA: boot.line,
        }
        self.high = self.selected = self.offset = 0
        self.commands = 0

    def handed_over(self, machine):
        """Nothing lies in memory before the guest runs."""

    def read(self, _host, port, _size):
        return struct.unpack("<I", b"QEMU")[0] if port == 0x514 else 0xFFFFFFFF

    def write(self, host, port, size, value):
        if port == 0x514:
            self.high = int.from_bytes(value.to_bytes(size, "little"), "big")
        elif port == 0x518:
            self.command(host.machine, self.high << 32 | int.from_bytes(value.to_bytes(size, "little"), "big"))

    def command(self, machine, at):
        self.commands += 1
        control, length, to = struct.unpack(">IIQ", machine.shared[at:at + 16])
        if control & 8:
            self.selected, self.offset = control >> 16, 0
        if control & 2:
            data = self.contents(self.selected)[self.offset:self.offset + length].ljust(length, b"\0")
            machine.shared[to:to + length] = data
            self.offset += length
        machine.shared[at:at + 4] = self.answer(control)

    def contents(self, selector):
        return self.items.get(selector, b"")

    def answer(self, _control):
        return bytes(4)
