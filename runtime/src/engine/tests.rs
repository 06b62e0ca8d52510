use std::collections::BTreeMap;

use coffer_seal::SealPolicy;

use coffer_vmm::net::switch::Rules;

use super::*;
use crate::boxes::{BoxOptions, Timings};
use crate::networks::{BoxNetwork, NetworkError, NetworkIsolation, Wish};
use crate::restart_policy::RestartPolicy;
use crate::state::tests::record;
use crate::state::{BoxState, Ending};
use crate::volumes::BoxVolume;

pub(super) fn engine() -> (tempfile::TempDir, Engine) {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        home: dir.path().join("home"),
        search: Search::default(),
        docker_config: None,
        supervisor: "/nowhere".into(),
    };
    (dir, Engine::new(settings))
}

/// A box in the database and a folder for it, as `create` leaves them.
pub(super) fn recorded(engine: &Engine, name: &str) -> BoxRecord {
    let record = BoxRecord { image: "image:1".into(), created: unix_ms(), ..record(name) };
    engine.state().unwrap().add(&record).unwrap();
    std::fs::create_dir(engine.home().unwrap().box_folder(&record.id)).unwrap();
    record
}

/// A supervisor says that its guest runs.
fn started(engine: &Engine, record: &BoxRecord, now: i64) {
    let timings = engine.find(record.id.as_str()).unwrap().timings;
    engine.state().unwrap().started(&record.id, 1, None, &timings, now).unwrap();
}

#[test]
fn nothing_is_made_before_it_is_needed_and_everything_once() {
    let (dir, engine) = engine();
    assert!(!dir.path().join("home").exists());
    engine.open().unwrap();
    let same = engine.clone();
    recorded(&engine, "web");
    assert_eq!(same.find("web").unwrap().name, "web");
    assert!(engine.find("nosuch").unwrap_err().is_unknown());
}

#[test]
fn an_error_keeps_its_class_and_its_remedy_on_the_way_up() {
    let newer = StartError::from(OpenError::from(StateError::Newer { found: 99 }));
    assert_eq!(newer.class(), Class::Config);
    assert!(newer.hint().unwrap().to_string().contains("--home") && newer.to_string().contains("99"), "{newer}");
    let gone = StopError::from(OpenError::from(StateError::Unknown("web".into())));
    assert_eq!((gone.class(), gone.hint()), (Class::NotFound, Some(Hint::ListBoxes)));
}

#[test]
fn filters_of_a_kind_are_alternatives_and_kinds_add_up() {
    let (_dir, engine) = engine();
    for name in ["web-1", "web-2", "db"] {
        recorded(&engine, name);
    }
    let db = engine.find("db").unwrap();
    engine.state().unwrap().ended(&db.id, &Ending::default(), unix_ms()).unwrap();
    let names = |filter: &Filter| {
        let mut names: Vec<_> = engine.list(filter).unwrap().into_iter().map(|found| found.name).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(&Filter::default()), "db web-1 web-2");
    let by_name = Filter { names: vec!["1".into(), "db".into()], ..Filter::default() };
    assert_eq!(names(&by_name), "db web-1");
    assert_eq!(names(&Filter { states: vec![BoxState::Exited], ..by_name }), "db");
    assert_eq!(names(&Filter { ids: vec![db.id.short().into()], ..Filter::default() }), "db");
}

#[test]
fn labels_are_all_wanted_and_images_ports_and_codes_any() {
    let (_dir, engine) = engine();
    let label = |key: &str, value: Option<&str>| (key.to_owned(), value.map(str::to_owned));
    let mut record = record("web");
    record.image = "docker.io/library/nginx:1.27".into();
    record.options.labels = [("tier".to_owned(), "web".to_owned()), ("job".to_owned(), String::new())].into();
    record.options.publish = crate::publish::Publish::read("127.0.0.1:8080:80").unwrap();
    engine.state().unwrap().add(&record).unwrap();
    recorded(&engine, "newer");
    let found = |filter: Filter| engine.list(&filter).unwrap().iter().any(|found| found.name == "web");
    let labelled = |labels| found(Filter { labels, ..Filter::default() });
    assert!(labelled(vec![label("tier", None), label("job", Some(""))]));
    assert!(!labelled(vec![label("tier", None), label("nosuch", None)]) && !labelled(vec![label("tier", Some("db"))]));
    for (image, is_it) in [
        ("nginx", true),
        ("nginx:1.27", true),
        ("docker.io/library/nginx", true),
        ("nginx:1.2", false),
        ("ngin", false),
    ] {
        assert_eq!(found(Filter { images: vec![image.into()], ..Filter::default() }), is_it, "{image}");
    }
    for (port, is_it) in [(Port::OfHost(8080), true), (Port::OfBox(80), true), (Port::OfHost(80), false)] {
        assert_eq!(found(Filter { ports: vec![port], ..Filter::default() }), is_it);
    }
    assert!(found(Filter { before: Some("newer".into()), ..Filter::default() }));
    assert!(!found(Filter { since: Some("newer".into()), ..Filter::default() }));
    assert!(!found(Filter { exits: vec![0], ..Filter::default() }));
    engine.state().unwrap().ended(&record.id, &Ending::default(), unix_ms()).unwrap();
    assert!(found(Filter { exits: vec![1, 0], ..Filter::default() }));
    assert!(engine.list(&Filter { since: Some("nosuch".into()), ..Filter::default() }).unwrap_err().is_unknown());
}

