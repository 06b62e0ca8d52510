//! What registries answer: tokens, errors, words of theirs, and a real one.

use super::*;

#[test]
fn a_token_is_asked_for_once_and_used_for_all() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    registry.push("app", "v1", &TestImage::sample());
    registry.require_token();
    let image = pull(&store, &registry.reference("app:v1")).unwrap();
    store.rootfs(&image).unwrap();
    assert_eq!(registry.requests().iter().filter(|path| path.starts_with("/token")).count(), 1);
    // A token that expires while layers are fetched is asked for again.
    registry.push("app", "v2", &TestImage::new(vec![Layer::new(&[("a", b"b")])]));
    registry.fail("/v2/app/manifests/v2", [Fault::Status(401)]);
    pull(&store, &registry.reference("app:v2")).unwrap();
}

#[test]
fn a_token_from_dockers_configuration_is_shown_to_the_registry_alone() {
    let (registry, (dir, store)) = (Registry::start(), store());
    registry.push("app", "v1", &TestImage::sample());
    registry.require_token();
    let file = dir.path().join("config.json");
    for (token, accepted) in [("good", true), ("bad", false)] {
        fs::write(&file, format!(r#"{{"auths":{{"{}":{{"registrytoken":"{token}"}}}}}}"#, registry.address)).unwrap();
        let options = PullOptions { docker_config: Some(file.clone()), ..options() };
        match pull_with(&store, &registry.reference("app:v1"), &options) {
            Ok(_) => assert!(accepted),
            Err(error) => assert!(!accepted && error.class() == "unauthorized", "{token}: {error}"),
        }
        assert!(!registry.requests().iter().any(|path| path.starts_with("/token")));
    }
}

#[test]
fn an_error_names_the_address_that_was_contacted_and_no_other_is_shown_a_password() {
    let (registry, other, (dir, store)) = (Registry::start(), Registry::start(), store());
    registry.push("app", "v1", &TestImage::sample());
    let (name, manifest) = (registry.reference("app:v1"), "/v2/app/manifests/v1");
    let there = other.address.to_string();
    registry.redirect(manifest, &format!("http://{there}/elsewhere"));
    let error = pull(&store, &name).unwrap_err();
    assert_eq!(error.class(), "not-found");
    assert!(error.to_string().contains(&there) && error.to_string().contains(&name), "{error}");
    other.fail("/elsewhere", [Fault::Status(500); 10]);
    let error = pull(&store, &name).unwrap_err();
    assert!(error.class() == "unreachable" && error.to_string().contains(&there), "{error}");
    // One that asks for a password there names a token service of its own.
    let file = dir.path().join("config.json");
    fs::write(&file, format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpwYXNz"}}}}}}"#, registry.address)).unwrap();
    let (other, there) = (Registry::start(), "/elsewhere");
    other.require_token();
    registry.redirect(manifest, &format!("http://{}{there}", other.address));
    let error = pull_with(&store, &name, &PullOptions { docker_config: Some(file), ..options() }).unwrap_err();
    assert_eq!(error.class(), "unauthorized");
    assert!(error.to_string().contains(&other.address.to_string()), "{error}");
    assert_eq!(other.requests(), [there], "its token service is not asked");
}

#[test]
fn a_token_service_that_sends_on_is_followed_nowhere() {
    let (registry, other, (dir, store)) = (Registry::start(), Registry::start(), store());
    registry.push("app", "v1", &TestImage::sample());
    registry.require_token_for_a_form();
    let there = format!("http://{}/token", other.address);
    other.put("/token", "application/json", br#"{"access_token":"good"}"#);
    for path in ["/token", "/token?scope=repository%3Aapp%3Apull&service=test"] {
        registry.redirect(path, &there);
    }
    let file = dir.path().join("config.json");
    for entry in [r#"{"identitytoken":"who I am"}"#, r#"{"auth":"dXNlcjpwYXNz"}"#, "{}"] {
        fs::write(&file, format!(r#"{{"auths":{{"{}":{entry}}}}}"#, registry.address)).unwrap();
        let options = PullOptions { docker_config: Some(file.clone()), ..options() };
        let error = pull_with(&store, &registry.reference("app:v1"), &options).unwrap_err();
        assert!(error.class() == "registry" && error.to_string().contains("token service sends us on"), "{error}");
        assert!(other.requests().is_empty() && other.forms().is_empty(), "{entry}");
    }
}

#[test]
fn a_request_is_not_sent_on_for_ever() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    let manifest = "/v2/app/manifests/v1";
    registry.redirect(manifest, manifest);
    let error = pull(&store, &registry.reference("app:v1")).unwrap_err();
    assert!(error.class() == "registry" && error.to_string().contains("sends on more than 10 times"), "{error}");
    assert_eq!(registry.requests().len(), 11);
}

#[test]
fn a_registry_that_drips_is_given_up() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    let image = TestImage::sample();
    registry.push("app", "v1", &image);
    let blob = blob_path("app", &image.layers[0].blob);
    let pace = Pace { within: Duration::from_millis(300), bytes: 64 << 10 };
    let hasty = PullOptions { pace, retries: 1, ..options() };
    let gave_up = |path: &str, fault: Fault| {
        registry.fail(path, [fault; 2]);
        let error = pull_with(&store, &registry.reference("app:v1"), &hasty).unwrap_err();
        assert_eq!(error.class(), "unreachable", "{path} {fault:?}: {error}");
        error.to_string()
    };
    for (path, fault) in [
        ("/v2/app/manifests/v1", Fault::DripHead),
        ("/v2/app/manifests/v1", Fault::Drip(200)),
        (&blob, Fault::DripHead),
        (&blob, Fault::Drip(200)),
    ] {
        let why = gave_up(path, fault);
        let expected = if matches!(fault, Fault::DripHead) { "no answer began within 0.3 s" } else { "it is too slow" };
        assert!(why.contains(expected), "{path} {fault:?}: {why}");
    }
    // What a refusal says is not waited for longer than that either; the refusal stands.
    registry.fail("/v2/app/manifests/v1", [Fault::Drip(404)]);
    assert_eq!(pull_with(&store, &registry.reference("app:v1"), &hasty).unwrap_err().class(), "not-found");
    registry.require_token();
    for fault in [Fault::DripHead, Fault::Drip(200)] {
        gave_up("/token?scope=repository%3Aapp%3Apull&service=test", fault);
    }
    // A layer that comes slowly and goes on at its pace is waited for: what drips here is longer than it, and so comes to its end.
    let (other, (_dir, store)) = (Registry::start(), self::store());
    let small = TestImage::new(vec![Layer::new(&[("a", b"b")])]);
    other.push("app", "v1", &small);
    other.fail(&blob_path("app", &small.layers[0].blob), [Fault::Drip(200)]);
    let patient = PullOptions { pace: Pace { within: Duration::from_millis(100), bytes: 1 }, ..hasty };
    let error = pull_with(&store, &other.reference("app:v1"), &patient).unwrap_err();
    assert!(matches!(error, ImageError::CorruptSize { .. }), "{error}");
}

#[test]
fn layers_beyond_the_limit_are_not_begun() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    let image = TestImage::sample();
    registry.push("app", "v1", &image);
    let limit = coffer_image::Limits::default().bytes;
    for sizes in [[limit + 1, 1], [limit, 1], [i64::MAX as u64, i64::MAX as u64]] {
        let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest()).unwrap();
        for (at, size) in sizes.into_iter().enumerate() {
            manifest["layers"][at]["size"] = size.into();
        }
        registry.put("/v2/app/manifests/large", MANIFEST_TYPE, manifest.to_string().as_bytes());
        let error = pull(&store, &registry.reference("app:large")).unwrap_err();
        assert!(matches!(error, ImageError::TooLarge { limit: said, .. } if said == limit), "{error}");
        assert!(!registry.requests().iter().any(|path| path.contains("/blobs/")));
    }
}

#[test]
fn a_platform_of_a_megabyte_is_not_printed() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    let long: &'static str = "y".repeat(1 << 20).leak();
    let image = TestImage { architecture: long, ..TestImage::sample() };
    registry.push("app", "v1", &image);
    let mut entry = descriptor(MANIFEST_TYPE, &image.manifest());
    entry["platform"] = serde_json::json!({"os": "linux", "architecture": long});
    let mut arm = entry.clone();
    arm["platform"]["architecture"] = "arm64".into();
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry, arm]});
    registry.put("/v2/app/manifests/many", INDEX_TYPE, &serde_json::to_vec(&index).unwrap());
    for tag in ["v1", "many"] {
        let error = pull(&store, &registry.reference(&format!("app:{tag}"))).unwrap_err();
        assert_eq!(error.class(), "platform");
        assert!(error.to_string().len() < 1000, "{tag}: {} bytes", error.to_string().len());
        assert!(tag == "v1" || error.to_string().contains("linux/arm64"), "{error}");
    }
}

