//! Work that blocks for a moment, away from the event loop.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::{block_in_place, spawn_blocking},
};

/// The work broke: a defect of ours, which the process has told already.
#[derive(Debug, thiserror::Error)]
#[error("the work broke")]
pub(crate) struct Broke;

/// Does what blocks for others than this task. Where the loop has several threads it is done on this one, whose other tasks go to
/// another: this task waits for no thread to begin, and for none to come back.
///
/// To be called in a task of its own, and of no `LocalSet`.
pub(crate) async fn off_loop<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> Result<R, Broke> {
    let runtime = Handle::current();
    if runtime.runtime_flavor() == RuntimeFlavor::MultiThread && runtime.metrics().num_workers() > 1 {
        // What breaks breaks for itself alone, as on another thread.
        block_in_place(|| catch_unwind(AssertUnwindSafe(work))).map_err(|_| Broke)
    } else {
        spawn_blocking(work).await.map_err(|_| Broke)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn breaks_for_itself_alone() {
        assert_eq!(off_loop(|| 1).await.unwrap(), 1);
        assert!(off_loop(|| panic!("as it is meant to")).await.is_err());
        assert_eq!(off_loop(|| 2).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn what_breaks_on_a_loop_of_one_thread_breaks_for_itself_alone() {
        tokio::spawn(breaks_for_itself_alone()).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn and_on_one_of_several() {
        tokio::spawn(breaks_for_itself_alone()).await.unwrap();
    }

    async fn is_here() -> bool {
        let here = std::thread::current().id();
        let there =
            tokio::spawn(async { (std::thread::current().id(), off_loop(|| std::thread::current().id()).await) });
        let (task, work) = there.await.unwrap();
        assert_ne!(task, here);
        work.unwrap() == task
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_several_threads_the_tasks_own_does_it() {
        assert!(is_here().await);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn the_only_one_goes_on_with_other_tasks() {
        assert!(!is_here().await);
    }
}
