use core::net::Ipv4Addr;

use coffer_verifier::abi::{FamilyId, HostData, ImageId, KeyDigest, Measurement, SpkiDigest};
use toml::Value;

use super::*;
use crate::{
    Capability, CardProtocol, CardRule, CardRules, ConfigDigest, Guests, HostEntry, HostMay, Image, Ingress,
    IngressClients, ManifestDigest, Measured, Mount, Neighbours, Network, OnChange, OwnerMay, Peer, Ports, Process,
    Resource, ResourceLimit, Rights, Root, Scratch, SealFloors, SealedVolume, SecretTarget, SecretWanted, SignedLaunch,
    SvnFloor, Tee, Unclean, VerityTable, Volume, VolumeKind, VolumePolicy,
    sample::{name, tenant},
};

/// Says something in every field, so that each has something to change.
pub fn sample() -> WorkloadSpec {
    let verity = |root_hash: &str| VerityTable {
        algorithm: "sha256".into(),
        block_size: 4096,
        data_blocks: 10,
        hash_start: 11,
        salt: "5a".into(),
        root_hash: root_hash.repeat(32),
    };
    WorkloadSpec {
        version: 1,
        tenant: tenant("default"),
        tee: Tee::Simulated,
        host_may: HostMay::parse("stop,stats").unwrap(),
        inject: vec![name("token")],
        image: Image {
            reference: "registry.test/app:1".into(),
            config_digest: ConfigDigest::new([6; 32]),
            manifest_digest: Some(ManifestDigest::new([8; 32])),
        },
        root: Root { verity: verity("ab"), scratch: Scratch::Disk { bytes: 1 << 20 }, read_only: true },
        process: Process {
            argv: vec!["/bin/true".into(), "--now".into()],
            env: vec!["PATH=/bin".into()],
            cwd: "/".into(),
            user: "0:0".into(),
            stop_signal: 15,
            hostname: name("box"),
            domainname: Some("corp.example".parse().unwrap()),
            tty: true,
            stdin_open: true,
            init: true,
            rights: Rights {
                capabilities: Some(vec![Capability::Chown, Capability::Kill]),
                no_new_privileges: true,
                groups: vec!["44".into(), "mail".into()],
                limits: vec![ResourceLimit { of: Resource::Nofile, soft: Some(5), hard: Some(9000) }],
                programs: Some(70),
            },
        },
        kbs: Some(crate::KbsPin {
            address: "127.0.0.1:4443".into(),
            spki: vec![SpkiDigest::new([7; 32]), SpkiDigest::new([8; 32])],
        }),
        secrets: vec![
            SecretWanted {
                mode: "0440".parse().unwrap(),
                uid: Some(5),
                gid: Some(6),
                changed: Some(OnChange::Signal(1)),
                ..SecretWanted::new("kbs:///default/app/key".parse().unwrap(), SecretTarget::File(name("key")))
            },
            SecretWanted::new("kbs:///default/app/word".parse().unwrap(), SecretTarget::Env(name("WORD"))),
            SecretWanted {
                changed: Some(OnChange::Command(vec!["/bin/reload".into(), "now".into()])),
                ..SecretWanted::new("kbs:///default/app/cert".parse().unwrap(), SecretTarget::File(name("cert")))
            },
        ],
        owners: vec![crate::Owner { key: SpkiDigest::new([9; 32]), may: OwnerMay::parse("inject").unwrap() }],
        owner_authority: Some(crate::OwnerAuthority {
            key: crate::AuthorityKey(
                coffer_verifier::P384PublicKey::from_sec1(&hex::decode(GENERATOR).unwrap()).unwrap(),
            ),
            name: name("prod"),
            sequence: 3,
            kept: Some("kbs:///default/owners/prod".parse().unwrap()),
        }),
        mounts: vec![Mount {
            path: "/tmp".into(),
            tmpfs_bytes: 4096,
            noexec: true,
            read_only: true,
            mode: "0750".parse().unwrap(),
            uid: 7,
            gid: 8,
        }],
        shm_bytes: 1 << 20,
        sysctls: vec!["net.core.somaxconn=512".parse().unwrap()],
        ingress: vec![
            Ingress { port: 8080, clients: IngressClients::Anyone },
            Ingress { port: 22, clients: IngressClients::Keys(vec![SpkiDigest::new([9; 32])]) },
            Ingress { port: 23, clients: IngressClients::Guests(guests()) },
        ],
        peers: vec![Peer {
            name: name("db"),
            listen: 5432,
            address: "127.0.0.1:8443".into(),
            port: 5432,
            guests: guests(),
        }],
        network: Some(Network {
            search: vec!["corp.example".parse().unwrap()],
            options: vec!["ndots:2".parse().unwrap()],
            hosts: vec![HostEntry { name: name("db"), address: Ipv4Addr::new(192, 0, 2, 9) }],
            rules: Some(card_rules()),
            ..Network::user()
        }),
        volumes: vec![Volume { path: "/etc/app".into(), kind: VolumeKind::Folder, verity: verity("cd") }],
        data_volumes: Vec::new(),
        sealed_volumes: vec![SealedVolume {
            name: name("db"),
            path: "/srv/db".into(),
            bytes: 16 << 20,
            policy: VolumePolicy::MeasurementAndChip,
            unclean: Unclean::Recover,
            rollback_protected: false,
            read_only: true,
            begins_empty: true,
        }],
        audiences: vec!["https://audience.test".into()],
        coco_routes: true,
        floors: crate::Floors {
            not_before: 1000,
            seal: SealFloors { min_tcb: "0403000000000201".into() },
            svn: Some(SvnFloor { id_key_digest: KeyDigest::new([0xef; 48]), min: 3 }),
        },
    }
}

