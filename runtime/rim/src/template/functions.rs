//! The functions, and what counts as true.

use std::cmp::Ordering;
use std::fmt::Write as _;

use serde_json::Value;

use super::error::TemplateError;

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

/// As Go prints it.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".into(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| format!("{key}:{}", shown(value)));
            format!("map[{}]", entries.collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

/// Calls one. What a pipe hands over is its last argument.
pub fn call(name: &str, given: Vec<Value>) -> Result<Value, TemplateError> {
    let made = called(name, given).map_err(|what| TemplateError::Argument { function: name.into(), what })?;
    if made.as_str().is_some_and(|text| text.len() > MOST_TEXT) {
        return Err(TemplateError::TooMuch("1 MiB in one value"));
    }
    Ok(made)
}

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

fn called(name: &str, mut given: Vec<Value>) -> Result<Value, String> {
    let count = given.len();
    let want = |wanted: usize| {
        if count == wanted { Ok(()) } else { Err(format!("it takes {wanted} arguments and was given {count}")) }
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
                    index.and_then(|index| list.get(index)).ok_or_else(|| format!("index out of range: {key}"))
                }
                _ => Err(format!("{key} is no index of that")),
            });
            found.cloned()
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
        "json" => want(1).map(|()| given[0].to_string().into()),
        "join" => {
            want(2)?;
            let (list, between) = (given[0].as_array().ok_or("it joins a list")?, text(&given[1])?);
            Ok(list.iter().map(shown).collect::<Vec<_>>().join(between).into())
        }
        "split" => {
            want(2)?;
            let (whole, at) = (text(&given[0])?, text(&given[1])?);
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
                made.push_str(&shown(value));
            }
            Ok(made.into())
        }
        "println" => Ok((given.iter().map(shown).collect::<Vec<_>>().join(" ") + "\n").into()),
        "printf" => match given.split_first() {
            Some((Value::String(format), arguments)) => Ok(formatted(format, arguments)?.into()),
            _ => Err("its first argument is a format".into()),
        },
        _ => Err("there is no such function".into()),
    }
}

const WIDTH: &str = "it takes widths of at most 1000";

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| "it takes a string".into())
}

fn text_of(given: &[Value]) -> Result<&str, String> {
    match given {
        [one] => text(one),
        _ => Err(format!("it takes 1 argument and was given {}", given.len())),
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
fn formatted(format: &str, arguments: &[Value]) -> Result<String, String> {
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
            's' | 'v' => shown(value),
            'd' if value.is_i64() || value.is_u64() => value.to_string(),
            't' if value.is_boolean() => value.to_string(),
            'q' => format!("{:?}", shown(value)),
            _ => return Err(format!("%{verb} does not fit {}", shown(value).chars().take(80).collect::<String>())),
        };
        if let Some(most) = precision {
            cell = cell.chars().take(most).collect();
        }
        let _ = if left { write!(made, "{cell:<width$}") } else { write!(made, "{cell:>width$}") };
    }
    if arguments.next().is_some() { Err("there are more arguments than verbs".into()) } else { Ok(made) }
}

fn number_of(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<usize, String> {
    let mut digits = String::new();
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    if digits.len() > 3 { Err(WIDTH.into()) } else { Ok(digits.parse().unwrap_or(0)) }
}
