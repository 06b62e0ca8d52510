//! What parsers of JSON and TOML say, in words of ours: where it is, and no type of a programming language.

use crate::Look;

/// Why these bytes are not the JSON that is due.
pub fn json_error(bytes: &[u8], error: &serde_json::Error) -> String {
    let place = format!("line {}, column {}", error.line(), error.column());
    let look = Look::of(bytes);
    match error.classify() {
        serde_json::error::Category::Data => {
            let text = error.to_string();
            let words = text.rsplit_once(" at line ").map_or(&*text, |(words, _)| words);
            format!("{place}: {}", plain(words))
        }
        _ if look != Look::Json => format!("{look} where JSON is due ({place})"),
        serde_json::error::Category::Eof => format!("the JSON breaks off at {place}"),
        _ => format!("the JSON is damaged at {place}"),
    }
}

/// Why this text is not the TOML that is due.
pub fn toml_error(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {}", plain(error.message()))
}

/// A parser's words without a programmer's types in them, on one line.
pub fn plain(words: &str) -> String {
    let mut text = words.lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned();
    // What is out of range is told with the range.
    if text.starts_with("invalid value: integer") {
        for (theirs, most) in [("u8", "255"), ("u16", "65535"), ("u32", "4294967295"), ("u64", "18446744073709551615")]
        {
            if let Some(before) = text.strip_suffix(&format!("expected {theirs}")) {
                text = format!("{before}expected a whole number from 0 to {most}");
            }
        }
    }
    for number in ["u8", "u16", "u32", "u64", "usize", "i8", "i16", "i32", "i64"] {
        for (ours, theirs) in [("expected a whole number", format!("expected {number}"))] {
            if let Some(at) = text.find(&theirs) {
                let behind = at + theirs.len();
                if !text[behind..].starts_with(|c: char| c.is_ascii_alphanumeric()) {
                    text.replace_range(at..behind, ours);
                }
            }
        }
    }
    for (theirs, ours) in [
        ("a tuple of size ", "a list of length "),
        ("an array of length ", "a list of length "),
        ("invalid type: ", "found "),
        ("found sequence", "found a list"),
        ("found map", "found a table"),
        ("expected a sequence", "expected a list"),
        ("expected a map", "expected a table"),
        ("floating point ", "number "),
    ] {
        text = text.replace(theirs, ours);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parser_speaks_of_places_and_of_no_types() {
        let json = |text: &str| json_error(text.as_bytes(), &serde_json::from_str::<[u64; 2]>(text).unwrap_err());
        for (text, said) in [
            ("", "nothing at all where JSON is due (line 1, column 0)"),
            ("<html>", "a page of HTML where JSON is due (line 1, column 1)"),
            ("nojson", "a text where JSON is due (line 1, column 2)"),
            ("[1,\n2", "the JSON breaks off at line 2, column 1"),
            ("[1 2]", "the JSON is damaged at line 1, column 4"),
            ("[1, \"x\"]", "line 1, column 7: found string \"x\", expected a whole number"),
            ("[1]", "line 1, column 3: invalid length 1, expected a list of length 2"),
        ] {
            assert_eq!(json(text), said, "{text}");
        }
        let text = "a = 1\n  b = \"x\"\n";
        let error = toml::from_str::<std::collections::BTreeMap<String, u32>>(text).unwrap_err();
        assert_eq!(toml_error(text, &error), "line 2, column 7: found string \"x\", expected a whole number");
        assert_eq!(plain("expected u640"), "expected u640");
        let of = |words: &str| plain(&format!("invalid value: integer `300`, expected {words}"));
        assert_eq!(of("u8"), "invalid value: integer `300`, expected a whole number from 0 to 255");
        assert_eq!(of("usize"), "invalid value: integer `300`, expected a whole number");
    }
}
