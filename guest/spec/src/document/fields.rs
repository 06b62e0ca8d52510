//! Every field of a spec, as serde writes it, with values it must not have: a field added later has to be judged here.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::{tests::sample, *};

/// What a field must not hold.
enum Wrong {
    /// These, and the empty string where it is text.
    Values(Vec<Value>),
    /// These; the empty string has a meaning of its own.
    ButEmptyMeans(&'static str, Vec<Value>),
    /// Nothing is wrong.
    Nothing(&'static str),
}

fn text(values: &[&str]) -> Vec<Value> {
    values.iter().map(|value| Value::String((*value).into())).collect()
}

fn numbers(values: &[i64]) -> Vec<Value> {
    values.iter().copied().map(Value::Integer).collect()
}

fn rules() -> BTreeMap<&'static str, Wrong> {
    use Wrong::{ButEmptyMeans, Nothing, Values};
    let no_names = || text(&["../x", ".x", "-x", "a/b", "a b", "a\n", &"x".repeat(65)]);
    let names = || Values(no_names());
    let places = || {
        let owned = ["/proc", "/proc/1", "/sys", "/dev", "/dev/shm", "/run/secrets", "/run/secrets/x", "/run/coffer"];
        let crooked = ["x", "/", "//", "/a/", "/a/../b", "/a//b", "/a\0"];
        [owned.as_slice(), &crooked].concat()
    };
    let digits = |length: usize| {
        let (short, upper) = ("a".repeat(length - 1), "A".repeat(length));
        text(&[&short, &upper, &"g".repeat(length), "00"])
    };
    let long = format!("A={}", "x".repeat(128 * 1024));
    let no_places = || {
        let plain = ["host", ":1", "host:", "host:0", "host:65536", "a b:1", "a\n:1", "http://a:1", "a/b:1", "u@a:1"];
        let odd = ["host:+80", "host:٣", "a\u{202e}b:1", "a?b:1", "a#b:1", "[::1:1", "::1:1", "[host]:1", "[]:1"];
        [&plain[..], &odd].concat()
    };
    let mut rules = BTreeMap::from([
        ("version", Values(numbers(&[0, 2]))),
        ("tenant", names()),
        ("tee", Values(text(&["sev", "SNP"]))),
        ("host_may", Values(text(&["inject", "unseal", "everything", "none"]))),
        ("inject", names()),
        ("image.reference", Values(text(&["a\nb", "\u{1b}[2J"]))),
        ("image.config_digest", Values(text(&["sha256:", "sha256:00", &format!("sha512:{}", "0".repeat(64))]))),
        ("image.manifest_digest", Values(text(&["sha256:", &"0".repeat(64), &format!("sha256:{}", "A".repeat(64))]))),
        ("root.scratch.kind", Values(text(&["nfs"]))),
        ("root.scratch.bytes", Values(numbers(&[0, -1, 4095, (1 << 20) + 1, (64 << 30) + 4096]))),
        ("root.read_only", Nothing("it may be written to, or may not")),
        ("process.argv", Values(text(&["a\0", &long]))),
        ("process.env", Values(text(&["A", "=x", "A=\0", &long]))),
        ("process.cwd", Values(text(&["tmp", "/a\0"]))),
        ("process.user", Values(text(&[":", "app:", ":mail", "a:b:c", "a\nb"]))),
        ("process.stop_signal", Values(numbers(&[0, -1, 65]))),
        ("process.hostname", names()),
        ("process.domainname", Values(text(&["", ".", "a..b", "-a", "a b", "a\nb", &["a"; 33].join(".")]))),
        ("process.tty", Nothing("it has one, or has not")),
        ("process.stdin_open", Nothing("it is open, or at its end")),
        ("process.init", Nothing("there is one, or is not")),
        ("process.rights.capabilities", Values(text(&["SYS_ADMIN", "CAP_CHOWN", "kill", "ALL"]))),
        ("process.rights.no_new_privileges", Nothing("programs get more, or do not")),
        ("process.rights.groups", Values(text(&["a:b", "a\nb"]))),
        ("process.rights.limits.of", Values(text(&["core", "NOFILE"]))),
        ("process.rights.limits.soft", Values(numbers(&[-1, 9001]))),
        ("process.rights.limits.hard", Values(numbers(&[-1, 4]))),
        ("process.rights.programs", Values(numbers(&[0, -1]))),
        ("kbs.address", Values(text(&no_places()))),
        ("kbs.spki", Values(text(&["00", &"0".repeat(64)]))),
        ("secrets.from", Values(text(&["kbs:///a/b", "http:///a/b/c", "kbs:///a/../c", "kbs://host/a/b/c"]))),
        ("secrets.mode", Values(text(&["400", "0800", "0200", "4755", "u=r"]))),
        ("secrets.uid", Values(numbers(&[-1, 4_294_967_295, 4_294_967_296]))),
        ("secrets.gid", Values(numbers(&[-1, 4_294_967_295]))),
        ("secrets.changed.signal", Values(numbers(&[0, -1, 65]))),
        ("secrets.changed.command", Values(text(&["a\0", &long]))),
        ("secrets.to.file", names()),
        ("secrets.to.env", Values([no_names(), text(&["A-B", "A.B", "1A", "HOME", "HOSTNAME", "PATH"])].concat())),
        ("owners.key", Values(digits(64))),
        ("owners.may", Values(text(&["stop", "stats", "everything", "none"]))),
        ("owner_authority.key", Values(text(&["04", &"0".repeat(194), &"04".repeat(97)]))),
        ("owner_authority.name", names()),
        ("owner_authority.sequence", Values(numbers(&[-1, 1 << 53]))),
        ("owner_authority.kept", Values(text(&["kbs:///a/b", "http:///a/b/c"]))),
        ("mounts.path", Values(text(&places()))),
        ("mounts.tmpfs_bytes", Values(numbers(&[0, -1]))),
        ("mounts.noexec", Nothing("programs may start from a tmpfs, or may not")),
        ("mounts.read_only", Nothing("it may be written to, or may not")),
        ("mounts.mode", Values(text(&["777", "2755", "4755", "01777", "0778", "rwx"]))),
        ("mounts.uid", Values(numbers(&[-1, 4_294_967_295, 4_294_967_296]))),
        ("mounts.gid", Values(numbers(&[-1, 4_294_967_295]))),
        (
            "sysctls.name",
            Values(text(&["kernel.core_pattern", "vm.swappiness", "net", "net..x", "net.core.bpf_jit_enable", "a/b"])),
        ),
        ("sysctls.value", Values(text(&["1\n2", "ä", &"x".repeat(257)]))),
        ("shm_bytes", Values(numbers(&[0, -1]))),
        ("volumes.path", Values(text(&[places(), vec!["/run"]].concat()))),
        ("sealed_volumes.name", names()),
        ("sealed_volumes.path", Values(text(&[places(), vec!["/run"]].concat()))),
        ("sealed_volumes.bytes", Values(numbers(&[0, -1, 4096, (16 << 20) + 512, (64 << 30) + 4096]))),
        ("sealed_volumes.policy", Values(text(&["signer", "chip-only", "anyone"]))),
        ("sealed_volumes.unclean", Values(text(&["ignore", "true"]))),
        ("sealed_volumes.rollback_protected", Wrong::Values(vec![Value::Boolean(true)])),
        ("sealed_volumes.read_only", Nothing("it may be written to, or may not")),
        ("sealed_volumes.begins_empty", Nothing("it begins with what the image has, or empty")),
        ("volumes.kind", Values(text(&["link"]))),
        ("ingress.port", Values(numbers(&[0, -1, 65536]))),
        ("ingress.clients", Values(text(&["everyone", "keys"]))),
        ("ingress.clients.keys", Values(text(&["00", &"0".repeat(64)]))),
        ("peers.name", names()),
        ("peers.listen", Values(numbers(&[0, -1, 65536, 8080, 8006]))),
        ("peers.port", Values(numbers(&[0, -1, 65536]))),
        ("peers.address", Values(text(&no_places()))),
        (
            "network.address",
            Values(text(&["10.0.2", "10.0.2.0", "10.0.2.255", "127.0.0.1", "169.254.0.9", "224.0.0.1"])),
        ),
        ("network.prefix", Values(numbers(&[0, 7, 31, 32, 33, 255, 256, -1]))),
        ("network.gateway", Values(text(&["10.0.2.15", "10.0.3.2", "10.0.2.0", "127.0.0.1", "fe80::1"]))),
        ("network.dns", Values(text(&["dns", "0.0.0.0", "127.0.0.53", "169.254.169.254", "255.255.255.255"]))),
        ("network.search", Values(text(&["", ".", "a..b", "a b", "a\nb", &"a".repeat(64)]))),
        ("network.options", Values(text(&["", "a b", "ndots:", "ndots:x", "Rotate"]))),
        ("network.hosts.name", names()),
        ("network.hosts.address", Values(text(&["::1", "db", "1.2.3.4.5"]))),
        ("network.rules.neighbours", Values(text(&["none", "Reached"]))),
        ("network.rules.tcp", Values(numbers(&[0, -1, 65536]))),
        ("network.rules.udp", Values(numbers(&[0, -1, 65536]))),
        ("audiences", Values(text(&["a\nb", "a b", "ä", &"x".repeat(257)]))),
        ("coco_routes", Nothing("they are there, or not")),
        ("floors.not_before", Nothing("every number of seconds is a time")),
        ("floors.seal.min_tcb", ButEmptyMeans("no floor", digits(16))),
        ("floors.svn.id_key_digest", Values([digits(96), text(&[&"0".repeat(96)])].concat())),
        ("floors.svn.min", Nothing("every security version is one")),
    ]);
    for (table, inside, below) in [("ingress", "198.51.100.1", 8079), ("egress", "192.0.2.9", 122)] {
        let under = |field: &str| -> &'static str { format!("network.rules.{table}.{field}").leak() };
        rules.insert(under("address"), Values(text(&[inside, "::", "192.0.2"])));
        rules.insert(under("prefix"), Values(numbers(&[0, 33, 256, -1])));
        rules.insert(under("protocol"), Values(text(&["icmp", "sctp", "TCP"])));
        rules.insert(under("ports.first"), Values(numbers(&[0, 9000, -1])));
        rules.insert(under("ports.last"), Values(numbers(&[0, below, 65536])));
    }
    for table in ["peers.guests", "ingress.clients.guests"] {
        let under = |field: &str| -> &'static str { format!("{table}.{field}").leak() };
        rules.insert(under("measured.measurement"), Values([digits(96), text(&[&"0".repeat(96)])].concat()));
        rules.insert(under("measured.workload"), Values([digits(64), text(&[&"0".repeat(64)])].concat()));
        rules.insert(under("signed.author_key"), Values([digits(96), text(&[&"0".repeat(96)])].concat()));
        rules.insert(under("signed.family_id"), Values(digits(32)));
        rules.insert(under("signed.image_id"), Values(digits(32)));
        rules.insert(under("signed.min_svn"), Nothing("every security version is one"));
        rules.insert(under("simulators"), Values(text(&["00", &"0".repeat(64)])));
        rules.insert(under("milan_chip_keys_can_be_extracted"), Nothing("they are believed, or not"));
    }
    for [algorithm, block_size, data_blocks, hash_start, root_hash, salt] in [
        [
            "root.verity.algorithm",
            "root.verity.block_size",
            "root.verity.data_blocks",
            "root.verity.hash_start",
            "root.verity.root_hash",
            "root.verity.salt",
        ],
        [
            "volumes.verity.algorithm",
            "volumes.verity.block_size",
            "volumes.verity.data_blocks",
            "volumes.verity.hash_start",
            "volumes.verity.root_hash",
            "volumes.verity.salt",
        ],
    ] {
        rules.extend([
            (algorithm, Values(text(&["sha512"]))),
            (block_size, Values(numbers(&[0, 512, 8192]))),
            (data_blocks, Values(numbers(&[0, -1, (1 << 40) + 1]))),
            (hash_start, Values(numbers(&[0, 9, (1 << 40) + 1]))),
            (root_hash, Values(digits(64))),
            (salt, ButEmptyMeans("no salt", text(&["a", "AB", "gg", &"ab".repeat(257)]))),
        ]);
    }
    rules
}

/// Each place of a leaf: its name without positions, and how to get there.
fn leaves(value: &Value, name: &str, path: &[String], found: &mut Vec<(String, Vec<String>)>) {
    let mut below = |step: String, name: String, value: &Value| leaves(value, &name, &[path, &[step]].concat(), found);
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                below(key.clone(), name, value);
            }
        }
        Value::Array(array) => {
            array.iter().enumerate().for_each(|(index, value)| below(index.to_string(), name.to_owned(), value));
        }
        _ => found.push((name.to_owned(), path.to_vec())),
    }
}