/// P-384's base point (FIPS 186-4, D.1.2.4).
const GENERATOR: &str = "04aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7\
    3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f";

fn card_rules() -> CardRules {
    let of = |address: [u8; 4], protocol, (first, last)| CardRule {
        address: address.into(),
        prefix: 24,
        protocol: Some(protocol),
        ports: Some(Ports { first, last }),
    };
    CardRules {
        neighbours: Neighbours::KeptApart,
        tcp: vec![80, 443],
        udp: vec![53, 5353],
        ingress: vec![of([198, 51, 100, 0], CardProtocol::Tcp, (8080, 8081))],
        egress: vec![of([192, 0, 2, 0], CardProtocol::Udp, (123, 124))],
    }
}

fn guests() -> Guests {
    Guests {
        measured: vec![Measured { measurement: Measurement::new([1; 48]), workload: HostData::new([2; 32]) }],
        signed: vec![SignedLaunch {
            author_key: KeyDigest::new([3; 48]),
            family_id: FamilyId::new([4; 16]),
            image_id: ImageId::new([5; 16]),
            min_svn: 6,
        }],
        simulators: vec![SpkiDigest::new([7; 32])],
        milan_chip_keys_can_be_extracted: true,
    }
}

#[test]
fn parses_what_it_writes() {
    let document = Document::write(&sample()).unwrap();
    let again = Document::parse(document.bytes().to_vec()).unwrap();
    assert_eq!(again, document);
    assert_eq!(again.digest(), WorkloadDigest::of(document.bytes()));
}

#[test]
fn refuses_unknown_keys_and_versions() {
    let document = Document::write(&sample()).unwrap();
    let text = String::from_utf8(document.bytes().to_vec()).unwrap();
    for (from, to) in [
        ("version = \"0.1.0\"", "version = \"0.2.0\""),
        ("algorithm = \"sha256\"", "algorithm = \"sha384\""),
        ("version = 1\n", "version = 2\n"),
        ("tenant = ", "surprise = 1\ntenant = "),
        ("tee = \"simulated\"", "tee = \"pretend\""),
    ] {
        assert!(text.contains(from), "{from}");
        assert!(Document::parse(text.replacen(from, to, 1).into_bytes()).is_err(), "{to}");
    }
}

#[test]
fn refuses_secrets_without_a_tee_or_a_broker() {
    let mut spec = sample();
    spec.tee = Tee::None;
    assert!(matches!(Document::write(&spec), Err(SpecError::Field { field: "tee", .. })));
    let mut spec = sample();
    spec.kbs = None;
    assert!(matches!(Document::write(&spec), Err(SpecError::Field { field: "kbs", .. })));
}

