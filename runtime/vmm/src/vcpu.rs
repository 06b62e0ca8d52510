//! A virtual processor's thread, and the gate where all of them stop while the guest is paused.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::signal::{Killable as _, SIGRTMIN, register_signal_handler};

use crate::bus::Bus;
use crate::end::End;

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

/// Runs a processor until the machine ends.
pub fn run(mut processor: VcpuFd, bus: &Bus, gate: &Gate) -> End {
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
            Ok(VcpuExit::Shutdown | VcpuExit::SystemEvent(..)) => return End::PoweredOff,
            Ok(VcpuExit::Hlt | VcpuExit::Intr) => {}
            Ok(other) => return End::Stuck(format!("{other:?}")),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
            Err(error) => return End::Stuck(io::Error::from(error).to_string()),
        }
    }
}
