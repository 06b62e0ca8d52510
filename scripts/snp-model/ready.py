"""What has to hold when a kernel is entered, as Linux needs it. Each finding is a sentence.

Source: Linux Documentation/arch/x86/boot.rst, uapi/asm/bootparam.h, `struct cc_blob_sev_info`; arch/x86/mm/ioremap.c (which
types of memory an SEV guest maps with the C-bit); drivers/firmware/iscsi_ibft_find.c (who reads the BIOS area).
"""

import struct

import launch
from machine import ASSIGNED, PAGE, VALIDATED
from unicorn import x86_const as x86

RAM, RESERVED, ACPI = 1, 2, 3
NO_STACK = 0xF000
"""Where a parked processor would push first: validated by nobody, for the VM's life."""
LAUNCHED = (launch.SECRETS, launch.CPUID, launch.HASHES, launch.PARKING)


def findings(machine, boot, ram_bytes, checks=None):
    """Everything that is not as it has to be; empty if all is well."""
    return [text for check in checks or CHECKS for text in check(machine, boot, ram_bytes)]


def _kernel(machine, boot, _ram):
    setup = (boot.kernel[0x1F1] + 1) * 512
    if machine.read_private(launch.KERNEL - setup, len(boot.kernel)) != boot.kernel:
        yield "the kernel in memory is not the measured one"
    page = machine.read_private(machine.reg(x86.UC_X86_REG_RSI), PAGE)
    initrd, length, line = struct.unpack("<II", page[0x218:0x220]) + struct.unpack("<I", page[0x228:0x22C])
    if machine.read_private(initrd, length) != boot.initrd:
        yield "the initrd in memory is not the measured one"
    if machine.read_private(line, len(boot.line)) != boot.line:
        yield "the command line in memory is not the measured one"
    if page[0x1F1:0x210] != boot.kernel[0x1F1:0x210]:
        yield "the zero page has another setup header"


def _memory(machine, _boot, ram):
    own = ASSIGNED | VALIDATED
    wrong = [page for page in range(ram >> 12) if machine.rmp[page] & own != own and page != NO_STACK >> 12]
    if wrong:
        yield f"{len(wrong)} pages are not private and validated, the first at {wrong[0] << 12:#x}"
    if machine.rmp[NO_STACK >> 12] & VALIDATED:
        yield "a parked processor has a stack"


def _mappings(machine, _boot, ram):
    small = range(0x200000, 0x400000, PAGE)
    for address in [*range(0, ram, 0x200000), *small, 0xFFFFF000]:
        gpa, encrypted = machine.walk(address)
        if gpa != address or not encrypted:
            yield f"{address:#x} is mapped to {gpa:#x}, private: {encrypted}"
            return


def memory_map(machine):
    """e820 as (start, end, type)."""
    page = machine.read_private(machine.reg(x86.UC_X86_REG_RSI), PAGE)
    entries = [struct.unpack("<QQI", page[0x2D0 + 20 * i:0x2E4 + 20 * i]) for i in range(page[0x1E8])]
    return [(start, start + length, kind) for start, length, kind in entries]


def _map(machine, _boot, ram):
    entries = memory_map(machine)
    if any(one[1] > other[0] for one, other in zip(entries, entries[1:])):
        yield "e820 is not sorted"
    kinds = {page: kind for start, end, kind in entries for page in range(start >> 12, min(end, ram) >> 12)}
    if any(kind == RAM and end > ram for _, end, kind in entries):
        yield "e820 has RAM that is not there"
    for what, pages in (("a parked processor's vectors, stack and page tables", range(0x11)),
                        ("the BIOS area", range(0xA0, 0x100))):
        if any(kinds.get(page) == RAM for page in pages):
            yield f"e820 gives {what} to the kernel"
    if sum(kind == RAM for kind in kinds.values()) < (ram >> 12) - 0x11 - 0x60:
        yield "e820 keeps memory from the kernel"


def _tables(machine, _boot, _ram):
    page = machine.read_private(machine.reg(x86.UC_X86_REG_RSI), PAGE)
    kinds = {at >> 12: kind for start, end, kind in memory_map(machine) if end <= 1 << 20
             for at in range(start, end, PAGE)}
    rsdp, = struct.unpack("<Q", page[0x70:0x78])
    head = machine.read_private(rsdp, 36)
    if head[:8] != b"RSD PTR " or sum(head) & 255:
        yield f"no RSDP at {rsdp:#x}"
        return
    tables, seen = [rsdp, struct.unpack("<Q", head[24:32])[0]], set()
    while tables:
        at = tables.pop()
        if kinds.get(at >> 12) != ACPI:
            yield f"the ACPI table at {at:#x} is memory of type {kinds.get(at >> 12)}, which an SEV guest reads unencrypted"
        if at == rsdp:
            continue
        length, = struct.unpack("<I", machine.read_private(at + 4, 4))
        table = machine.read_private(at, length)
        seen.add(table[:4])
        if sum(table) & 255:
            yield f"the ACPI table {table[:4]} has a wrong sum"
        if table[:4] == b"XSDT":
            tables += [word for word, in struct.iter_unpack("<Q", table[36:])]
        elif table[:4] == b"FACP":
            tables.append(struct.unpack("<Q", table[140:148])[0])
    if seen != {b"XSDT", b"FACP", b"DSDT", b"APIC"}:
        yield f"ACPI tables {seen}"


def _blob(machine, _boot, _ram):
    page = machine.read_private(machine.reg(x86.UC_X86_REG_RSI), PAGE)
    node, = struct.unpack("<Q", page[0x250:0x258])
    following, kind, length, blob = struct.unpack("<QIII", machine.read_private(node, 20))
    if (following, kind, length) != (0, 7, 8):
        yield f"setup_data is {following:#x}, {kind}, {length}"
        return
    found = struct.unpack("<IHHQIIQII", machine.read_private(blob, 40))
    if found != (0x45444D41, 0, 0, launch.SECRETS, PAGE, 0, launch.CPUID, PAGE, 0):
        yield f"the CC blob is {found}"
    cpuid = machine.read_private(launch.CPUID, PAGE)
    if any(cpuid[4:16]) or any(cpuid[16 + 48 * int.from_bytes(cpuid[:4], "little"):]):
        yield "the CPUID page has something beside its entries"


def _bios(machine, _boot, _ram):
    """The BIOS area is zero apart from the launched pages and the ACPI tables; what else is left over is zero, too."""
    acpi = {at for start, end, kind in memory_map(machine) if kind == ACPI for at in range(start, end, PAGE)}
    for at in [*range(0xA0000, 0x100000, PAGE), *range(0x8000, 0x11000, PAGE)]:
        if at not in acpi and at not in LAUNCHED and at != NO_STACK and any(machine.read_private(at, PAGE)):
            yield f"{at:#x} holds what the host left there"
            return


def _registers(machine, _boot, _ram):
    if machine.reg(x86.UC_X86_REG_IDTR)[2] != 0:
        yield "the kernel is entered with stage0's interrupt table"
    if machine.flags & 1 << 10 or machine.flags & 1 << 9:
        yield "the kernel is entered with DF or IF set"
    if machine.counts["cpuid"]:
        yield "CPUID was executed"


CHECKS = (_kernel, _memory, _mappings, _map, _tables, _blob, _bios, _registers)
"""What is run is the first of them, what it finds the others."""
