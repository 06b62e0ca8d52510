//! The agent of a running guest, as the host reaches it: plain gRPC on ports 4088 and 4089, where `host_may` decides.

use std::path::{Path, PathBuf};

use coffer_guest_proto::control_client::ControlClient;
use coffer_guest_proto::exec_client::ExecClient;
use coffer_guest_proto::{REASON, SignalRequest, StopRequest, ports, refusal_word};
use coffer_rim::{Class, Failure, Reason, chain};
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::monitor::lent;

/// The longest frame taken: a piece of a program's output is one.
const FRAME: u32 = 64 << 10;

/// A gRPC channel to a port of the guest.
///
/// # Errors
/// Class `unreachable` if nothing answers there.
pub async fn channel(folder: &Path, port: u32) -> Result<Channel, Failure> {
    let folder: PathBuf = folder.to_path_buf();
    let connector = tower::service_fn(move |_: Uri| {
        let folder = folder.clone();
        async move { lent::connect(&folder, port).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://guest.invalid").max_frame_size(FRAME);
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
    control.stop(StopRequest { grace_seconds }).await.map(drop).map_err(|status| of_plain_status(&status))
}

/// Sends the workload a signal.
///
/// # Errors
/// Class `unreachable`, `config` if no workload runs, or `refused` if the spec does not let the host send it.
pub async fn signal(folder: &Path, number: i32) -> Result<(), Failure> {
    let mut control = control(folder).await?;
    control.signal(SignalRequest { number }).await.map(drop).map_err(|status| of_plain_status(&status))
}

/// What a refusal means that came over a plain port, where whoever is inside could say anything: words of the agent's list
/// are repeated, sentences are not.
pub fn of_plain_status(status: &tonic::Status) -> Failure {
    if let Some(broke) = broke_off(status) {
        return broke;
    }
    let words = match refusal_word(status.message()) {
        Some(word) => format!("the guest's agent refused: {word}"),
        None => format!("the guest's agent answered {:?}", status.code()),
    };
    silent(status, Failure::new(class_of(status), words))
}

/// Where no guest said it, and the line to one broke: what a library says of that helps nobody.
fn broke_off(status: &tonic::Status) -> Option<Failure> {
    std::error::Error::source(status)?;
    let failure = Failure::new(Class::Unreachable, "the line to the box's guest broke off");
    Some(failure.hint(
        "the box has ended, or its guest: on its host `coffer ps -a` says how, `coffer logs --console` what its guest said last",
    ))
}

/// Adds what to do where nothing was answered.
fn silent(status: &tonic::Status, failure: Failure) -> Failure {
    match status.code() {
        tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => failure.hint(
            "the box ends, or its guest is too busy: on its host `coffer ps -a` says whether it runs, `coffer logs --console` what its guest said",
        ),
        _ => failure,
    }
}

/// What a refusal of an agent that has proved itself means.
pub fn of_status(status: &tonic::Status) -> Failure {
    if let Some(broke) = broke_off(status) {
        return broke;
    }
    let word = printable(status.message());
    let words = if word.is_empty() { format!("the guest's agent answered {:?}", status.code()) } else { word };
    let failure = Failure::new(class_of(status), words);
    // Where it stands behind what is shown, too.
    let Some((code, id)) = denial(status.message()) else {
        let given = reason(status);
        let hint = of_owners(status.message()).or_else(|| of_sealing(&given.as_ref()?.code));
        let failure = Failure { reason: given.or_else(|| lone_word(status.message())), ..failure };
        return match hint.or_else(|| of_broker(status.message())) {
            Some(hint) => failure.hint(hint),
            None => silent(status, failure),
        };
    };
    let reason = Reason { code: code.to_owned(), denial_id: Some(id.to_owned()) };
    let hint = if failure.class == Class::Unreachable { broker_log().to_owned() } else { broker_trail(id) };
    Failure { reason: Some(reason), ..failure }.hint(hint)
}

/// What to do where a guest does not know the caller as an owner, or not as one who may do that.
fn of_owners(message: &str) -> Option<&'static str> {
    if message.starts_with("owner-not-listed:") {
        return Some(
            "whoever looks after the list of owners signs one that is current, with `coffer owner sign`, and puts it where the key broker keeps it",
        );
    }
    if message == "workload-not-running" {
        return Some("its program has not begun, or has ended: `coffer ps -a` on the box's host says which");
    }
    if message.starts_with("owner-may-not:") {
        return Some(
            "the key that asked, which `coffer owner show` prints, is listed without that right: whoever makes the box or signs its list of owners gives it (a list that was brought is forgotten when the box starts anew)",
        );
    }
    (message == "owner-not-listed").then_some(
        "`coffer owner show` prints the key that asked: have it listed, with what it may, by whoever makes the box or signs its list of owners",
    )
}

/// What to do where the guest is well, and what it asked the key broker for did not come.
fn of_broker(message: &str) -> Option<&'static str> {
    let says = |words: &str| message.contains(words);
    if says("key broker is unreachable") || says("key broker did not answer") {
        return Some(
            "the box is well: start the key broker, or see why the box's host does not reach it; a box asks at the address of its --kbs alone",
        );
    }
    if says("key broker is asked too often") {
        return Some(
            "ask again in a few seconds: this box, by its workload or its owners, asks the key broker too often",
        );
    }
    says("key broker shows key").then_some(OTHER_PIN)
}

/// What to do where the broker's key is none of the spec's.
pub const OTHER_PIN: &str =
    "compare --kbs-pin with the broker's own pin; if they differ, something else answers at that address";

/// What to do where a guest seals nothing, by the word for it.
fn of_sealing(word: &str) -> Option<&'static str> {
    Some(match word {
        "no-broker" => {
            "create the box with --kbs ADDRESS and --kbs-pin HEX, or seal with --to measurement-and-chip, which needs no broker"
        }
        "context" => "name one with --context, such as app/backup, that `coffer kbs sealing put` gave terms",
        "policy" => "leave --counted out, or name a policy that has a key of the broker's: --to workload",
        "not-replaceable" => "--replaces takes a file that was sealed with --counted, or that took the place of one",
        _ => return None,
    })
}