#[test]
fn refuses_a_disk_for_writing_of_no_use_and_a_floor_nobody_can_check() {
    for scratch in [
        Scratch::Tmpfs { bytes: 0 },
        Scratch::Tmpfs { bytes: Scratch::LEAST_TMPFS - 1 },
        Scratch::Disk { bytes: 0 },
        Scratch::Disk { bytes: (1 << 20) + 1 },
        Scratch::Disk { bytes: Scratch::MOST_DISK + 4096 },
    ] {
        let mut spec = sample();
        spec.root.scratch = scratch;
        let refused = Document::write(&spec).unwrap_err();
        assert!(matches!(refused, SpecError::Field { field: "root.scratch.bytes", .. }), "{refused}");
    }
    let mut spec = sample();
    (spec.tee, spec.kbs) = (Tee::None, None);
    spec.secrets.clear();
    spec.inject.clear();
    spec.owners.clear();
    assert!(matches!(Document::write(&spec), Err(SpecError::Field { field: "owner_authority", .. })));
    spec.owner_authority = None;
    assert!(matches!(Document::write(&spec), Err(SpecError::Field { field: "sealed_volumes", .. })));
    spec.sealed_volumes.clear();
    assert!(matches!(Document::write(&spec), Err(SpecError::Field { field: "ingress", .. })));
    spec.ingress.clear();
    assert!(matches!(Document::write(&spec), Err(SpecError::Field { field: "peers", .. })));
    spec.peers.clear();
    assert!(matches!(Document::write(&spec), Err(SpecError::Field { field: "network.rules", .. })));
    spec.network = Some(Network { rules: None, ..Network::user() });
    assert!(matches!(Document::write(&spec), Err(SpecError::Field { field: "audiences", .. })));
    spec.audiences.clear();
    assert!(matches!(Document::write(&spec), Err(SpecError::Field { field: "coco_routes", .. })));
    spec.coco_routes = false;
    assert!(matches!(Document::write(&spec), Err(SpecError::Field { field: "floors.svn", .. })));
}

#[test]
fn refuses_volumes_that_hide_something_or_are_too_many() {
    let at = |path: &str| Volume { path: path.into(), ..sample().volumes[0].clone() };
    for path in ["", "x", "/", "/a/../b", "/a//b", "/a/", "/proc", "/run/secrets/x", "/run/coffer", "/dev/shm", "/tmp"]
    {
        let mut spec = sample();
        spec.volumes = vec![at(path)];
        assert!(Document::write(&spec).is_err(), "{path:?}");
    }
    let mut spec = sample();
    spec.sealed_volumes.clear();
    spec.volumes = (0..Volume::MOST).map(|number| at(&format!("/volume-{number}"))).collect();
    assert!(Document::write(&spec).is_ok());
    spec.volumes.push(at("/e"));
    assert!(matches!(
        Document::write(&spec),
        Err(SpecError::Field { field: "volumes, data_volumes and sealed_volumes", .. })
    ));
}

/// One step from a document to a value inside it.
#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Index(usize),
}

fn at<'a>(value: &'a mut Value, path: &[Step]) -> &'a mut Value {
    path.iter().fold(value, |value, step| match step {
        Step::Key(key) => &mut value[key.as_str()],
        Step::Index(index) => &mut value[*index],
    })
}

/// Paths of everything below a value, tables and arrays included.
fn paths(value: &Value, here: &[Step], found: &mut Vec<Vec<Step>>) {
    let mut below = |step: Step, value: &Value| {
        let path = [here, &[step]].concat();
        found.push(path.clone());
        paths(value, &path, found);
    };
    match value {
        Value::Table(table) => {
            assert!(!table.is_empty(), "{here:?} is empty in the sample: give it a value that can change");
            table.iter().for_each(|(key, value)| below(Step::Key(key.clone()), value));
        }
        Value::Array(array) => {
            assert!(!array.is_empty(), "{here:?} is empty in the sample: give it a value that can change");
            array.iter().enumerate().for_each(|(index, value)| below(Step::Index(index), value));
        }
        Value::String(text) => assert!(!text.is_empty(), "{here:?} is empty in the sample"),
        _ => {}
    }
}

