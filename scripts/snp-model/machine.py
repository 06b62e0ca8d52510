"""An SEV-SNP guest's processor and memory, as far as firmware can tell it from a real one.

Two copies of every page: the private one, which only accesses with the C-bit reach, and the shared one, which the host
reads and writes. The RMP says which of them is there (assigned) and whether the guest accepted it (validated). The
emulator runs instructions; every address goes through `Machine.view`, which walks the guest's page tables, looks at the
C-bit and asks the RMP; what an SNP processor does differently (PVALIDATE, VMGEXIT, MSRs, CPUID, port accesses) is done
here. Three engines share the memory, for real mode, 32-bit and 64-bit code: the
emulator's own modes, between which the far jumps in stage0's start code lead.

Shows logic and order. It does not show what a processor does beyond its manual.
Source: AMD APM volume 2, §15.36 (RMP, page states), §8 (exceptions); volume 3, PVALIDATE.
"""

import ctypes
import mmap
import struct

import exceptions
from unicorn import (
    UC_ARCH_X86, UC_CTL_IO_WRITE, UC_CTL_TLB_FLUSH, UC_HOOK_CODE, UC_HOOK_INSN, UC_HOOK_INSN_INVALID, UC_HOOK_INTR, UC_HOOK_TLB_FILL, UC_MODE_16, UC_MODE_32,
    UC_MODE_64, UC_TLB_VIRTUAL, Uc, UcError,
)
from unicorn import x86_const as x86

PAGE = 0x1000
LARGE = 0x200000
C_BIT = 1 << 51
ASSIGNED, VALIDATED, IS_LARGE = 1, 2, 4
ROM_GPA, ROM_SIZE = 0xFFFF0000, 0x10000
IMAGE, IMAGE_END = 0x100000, 0x110000
"""stage0's code, data and stack while it runs."""
REAL_MODE_ROM = range(0xF0000, 0x100000)
"""Where real mode sees the ROM at reset: the code segment's base is 0xFFFF0000, which the emulator cannot be told."""

EFER_MSR, GHCB_MSR, SEV_STATUS_MSR = 0xC0000080, 0xC0010130, 0xC0010131
EFER_LME, EFER_LMA, EFER_SVME = 1 << 8, 1 << 10, 1 << 12
PAGE_NOT_VALIDATED, EXIT_CPUID, EXIT_IOIO, EXIT_MSR, EXIT_HLT, EXIT_RDTSC = 0x404, 0x72, 0x7B, 0x7C, 0x78, 0x6E
VC, UD, PF = 29, 6, 14

_PRIVATE = 1 << 36
_SPECIAL = [
    (b"\x0f\x30", "wrmsr"), (b"\x0f\x32", "rdmsr"), (b"\xf3\x0f\x01\xd9", "vmgexit"), (b"\xf2\x0f\x01\xff", "pvalidate"),
    (b"\x0f\xa2", "cpuid"), (b"\x0f\x31", "rdtsc"), (b"\x48\xcf", "iret"),
] + [(bytes([0x0F, 0x01, 0x38 | reg]), "invlpg") for reg in range(8)] \
  + [(bytes([0x0F, 0x22, 0xD8 | reg]), "load cr3") for reg in range(8)]
_SPECIAL_OF = {
    UC_MODE_16: [*_SPECIAL[:6], (b"\x66\xea", "jump to 32")], UC_MODE_32: [*_SPECIAL[:6], (b"\xea", "jump to 64")],
    UC_MODE_64: _SPECIAL,
}
GPRS = [getattr(x86, f"UC_X86_REG_{name}") for name in
        "RAX RCX RDX RBX RSP RBP RSI RDI R8 R9 R10 R11 R12 R13 R14 R15".split()]


class End(Exception):
    """How a guest ended: `kind` is entered, terminated, shutdown, host-fault (the host can only give up), parked, spins, or
    stuck, which is a defect of guest or model; `detail` says more."""

    def __init__(self, kind, detail=None):
        super().__init__(kind, detail)
        self.kind, self.detail = kind, detail

    def __str__(self):
        return self.kind if self.detail is None else f"{self.kind} ({self.detail})"


class Fault(Exception):
    """An exception the guest itself takes."""

    def __init__(self, vector, error_code=None):
        super().__init__(vector, error_code)
        self.vector, self.error_code = vector, error_code