#[test]
fn a_box_has_another_name_or_keeps_the_one_it_has() {
    let (_dir, engine) = engine();
    let web = recorded(&engine, "web");
    recorded(&engine, "db");
    assert!(matches!(engine.rename("web", "web"), Err(RenameError::Same(_))));
    assert!(matches!(engine.rename("web", "a b"), Err(RenameError::Name(_))));
    assert!(matches!(engine.rename("web", "db"), Err(RenameError::State(StateError::NameInUse { .. }))));
    assert_eq!(engine.find("web").unwrap().id, web.id);
    engine.rename("web", "site").unwrap();
    assert!(engine.find("web").unwrap_err().is_unknown());
    assert_eq!(engine.find("site").unwrap().id, web.id);
    assert_eq!(engine.rename("web", "site").unwrap_err().class(), Class::NotFound);
}

#[tokio::test]
async fn a_prune_takes_what_does_not_run_and_leaves_what_is_being_started() {
    let (_dir, engine) = engine();
    let [starting, up, _old] = ["starting", "up", "old"].map(|name| recorded(&engine, name));
    let folder = |record: &BoxRecord| engine.home().unwrap().box_folder(&record.id);
    let _locks = [&starting, &up].map(|record| crate::lock::BoxLock::take(&folder(record)).unwrap());
    started(&engine, &up, unix_ms());
    std::fs::write(folder(&engine.find("old").unwrap()).join("log"), [7; 10_000]).unwrap();
    assert!(engine.prunable(&Filter::default(), Some(1)).unwrap().is_empty(), "none is that old");
    let found = engine.prunable(&Filter::default(), None).unwrap();
    let pruned = engine.prune(&found).await.unwrap();
    assert_eq!(pruned.boxes, [found[0].id.clone()]);
    assert!(pruned.bytes >= 10_000, "{}", pruned.bytes);
    let mut left: Vec<_> = engine.list(&Filter::default()).unwrap().into_iter().map(|found| found.name).collect();
    left.sort();
    assert_eq!(left, ["starting", "up"]);
    // It was started since it was looked for.
    let pruned = engine.prune(&[starting]).await.unwrap();
    assert_eq!(pruned, Pruned::default());
}

#[tokio::test]
async fn a_prune_takes_the_folder_of_a_box_that_nobody_recorded_unless_one_is_being_made() {
    let (_dir, engine) = engine();
    let kept = recorded(&engine, "kept");
    let home = engine.home().unwrap();
    let [left, held] = [crate::BoxId::random(), crate::BoxId::random()].map(|id| home.box_folder(&id));
    for folder in [&left, &held, &home.boxes().join("none-of-ours")] {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("workload.toml"), [7; 10_000]).unwrap();
    }
    let lock = crate::lock::BoxLock::take(&held).unwrap();
    let making = leftovers::Making::of(home).unwrap();
    assert_eq!(engine.prune(&[]).await.unwrap(), Pruned::default());
    assert!(left.exists(), "it may get its record yet");
    drop(making);
    assert!(engine.prune(&[]).await.unwrap().bytes >= 10_000);
    assert!(!left.exists() && held.exists() && home.box_folder(&kept.id).exists());
    assert!(home.boxes().join("none-of-ours").exists());
    drop(lock);
    engine.prune(&[]).await.unwrap();
    assert!(!held.exists());
}

