//! Events as descriptors to wait for.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use vmm_sys_util::eventfd::EventFd;

/// The descriptor of an event, for as long as the event lives.
pub fn descriptor(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the event owns the descriptor and is borrowed for as long as it is lent.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}
