"""Every event a host can inject, before every instruction from the last copy to the kernel's entry.

Each vector from 0 to 255, with and without an error code, as each type that EVENTINJ has, before each distinct instruction:
in loops before its first, its middle and its last turn. On the road of the measured kernel, up to its entry; on those of
another kernel, initrd or command line, up to the refusal; and in the refusal itself. Whatever happens, no kernel is entered.

A processor delivers an event by its vector and by whether there is an error code; the type changes nothing. The vectors of
one handler, with the same bytes pushed, lead to one and the same processor state, which is run once: one state, one
outcome. Each vector is looked up in the guest's own table, as it stands in guest memory at that instruction.
Source: AMD APM volume 2, §15.20.
"""

import ctypes
import os

import exceptions
from fw_cfg import FwCfg
from hostile import FOREIGN, MEASURED
from hypervisor import Hypervisor
from launch import Boot, by_reset_vector
from machine import IMAGE, IMAGE_END, End, Fault, Machine
from unicorn import x86_const as x86

TYPES = ("external interrupt", "NMI", "exception", "software interrupt")
"""EVENTINJ's types 0, 2, 3 and 4. VMRUN fails with any other."""
CODES = (None, 0x72)
"""Without an error code, and with the one that says CPUID to a handler of #VC."""
REFUSED = ("terminated", "shutdown")
MEMORY = 64 << 20
SHORTEST, PATIENCE = 100, 1_000_000
"""Instructions of a handler before it is run to its end in a process of its own, and there."""

ROADS = {
    "the measured kernel": MEASURED,
    "another kernel": Boot(FOREIGN, MEASURED.initrd, MEASURED.line),
    "another initrd": Boot(MEASURED.kernel, b"other", MEASURED.line),
    "another command line": Boot(MEASURED.kernel, MEASURED.initrd, b"init=/bin/sh\0"),
}


class Stopping(Hypervisor):
    """Stops at the exit of the device's last command, behind which everything is copied."""

    last = None

    def vmgexit(self):
        super().vmgexit()
        if self.devices.commands == self.last:
            raise End("copied")


def run_to_end(machine):
    try:
        while True:
            machine.run()
    except End as end:
        return end


def at_last_copy(rom, given):
    """How this road ends, and a machine whose next instruction is the first behind the last copy."""
    def started(last):
        machine = Machine(MEMORY, rom, Stopping(FwCfg(given, MEMORY)))
        machine.hypervisor.last = last
        by_reset_vector(machine, MEASURED)
        return machine, run_to_end(machine)

    first, end = started(None)
    machine, stopped = started(first.hypervisor.devices.commands)
    if stopped.kind != "copied":
        raise AssertionError(f"{stopped} instead of the last command")
    machine.hypervisor.last = None
    return end, machine