#[tokio::test]
async fn who_waits_gets_the_code_of_the_last_run_and_nobody_waits_for_what_does_not_run() {
    let (_dir, engine) = engine();
    let record = recorded(&engine, "web");
    assert_eq!(engine.wait("web").await.unwrap(), 0);
    let lock = crate::lock::BoxLock::take(&engine.home().unwrap().box_folder(&record.id)).unwrap();
    started(&engine, &record, unix_ms());
    let waiting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.wait("web").await }
    });
    engine.state().unwrap().ended(&record.id, &Ending { exit_code: 9, ..Ending::default() }, unix_ms()).unwrap();
    drop(lock);
    assert_eq!(waiting.await.unwrap().unwrap(), 9);
    assert_eq!(engine.wait("nosuch").await.unwrap_err().class(), Class::NotFound);
}

#[tokio::test]
async fn a_signal_goes_to_what_runs_and_hears_and_is_the_hosts_to_send() {
    let (_dir, engine) = engine();
    let record = recorded(&engine, "web");
    assert_eq!(engine.kill("web", 9).await.unwrap_err().class(), Class::NotFound);
    let _lock = crate::lock::BoxLock::take(&engine.home().unwrap().box_folder(&record.id)).unwrap();
    started(&engine, &record, unix_ms());
    engine.state().unwrap().set_paused(&record.id, true).unwrap();
    assert!(matches!(engine.kill("web", 1).await, Err(KillError::Stop(StopError::Paused(_)))));
}

#[tokio::test]
async fn a_signal_that_is_not_sent_is_no_stop_by_hand() {
    let (_dir, engine) = engine();
    let record = recorded(&engine, "web");
    let folder = engine.home().unwrap().box_folder(&record.id);
    let document = crate::supervisor::tests::document(coffer_spec::Tee::None);
    std::fs::write(folder.join(crate::boxes::files::SPEC), document.bytes()).unwrap();
    let _lock = crate::lock::BoxLock::take(&folder).unwrap();
    started(&engine, &record, unix_ms());
    // Nobody listens there.
    assert!(engine.kill("web", document.spec().process.stop_signal).await.is_err());
    assert!(!engine.find("web").unwrap().stopped_by_hand);
}

#[test]
fn a_boot_starts_what_its_policy_wants_and_nothing_that_ended_as_it_should() {
    use crate::restart_policy::RestartPolicy::{Always, No, OnFailure, UnlessStopped};
    let (_dir, engine) = engine();
    for (name, policy, code, by_hand) in [
        ("failed", OnFailure(None), 1, false),
        ("done", OnFailure(None), 0, false),
        ("stopped", UnlessStopped, 143, true),
        ("gone", UnlessStopped, 0, false),
        ("always", Always, 0, true),
        ("no", No, 1, false),
    ] {
        let record = recorded(&engine, name);
        engine.set_restart_policy(name, policy).unwrap();
        started(&engine, &record, unix_ms());
        let state = engine.state().unwrap();
        state.ended(&record.id, &Ending { exit_code: code, ..Ending::default() }, unix_ms()).unwrap();
        state.by_hand(&record.id, by_hand).unwrap();
    }
    let mut names: Vec<_> = engine.to_resume().unwrap().into_iter().map(|found| found.name).collect();
    names.sort();
    assert_eq!(names, ["always", "failed", "gone"]);
}

#[test]
fn a_box_that_is_removed_at_its_end_gets_no_policy_that_starts_it_again() {
    let (_dir, engine) = engine();
    let mut record = record("once");
    record.options.remove = true;
    engine.state().unwrap().add(&record).unwrap();
    let error = engine.set_restart_policy("once", RestartPolicy::Always).unwrap_err();
    assert!(matches!(error, UpdateError::Removed(_)) && error.class() == Class::Config, "{error}");
    engine.set_restart_policy("once", RestartPolicy::No).unwrap();
    assert_eq!(engine.find("once").unwrap().options.restart, RestartPolicy::No);
}

#[tokio::test]
async fn a_box_that_does_not_run_is_stopped_and_can_be_removed_once() {
    let (_dir, engine) = engine();
    let record = recorded(&engine, "web");
    let folder = engine.home().unwrap().box_folder(&record.id);
    engine.stop("web", How::Grace(1)).await.unwrap();
    assert!(engine.stop("nosuch", How::Kill).await.unwrap_err().class() == Class::NotFound);
    engine.remove(record.id.short(), false, false).await.unwrap();
    assert!(!folder.exists());
    assert_eq!(engine.remove("web", true, false).await.unwrap_err().class(), Class::NotFound);
}

