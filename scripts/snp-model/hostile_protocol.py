"""Hosts that break the GHCB protocol: the MSR's words, and requests through the page."""

import struct

from hostile import BOOTS, DIES, HOST_GIVES_UP, Must, case, refused
from hypervisor import BUFFER, EXIT_INFO_1, EXIT_INFO_2, RAX, Hypervisor
from machine import EFER_MSR, GHCB_MSR, End

GHCB = 13


def cases():
    def answers(method, answer):
        return type("Answering", (Hypervisor,), {method: lambda _self, _request: answer})

    for name, method, answer in (
        ("speaks version 1 alone", "sev_information", 1 << 48 | 1 << 32 | 51 << 24 | 1),
        ("speaks version 3 and later", "sev_information", 4 << 48 | 3 << 32 | 51 << 24 | 1),
        ("answers the first question with a termination", "sev_information", 0x100),
        ("answers the first question with nothing", "sev_information", 0),
        ("offers no SNP", "feature_bits", 0b10 << 12 | 0x081), ("offers no AP creation", "feature_bits", 0b01 << 12 | 0x081),
        ("answers the features with another answer's word", "feature_bits", 0b11 << 12 | 0x080),
        ("registers another page", "register", 0x201013), ("registers no page", "register", 0xFFFFFFFFFFFFF013),
        ("answers a registration with another answer's word", "register", 0x200012),
        ("refuses to share the first page", "page_state_by_msr", 1 << 32 | 0x015),
        ("answers the first page's state with another answer's word", "page_state_by_msr", 0x014),
    ):
        yield case(name, refused(GHCB), hypervisor=answers(method, answer))
    yield case("says that the first page is shared, and leaves it private", HOST_GIVES_UP,
               hypervisor=answers("page_state_by_msr", 0x015))
    for name, what, must in (
        ("intercepts EFER", EFER_MSR, DIES), ("intercepts the GHCB's MSR", GHCB_MSR, Must("shutdown")),
        ("intercepts RDTSC", "rdtsc", DIES),
    ):
        for form in ("reset", "entry64"):
            yield case(name, must, form, hypervisor=type("Intercepting", (Hypervisor,), {"intercepted": {what}}))
    yield case("lets a guest run on that ended itself", Must("kept ending"), hypervisor=Reviving)

    for name, change in (
        ("fails a page-state request", lambda self: self.put(EXIT_INFO_2, 1 << 32 | 1)),
        ("fails a page-state request in the low half", lambda self: self.put(EXIT_INFO_2, 1)),
        ("calls a page-state request malformed", lambda self: self.put(EXIT_INFO_1, 2)),
        ("goes back in a page-state request", lambda self: self.header(-1, 0)),
        ("goes past the end of a page-state request", lambda self: self.header(2, 0)),
        ("shortens a page-state request", lambda self: self.header(0, -1)),
        ("lengthens a page-state request", lambda self: self.header(0, 1)),
        ("writes to the reserved part of a page-state request", lambda self: self.reserved()),
    ):
        yield case(name, refused(GHCB), hypervisor=page_states(change))
    yield case("never gets on with a page-state request", refused(GHCB), hypervisor=stopping(lambda current, _last: current - 1))
    yield case("returns after each entry of a page-state request", BOOTS, hypervisor=stopping(lambda current, _last: current))
    yield case("returns in the middle of each page-state request", BOOTS,
               hypervisor=stopping(lambda current, last: (current + last) // 2))
    yield case("returns early where pages start shared", BOOTS, start="shared",
               hypervisor=stopping(lambda current, last: min(current + 9, last)))
    yield case("says that requests are done, and does nothing", HOST_GIVES_UP, start="shared", hypervisor=Pretending)
    yield case("writes other pages into an answered request", BOOTS, hypervisor=page_states(Helper.rewrite))
    yield case("fills the page with rubbish around each answer", BOOTS, hypervisor=Scribbling)
    yield case("answers each port access as malformed", refused(9), hypervisor=Deaf)
    yield case("refuses to take the window back", refused(GHCB), hypervisor=keeping(13, True))
    yield case("keeps the window shared at the end", HOST_GIVES_UP, hypervisor=keeping(13, False))
    yield case("keeps the first page shared at the end", HOST_GIVES_UP, hypervisor=Keeping)


class Helper(Hypervisor):
    """What the cases above do to an answered page-state request."""

    private_requests = 0

    def header(self, current, last):
        at = self.at + BUFFER
        found = struct.unpack("<HH", self.machine.shared[at:at + 4])
        # One back from where the request started.
        new = (found[0] + current if current >= 0 else 0xFFFF, found[1] + last)
        self.machine.shared[at:at + 4] = struct.pack("<HH", new[0] & 0xFFFF, new[1] & 0xFFFF)

    def reserved(self):
        self.machine.shared[self.at + BUFFER + 4] = 1

    def rewrite(self):
        entries = self.at + BUFFER + 8
        self.machine.shared[entries:entries + 800] = struct.pack("<Q", 1 << 52 | 0x100000) * 100

    def page_states(self, info):
        entry, = struct.unpack("<Q", self.machine.shared[self.at + BUFFER + 8:self.at + BUFFER + 16])
        super().page_states(info)
        if entry >> 52 & 0xF == 1:
            self.private_requests += 1
            self.answered()

    def answered(self):
        pass


def page_states(change):
    """Changes the answer to the second request for private pages."""
    def answered(self):
        if self.private_requests == 2:
            change(self)
    return type("Changing", (Helper,), {"answered": answered})


def stopping(last_now):
    return type("Stopping", (Hypervisor,), {"last_now": lambda _self, current, last: last_now(current, last)})


class Pretending(Hypervisor):
    def change(self, gpa, state, large):
        if state == 2:
            super().change(gpa, state, large)


class Scribbling(Hypervisor):
    """Everything in the page but the answer itself is rubbish afterwards: valid bits, usage, version, old requests."""

    def ghcb(self, gpa):
        super().ghcb(gpa)
        kept = {at: self.machine.shared[gpa + at:gpa + at + 8] for at in (EXIT_INFO_1, EXIT_INFO_2, RAX, BUFFER)}
        self.machine.shared[gpa:gpa + 0x1000] = b"\xa5" * 0x1000
        for at, value in kept.items():
            self.machine.shared[gpa + at:gpa + at + 8] = value


class Deaf(Hypervisor):
    def port(self, info):
        super().port(info)
        self.malformed(6)


class Reviving(Hypervisor):
    """Enters the guest again after its termination, with whatever answer, and some exceptions."""

    def sev_information(self, _request):
        return 0

    def terminate(self, _request):
        self.machine.counts["page-state"] += 1
        if self.machine.counts["page-state"] > 600:
            raise End("kept ending")
        if self.machine.counts["page-state"] % 2:
            self.machine.inject(self.machine.counts["page-state"] % 256)
        return 0x015


def keeping(request, refuse):
    """What happens to the last request through the page, when the window's other pages are to be private."""
    class Last(Hypervisor):
        done = False

        def page_states(self, info):
            start, = struct.unpack("<Q", self.machine.shared[self.at + BUFFER + 8:self.at + BUFFER + 16])
            self.done = self.console.count(b"\n") == 2 and start & 0xFFFFFFFFFF000 == 0x201000
            if self.done and refuse:
                return self.put(EXIT_INFO_2, 1 << 32)
            return super().page_states(info)

        def change(self, gpa, state, large):
            if not self.done:
                super().change(gpa, state, large)
    return Last


class Keeping(Hypervisor):
    """The first page stays shared when everything else is taken back."""

    def page_state_by_msr(self, request):
        if request >> 52 & 0xF == 1:
            return 0x015
        return super().page_state_by_msr(request)