class Road:
    """Walks a machine to its end, and injects before the instructions that were chosen."""

    def __init__(self, machine, chosen=None):
        self.machine, self.chosen = machine, chosen
        self.visits, self.pairs, self.states, self.places = {}, 0, 0, 0
        self.handlers, self.findings = {}, []
        self.hook = machine.watch_each(self.wanted, self.inject_all)

    def wanted(self, address):
        visit = self.visits[address] = self.visits.get(address, 0) + 1
        return self.chosen is not None and (address, visit) in self.chosen

    def inject_all(self, address):
        """All events before this instruction; leaves the machine as it was."""
        machine = self.machine
        uc, places = machine.uc, self.kept()
        saved = [(place, bytes((ctypes.c_char * length).from_address(place))) for place, length in places]
        context, pc, msr, before = uc.context_save(), machine.pc, machine.ghcb_msr, machine.before
        machine.before, walking = None, machine.wanted
        self.places += 1
        for handler, vectors in self.gates().items():
            for code in CODES:
                self.pairs += len(vectors) * len(TYPES)
                self.states += 1
                end = self.deliver(handler, vectors[0], code)
                if end.kind not in REFUSED:
                    self.findings.append(f"vector {vectors[0]} with error code {code} before {address:#x}: {end}")
                uc.context_restore(context)
                for place, data in saved:
                    ctypes.memmove(place, data, len(data))
                machine.pc, machine.ghcb_msr, machine.long_mode = pc, msr, True
        machine.before, machine.wanted = before, walking
        machine._seen = address

    def kept(self):
        """What a handler may write to, as (address in this process, length): stage0's own memory and the GHCB."""
        base = lambda store, at: ctypes.addressof(ctypes.c_char.from_buffer(store)) + at
        return [(base(self.machine.private, IMAGE), IMAGE_END - IMAGE), (base(self.machine.shared, 0x200000), 0x1000)]

    def gates(self):
        """Vectors by handler, of the guest's table as it is now; None where there is no usable gate."""
        machine = self.machine
        _, base, limit, _ = machine.reg(x86.UC_X86_REG_IDTR)
        table = machine.read(base, min(limit + 1, 4096)) if limit else b""
        key = (base, limit, table)
        if key not in self.handlers:
            found = {}
            for vector in range(256):
                try:
                    handler = exceptions.gate(machine, vector)[0]
                except (exceptions.NoGate, Fault):
                    handler = None
                # Without a gate the code of the next exception names the vector: a state of its own for each.
                found.setdefault(handler if handler is not None else -vector - 1, []).append(vector)
            self.handlers[key] = found
        return self.handlers[key]

    def deliver(self, handler, vector, code):
        machine = self.machine
        machine.wanted = lambda _address: False
        machine._unresumable = 0
        try:
            if handler < 0:
                exceptions.deliver(machine, vector, code)
            else:
                rsp, pushed = exceptions.frame(machine, code)
                machine.write(rsp, pushed)
                exceptions.enter(machine, handler, rsp)
            machine.patience = SHORTEST
            while True:
                machine.run()
        except End as end:
            return self.in_a_child() if end.kind == "goes on" else end
        finally:
            machine.patience = 0

    def in_a_child(self):
        """A handler that goes on: to its end in a process of its own, because nobody could put back what it changes."""
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                self.machine.uc.hook_del(self.hook)
                self.machine.run(PATIENCE)
                said = "spins"
            except End as end:
                said = str(end)
            except BaseException as why:
                said = repr(why)
            os.write(write_end, said.encode())
            os._exit(0)
        os.close(write_end)
        said = os.read(read_end, 1000).decode()
        os.close(read_end)
        os.waitpid(child, 0)
        return End(said.split(" ")[0], said)


def turns(visits):
    """First, middle and last turn of each instruction."""
    return {(address, turn) for address, count in visits.items() for turn in (1, (count + 1) // 2, count)}


def walk(rom, given, start=None):
    """Two walks from the last copy: one to count the turns, one to inject. Gives the second and how the road ends."""
    counted = None
    for chosen in (None, turns):
        end, machine = at_last_copy(rom, given)
        if start:
            start(machine)
        road = Road(machine, chosen and turns(counted.visits))
        road.end = run_to_end(machine)
        if not start and (road.end.kind, road.end.detail) != (end.kind, end.detail):
            road.findings.append(f"the road ended with {road.end} instead of {end}")
        counted = road
    return road


def refusal(machine):
    """The road of the refusal itself starts with an event."""
    machine.inject(2)


def cases(rom):
    """(name, function that gives findings, and the pairs, instructions and states that were tried)."""
    def case(given, start=None):
        def run():
            road = walk(rom, given, start)
            expected = "entered" if given is MEASURED and not start else "terminated"
            if road.end.kind != expected:
                road.findings.insert(0, f"the road itself ended: {road.end}")
            if not road.pairs:
                road.findings.append("nothing was injected")
            return road.findings[:5], {"pairs": road.pairs, "places": road.places, "states": road.states}
        return run

    for name, given in ROADS.items():
        yield f"on the road of {name}", case(given)
    yield "in the refusal itself", case(ROADS["another kernel"], refusal)