#[tokio::test]
async fn a_box_that_runs_is_not_removed_unless_it_may_be_killed() {
    let (_dir, engine) = engine();
    let record = recorded(&engine, "web");
    let lock = crate::lock::BoxLock::take(&engine.home().unwrap().box_folder(&record.id)).unwrap();
    started(&engine, &record, unix_ms());
    let error = engine.remove("web", false, false).await.unwrap_err();
    assert!(matches!(error, RemoveError::Running(_)) && error.hint() == Some(Hint::StopFirst));
    assert!(matches!(engine.start("web", None).await, Ok(Started::AlreadyRunning(_))));
    drop(lock);
}

#[tokio::test]
async fn a_missing_program_is_named_before_a_box_is_touched() {
    let (_dir, engine) = engine();
    recorded(&engine, "web");
    let error = engine.start("web", None).await.unwrap_err();
    assert_eq!(error.class(), Class::Platform);
    assert!(error.hint().unwrap().to_string().contains("install"), "{:?}", error.hint());
    assert_eq!(engine.find("web").unwrap().timings, Timings::default());
}

async fn next(events: &mut Events) -> (String, String, serde_json::Value) {
    let waited = tokio::time::timeout(std::time::Duration::from_secs(10), events.next()).await;
    let line = waited.expect("an event").unwrap();
    (line.action, line.boxes[0].name.clone(), line.details.get("exit_code").cloned().unwrap_or_default())
}

#[tokio::test]
async fn what_happens_to_a_box_comes_as_events_in_its_order_and_is_kept() {
    let (_dir, engine) = engine();
    recorded(&engine, "older");
    let mut events = engine.events().unwrap();
    let record = recorded(&engine, "web");
    let folder = engine.home().unwrap().box_folder(&record.id);
    let lock = crate::lock::BoxLock::take(&folder).unwrap();
    let ended = |code| engine.state().unwrap().ended(&record.id, &Ending { exit_code: code, ..Ending::default() }, 1);
    started(&engine, &record, unix_ms());
    engine.state().unwrap().set_paused(&record.id, true).unwrap();
    engine.state().unwrap().set_paused(&record.id, false).unwrap();
    engine.rename("web", "site").unwrap();
    engine.state().unwrap().set_restart_policy(&record.id, RestartPolicy::Always).unwrap();
    engine.state().unwrap().restarting(&record.id, 1, &Ending { exit_code: 3, ..Ending::default() }, 1).unwrap();
    started(&engine, &record, unix_ms());
    ended(0).unwrap();
    drop(lock);
    engine.remove("site", false, false).await.unwrap();
    let none = serde_json::Value::Null;
    let wanted = [
        ("box.create", "web", none.clone()),
        ("box.start", "web", none.clone()),
        ("box.pause", "web", none.clone()),
        ("box.unpause", "web", none.clone()),
        ("box.rename", "site", none.clone()),
        ("box.update", "site", none.clone()),
        ("box.die", "site", 3.into()),
        ("box.start", "site", none.clone()),
        ("box.die", "site", 0.into()),
        ("box.destroy", "site", none),
    ];
    for (action, name, code) in wanted {
        assert_eq!(next(&mut events).await, (action.into(), name.into(), code));
    }
    let mut kept = engine.all_events().unwrap();
    assert_eq!(next(&mut kept).await.1, "older");
    assert_eq!(std::iter::from_fn(|| kept.kept().unwrap()).count(), 10);
}

#[tokio::test]
async fn a_supervisor_that_died_is_an_end_that_is_told() {
    let (_dir, engine) = engine();
    let record = recorded(&engine, "web");
    let mut events = engine.events().unwrap();
    started(&engine, &record, unix_ms());
    // Nobody holds its lock.
    assert_eq!(next(&mut events).await.0, "box.start");
    assert_eq!(next(&mut events).await, ("box.die".into(), "web".into(), 137.into()));
}

#[test]
fn nothing_is_done_that_cannot_be_told() {
    let (_dir, engine) = engine();
    let record = recorded(&engine, "web");
    let trail = engine.home().unwrap().trail();
    std::fs::remove_dir_all(&trail).unwrap();
    std::fs::write(&trail, "in the way").unwrap();
    let refused = engine.rename("web", "site").unwrap_err();
    assert!(refused.class() == Class::Config && refused.to_string().contains("record"), "{refused}");
    assert_eq!(engine.find("web").unwrap().id, record.id);
    // What has happened has happened.
    engine.state().unwrap().ended(&record.id, &Ending::default(), 1).unwrap();
    assert_eq!(engine.find("web").unwrap().state, BoxState::Exited);
}

