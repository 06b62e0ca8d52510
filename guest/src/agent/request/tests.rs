use std::collections::BTreeSet;

use coffer_spec::{SecretWanted, Tee, sample::name};

use super::*;

/// What is wrong in a field, made of requests that are right but for it; or why nothing can be.
enum Case {
    Refused(Vec<Status>),
    AnyValue(&'static str),
}

fn start() -> ExecStart {
    ExecStart {
        argv: vec!["sh".into(), String::new()],
        env: vec!["A=".into(), "B=2".into()],
        cwd: Some("/".into()),
        user: Some("app:mail".into()),
        terminal: Some(TerminalSize { rows: 24, columns: 80 }),
        detached: false,
        own: None,
    }
}

fn spec() -> WorkloadSpec {
    WorkloadSpec {
        inject: vec![name("token"), name("no-variable")],
        secrets: vec![SecretWanted::new("kbs:///default/app/token".parse().unwrap(), SecretTarget::Env(name("TOKEN")))],
        ..coffer_spec::sample::workload(Tee::Simulated)
    }
}

fn putting(list: Vec<u8>) -> Status {
    refused(put_owners(&PutOwnersRequest { list }))
}

fn message() -> Sealed {
    Sealed { enc: vec![1], ciphertext: vec![2] }
}

fn refused<T>(read: Read<T>) -> Status {
    read.err().expect("a wrong value was taken")
}

fn cases() -> Vec<(&'static str, Case)> {
    use Case::{AnyValue, Refused};
    let started = |wrong: ExecStart| refused(exec_start(wrong, &spec()));
    let argv = |argv: &[&str]| started(ExecStart { argv: argv.iter().map(ToString::to_string).collect(), ..start() });
    let env = |env: &[&str]| started(ExecStart { env: env.iter().map(ToString::to_string).collect(), ..start() });
    let cwd = |cwd: &str| started(ExecStart { cwd: Some(cwd.into()), ..start() });
    let reads = |path: &[u8]| Asked::ReadFiles(ReadFiles { path: path.into(), follow: false });
    let writes = |to: &[u8], name: &[u8], contents| {
        Asked::WriteFiles(WriteFiles { to: to.into(), name: name.into(), contents, owners: false })
    };
    let lists = Asked::ListPrograms(ListPrograms {});
    let owned = |own| started(ExecStart { own: Some(own), ..ExecStart::default() });
    let long_path = [&b"/"[..], &[b'a'; LONGEST_PATH]].concat();
    let size = |rows, columns| TerminalSize { rows, columns };
    let user = |user: &str| started(ExecStart { user: Some(user.into()), ..start() });
    let ask = |name: &str, value, set_env| InjectRequest { name: name.into(), value, set_env };
    let injected = |name: &str, value| refused(inject(&ask(name, value, false), &spec()));
    let wish = |policy: &str, context: Vec<u8>, plaintext| SealRequest {
        policy: policy.into(),
        context,
        plaintext,
        ..SealRequest::default()
    };
    let sealing = |policy: &str, context: Vec<u8>, plaintext| refused(seal(&wish(policy, context, plaintext)));
    let replacing = |counted, length| {
        let replaces = vec![0; length];
        refused(seal(&SealRequest { counted, replaces, ..wish("chip", vec![], Some(message())) }))
    };
    let resealing = |sealed: &[u8], context, policy: &str| {
        refused(reseal(&ResealRequest { sealed: sealed.into(), context, policy: policy.into() }))
    };
    let unsealing = |sealed: &[u8], context| refused(unseal(&UnsealRequest { sealed: sealed.into(), context }));
    let empty = |enc: &[u8], ciphertext: &[u8]| Some(Sealed { enc: enc.into(), ciphertext: ciphertext.into() });
    let long = "x".repeat(LONGEST_WORD + 1);
    let nonce = |length| EvidenceRequest { nonce: vec![1; length] };
    vec![
        ("SignalRequest.number", Refused([0, -1, 65].map(|number| refused(signal(SignalRequest { number }))).to_vec())),
        ("StopRequest.grace_seconds", Refused(vec![refused(stop(StopRequest { grace_seconds: u32::MAX }))])),
        ("LogsRequest.follow", AnyValue("both values mean something")),
        ("LogsRequest.from_sequence", AnyValue("every number is a place in the log, maybe behind its end")),
        ("ExecRequest.start", AnyValue("its own fields; a second one ends the call (`hand_on`)")),
        ("ExecRequest.attach", AnyValue("its own fields; a second beginning ends the call (`hand_on`)")),
        ("Attach.shown", Refused(vec![refused(attach(AskedAttach { shown: 3, terminal: None }))])),
        ("Attach.terminal", Refused(vec![refused(attach(AskedAttach { shown: 0, terminal: Some(size(0, 1 << 16)) }))])),
        ("ExecRequest.stdin", AnyValue("input is what the caller says it is")),
        ("ExecRequest.stdin_closed", AnyValue("false ends the call (`hand_on`)")),
        ("ExecRequest.signal", Refused([0, -1, 65].map(|number| refused(exec_signal(number))).to_vec())),
        ("ExecRequest.resize", Refused(vec![refused(terminal_size("resize", size(1 << 16, 80)))])),
        ("ExecRequest.detach", AnyValue("false ends the call (`hand_on`)")),
        ("ExecStart.terminal", Refused(vec![started(ExecStart { terminal: Some(size(1 << 16, 80)), ..start() })])),
        ("ExecStart.detached", AnyValue("both values mean something")),
        ("ExecStart.read_files", Refused(vec![started(ExecStart { own: Some(reads(b"/")), ..start() })])),
        (
            "ExecStart.write_files",
            Refused(vec![started(ExecStart { own: Some(writes(b"/", b"a", false)), ..start() })]),
        ),
        ("ExecStart.list_programs", Refused(vec![started(ExecStart { own: Some(lists), ..start() })])),
        (
            "ExecStart.read_root",
            Refused(vec![started(ExecStart { own: Some(Asked::ReadRoot(ReadRoot {})), ..start() })]),
        ),
        (
            "ExecStart.read_changes",
            Refused(vec![started(ExecStart { own: Some(Asked::ReadChanges(ReadChanges::default())), ..start() })]),
        ),
        ("ReadChanges.contents", AnyValue("both values mean something")),
        ("ReadFiles.path", Refused(vec![owned(reads(b"")), owned(reads(b"etc")), owned(reads(b"/a\0"))])),
        ("ReadFiles.follow", AnyValue("both values mean something")),
        ("WriteFiles.to", Refused(vec![owned(writes(b"tmp", b"a", false)), owned(writes(&long_path, b"a", false))])),
        (
            "WriteFiles.name",
            Refused(vec![
                owned(writes(b"/", b"", false)),
                owned(writes(b"/", b"a", true)),
                owned(writes(b"/", b"a/b", false)),
                owned(writes(b"/", b"a\0", false)),
            ]),
        ),
        ("WriteFiles.contents", AnyValue("with a name it is the name that is refused")),
        ("WriteFiles.owners", AnyValue("both values mean something")),
        ("TerminalSize.rows", Refused(vec![refused(terminal_size("rows", size(1 << 16, 0)))])),
        ("TerminalSize.columns", Refused(vec![refused(terminal_size("columns", size(0, u32::MAX)))])),
        ("ExecStart.argv", Refused(vec![argv(&[]), argv(&[""]), argv(&["a\0"]), argv(&["a", &long])])),
        (
            "ExecStart.env",
            Refused(vec![
                env(&["A"]),
                env(&["=1"]),
                env(&[""]),
                env(&["A=1", "A=2"]),
                env(&["A=\0"]),
                env(&["TOKEN=mine"]),
            ]),
        ),
        ("ExecStart.cwd", Refused(vec![cwd(""), cwd("tmp"), cwd("/a\0")])),
        ("ExecStart.user", Refused(vec![user(""), user(":"), user("app:"), user(":mail"), user("a:b:c")])),
        ("Sealed.enc", Refused(vec![injected("token", empty(b"", b"x"))])),
        ("Sealed.ciphertext", Refused(vec![injected("token", empty(b"x", b""))])),
        ("InjectRequest.name", Refused(vec![injected("", Some(message())), injected("other", Some(message()))])),
        ("InjectRequest.value", Refused(vec![injected("token", None)])),
        ("InjectRequest.set_env", Refused(vec![refused(inject(&ask("no-variable", Some(message()), true), &spec()))])),
        (
            "PutOwnersRequest.list",
            Refused([0, SignedOwnerList::LONGEST + 1].map(|length| putting(vec![b' '; length])).to_vec()),
        ),
        (
            "SealRequest.policy",
            Refused(["", "chips", "Chip"].map(|word| sealing(word, vec![], Some(message()))).to_vec()),
        ),
        ("SealRequest.counted", AnyValue("with and without a counter are both meant")),
        ("SealRequest.replaces", Refused(vec![replacing(false, HEAD + 1), replacing(true, 1)])),
        ("SealRequest.context", Refused(vec![sealing("chip", vec![0; LONGEST_CONTEXT + 1], Some(message()))])),
        (
            "SealRequest.plaintext",
            Refused(vec![sealing("chip", vec![], None), sealing("chip", vec![], empty(b"", b""))]),
        ),
        ("UnsealRequest.sealed", Refused(vec![unsealing(b"", vec![])])),
        ("UnsealRequest.context", Refused(vec![unsealing(b"x", vec![0; LONGEST_CONTEXT + 1])])),
        ("ResealRequest.sealed", Refused(vec![resealing(b"", vec![], "")])),
        ("ResealRequest.context", Refused(vec![resealing(b"x", vec![0; LONGEST_CONTEXT + 1], "")])),
        ("EvidenceRequest.nonce", Refused([0, 7, 65].map(|length| refused(evidence(&nonce(length)))).to_vec())),
        ("ResealRequest.policy", Refused(vec![resealing(b"x", vec![], "psp")])),
    ]
}

/// Every field of every message that a caller sends, from the protocol itself.
fn fields_asked() -> BTreeSet<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/proto/proto");
    let files = protox::compile([format!("{folder}/agent.proto")], [folder]).unwrap();
    let file = files.file.into_iter().find(|file| file.package() == "coffer.agent.v1").unwrap();
    let local = |name: &str| name.rsplit('.').next().unwrap().to_owned();
    let message_of = |name: &str| file.message_type.iter().find(|message| message.name() == name);
    let mut open: Vec<String> =
        file.service.iter().flat_map(|service| &service.method).map(|method| local(method.input_type())).collect();
    let (mut seen, mut fields) = (BTreeSet::new(), BTreeSet::new());
    while let Some(message) = open.pop() {
        let Some(found) = message_of(&message).filter(|_| seen.insert(message.clone())) else { continue };
        for field in &found.field {
            fields.insert(format!("{message}.{}", field.name()));
            if message_of(&local(field.type_name())).is_some() {
                open.push(local(field.type_name()));
            }
        }
    }
    fields
}

