//! What the target of templates does with its input; the stable replay of the corpus includes this file too.

use coffer_rim::template::{Subject, Template};

/// A template is refused, or makes of a small subject what is bounded, twice the same.
pub fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let value = serde_json::json!({
        "Name": "web", "State": { "Status": "running", "Pid": 7 }, "Labels": { "a": "1" },
        "Args": ["x", "y"], "Nothing": null, "Ports": { "80/tcp": [{ "HostPort": "8080" }] },
    });
    let subject = Subject { value: &value, labels: value["Labels"].as_object() };
    let Ok(template) = Template::parse(text) else { return };
    let made = template.render(&subject);
    assert_eq!(made, template.render(&subject));
    assert!(made.is_err() || made.is_ok_and(|made| made.len() < 32 << 20));
    let _ = template.heading(|field| Some(field.to_uppercase()));
}
