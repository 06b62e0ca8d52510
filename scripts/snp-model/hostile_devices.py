"""Hosts that lie about kernel, initrd, command line, memory and processors: by fw_cfg and by hand-over."""

import struct

import fw_cfg
from fw_cfg import FwCfg
from handover import Handover
from hostile import BOOTS, FOREIGN, HOST_GIVES_UP, MEASURED, Must, case, refused
from hypervisor import Hypervisor
from launch import Boot
from machine import LARGE

KERNEL_HASH, INITRD_HASH, LINE_HASH, FORMAT, NO_ROOM, MEMORY, VCPUS, NO_KERNEL, DEVICE, VALIDATION, NUL = 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16


def with_items(**items):
    """A device with other contents for some items."""
    names = {name: getattr(fw_cfg, name.upper()) for name in items}

    class Other(FwCfg):
        def contents(self, selector):
            for name, value in items.items():
                if selector == names[name]:
                    return value
            return super().contents(selector)
    return Other


def with_files(change):
    """A device whose directory says something else of a file: `change` takes and gives name, selector and bytes."""
    class Other(FwCfg):
        def files(self):
            return [change(*file) for file in super().files()]
    return Other


def cases():
    word = lambda value: struct.pack("<I", value)
    for form in ("reset", "entry64"):
        given = lambda **parts: Boot(**{"kernel": MEASURED.kernel, "initrd": MEASURED.initrd, "line": MEASURED.line, **parts})
        yield case("another kernel", refused(KERNEL_HASH), form, given=given(kernel=FOREIGN))
        yield case("the kernel with one bit flipped", refused(KERNEL_HASH), form,
                   given=given(kernel=MEASURED.kernel[:-1] + bytes([MEASURED.kernel[-1] ^ 1])))
        yield case("another initrd", refused(INITRD_HASH), form, given=given(initrd=b"other"))
        yield case("no initrd", refused(INITRD_HASH), form, given=given(initrd=b""))
        yield case("another command line", refused(LINE_HASH), form, given=given(line=b"init=/bin/sh\0"))
        yield case("the command line without its NUL", refused(LINE_HASH), form, given=given(line=MEASURED.line[:-1]))
        yield case("a line that was measured without a NUL", refused(NUL), form, measured=Boot(MEASURED.kernel, line=b"x"))
        yield case("a kernel that was measured and is none", refused(FORMAT), form, measured=Boot(b"\x7fELF" * 999))
        for name, ram in (("32 MiB", 32 << 20), ("4 GiB", 4 << 30), ("64 MiB and a byte", (64 << 20) + 1),
                          ("2^64 - 1 bytes", (1 << 64) - 1)):
            yield case(f"memory of {name}", refused(MEMORY), form, claimed=ram)
        yield case("more memory than there is", refused(VALIDATION), form,
                   claimed=128 << 20, hypervisor=Boundless)
        yield case("less memory than there is", BOOTS, form, ram_mib=64, claimed=64 << 20)
        yield case("no processor", refused(VCPUS), form, vcpus=0)
        yield case("nine processors", refused(VCPUS), form, vcpus=9)

    for name, must, items in (
        ("no signature", refused(NO_KERNEL), {"signature": b"QEMV"}),
        ("a device without DMA", refused(NO_KERNEL), {"id": word(1)}),
        ("a directory of no bytes", refused(NO_KERNEL), {"directory": b""}),
        ("a directory of 2^32 - 1 files without an end", refused(NO_KERNEL), {"directory": b"\xff" * 8192}),
    ):
        yield case(name, must, devices=with_items(**items))
    for name, must, size, which in (
        ("kernel of no bytes", refused(FORMAT), 0, fw_cfg.KERNEL),
        ("kernel of 4 GiB", refused(FORMAT, NO_ROOM), 0xFFFFFFFF, fw_cfg.KERNEL),
        ("initrd of 4 GiB", refused(NO_ROOM), 0xFFFFFFFF, fw_cfg.INITRD),
        ("command line of 3000 bytes", refused(NO_ROOM), 3000, fw_cfg.LINE),
        ("command line of no bytes", refused(LINE_HASH), 0, fw_cfg.LINE),
    ):
        yield case(name, must, devices=with_files(lambda name, at, size, which=which, new=size: (name, at, new if at == which else size)))
    for name, must, which in (
        ("no kernel in the directory", refused(NO_KERNEL), fw_cfg.KERNEL),
        ("no command line in the directory", refused(NO_KERNEL), fw_cfg.LINE),
        ("no initrd in the directory", refused(INITRD_HASH), fw_cfg.INITRD),
    ):
        yield case(name, must, devices=with_files(lambda name, at, size, which=which: ("x" if at == which else name, at, size)))
    yield case("two kernels in the directory", refused(NO_KERNEL), devices=with_files(
        lambda name, at, size: (fw_cfg.NAMES[fw_cfg.KERNEL] if at == fw_cfg.OTHER else name, at, size)))
    yield case("kernel and initrd under each other's name", refused(FORMAT), devices=with_files(
        lambda name, at, size: (name, {fw_cfg.KERNEL: fw_cfg.INITRD, fw_cfg.INITRD: fw_cfg.KERNEL}.get(at, at), size)))
    yield case("no device and no hand-over", refused(NO_KERNEL), devices=Nothing)
    yield case("a device that fails", refused(DEVICE), devices=answering(struct.pack(">I", 1), 5))
    yield case("a device that fails when it gives the initrd", refused(DEVICE), devices=answering(struct.pack(">I", 1), 9))
    yield case("a device that never finishes", Must("spins"), devices=answering(struct.pack(">I", 2), 5))
    yield case("a header for copying and another to be copied", refused(FORMAT, KERNEL_HASH), devices=Twofaced)
    yield case("another kernel behind the measured one's header", refused(KERNEL_HASH), devices=Swapping)
    yield case("a device that writes over everything shared", refused(KERNEL_HASH, LINE_HASH, INITRD_HASH, FORMAT),
               devices=Flooding)
    yield case("another kernel in the shared buffer after the copy", BOOTS, hypervisor=Late)

    for name, must, change in (
        ("hand-over in the shared window", refused(MEMORY), {"kernel": (0x202000, 5000)}),
        ("hand-over over stage0", refused(MEMORY), {"kernel": (0x100000, 5000)}),
        ("hand-over that wraps", refused(MEMORY), {"initrd": ((1 << 64) - 5, 10)}),
        ("hand-over behind the end of memory", refused(MEMORY), {"initrd": (64 << 20, 10)}),
        ("hand-over where the kernel is copied to", refused(NO_ROOM), {"kernel": (0x1000000, 6024)}),
        ("hand-over where the initrd is copied to", refused(NO_ROOM, KERNEL_HASH), {"line": (0x3FFF000, 14)}),
        ("hand-over of 4 GiB", refused(MEMORY), {"kernel": (0x2000000, 1 << 32)}),
        ("hand-over of nothing", refused(MEMORY), {"kernel": (0, 0), "initrd": (0, 0), "line": (0, 0)}),
    ):
        yield case(name, must, "entry64", devices=elsewhere(**change))
    for at in (0, 0x100010, 0xFFF):
        yield case(f"hand-over with the initrd of no bytes at {at:#x}", BOOTS, "entry64",
                   measured=Boot(MEASURED.kernel, b"", MEASURED.line), devices=elsewhere(initrd=(at, 0)))
        yield case(f"hand-over with a kernel of no bytes at {at:#x}", refused(FORMAT), "entry64", devices=elsewhere(kernel=(at, 0)))
    yield case("hand-over without its first word", refused(NO_KERNEL), "entry64", devices=Unmarked)
    yield case("hand-over in pages that are private", HOST_GIVES_UP, "entry64", devices=Unshared)
    yield case("another kernel in the hand-over's pages after the copy", BOOTS, "entry64", hypervisor=Late)


