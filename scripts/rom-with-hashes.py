#!/usr/bin/env python3
"""The ROM of a launch at the reset vector: `rom-with-hashes.py STAGE0 KERNEL INITRD APPEND > ROM`, nothing of Coffer's."""
import hashlib, struct, sys, uuid

guid = lambda text: uuid.UUID(text).bytes_le
entry = lambda name, data: guid(name) + struct.pack("<H", 50) + hashlib.sha256(data).digest()
rom, kernel, initrd = (open(path, "rb").read() for path in sys.argv[1:4])
page = guid("9438d606-4f22-4cc9-b479-a793d411fd21") + struct.pack("<H", 168) + \
    entry("97d02dd8-bd20-4c94-aa78-e7714d36ab2a", sys.argv[4].encode() + b"\0") + \
    entry("44baf731-3a2f-4bd7-9af1-41e29169781d", initrd) + \
    entry("4de79437-abd2-427f-b835-d5b172d2045b", kernel)
sys.stdout.buffer.write(rom[:-8192] + page.ljust(4096, b"\0") + rom[-4096:])
