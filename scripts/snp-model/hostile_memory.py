"""Hosts that lie in the CPUID page, and hosts that take pages away or exchange them."""

import launch
from hostile import BOOTS, HOST_GIVES_UP, Must, case, refused
from hypervisor import Hypervisor
from machine import ASSIGNED, LARGE, PAGE, VALIDATED

CPUID, VALIDATION = 11, 12
GONE = Must("terminated", "shutdown", "host-fault", reasons=(14, 12))


def cases():
    entries = launch.CPUID_ENTRIES
    other = lambda *leaf: [*entries[:-1], (0x8000001F, 0, *leaf)]
    rubbish = bytes(range(1, 256)) * 16
    for form in ("reset", "entry64"):
        yield case("CPUID page with no entries", refused(CPUID), form, cpuid=bytes(PAGE))
        yield case("CPUID page with no entries and a table behind", refused(CPUID), form,
                   cpuid=launch.cpuid_page(count=0, tail=rubbish))
        yield case("CPUID page with 65 entries", refused(CPUID), form, cpuid=launch.cpuid_page(count=65))
    yield case("CPUID page with 2^32 - 1 entries", refused(CPUID), cpuid=launch.cpuid_page(count=0xFFFFFFFF))
    yield case("CPUID page with 64 entries", BOOTS, cpuid=launch.cpuid_page([*entries, *[(2, 0, 0, 0, 0, 0)] * 59]))
    yield case("CPUID page with rubbish behind its entries", BOOTS, cpuid=launch.cpuid_page(tail=rubbish))
    yield case("CPUID page with rubbish in its header", BOOTS,
               cpuid=launch.cpuid_page()[:4] + b"\xff" * 12 + launch.cpuid_page()[16:])
    yield case("C-bit at 47", refused(CPUID), cpuid=launch.cpuid_page(other(0x1A, 47, 0, 0)))
    yield case("CPUID page of a guest without SNP", refused(CPUID), cpuid=launch.cpuid_page(other(0x0A, 51, 0, 0)))
    yield case("CPUID page without the leaf of SEV", refused(CPUID), cpuid=launch.cpuid_page(entries[:-1]))

    yield case("another processor state, without EFER.SVME", HOST_GIVES_UP, hypervisor=Unencrypted)
    for name, nth, result, carry in (
        ("says that page 0 was validated before", 0, 0, 1), ("says that a 2 MiB page was validated before", 750, 0, 1),
        ("PVALIDATE finds a bad input", 3, 1, 1), ("PVALIDATE fails as never before", 3, 77, 0),
        ("PVALIDATE of 4 KiB finds another size", 3, 6, 1),
    ):
        yield case(name, refused(VALIDATION), hypervisor=wrong_validation(nth, result, carry))
    yield case("4 KiB behind a 2 MiB request were validated before", refused(VALIDATION), backing="4k",
               hypervisor=wrong_validation(1100, 0, 1))
    for name, gpa in (
        ("page 0", 0), ("the page tables", 0x3000), ("stage0's stack", 0x10F000), ("stage0's code", 0x100000),
        ("the hash page", launch.HASHES), ("the kernel's copy", launch.KERNEL), ("the initrd's copy", (64 << 20) - PAGE),
        ("the command line's copy", 0x20000),
    ):
        # Nobody reads page 0 or, once they were read, the hashes: the kernel runs without them, or dies for want of them.
        quiet = gpa in (0, launch.HASHES)
        yield case(f"takes {name} away before the last copy, and gives another page", MISSING if quiet else GONE,
                   hypervisor=taking(gpa), **({"judge": False} if quiet else {}))
    yield case("shares stage0's stack", GONE, hypervisor=taking(0x10F000, 0))
    yield case("leaves shared what it says is private", HOST_GIVES_UP, start="shared", hypervisor=Lazy)
    yield case("makes more private than it was asked for", HOST_GIVES_UP, start="shared", hypervisor=Greedy)


MISSING = Must("entered", "terminated", "shutdown", "host-fault", reasons=(12, 14))


class Unencrypted(Hypervisor):
    def prepare(self):
        super().prepare()
        self.machine.efer = 0


def wrong_validation(nth, result, carry):
    class Lying(Hypervisor):
        """PVALIDATE's answer number `nth` is this. (No host can do it; a page it exchanged would make the processor.)"""

        seen = 0

        def pvalidated(self, found, found_carry):
            self.seen += 1
            return (result, carry) if self.seen == nth + 1 else (found, found_carry)
    return Lying


def taking(gpa, state=ASSIGNED):
    class Taking(Hypervisor):
        """Removes a page when the device answers its last command."""

        moves_pages = True

        def vmgexit(self):
            super().vmgexit()
            if self.devices.commands == LAST_COMMAND and self.machine.rmp[gpa >> 12] & VALIDATED:
                self.machine.rmp[gpa >> 12] = state
    return Taking


LAST_COMMAND = 9
"""Commands until the initrd is there, for a small kernel."""


class Lazy(Hypervisor):
    def change(self, gpa, state, large):
        if state == 2 or gpa < LARGE:
            super().change(gpa, state, large)


class Greedy(Hypervisor):
    def change(self, gpa, state, large):
        super().change(gpa, state, large)
        if state == 1 and gpa == LARGE - PAGE:
            super().change(LARGE, 1, False)