class Boundless(Hypervisor):
    """Says yes to pages that it has not."""

    def change(self, gpa, state, large):
        if gpa < self.machine.ram_bytes:
            super().change(gpa, state, large)


class Nothing(FwCfg):
    def read(self, _host, _port, _size):
        return 0xFFFFFFFF


def answering(answer, nth):
    class Failing(FwCfg):
        def write(self, host, port, size, value):
            super().write(host, port, size, value)
            if self.commands >= nth and answer == struct.pack(">I", 2):
                host.machine.timeout = 300_000

        def answer(self, control):
            return answer if self.commands >= nth else super().answer(control)
    return Failing


class Twofaced(FwCfg):
    """The first look at the header, which decides where things go, sees a larger setup part."""

    looks = 0

    def contents(self, selector):
        data = super().contents(selector)
        if selector == fw_cfg.KERNEL:
            self.looks += 1
            if self.looks == 1:
                return data[:0x260] + struct.pack("<I", 2 << 20) + data[0x264:]
        return data


class Swapping(FwCfg):
    def contents(self, selector):
        return MEASURED.kernel[:1024] + FOREIGN[1024:] if selector == fw_cfg.KERNEL else super().contents(selector)


class Flooding(FwCfg):
    def command(self, machine, at):
        super().command(machine, at)
        if self.commands > 5:
            machine.shared[0x202000:0x240000] = b"\x90" * 0x3E000


class Late(Hypervisor):
    """From the first exit after the copies on, everything shared holds another kernel."""

    def vmgexit(self):
        super().vmgexit()
        machine = self.machine
        if isinstance(self.devices, Handover):
            if any(machine.read_private(0x1000000, 16)):
                machine.shared[self.devices.place:self.devices.place + len(FOREIGN)] = FOREIGN
        elif b"checked" in self.console:
            machine.shared[0x202000:0x202000 + len(FOREIGN)] = FOREIGN


def elsewhere(**change):
    class Elsewhere(Handover):
        def descriptor(self):
            names = ("kernel", "initrd", "line")
            found = [change.get(name, where) for name, where in zip(names, self.ranges())]
            words = b"".join(struct.pack("<QQ", *where) for where in found)
            return b"COFHAND1" + struct.pack("<QII", self.ram_bytes, self.vcpus, 0) + words

        def handed_over(self, machine):
            super().handed_over(machine)
            start, length = change.get("kernel", (0, 0))
            if LARGE <= start and start + length < self.ram_bytes:
                machine.shared[start:start + len(self.boot.kernel)] = self.boot.kernel
                for page in range(start >> 12, self.place >> 12):
                    machine.rmp[page] = 0
    return Elsewhere


class Unmarked(Handover):
    def descriptor(self):
        return b"COFHAND2" + super().descriptor()[8:]


class Unshared(Handover):
    def handed_over(self, machine):
        before = bytes(machine.rmp)
        super().handed_over(machine)
        machine.rmp[:] = before

