//! Pushing: what the registry has not, and the manifest last, byte for byte; and logins it asks for.

use super::{options, pull, pull_with, store};
use crate::registry::{Fault, MANIFEST_TYPE, Registry, TestImage, blob_path};
use coffer_image::credentials::Login;
use coffer_image::credentials::keep::forget;
use coffer_image::login::try_login;
use coffer_image::{Digest, ImageError, PullOptions, Pushed, Store};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn push_with(store: &Store, name: &str, options: &PullOptions) -> Result<Pushed, ImageError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(store.push(name, options))
}

/// A store with the sample, called as it will be at this registry.
fn with_sample(to: &Registry) -> (tempfile::TempDir, Store, String) {
    let (from, (dir, store)) = (Registry::start(), store());
    from.push("app", "v1", &TestImage::sample());
    pull(&store, &from.reference("app:v1")).unwrap();
    let name = to.reference("app:v2");
    store.tag(&from.reference("app:v1"), &name).unwrap();
    (dir, store, name)
}

#[test]
fn what_is_pushed_is_what_was_pulled_and_is_sent_once() {
    let registry = Registry::start();
    let (_dir, here, name) = with_sample(&registry);
    let sample = TestImage::sample();
    let pushed = push_with(&here, &name, &options()).unwrap();
    let blobs = sample.layers.iter().map(|layer| layer.blob.len()).sum::<usize>() + sample.config().len();
    assert_eq!((pushed.reference.as_str(), pushed.sent), (name.as_str(), blobs as u64));
    assert_eq!(pushed.digest, Digest::of(&sample.manifest()));
    let stored = registry.stored("/v2/app/manifests/v2").unwrap();
    assert_eq!(stored, (MANIFEST_TYPE.to_owned(), sample.manifest()));
    assert_eq!(registry.requests().last().unwrap(), "PUT /v2/app/manifests/v2", "the manifest goes last");
    assert_eq!(push_with(&here, &name, &options()).unwrap().sent, 0, "all of it is there");
    let (_there_dir, there) = store();
    assert_eq!(pull(&there, &name).unwrap(), here.resolve(&name).unwrap());
}

#[test]
fn what_fails_for_a_while_is_tried_again_and_what_fails_for_good_moves_no_tag() {
    let registry = Registry::start();
    let (_dir, here, name) = with_sample(&registry);
    registry.fail("POST /v2/app/blobs/uploads/", [Fault::Status(503), Fault::Status(503)]);
    registry.fail("PUT /v2/app/manifests/v2", [Fault::Status(502)]);
    push_with(&here, &name, &options()).unwrap();
    here.tag(&name, &registry.reference("app:v3")).unwrap();
    registry.fail("PUT /v2/app/manifests/v3", [Fault::Status(403)]);
    let error = push_with(&here, &registry.reference("app:v3"), &options()).unwrap_err();
    assert!(error.class() == "unauthorized" && registry.stored("/v2/app/manifests/v3").is_none(), "{error}");
    registry.fail("PUT /v2/app/manifests/v3", std::iter::repeat_n(Fault::Status(500), 4));
    let error = push_with(&here, &registry.reference("app:v3"), &options()).unwrap_err();
    assert_eq!(error.class(), "unreachable", "{error}");
}

#[test]
fn what_is_damaged_here_is_not_handed_on() {
    let registry = Registry::start();
    let (_dir, here, name) = with_sample(&registry);
    let layer = TestImage::sample().layers[1].digest();
    let path = here.dir().join("blobs/sha256").join(layer.hex());
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = push_with(&here, &name, &options()).unwrap_err();
    assert_eq!(error.class(), "corrupt", "{error}");
    assert!(registry.stored("/v2/app/manifests/v2").is_none());
    assert!(registry.stored(&blob_path("app", &TestImage::sample().layers[1].blob)).is_none());
}

#[test]
fn only_a_name_that_is_here_is_pushed() {
    let registry = Registry::start();
    let (_dir, here, name) = with_sample(&registry);
    let id = here.resolve(&name).unwrap().config_digest.to_string();
    let by_digest = format!("{}@{id}", registry.reference("app"));
    for (name, class) in [("nosuch", "not-found"), (&by_digest, "usage"), ("NOT A NAME", "usage")] {
        assert_eq!(push_with(&here, name, &options()).unwrap_err().class(), class, "{name}");
    }
    assert!(registry.requests().is_empty());
}