/// Values near this one of the same type; what an enum's word may be instead, too.
fn others(value: &Value) -> Vec<Value> {
    const WORDS: [&str; 12] =
        ["snp", "simulated", "stop", "stats", "logs", "exec", "inject", "unseal", "tmpfs", "disk", "folder", "file"];
    match value {
        Value::String(text) => {
            let mut flipped = text.clone().into_bytes();
            let last = flipped.len() - 1;
            flipped[last] ^= 1;
            let flipped = String::from_utf8(flipped).unwrap();
            let mut all = vec![flipped, format!("{text}0"), text[1..].to_owned(), String::new()];
            all.extend(WORDS.iter().filter(|word| *word != text).map(|word| (*word).to_owned()));
            all.into_iter().map(Value::String).collect()
        }
        Value::Integer(number) => [number ^ 1, number + 4096, number * 2, 0].map(Value::Integer).to_vec(),
        Value::Array(array) => {
            let mut all = vec![];
            for index in 0..array.len() {
                let (mut without, mut twice) = (array.clone(), array.clone());
                without.remove(index);
                twice.insert(index, array[index].clone());
                all.extend([Value::Array(without), Value::Array(twice)]);
            }
            // Acts are a set: their order is the one thing that says nothing.
            if !array.iter().all(|word| word.as_str().is_some_and(|word| word.parse::<crate::Act>().is_ok())) {
                all.push(Value::Array(array.iter().rev().cloned().collect()));
            }
            all
        }
        _ => vec![],
    }
}

/// Every field, as serde writes it: a field added later is walked without a word here, and one that serde leaves out
/// does not survive `parses_what_it_writes`.
#[test]
fn every_field_that_changes_changes_the_digest_or_is_refused() {
    let base = Document::write(&sample()).unwrap();
    let value = Value::try_from(sample()).unwrap();
    let mut all = vec![];
    paths(&value, &[], &mut all);
    let (mut accepted, mut refused) = (0, 0);
    let mut judge = |changed: Value, what: &dyn core::fmt::Debug| match changed
        .try_into::<WorkloadSpec>()
        .ok()
        .and_then(|spec| Some((Document::write(&spec).ok()?, spec)))
    {
        Some((document, spec)) => {
            assert_ne!(spec, sample(), "{what:?} means nothing");
            assert_ne!(document.digest(), base.digest(), "{what:?} is not in the digest");
            assert_eq!(Document::parse(document.bytes().to_vec()).unwrap().spec(), &spec, "{what:?}");
            accepted += 1;
        }
        None => refused += 1,
    };
    for path in &all {
        let mut found = value.clone();
        for other in others(at(&mut found, path)) {
            let mut changed = value.clone();
            let place = at(&mut changed, path);
            if *place != other {
                *place = other.clone();
                judge(changed, &(path, other));
            }
        }
        // Leaving a key out is a change like any other.
        if let Some((Step::Key(key), parent)) = path.split_last() {
            let mut changed = value.clone();
            at(&mut changed, parent).as_table_mut().unwrap().remove(key);
            judge(changed, &(path, "removed"));
        }
    }
    assert!(all.len() > 60 && accepted > 80 && refused > 80, "{} {accepted} {refused}", all.len());
}

#[test]
fn one_value_has_one_spelling() {
    let mut spec = sample();
    spec.root.verity.root_hash = "AB".repeat(32);
    assert!(Document::write(&spec).is_err());
    let mut spec = sample();
    spec.floors.seal.min_tcb = "040300000000020A".into();
    assert!(Document::write(&spec).is_err());
}

