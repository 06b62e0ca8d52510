"""Processors that a launch parks: a hostile host starts them beside stage0 and after Linux has taken memory into use, with
events of its own.

Whatever e820 gave to the kernel holds the host's worst then: code that is never to run. A parked processor asks to be held,
or dies, since it has no stack to take an event with; it executes none of that, and writes to none of it. What stands behind
that, vectors which all lead to the parking loop, is tried with a stack given to it.
"""

import struct

import exceptions
import honest
import launch
import ready
from hostile import MEASURED
from fw_cfg import FwCfg
from hypervisor import Hypervisor
from machine import ASSIGNED, C_BIT, End, Machine, ROM_GPA, VALIDATED
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


def booted(rom, form, stack=False):
    """A guest whose kernel was entered, with all of the kernel's memory used for something else. `stack`: as if somebody had
    validated the page that parked processors would push on."""
    end, machine = honest.boot(rom, form, MEASURED, 64, hypervisor=Holding)
    if end.kind != "entered":
        raise AssertionError(f"the boot ended: {end}")
    machine.kernels = [(start, stop) for start, stop, kind in ready.memory_map(machine) if kind == ready.RAM]
    for start, stop in machine.kernels:
        machine.write_private(start, b"\xcc" * (stop - start))
    if stack:
        machine.rmp[ready.NO_STACK >> 12] = ASSIGNED | VALIDATED
    return machine


class Beside(Hypervisor):
    """Starts the launch's second processor behind every exit of the first, with events. Page 0 is at first a frame that the
    guest wrote earlier, of the host's choice: under it, too, its plaintext stays what it was."""

    stack = False

    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        self.findings, self.started = [], 0

    def prepare(self):
        super().prepare()
        self.machine.private[:0x1000] = struct.pack("<HH", 0, 0x2000) * 0x400
        if self.stack:
            self.machine.rmp[ready.NO_STACK >> 12] = ASSIGNED | VALIDATED

    def vmgexit(self):
        super().vmgexit()
        self.started += 1
        other = second(self.machine)
        for vector in (0, 2, 8, 13, 29, 128):
            try:
                exceptions.deliver(other, vector)
                self.findings.append(f"exit {self.started}, vector {vector}: led to {other.pc:#x}")
            except End as end:
                if end.kind != "shutdown":
                    self.findings.append(f"exit {self.started}, vector {vector}: {end}")


def second(machine):
    """A second processor of a launch at the reset vector, in the memory of the first."""
    other = Machine(1 << 20, machine.rom, Hypervisor(FwCfg(MEASURED, machine.ram_bytes)))
    for shared in ("ram_bytes", "private", "shared", "rom_pages", "rmp"):
        setattr(other, shared, getattr(machine, shared))
    other.start_real(launch.metadata(machine.rom)[1] & 0xFFFF, 0xF000)
    return other


def beside(rom, stack=False):
    """No event is taken at any moment of the boot, and the kernel is entered as ever."""
    end, machine = honest.boot(rom, "reset", MEASURED, 64, hypervisor=type("Host", (Beside,), {"stack": stack}), vcpus=2)
    found = machine.hypervisor.findings + honest.judged(end, machine, MEASURED, 64)
    return found[:5] if machine.hypervisor.started > 30 else [f"{machine.hypervisor.started} exits"]


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


def every_vector(rom, form, allowed, stack=False):
    """Each vector, with and without an error code, before the first instruction."""
    machine = booted(rom, form, stack)
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
    machine = booted(rom, "reset", stack=True)
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
    yield "reset: a second processor at every exit of the first, with events", lambda: beside(rom)
    for form in honest.FORMS:
        yield f"{form}: every vector before the first instruction", lambda form=form: every_vector(rom, form, ("shutdown",))
    yield "reset, with a stack: every vector before the first instruction", lambda: every_vector(rom, "reset", ("parked",), True)
    yield "reset, with a stack: events until it runs over the vectors", lambda: nested(rom)
