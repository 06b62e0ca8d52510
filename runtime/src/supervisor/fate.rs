//! How a box ended, from what the guest said and what became of its VMM. Pure.

use coffer_guest_proto::{Event, FailureCode, Speech, ToldFailure};
use coffer_machine::Refusal;
use coffer_rim::{Class, Failure, Reason};
use coffer_spec::{IngressClients, Tee, WorkloadSpec};

use super::message::{Ended, Message};
use crate::agent::{self, printable};
use crate::monitor::{BLOCK_CORRUPT, End, How};

/// What is known of the end so far.
#[derive(Clone, Debug, Default)]
pub struct Fate {
    /// The workload ran.
    pub ran: bool,
    /// Exit status of the workload, from the guest.
    pub exited: Option<i32>,
    /// The start failed.
    pub failed: Option<Failure>,
    /// It failed because nothing more came from the guest.
    pub too_late: bool,
    /// Somebody asked for the end.
    pub stop_asked: bool,
    /// Nobody wants it started again by itself.
    pub unwanted: bool,
    /// We killed the guest.
    pub killed_by_us: bool,
    /// Because it could not be asked to end, for this reason.
    pub unreached: Option<String>,
    /// Its kernel ended it over a block that is not the one that was measured.
    pub corrupt: bool,
}

/// What is left of a run for people to look at.
#[derive(Clone, Copy, Debug)]
pub enum Traces<'a> {
    /// The box's logs.
    Logs,
    /// Nothing (`--rm`), so that the last line of the console has to be said now.
    Nothing(Option<&'a str>),
}

impl Fate {
    /// The verdict, once the guest is gone.
    pub fn conclude(&self, end: &End, monitor: &str, traces: Traces<'_>) -> Message {
        if let Some(failure) = &self.failed {
            let failure = failure.clone();
            return Message::Failed(if self.too_late { silent(failure, traces) } else { failure });
        }
        let ours = self.killed_by_us || self.stop_asked;
        if !self.ran && (ours || self.exited.is_some()) {
            return Message::Failed(not_wanted());
        }
        if let Some(code) = self.exited {
            return Message::Exited(Ended { code, error: None });
        }
        if ours {
            let error = self.unreached.as_ref();
            let error =
                error.map(|why| format!("it could not be asked to end, and was killed without its grace: {why}"));
            return Message::Exited(Ended { code: 137, error });
        }
        if let How::Refused(refusal) = end.how
            && !self.ran
        {
            return Message::Failed(of_refusal(refusal));
        }
        let what = if self.corrupt { block_corrupt() } else { end.how.words(monitor) };
        let words = end.last_words.as_deref().map(printable).filter(|words| !words.is_empty());
        let said = words.map_or_else(String::new, |words| format!(": {words}"));
        if self.ran {
            return Message::Exited(Ended { code: 137, error: Some(format!("{what}{said}")) });
        }
        let failure = Failure::new(Class::Platform, format!("{what} before the workload ran{said}"));
        Message::Failed(match traces {
            Traces::Logs => failure
                .hint("supervisor.log and console.log in the box folder say more; `coffer doctor` checks this machine"),
            Traces::Nothing(console) => with_console(failure, console)
                .hint("`coffer doctor` checks this machine; without --rm a box keeps its logs"),
        })
    }
}

fn block_corrupt() -> String {
    format!(
        "a block of its root or of a volume is not the one that was measured ({BLOCK_CORRUPT}), and the guest ended itself"
    )
}

/// Of a start that somebody ended. No workload ran, so there is no status of one.
pub fn not_wanted() -> Failure {
    Failure::new(Class::Config, "the box was stopped before its workload ran")
}

/// A guest that said nothing more.
fn silent(failure: Failure, traces: Traces<'_>) -> Failure {
    match traces {
        Traces::Logs => failure.hint("`coffer logs --console` shows what the guest said"),
        Traces::Nothing(console) => with_console(failure, console).hint("without --rm a box keeps what its guest said"),
    }
}

fn with_console(failure: Failure, console: Option<&str>) -> Failure {
    match console.map(printable).filter(|line| !line.is_empty()) {
        Some(line) => Failure { message: format!("{}; its console ended with {line:?}", failure.message), ..failure },
        None => failure,
    }
}

