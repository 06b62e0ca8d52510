use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use coffer_simulator::attack::find;

use super::*;

fn prepared(folder: &Path) -> Prepared {
    Prepared { folder: folder.to_owned(), record: b"record".to_vec(), anchor: "ab".into(), report_data: "cd".into() }
}

fn ask_within(command: &str, timeout: Duration) -> Asked {
    let dir = tempfile::tempdir().unwrap();
    let verifier = Verifier { target: Target::Command(command.into()), timeout };
    verifier.ask(&prepared(dir.path())).unwrap()
}

fn ask(command: &str) -> Asked {
    ask_within(command, Duration::from_mins(1))
}

fn case(name: Option<&str>) -> Case {
    Case { product: ProductLine::Milan, attack: name.map(|name| find(name).unwrap()) }
}

/// A report of these answers, by attack.
fn report(answers: &[(Option<&str>, Answer)]) -> Report {
    let outcome = |(name, answer): &(Option<&str>, Answer)| Outcome {
        case: case(*name),
        asked: Asked { answer: *answer, output: "\u{1b}[2J<said>\n&".into(), took: Duration::from_millis(5) },
        again: "coffer sim check 'a \"b\"'".into(),
    };
    Report { outcomes: answers.iter().map(outcome).collect(), strict: false }
}

#[test]
fn the_exit_status_is_the_answer() {
    for (command, answer) in [
        ("exit 0", Answer::Accepted),
        ("exit 5", Answer::NotAuthentic),
        ("exit 6", Answer::Refused),
        ("exit 1", Answer::NotAccepted),
        ("kill -SEGV $$", Answer::Killed(11)),
    ] {
        assert_eq!(ask(command).answer, answer, "{command}");
    }
    let dir = tempfile::tempdir().unwrap();
    let verifier = Verifier { target: Target::Command("/nosuch/verifier".into()), timeout: Duration::from_mins(1) };
    let failure = verifier.ask(&prepared(dir.path())).unwrap_err();
    assert!(failure.message.contains("/nosuch/verifier"), "{failure}");
}

#[test]
fn a_command_is_told_where_its_evidence_lies() {
    let asked = ask("echo $COFFER_DIR $COFFER_EVIDENCE $COFFER_POLICY $COFFER_ANCHOR $COFFER_REPORT_DATA; exit 6");
    let words: Vec<_> = asked.output.split_whitespace().collect();
    assert_eq!(words[1..], [&format!("{}/evidence.cmw", words[0]), &format!("{}/policy.toml", words[0]), "ab", "cd"]);
}

#[test]
fn what_hangs_is_killed_with_all_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    // A grandchild that holds the output open and does not care for signals it can ignore.
    let command = format!("(trap '' TERM HUP; echo hello; echo $$; sleep 600) & echo $! > '{}'; wait", file.display());
    let started = Instant::now();
    let asked = ask_within(&command, Duration::from_millis(700));
    assert_eq!(asked.answer, Answer::TimedOut);
    assert!(asked.output.starts_with("hello"), "{}", asked.output);
    assert!(started.elapsed() < Duration::from_mins(1));
    is_gone(&file);
}

#[test]
fn what_a_command_leaves_behind_is_killed_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let started = Instant::now();
    let asked = ask(&format!("sleep 600 & echo $! > '{}'; exit 6", file.display()));
    assert_eq!(asked.answer, Answer::Refused);
    assert!(started.elapsed() < Duration::from_mins(1));
    is_gone(&file);
}

fn is_gone(file: &Path) {
    let pid = std::fs::read_to_string(file).unwrap();
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    let deadline = Instant::now() + Duration::from_mins(1);
    // Whoever takes over orphans here may take its time to reap it.
    while stat().is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < deadline, "process {pid} is still there: {}", stat().unwrap());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn output_is_kept_to_its_last_words() {
    let asked = ask("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo the reason >&2; exit 6");
    assert_eq!(asked.answer, Answer::Refused);
    assert!(asked.output.len() < 10_000 && asked.output.ends_with("\nthe reason\n"), "{}", asked.output.len());
    assert!(asked.output.starts_with("(2991"), "{}", &asked.output[..40]);
    let endless = ask_within("yes", Duration::from_millis(300));
    assert_eq!(endless.answer, Answer::TimedOut);
}

#[test]
fn an_endpoint_that_says_nothing_times_out() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let serving = std::thread::spawn(move || {
        let lines: Vec<_> = listener.incoming().take(2).map(Result::unwrap).collect();
        drop(lines);
    });
    let dir = tempfile::tempdir().unwrap();
    let verifier = Verifier { target: Target::Url(url), timeout: Duration::from_millis(300) };
    assert_eq!(verifier.ask(&prepared(dir.path())).unwrap().answer, Answer::TimedOut);
    let Target::Url(url) = &verifier.target else { panic!() };
    std::net::TcpStream::connect(url.trim_start_matches("http://").trim_end_matches('/')).unwrap().flush().unwrap();
    serving.join().unwrap();
}

