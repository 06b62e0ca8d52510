//! Registries that never stop.

use crate::registry::{Fault, Registry, TestImage, blob_path};
use coffer_image::{PullOptions, Store};

/// Case, and words of the refusal.
pub const CASES: &[(&str, &str)] = &[
    ("manifest-claim", "limit of 4194304 bytes of manifest"),
    ("manifest-endless", "limit of 4194304 bytes of manifest"),
    ("index-in-index", "limit of 4194304 bytes of manifest"),
    ("token-claim", "limit of 65536 bytes of token"),
    ("token-endless", "limit of 65536 bytes of token"),
    ("config-claim", "configuration sha256:"),
    ("config-endless", "configuration sha256:"),
    ("config-large", "limit of 4194304 bytes of image configuration"),
    ("refusal-endless", "status 400"),
    ("token-refusal-endless", "refuses access"),
    ("head-endless", "cannot be reached"),
    ("config-dense", "at most 10000"),
    ("manifest-dense-lists", "at most 512"),
    ("manifest-dense-layers", "at most 512"),
    ("manifest-dense-annotations", "at most 512"),
    ("index-dense", "has no linux/amd64 image"),
    ("token-no-header", "no header value"),
];

/// Pulls from one of them; gives the error.
pub fn run(case: &str) -> String {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let registry = Registry::start();
    let image = TestImage::sample();
    registry.push("app", "v1", &image);
    let manifest = "/v2/app/manifests/v1";
    let token = "/token?scope=repository%3Aapp%3Apull&service=test";
    let config = blob_path("app", &image.config());
    let faults = |fault| std::iter::repeat_n(fault, 10);
    match case {
        "manifest-claim" => registry.fail(manifest, faults(Fault::Claim(1_500_000_000))),
        "manifest-endless" => registry.fail(manifest, faults(Fault::Endless)),
        "index-in-index" => {
            let entry = serde_json::json!({"mediaType": crate::registry::MANIFEST_TYPE, "size": 2, "digest": coffer_image::Digest::of(b"x").to_string(),
                "platform": {"os": "linux", "architecture": "amd64"}});
            let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
            registry.put(manifest, crate::registry::INDEX_TYPE, index.as_bytes());
            let inner = format!("/v2/app/manifests/{}", coffer_image::Digest::of(b"x"));
            registry.fail(&inner, faults(Fault::Endless));
        }
        "token-claim" | "token-endless" | "token-refusal-endless" => {
            registry.require_token();
            let fault = match case {
                "token-claim" => Fault::Claim(1_500_000_000),
                "token-endless" => Fault::Endless,
                _ => Fault::EndlessStatus(400),
            };
            registry.fail(token, faults(fault));
        }
        "config-claim" => registry.fail(&config, faults(Fault::Claim(1_500_000_000))),
        "config-endless" => registry.fail(&config, faults(Fault::Endless)),
        "config-large" => {
            let text = String::from_utf8(image.manifest()).unwrap();
            let size = format!("\"size\":{}", image.config().len());
            assert_eq!(text.matches(&size).count(), 1);
            registry.put(
                manifest,
                crate::registry::MANIFEST_TYPE,
                text.replace(&size, "\"size\":1500000000").as_bytes(),
            );
        }
        "refusal-endless" => registry.fail(manifest, faults(Fault::EndlessStatus(400))),
        "head-endless" => registry.fail(manifest, faults(Fault::EndlessHead)),
        "config-dense" => {
            // As much as a reader can be made to hold for each byte.
            let dense = format!(
                r#"{{"architecture":"amd64","os":"linux","history":[{}],"config":{{"Cmd":[{}]}},"rootfs":{{"diff_ids":[]}}}}"#,
                vec!["{}"; 500_000].join(","),
                vec![r#""""#; 800_000].join(",")
            );
            let text = String::from_utf8(image.manifest()).unwrap();
            let old = image.config();
            let text = text
                .replace(
                    &coffer_image::Digest::of(&old).to_string(),
                    &coffer_image::Digest::of(dense.as_bytes()).to_string(),
                )
                .replace(&format!("\"size\":{}", old.len()), &format!("\"size\":{}", dense.len()));
            registry.put(&blob_path("app", dense.as_bytes()), "application/octet-stream", dense.as_bytes());
            registry.put(manifest, crate::registry::MANIFEST_TYPE, text.as_bytes());
        }
        "manifest-dense-lists" | "manifest-dense-layers" | "manifest-dense-annotations" | "index-dense" => {
            registry.put(manifest, crate::registry::MANIFEST_TYPE, dense(case).as_bytes());
        }
        "token-no-header" => {
            registry.require_token();
            registry.put(token, "application/json", br#"{"token":"a\nb"}"#);
        }
        other => panic!("no case {other}"),
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("images")).unwrap();
    let options = PullOptions { backoff: std::time::Duration::from_millis(1), ..PullOptions::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let error = runtime.block_on(store.pull(&registry.reference("app:v1"), &options)).unwrap_err();
    assert!(store.list().unwrap().images.is_empty());
    error.to_string()
}

/// A document of some 4 MiB of which a reader can be made to hold as much as possible.
fn dense(case: &str) -> String {
    let descriptor =
        |more: &str| format!(r#"{{"mediaType":"","digest":"{}","size":0{more}}}"#, coffer_image::Digest::of(b"x"));
    let most = |each: &str, of: usize| vec![each; ((4 << 20) - 80_000) / of].join(",");
    let texts = format!(r#","urls":[{}]"#, most(r#""""#, 3));
    let layers = match case {
        "manifest-dense-lists" => format!("{},{}", vec![descriptor(""); 513].join(","), descriptor(&texts)),
        "manifest-dense-layers" => most(r#"{"mediaType":"","digest":"","size":0}"#, 38),
        "manifest-dense-annotations" => {
            let keys: Vec<_> = (0..380_000).map(|number| format!(r#""{number:x}":"""#)).collect();
            let annotations = format!(r#","annotations":{{{}}}"#, keys.join(","));
            format!("{},{}", vec![descriptor(""); 513].join(","), descriptor(&annotations))
        }
        _ => {
            let platform =
                format!(r#","platform":{{"os":"a","architecture":"b","os.features":[{}]}}"#, most(r#""""#, 3));
            return format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor(&platform));
        }
    };
    format!(r#"{{"schemaVersion":2,"config":{},"layers":[{layers}]}}"#, descriptor(""))
}