/// What a refusal of the boot firmware means to the user.
fn of_refusal(refusal: Refusal) -> Failure {
    let word = refusal.word();
    let tampered = |what: &str| {
        Failure::new(
            Class::Refused,
            format!("stage0 refused to boot ({word}): {what} is not the one that was measured"),
        )
        .hint(
            "something changed it between measuring and booting; rebuild the platform, and look at who can write there",
        )
    };
    match refusal {
        Refusal::HashPage => tampered("the page of kernel hashes"),
        Refusal::KernelHash => tampered("the kernel"),
        Refusal::InitrdHash => tampered("the initrd"),
        Refusal::CommandLineHash => tampered("the kernel command line"),
        Refusal::NoRoom => {
            Failure::new(Class::Config, format!("stage0 refused to boot ({word}): kernel and initrd do not fit"))
                .hint("give the box more memory with --memory")
        }
        _ => Failure::new(Class::Platform, format!("stage0 refused to boot ({word})"))
            .hint("start it on a platform that is built anew, or read what the word means in docs/measured-boot.md"),
    }
}

/// What a guest of this spec asks its key broker for before its workload starts. Which of them was refused, the broker's trail says.
fn asked(spec: &WorkloadSpec) -> String {
    let certificate = spec.ingress.iter().any(|one| matches!(one.clients, IngressClients::Certificate(_)));
    let list = spec.owner_authority.as_ref().is_some_and(|authority| authority.kept.is_some());
    let volume = spec.sealed_volumes.iter().any(|volume| volume.policy.needs_broker());
    let asked = [
        (!spec.secrets.is_empty(), "secret"),
        (certificate, "certificate"),
        (list, "list of owners"),
        (volume, "key of a sealed volume"),
    ];
    let all: Vec<&str> = asked.into_iter().filter_map(|(is, what)| is.then_some(what)).collect();
    if all.is_empty() { "secret".to_owned() } else { all.join(", or no ") }
}