#[test]
fn a_token_to_push_is_asked_for_with_what_the_configuration_has() {
    let registry = Registry::start();
    let (dir, here, name) = with_sample(&registry);
    registry.require_token();
    push_with(&here, &name, &options()).unwrap();
    // An identity is changed into a token with a form, and the token service alone sees it.
    let file = dir.path().join("config.json");
    let entry = serde_json::json!({"auths": {registry.address.to_string(): {"identitytoken": "who I am&"}}});
    fs::write(&file, entry.to_string()).unwrap();
    registry.require_token_for_a_form();
    let with_login = PullOptions { docker_config: Some(file), ..options() };
    push_with(&here, &name, &with_login).unwrap();
    let form = "scope=repository%3Aapp%3Apull%2Cpush&service=test&grant_type=refresh_token&client_id=coffer\
                &refresh_token=who+I+am%26";
    assert_eq!(registry.forms(), [form]);
    let (_there_dir, there) = store();
    pull_with(&there, &name, &with_login).unwrap();
}

#[test]
fn a_helper_gives_the_login_and_what_it_says_is_not_shown() {
    use std::os::unix::fs::PermissionsExt as _;
    // The helper is looked for on the path of whoever calls: only a process of its own has one of its own.
    let Some(bin) = std::env::var_os("COFFER_TEST_HELPERS").map(PathBuf::from) else {
        let bin = tempfile::tempdir().unwrap();
        let path = std::env::var("PATH").unwrap();
        let ended = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "pushed::a_helper_gives_the_login_and_what_it_says_is_not_shown"])
            .env("COFFER_TEST_HELPERS", bin.path())
            .env("PATH", format!("{}:{path}", bin.path().display()))
            .status()
            .unwrap();
        return assert!(ended.success());
    };
    let install = |text: &str| {
        let helper = bin.join("docker-credential-coffer-test");
        fs::write(&helper, format!("#!/bin/sh\nread -r server\n{text}\n")).unwrap();
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let registry = Registry::start();
    let (dir, here, name) = with_sample(&registry);
    // ann:secret
    registry.require("YW5uOnNlY3JldA==");
    let file = dir.path().join("config.json");
    let with_helper = PullOptions { docker_config: Some(file.clone()), ..options() };
    for config in [
        serde_json::json!({"credsStore": "coffer-test"}),
        serde_json::json!({"credHelpers": {registry.address.to_string(): "coffer-test"}}),
    ] {
        fs::write(&file, config.to_string()).unwrap();
        install(r#"echo "{\"ServerURL\":\"$server\",\"Username\":\"ann\",\"Secret\":\"secret\"}""#);
        push_with(&here, &name, &with_helper).unwrap();
        install("echo SECRET; echo SECRET >&2; exit 1");
        let error = push_with(&here, &name, &with_helper).unwrap_err();
        assert!(error.class() == "config" && !error.to_string().contains("SECRET"), "{error}");
        install("echo credentials not found in native keychain; exit 1");
        let error = push_with(&here, &name, &with_helper).unwrap_err();
        assert_eq!(error.class(), "unauthorized", "nobody is logged in: {error}");
    }
    let said = dir.path().join("said");
    install(&format!("test $1 = erase || exit 1\necho \"$server\" >> {}", said.display()));
    let auths = serde_json::json!({"index.docker.io": {}, "https://docker.io/v1/": {}, "o": {}});
    fs::write(&file, serde_json::json!({"credsStore": "coffer-test", "auths": auths}).to_string()).unwrap();
    assert!(forget(&file, "docker.io").unwrap());
    let all = ["docker.io", "https://docker.io/v1/", "https://index.docker.io/v1/", "index.docker.io"];
    assert_eq!(fs::read_to_string(&said).unwrap().lines().collect::<Vec<_>>(), all);
    install("echo SECRET >&2; exit 1");
    let before = fs::read_to_string(&file).unwrap();
    let error = forget(&file, "o").unwrap_err();
    assert!(error.to_string().contains("docker-credential-coffer-test fails (erase)"), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), before, "it is not forgotten");
}

#[test]
fn a_login_is_tried_at_the_registry() {
    let registry = Registry::start();
    registry.require("YW5uOnNlY3JldA==");
    let attempt = |password: &str| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let login = Login::Basic("ann".to_owned(), password.into());
        runtime.block_on(try_login(&registry.address.to_string(), login, &options()))
    };
    attempt("secret").unwrap();
    let error = attempt("guessed").unwrap_err();
    assert!(error.class() == "unauthorized" && !error.to_string().contains("guessed"), "{error}");
    assert!(registry.requests().iter().all(|path| path == "/v2/"));
}