class Machine:
    """One guest with one running virtual processor."""

    def __init__(self, ram_bytes, rom, hypervisor):
        self.ram_bytes = ram_bytes
        self.rom = rom
        self.private, self.shared, self.rom_pages = _memory(ram_bytes), _memory(ram_bytes), _memory(ROM_SIZE)
        self.rmp = bytearray(1 << 20)
        self.efer, self.ghcb_msr = EFER_SVME, 0
        self.paging = self.long_mode = False
        self.cr3 = self.ticks = self.timeout = 0
        self.counts = {"exits": 0, "page-state": 0, "pvalidate": 0, "cpuid": 0}
        self.kernel_entry = None
        self.patience = 0
        """Where `watch_each` was: instructions until the machine is stopped, if not 0."""
        self.before = None
        """Called before each instruction of the image, where `watch_each` was: `before(address)`."""
        self._pending = self._fault = None
        self._specials, self._large = {}, {}
        self._unresumable = 0
        self.uc = None
        self.hypervisor = hypervisor
        hypervisor.machine = self

    # --- memory

    def load(self, gpa, data, state=ASSIGNED | VALIDATED):
        """Puts a launch page's bytes into private memory and gives it to the guest."""
        store, at = self._private(gpa)
        store[at:at + len(data)] = data
        for page in range(gpa >> 12, (gpa + len(data) + PAGE - 1) >> 12):
            self.rmp[page] = state

    def read_private(self, gpa, length):
        store, at = self._private(gpa)
        return store[at:at + length]

    def write_private(self, gpa, data):
        store, at = self._private(gpa)
        store[at:at + len(data)] = data

    def _private(self, gpa):
        return (self.rom_pages, gpa - ROM_GPA) if gpa >= ROM_GPA else (self.private, gpa)

    def is_memory(self, gpa):
        return gpa < self.ram_bytes or ROM_GPA <= gpa < 1 << 32

    def walk(self, address):
        """Guest physical address and C-bit of a virtual one, by the guest's page tables. These are always private."""
        if not self.paging:
            return address & 0xFFFFFFFF, True
        known = self._large.get(address >> 21)
        if known:
            return known[0] | address & (LARGE - 1), known[1]
        table = self.cr3 & 0x000FFFFFFFFFF000 & ~C_BIT
        for shift in (39, 30, 21, 12):
            self.check(table, True)
            entry, = struct.unpack_from("<Q", self.private, table + ((address >> shift) & 511) * 8)
            if not entry & 1:
                raise Fault(PF, 0)
            table = entry & 0x000FFFFFFFFFF000 & ~C_BIT
            if shift == 12 or (entry & 0x80 and shift != 39):
                mask = (1 << shift) - 1
                found = (table & ~mask) | (address & mask), bool(entry & C_BIT)
                if shift != 12:
                    self._large[address >> 21] = found[0] & ~(LARGE - 1), found[1]
                return found
        raise AssertionError

    def check(self, gpa, encrypted):
        """Whether the RMP lets this access through."""
        if not self.is_memory(gpa):
            raise End("host-fault", f"no memory at {gpa:#x}")
        state = self.rmp[gpa >> 12]
        if not encrypted:
            if state & ASSIGNED:
                raise End("host-fault", f"shared access to the private page {gpa:#x}")
        elif not state & ASSIGNED:
            raise End("host-fault", f"private access to the shared page {gpa:#x}")
        elif not state & VALIDATED:
            raise Fault(VC, PAGE_NOT_VALIDATED)

    def view(self, address):
        """The store and offset behind a virtual address, checked."""
        gpa, encrypted = self.walk(address)
        self.check(gpa, encrypted)
        return self._private(gpa) if encrypted else (self.shared, gpa)

    def read_rom(self, address, length):
        """Code as real mode sees it at reset."""
        return self.rom_pages[address - REAL_MODE_ROM.start:][:length]

    def read(self, address, length):
        out = b""
        while len(out) < length:
            store, at = self.view(address + len(out))
            out += store[at:at + min(length - len(out), PAGE - at % PAGE)]
        return out

    def write(self, address, data):
        done = 0
        while done < len(data):
            store, at = self.view(address + done)
            part = data[done:done + PAGE - at % PAGE]
            store[at:at + len(part)] = part
            done += len(part)

    # --- engines

    def start_real(self, eip, cs):
        self._engine(UC_MODE_16)
        self.uc.reg_write(x86.UC_X86_REG_CS, cs)
        self.uc.reg_write(x86.UC_X86_REG_IDTR, (0, 0, 0xFFFF, 0))
        self.pc = ((cs << 4) + eip) & 0xFFFFF

    def start_long(self, rip, cr3, registers=None, cr0=0x80000031, cr4=0x60, idt=(0, 0), gdt=(0, 0)):
        self.long_mode = self.paging = True
        self._engine(UC_MODE_64)
        self.cr3 = cr3
        self.uc.reg_write(x86.UC_X86_REG_CR0, cr0)
        self.uc.reg_write(x86.UC_X86_REG_CR3, cr3)
        self.uc.reg_write(x86.UC_X86_REG_CR4, cr4)
        self.uc.reg_write(x86.UC_X86_REG_IDTR, (0, idt[0], idt[1], 0))
        self.uc.reg_write(x86.UC_X86_REG_GDTR, (0, gdt[0], gdt[1], 0))
        for register, value in (registers or {}).items():
            self.uc.reg_write(register, value)
        self.pc = rip

    def _engine(self, mode):
        self.mode = mode
        self.uc = uc = Uc(UC_ARCH_X86, mode)
        uc.ctl_set_tlb_mode(UC_TLB_VIRTUAL)
        for base, store in ((_PRIVATE, self.private), (0, self.shared), (_PRIVATE + ROM_GPA, self.rom_pages)):
            uc.mem_map_ptr(base, len(store), 7, ctypes.addressof(ctypes.c_char.from_buffer(store)))
        uc.hook_add(UC_HOOK_TLB_FILL, self._fill)
        uc.hook_add(UC_HOOK_INTR, self._on_interrupt)
        uc.hook_add(UC_HOOK_INSN_INVALID, self._on_invalid)
        uc.hook_add(UC_HOOK_INSN, self._on_in, None, 1, 0, x86.UC_X86_INS_IN)
        uc.hook_add(UC_HOOK_INSN, self._on_out, None, 1, 0, x86.UC_X86_INS_OUT)
        self._specials = {}
        for place in self.code_places():
            self._watch(place)
        if mode == UC_MODE_64:
            self._stop_at(self.kernel_entry, "kernel")

    def code_places(self):
        """Where the ROM's bytes can be executed, as (address, offset in the ROM, length)."""
        tail = ROM_SIZE - PAGE
        places = [(0x100000, 0, tail), (0xEB000, tail, PAGE), (ROM_GPA + tail, tail, PAGE)]
        return [*places, (REAL_MODE_ROM.start + tail, tail, PAGE)] if self.mode == UC_MODE_16 else places

    def _watch(self, place):
        address, offset, length = place
        code = self.rom[offset:offset + length]
        for pattern, what in _SPECIAL_OF[self.mode]:
            at = code.find(pattern)
            while at >= 0:
                self._stop_at(address + at, what)
                at = code.find(pattern, at + 1)

    def _stop_at(self, address, what):
        def stop(uc, address, _size, _data):
            self._pending = (what, address)
            uc.emu_stop()
        if address not in self._specials:
            self._specials[address] = what
            self.uc.hook_add(UC_HOOK_CODE, stop, None, address, address)

    def _fill(self, _uc, address, access, entry, _data):
        try:
            if self.mode == UC_MODE_16 and address in REAL_MODE_ROM:
                gpa, encrypted = address + (ROM_GPA - REAL_MODE_ROM.start), True
            else:
                gpa, encrypted = self.walk(address & ~0xFFF)
            self.check(gpa, encrypted)
            if access == 2 and not encrypted:
                raise Fault(PF, 0x10)
        except (Fault, End) as why:
            self._fault = self._fault or why
            return False
        entry.paddr = (gpa & ~0xFFF) + (_PRIVATE if encrypted else 0)
        entry.perms = 7
        return True

    def real_mode(self):
        return self.mode == UC_MODE_16

    def _on_interrupt(self, uc, number, _data):
        self._pending = ("exception", number)
        uc.emu_stop()

    def _on_invalid(self, uc, _data):
        self._fault = Fault(UD)
        return False

    def _on_in(self, uc, port, size, _data):
        self._pending = ("port", port)
        uc.emu_stop()
        return 0

    def _on_out(self, uc, port, size, value, _data):
        self._pending = ("port", port)
        uc.emu_stop()

    # --- running

    @property
    def flags(self):
        return self.uc.reg_read(x86.UC_X86_REG_EFLAGS)

    def reg(self, register):
        return self.uc.reg_read(register)

    def set(self, register, value):
        self.uc.reg_write(register, value)

    def flush(self):
        """Forgets translations, as after a change of the page tables or by the host."""
        self._large = {}
        self.flush_checks()

    def flush_checks(self):
        """Forgets what the RMP said."""
        self.uc.ctl(UC_CTL_TLB_FLUSH, UC_CTL_IO_WRITE)

    def run(self, budget=None):
        """Runs until the guest ends (`End`) or, with `budget`, until that many instructions have been executed."""
        while True:
            self._pending = self._fault = None
            try:
                self.uc.emu_start(self.pc, 1 << 63, self.timeout, budget or 0)
            except UcError as error:
                if self._fault is None and self._pending is None:
                    raise End("stuck", f"emulator: {error} at {self._now():#x}") from None
            self.pc = self._now()
            if self._pending and not (self._fault and self._pending[0] == "exception"):
                # Whatever the emulator looks at after it was stopped does not count. It has one exception for all faults.
                self._handle(*self._pending)
            elif self.timeout:
                raise End("spins")
            elif isinstance(self._fault, End):
                raise self._fault
            elif self._fault:
                self._take(self._fault)
            elif budget:
                return
            else:
                self._halted()

    def watch_each(self, wanted, before):
        """Calls `before(address)` in front of each instruction of the image that `wanted(address)` asks for."""
        def note(uc, address, _size, _data):
            if self._seen == address:
                self._seen = None
            elif self.patience:
                self.patience -= 1
                if not self.patience:
                    self._pending = ("patience", address)
                    uc.emu_stop()
            elif self.wanted(address):
                self._pending = ("before", address)
                uc.emu_stop()
        self.wanted, self.before, self._seen = wanted, before, None
        return self.uc.hook_add(UC_HOOK_CODE, note, None, IMAGE, IMAGE_END - 1)

    def _now(self):
        pc = self.uc.reg_read(x86.UC_X86_REG_RIP if self.long_mode else x86.UC_X86_REG_EIP)
        if self.mode == UC_MODE_16:
            pc = (self.reg(x86.UC_X86_REG_CS) << 4) + (pc & 0xFFFF)
        return pc

    def _halted(self):
        if self.read(self.pc - 1, 1) == b"\xf4":
            self.pc -= 1
            return self._take(Fault(VC, EXIT_HLT))
        raise End("stuck", f"stopped at {self.pc:#x}")

    def _take(self, fault):
        self._unresumable += 1
        if self._unresumable > 64:
            raise End("shutdown", "exceptions without end")
        exceptions.deliver(self, fault.vector, fault.error_code)

    def inject(self, vector, error_code=None):
        """What EVENTINJ does at the next entry: an event of the host's choosing."""
        exceptions.deliver(self, vector, error_code)

    def _handle(self, what, at):
        if what == "kernel":
            raise End("entered")
        if what == "exception":
            return self._take(Fault(at, 0 if at in (8, 10, 11, 12, 13, 14, 17) else None))
        if what == "patience":
            self.pc = at
            raise End("goes on")
        if what == "before":
            self.pc = self._seen = at
            return self.before(at)
        if what == "port":
            return self._take(Fault(VC, EXIT_IOIO))
        self.pc = at
        if self.before and self._seen != at and IMAGE <= at < IMAGE_END and self.wanted(at):
            self.before(at)
        self._seen = None
        getattr(self, "_do_" + what.replace(" ", "_"))()

    def _advance(self, length):
        self.pc += length

    def _do_cpuid(self):
        self.counts["cpuid"] += 1
        self._take(Fault(VC, EXIT_CPUID))

    def _do_rdtsc(self):
        if "rdtsc" in self.hypervisor.intercepted:
            return self._take(Fault(VC, EXIT_RDTSC))
        self.ticks += 1000
        self.set(x86.UC_X86_REG_RAX, self.ticks & 0xFFFFFFFF)
        self.set(x86.UC_X86_REG_RDX, self.ticks >> 32)
        self._advance(2)

    def _do_invlpg(self):
        self.flush()
        self._advance(3)

    def _do_load_cr3(self):
        self.cr3 = self.reg(GPRS[self.read(self.pc + 2, 1)[0] & 7])
        self.flush()
        self._advance(3)

    def _do_iret(self):
        if self.long_mode:
            exceptions.return_from(self)
        else:
            raise End("stuck", "IRET outside 64-bit mode")

    def _do_jump_to_32(self):
        """From real mode into protected mode."""
        offset, selector = struct.unpack("<IH", self.read_rom(self.pc + 2, 6))
        registers = [(reg, self.reg(reg)) for reg in _NARROW]
        gdt, idt, cr0 = (self.reg(reg) for reg in (x86.UC_X86_REG_GDTR, x86.UC_X86_REG_IDTR, x86.UC_X86_REG_CR0))
        if not cr0 & 1 or selector != 8:
            raise End("stuck", "a far jump the model does not know")
        self._engine(UC_MODE_32)
        for register, value in [*registers, (x86.UC_X86_REG_GDTR, gdt), (x86.UC_X86_REG_IDTR, idt), (x86.UC_X86_REG_CR0, cr0)]:
            self.set(register, value)
        self.pc = offset

    def _do_jump_to_64(self):
        """From protected mode into 64-bit mode."""
        offset, selector = struct.unpack("<IH", self.read(self.pc + 1, 6))
        self.paging = bool(self.reg(x86.UC_X86_REG_CR0) >> 31)
        if not self.paging:
            raise End("stuck", "a far jump the model does not know")
        self.cr3 = self.reg(x86.UC_X86_REG_CR3)
        registers = {reg: self.uc.reg_read(narrow) for reg, narrow in zip(GPRS, _NARROW)}
        gdt, idt = self.reg(x86.UC_X86_REG_GDTR), self.reg(x86.UC_X86_REG_IDTR)
        descriptor, = struct.unpack("<Q", self.read(gdt[1] + (selector & ~7), 8))
        if not descriptor >> 53 & 1:
            raise End("stuck", "far jump to a segment that is not 64-bit code")
        if not self.efer & EFER_LME:
            raise End("stuck", "far jump to 64-bit code without EFER.LME")
        cr0, cr4 = self.reg(x86.UC_X86_REG_CR0), self.reg(x86.UC_X86_REG_CR4)
        self.efer |= EFER_LMA
        self.start_long(offset, self.cr3, registers, cr0, cr4, (idt[1], idt[2]), (gdt[1], gdt[2]))

    def _do_rdmsr(self):
        msr = self.reg(x86.UC_X86_REG_ECX)
        value = {EFER_MSR: self.efer, GHCB_MSR: self.ghcb_msr, SEV_STATUS_MSR: 0b111}.get(msr)
        if value is None or msr in self.hypervisor.intercepted:
            return self._take(Fault(VC, EXIT_MSR))
        self.set(x86.UC_X86_REG_EAX, value & 0xFFFFFFFF)
        self.set(x86.UC_X86_REG_EDX, value >> 32)
        self._advance(2)

    def _do_wrmsr(self):
        msr = self.reg(x86.UC_X86_REG_ECX)
        value = self.reg(x86.UC_X86_REG_EDX) << 32 | self.reg(x86.UC_X86_REG_EAX)
        if msr in self.hypervisor.intercepted or msr not in (GHCB_MSR, EFER_MSR):
            return self._take(Fault(VC, EXIT_MSR))
        if msr == GHCB_MSR:
            self.ghcb_msr = value
        else:
            self.efer = value
        self._advance(2)

    def _do_vmgexit(self):
        self._advance(4)
        self.counts["exits"] += 1
        self._unresumable = 0
        before = self.counts["page-state"]
        self.hypervisor.vmgexit()
        if self.counts["page-state"] != before or self.hypervisor.moves_pages:
            self.flush()

    def _do_pvalidate(self):
        """Source: APM volume 3, PVALIDATE: 1 bad input, 6 size mismatch; CF: nothing changed."""
        address, size = self.reg(x86.UC_X86_REG_RAX), self.reg(x86.UC_X86_REG_ECX)
        wanted = VALIDATED if self.reg(x86.UC_X86_REG_EDX) & 1 else 0
        self.counts["pvalidate"] += 1
        self._advance(4)
        gpa, encrypted = self.walk(address)
        length = LARGE if size & 1 else PAGE
        if not encrypted or gpa % length or not self.is_memory(gpa):
            return self._pvalidated(1, True)
        pages = range(gpa >> 12, (gpa + length) >> 12)
        states = set(self.rmp[pages.start:pages.stop])
        if any(not state & ASSIGNED for state in states):
            raise End("host-fault", f"PVALIDATE of the shared page {gpa:#x}")
        if size & 1 and any(not state & IS_LARGE for state in states):
            return self._pvalidated(6, True)
        if not size & 1 and self.rmp[gpa >> 12] & IS_LARGE:
            # The hypervisor splits the entry (PSMASH) and the guest tries again.
            first = gpa & ~(LARGE - 1)
            for page in range(first >> 12, (first + LARGE) >> 12):
                self.rmp[page] &= ~IS_LARGE
        changed = any(state & VALIDATED != wanted for state in states)
        for page in pages:
            self.rmp[page] = self.rmp[page] & ~VALIDATED | wanted
        if changed:
            self.flush_checks()
        return self._pvalidated(0, not changed)

    def _pvalidated(self, result, carry):
        result, carry = self.hypervisor.pvalidated(result, carry)
        self.set(x86.UC_X86_REG_RAX, result)
        self.set(x86.UC_X86_REG_EFLAGS, self.flags & ~1 | carry)


_NARROW = [getattr(x86, f"UC_X86_REG_{name}") for name in "EAX ECX EDX EBX ESP EBP ESI EDI".split()]


def _memory(size):
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