/// The word that an agent gives programs beside its sentence.
fn reason(status: &tonic::Status) -> Option<Reason> {
    let word =
        status.metadata().get(REASON)?.to_str().ok().filter(|word| is_word(word) && word.len() <= LONGEST_WORD)?;
    Some(Reason { code: word.to_owned(), denial_id: None })
}

/// The word of a refusal that is a word and no more, or begins with one about owners.
fn lone_word(message: &str) -> Option<Reason> {
    let code = match message.split_once(':') {
        Some(("owner-not-listed", _)) => "owner-not-listed",
        Some(("owner-may-not", act)) if is_word(act) => message,
        None if is_word(message) => message,
        _ => return None,
    };
    (code.len() <= LONGEST_WORD).then(|| Reason { code: code.to_owned(), denial_id: None })
}

/// More than any has.
const LONGEST_WORD: usize = 40;

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

/// A key broker's word and number, where the guest passes them on: `not-released (id 86fb0b8a2fdb7edb)`.
fn denial(message: &str) -> Option<(&str, &str)> {
    let (before, rest) = message.split_once(" (id ")?;
    let (id, _) = rest.split_once(')')?;
    let code = before.rsplit(' ').next()?;
    let is_id = id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_id && is_word(code)).then_some((code, id))
}

/// Where the reasons of a refusal are.
pub fn broker_trail(id: &str) -> String {
    format!("`coffer kbs audit --id {id}` has the reasons, for whoever may read the broker's trail")
}

/// Where the reason of a failure is, which is no decision.
pub const fn broker_log() -> &'static str {
    "it is there: its log has the reason under this id, and nothing is released until that is mended"
}

