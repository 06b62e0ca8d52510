//! Whether this program was given a standard output at all.
//!
//! The standard library opens `/dev/null` in place of standard descriptors that are closed, before `main`, so that nothing else gets
//! their numbers. What is written there is lost in silence; so this looks before it does.
//! Source: Rust's `std::sys::pal::unix::sanitize_standard_fds`.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// It was closed when this program began.
pub fn was_closed() -> bool {
    WAS_CLOSED.load(Ordering::Relaxed)
}

extern "C" fn look() {
    let closed = rustix::io::fcntl_getfd(rustix::stdio::stdout()).is_err();
    WAS_CLOSED.store(closed, Ordering::Relaxed);
}

// SAFETY: the C library calls each function of this section once, before `main`, while there is one thread; with arguments, which
// a C function may ignore. This one makes a system call and sets a static, neither of which needs Rust's runtime.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;