fn place<'a>(value: &'a mut Value, path: &[String]) -> &'a mut Value {
    path.iter().fold(value, |value, step| match value {
        Value::Array(array) => &mut array[step.parse::<usize>().unwrap()],
        other => other.get_mut(step).unwrap(),
    })
}

fn parse(value: &Value) -> Result<Document, SpecError> {
    let mut outer = Table::new();
    outer.insert("version".into(), INITDATA_VERSION.into());
    outer.insert("algorithm".into(), ALGORITHM.into());
    let inner = toml::to_string(value).unwrap();
    outer.insert("data".into(), Value::Table(Table::from_iter([("workload.toml".to_owned(), inner.into())])));
    Document::parse(toml::to_string(&outer).unwrap().into_bytes())
}

#[test]
fn every_field_is_judged_and_a_wrong_value_is_refused_by_its_name() {
    let value = Value::try_from(sample()).unwrap();
    assert!(parse(&value).is_ok());
    let mut found = Vec::new();
    leaves(&value, "", &[], &mut found);
    let rules = rules();
    let there: BTreeSet<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    let judged: BTreeSet<&str> = rules.keys().copied().collect();
    assert_eq!(there, judged, "a field of the spec has no rule here, or a rule no field");
    for (name, path) in &found {
        let is_text = place(&mut value.clone(), path).is_str();
        let empty = || is_text.then(|| Value::String(String::new()));
        let (wrong, right) = match &rules[name.as_str()] {
            Wrong::Values(values) => (values.iter().cloned().chain(empty()).collect(), None),
            Wrong::ButEmptyMeans(meaning, values) => {
                assert!(!meaning.is_empty(), "{name}");
                (values.clone(), empty())
            }
            Wrong::Nothing(why) => {
                assert!(!why.is_empty(), "{name}");
                (Vec::new(), None)
            }
        };
        let with = |other: &Value| {
            let mut changed = value.clone();
            *place(&mut changed, path) = other.clone();
            parse(&changed)
        };
        for other in wrong {
            // An argument may be empty; a program may not.
            if matches!(name.as_str(), "process.argv" | "secrets.changed.command")
                && path.last().is_some_and(|index| index != "0")
                && other.as_str() == Some("")
            {
                continue;
            }
            let refused = with(&other).err().unwrap_or_else(|| panic!("{name} = {other} was taken"));
            // A table that is read as a whole (`kind` first) is named in place of its key.
            let (table, last) = name.rsplit_once('.').unwrap_or((name, name));
            let told = refused.to_string();
            assert!(told.contains(last) || told.contains(table), "{name} = {other}: {told}");
        }
        if let Some(right) = right {
            assert!(with(&right).is_ok(), "{name} = {right}");
        }
    }
}

#[test]
fn a_list_that_names_something_twice_is_refused_by_its_name() {
    let value = Value::try_from(sample()).unwrap();
    let lists = [
        "host_may",
        "inject",
        "process.env",
        "kbs.spki",
        "secrets",
        "owners",
        "owners.0.may",
        "mounts",
        "volumes",
        "sealed_volumes",
        "ingress",
    ];
    for list in lists.into_iter().chain([
        "ingress.1.clients.keys",
        "audiences",
        "network.dns",
        "network.search",
        "network.options",
        "network.hosts",
        "network.rules.tcp",
        "network.rules.udp",
        "network.rules.ingress",
        "network.rules.egress",
        "peers",
        "peers.0.guests.measured",
        "peers.0.guests.signed",
        "ingress.2.clients.guests.simulators",
    ]) {
        let mut changed = value.clone();
        let path: Vec<String> = list.split('.').map(str::to_owned).collect();
        let array = place(&mut changed, &path).as_array_mut().unwrap();
        array.truncate(1);
        array.push(array[0].clone());
        let refused = parse(&changed).err().unwrap_or_else(|| panic!("{list} was taken"));
        assert!(refused.to_string().contains(path.last().unwrap()), "{list}: {refused}");
    }
}