#[test]
fn every_field_a_caller_sends_is_judged_and_a_wrong_one_is_refused_by_its_name() {
    let cases = cases();
    let judged: BTreeSet<String> = cases.iter().map(|(field, _)| (*field).to_owned()).collect();
    assert_eq!(judged, fields_asked(), "a field of the protocol has no case here, or a case no field");
    for (field, case) in cases {
        match case {
            Case::AnyValue(why) => assert!(why.len() > 10, "{field}"),
            Case::Refused(statuses) => {
                assert!(!statuses.is_empty(), "{field}");
                for status in statuses {
                    let own = field.split('.').next_back().unwrap();
                    let inner = field.starts_with("Sealed.").then_some("value");
                    let told = status.message();
                    // One of the three that stand in each other's place.
                    let own = if field.starts_with("ExecStart.") && told.starts_with("own:") { "own" } else { own };
                    let named = told.starts_with(own) || inner.is_some_and(|outer| told.starts_with(outer));
                    assert!(named || told == "not-injectable", "{field}: {told}");
                }
            }
        }
    }
}

#[test]
fn what_is_right_is_taken_as_it_was_sent() {
    let start = exec_start(start(), &spec()).unwrap();
    assert_eq!((start.argv.len(), start.env.len()), (2, 2));
    assert_eq!(start.terminal, Some(container::TerminalSize { rows: 24, columns: 80 }));
    assert_eq!((start.cwd.as_deref(), start.user.as_deref()), (Some("/"), Some("app:mail")));
    let lists = ExecStart { own: Some(Asked::ListPrograms(ListPrograms {})), ..ExecStart::default() };
    assert_eq!((act(&lists), act(&ExecStart::default())), (Act::Top, Act::Exec));
    let lists = exec_start(lists, &spec()).unwrap();
    assert_eq!((lists.own, lists.user.as_deref()), (Some(container::Own::ListPrograms), Some("0:0")));
    let reads = Asked::ReadFiles(ReadFiles { path: b"/etc".into(), follow: true });
    assert_eq!(act(&ExecStart { own: Some(reads), ..ExecStart::default() }), Act::Cp);
    for own in [Asked::ReadRoot(ReadRoot {}), Asked::ReadChanges(ReadChanges { contents: true })] {
        assert_eq!(act(&ExecStart { own: Some(own), ..ExecStart::default() }), Act::Cp);
    }
    let plain = exec_start(ExecStart { argv: vec!["true".into()], ..ExecStart::default() }, &spec()).unwrap();
    assert_eq!((plain.cwd, plain.user, plain.terminal, plain.detached), (None, None, None, false));
    assert_eq!(stop(StopRequest { grace_seconds: 0 }).unwrap().grace_seconds, 0);
    let wish = SealRequest { policy: "chip-only".into(), plaintext: Some(message()), ..SealRequest::default() };
    assert_eq!(seal(&wish).unwrap().policy, SealPolicy::Chip);
    for length in [8, 64] {
        assert_eq!(evidence(&EvidenceRequest { nonce: vec![1; length] }).unwrap().as_bytes().len(), length);
    }
    let again = ResealRequest { sealed: vec![1], ..ResealRequest::default() };
    assert_eq!(reseal(&again).unwrap(), (&[1_u8][..], &[][..], None));
}

#[test]
fn who_may_stop_a_workload_sends_it_no_other_signal_than_a_stop_does() {
    let stop_signal = libc::SIGINT;
    for number in 1..=64 {
        let is_stop = number == libc::SIGINT || number == libc::SIGKILL;
        assert_eq!(Act::of_signal(number, stop_signal), if is_stop { Act::Stop } else { Act::Exec }, "{number}");
        let some = |stop, exec| Sendable::Some { stop_signal, stop, exec }.admits(number);
        assert_eq!((some(true, false), some(false, true)), (is_stop, !is_stop), "{number}");
        assert!(some(true, true) && !some(false, false) && Sendable::All.admits(number));
    }
}