fn class_of(status: &tonic::Status) -> Class {
    use tonic::Code;
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => Class::Refused,
        Code::NotFound => Class::NotFound,
        Code::InvalidArgument => Class::Usage,
        Code::DataLoss => Class::NotAuthentic,
        Code::FailedPrecondition => Class::Config,
        Code::ResourceExhausted | Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Class::Unreachable,
        _ => Class::Internal,
    }
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
    fn a_brokers_number_that_the_guest_passes_on_is_said_with_where_its_reasons_are() {
        let said = "key broker 10.0.2.2:4480: key broker refused: not-released (id 86fb0b8a2fdb7edb)";
        let refused = of_status(&tonic::Status::permission_denied(said));
        assert_eq!(refused.class, Class::Refused);
        let reason = refused.reason.unwrap();
        assert_eq!((reason.code.as_str(), reason.denial_id.as_deref()), ("not-released", Some("86fb0b8a2fdb7edb")));
        assert!(refused.hint.unwrap().contains("coffer kbs audit --id 86fb0b8a2fdb7edb"));
        let failed = of_status(&tonic::Status::unavailable("could not decide: broker-failed (id 86fb0b8a2fdb7edb)"));
        assert!(failed.class == Class::Unreachable && failed.hint.unwrap().contains("its log"));
        for other in ["no number", "not-released (id none)", "x (id 86fb0b8a2fdb7edZ)", "(id 86fb0b8a2fdb7edb)"] {
            let failure = of_status(&tonic::Status::permission_denied(other));
            assert!(failure.reason.is_none() && failure.hint.is_none(), "{other}");
        }
    }

    #[test]
    fn whoever_seals_without_what_it_takes_hears_what_to_type() {
        let refused = |word: &'static str| {
            let mut status = tonic::Status::failed_precondition("sealing policy workload needs a key of a key broker");
            status.metadata_mut().insert(REASON, tonic::metadata::MetadataValue::from_static(word));
            of_status(&status)
        };
        let failure = refused("no-broker");
        assert_eq!((failure.class, failure.reason.unwrap().code.as_str()), (Class::Config, "no-broker"));
        let hint = failure.hint.unwrap();
        assert!(hint.contains("--kbs ADDRESS") && hint.contains("--to measurement-and-chip"), "{hint}");
        for (word, flag) in [("context", "--context"), ("policy", "--counted"), ("not-replaceable", "--replaces")] {
            assert!(refused(word).hint.unwrap().contains(flag), "{word}");
        }
        assert!(refused("does-not-open").hint.is_none());
    }

    #[test]
    fn what_comes_over_a_plain_port_is_a_word_of_the_list_or_not_shown() {
        let refused = of_plain_status(&tonic::Status::permission_denied("host-may-not:stop"));
        assert_eq!(
            (refused.class, refused.message.as_str()),
            (Class::Refused, "the guest's agent refused: host-may-not:stop")
        );
        let leak = of_plain_status(&tonic::Status::permission_denied("host-may-not:stop, and the password is hunter2"));
        assert_eq!(
            (leak.class, leak.message.as_str()),
            (Class::Refused, "the guest's agent answered PermissionDenied")
        );
    }

    #[test]
    fn a_line_that_breaks_is_told_in_no_librarys_words() {
        let broke = tonic::Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::BrokenPipe)));
        for failure in [of_status(&broke), of_plain_status(&broke)] {
            assert_eq!(
                (failure.class, failure.message.as_str()),
                (Class::Unreachable, "the line to the box's guest broke off")
            );
            assert!(failure.hint.unwrap().contains("coffer ps -a"));
        }
        let said = of_status(&tonic::Status::unknown("what a guest says"));
        assert_eq!((said.class, said.message.as_str()), (Class::Internal, "what a guest says"));
    }

    #[test]
    fn a_key_broker_that_does_not_answer_is_not_taken_for_a_box_that_ends() {
        for said in [
            "sealing policy workload: key broker is unreachable: no key broker answers the guest's host at 127.0.0.1:4480",
            // As platforms before this one say it.
            "key broker is unreachable: TLS handshake failed: Broken pipe (os error 32)",
            "the key broker did not answer within 30 s",
        ] {
            let failure = of_status(&tonic::Status::unavailable(said));
            let hint = failure.hint.unwrap();
            assert!(failure.class == Class::Unreachable && hint.contains("start the key broker"), "{said}: {hint}");
            assert!(!hint.contains("the box ends"), "{said}: {hint}");
        }
        let other =
            of_status(&tonic::Status::failed_precondition("key broker shows key ab, which is none of the 1 pinned"));
        assert!(other.hint.unwrap().contains("--kbs-pin"));
    }

    #[test]
    fn whoever_is_no_owner_hears_what_would_make_him_one() {
        for word in ["owner-not-listed", "owner-may-not:exec"] {
            let refused = of_status(&tonic::Status::permission_denied(word));
            assert_eq!((refused.class, refused.message.as_str()), (Class::Refused, word));
            assert!(refused.hint.unwrap().contains("coffer owner show"));
            assert_eq!(refused.reason.unwrap().code, word);
        }
        let nobody = "owner-not-listed: nobody is an owner until a list is taken (owner-list-expired)";
        let refused = of_status(&tonic::Status::permission_denied(nobody));
        assert_eq!((refused.class, refused.message.as_str()), (Class::Refused, nobody));
        assert!(refused.hint.unwrap().contains("coffer owner sign"));
        assert_eq!(refused.reason.unwrap().code, "owner-not-listed");
        for text in ["owner-may-not:", "owner-may-not:\u{1b}", "another: text", "some text"] {
            assert_eq!(of_status(&tonic::Status::permission_denied(text)).reason, None, "{text}");
        }
        assert!(of_status(&tonic::Status::permission_denied("owner")).hint.is_none());
    }

    #[test]
    fn a_refusal_of_the_agent_is_a_refusal() {
        assert_eq!(of_status(&tonic::Status::permission_denied("no")).class, Class::Refused);
        let gone = tonic::Status::unavailable("gone");
        for failure in [of_status(&gone), of_plain_status(&gone)] {
            assert!(failure.class == Class::Unreachable && failure.hint.unwrap().contains("coffer ps -a"));
        }
    }
}
