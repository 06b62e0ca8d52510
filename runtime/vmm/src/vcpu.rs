//! A virtual processor's thread, and the gate where all of them stop while the guest is paused.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::signal::{Killable as _, SIGRTMIN, register_signal_handler};

use coffer_machine::Refusal;
use kvm_bindings::KVM_SYSTEM_EVENT_SEV_TERM;

use crate::bus::Bus;
use crate::end::End;
use crate::snp::page_state::{Change, PageStateError, Repeats};
use crate::snp::{PrivateMemory, page_state};

/// Where processors wait while the guest is paused.
#[derive(Debug, Default)]
pub struct Gate {
    closed: AtomicBool,
    waiting: Mutex<u32>,
    changed: Condvar,
}

impl Gate {
    /// Waits while the gate is closed, and says whether it was.
    fn pass(&self) -> bool {
        if !self.closed.load(Ordering::SeqCst) {
            return false;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        *waiting += 1;
        self.changed.notify_all();
        while self.closed.load(Ordering::SeqCst) {
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        *waiting -= 1;
        true
    }

    /// Closes the gate, and waits until every processor stands at it.
    ///
    /// # Errors
    /// If one does not come within a second.
    pub fn close(&self, processors: &[JoinHandle<()>]) -> io::Result<()> {
        self.closed.store(true, Ordering::SeqCst);
        let patience = Instant::now() + Duration::from_secs(1);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while (*waiting as usize) < processors.len() {
            if Instant::now() > patience {
                drop(waiting);
                self.open();
                return Err(io::ErrorKind::TimedOut.into());
            }
            // A signal that comes just before the processor runs is lost: it is sent until it was heard.
            for processor in processors {
                let _ = processor.kill(SIGRTMIN());
            }
            let soon = Duration::from_millis(2);
            waiting = self.changed.wait_timeout(waiting, soon).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Opens the gate.
    pub fn open(&self) {
        // Under the lock: a processor between its look and its sleep would not hear.
        let _waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.closed.store(false, Ordering::SeqCst);
        self.changed.notify_all();
    }
}

/// Lets the signal that makes a processor leave the guest do nothing else.
///
/// # Errors
/// If the kernel does not take the handler.
pub fn hear_signals() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    register_signal_handler(SIGRTMIN(), nothing).map_err(io::Error::from)
}

/// Runs a processor until the machine ends; `private`: what an SEV-SNP guest has beside others.
pub fn run(mut processor: VcpuFd, bus: &Bus, gate: &Gate, private: Option<&PrivateMemory>) -> End {
    let mut repeats = Repeats::default();
    loop {
        if gate.pass() {
            // The guest's watchdogs are told that time passed without them. A guest without KVM's clock has none to tell.
            let _ = processor.kvmclock_ctrl();
        }
        match processor.run() {
            Ok(VcpuExit::IoIn(port, data)) => bus.read_port(port, data),
            Ok(VcpuExit::IoOut(port, data)) => {
                if let Some(refusal) = bus.write_port(port, data) {
                    return End::Refused(refusal);
                }
            }
            Ok(VcpuExit::MmioRead(address, data)) => bus.read(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => bus.write(address, data),
            Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SEV_TERM, data)) => return terminated(data),
            Ok(VcpuExit::Shutdown | VcpuExit::SystemEvent(..)) => return End::PoweredOff,
            Ok(VcpuExit::Hypercall(call)) if let Some(private) = private => {
                let asked = page_state::asked(call.nr, &call.args, private.ram);
                if let Err(end) = change(bus, private, asked) {
                    return end;
                }
                // Any other word fails all of the guest's request.
                *call.ret = 0;
            }
            Ok(VcpuExit::MemoryFault { flags, gpa, size }) if let Some(private) = private => {
                let touched = page_state::touched(flags, gpa, size, private.ram);
                if let Err(end) = change(bus, private, touched.and_then(|change| repeats.again(change))) {
                    return end;
                }
                continue;
            }
            Ok(VcpuExit::Hlt | VcpuExit::Intr) => {}
            Ok(other) => return End::Stuck(format!("{other:?}")),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
            Err(error) => return End::Stuck(io::Error::from(error).to_string()),
        }
        repeats = Repeats::default();
    }
}

/// Lets pages change hands, or says how the guest ends.
fn change(bus: &Bus, private: &PrivateMemory, change: Result<Change, PageStateError>) -> Result<(), End> {
    let done = bus.change_pages(private, change.map_err(End::Pages)?);
    done.map_err(|error| End::Stuck(format!("pages do not change hands: {error}")))
}

/// What an SEV-SNP guest says as it ends itself: stage0's reason, where it is one of stage0's.
///
/// `data`: the GHCB's termination request: 0x100, reason set from bit 12, reason from bit 16.
fn terminated(data: &[u64]) -> End {
    let Some(request) = data.first() else { return End::Stuck("the guest ended itself and did not say why".into()) };
    let (set, code) = (request >> 12 & 0xF, (request >> 16) as u8);
    match Refusal::ALL.into_iter().find(|refusal| *refusal as u8 == code) {
        Some(refusal) if set == STAGE0 => End::Refused(refusal),
        _ => End::Stuck(format!("the guest ended itself, by reason {code} of set {set}")),
    }
}

/// Reason set of stage0's refusals.
const STAGE0: u64 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_termination_of_stage0_is_its_refusal_and_any_other_is_told_as_it_is() {
        for refusal in Refusal::ALL {
            assert_eq!(terminated(&[coffer_stage0::ghcb::terminate(refusal)]), End::Refused(refusal));
        }
        for request in [0x2_0100, 0x63_7100, 0x7100] {
            assert!(matches!(terminated(&[request]), End::Stuck(_)), "{request:#x}");
        }
        assert!(matches!(terminated(&[]), End::Stuck(_)));
    }
}
