"""QEMU's fw_cfg device with its DMA interface, on the host's side of shared memory.

Source: QEMU docs/specs/fw_cfg.rst.
"""

import struct

SIGNATURE, ID, RAM_SIZE, CPUS, DIRECTORY = 0x00, 0x01, 0x03, 0x05, 0x19
OTHER, KERNEL, INITRD, LINE = 0x20, 0x21, 0x22, 0x23
"""Files have selectors from 0x20 on."""
NAMES = {OTHER: "etc/e820", KERNEL: "opt/coffer/kernel", INITRD: "opt/coffer/initrd", LINE: "opt/coffer/cmdline"}


def directory(files):
    """`files`: (name, selector, bytes)."""
    entry = lambda name, selector, size: struct.pack(">IHH56s", size, selector, 0, name.encode())
    return struct.pack(">I", len(files)) + b"".join(entry(*file) for file in files)


class FwCfg:
    """`boot`: what the host gives, a `launch.Boot`."""

    def __init__(self, boot, ram_bytes, vcpus=1):
        word = lambda value: struct.pack("<I", value)
        self.items = {
            SIGNATURE: b"QEMU", ID: word(3), RAM_SIZE: struct.pack("<Q", ram_bytes), CPUS: struct.pack("<H", vcpus),
            OTHER: bytes(20), KERNEL: boot.kernel, INITRD: boot.initrd, LINE: boot.line,
        }
        self.items[DIRECTORY] = directory(self.files())
        self.high = self.selected = self.offset = 0
        self.commands = 0

    def files(self):
        """What the directory says there is: (name, selector, bytes)."""
        return [(name, selector, len(self.items[selector])) for selector, name in NAMES.items()]

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
