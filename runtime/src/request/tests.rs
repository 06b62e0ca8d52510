use super::*;

pub(crate) fn image() -> ImageDefaults {
    ImageDefaults {
        reference: "registry.example/tool:1".into(),
        config_digest: ConfigDigest::new([0; 32]),
        entrypoint: vec!["/entry".into()],
        cmd: vec!["default".into()],
        env: vec!["A=1".into(), "B=2".into()],
        cwd: "/work".into(),
        user: String::new(),
        stop_signal: "SIGINT".into(),
    }
}

pub(crate) fn verity() -> VerityTable {
    VerityTable {
        algorithm: "sha256".into(),
        block_size: 4096,
        data_blocks: 4,
        hash_start: 4,
        salt: String::new(),
        root_hash: "0".repeat(64),
    }
}

pub(crate) fn wishes() -> Wishes {
    Wishes {
        tee: Tee::None,
        tenant: "default".parse().unwrap(),
        args: Vec::new(),
        entrypoint: None,
        env: Vec::new(),
        cwd: None,
        user: None,
        stop_signal: None,
        hostname: "coffer".parse().unwrap(),
        mounts: Vec::new(),
        volumes: Vec::new(),
        scratch: Scratch::Tmpfs { bytes: 1 << 20 },
        host_may: None,
        inject: Vec::new(),
        kbs: None,
        secrets: Vec::new(),
        owners: Vec::new(),
        floors: Floors::default(),
    }
}

fn argv_of(wishes: &Wishes) -> Vec<String> {
    document(&image(), verity(), wishes).unwrap().spec().process.argv.clone()
}

#[test]
fn command_and_entrypoint_combine_as_docker_has_it() {
    assert_eq!(argv_of(&wishes()), ["/entry", "default"]);
    assert_eq!(argv_of(&Wishes { args: vec!["x".into()], ..wishes() }), ["/entry", "x"]);
    assert_eq!(argv_of(&Wishes { entrypoint: Some("/sh".into()), ..wishes() }), ["/sh"]);
    let both = Wishes { entrypoint: Some("/sh".into()), args: vec!["-c".into()], ..wishes() };
    assert_eq!(argv_of(&both), ["/sh", "-c"]);
    let cleared = Wishes { entrypoint: Some(String::new()), args: vec!["/x".into()], ..wishes() };
    assert_eq!(argv_of(&cleared), ["/x"]);
    let nothing = document(&image(), verity(), &Wishes { entrypoint: Some(String::new()), ..wishes() });
    assert!(matches!(nothing, Err(RequestError::NoCommand(_))));
}

#[test]
fn the_users_environment_wins_in_place() {
    let wishes = Wishes { env: vec!["B=9".into(), "C=3".into()], ..wishes() };
    let spec = document(&image(), verity(), &wishes).unwrap();
    assert_eq!(spec.spec().process.env[1..], ["A=1", "B=9", "C=3"]);
    assert!(spec.spec().process.env[0].starts_with("PATH="));
    assert_eq!(environment(&["PATH=/x".into()], &[]), ["PATH=/x"]);
}

#[test]
fn the_host_sees_no_output_of_a_tee_box_by_default() {
    for tee in [Tee::Snp, Tee::Simulated] {
        let spec = document(&image(), verity(), &Wishes { tee, ..wishes() }).unwrap();
        assert_eq!(spec.spec().host_may.to_string(), "stop,stats");
    }
    assert!(default_host_may(Tee::None).contains(Act::Logs));
    let none = Wishes { host_may: Some(HostMay::none()), ..wishes() };
    assert!(document(&image(), verity(), &none).unwrap().spec().host_may.is_empty());
}

#[test]
fn equal_wishes_give_equal_documents_and_every_wish_changes_the_digest() {
    let digest = |wishes: &Wishes| document(&image(), verity(), wishes).unwrap().digest();
    // Simulated, since nobody can inject into a box without a TEE.
    let wishes = || Wishes { tee: Tee::Simulated, ..wishes() };
    let base = digest(&wishes());
    assert_eq!(base, digest(&wishes()));
    let changed = [
        Wishes { tee: Tee::Snp, ..wishes() },
        Wishes { tenant: "other".parse().unwrap(), ..wishes() },
        Wishes { args: vec!["x".into()], ..wishes() },
        Wishes { env: vec!["X=1".into()], ..wishes() },
        Wishes { cwd: Some("/".into()), ..wishes() },
        Wishes { user: Some("7".into()), ..wishes() },
        Wishes { stop_signal: Some("9".into()), ..wishes() },
        Wishes { hostname: "h".parse().unwrap(), ..wishes() },
        Wishes { inject: vec!["n".parse().unwrap()], ..wishes() },
        Wishes { scratch: Scratch::Tmpfs { bytes: 5 }, ..wishes() },
        Wishes { scratch: Scratch::Disk { bytes: 1 << 20 }, ..wishes() },
        Wishes {
            volumes: vec![Volume { path: "/v".into(), kind: coffer_spec::VolumeKind::Folder, verity: verity() }],
            ..wishes()
        },
        Wishes { floors: Floors { not_before: 1, ..Floors::default() }, ..wishes() },
        Wishes { mounts: vec![tmpfs("/t").unwrap()], ..wishes() },
    ];
    for wishes in changed {
        assert_ne!(base, digest(&wishes), "{wishes:?}");
    }
}

#[test]
fn signals_have_names_and_numbers() {
    for (text, number) in [("15", 15), ("TERM", 15), ("sigkill", 9), ("SIGRTMIN+3", 37), ("SYS", 31)] {
        assert_eq!(signal_number(text), Some(number), "{text}");
    }
    for bad in ["", "0", "65", "SIGNOPE", "RTMIN+99", "RTMIN-1"] {
        assert_eq!(signal_number(bad), None, "{bad}");
    }
    let spec = document(&image(), verity(), &wishes()).unwrap();
    assert_eq!(spec.spec().process.stop_signal, 2);
}

#[test]
fn sizes_secrets_and_mounts_parse_or_are_refused() {
    assert_eq!(bytes("512m"), Some(512 << 20));
    assert_eq!(bytes("1GiB"), Some(1 << 30));
    assert_eq!(bytes("7"), Some(7));
    for bad in ["", "m", "-1", "1.5g", "99999999999t", "b"] {
        assert_eq!(bytes(bad), None, "{bad}");
    }
    assert_eq!(secret_wanted("kbs:///a/b/c=n").unwrap().to, SecretTarget::File("n".parse().unwrap()));
    assert_eq!(secret_wanted("kbs:///a/b/c=env:N").unwrap().to, SecretTarget::Env("N".parse().unwrap()));
    assert_eq!(secret_wanted("kbs:///a/b/c"), None);
    assert_eq!(tmpfs("/run:size=1m,noexec").unwrap().tmpfs_bytes, 1 << 20);
    assert_eq!(tmpfs("/run/").unwrap().path, "/run");
    assert_eq!(tmpfs("run"), None);
    assert_eq!(tmpfs("/run:exec_everything"), None);
}
