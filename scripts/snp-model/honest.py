"""Boots under honest hypervisors: each reaches the kernel's entry with everything as Linux needs it."""

import ready
from fw_cfg import FwCfg
from handover import Handover
from hypervisor import Hypervisor
from launch import Boot, by_entry_64, by_reset_vector, page_tables, small_kernel
from machine import End, Machine

FORMS = ("reset", "entry64")


def boot(rom, form, boot, ram_mib, hypervisor=Hypervisor, devices=None, cpuid=None, claimed=None, vcpus=1, **options):
    """Launches and runs a guest; gives how it ended and the machine."""
    ram = ram_mib << 20
    devices = devices or (FwCfg if form == "reset" else Handover)
    host = hypervisor(devices(options.pop("given", boot), claimed or ram, vcpus), **options)
    machine = Machine(ram, rom, host)
    try:
        (by_reset_vector if form == "reset" else by_entry_64)(machine, boot, cpuid)
        while True:
            machine.run()
    except End as end:
        return end, machine


def judged(end, machine, measured, ram_mib):
    """What is wrong with a boot that should have reached its kernel."""
    if end.kind != "entered":
        return [f"ended: {end}"]
    return ready.findings(machine, measured, ram_mib << 20)


def cases(rom, platform):
    """(name, function that gives findings). `platform`: the platform's own kernel and initrd."""
    def case(form, what, ram_mib, **options):
        def run():
            end, machine = boot(rom, form, what, ram_mib, **options)
            return judged(end, machine, what, ram_mib)
        return run

    small = Boot(small_kernel())
    for form in FORMS:
        for ram in (64, 130, 256):
            yield f"{form}: {ram} MiB", case(form, small, ram)
        yield f"{form}: 64 MiB, 4 KiB backing under 2 MiB requests", case(form, small, 64, backing="4k")
        yield f"{form}: 64 MiB, everything shared and full of rubbish at first", case(form, small, 64, start="shared")
        yield f"{form}: 8 processors", case(form, small, 64, vcpus=8)
        yield f"{form}: no initrd", case(form, Boot(small_kernel(), b""), 64)
        yield f"{form}: a longest command line", case(form, Boot(small_kernel(), line=b"x" * 2047 + b"\0"), 64)
    yield "reset: 3 GiB", case("reset", small, 3072)
    yield "reset: the page tables are those of the 64-bit form", lambda: tables(rom, small)
    yield "reset: the platform's own kernel and initrd, 512 MiB", lambda: counted(rom, platform)
    yield "entry64: the platform's own kernel and initrd, 512 MiB", case(
        "entry64", platform, 512, devices=lambda *given: Handover(*given, place=0x10000000))


def counted(rom, platform):
    """As any other, and says how many exits it took."""
    end, machine = boot(rom, "reset", platform, 512)
    return judged(end, machine, platform, 512), {name: machine.counts[name] for name in ("exits", "page-state")}


def tables(rom, small):
    """Our own monitor brings the page tables; the reset path writes them. Both forms run on the same bytes."""
    end, machine = boot(rom, "reset", small, 64, hypervisor=Looking)
    if end.kind != "looked":
        return [f"ended: {end}"]
    written = machine.read_private(0x1000, 0x4000)
    return [] if written == page_tables() else ["they differ"]


class Looking(Hypervisor):
    """Stops at the first exit, when nothing has changed the page tables yet."""

    def vmgexit(self):
        raise End("looked")