/// What a guest's own failure means to the user. From a TEE guest nothing is believed, or shown, but words of the fixed list.
pub fn of_event(event: &Event, spec: &WorkloadSpec, relay_trouble: Option<&str>) -> Failure {
    let speech = if spec.tee == Tee::None { Speech::Sentences } else { Speech::FixedWords };
    let Some(ToldFailure { code, errno, denial_id, detail }) = event.told(speech).failure else {
        return Failure::new(Class::Internal, "the guest gave up without a reason");
    };
    let detail = match (printable(&detail), errno) {
        (words, 0) => words,
        (words, number) if words.is_empty() => std::io::Error::from_raw_os_error(i32::from(number)).to_string(),
        (words, _) => words,
    };
    let broker = spec.kbs.as_ref().map_or("(none)", |kbs| kbs.address.as_str());
    let with_detail = |text: String| if detail.is_empty() { text } else { format!("{text}: {detail}") };
    let word = code.map_or("unknown", FailureCode::word);
    let denial_id = (denial_id != 0).then(|| format!("{denial_id:016x}"));
    let reason = Reason { code: word.to_owned(), denial_id: denial_id.clone() };
    let failure = match code {
        Some(FailureCode::KbsUnreachable) if denial_id.is_some() => {
            let id = denial_id.unwrap_or_default();
            Failure::new(Class::Unreachable, format!("key broker {broker} could not decide (broker-failed, id {id})"))
                .hint(agent::broker_log())
        }
        Some(FailureCode::KbsUnreachable) => {
            let why = relay_trouble.unwrap_or(if detail.is_empty() {
                "it did not answer as a key broker answers guests"
            } else {
                &detail
            });
            Failure::new(Class::Unreachable, format!("key broker {broker} is unreachable: {why}"))
                .hint("start the key broker, or correct --kbs HOST:PORT: guests reach its `listen` (4480), `admin_listen` (4481) takes operators alone")
        }
        Some(FailureCode::KbsPinMismatch) => Failure::new(
            Class::Refused,
            with_detail(format!("key broker {broker} does not show the key that --kbs-pin names ({word})")),
        )
        .hint(agent::OTHER_PIN),
        Some(FailureCode::NotReleased) => {
            let id = denial_id.as_ref().map(|id| format!(", id {id}")).unwrap_or_default();
            Failure::new(
                Class::Refused,
                with_detail(format!("key broker {broker} released no {} to this guest ({word}{id})", asked(spec))),
            )
            .hint(denial_id.map_or_else(
                || {
                    "`coffer kbs audit tail` has the reasons: check reference values, and the terms of what was asked for"
                        .to_owned()
                },
                |id| agent::broker_trail(&id),
            ))
        }
        Some(FailureCode::SecretUnusable) => {
            Failure::new(Class::Config, with_detail("a released secret cannot go where the spec wants it".into()))
                .hint("an environment holds text of 1 to about 128 KiB without NUL; fetch anything else to a file")
        }
        Some(FailureCode::UserNotFound) => {
            let (user, image) = (&spec.process.user, &spec.image.reference);
            Failure::new(
                Class::Config,
                with_detail(format!("unable to find user {user:?}: the image {image} has no such user or group")),
            )
            .hint("name one of the image's /etc/passwd and /etc/group with --user, or give numbers")
        }
        Some(FailureCode::GroupNotFound) => {
            let (groups, image) = (spec.process.rights.groups.join(", "), &spec.image.reference);
            let text = format!("the image {image} has not all further groups that the box's user is to have ({groups})");
            Failure::new(Class::Config, with_detail(text))
                .hint("name groups of the image's /etc/group with --group-add, or give numbers")
        }
        Some(FailureCode::LimitRefused) => {
            let limits: Vec<_> = spec.process.rights.limits.iter().map(ToString::to_string).collect();
            let text = format!("the guest cannot hold its programs to the limits asked for ({word}: {})", limits.join(", "));
            Failure::new(Class::Config, with_detail(text)).hint(
                "lower what --ulimit asks for: the guest's kernel, or a box without a machine its host, has ceilings of its own; nproc binds no root, --pids-limit does",
            )
        }
        Some(FailureCode::SettingRefused) => {
            let all: Vec<_> = spec.sysctls.iter().map(ToString::to_string).collect();
            let text = format!("the guest's kernel does not take a setting that was asked for ({word}: {})", all.join(", "));
            Failure::new(Class::Config, with_detail(text)).hint(
                "--sysctl names what the guest's kernel has, with a value it takes; a box without a machine takes none of net.*",
            )
        }
        Some(FailureCode::CardNotHeld) => {
            let text = "the guest does not hold its network card to the rules of its spec";
            Failure::new(Class::Config, with_detail(format!("{text} ({word})")))
                .hint("a spec that an earlier version wrote has none: write it anew with `coffer spec`; a kernel of your own needs eBPF (docs/kernel.md)")
        }
        Some(FailureCode::NoPlace) => {
            let text = "the image has no place for a mount or the working directory that the spec asks for";
            Failure::new(Class::Config, with_detail(format!("{text} ({word})")))
                .hint("a folder goes onto a folder, a file onto a file, and neither onto a folder of the guest's own")
        }
        Some(FailureCode::WorkloadNotFound) => Failure {
            docker_code: Some(127),
            ..Failure::new(Class::Config, not_run(spec, "executable file not found in the image"))
        },
        Some(FailureCode::InterpreterNotFound) => Failure {
            docker_code: Some(127),
            ..Failure::new(
                Class::Config,
                with_detail(not_run(
                    spec,
                    "it is in the image, and what shall run it is not (its #! line, or its linker)",
                )),
            )
            .hint("install the interpreter that the first line names; a script with Windows line ends names none")
        },
        Some(FailureCode::WorkloadNotExecutable) => Failure {
            docker_code: Some(126),
            ..Failure::new(Class::Config, with_detail(not_run(spec, "permission denied, or not an executable")))
        },
        Some(FailureCode::SpecMismatch | FailureCode::SpecInvalid | FailureCode::TeeMismatch) => {
            Failure::new(Class::Refused, with_detail(format!("the guest refused its workload spec ({word})")))
        }
        Some(FailureCode::RootCorrupt) => {
            Failure::new(Class::Config, with_detail(format!("the root file system is damaged ({word})")))
                .hint("remove the image with `coffer rmi` and pull it again")
        }
        Some(FailureCode::VolumeCorrupt) => {
            Failure::new(Class::Config, with_detail(format!("a volume is damaged ({word})")))
                .hint("remove the box and create it again: that takes new snapshots")
        }
        Some(FailureCode::SealedVolumeClosed) => {
            let text = "a sealed volume does not open here: it is of another chip, workload, tenant or name, or was changed";
            Failure::new(Class::NotAuthentic, with_detail(format!("{text} ({word})")))
                .hint("give this box the disk it made; `coffer volume inspect` says where it is")
        }
        Some(FailureCode::SealedVolumeOlder) => {
            let text = "a sealed volume is not the one that the key broker has a record of: an older copy, or another in its place";
            Failure::new(Class::NotAuthentic, with_detail(format!("{text} ({word})")))
                .hint("put the newest copy back; `coffer kbs volume forget NAME` lets an owner begin anew with an empty one")
        }
        Some(FailureCode::SealedVolumeUnclean) => {
            let text = "a sealed volume was not closed when it was last used, and each of its blocks may be an older one";
            Failure::new(Class::Refused, with_detail(format!("{text} ({word})")))
                .hint("`coffer kbs volume confirm NAME` lets an owner accept that for this once")
        }
        Some(FailureCode::SealedVolumeCorrupt) => {
            let text = "what lies on a sealed volume's disk is not what was written there";
            Failure::new(Class::NotAuthentic, with_detail(format!("{text} ({word})")))
                .hint(
                    "put back what was changed behind its first 8 KiB, which stay as they are now: they go with the broker's record, and an \
                     older copy of the whole disk does not",
                )
        }
        Some(FailureCode::SealedVolumeLeftOpen) => {
            let text = "the workload has ended, and a sealed volume could not be closed behind it";
            Failure::new(Class::Platform, with_detail(format!("{text} ({word})")))
                .hint("the next start says sealed-volume-unclean; is the key broker up, and does it admit the box?")
        }
        Some(FailureCode::VolumeUnusable) => {
            Failure::new(Class::Config, with_detail(format!("a volume cannot be used ({word})")))
                .hint("`coffer volume inspect` says where its disk is: e2fsck from e2fsprogs looks at it, while no box runs that has it")
        }
        Some(FailureCode::SvnBelowFloor) => {
            Failure::new(Class::Refused, with_detail("this guest is older than its spec allows".into()))
                .hint("use a platform with a higher security version, signed by the key that the spec names")
        }
        _ => Failure::new(Class::Internal, with_detail(format!("the guest gave up ({word})"))),
    };
    Failure { reason: Some(reason), ..failure }
}

