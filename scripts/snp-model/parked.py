"""Processors that a launch parks: a hostile host starts them after Linux has taken memory into use, with events of its own.

Whatever e820 gave to the kernel holds the host's worst then: code that is never to run. A parked processor asks to be held,
or dies; it executes none of that, and writes to none of it.
"""

import struct

import exceptions
import honest
import launch
import ready
from hostile import MEASURED
from hypervisor import Hypervisor
from machine import C_BIT, End, ROM_GPA
from unicorn import UC_HOOK_CODE, UC_HOOK_MEM_WRITE
from unicorn import x86_const as x86

VECTORS = range(256)


class Holding(Hypervisor):
    """Counts how often a processor asks to be held; lets it go on until it has asked often enough."""

    held = 0
    enough = 1

    def reset_hold(self, request):
        self.held += 1
        if self.held >= self.enough:
            raise End("parked")
        return 0x007


def booted(rom, form):
    """A guest whose kernel was entered, with all of the kernel's memory used for something else."""
    end, machine = honest.boot(rom, form, MEASURED, 64, hypervisor=Holding)
    if end.kind != "entered":
        raise AssertionError(f"the boot ended: {end}")
    machine.kernels = [(start, stop) for start, stop, kind in ready.memory_map(machine) if kind == ready.RAM]
    for start, stop in machine.kernels:
        machine.write_private(start, b"\xcc" * (stop - start))
    return machine


def start(machine, rom, form):
    """What VMRUN does with the launched state of another processor."""
    machine.efer, machine.ghcb_msr, machine.hypervisor.held = 0x1000 if form == "reset" else 0x1500, 0, 0
    machine.long_mode = machine.paging = False
    if form == "reset":
        at = launch.metadata(rom)[1]
        if at < ROM_GPA:
            raise AssertionError(f"parked at {at:#x}")
        machine.start_real(at & 0xFFFF, 0xF000)
    else:
        machine.start_long(launch.PARKING + 0x40, launch.PAGE_TABLES | C_BIT)
    guard(machine)


def guard(machine):
    """Ends the run when kernel memory is executed or written to."""
    def touched(what):
        def hook(uc, *where):
            address = where[1] if what == "wrote to" else where[0]
            machine._fault = machine._fault or End(what, f"{address:#x}")
            uc.emu_stop()
        return hook
    for first, stop in machine.kernels:
        machine.uc.hook_add(UC_HOOK_CODE, touched("ran"), None, first, stop - 1)
        machine.uc.hook_add(UC_HOOK_MEM_WRITE, touched("wrote to"), None, first, stop - 1)


def run(machine):
    try:
        while True:
            machine.run()
    except End as end:
        return end


def held(rom, form, often):
    machine = booted(rom, form)
    machine.hypervisor.enough = often
    start(machine, rom, form)
    end = run(machine)
    return [] if end.kind == "parked" else [f"ended: {end}"]


def every_vector(rom, form, allowed):
    """Each vector, with and without an error code, before the first instruction."""
    machine = booted(rom, form)
    machine.hypervisor.enough = 3
    findings = []
    for vector in VECTORS:
        for code in (None, 0x72):
            start(machine, rom, form)
            try:
                exceptions.deliver(machine, vector, code)
                end = run(machine)
            except End as stopped:
                end = stopped
            if end.kind not in allowed:
                findings.append(f"vector {vector}: {end}")
    return findings[:5]


def nested(rom):
    """So many events before the first instruction that the stack runs over the vectors, and then each vector once more."""
    findings = []
    machine = booted(rom, "reset")
    low = machine.read_private(0, 0x11000)
    for depth in (2, *range(10_900, 10_906)):
        for vector in (0, 1, 2, 29, 128):
            machine.write_private(0, low)
            start(machine, rom, "reset")
            exceptions.deliver(machine, 2)
            exceptions.deliver(machine, 2)
            # From the second on, each pushes the same six bytes, below the last ones.
            sp = machine.reg(x86.UC_X86_REG_SP)
            pushed, bottom = machine.read_private(sp, 6), sp - 6 * (depth - 2)
            machine.write_private(bottom, pushed * (depth - 2))
            machine.set(x86.UC_X86_REG_SP, bottom)
            machine.timeout = 100_000
            try:
                exceptions.deliver(machine, vector)
                end = run(machine)
            except End as stopped:
                end = stopped
            machine.timeout = 0
            if end.kind not in ("parked", "shutdown", "spins", "host-fault"):
                findings.append(f"{depth} events, then vector {vector}: {end}")
    return findings[:5]


def targets(rom):
    """Every real-mode vector leads to the parking page."""
    machine = booted(rom, "reset")
    table = struct.iter_unpack("<HH", machine.read_private(0, 1024))
    wrong = [hex((cs << 4) + ip) for ip, cs in table if (cs << 4) + ip != launch.PARKING]
    return [f"vectors lead to {set(wrong)}"] if wrong else []


def cases(rom):
    yield "reset: every real-mode vector leads to the parking page", lambda: targets(rom)
    for form in honest.FORMS:
        yield f"{form}: a parked processor asks to be held, again and again", lambda form=form: held(rom, form, 50)
    yield "reset: every vector before the first instruction", lambda: every_vector(rom, "reset", ("parked",))
    yield "entry64: every vector before the first instruction", lambda: every_vector(rom, "entry64", ("shutdown",))
    yield "reset: events until the stack runs over the vectors", lambda: nested(rom)
