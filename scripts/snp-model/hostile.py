"""Hostile hosts: what each does, and what must happen. No case may enter a kernel other than the measured one."""

import honest
import ready
from launch import Boot, small_kernel

MEASURED = Boot(small_kernel(b"A"))
FOREIGN = small_kernel(b"B")


class Must:
    """What has to happen: one of these ends, and for a termination one of these reasons of stage0."""

    def __init__(self, *kinds, reasons=()):
        self.kinds, self.reasons = kinds, reasons

    def __str__(self):
        words = [f"refused with {' or '.join(map(str, self.reasons))}"] if self.reasons else []
        return " or ".join(words + [kind for kind in self.kinds if kind != "terminated"])

    def allows(self, end):
        return end.kind in self.kinds and (end.kind != "terminated" or end.detail in self.reasons)


def refused(*reasons):
    """stage0 says why and terminates."""
    return Must("terminated", reasons=reasons)


BOOTS = Must("entered")
"""The measured kernel runs, and everything is as it has to be: the host's trick changes nothing."""
DIES = Must("shutdown")
"""The guest dies of an exception nobody handles yet."""
HOST_GIVES_UP = Must("host-fault")
"""The access faults in the nested page tables: the host has nothing to resume the guest with."""


def case(name, must, form="reset", ram_mib=64, measured=MEASURED, judge=True, **options):
    """One case: (name with what must happen, function that gives findings)."""
    def run():
        end, machine = honest.boot(rom_of(), form, measured, ram_mib, **options)
        return judged(end, machine, measured, ram_mib, must, judge)
    return f"{form}: {name}: must be {must}", run


def judged(end, machine, measured, ram_mib, must, judge=True):
    """`judge`: whether a kernel that runs has to find everything in its place, not only itself."""
    findings = []
    if end.kind == "entered":
        checks = ready.CHECKS if judge else ready.CHECKS[:1]
        findings += ready.findings(machine, measured, ram_mib << 20, checks)
    if not must.allows(end):
        findings.append(f"ended: {end}, at {machine.pc:#x}")
    return findings


ROM = []


def rom_of():
    return ROM[0]


def cases(rom):
    """All of them."""
    ROM[:] = [rom]
    import hostile_devices
    import hostile_events
    import hostile_memory
    import hostile_protocol

    for module in (hostile_memory, hostile_protocol, hostile_devices, hostile_events):
        yield from module.cases()