#[test]
fn answers_are_right_or_wrong_by_what_was_asked() {
    use Answer::{Accepted, Killed, NotAccepted, NotAuthentic, Refused, TimedOut};
    let right = |name, answer| (case(name).is_right(answer, false), case(name).is_right(answer, true));
    assert_eq!(right(None, Accepted), (true, true));
    assert_eq!(right(None, Refused), (false, false));
    assert_eq!(right(Some("debug"), Refused), (true, true));
    assert_eq!(right(Some("debug"), NotAuthentic), (true, false));
    assert_eq!(right(Some("debug"), NotAccepted), (true, false));
    assert_eq!(right(Some("truncated"), NotAuthentic), (true, true));
    for never in [Accepted, Killed(11), TimedOut] {
        assert_eq!(right(Some("truncated"), never), (false, false), "{never:?}");
    }
}

#[test]
fn one_answer_to_all_proves_nothing() {
    use Answer::{Accepted, NotAuthentic, Refused, TimedOut};
    let verdict = |answers: &[Answer]| {
        let names = [None, Some("debug"), Some("truncated")];
        report(&names.into_iter().zip(answers.iter().copied()).collect::<Vec<_>>()).verdict()
    };
    assert_eq!(verdict(&[Accepted, Refused, NotAuthentic]), Verdict::Right);
    assert_eq!(verdict(&[Accepted, Accepted, NotAuthentic]), Verdict::Wrong);
    assert_eq!(verdict(&[Accepted, Accepted, Accepted]), Verdict::ProvesNothing);
    // Different words, one answer: nothing is accepted.
    assert_eq!(verdict(&[Refused, Refused, NotAuthentic]), Verdict::ProvesNothing);
    assert_eq!(verdict(&[TimedOut, Refused, Refused]), Verdict::ProvesNothing);
    assert_eq!(verdict(&[Refused, Accepted, NotAuthentic]), Verdict::Wrong);
    let of_two = |second: Answer| {
        let mut all = report(&[(None, Accepted), (Some("debug"), Refused)]);
        let mut genoa = report(&[(None, second), (Some("debug"), Refused)]).outcomes;
        for outcome in &mut genoa {
            outcome.case.product = ProductLine::Genoa;
        }
        all.outcomes.extend(genoa);
        all.verdict()
    };
    assert_eq!((of_two(Accepted), of_two(Refused)), (Verdict::Right, Verdict::ProvesNothing));
}

#[test]
fn a_report_says_group_description_output_and_how_to_ask_again() {
    let all =
        report(&[(None, Answer::Accepted), (Some("debug"), Answer::Accepted), (Some("truncated"), Answer::Refused)]);
    let json = all.json();
    assert_eq!((json["verdict"].as_str(), json["wrong"].as_u64()), (Some("wrong"), Some(1)));
    let debug = &json["results"][1];
    assert_eq!(
        (debug["group"].as_str(), debug["what"].as_str()),
        (Some("policy"), Some("the guest policy allows debugging"))
    );
    assert_eq!(debug["output"], "\u{1b}[2J<said>\n&");
    assert_eq!(debug["again"], "coffer sim check 'a \"b\"'");
    assert!(json["results"][2]["output"].is_null(), "only what failed");

    let text = all.text();
    for line in [
        "Milan    debug                      policy     refused (floor)                  accepted         WRONG",
        "Milan debug: the guest policy allows debugging",
        "  must be answered refused (floor), was accepted after 0.01 s",
        "  \\u{1b}[2J<said>",
        "coffer sim check 'a \"b\"'",
        "2 of 3 answers are right",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(!text.contains('\u{1b}'));

    let junit = all.junit();
    assert!(
        junit.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"4\" failures=\"1\">"),
        "{junit}"
    );
    assert!(junit.contains("<testcase classname=\"Milan.policy\" name=\"debug\" time=\"0.005\">"), "{junit}");
    assert!(junit.contains("\\u{1b}[2J&lt;said&gt;&#10;") && junit.contains("'a &quot;b&quot;'"), "{junit}");
    assert!(!junit.contains('\u{1b}'));
    let nothing = report(&[(None, Answer::Refused), (Some("debug"), Answer::Refused)]);
    assert!(
        nothing.junit().contains("failures=\"2\"") && nothing.text().contains("proves nothing"),
        "{}",
        nothing.junit()
    );
}

#[test]
fn cases_are_good_evidence_and_every_attack_of_each_product() {
    let all = cases(&ProductLine::ALL, None).unwrap();
    assert_eq!(all.len(), 3 * (ATTACKS.len() + 1));
    assert_eq!(all.iter().filter(|case| case.attack.is_none()).count(), 3);
    assert_eq!(cases(&[ProductLine::Turin], Some("debug")).unwrap().len(), 2);
    assert!(cases(&[ProductLine::Turin], Some("nosuch")).is_err());
}

#[test]
fn words_are_quoted_for_a_shell() {
    for word in ["plain-1.2/x", "", "two words", "it's", "$HOME `x` \\ \"", "a\nb", "*", "~"] {
        let line = format!("printf '<%s>' {}", quote(word));
        let output = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("<{word}>"));
    }
    assert_eq!(quote("plain-1.2/x"), "plain-1.2/x");
}
