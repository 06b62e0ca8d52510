"""The host's side of the RAM hand-over under SEV-SNP: no fw_cfg; a descriptor in the shared window, the parts in shared
memory.

Source: guest/machine/src/handover.rs, whose layout is written down here once more.
"""

import struct

from machine import LARGE

DESCRIPTOR = 0x201000


class Handover:
    """`place`: where the parts lie, one behind the other on page boundaries."""

    def __init__(self, boot, ram_bytes, vcpus=1, place=0x2000000):
        self.boot, self.ram_bytes, self.vcpus, self.place = boot, ram_bytes, vcpus, place

    def ranges(self):
        at, ranges = self.place, []
        for part in (self.boot.kernel, self.boot.initrd, self.boot.line):
            ranges.append((at, len(part)))
            at += len(part) + 0xFFF & ~0xFFF
        return ranges

    def descriptor(self):
        words = b"".join(struct.pack("<QQ", *found) for found in self.ranges())
        return b"COFHAND1" + struct.pack("<QII", self.ram_bytes, self.vcpus, 0) + words

    def handed_over(self, machine):
        """Shares what the parts lie in, and fills it."""
        parts = (self.boot.kernel, self.boot.initrd, self.boot.line)
        for (start, length), part in zip(self.ranges(), parts):
            machine.shared[start:start + length] = part
        start = self.place & ~(LARGE - 1)
        end = max(at + length for at, length in self.ranges()) + LARGE - 1 & ~(LARGE - 1)
        for page in range(start >> 12, end >> 12):
            machine.rmp[page] = 0
        found = self.descriptor()
        machine.shared[DESCRIPTOR:DESCRIPTOR + len(found)] = found

    def read(self, _host, _port, _size):
        return 0xFFFFFFFF

    def write(self, _host, _port, _size, _value):
        pass
