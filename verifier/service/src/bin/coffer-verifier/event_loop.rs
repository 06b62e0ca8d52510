//! Where what is asynchronous runs.

use coffer_rim::{Class, Classify as _, Failure};

/// What everything asynchronous runs on.
pub fn event_loop() -> Result<tokio::runtime::Runtime, Failure> {
    // Policies are asked on these threads: no other has to be begun for each.
    let built = tokio::runtime::Builder::new_multi_thread()
        .thread_stack_size(coffer_policies::STACK)
        .on_thread_start(coffer_policies::thread_has_stack)
        .enable_all()
        .build();
    built.class_while(Class::Internal, "starting the event loop")
}
