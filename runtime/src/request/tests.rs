use super::*;

pub(crate) fn image() -> ImageDefaults {
    ImageDefaults {
        reference: "registry.example/tool:1".into(),
        manifest_digest: ManifestDigest::new([9; 32]),
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

pub(crate) fn request() -> WorkloadRequest {
    WorkloadRequest {
        tee: Tee::None,
        tenant: "default".parse().unwrap(),
        args: Vec::new(),
        entrypoint: None,
        env: Vec::new(),
        cwd: None,
        user: None,
        stop_signal: None,
        tty: false,
        stdin_open: false,
        init: false,
        rights: Rights::default(),
        hostname: "coffer".parse().unwrap(),
        domainname: None,
        mounts: Vec::new(),
        shm_bytes: Mount::SHM,
        sysctls: Vec::new(),
        read_only: false,
        volumes: Vec::new(),
        data_volumes: Vec::new(),
        sealed_volumes: Vec::new(),
        scratch: Scratch::Tmpfs { bytes: 1 << 20 },
        host_may: None,
        inject: Vec::new(),
        kbs: None,
        ingress: Vec::new(),
        audiences: Vec::new(),
        peers: Vec::new(),
        network: None,
        coco_routes: false,
        secrets: Vec::new(),
        owners: Vec::new(),
        owner_authority: None,
        floors: Floors::default(),
    }
}

fn argv_of(request: &WorkloadRequest) -> Vec<String> {
    document(&image(), verity(), request).unwrap().spec().process.argv.clone()
}

#[test]
fn command_and_entrypoint_combine_as_docker_has_it() {
    assert_eq!(argv_of(&request()), ["/entry", "default"]);
    assert_eq!(argv_of(&WorkloadRequest { args: vec!["x".into()], ..request() }), ["/entry", "x"]);
    assert_eq!(argv_of(&WorkloadRequest { entrypoint: Some("/sh".into()), ..request() }), ["/sh"]);
    let both = WorkloadRequest { entrypoint: Some("/sh".into()), args: vec!["-c".into()], ..request() };
    assert_eq!(argv_of(&both), ["/sh", "-c"]);
    let cleared = WorkloadRequest { entrypoint: Some(String::new()), args: vec!["/x".into()], ..request() };
    assert_eq!(argv_of(&cleared), ["/x"]);
    let nothing = document(&image(), verity(), &WorkloadRequest { entrypoint: Some(String::new()), ..request() });
    assert!(matches!(nothing, Err(RequestError::NoCommand(_))));
}

#[test]
fn the_users_environment_wins_in_place() {
    let request = WorkloadRequest { env: vec!["B=9".into(), "C=3".into()], ..request() };
    let spec = document(&image(), verity(), &request).unwrap();
    assert_eq!(spec.spec().process.env[1..], ["A=1", "B=9", "C=3"]);
    assert!(spec.spec().process.env[0].starts_with("PATH="));
    assert_eq!(environment(&["PATH=/x".into()], &[]), ["PATH=/x"]);
}

#[test]
fn the_host_sees_no_output_of_a_tee_box_by_default() {
    for tee in [Tee::Snp, Tee::Simulated] {
        let spec = document(&image(), verity(), &WorkloadRequest { tee, ..request() }).unwrap();
        assert_eq!(spec.spec().host_may.to_string(), "stop,stats");
    }
    assert!(default_host_may(Tee::None).contains(Act::Logs));
    let none = WorkloadRequest { host_may: Some(HostMay::none()), ..request() };
    assert!(document(&image(), verity(), &none).unwrap().spec().host_may.is_empty());
}

#[test]
fn equal_requests_give_equal_documents_and_every_part_changes_the_digest() {
    let digest = |request: &WorkloadRequest| document(&image(), verity(), request).unwrap().digest();
    // Simulated, since nobody can inject into a box without a TEE.
    let request = || WorkloadRequest { tee: Tee::Simulated, ..request() };
    let base = digest(&request());
    assert_eq!(base, digest(&request()));
    let changed = [
        WorkloadRequest { tee: Tee::Snp, ..request() },
        WorkloadRequest { tenant: "other".parse().unwrap(), ..request() },
        WorkloadRequest { args: vec!["x".into()], ..request() },
        WorkloadRequest { env: vec!["X=1".into()], ..request() },
        WorkloadRequest { cwd: Some("/".into()), ..request() },
        WorkloadRequest { user: Some("7".into()), ..request() },
        WorkloadRequest { stop_signal: Some("9".into()), ..request() },
        WorkloadRequest { hostname: "h".parse().unwrap(), ..request() },
        WorkloadRequest { inject: vec!["n".parse().unwrap()], ..request() },
        WorkloadRequest { scratch: Scratch::Tmpfs { bytes: 2 << 20 }, ..request() },
        WorkloadRequest { scratch: Scratch::Disk { bytes: 1 << 20 }, ..request() },
        WorkloadRequest {
            volumes: vec![Volume { path: "/v".into(), kind: coffer_spec::VolumeKind::Folder, verity: verity() }],
            ..request()
        },
        WorkloadRequest { floors: Floors { not_before: 1, ..Floors::default() }, ..request() },
        WorkloadRequest { mounts: vec![tmpfs("/t").unwrap()], ..request() },
    ];
    for request in changed {
        assert_ne!(base, digest(&request), "{request:?}");
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
    let spec = document(&image(), verity(), &request()).unwrap();
    assert_eq!(spec.spec().process.stop_signal, 2);
}

#[test]
fn sizes_parse_or_are_refused() {
    assert_eq!(bytes("512m"), Some(512 << 20));
    assert_eq!(bytes("1GiB"), Some(1 << 30));
    assert_eq!(bytes("7"), Some(7));
    for bad in ["", "m", "-1", "1.5g", "99999999999t", "b"] {
        assert_eq!(bytes(bad), None, "{bad}");
    }
}

#[test]
fn what_is_given_and_empty_is_refused_by_name() {
    let cases = [
        (WorkloadRequest { cwd: Some(String::new()), ..request() }, "working directory"),
        (WorkloadRequest { user: Some(String::new()), ..request() }, "user"),
        (WorkloadRequest { stop_signal: Some(String::new()), ..request() }, "stop signal"),
    ];
    for (request, what) in cases {
        let error = document(&image(), verity(), &request).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn what_stands_twice_in_a_list_is_refused_by_name() {
    let owner = |may: &str| Owner { key: SpkiDigest::new([7; 32]), may: coffer_spec::OwnerMay::parse(may).unwrap() };
    let cases = [
        (
            WorkloadRequest { inject: ["n", "m", "n"].map(|name| name.parse().unwrap()).to_vec(), ..request() },
            "inject n",
        ),
        (
            WorkloadRequest {
                tee: Tee::Simulated,
                kbs: Some(KbsPin { address: "h:1".into(), spki: vec![SpkiDigest::new([1; 32]); 2] }),
                ..request()
            },
            "pin 0101",
        ),
        (WorkloadRequest { owners: vec![owner("exec"), owner("logs")], ..request() }, "key 0707"),
    ];
    for (request, words) in cases {
        let error = document(&image(), verity(), &request).unwrap_err();
        assert!(matches!(error, RequestError::Twice { .. }) && error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_guest_has_whole_processors_and_enough_memory() {
    assert_eq!(Vcpus::new(2).unwrap().count(), 2);
    for bad in [0, Vcpus::MOST + 1] {
        assert!(matches!(Vcpus::new(bad), Err(RequestError::Vcpus(found)) if found == bad));
    }
    assert_eq!(GuestMemory::new((256 << 20) + 5).unwrap().bytes(), 256 << 20);
    assert!(matches!(GuestMemory::new(6 << 20), Err(RequestError::LittleMemory)));
    assert!(matches!(GuestMemory::new(9 << 30), Err(RequestError::MuchMemory(_))));
}

#[test]
fn what_is_mounted_and_what_may_be_written_is_measured() {
    let with = |text: &str| WorkloadRequest { mounts: vec![tmpfs(text).unwrap()], ..request() };
    let all = [
        request(),
        WorkloadRequest { read_only: true, ..request() },
        WorkloadRequest { shm_bytes: 1 << 20, ..request() },
        WorkloadRequest { sysctls: vec!["net.core.somaxconn=9".parse().unwrap()], ..request() },
        with("/t"),
        with("/t:noexec"),
        with("/t:ro"),
        with("/t:mode=700"),
        with("/t:uid=1"),
        with("/t:gid=1"),
        with("/t:size=1m"),
    ];
    let digests = all.map(|request| document(&image(), verity(), &request).unwrap().digest().to_string());
    let distinct: BTreeSet<_> = digests.iter().collect();
    assert_eq!(distinct.len(), digests.len());
    let usual = document(&image(), verity(), &request()).unwrap();
    let text = String::from_utf8_lossy(usual.bytes()).into_owned();
    assert!(
        !text.contains("shm") && !text.contains("read_only"),
        "what nobody asked for leaves the digest alone: {text}"
    );
}

#[test]
fn the_last_of_the_users_variables_of_a_name_wins_as_in_docker() {
    let request = WorkloadRequest { env: vec!["X=1".into(), "B=7".into(), "X=2".into(), "B=8".into()], ..request() };
    let spec = document(&image(), verity(), &request).unwrap();
    assert_eq!(spec.spec().process.env[1..], ["A=1", "B=8", "X=2"]);
}

#[test]
fn a_place_with_two_sources_is_refused_in_words_of_the_request() {
    let kbs = || Some(KbsPin { address: "h:1".into(), spki: vec![SpkiDigest::new([1; 32])] });
    let with = |secrets: &[&str], files: &[&str], inject: &[&str]| {
        let variables = secrets.iter().map(|text| secret_env(text).unwrap());
        let secrets = variables.chain(files.iter().map(|text| secret_file(text).unwrap())).collect();
        let inject = inject.iter().map(|name| name.parse().unwrap()).collect();
        let request = WorkloadRequest { tee: Tee::Simulated, kbs: kbs(), secrets, inject, ..request() };
        document(&image(), verity(), &request)
    };
    let (a, x) = ("A=kbs:///a/b/c", "x=kbs:///a/b/c");
    for (error, words) in [
        (with(&[a], &[], &[]), "the image or the user sets"),
        (with(&["N=kbs:///a/b/c", "N=kbs:///a/b/d"], &[], &[]), "the variable for a secret N stands there twice"),
        (with(&[], &[x, "x=kbs:///a/b/d"], &[]), "the file for a secret x stands there twice"),
        (with(&[], &[x], &["x"]), "one place has one source"),
    ] {
        let error = error.unwrap_err();
        assert!(error.to_string().contains(words) && !matches!(error, RequestError::Spec(_)), "{error}");
    }
    with(&["N=kbs:///a/b/c"], &[x], &["y"]).unwrap();
}
