//! What the target of `--peer` and `--guests` does with its input; the stable replay of the corpus includes this file too.

use coffer_runtime::request::{GuestWords, guests, peer};

/// What is taken says a place and somebody, each of it as it stands there; what is refused cannot drive a terminal.
pub fn words(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    match peer(text) {
        Ok(found) => {
            assert!(text.starts_with(&format!("{}=", found.name)) && text.contains(&found.address));
            stands_there(text, &found.guests);
        }
        Err(why) => assert!(!why.chars().any(char::is_control), "{why:?}"),
    }
    match guests(text) {
        Ok((_, found)) => stands_there(text, &found),
        Err(why) => assert!(!why.chars().any(char::is_control), "{why:?}"),
    }
}

fn stands_there(text: &str, words: &GuestWords) {
    assert!(!words.references.is_empty() || words.signed.is_some(), "{text:?} names nobody");
    for reference in &words.references {
        assert!(reference.to_str().is_some_and(|reference| text.contains(reference)));
    }
    for simulator in &words.simulators {
        assert!(text.contains(simulator));
    }
    if let Some(signed) = &words.signed {
        assert!([&signed.author, &signed.family, &signed.image].into_iter().all(|word| text.contains(word)));
    }
}
