use super::*;

fn file(text: &str) -> ConfigFile {
    toml::from_str(text).unwrap()
}

#[test]
fn names_every_mistake_at_once() {
    let config = file(
        "listen = \"here\"\nadmin_listen = \"127.0.0.1:0\"\nadmins = [{ name = \"a\", key = \"00\" }]\n\
         [tenants.acme]\nsimulated_anchors = [\"zz\"]\n[policies]\ndefault = \"x.rego\"\nlax = \"missing.rego\"\n\
         [limits]\nconnections = 0\n",
    );
    let Err(ConfigError::Mistakes(mistakes)) = config.resolve(Path::new("/nonexistent")) else {
        panic!("accepted");
    };
    assert_eq!(mistakes.len(), 6, "{mistakes:#?}");
}

#[test]
fn what_contradicts_itself_is_a_mistake() {
    let (key, other) = ("ab".repeat(32), "cd".repeat(32));
    let mistakes = |more: &str| {
        let text = format!("listen = \"127.0.0.1:1\"\nadmin_listen = \"127.0.0.1:2\"\n{more}");
        match file(&text).resolve(Path::new("/nonexistent")) {
            Err(ConfigError::Mistakes(mistakes)) => mistakes,
            _ => panic!("accepted: {more}"),
        }
    };
    for (more, wanted) in [
        (
            format!("admins = [{{ name = \"a\", key = \"{key}\" }}, {{ name = \"a\", key = \"{other}\" }}]"),
            "\"a\" stands twice",
        ),
        (
            format!("admins = [{{ name = \"a\", key = \"{key}\" }}, {{ name = \"A\", key = \"{other}\" }}]"),
            "\"A\" stands twice",
        ),
        (format!("admins = [{{ name = \"local uid 0\", key = \"{key}\" }}]"), "admins[0].name"),
        (format!("admins = [{{ name = \"coffer-kbs\", key = \"{key}\" }}]"), "admins[0].name"),
        ("[admin_socket]\nrole = \"root\"".to_owned(), "admin_socket.role"),
        ("[admin_socket]\nrole = \"owner\"\ntenant = \"a/b\"".to_owned(), "admin_socket.tenant"),
        (format!("admins = [{{ name = \" \", key = \"{key}\" }}]"), "admins[0].name"),
        (format!("admins = [{{ name = \"s\u{202e}b\", key = \"{key}\" }}]"), "\"s\\u{202e}b\""),
        (format!("[tenants.acme]\nsimulated_anchors = [\"{key}\", \"{key}\"]"), "simulated_anchors[1]"),
        ("endorsements = [\"a.pem\", \"a.pem\"]".to_owned(), "endorsements[1]: a.pem stands twice"),
        ("[limits]\nconnections = 1\nunattested = 64".to_owned(), "limits.unattested is 64"),
        ("[kds]".to_owned(), "kds names no service"),
        ("[kds]\nservice = \"http://mirror.example\"".to_owned(), "kds.service: a mirror is spoken to in https"),
        ("[kds]\nsimulated_service = \"http://127.0.0.1:1\"".to_owned(), "no tenant lists a simulated root"),
    ] {
        let found = mistakes(&more);
        assert!(found.iter().any(|one| one.contains(wanted)), "{wanted}: {found:#?}");
    }
}

#[test]
fn refuses_unknown_keys() {
    assert!(toml::from_str::<ConfigFile>("listen = \"a\"\nadmin_listen = \"b\"\nskip_checks = true\n").is_err());
}

#[test]
fn an_empty_list_of_operators_is_no_way_to_say_nobody() {
    let read = |more: &str| toml::from_str::<ConfigFile>(&format!("listen = \"a\"\nadmin_listen = \"b\"\n{more}"));
    assert!(read("").unwrap().admins.is_empty());
    let error = read("admins = []").unwrap_err().to_string();
    assert!(error.contains("admins is an empty list"), "{error}");
}

#[test]
fn loads_policies_beside_the_shipped_one() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("strict.rego"), "package strict\nallow := false\n").unwrap();
    let config =
        file("listen = \"127.0.0.1:1\"\nadmin_listen = \"127.0.0.1:2\"\n[policies]\nstrict = \"strict.rego\"\n");
    assert_eq!(config.resolve(folder.path()).ok().unwrap().policies.names(), ["default", "strict"]);
}

