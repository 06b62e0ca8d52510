//! The page for people: one document with its script and style inside, which asks this service and nobody else.
//!
//! Trusts: its own text, which is part of the program. Believes nothing that it is answered: foreign text becomes text nodes, and the
//! browser is told to refuse anything else.
//! Never: loads anything from elsewhere, keeps a key or evidence, runs a script that is not the one whose digest is sent.
//! Source: Content Security Policy Level 3; Trusted Types.

use std::sync::LazyLock;

use axum::body::Bytes;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use coffer_verifier::STRICT;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const SOURCE: &str = include_str!("page.html");
/// Where the minimum levels of the built-in policy go.
const MINIMA: &str = "@MINIMA@";

/// The page, and what a browser may do with it.
pub struct Page {
    /// HTML, one copy for everybody.
    pub html: Bytes,
    /// `Content-Security-Policy`.
    pub policy: String,
}

/// Made once.
pub static PAGE: LazyLock<Page> = LazyLock::new(|| Page {
    html: SOURCE.replace(MINIMA, &attribute(&minima().to_string())).into(),
    policy: [
        "default-src 'none'".to_owned(),
        format!("script-src '{}'", digest(between("<script>", "</script>"))),
        format!("style-src '{}'", digest(between("<style>", "</style>"))),
        "connect-src 'self'".to_owned(),
        "img-src data:".to_owned(),
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'".to_owned(),
        "require-trusted-types-for 'script'; trusted-types 'none'".to_owned(),
    ]
    .join("; "),
});

/// What stands between two marks of the page. Nothing, and the browser runs nothing.
fn between(begin: &str, end: &str) -> &'static str {
    SOURCE.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).map_or("", |(inside, _)| inside)
}

fn digest(text: &str) -> String {
    format!("sha256-{}", BASE64.encode(Sha256::digest(text)))
}

fn attribute(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")
}

/// AMD's public minimum levels, as the built-in policy `strict` has them.
fn minima() -> Value {
    let policy: toml::Table = toml::from_str(STRICT).unwrap_or_default();
    policy.get("tcb").map_or_else(|| json!([]), |levels| json!(levels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_script_and_one_style_and_nothing_from_elsewhere() {
        let html = std::str::from_utf8(&PAGE.html).unwrap();
        assert_eq!((html.matches("<script").count(), html.matches("<style").count()), (1, 1));
        assert!(between("<script>", "</script>").len() > 1000 && between("<style>", "</style>").len() > 500);
        for elsewhere in ["http://", "https://", "//cdn", "@import", "url(", "<iframe", "<img", "<object", "srcdoc"] {
            assert!(!html.contains(elsewhere), "{elsewhere}");
        }
        // What would make HTML or code of text, or keep something.
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "setAttribute",
            "localStorage",
            "sessionStorage",
            "cookie",
            " onclick",
            " onload",
            "style=",
        ] {
            assert!(!html.contains(way), "{way}");
        }
    }

    #[test]
    fn every_level_of_the_built_in_policy_is_on_the_page() {
        let levels = minima();
        assert!(levels.as_array().is_some_and(|all| all.len() >= 4), "{levels}");
        assert!(levels.as_array().unwrap().iter().all(|one| one["product"].is_string() && one["source"].is_string()));
        let html = std::str::from_utf8(&PAGE.html).unwrap();
        assert!(!html.contains(MINIMA) && html.contains("AMD-SB-"));
    }
}
