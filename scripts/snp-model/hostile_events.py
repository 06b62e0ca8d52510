"""Hosts that inject events at exits and in the first instructions. Between exits: `injection`."""

from hostile import FOREIGN, MEASURED, DIES, Must, case
from hypervisor import Hypervisor
from launch import Boot
from machine import EXIT_CPUID, PAGE_NOT_VALIDATED, VC

REFUSED = Must("terminated", "shutdown", reasons=(14,))
GP, PF, NMI, DB = 13, 14, 2, 1


def at_exit(nth, vector, error_code=None):
    class Injecting(Hypervisor):
        seen = 0

        def vmgexit(self):
            super().vmgexit()
            self.seen += 1
            if self.seen == nth:
                self.machine.inject(vector, error_code)
    return Injecting


def cases():
    other = Boot(FOREIGN, MEASURED.initrd, MEASURED.line)
    for nth in (1, 5, 30, 60):
        yield case(f"another kernel, and a #VC of CPUID at exit {nth}", REFUSED, given=other,
                   hypervisor=at_exit(nth, VC, EXIT_CPUID))
    for name, vector, code in (
        ("an NMI", NMI, None), ("a debug exception", DB, None), ("a page fault", PF, 2), ("a general protection fault", GP, 0),
        ("#VC of an unvalidated page", VC, PAGE_NOT_VALIDATED), ("interrupt 0x80", 0x80, None), ("interrupt 255", 255, None),
    ):
        yield case(f"another kernel, and {name} behind the last copy", REFUSED, given=other, hypervisor=at_exit(61, vector, code))
    for form in ("reset", "entry64"):
        yield case("an NMI before the first instruction", DIES, form, hypervisor=First)


class First(Hypervisor):
    def prepare(self):
        super().prepare()
        launch = self.machine.start_real, self.machine.start_long

        def started(start):
            def then(*arguments, **more):
                start(*arguments, **more)
                self.machine.inject(NMI)
            return then
        self.machine.start_real, self.machine.start_long = map(started, launch)
