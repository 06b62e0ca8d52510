use super::*;
use clap::Parser as _;
use coffer_runtime::owner_access;

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    flags: BoxFlags,
}

fn parse(line: &str) -> Result<BoxFlags, clap::Error> {
    Line::try_parse_from(std::iter::once("x").chain(line.split(' '))).map(|line| line.flags)
}

fn engine() -> (tempfile::TempDir, Engine) {
    let dir = tempfile::tempdir().unwrap();
    let settings = engine::Settings {
        home: dir.path().join("home"),
        search: coffer_runtime::tools::Search::default(),
        docker_config: None,
        supervisor: "/nowhere".into(),
    };
    (dir, Engine::new(settings))
}

fn workload(line: &str) -> Result<WorkloadRequest, CliError> {
    let (_dir, engine) = engine();
    parse(line).unwrap().workload(&engine, Vec::new(), &[])
}

#[test]
fn words_after_the_image_belong_to_the_workload() {
    let flags = parse("-e A=1 busybox sh -c -e --json").unwrap();
    assert_eq!(flags.image(), Some("busybox"));
    assert_eq!(flags.words[1..], ["sh", "-c", "-e", "--json"]);
    assert_eq!(flags.env, ["A=1"]);
    // Also flags of ours, also right behind the image.
    for line in ["busybox -e B=2", "busybox --tee", "busybox --memory 1g", "busybox -- x", "-- busybox --spec s"] {
        let flags = parse(line).unwrap();
        assert_eq!(flags.image(), Some("busybox"), "{line}");
        assert!(flags.words.len() > 1 && flags.env.is_empty() && !flags.tee && flags.memory.is_none(), "{line}");
    }
    assert!(parse("--nosuch busybox").is_err());
}

#[test]
fn real_and_simulated_hardware_exclude_each_other() {
    assert!(parse("--tee --tee-simulate busybox").is_err());
    assert_eq!(parse("busybox").unwrap().tee_wanted(), Tee::None);
    assert_eq!(parse("--tee busybox").unwrap().tee_wanted(), Tee::Snp);
    assert_eq!(parse("--isolation snp busybox").unwrap().tee_wanted(), Tee::Snp);
    assert_eq!(parse("--isolation qemu --tee-simulate busybox").unwrap().tee_wanted(), Tee::Simulated);
    assert!(parse("--isolation snp --tee-simulate busybox").unwrap().check_isolation().is_err());
    assert!(parse("--isolation none busybox").is_err());
    let refusal = engine::check_hardware(Tee::Snp).unwrap_err();
    assert_eq!(refusal.class, Class::Platform);
    assert!(refusal.hint.unwrap().contains("--tee-simulate"));
}

#[test]
fn the_local_key_is_an_owner_only_in_simulation() {
    let (_dir, engine) = engine();
    let none = parse("busybox").unwrap();
    assert!(none.owners(&engine, Tee::None).unwrap().is_empty());
    assert!(none.owners(&engine, Tee::Snp).unwrap().is_empty());
    let folder = engine.home().unwrap().owner();
    assert!(owner_access::load(&folder).is_err());
    let simulated = none.owners(&engine, Tee::Simulated).unwrap();
    assert_eq!(simulated[0].key, owner_access::load(&folder).unwrap().spki());
    assert_eq!(simulated[0].may, coffer_spec::OwnerMay::all());
}

#[test]
fn what_is_wrong_is_said_by_the_flag_that_was_typed() {
    let (_dir, engine) = engine();
    let refusal = |line: &str| {
        let failure = parse(line).unwrap().request(&engine).unwrap_err();
        assert_eq!(failure.class, Class::Usage, "{line}");
        format!("{}; {}", failure.message, failure.hint.unwrap_or_default())
    };
    let little = refusal("-m 512 busybox");
    for words in ["--memory", "128 MiB", "counts bytes"] {
        assert!(little.contains(words), "{little}");
    }
    assert!(refusal("--vcpus 9 busybox").contains("--vcpus"));
    assert!(refusal("--owner owner.pem busybox").contains("--owner needs --tee or --tee-simulate"));
    let bound = refusal("--isolation process -m 64m busybox");
    assert!(bound.contains("128 MiB") && !bound.contains("guest kernel"), "{bound}");
    let pin = "ab".repeat(32);
    for flag in ["--secret a=kbs:///a/b/c", "--secret-env A=kbs:///a/b/c", "--audience a", "--inject a"] {
        let (word, _) = flag.split_once(' ').unwrap();
        let plain = refusal(&format!("{flag} busybox"));
        assert!(plain.contains(&format!("{word} needs --tee or --tee-simulate")), "{plain}");
    }
    let plain = refusal(&format!("--kbs h:1 --kbs-pin {pin} busybox"));
    assert!(plain.contains("--kbs needs --tee"), "{plain}");
    for flag in ["--secret a=kbs:///a/b/c", "--secret-env A=kbs:///a/b/c", "--audience a", "-p 1:1/tls --tls-profile a"]
    {
        let nobody = refusal(&format!("--tee-simulate {flag} busybox"));
        let word = flag.split(' ').rev().nth(1).unwrap();
        assert!(
            nobody.contains(&format!("{word} asks a key broker")) && nobody.contains("--kbs HOST:PORT"),
            "{nobody}"
        );
    }
    let doors = refusal(&format!(
        "--tee-simulate --kbs h:1 --kbs-pin {pin} --tls-profile a -p 443:8080/tls -p 8443:8080/ra-tls busybox"
    ));
    assert!(doors.contains("--publish leads to port 8080 behind /tls and behind /ra-tls"), "{doors}");
    let peer = parse("--tee-simulate --peer db=1:h:2,author=nofile,family=a,image=b,min-svn=1 busybox").unwrap();
    let nobody = peer.request(&engine).unwrap_err().message;
    assert!(nobody.contains("--peer: author=nofile") && !nobody.contains("--author-key"), "{nobody}");
}

