"""An honest hypervisor's side of the GHCB protocol, as KVM keeps it. Hostile ones differ in one method each.

Source: AMD 56421, §2.3.1 (MSR protocol), §2.6 (GHCB layout), §4.1.6 and §4.1.7 (page states); Linux
arch/x86/kvm/svm/sev.c.
"""

import struct

from machine import ASSIGNED, IS_LARGE, LARGE, PAGE, VALIDATED, End

RAX, RBX, RCX, RDX = 0x1F8, 0x318, 0x308, 0x310
EXIT_CODE, EXIT_INFO_1, EXIT_INFO_2, SCRATCH, BITMAP = 0x390, 0x398, 0x3A0, 0x3A8, 0x3F0
BUFFER, VERSION, USAGE = 0x800, 0xFFA, 0xFFC
IOIO, PAGE_STATE = 0x7B, 0x80000010
PRIVATE, SHARED = 1, 2
MOST_ENTRIES = 253


class Hypervisor:
    """Honest. `backing`: "2m" where it can, or "4k" as guest_memfd gives today. `start`: whether memory that is not launched
    starts "private" or "shared"."""

    versions = (1, 2)
    features = 0b11
    intercepted = frozenset()
    moves_pages = False
    """Whether it changes the RMP at other exits than those of page states."""

    def __init__(self, devices, backing="2m", start="private"):
        self.devices, self.backing, self.start = devices, backing, start
        self.registered = None
        self.console = b""
        self.ended = None
        self.requests = []

    def prepare(self):
        """Before the guest runs: what is not launched is rubbish, and in the state that this host starts with."""
        machine = self.machine
        rubbish = bytes(range(1, 252)) * (0x400000 // 251 + 1)
        low = min(0x400000, machine.ram_bytes)
        machine.shared[:low] = rubbish[:low]
        launched = [page for page in range(low >> 12) if machine.rmp[page]]
        kept = {page: machine.read_private(page << 12, PAGE) for page in launched}
        machine.private[:low] = rubbish[1:low + 1]
        for page, data in kept.items():
            machine.write_private(page << 12, data)
        if self.start == "private":
            self._assign(0, machine.ram_bytes)
        self.devices.handed_over(machine)

    def _assign(self, start, end):
        """Gives every page the guest does not have yet; in 2 MiB entries where nothing is mixed."""
        rmp, gpa = self.machine.rmp, start
        while gpa < end:
            large = gpa % LARGE == 0 and end - gpa >= LARGE
            pages = range(gpa >> 12, (gpa + (LARGE if large else PAGE)) >> 12)
            fresh = [page for page in pages if not rmp[page] & ASSIGNED]
            whole = large and self.backing == "2m" and not any(rmp[page] & VALIDATED for page in pages)
            for page in pages if whole else fresh:
                rmp[page] = rmp[page] | ASSIGNED | (IS_LARGE if whole else 0)
            gpa += LARGE if large else PAGE

    # --- the MSR protocol

    def vmgexit(self):
        request = self.machine.ghcb_msr
        kind = request & 0xFFF
        self.requests.append(kind)
        if kind == 0:
            return self.ghcb(request)
        answer = {
            0x002: self.sev_information, 0x004: self.cpuid, 0x006: self.reset_hold, 0x012: self.register,
            0x014: self.page_state_by_msr, 0x080: self.feature_bits, 0x100: self.terminate,
        }.get(kind)
        if answer is None:
            raise End("stuck", f"MSR request {request:#x}")
        self.machine.ghcb_msr = answer(request)

    def sev_information(self, _request):
        lowest, highest = self.versions
        return highest << 48 | lowest << 32 | 51 << 24 | 0x001

    def cpuid(self, request):
        return request & 0xFFFFFFFF_FFFFF000 & 0xFFFFFFFF | 0x005

    def reset_hold(self, _request):
        raise End("parked")

    def register(self, request):
        self.registered = request & ~0xFFF
        return self.registered | 0x013

    def page_state_by_msr(self, request):
        self.machine.counts["page-state"] += 1
        self.change(request & 0x000FFFFFFFFFF000, request >> 52 & 0xF, False)
        return 0x015

    def feature_bits(self, _request):
        return self.features << 12 | 0x081

    def terminate(self, request):
        raise End("terminated", request >> 16 & 0xFF if request >> 12 & 0xF == 7 else hex(request))

    # --- the GHCB

    def ghcb(self, gpa):
        machine = self.machine
        if gpa != self.registered or machine.rmp[gpa >> 12] & ASSIGNED:
            raise End("host-fault", f"exit through {gpa:#x}, which is no registered shared page")
        self.at = gpa
        if self.short(USAGE, 4) or self.short(VERSION, 2) != 2:
            return self.malformed(3)
        if not all(self.is_valid(field) for field in (EXIT_CODE, EXIT_INFO_1, EXIT_INFO_2)):
            return self.malformed(5)
        code = self.word(EXIT_CODE)
        needed, handler = {IOIO: (RAX, self.port), PAGE_STATE: (SCRATCH, self.page_states)}.get(code, (None, None))
        if handler is None:
            return self.malformed(6)
        if not self.is_valid(needed):
            return self.malformed(5)
        machine.shared[gpa + BITMAP:gpa + BITMAP + 16] = bytes(16)
        self.put(EXIT_INFO_1, 0)
        self.put(EXIT_INFO_2, 0)
        return handler(self.info)

    @property
    def info(self):
        return self._info

    def is_valid(self, field):
        if field == EXIT_INFO_1:
            self._info = self.word(EXIT_INFO_1)
        bit = field // 8
        return self.short(BITMAP + bit // 8, 1) >> bit % 8 & 1

    def malformed(self, reason):
        self.put(EXIT_INFO_1, 2)
        self.put(EXIT_INFO_2, reason)

    def short(self, field, length):
        return int.from_bytes(self.machine.shared[self.at + field:self.at + field + length], "little")

    def word(self, field):
        return self.short(field, 8)

    def put(self, field, value):
        self.machine.shared[self.at + field:self.at + field + 8] = struct.pack("<Q", value)
        if field < BITMAP:
            byte, bit = self.at + BITMAP + field // 64, 1 << field // 8 % 8
            self.machine.shared[byte] |= bit

    def port(self, info):
        port, size = info >> 16 & 0xFFFF, 1 if info & 0x10 else 2 if info & 0x20 else 4
        if info & 1:
            return self.put(RAX, self.devices.read(self, port, size))
        value = self.word(RAX) & (1 << 8 * size) - 1
        if port == 0x3F8:
            self.console += bytes([value])
        return self.devices.write(self, port, size, value)

    def page_states(self, _info):
        """Every entry from the current to the last one."""
        self.machine.counts["page-state"] += 1
        if self.word(SCRATCH) != self.at + BUFFER:
            return self.put(EXIT_INFO_2, 1 << 32)
        current, last, reserved = struct.unpack("<HHI", self.machine.shared[self.at + BUFFER:self.at + BUFFER + 8])
        if last >= MOST_ENTRIES or reserved or current > last:
            return self.put(EXIT_INFO_2, 1 << 32 | 1)
        for index in range(current, self.last_now(current, last) + 1):
            place = self.at + BUFFER + 8 + index * 8
            entry, = struct.unpack("<Q", self.machine.shared[place:place + 8])
            self.change(entry & 0x000FFFFFFFFFF000, entry >> 52 & 0xF, bool(entry >> 56 & 1))
            done = entry & ~0xFFF | (512 if entry >> 56 & 1 else 1)
            self.machine.shared[place:place + 8] = struct.pack("<Q", done)
            self.machine.shared[self.at + BUFFER:self.at + BUFFER + 2] = struct.pack("<H", index + 1)
        return None

    def last_now(self, _current, last):
        """The last entry to work on before the guest is asked to come again."""
        return last

    def change(self, gpa, state, large):
        """Makes pages private or shared. A page's other copy is rubbish."""
        length = LARGE if large else PAGE
        if gpa % length or gpa + length > self.machine.ram_bytes:
            raise End("stuck", f"page state of {gpa:#x}")
        if state == PRIVATE:
            return self._assign(gpa, gpa + length)
        if state != SHARED:
            raise End("stuck", f"page state {state}")
        rmp = self.machine.rmp
        for page in range(gpa >> 12, (gpa + length) >> 12):
            if rmp[page] & VALIDATED:
                raise End("host-fault", f"sharing {page << 12:#x}, which the guest still holds validated")
            if rmp[page] & IS_LARGE:
                first = page & ~511
                for other in range(first, first + 512):
                    rmp[other] &= ~IS_LARGE
            rmp[page] = 0

    def pvalidated(self, result, carry):
        """What the processor answers; no hypervisor can change that, but for which page lies there."""
        return result, carry
