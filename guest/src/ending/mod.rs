//! Whether what the workload closes is an end of its own.
//!
//! The kernel closes what a program has open when that ends, and whoever is at the other side sees what a program does that has said all it
//! says. A host may stop a workload, give its guest less memory than the spec says, or damage a disk, and could so have a half taken for a
//! whole. From a word to stop on, behind an input or output error of a disk, and for a minute behind a program that was killed for memory,
//! an end that comes from there is none.
//! Trusts: that the word is given before the signal; the guest's kernel. Never: takes the word, or a disk's error, back.

mod kernel;
mod stream;

use std::{
    io,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use kernel::Kernel;
pub use stream::WorkloadStream;

use crate::sys::descriptor;

/// What is known of it, for everybody who has it.
#[derive(Clone, Debug, Default)]
pub struct Ending(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    told: AtomicBool,
    kernel: OnceLock<Mutex<Kernel>>,
}

impl Ending {
    /// The workload is told to end, or will be at once.
    pub fn is_told(&self) {
        self.0.told.store(true, Ordering::SeqCst);
    }

    /// Asks the kernel from now on, too: of a guest that has one of its own.
    ///
    /// # Errors
    /// Where it cannot be asked.
    pub fn ask_kernel(&self) -> io::Result<()> {
        let kernel = Kernel::open()?;
        let comes = descriptor::register(kernel.log().try_clone()?.into())?;
        let own = self.clone();
        if self.0.kernel.set(Mutex::new(kernel)).is_ok() {
            tokio::spawn(async move {
                // As it comes: a log that nobody reads is overwritten, and what stood there with it.
                while let Ok(mut ready) = comes.readable().await {
                    ready.clear_ready();
                    own.kernel_has_failed();
                }
            });
        }
        Ok(())
    }

    /// Whether an end that comes now is the workload's own.
    pub fn is_own(&self) -> bool {
        !self.0.told.load(Ordering::SeqCst) && !self.kernel_has_failed() && !self.has_killed()
    }

    fn kernel_has_failed(&self) -> bool {
        let failed = self.kernel(Kernel::has_failed);
        if failed {
            self.is_told();
        }
        failed
    }

    fn has_killed(&self) -> bool {
        self.kernel(Kernel::has_killed)
    }

    /// A kernel that does not answer has failed.
    fn kernel(&self, ask: impl FnOnce(&mut Kernel) -> io::Result<bool>) -> bool {
        let Some(kernel) = self.0.kernel.get() else { return false };
        ask(&mut kernel.lock().unwrap_or_else(PoisonError::into_inner)).unwrap_or(true)
    }
}
