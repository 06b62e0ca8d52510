//! The functions, and what counts as true.

use std::cmp::Ordering;
use std::fmt::Write as _;

use serde_json::Value;

use super::error::TemplateError;
use crate::out::plain;

const KNOWN: &[&str] = &[
    "and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "index", "len", "json", "join", "split", "lower", "upper",
    "title", "truncate", "pad", "print", "println", "printf",
];

/// There is a function of this name.
pub fn is_known(name: &str) -> bool {
    KNOWN.contains(&name)
}

/// As Go has it: what is zero or empty is false.
pub fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64().is_none_or(|number| number != 0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// Adds a value as Go prints it, as long as the text is no longer than `most`. False where it would be.
#[must_use]
pub fn print_to(text: &mut String, value: &Value, most: usize) -> bool {
    let all = |text: &mut String, name: &str, values: &mut dyn Iterator<Item = (Option<&String>, &Value)>| {
        text.push_str(name);
        for (index, (key, value)) in values.enumerate() {
            if index > 0 {
                text.push(' ');
            }
            if let Some(key) = key {
                text.push_str(key);
                text.push(':');
            }
            if !print_to(text, value, most) {
                return false;
            }
        }
        text.push(']');
        true
    };
    let whole = match value {
        Value::Null => {
            text.push_str("<no value>");
            true
        }
        Value::String(more) => {
            let fits = text.len().saturating_add(more.len()) <= most;
            if fits {
                text.push_str(more);
            }
            fits
        }
        Value::Array(list) => all(text, "[", &mut list.iter().map(|value| (None, value))),
        Value::Object(map) => all(text, "map[", &mut map.iter().map(|(key, value)| (Some(key), value))),
        other => write!(text, "{other}").is_ok(),
    };
    whole && text.len() <= most
}

/// The same by itself.
fn shown(value: &Value) -> Result<String, Wrong> {
    let mut text = String::new();
    if print_to(&mut text, value, MOST_TEXT) { Ok(text) } else { Err(TOO_LONG) }
}

/// The beginning of it, for an error.
pub fn beginning(value: &Value) -> String {
    shown(value).map_or_else(|_| "a long value".into(), |text| text.chars().take(80).collect())
}

/// Why a function makes nothing.
enum Wrong {
    Argument(String),
    TooMuch(&'static str),
}

impl From<String> for Wrong {
    fn from(what: String) -> Self {
        Self::Argument(what)
    }
}

impl From<&str> for Wrong {
    fn from(what: &str) -> Self {
        Self::Argument(what.into())
    }
}

/// Calls one. What a pipe hands over is its last argument. `most`: bytes that what it makes may take.
pub fn call(name: &str, given: Vec<Value>, most: usize) -> Result<Value, TemplateError> {
    let made = called(name, given, most).map_err(|wrong| match wrong {
        Wrong::Argument(what) => TemplateError::Argument { function: name.into(), what },
        Wrong::TooMuch(what) => TemplateError::TooMuch(what),
    })?;
    if made.as_str().is_some_and(|text| text.len() > MOST_TEXT) {
        return Err(TemplateError::TooMuch("1 MiB in one value"));
    }
    Ok(made)
}

const TOO_LONG: Wrong = Wrong::TooMuch("1 MiB in one value");

/// Bytes of one string.
const MOST_TEXT: usize = 1 << 20;

/// About the bytes that a value takes.
pub fn weight(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(list) => list.iter().map(weight).sum(),
            Value::Object(map) => map.iter().map(|(key, value)| key.len() + weight(value)).sum(),
            _ => 0,
        }
}

fn called(name: &str, mut given: Vec<Value>, most: usize) -> Result<Value, Wrong> {
    let count = given.len();
    let want = |wanted: usize| {
        if count == wanted {
            Ok(())
        } else {
            Err(Wrong::from(format!("it takes {wanted} arguments and was given {count}")))
        }
    };
    match name {
        "and" | "or" => {
            let stops = |value: &Value| is_true(value) == (name == "or");
            let at = given.iter().position(stops).unwrap_or(given.len().wrapping_sub(1));
            if given.is_empty() { Err("it takes an argument".into()) } else { Ok(given.swap_remove(at)) }
        }
        "not" => want(1).map(|()| (!is_true(&given[0])).into()),
        "eq" => match given.split_first() {
            Some((first, others)) if !others.is_empty() => Ok(others.contains(first).into()),
            _ => Err("it takes two arguments or more".into()),
        },
        "ne" => want(2).map(|()| (given[0] != given[1]).into()),
        "lt" | "le" | "gt" | "ge" => {
            want(2)?;
            let order = compare(&given[0], &given[1]).ok_or("it compares two numbers, or two strings")?;
            Ok(match name {
                "lt" => order == Ordering::Less,
                "le" => order != Ordering::Greater,
                "gt" => order == Ordering::Greater,
                _ => order != Ordering::Less,
            }
            .into())
        }
        "index" => {
            let Some((first, path)) = given.split_first() else { return Err("it takes an argument".into()) };
            let found = path.iter().try_fold(first, |at, key| match (at, key) {
                (Value::Object(map), Value::String(key)) => Ok(map.get(key).unwrap_or(&Value::Null)),
                (Value::Array(list), key) => {
                    let index = key.as_u64().and_then(|index| usize::try_from(index).ok());
                    index.and_then(|index| list.get(index)).ok_or("index out of range")
                }
                _ => Err("that is no index of it"),
            });
            let found = found?;
            if weight(found) > most { Err(Wrong::TooMuch("64 MiB on the way")) } else { Ok(found.clone()) }
        }
        "len" => {
            want(1)?;
            match &given[0] {
                Value::String(text) => Ok(text.len().into()),
                Value::Array(list) => Ok(list.len().into()),
                Value::Object(map) => Ok(map.len().into()),
                _ => Err("it has no length".into()),
            }
        }
        "json" => {
            want(1)?;
            // A value holds more bytes than its text at most six times over.
            if weight(&given[0]) > most {
                Err(Wrong::TooMuch("64 MiB on the way"))
            } else {
                Ok(plain(&given[0].to_string()).into())
            }
        }
        "join" => {
            want(2)?;
            let (list, between) = (given[0].as_array().ok_or("it joins a list")?, text(&given[1])?);
            joined(list, between).map(Value::from)
        }
        "split" => {
            want(2)?;
            let (whole, at) = (text(&given[0])?, text(&given[1])?);
            // Each part takes more than its bytes: they are counted before they are made.
            let parts = whole.split(at).take(most / size_of::<Value>() + 1).count();
            if parts.saturating_mul(size_of::<Value>()).saturating_add(whole.len()) > most {
                return Err(Wrong::TooMuch("64 MiB on the way"));
            }
            Ok(whole.split(at).map(Value::from).collect())
        }
        "lower" => text_of(&given).map(|text| text.to_lowercase().into()),
        "upper" => text_of(&given).map(|text| text.to_uppercase().into()),
        "title" => text_of(&given).map(|text| {
            let mut chars = text.chars();
            chars.next().map(|first| first.to_uppercase().chain(chars).collect::<String>()).unwrap_or_default().into()
        }),
        "truncate" => {
            want(2)?;
            let most = usize::try_from(given[1].as_u64().ok_or("it takes a number")?).unwrap_or(usize::MAX);
            Ok(text(&given[0])?.chars().take(most).collect::<String>().into())
        }
        "pad" => {
            want(3)?;
            let blanks = |value: &Value| value.as_u64().filter(|n| *n <= 1000).map(|n| " ".repeat(n as usize));
            let (before, after) = (blanks(&given[1]).ok_or(WIDTH)?, blanks(&given[2]).ok_or(WIDTH)?);
            Ok((before + text(&given[0])? + &after).into())
        }
        // Go puts blanks between operands where neither is a string.
        "print" => {
            let mut made = String::new();
            for (index, value) in given.iter().enumerate() {
                if index > 0 && !value.is_string() && !given[index - 1].is_string() {
                    made.push(' ');
                }
                if !print_to(&mut made, value, MOST_TEXT) {
                    return Err(TOO_LONG);
                }
            }
            Ok(made.into())
        }
        "println" => Ok((joined(&given, " ")? + "\n").into()),
        "printf" => match given.split_first() {
            Some((Value::String(format), arguments)) => Ok(formatted(format, arguments)?.into()),
            _ => Err("its first argument is a format".into()),
        },
        _ => Err("there is no such function".into()),
    }
}

const WIDTH: &str = "it takes widths of at most 1000";

fn joined(list: &[Value], between: &str) -> Result<String, Wrong> {
    let mut made = String::new();
    for (index, value) in list.iter().enumerate() {
        if index > 0 {
            made.push_str(between);
        }
        if !print_to(&mut made, value, MOST_TEXT) {
            return Err(TOO_LONG);
        }
    }
    Ok(made)
}

fn text(value: &Value) -> Result<&str, Wrong> {
    value.as_str().ok_or_else(|| "it takes a string".into())
}

fn text_of(given: &[Value]) -> Result<&str, Wrong> {
    match given {
        [one] => text(one),
        _ => Err(format!("it takes 1 argument and was given {}", given.len()).into()),
    }
}

fn compare(one: &Value, other: &Value) -> Option<Ordering> {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64()?.partial_cmp(&other.as_f64()?),
        (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
        _ => None,
    }
}

/// `%s %v %d %q %t %%`, with a width of at most 999, `-` and a precision for strings.
fn formatted(format: &str, arguments: &[Value]) -> Result<String, Wrong> {
    let mut made = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            made.push(c);
            continue;
        }
        let left = chars.next_if_eq(&'-').is_some();
        let width = number_of(&mut chars)?;
        let precision = if chars.next_if_eq(&'.').is_some() { Some(number_of(&mut chars)?) } else { None };
        let verb = chars.next().ok_or("a % without a verb")?;
        if verb == '%' {
            made.push('%');
            continue;
        }
        let value = arguments.next().ok_or("an argument is missing")?;
        let mut cell = match verb {
            's' | 'v' => shown(value)?,
            'd' if value.is_i64() || value.is_u64() => value.to_string(),
            't' if value.is_boolean() => value.to_string(),
            'q' => format!("{:?}", shown(value)?),
            _ => return Err(format!("%{verb} does not fit {}", beginning(value)).into()),
        };
        if let Some(most) = precision {
            cell = cell.chars().take(most).collect();
        }
        let _ = if left { write!(made, "{cell:<width$}") } else { write!(made, "{cell:>width$}") };
        if made.len() > MOST_TEXT {
            return Err(TOO_LONG);
        }
    }
    if arguments.next().is_some() { Err("there are more arguments than verbs".into()) } else { Ok(made) }
}

fn number_of(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<usize, Wrong> {
    let mut digits = String::new();
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    if digits.len() > 3 { Err(WIDTH.into()) } else { Ok(digits.parse().unwrap_or(0)) }
}
