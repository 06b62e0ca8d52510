//! Threads that may wait for the disk: what they ask of the store is done on the spot, where the event loop would hand each
//! question to another thread and be woken for each answer.
//!
//! Never: is said of a thread of the event loop.

use std::cell::Cell;

thread_local! {
    static HERE: Cell<bool> = const { Cell::new(false) };
}

/// Drives `work` on this thread, which is none of the event loop's, to its end.
pub fn drive<T>(work: impl Future<Output = T>) -> T {
    /// Also where `work` panics: the thread does something else later.
    struct Until(bool);
    impl Drop for Until {
        fn drop(&mut self) {
            HERE.set(self.0);
        }
    }
    let _until = Until(HERE.replace(true));
    tokio::runtime::Handle::current().block_on(work)
}

/// True within [`drive`].
pub fn is_here() -> bool {
    HERE.get()
}
