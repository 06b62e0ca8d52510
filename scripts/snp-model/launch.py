"""What is put into a guest before it runs, read from the ROM itself, and kernels that do nothing.

Two forms: the reset vector, as QEMU launches it, and the 64-bit entry, as a monitor does that loads the image itself.
Source: OVMF's SEV metadata (OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm); QEMU target/i386/sev.c (hash table).
"""

import hashlib
import struct
import uuid

from machine import C_BIT, PAGE, ROM_GPA, ROM_SIZE

SECRETS, CPUID, HASHES, PARKING = 0xE8000, 0xE9000, 0xEA000, 0xEB000
IMAGE, IMAGE_SIZE, KERNEL = 0x100000, 0x10000, 0x1000000
PAGE_TABLES = 0x1000


class Boot:
    """Kernel, initrd and command line, the latter with its NUL."""

    def __init__(self, kernel, initrd=b"initrd" * 99, line=b"console=ttyS0\0"):
        self.kernel, self.initrd, self.line = kernel, initrd, line


def small_kernel(mark=b"A", protected=5000):
    """A bzImage whose 64-bit entry the model watches."""
    image = bytearray(1024 + protected)
    image[1024:] = (mark * protected)[:protected]
    for at, data in (
        (0x1F1, b"\1"), (0x1F4, struct.pack("<I", -(-protected // 16))), (0x1FE, b"\x55\xaa"), (0x200, b"\xeb\x6aHdrS"),
        (0x206, b"\x0f\x02"), (0x211, b"\1"), (0x22C, struct.pack("<I", 0x7FFFFFFF)), (0x230, struct.pack("<I", 1 << 21)),
        (0x234, b"\1"), (0x236, b"\x3f\0"), (0x238, struct.pack("<I", 2047)), (0x260, struct.pack("<I", 1 << 20)),
    ):
        image[at:at + len(data)] = data
    return bytes(image)


def hash_page(boot):
    guid = lambda text: uuid.UUID(text).bytes_le
    table = guid("9438d606-4f22-4cc9-b479-a793d411fd21") + struct.pack("<H", 168)
    for name, data in (
        ("97d02dd8-bd20-4c94-aa78-e7714d36ab2a", boot.line), ("44baf731-3a2f-4bd7-9af1-41e29169781d", boot.initrd),
        ("4de79437-abd2-427f-b835-d5b172d2045b", boot.kernel),
    ):
        table += guid(name) + struct.pack("<H", 50) + hashlib.sha256(data).digest()
    return table.ljust(PAGE, b"\0")


def cpuid_page(entries=None, count=None, tail=b""):
    """Entries are (leaf, subleaf, eax, ebx, ecx, edx)."""
    entries = CPUID_ENTRIES if entries is None else entries
    page = struct.pack("<IIQ", len(entries) if count is None else count, 0, 0)
    for leaf, subleaf, *values in entries:
        page += struct.pack("<IIQQ4IQ", leaf, subleaf, 0, 0, *values, 0)
    return (page + tail)[:PAGE].ljust(PAGE, b"\0")


CPUID_ENTRIES = [
    (0, 0, 0x10, 0x68747541, 0x444D4163, 0x69746E65), (1, 0, 0x00A00F11, 0x800, 0x7EFA3203, 0x178BFBFF),
    (7, 0, 0, 0x219C91A9, 0x40069C, 0), (0x80000000, 0, 0x80000023, 0x68747541, 0x444D4163, 0x69746E65),
    (0x8000001F, 0, 0x1A, 0x40 | 51, 0x1FD, 0x1),
]


def metadata(rom):
    """Sections as (gpa, size, kind), and where other processors start."""
    end = len(rom) - 32
    total, = struct.unpack("<H", rom[end - 18:end - 16])
    at, found = end - 18, {}
    while at > end - total:
        length, = struct.unpack("<H", rom[at - 18:at - 16])
        found[str(uuid.UUID(bytes_le=rom[at - 16:at]))] = rom[at - length:at - 18]
        at -= length
    start = len(rom) - struct.unpack("<I", found["dc886566-984a-4798-a75e-5585a7bf67cc"])[0]
    magic, _, _, count = struct.unpack("<4sIII", rom[start:start + 16])
    assert magic == b"ASEV"
    sections = [struct.unpack("<III", rom[start + 16 + 12 * i:start + 28 + 12 * i]) for i in range(count)]
    return sections, struct.unpack("<I", found["00f771de-1a7e-4fcb-890e-68c77e2fb44e"])[0]


def by_reset_vector(machine, boot, cpuid=None):
    """QEMU's launch: the ROM with the hashes in its last page but one, then what its metadata names; the first processor at
    the reset vector."""
    contents = {2: b"SECRETS".ljust(PAGE, b"\7"), 3: cpuid_page() if cpuid is None else cpuid}
    machine.load(ROM_GPA, machine.rom[:-2 * PAGE] + hash_page(boot) + machine.rom[-PAGE:])
    for gpa, size, kind in metadata(machine.rom)[0]:
        machine.load(gpa, contents.get(kind, bytes(size)))
    machine.kernel_entry = KERNEL + 0x200
    machine.hypervisor.prepare()
    machine.start_real(0xFFF0, 0xF000)


def page_tables(c_bit=C_BIT):
    """The pages of the 64-bit form: 4 GiB mapped to themselves, all private, the shared window in 4 KiB pages.

    Written down here once more, apart from stage0 and from the machine model; compared with what the reset path writes.
    """
    word = lambda value: struct.pack("<Q", value)
    root = word(0x2023 | c_bit).ljust(PAGE, b"\0")
    giants = word(0x3023 | c_bit) + b"".join(word(n << 30 | 0xE3 | c_bit) for n in (1, 2, 3))
    large = b"".join(word(0x4023 | c_bit if n == 1 else n << 21 | 0xE3 | c_bit) for n in range(512))
    small = b"".join(word(0x200000 | n << 12 | 0x63 | c_bit) for n in range(512))
    return root + giants.ljust(PAGE, b"\0") + large + small


def by_entry_64(machine, boot, cpuid=None, entry=IMAGE, cr3=PAGE_TABLES | C_BIT):
    """Our monitor's launch: page tables, image, the parking page and the three pages, all measured; no ROM."""
    machine.load(PAGE_TABLES, page_tables())
    machine.load(SECRETS, b"SECRETS".ljust(PAGE, b"\7"))
    machine.load(CPUID, cpuid_page() if cpuid is None else cpuid)
    machine.load(HASHES, hash_page(boot))
    machine.load(PARKING, machine.rom[ROM_SIZE - PAGE:])
    machine.load(IMAGE, machine.rom[:ROM_SIZE - 2 * PAGE].ljust(IMAGE_SIZE, b"\0"))
    machine.kernel_entry = KERNEL + 0x200
    machine.hypervisor.prepare()
    machine.efer = 0x1500
    machine.start_long(entry, cr3)