#[test]
fn a_registrys_words_are_escaped_and_kept_short() {
    let (registry, (_dir, store)) = (Registry::start(), store());
    let words = format!("\u{1b}]0;owned\u{7}\u{1b}[2J\nhint: {}", "x".repeat(5000));
    let refusal = serde_json::json!({"errors": [{"code": "MANIFEST_UNKNOWN", "message": words}]}).to_string();
    registry.put("/v2/app/manifests/v1", MANIFEST_TYPE, refusal.as_bytes());
    registry.fail("/v2/app/manifests/v1", [Fault::Refuse]);
    let error = pull(&store, &registry.reference("app:v1")).unwrap_err();
    let ImageError::NotFound { detail, .. } = &error else { panic!("{error:?}") };
    assert!(detail.starts_with("\u{1b}]0;owned"), "the field holds what was said");
    let text = error.to_string();
    assert!(text.contains("\\u{1b}]0;owned\\u{7}\\u{1b}[2J\\nhint: x"), "{text}");
    assert!(!text.contains(char::is_control) && text.len() < 1000, "{text}");
    let document = r#"{"schemaVersion":2,"config":{"mediaType":"","digest":"\u001b[2J","size":1},"layers":[]}"#;
    registry.put("/v2/app/manifests/v1", MANIFEST_TYPE, document.as_bytes());
    let text = pull(&store, &registry.reference("app:v1")).unwrap_err().to_string();
    assert!(text.contains("\\u{1b}[2J") && !text.contains(char::is_control), "{text}");
}

