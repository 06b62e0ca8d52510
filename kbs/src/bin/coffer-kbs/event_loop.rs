//! Where what is asynchronous runs.

use coffer_rim::{Class, Classify as _, Failure};

/// What everything asynchronous runs on.
pub fn event_loop() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.class_while(Class::Internal, "starting the event loop")
}
