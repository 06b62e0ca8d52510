//! coffer-init: PID 1 and agent of the guest.
