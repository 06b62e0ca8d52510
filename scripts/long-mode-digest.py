#!/usr/bin/env python3
"""MEASUREMENT of a launch into 64-bit mode: `long-mode-digest.py STAGE0 KERNEL INITRD APPEND VCPUS`, nothing of Coffer's."""
import hashlib, struct, sys, uuid

NORMAL, VMSA, ZERO, SECRETS, CPUID = 1, 2, 3, 5, 6
PAGE, C_BIT = 4096, 1 << 51
sha384 = lambda data: hashlib.sha384(data).digest()
sha256 = lambda data: hashlib.sha256(data).digest()


def page_tables():
    """4 GiB mapped as they lie, all private: 2 to 4 MiB in small pages, the rest of the first GiB in pages of 2 MiB."""
    table = lambda entries: b"".join(struct.pack("<Q", entry | C_BIT) for entry in entries).ljust(PAGE, b"\0")
    giants = [0x3023] + [n << 30 | 0xE3 for n in (1, 2, 3)]
    large = [0x4023 if n == 1 else n << 21 | 0xE3 for n in range(512)]
    return table([0x2023]) + table(giants) + table(large) + table(0x200000 | n << 12 | 0x63 for n in range(512))


def hash_page(kernel, initrd, line):
    guid = lambda text: uuid.UUID(text).bytes_le
    entry = lambda name, data: guid(name) + struct.pack("<H", 50) + sha256(data)
    return guid("9438d606-4f22-4cc9-b479-a793d411fd21") + struct.pack("<H", 168) + \
        entry("97d02dd8-bd20-4c94-aa78-e7714d36ab2a", line) + \
        entry("44baf731-3a2f-4bd7-9af1-41e29169781d", initrd) + \
        entry("4de79437-abd2-427f-b835-d5b172d2045b", kernel)


def vmsa(rip):
    code, data = (0x10, 0xA9B, 0xFFFFFFFF), (0x18, 0xC93, 0xFFFFFFFF)
    segments = {0x00: data, 0x10: code, 0x20: data, 0x30: data, 0x40: data, 0x50: data,  # ES CS SS DS FS GS
                0x70: (0, 0x82, 0xFFFF), 0x90: (0, 0x8B, 0xFFFF)}                          # LDTR TR; GDTR, IDTR zero
    words = {0xD0: 0x1500, 0x148: 0x60, 0x150: 0x1000 | C_BIT, 0x158: 0x80000031,         # EFER CR4 CR3 CR0
             0x160: 0x400, 0x168: 0xFFFF0FF0, 0x170: 2, 0x178: rip,                       # DR7 DR6 RFLAGS RIP
             0x268: 0x7040600070406, 0x3B0: 1, 0x3E8: 1, 0x408: 0x1F80, 0x410: 0x37F}     # PAT SEV_FEATURES XCR0 MXCSR FCW
    page = bytearray(PAGE)
    for at, (selector, attributes, limit) in segments.items():
        struct.pack_into("<HHIQ", page, at, selector, attributes, limit, 0)
    for at, word in words.items():
        struct.pack_into("<Q", page, at, word)
    return bytes(page)


def extended(digest, gpa, kind, page):
    contents = sha384(page.ljust(PAGE, b"\0")) if kind in (NORMAL, VMSA) else bytes(48)
    return sha384(digest + contents + struct.pack("<HBBIQ", 0x70, kind, 0, 0, gpa))


rom, kernel, initrd = (open(path, "rb").read() for path in sys.argv[1:4])
image, parking = rom[:-2 * PAGE].ljust(0x10000, b"\0"), rom[-PAGE:]
digest = bytes(48)
for start, data in (0x1000, page_tables()), (0x100000, image), (0xEB000, parking):
    for at in range(0, len(data), PAGE):
        page = data[at:at + PAGE]
        digest = extended(digest, start + at, NORMAL if any(page) else ZERO, page)
digest = extended(digest, 0xE8000, SECRETS, b"")
digest = extended(digest, 0xE9000, CPUID, b"")
digest = extended(digest, 0xEA000, NORMAL, hash_page(kernel, initrd, sys.argv[4].encode() + b"\0"))
for vcpu in range(int(sys.argv[5])):
    digest = extended(digest, 0xFFFFFFFFF000, VMSA, vmsa(0xEB040 if vcpu else 0x100000))
print(digest.hex())