#[test]
fn a_damaged_or_newer_index_is_refused_not_overwritten() {
    let (registry, (dir, store)) = (Registry::start(), store());
    registry.push("app", "v1", &TestImage::sample());
    for text in ["{", r#"{"version":2,"references":{}}"#, r#"{"version":1,"references":{},"more":1}"#] {
        let index = dir.path().join("images/index.json");
        fs::write(&index, text).unwrap();
        assert_eq!(store.list().unwrap_err().class(), "io", "{text}");
        assert_eq!(pull(&store, &registry.reference("app:v1")).unwrap_err().class(), "io", "{text}");
        assert_eq!(fs::read_to_string(&index).unwrap(), text);
    }
}

/// Debian's registry, killed with the test.
struct DockerRegistry {
    process: std::process::Child,
    port: u16,
    _dir: TempDir,
}

impl DockerRegistry {
    fn start() -> Result<Self, String> {
        let dir = TempDir::new().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
            dir.path().join("data").display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        let process = command.spawn().map_err(|error| error.to_string())?;
        let registry = Self { process, port, _dir: dir };
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(registry);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err("it does not listen".to_owned())
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_real_registry_is_understood() {
    use oci_client::client::{Client, ClientConfig, ClientProtocol, Config, ImageLayer};
    let registry = match DockerRegistry::start() {
        Ok(registry) => registry,
        Err(reason) => return eprintln!("SKIPPED: docker-registry: {reason}"),
    };
    let options = options();
    let (sample, (_dir, store)) = (TestImage::sample(), store());
    let name = format!("127.0.0.1:{}/team/app:v1", registry.port);
    let client = Client::try_from(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() }).unwrap();
    let layers: Vec<_> = sample.layers.iter().map(|layer| ImageLayer::oci_v1_gzip(layer.blob.clone(), None)).collect();
    let push = async {
        let config = Config::oci_v1(sample.config(), None);
        let (reference, auth) = (name.parse().unwrap(), oci_client::secrets::RegistryAuth::Anonymous);
        client.push(&reference, &layers, config, &auth, None).await.unwrap();
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(push);
    let image = pull_with(&store, &name, &options).unwrap();
    assert_eq!(image.config_digest, Digest::of(&sample.config()));
    store.rootfs(&image).unwrap();
    let error = pull_with(&store, &name.replace("v1", "v2"), &options).unwrap_err();
    assert_eq!(error.class(), "not-found");
    assert!(error.to_string().contains("manifest unknown"), "{error}");
}
