//! Text that somebody else wrote, on its way to a terminal or a log.
//!
//! What could move a cursor, set a title, reorder a line or hide in it is written as its number.

use std::borrow::Cow;
use std::fmt;

/// Shows foreign text escaped: `format!("{}", Foreign(text))`.
#[derive(Clone, Copy, Debug)]
pub struct Foreign<'a>(pub &'a str);

impl fmt::Display for Foreign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&foreign(self.0))
    }
}

/// Foreign text as one harmless line.
pub fn foreign(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// Foreign text that may have lines: each but the first is indented, so that none passes for a line of ours.
pub fn foreign_lines(text: &str) -> String {
    escape_all_but_lines(text.trim_end_matches('\n')).replace('\n', "\n  ")
}

/// Foreign text whose lines and columns are meant, as those of a template are.
pub fn escape_all_but_lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| c == '\n' || c == '\t')
}

/// At most `most` characters of foreign text as one harmless line; what was cut is said.
pub fn foreign_at_most(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => foreign(text).into_owned(),
        Some((at, _)) => format!("{}… ({} bytes)", foreign(&text[..at]), text.len()),
    }
}

/// Escapes all that is not plain, but for what `keep` keeps.
pub(crate) fn escape(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let plain = |c: char| keep(c) || !is_active(c);
    // Most of what is shown, byte by byte.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if plain(c) => out.push(c),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(out)
}

/// Control characters of both sets, line and paragraph separators, and what reorders, joins or hides.
pub(crate) fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_passes_as_it_is() {
        for text in ["", "plain", "Größe 3 µs → 4", "日本語", "a 'quoted' \"word\" \\ back"] {
            assert_eq!(foreign(text), text);
        }
    }

    #[test]
    fn whatever_acts_on_a_terminal_becomes_a_number() {
        let cases = [
            ("\u{1b}]0;owned\u{7}", "\\u{1b}]0;owned\\u{7}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("a\rb\nc\td", "a\\rb\\nc\\td"),
            ("\u{202e}txt.exe", "\\u{202e}txt.exe"),
            ("\u{7f}\0", "\\u{7f}\\u{0}"),
            ("\u{2028}", "\\u{2028}"),
        ];
        for (text, shown) in cases {
            assert_eq!(foreign(text), shown);
            assert_eq!(Foreign(text).to_string(), shown);
        }
    }

    #[test]
    fn lines_are_kept_and_indented_and_length_is_bounded() {
        assert_eq!(foreign_lines("one\ntwo\u{1b}\n"), "one\n  two\\u{1b}");
        assert_eq!(foreign_at_most("abcdef", 6), "abcdef");
        assert_eq!(foreign_at_most("abcdefg", 6), "abcdef… (7 bytes)");
    }
}
