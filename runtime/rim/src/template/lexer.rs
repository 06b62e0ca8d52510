//! From text to what stands between `{{` and `}}`, and from that to words.

use std::iter::Peekable;
use std::str::CharIndices;

use super::error::TemplateError;

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    Text(&'a str),
    /// What stands between the braces, and where it begins.
    Action(&'a str, usize),
}

/// A word of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// A function or a keyword.
    Name(String),
    /// `.A`: a name behind a dot, and whether a blank stands before it.
    Field(String, bool),
    /// A dot by itself.
    Dot,
    /// `$x`, or `$` with the empty name.
    Variable(String),
    String(String),
    Number(i64),
    Pipe,
    Open,
    /// And whether a field follows at once.
    Close,
    Comma,
    Declare,
    Assign,
}

pub fn malformed<T>(what: &str, at: usize) -> Result<T, TemplateError> {
    Err(TemplateError::Malformed { what: what.into(), at })
}

/// Text and actions in turn; `{{-` and `-}}` take the blanks beside them, comments are dropped.
pub fn pieces(text: &str) -> Result<Vec<Piece<'_>>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trims = false;
    loop {
        let open = rest.find("{{");
        let mut plain = &rest[..open.unwrap_or(rest.len())];
        if trims {
            plain = plain.trim_start();
        }
        let Some(open) = open else {
            pieces.push(Piece::Text(plain));
            return Ok(pieces);
        };
        let at = text.len() - rest.len() + open;
        let mut inner = &rest[open + 2..];
        if let Some(trimmed) = inner.strip_prefix('-').filter(|more| more.starts_with(char::is_whitespace)) {
            plain = plain.trim_end();
            inner = trimmed;
        }
        pieces.push(Piece::Text(plain));
        let Some(close) = end_of_action(inner) else { return malformed("an action without }}", at) };
        let (mut action, after) = (&inner[..close], &inner[close + 2..]);
        trims = action.ends_with('-') && action[..action.len() - 1].ends_with(char::is_whitespace);
        if trims {
            action = &action[..action.len() - 1];
        }
        let action = action.trim();
        if !(action.starts_with("/*") && action.ends_with("*/") && action.len() >= 4) {
            pieces.push(Piece::Action(action, at + 2));
        }
        rest = after;
    }
}

/// Where the braces close, strings skipped.
fn end_of_action(inner: &str) -> Option<usize> {
    let bytes = inner.as_bytes();
    let (mut at, mut quote) = (0, None);
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(b'"'), b'\\') => at += 1,
            (Some(open), byte) if open == byte => quote = None,
            (None, byte @ (b'"' | b'`')) => quote = Some(byte),
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Letters, digits and `_` that come next, behind `first`.
fn name(first: Option<char>, chars: &mut Peekable<CharIndices<'_>>) -> String {
    let mut name: String = first.into_iter().collect();
    while let Some((_, c)) = chars.next_if(|(_, c)| c.is_alphanumeric() || *c == '_') {
        name.push(c);
    }
    name
}

/// The words of an action that begins at `start` of the template.
pub fn words(action: &str, start: usize) -> Result<Vec<Word>, TemplateError> {
    let mut words = Vec::new();
    let mut chars = action.char_indices().peekable();
    let mut blank = true;
    while let Some((at, c)) = chars.next() {
        let after_blank = std::mem::replace(&mut blank, c.is_whitespace());
        match c {
            _ if c.is_whitespace() => {}
            '|' => words.push(Word::Pipe),
            '(' => words.push(Word::Open),
            ')' => words.push(Word::Close),
            ',' => words.push(Word::Comma),
            '=' => words.push(Word::Assign),
            ':' if chars.next_if(|(_, c)| *c == '=').is_some() => words.push(Word::Declare),
            '$' => words.push(Word::Variable(name(None, &mut chars))),
            '.' => match name(None, &mut chars) {
                name if name.is_empty() => words.push(Word::Dot),
                name => words.push(Word::Field(name, after_blank)),
            },
            '"' => {
                let mut text = String::new();
                loop {
                    match chars.next() {
                        None => return malformed("a string without an end", start + at),
                        Some((_, '"')) => break,
                        Some((_, '\\')) => match chars.next() {
                            Some((_, 'n')) => text.push('\n'),
                            Some((_, 't')) => text.push('\t'),
                            Some((_, c @ ('"' | '\\'))) => text.push(c),
                            _ => return malformed("an unknown escape in a string", start + at),
                        },
                        Some((_, c)) => text.push(c),
                    }
                }
                words.push(Word::String(text));
            }
            '`' => {
                let mut text = String::new();
                loop {
                    match chars.next() {
                        None => return malformed("a string without an end", start + at),
                        Some((_, '`')) => break,
                        Some((_, c)) => text.push(c),
                    }
                }
                words.push(Word::String(text));
            }
            '-' | '0'..='9' => {
                let digits = name(Some(c), &mut chars);
                let Ok(number) = digits.parse() else { return malformed("a number that is none", start + at) };
                words.push(Word::Number(number));
            }
            c if c.is_alphabetic() || c == '_' => words.push(Word::Name(name(Some(c), &mut chars))),
            c => return malformed(&format!("unexpected {c:?}"), start + at),
        }
    }
    Ok(words)
}