fn not_run(spec: &WorkloadSpec, why: &str) -> String {
    let program = spec.process.argv.first().map_or("", String::as_str);
    format!("cannot run {program:?}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_spec::{Ingress, KbsPin, Resource, ResourceLimit, SecretTarget, SecretWanted};
    use coffer_verifier::abi::SpkiDigest;

    fn spec() -> WorkloadSpec {
        let request = crate::request::tests::request();
        let document =
            crate::request::document(&crate::request::tests::image(), crate::request::tests::verity(), &request);
        let mut spec = document.unwrap().spec().clone();
        spec.kbs = Some(KbsPin { address: "kbs.example:8443".into(), spki: vec![SpkiDigest::new([1; 32])] });
        spec
    }

    fn event(code: &str, detail: &str) -> Event {
        Event { phase: 9, code: code.into(), detail: detail.into(), ..Event::default() }
    }

    fn end(how: How) -> End {
        End { how, last_words: None }
    }

    fn conclude(fate: &Fate, how: How) -> Message {
        fate.conclude(&end(how), "QEMU", Traces::Logs)
    }

    #[test]
    fn the_workloads_own_status_wins_over_how_the_guest_ended() {
        let fate = Fate { ran: true, exited: Some(3), ..Fate::default() };
        for how in [How::PoweredOff, How::Signal(9)] {
            assert_eq!(conclude(&fate, how), Message::Exited(Ended { code: 3, error: None }));
        }
    }

    #[test]
    fn a_killed_guest_is_137_and_says_so_unless_we_did_it() {
        let ran = Fate { ran: true, ..Fate::default() };
        let Message::Exited(ended) = conclude(&ran, How::Signal(9)) else { panic!("not exited") };
        assert_eq!((ended.code, ended.error.as_deref()), (137, Some("QEMU was killed (signal 9)")));
        let stopped = Fate { killed_by_us: true, ..ran };
        assert_eq!(conclude(&stopped, How::Signal(9)), Message::Exited(Ended { code: 137, error: None }));
        let unasked = Fate { unreached: Some("no answer".into()), ..stopped };
        let Message::Exited(ended) = conclude(&unasked, How::Signal(9)) else { panic!("not exited") };
        assert!(ended.code == 137 && ended.error.unwrap().ends_with("killed without its grace: no answer"));
    }

    #[test]
    fn a_guest_that_met_a_changed_block_says_so_by_a_fixed_word() {
        let met = Fate { corrupt: true, ..Fate::default() };
        let Message::Failed(failure) = conclude(&met, How::PoweredOff) else { panic!("it never ran") };
        let Message::Exited(ended) = conclude(&Fate { ran: true, ..met }, How::PoweredOff) else { panic!("it ran") };
        assert!(failure.message.contains("(block-corrupt)") && ended.error.unwrap().contains("(block-corrupt)"));
        assert_eq!(ended.code, 137);
    }

    #[test]
    fn a_start_that_somebody_ends_is_a_failure_whoever_ended_it() {
        let stopped = Fate { stop_asked: true, ..Fate::default() };
        let by_its_owner = Fate { exited: Some(143), ..Fate::default() };
        let killed = Fate { killed_by_us: true, ..Fate::default() };
        for fate in [stopped, by_its_owner, killed] {
            for how in [How::PoweredOff, How::Signal(9)] {
                let Message::Failed(failure) = conclude(&fate, how) else { panic!("done: {fate:?}") };
                assert_eq!(failure, not_wanted());
            }
        }
    }

    #[test]
    fn a_monitor_that_ends_before_the_workload_is_a_failed_start_with_its_last_words() {
        let said = End { how: How::Status(1), last_words: Some("no room\u{1b}[2J".into()) };
        let Message::Failed(failure) = Fate::default().conclude(&said, "QEMU", Traces::Logs) else { panic!() };
        assert_eq!(failure.class, Class::Platform);
        assert_eq!(failure.message, "QEMU ended with status 1 before the workload ran: no room [2J");
        assert!(failure.hint.unwrap().contains("supervisor.log"));
    }

    #[test]
    fn no_hint_names_logs_that_went_with_the_box_and_the_message_holds_their_end() {
        let late =
            Fate { failed: Some(Failure::new(Class::Unreachable, "too late")), too_late: true, ..Fate::default() };
        for (fate, how) in [(Fate::default(), How::Status(1)), (late, How::Signal(9))] {
            let gone = Traces::Nothing(Some("Kernel panic"));
            let Message::Failed(failure) = fate.conclude(&end(how), "QEMU", gone) else { panic!() };
            assert!(failure.message.ends_with("its console ended with \"Kernel panic\""), "{failure}");
            let hint = failure.hint.unwrap();
            assert!(hint.contains("without --rm") && !hint.contains(".log") && !hint.contains("coffer logs"), "{hint}");
        }
    }

    #[test]
    fn a_refusal_of_stage0_is_named_unless_the_workload_ran() {
        for refusal in Refusal::ALL {
            let Message::Failed(failure) = conclude(&Fate::default(), How::Refused(refusal)) else { panic!() };
            assert!(failure.message.contains(&format!("({})", refusal.word())), "{}", failure.message);
            let ran = Fate { ran: true, ..Fate::default() };
            let message = conclude(&ran, How::Refused(refusal));
            assert!(matches!(message, Message::Exited(_)), "a workload may write to the exit port as well");
        }
        let Message::Failed(failure) = conclude(&Fate::default(), How::Refused(Refusal::InitrdHash)) else { panic!() };
        assert_eq!(failure.class, Class::Refused);
    }

    #[test]
    fn an_unreachable_broker_is_named_with_the_reason_the_host_saw() {
        let failure =
            of_event(&event("kbs-unreachable", "no route"), &spec(), Some("Connection refused (os error 111)"));
        assert_eq!(failure.class, Class::Unreachable);
        assert_eq!(failure.message, "key broker kbs.example:8443 is unreachable: Connection refused (os error 111)");
        assert!(of_event(&event("kbs-unreachable", "no route"), &spec(), None).message.ends_with("no route"));
    }

    #[test]
    fn dockers_codes_for_programs_that_do_not_run() {
        assert_eq!(of_event(&event("workload-not-found", ""), &spec(), None).docker_code, Some(127));
        assert_eq!(of_event(&event("workload-not-executable", ""), &spec(), None).docker_code, Some(126));
        assert_eq!(of_event(&event("not-released", ""), &spec(), None).class, Class::Refused);
        assert_eq!(of_event(&event("\u{1b}[2J", ""), &spec(), None).class, Class::Internal);
    }

    #[test]
    fn what_a_tee_guest_says_in_its_own_words_is_neither_believed_nor_shown() {
        let tee = WorkloadSpec { tee: Tee::Simulated, ..spec() };
        let leak = "the database password is hunter2";
        for code in FailureCode::ALL.iter().map(|code| code.word()).chain([leak]) {
            let failure = of_event(&event(code, leak), &tee, None);
            let shown = format!("{} {:?}", failure.message, failure.hint);
            assert!(!shown.contains("hunter2"), "{code}: {shown}");
        }
        let plain = of_event(&event("root-corrupt", "block 7\u{1b}[2J"), &spec(), None);
        assert!(plain.message.ends_with("block 7 [2J"), "{}", plain.message);
        let refused = Event { denial_id: 0xab, ..event("not-released", leak) };
        let failure = of_event(&refused, &tee, None);
        assert!(failure.message.contains("(not-released, id 00000000000000ab)"), "joins the broker's log");
        let reason = Reason { code: "not-released".into(), denial_id: Some("00000000000000ab".into()) };
        assert_eq!(failure.reason, Some(reason), "for programs");
        let unwell = of_event(&Event { denial_id: 0xcd, ..event("kbs-unreachable", leak) }, &tee, None);
        assert!(unwell.message.contains("could not decide (broker-failed, id 00000000000000cd)"), "{}", unwell.message);
        assert!(unwell.class == Class::Unreachable && unwell.hint.unwrap().contains("its log"));
        assert_eq!(of_event(&event("\u{1b}[2J", leak), &tee, None).reason.unwrap().code, "unknown");
        let full = Event { errno: 28, ..event("internal", leak) };
        assert!(of_event(&full, &tee, None).message.contains("No space left on device"));
    }

    #[test]
    fn the_true_cause_is_named_where_a_user_or_an_interpreter_is_missing() {
        let mut boxed = spec();
        boxed.process.user = "nosuch".into();
        let user = of_event(&event("user-not-found", ""), &boxed, None);
        assert!(user.message.contains("\"nosuch\"") && !user.message.contains("cannot run"), "{}", user.message);
        assert_eq!(user.docker_code, None, "125, as Docker has it");
        boxed.process.rights.groups = vec!["ghosts".into()];
        let group = of_event(&event("group-not-found", ""), &boxed, None);
        assert!(group.message.contains("ghosts") && !group.message.contains("find user"), "{}", group.message);
        assert!(group.hint.unwrap().contains("--group-add"));
        boxed.process.rights.limits = vec![ResourceLimit { of: Resource::Nofile, soft: Some(5), hard: None }];
        let limit = of_event(&event("limit-refused", "set the limit nofile"), &boxed, None);
        assert!(limit.message.contains("(limit-refused: nofile=5:unlimited)"), "{}", limit.message);
        assert!(limit.hint.unwrap().contains("--ulimit"));
        let interpreter = of_event(&event("interpreter-not-found", "start /x: \"/bin/nosuch\""), &spec(), None);
        assert_eq!(interpreter.docker_code, Some(127));
        assert!(interpreter.message.contains("/bin/nosuch"), "{}", interpreter.message);
    }

    #[test]
    fn what_was_not_released_is_what_the_spec_asks_for() {
        let mut spec = spec();
        let said = |spec: &WorkloadSpec| of_event(&event("not-released", ""), spec, None).message;
        assert!(said(&spec).contains("released no secret to"), "{}", said(&spec));
        spec.ingress.push(Ingress { port: 8080, clients: IngressClients::Certificate("web".parse().unwrap()) });
        let certificate = said(&spec);
        assert!(certificate.contains("released no certificate to this guest"), "{certificate}");
        assert!(!certificate.contains("secret"), "{certificate}");
        let to = SecretTarget::File("a".parse().unwrap());
        spec.secrets.push(SecretWanted::new("kbs:///a/b/c".parse().unwrap(), to));
        assert!(said(&spec).contains("released no secret, or no certificate to this guest"), "{}", said(&spec));
    }
}