/// Every key there is. No `..`: a new one must be thought of here.
fn full() -> ConfigFile {
    ConfigFile {
        listen: "127.0.0.1:1".into(),
        admin_listen: "127.0.0.1:2".into(),
        admins: vec![AdminEntry { name: "admin".into(), key: "01".repeat(32) }],
        tenants: BTreeMap::from([(
            "acme".into(),
            TenantEntry { simulated_anchors: vec!["02".repeat(32)], floor: Some("strict".into()) },
        )]),
        policies: BTreeMap::from([("strict".into(), "strict.rego".into())]),
        endorsements: vec!["list.crl".into()],
        limits: LimitsEntry {
            connections: 1,
            unattested: 1,
            unattested_seconds: 1,
            connections_per_source: 1,
            new_per_second_per_source: 1,
            requests_per_second_per_guest: 1,
        },
        metrics_listen: Some("127.0.0.1:3".into()),
        floor: Some("strict".into()),
        floor_waivers: vec!["milan-chip-keys-can-be-extracted".into()],
        revocation_waivers: vec!["evidence-without-a-chip-counts-while-chips-are-revoked".into()],
        admin_socket: Some(AdminSocketEntry { role: "operator".into(), tenant: Some("acme".into()) }),
        kds: Some(KdsEntry {
            service: Some("https://mirror.example".into()),
            simulated_service: Some("http://127.0.0.1:4".into()),
            ..KdsEntry::default()
        }),
        checkpoint: Some("elsewhere/checkpoint".into()),
    }
}

/// Every value in it with its road there, and the same document with that value emptied.
fn emptied(value: &toml::Value, road: &str, all: &mut Vec<(String, toml::Value)>) {
    let below = |key: &str| if road.is_empty() { key.to_owned() } else { format!("{road}.{key}") };
    match value {
        toml::Value::String(_) => all.push((road.into(), toml::Value::String(String::new()))),
        toml::Value::Integer(_) => all.push((road.into(), toml::Value::Integer(0))),
        toml::Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                let mut inner = Vec::new();
                emptied(item, &format!("{road}[{at}]"), &mut inner);
                for (road, changed) in inner {
                    let mut items = items.clone();
                    items[at] = changed;
                    all.push((road, toml::Value::Array(items)));
                }
            }
        }
        toml::Value::Table(table) => {
            for (key, item) in table {
                let mut inner = Vec::new();
                emptied(item, &below(key), &mut inner);
                for (road, changed) in inner {
                    let mut table = table.clone();
                    table.insert(key.clone(), changed);
                    all.push((road, toml::Value::Table(table)));
                }
            }
        }
        other => panic!("{road}: say what an empty {other:?} is"),
    }
}

#[test]
fn an_empty_text_and_a_zero_are_refused_by_name_wherever_they_stand() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("strict.rego"), "package strict\nallow := false\n").unwrap();
    let mistakes_of = |value: &toml::Value| {
        let file: ConfigFile = value.clone().try_into().unwrap();
        match file.resolve(folder.path()) {
            Err(ConfigError::Mistakes(mistakes)) => mistakes,
            Err(other) => panic!("{other}"),
            Ok(_) => Vec::new(),
        }
    };
    let good = toml::Value::try_from(full()).unwrap();
    let usual = mistakes_of(&good);
    assert!(usual.iter().all(|mistake| mistake.starts_with("endorsements ")), "{usual:?}");
    let mut all = Vec::new();
    emptied(&good, "", &mut all);
    assert!(all.len() >= 13, "{all:?}");
    for (road, document) in all {
        let mistakes = mistakes_of(&document);
        assert!(mistakes.iter().any(|mistake| mistake.contains(&road)), "{road}: {mistakes:?}");
    }
}

#[test]
fn what_contradicts_itself_is_refused_by_name() {
    let refused = |change: fn(&mut ConfigFile), word: &str| {
        let mut file = full();
        file.endorsements.clear();
        file.policies.clear();
        assert!(file.resolve(Path::new("/")).is_ok());
        change(&mut file);
        let error = file.resolve(Path::new("/")).err().unwrap().to_string();
        assert!(error.contains(word), "{error}");
    };
    let twice: fn(&mut ConfigFile) = |file| {
        let again = AdminEntry { name: "other".into(), ..file.admins[0].clone() };
        file.admins.push(again);
    };
    refused(twice, "admins[1].key is listed twice");
    refused(|file| file.admin_listen.clone_from(&file.listen), "listen and admin_listen are both");
    refused(|file| file.admins[0].key = "00".repeat(32), "zero digest");
    let amd: fn(&mut ConfigFile) = |file| {
        let amd = vec![amd_root(ProductLine::Milan).to_string()];
        file.tenants.insert("acme".into(), TenantEntry { simulated_anchors: amd, floor: None });
    };
    refused(amd, "tenants.acme.simulated_anchors[0] is AMD's own root");
}
