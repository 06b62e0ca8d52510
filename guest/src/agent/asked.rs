//! What the agent makes of a message of exec, for whoever tries all of them: fuzzing, and its replay.

use coffer_guest_proto::{ExecRequest, exec_request::Message as Ask};
use coffer_spec::WorkloadSpec;

use super::request::{attach, exec_signal, exec_start, terminal_size};

/// What its caller would hear; nothing where it is taken, or has no field that is judged.
pub fn refusal_of(request: ExecRequest, spec: &WorkloadSpec) -> Option<String> {
    let judged = match request.message? {
        Ask::Start(order) => exec_start(order, spec).map(drop),
        Ask::Attach(order) => attach(order).map(drop),
        Ask::Signal(number) => exec_signal(number).map(drop),
        Ask::Resize(size) => terminal_size("resize", size).map(drop),
        Ask::Stdin(_) | Ask::StdinClosed(_) | Ask::Detach(_) => Ok(()),
    };
    judged.err().map(|status| status.message().to_owned())
}
