"""The model itself: ROMs with one thing broken, each of which some case must fail on. Without these, a model that looks at
nothing would be content with everything.
"""

import struct

import honest
import injection
import parked
from hostile import MEASURED

SKIPPING = bytes.fromhex("4883c408 48830424 02 48cf")
"""A handler that drops the error code, skips two bytes and returns: what stage0's answer to #VC once was."""
VECTOR = struct.pack("<I", 0xDC50EB00)


def changed(rom, old, new):
    """The ROM with these bytes replaced, which stand in it once."""
    if rom.count(old) != 1:
        raise AssertionError(f"{old.hex()} stands in the ROM {rom.count(old)} times")
    return rom.replace(old, new.ljust(len(old), b"\x90"))


def finds(case):
    """A case that must have findings."""
    def run():
        return [] if case() else ["the model is content with it"]
    return run


def boots(rom, form="reset"):
    end, machine = honest.boot(rom, form, MEASURED, 64)
    return honest.judged(end, machine, MEASURED, 64)


def cases(rom):
    handler = b"\xfa\xfc\x48\x8d\x25" + rom[rom.index(b"\xfa\xfc\x48\x8d\x25") + 5:][:9]
    for name, old, new, case in (
        ("no C-bit", b"\xa9\x00\x10\x00\x00\x74", b"\xa9\x00\x10\x00\x00\xeb", boots),
        ("the interrupt table kept", b"\xfa\xfc\x0f\x01\x1d", b"\xfa\xfc\x0f\x01\x15", boots),
        ("page 0 without vectors", VECTOR, bytes(4), parked.targets),
        ("vectors elsewhere", VECTOR, struct.pack("<I", 0x20000000),
         lambda broken: parked.every_vector(broken, "reset", ("parked",), stack=True)),
    ):
        yield name, finds(lambda old=old, new=new, case=case: case(changed(rom, old, new)))
    yield "a stack for parked processors", finds(lambda: parked.beside(rom, stack=True))
    yield "a handler that returns behind the next two bytes", lambda: skipped(changed(rom, handler, SKIPPING))


class Recent(injection.Road):
    """Keeps the instructions in the order of their last turn, up to the first exit."""

    before_exit = None

    def wanted(self, address):
        visit = self.visits.pop(address, 0) + 1
        self.visits[address] = visit
        if self.before_exit is None and self.machine.counts["exits"] > self.exits:
            self.before_exit = list(self.visits.items())[:-1]
        return self.chosen is not None and (address, visit) in self.chosen and not self.entered()

    def entered(self):
        return [finding for finding in self.findings if "entered" in finding]


def skipped(rom):
    """Some event makes that ROM enter another kernel, and the injections around the comparison find it."""
    chosen = None
    for _ in range(2):
        machine = injection.at_last_copy(rom, injection.ROADS["another kernel"])[1]
        road = Recent(machine, chosen)
        road.exits = machine.counts["exits"]
        injection.run_to_end(machine)
        chosen = set(road.before_exit[-60:])
    return [] if road.entered() else [f"no event entered another kernel: {road.findings[:3]}"]
