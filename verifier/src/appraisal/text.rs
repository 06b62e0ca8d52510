//! An appraisal as the text of its JSON, byte for byte as serde writes it: nine in ten of its strings stand in the lines of checks, and
//! most of those are words of ours, in which nothing is to be escaped.

use super::Appraisal;
use crate::CheckLine;

impl Appraisal {
    /// Appends the text.
    ///
    /// # Errors
    /// [`serde_json::Error`], never in fact: its keys are words.
    pub fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        serde_json::to_writer(&mut *out, &self.view(Vec::new()))?;
        // Its last member is the list of checks, which is empty so far.
        out.truncate(out.len().saturating_sub(END.len()));
        for (number, line) in self.lines().iter().enumerate() {
            if number > 0 {
                out.push(b',');
            }
            write_line(line, out)?;
        }
        out.extend_from_slice(END);
        Ok(())
    }
}

const END: &[u8] = b"]}";

fn write_line(line: &CheckLine, out: &mut Vec<u8>) -> serde_json::Result<()> {
    let CheckLine { code, outcome, found, expected, hint } = line;
    for part in [r#"{"code":""#, code.as_str(), r#"","outcome":""#, outcome.as_str(), r#"","found":"#] {
        out.extend_from_slice(part.as_bytes());
    }
    write_string(found, out)?;
    out.extend_from_slice(br#","expected":"#);
    write_string(expected, out)?;
    out.extend_from_slice(br#","hint":"#);
    write_string(hint, out)?;
    out.push(b'}');
    Ok(())
}

fn write_string(text: &str, out: &mut Vec<u8>) -> serde_json::Result<()> {
    // All bytes, whatever the first ones are: so many at once.
    let escaped = |byte| u8::from(byte < b' ') | u8::from(byte == b'"') | u8::from(byte == b'\\');
    if text.bytes().fold(0, |any, byte| any | escaped(byte)) > 0 {
        return serde_json::to_writer(out, text);
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::{Code, reason::Outcome};

    #[test]
    fn a_line_is_what_serde_makes_of_it_whatever_its_strings_hold() {
        let all: String = (0..=0x2100).filter_map(char::from_u32).collect();
        let each = all.chars().map(String::from);
        let texts = [String::new(), all.clone(), "plain".repeat(40)].into_iter().chain(each);
        for text in texts {
            for outcome in [Outcome::Passed, Outcome::Failed, Outcome::Waived, Outcome::NotRun] {
                let hint = Cow::Owned(text.clone());
                let (found, expected) = (text.clone(), text.chars().rev().collect());
                let line = CheckLine { code: Code::HostRequested, outcome, found, expected, hint };
                let mut out = Vec::new();
                write_line(&line, &mut out).unwrap();
                assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&line).unwrap());
            }
        }
    }
}