#[test]
fn a_spec_cannot_be_changed_by_flags() {
    assert!(parse("--spec s.toml -e A=1").is_err());
    assert!(parse("--spec s.toml --host-may logs").is_err());
    let document = Document::write(&coffer_spec::sample::workload(Tee::None)).unwrap();
    let exactly = |line: &str| parse(line).unwrap().exactly(document.clone(), &[]);
    assert!(exactly("--spec s.toml busybox sh").unwrap_err().message.contains("\"sh\""));
    assert!(
        matches!(exactly("--spec s.toml busybox"), Ok(Workload::Spec { image: Some(name), .. }) if name == "busybox")
    );
    assert!(matches!(exactly("--spec s.toml"), Ok(Workload::Spec { image: None, .. })));
    assert!(parse("--spec s.toml --cpus 2").is_ok());
    assert!(parse("--cpus 1").is_err());
}

#[test]
fn numbers_out_of_range_are_named() {
    for (line, word) in [("--cpus 0 b", "--cpus"), ("--cpus 1.5 b", "--cpus"), ("--cpus 99 b", "--cpus")] {
        assert!(parse(line).unwrap().vcpus().unwrap_err().message.contains(word), "{line}");
    }
    for line in ["-m 6m b", "-m 9g b", "-m lots b"] {
        assert_eq!(parse(line).unwrap().guest_memory().unwrap_err().class, Class::Usage, "{line}");
    }
    assert_eq!(parse("-m 256m b").unwrap().guest_memory().unwrap().bytes(), 256 << 20);
}

#[test]
fn secrets_need_a_pinned_broker() {
    assert!(workload("--tee-simulate --secret n=kbs:///a/b/c busybox").unwrap_err().message.contains("--secret asks"));
    assert!(parse("--kbs h:1 busybox").is_err());
    let pin = "ab".repeat(32);
    let request = workload(&format!(
        "--tee-simulate --kbs h:1 --kbs-pin {pin} --secret n=kbs:///a/b/c --secret-env N=kbs:///a/b/d busybox"
    ))
    .unwrap();
    assert_eq!(request.kbs.unwrap().spki[0].to_string(), pin);
    assert_eq!(request.secrets.len(), 2);
    for (flag, value) in [("--secret", "kbs:///a/b/c=n"), ("--secret-env", "kbs:///a/b/c=env:N")] {
        let refused =
            workload(&format!("--tee-simulate --kbs h:1 --kbs-pin {pin} {flag} {value} busybox")).unwrap_err();
        assert!(refused.message.contains(flag) && refused.message.contains("the name stands first"), "{refused}");
    }
    assert!(workload("--tee-simulate --kbs h:1 --kbs-pin zz busybox").unwrap_err().message.contains("--kbs-pin"));
}

#[test]
fn host_may_is_exactly_what_is_listed() {
    let may = |line: &str| workload(line).unwrap().host_may;
    assert_eq!(may("busybox"), None);
    assert_eq!(may("--host-may logs,stop busybox").unwrap().to_string(), "stop,logs");
    assert_eq!(may("--host-may none busybox"), Some(HostMay::none()));
    for line in ["--host-may none,exec busybox", "--host-may logs,logs busybox", "--host-may inject busybox"] {
        assert!(parse(line).unwrap_err().to_string().contains("--host-may"), "{line}");
    }
}

#[test]
fn an_option_behind_the_image_is_noticed() {
    let command = BoxFlags::augment_args(clap::Command::new(""));
    let noticed = |line: &str, argv: &str| {
        let split = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        misplaced(&command, &split(line), &split(argv)).map(str::to_owned)
    };
    // Of an image without a program of its own, what follows is the program.
    assert_eq!(noticed("busybox --tee-simulate -o x", "--tee-simulate -o x").as_deref(), Some("--tee-simulate"));
    assert_eq!(noticed("busybox -x", "-x").as_deref(), Some("-x"));
    // Of one with a program, it is an argument: also one that we have.
    assert_eq!(noticed("redis --memory=1g", "redis-server --memory=1g").as_deref(), Some("--memory=1g"));
    assert_eq!(noticed("redis -m 1g", "redis-server -m 1g").as_deref(), Some("-m"));
    for (line, argv) in
        [("redis --port 5", "redis-server --port 5"), ("busybox ls -e", "ls -e"), ("busybox", "sh"), ("busybox -", "-")]
    {
        assert_eq!(noticed(line, argv), None, "{line}");
    }
}

#[test]
fn the_least_memory_of_a_box_with_ingress_is_what_the_help_says() {
    let command = BoxFlags::augment_args(clap::Command::new(""));
    let publish = command.get_arguments().find(|arg| arg.get_id() == "publish").unwrap();
    let help = publish.get_long_help().or(publish.get_help()).unwrap().to_string();
    for (tee, before) in [(Tee::Simulated, "has "), (Tee::Snp, "with SEV-SNP ")] {
        let mut spec = coffer_spec::sample::workload(tee);
        spec.ingress = vec![coffer_spec::Ingress { port: 80, clients: coffer_spec::IngressClients::Anyone }];
        let least = spec.least_memory() >> 20;
        assert!(help.contains(&format!("{before}{least}")), "{least}: {help}");
    }
}