fn refused(change: impl FnOnce(&mut WorkloadSpec)) -> &'static str {
    let mut spec = sample();
    change(&mut spec);
    match Document::write(&spec) {
        Err(SpecError::Field { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_place_has_one_source() {
    let injects_a_secret = refused(|spec| spec.inject.push(name("key")));
    assert_eq!(injects_a_secret, "inject", "an owner would replace what the broker released");
    assert_eq!(refused(|spec| spec.secrets[1].to = SecretTarget::File(name("key"))), "secrets.to.file");
    assert_eq!(refused(|spec| spec.secrets[0].to = SecretTarget::Env(name("WORD"))), "secrets.to.env");
    assert_eq!(refused(|spec| spec.process.env.push("WORD=mine".into())), "secrets.to.env");
    assert_eq!(refused(|spec| spec.process.env.push("PATH=/sbin".into())), "process.env");
    assert_eq!(
        refused(|spec| spec.mounts[0].path = "/etc/app".into()),
        "mounts.path, volumes.path, data_volumes.path and sealed_volumes.path"
    );
}

#[test]
fn a_variable_has_no_permissions_and_keeps_its_value() {
    let env = |change: fn(&mut SecretWanted)| refused(move |spec| change(&mut spec.secrets[1]));
    assert_eq!(env(|wanted| wanted.mode = "0440".parse().unwrap()), "secrets.mode");
    assert_eq!(env(|wanted| wanted.uid = Some(0)), "secrets.uid");
    assert_eq!(env(|wanted| wanted.gid = Some(0)), "secrets.gid");
    assert_eq!(env(|wanted| wanted.changed = Some(OnChange::Signal(1))), "secrets.changed");
    assert_eq!(
        refused(|spec| spec.secrets[2].changed = Some(OnChange::Command(Vec::new()))),
        "secrets.changed.command"
    );
}

#[test]
fn a_secret_without_wishes_is_written_as_before() {
    let mut spec = sample();
    spec.secrets.truncate(1);
    spec.secrets[0] = SecretWanted::new(spec.secrets[0].from.clone(), spec.secrets[0].to.clone());
    spec.mounts.clear();
    let text = String::from_utf8(Document::write(&spec).unwrap().bytes().to_vec()).unwrap();
    assert!(!["mode", "uid", "gid", "changed"].iter().any(|key| text.contains(&format!("\n{key} ="))), "{text}");
}

#[test]
fn an_injected_value_becomes_a_variable_where_no_other_source_has_it() {
    let mut spec = sample();
    spec.process.env.push("OURS=1".into());
    for (text, may) in [("TOKEN", true), ("_T1", true), ("1T", false), ("a-b", false), ("PATH", false), ("OURS", false)]
    {
        assert_eq!(spec.may_be_variable(&name(text)), may, "{text}");
    }
    assert!(!spec.may_be_variable(&name("WORD")), "the broker's");
}

#[test]
fn what_nobody_could_use_is_no_choice() {
    let plain = |spec: &mut WorkloadSpec| {
        (spec.tee, spec.kbs, spec.floors.svn, spec.owner_authority) = (Tee::None, None, None, None);
        spec.secrets.clear();
    };
    let with_owners = refused(|spec| {
        plain(spec);
        spec.inject.clear();
    });
    assert_eq!(with_owners, "owners");
    let with_names = refused(|spec| {
        plain(spec);
        spec.owners.clear();
    });
    assert_eq!(with_names, "inject");
    assert_eq!(refused(|spec| spec.kbs.as_mut().unwrap().spki.clear()), "kbs.spki");
    assert_eq!(refused(|spec| spec.process.argv.clear()), "process.argv");
}

/// Written by the version before; what is measured must not move under a running fleet.
#[test]
fn a_document_written_before_parses_to_the_same_digest() {
    let before = include_bytes!("../../testdata/spec-before-typed-fields.toml");
    let document = Document::parse(before.to_vec()).unwrap();
    assert_eq!(document.digest(), WorkloadDigest::of(before));
    assert_eq!(document.spec().host_may.to_string(), "stop,stats");
    let again = Document::write(document.spec()).unwrap();
    assert_eq!(again.digest(), document.digest(), "what is written today for the same spec");
}

/// Clients of a port come from outside, and would be answered as the workload is.
#[test]
fn no_port_leads_to_the_agents_own() {
    let mut spec = sample();
    spec.ingress = vec![Ingress { port: crate::COCO_PORT, clients: IngressClients::Anyone }];
    assert!(matches!(Document::write(&spec), Err(SpecError::Field { field: "ingress.port", .. })));
    spec.coco_routes = false;
    assert!(Document::write(&spec).is_ok());
}

#[test]
fn ports_and_their_clients_are_bounded_and_named_once() {
    let port = |port| Ingress { port, clients: IngressClients::Anyone };
    let keys = |count: usize| {
        let key = |number: usize| {
            let mut bytes = [1; 32];
            bytes[..2].copy_from_slice(&u16::try_from(number).unwrap().to_be_bytes());
            SpkiDigest::new(bytes)
        };
        vec![Ingress { port: 1, clients: IngressClients::Keys((0..count).map(key).collect()) }]
    };
    let found = |ingress: Vec<Ingress>| {
        let mut spec = sample();
        spec.ingress = ingress;
        match Document::write(&spec) {
            Ok(_) => "",
            Err(SpecError::Field { field, .. }) => field,
            Err(other) => panic!("{other}"),
        }
    };
    let profile = Ingress { port: 1, clients: IngressClients::Certificate(name("web")) };
    assert_eq!(found(vec![profile.clone()]), "");
    let mut spec = sample();
    (spec.kbs, spec.secrets, spec.ingress, spec.owner_authority) = (None, Vec::new(), vec![profile], None);
    let refused = Document::write(&spec).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refused.contains("ingress.clients.certificate"), "{refused}");
    assert_eq!(found((1..=16).map(port).collect()), "");
    assert_eq!(found((1..=17).map(port).collect()), "ingress");
    assert_eq!(found(vec![port(1), keys(1)[0].clone()]), "ingress.port");
    assert_eq!(found(keys(256)), "");
    for count in [0, 257] {
        assert_eq!(found(keys(count)), "ingress.clients.keys", "{count}");
    }
}

#[test]
fn peers_are_guests_that_somebody_named_at_ports_of_their_own() {
    let refused = |change: &dyn Fn(&mut WorkloadSpec)| {
        let mut spec = sample();
        change(&mut spec);
        match Document::write(&spec) {
            Err(SpecError::Field { field, .. }) => field,
            other => panic!("{:?}", other.map(|document| document.digest())),
        }
    };
    assert_eq!(refused(&|spec| spec.peers[0].guests = Guests::default()), "peers.guests");
    assert_eq!(refused(&|spec| spec.peers[0].guests.measured = vec![guests().measured[0]; 65]), "peers.guests");
    let floors = |spec: &mut WorkloadSpec| {
        let lower = SignedLaunch { min_svn: 1, ..guests().signed[0] };
        spec.peers[0].guests.signed.push(lower);
    };
    assert_eq!(refused(&floors), "peers.guests.signed", "two floors of one guest");
    // Whoever comes in must not go out as this guest.
    assert_eq!(refused(&|spec| spec.peers[0].listen = 23), "peers.listen");
    assert_eq!(refused(&|spec| spec.peers[0].listen = crate::COCO_PORT), "peers.listen");
    let hardware = |spec: &mut WorkloadSpec| (spec.tee, spec.ingress) = (Tee::Snp, Vec::new());
    assert_eq!(refused(&hardware), "peers.guests.simulators", "hardware believes no simulator");
    let many = |spec: &mut WorkloadSpec| {
        let peer = |at: u16| Peer { name: name(&format!("p{at}")), listen: 1000 + at, ..sample().peers[0].clone() };
        spec.peers = (0..9).map(peer).collect();
    };
    assert_eq!(refused(&many), "peers");
    let nobody = |spec: &mut WorkloadSpec| spec.ingress[2].clients = IngressClients::Guests(Guests::default());
    assert_eq!(refused(&nobody), "ingress.clients.guests");
}

#[test]
fn a_bound_on_the_programs_of_a_user_that_root_would_not_feel_is_refused_by_name() {
    let with = |user: &str, of| {
        let mut spec = sample();
        spec.process.user = user.into();
        spec.process.rights.limits = vec![ResourceLimit { of, soft: Some(5), hard: Some(5) }];
        Document::write(&spec)
    };
    for root in ["root", "0", "0:0", "00", "+0", "root:mail"] {
        let refused = with(root, Resource::Nproc).unwrap_err().to_string();
        assert!(refused.contains("nproc=5:5") && refused.contains("--pids-limit"), "{root}: {refused}");
        assert!(with(root, Resource::Nofile).is_ok(), "{root}");
    }
    for other in ["app", "5:0", "rooted", "1000:root"] {
        assert!(with(other, Resource::Nproc).is_ok(), "{other}");
    }
}

#[test]
fn an_authority_has_owners_who_bring_its_lists_or_a_broker_that_keeps_them() {
    let no_broker = refused(|spec| {
        (spec.kbs, spec.secrets) = (None, Vec::new());
        spec.ingress.truncate(1);
    });
    assert_eq!(no_broker, "owner_authority.kept");
    let kept_nowhere = |spec: &mut WorkloadSpec| {
        if let Some(authority) = &mut spec.owner_authority {
            authority.kept = None;
        }
        spec.owners.clear();
    };
    assert_eq!(refused(kept_nowhere), "owners");
}
