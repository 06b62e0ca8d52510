//! The agent of a running guest, as the host reaches it: plain gRPC on ports 4088 and 4089, where `host_may` decides.

use std::path::{Path, PathBuf};

use coffer_guest_proto::control_client::ControlClient;
use coffer_guest_proto::exec_client::ExecClient;
use coffer_guest_proto::{StopRequest, ports};
use coffer_rim::{Class, Failure, chain};
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::hybrid;

/// A gRPC channel to a port of the guest.
///
/// # Errors
/// Class `unreachable` if nothing answers there.
pub async fn channel(folder: &Path, port: u32) -> Result<Channel, Failure> {
    let folder: PathBuf = folder.to_path_buf();
    let connector = tower::service_fn(move |_: Uri| {
        let folder = folder.clone();
        async move { hybrid::connect(&folder, port).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://guest.invalid");
    endpoint.connect_with_connector(connector).await.map_err(|error| {
        Failure::new(Class::Unreachable, format!("the guest's agent does not answer: {}", chain(&error)))
    })
}

/// Client of the control service.
///
/// # Errors
/// Class `unreachable`.
pub async fn control(folder: &Path) -> Result<ControlClient<Channel>, Failure> {
    Ok(ControlClient::new(channel(folder, ports::CONTROL).await?))
}

/// Client of the exec service.
///
/// # Errors
/// Class `unreachable`.
pub async fn exec(folder: &Path) -> Result<ExecClient<Channel>, Failure> {
    Ok(ExecClient::new(channel(folder, ports::EXEC).await?))
}

/// Asks the guest to end in good order.
///
/// # Errors
/// Class `unreachable`, or `refused` if the spec does not let the host ask.
pub async fn stop(folder: &Path, grace_seconds: u32) -> Result<(), Failure> {
    let mut control = control(folder).await?;
    control.stop(StopRequest { grace_seconds }).await.map(drop).map_err(|status| of_status(&status))
}

/// What a refusal of the agent means here.
pub fn of_status(status: &tonic::Status) -> Failure {
    use tonic::Code;
    let class = match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => Class::Refused,
        Code::NotFound => Class::NotFound,
        Code::InvalidArgument => Class::Usage,
        Code::FailedPrecondition => Class::Config,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Class::Unreachable,
        _ => Class::Internal,
    };
    let word = printable(status.message());
    Failure::new(class, if word.is_empty() { format!("the guest's agent answered {:?}", status.code()) } else { word })
}

/// Text of a guest made fit for a terminal: printable characters only, and not too many.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect::<String>().trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_text_cannot_drive_the_terminal() {
        assert_eq!(printable("\u{1b}[2Jhello\nthere\u{7}"), "[2Jhello there");
        assert_eq!(printable(&"x".repeat(10_000)).len(), 400);
    }

    #[test]
    fn a_refusal_of_the_agent_is_a_refusal() {
        assert_eq!(of_status(&tonic::Status::permission_denied("no")).class, Class::Refused);
        assert_eq!(of_status(&tonic::Status::unavailable("gone")).class, Class::Unreachable);
    }
}
