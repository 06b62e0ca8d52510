"""How a processor delivers an event through the guest's tables, or cannot, which ends in a shutdown.

Source: AMD APM volume 2, §8.9 (long mode), §8.6 (real mode), §15.20 (event injection).
"""

import struct

from unicorn import x86_const as x86

GP, DF = 13, 8
INTERRUPT_FLAG, TRAP_FLAG = 1 << 9, 1 << 8


def deliver(machine, vector, error_code=None):
    """Enters the handler of `vector`. Raises `machine.End("shutdown")` where there is none: #GP, then #DF, then the end."""
    from machine import End, Fault  # the two files know each other

    for attempt, code in ((vector, error_code), (GP, vector << 3 | 2), (DF, 0)):
        try:
            if machine.long_mode:
                return _long(machine, attempt, code)
            if machine.real_mode():
                return _real(machine, attempt)
            return _protected(machine, attempt)
        except (Fault, NoGate):
            continue
        except End as end:
            if end.kind != "host-fault":
                raise
            raise End("shutdown", f"vector {vector}: {end.detail}") from None
    raise End("shutdown", f"vector {vector} has no handler")


class NoGate(Exception):
    """The table has no usable entry for a vector."""


def gate(machine, vector):
    """Handler, selector and kind of a 64-bit gate."""
    _, base, limit, _ = machine.reg(x86.UC_X86_REG_IDTR)
    if vector * 16 + 15 > limit:
        raise NoGate
    low, high = struct.unpack("<QQ", machine.read(base + vector * 16, 16))
    kind = low >> 40 & 0xFF
    if not kind & 0x80 or kind & 0x1F not in (0x0E, 0x0F):
        raise NoGate
    return low & 0xFFFF | low >> 32 & 0xFFFF0000 | (high & 0xFFFFFFFF) << 32, low >> 16 & 0xFFFF, kind


def frame(machine, error_code):
    """Where a handler's stack starts, and the bytes the processor pushes there."""
    rsp = machine.reg(x86.UC_X86_REG_RSP)
    words = [machine.pc, machine.reg(x86.UC_X86_REG_CS), machine.flags, rsp, machine.reg(x86.UC_X86_REG_SS)]
    if error_code is not None:
        words.insert(0, error_code)
    return (rsp & ~15) - 8 * len(words), struct.pack(f"<{len(words)}Q", *(word & (1 << 64) - 1 for word in words))


def _long(machine, vector, error_code):
    handler, _selector, kind = gate(machine, vector)
    rsp, pushed = frame(machine, error_code)
    machine.write(rsp, pushed)
    enter(machine, handler, rsp, kind)


def enter(machine, handler, rsp, kind=0x8E):
    """Starts a handler whose frame has been pushed."""
    machine.set(x86.UC_X86_REG_RSP, rsp)
    cleared = TRAP_FLAG | (INTERRUPT_FLAG if kind & 0x1F == 0x0E else 0)
    machine.set(x86.UC_X86_REG_EFLAGS, machine.flags & ~cleared)
    machine.pc = handler


def return_from(machine):
    """IRETQ."""
    rsp = machine.reg(x86.UC_X86_REG_RSP)
    rip, _cs, flags, rsp, _ss = struct.unpack("<5Q", machine.read(rsp, 40))
    machine.set(x86.UC_X86_REG_RSP, rsp)
    machine.set(x86.UC_X86_REG_EFLAGS, flags)
    machine.pc = rip


def _real(machine, vector):
    _, base, limit, _ = machine.reg(x86.UC_X86_REG_IDTR)
    if vector * 4 + 3 > limit:
        raise NoGate
    ip, cs = struct.unpack("<HH", machine.read(base + vector * 4, 4))
    sp, ss = machine.reg(x86.UC_X86_REG_SP), machine.reg(x86.UC_X86_REG_SS) << 4
    old_cs = machine.reg(x86.UC_X86_REG_CS)
    for word in (machine.flags, old_cs, machine.pc - (old_cs << 4)):
        sp = sp - 2 & 0xFFFF
        machine.write(ss + sp, struct.pack("<H", word & 0xFFFF))
    machine.set(x86.UC_X86_REG_SP, sp)
    machine.set(x86.UC_X86_REG_EFLAGS, machine.flags & ~(INTERRUPT_FLAG | TRAP_FLAG))
    machine.set(x86.UC_X86_REG_CS, cs)
    machine.pc = (cs << 4) + ip


def _protected(machine, vector):
    """32-bit code has no handlers; a table somebody else could fill is a finding of its own."""
    from machine import End

    _, base, limit, _ = machine.reg(x86.UC_X86_REG_IDTR)
    if vector * 8 + 7 > limit:
        raise NoGate
    machine.read(base + vector * 8, 8)
    raise End("stuck", f"vector {vector} reached a table at {base:#x} in 32-bit mode")