#[test]
fn what_a_daemon_would_call_can_move_between_its_threads() {
    fn is_send<T: Send>(_: &T) {}
    fn is_sync<T: Send + Sync>() {}
    is_sync::<Engine>();
    let (_dir, engine) = engine();
    let trust = Trust::default();
    is_send(&engine.start("web", None));
    is_send(&engine.stop("web", How::Kill));
    is_send(&engine.restart("web", How::Kill));
    is_send(&engine.remove("web", false, false));
    is_send(&engine.exec("web", ExecRequest::default(), &trust));
    is_send(&engine.logs("web", LogsRequest { follow: true, ..LogsRequest::default() }, &trust));
    is_send(&engine.attest("web", &trust));
    let how = SealAs { policy: SealPolicy::Workload, context: "", counter: SealCounter::None };
    is_send(&engine.seal("web", &how, b"", &trust));
    is_send(&engine.reseal("web", None, "", Vec::new(), &trust));
    is_send(&engine.unseal("web", "", Vec::new(), &trust));
}

/// A box that has volumes, each with a word on whether nobody named it; and whether it goes when it ends.
fn with_volumes(engine: &Engine, name: &str, volumes: &[(&coffer_spec::Name, bool)], remove: bool) -> BoxRecord {
    let of = |(name, anonymous): &(&coffer_spec::Name, bool)| BoxVolume {
        name: (*name).clone(),
        read_only: false,
        anonymous: *anonymous,
    };
    let mut record = BoxRecord { image: "image:1".into(), created: unix_ms(), ..record(name) };
    record.options = BoxOptions { data: volumes.iter().map(of).collect(), remove, ..record.options };
    engine.state().unwrap().add(&record).unwrap();
    std::fs::create_dir(engine.home().unwrap().box_folder(&record.id)).unwrap();
    record
}

#[tokio::test]
async fn a_volume_stays_while_a_box_has_it_and_what_nobody_named_goes_with_its_box() {
    let (_dir, engine) = engine();
    let db: coffer_spec::Name = "db".parse().unwrap();
    engine.create_volume(Some(&db), None, BTreeMap::new()).unwrap();
    let random = || engine.create_volume(None, None, BTreeMap::new()).unwrap().name;
    let (own, left) = (random(), random());
    with_volumes(&engine, "web", &[(&db, false), (&own, true), (&left, true)], false);
    with_volumes(&engine, "other", &[(&left, true)], false);
    let refused = engine.remove_volume(&db).unwrap_err();
    assert!(refused.to_string().contains("db is a volume of web") && refused.class() == Class::Config, "{refused}");
    let dangling = NamedFilter { dangling: Some(true), ..NamedFilter::default() };
    assert!(engine.list_volumes(&dangling).unwrap().is_empty());
    engine.remove("web", false, true).await.unwrap();
    let names = || engine.list_volumes(&NamedFilter::default()).unwrap().into_iter().map(|one| one.volume.name);
    assert_eq!(names().collect::<std::collections::BTreeSet<_>>(), [db.clone(), left.clone()].into());
    engine.remove("other", false, false).await.unwrap();
    assert!(engine.inspect_volume(&left).unwrap().boxes.is_empty(), "nobody asked for its end");
    assert_eq!(engine.prune_volumes(&NamedFilter::default(), false).unwrap().names, [left]);
    assert_eq!(engine.prune_volumes(&NamedFilter::default(), true).unwrap().names, std::slice::from_ref(&db));
    assert_eq!(engine.remove_volume(&db).unwrap_err().class(), Class::NotFound);
}

#[tokio::test]
async fn a_box_of_rm_whose_supervisor_died_takes_its_volumes_along_and_nobody_waits_for_himself() {
    let (_dir, engine) = engine();
    let own = engine.create_volume(None, None, BTreeMap::new()).unwrap().name;
    let record = with_volumes(&engine, "web", &[(&own, true)], true);
    started(&engine, &record, unix_ms());
    // As another command finds it.
    let again = Engine::new(engine.settings().clone());
    let gone = again.remove_volume(&own).unwrap_err();
    assert_eq!(gone.class(), Class::NotFound, "{gone}");
}

#[tokio::test]
async fn networks_are_made_joined_left_and_removed() {
    let (_dir, engine) = engine();
    let name = |text: &str| text.parse::<coffer_spec::Name>().unwrap();
    let make = |text: &str, subnet: Option<&str>| {
        engine.create_network(NetworkRequest {
            name: name(text),
            subnet: subnet.map(|subnet| subnet.parse().unwrap()),
            isolation: NetworkIsolation::Strict,
            rules: Rules::inside(),
            labels: BTreeMap::new(),
        })
    };
    assert_eq!(make("app", None).unwrap().subnet.to_string(), "10.89.0.0/24");
    assert_eq!(make("more", Some("192.168.7.0/29")).unwrap().subnet.to_string(), "192.168.7.0/29");
    for (text, subnet, why) in [
        ("app", None, "already exists"),
        ("none", None, "no name for a network"),
        ("third", Some("192.168.7.0/24"), "which is network more"),
        ("third", Some("127.0.0.0/24"), "loopback"),
    ] {
        let refused = make(text, subnet).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }

    let wish = Wish::default();
    let mut with_card = record("web");
    with_card.options.card = true;
    engine.state().unwrap().add(&with_card).unwrap();
    recorded(&engine, "bare");
    let joined = engine.connect_network(&name("app"), "web", &wish).await.unwrap();
    assert_eq!(joined.address.to_string(), "10.89.0.2");
    assert_eq!(engine.find("web").unwrap().options.networks, std::slice::from_ref(&joined));
    let wished = Wish { address: Some([192, 168, 7, 6].into()), aliases: vec![name("w")] };
    engine.connect_network(&name("more"), "web", &wished).await.unwrap();
    for (network, found, wish, why) in [
        ("app", "web", &wish, "box web is in network app already"),
        ("app", "bare", &wish, "box bare has no network card"),
        ("nosuch", "web", &wish, "no such network: nosuch"),
        ("app", "nosuch", &wish, "no such box"),
    ] {
        let refused = engine.connect_network(&name(network), found, wish).await.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    assert!(engine.remove_network(&name("app")).unwrap_err().to_string().contains("has boxes: web"));
    // A place that is wanted is nobody else's, and what a network lets in is known before a box is made.
    let taken = Wish { address: Some([192, 168, 7, 6].into()), ..Wish::default() };
    assert!(engine.place(&name("more"), &taken).unwrap_err().to_string().contains("of box web in network more"));
    assert!(engine.lets_in(&name("app")).unwrap_err().to_string().contains("lets nobody in"));
    let placed = engine.place(&name("app"), &wish).unwrap();
    assert_eq!(
        (placed.card.address.to_string(), placed.card.gateway.to_string()),
        ("10.89.0.3".into(), "10.89.0.1".into())
    );
    drop(placed);

    engine.disconnect_network(&name("app"), "web").await.unwrap();
    let refused = engine.disconnect_network(&name("app"), "web").await.unwrap_err().to_string();
    assert!(refused.contains("web is not in network app"), "{refused}");
    let filter = NamedFilter { dangling: Some(false), ..NamedFilter::default() };
    let used: Vec<_> = engine.list_networks(&filter).unwrap().into_iter().map(|listed| listed.network.name).collect();
    assert_eq!(used, [name("more")]);
    assert_eq!(engine.prune_networks(&NamedFilter::default()).unwrap(), [name("app")]);
    engine.state().unwrap().remove(&with_card.id).unwrap();
    engine.remove_network(&name("more")).unwrap();
    assert!(matches!(engine.remove_network(&name("more")), Err(NetworksError::Network(NetworkError::Unknown(_)))));
}

#[tokio::test]
async fn a_box_has_the_address_of_its_card_again_and_nobody_else_gets_it() {
    let (_dir, engine) = engine();
    let app: coffer_spec::Name = "app".parse().unwrap();
    let rules = Rules::open();
    let request = NetworkRequest {
        name: app.clone(),
        subnet: None,
        isolation: NetworkIsolation::None,
        rules,
        labels: BTreeMap::new(),
    };
    engine.create_network(request).unwrap();
    let place = BoxNetwork { name: app.clone(), address: [10, 89, 0, 2].into(), aliases: vec![] };
    let (mut first, mut second) = (record("first"), record("second"));
    (first.options.card, second.options.card) = (true, true);
    first.options.card_network = Some(place.clone());
    first.options.networks = vec![place.clone()];
    for found in [&first, &second] {
        engine.state().unwrap().add(found).unwrap();
    }
    engine.disconnect_network(&app, "first").await.unwrap();
    let wish = Wish::default();
    assert_eq!(engine.connect_network(&app, "second", &wish).await.unwrap().address.to_string(), "10.89.0.3");
    assert_eq!(engine.connect_network(&app, "first", &wish).await.unwrap(), place);
}
