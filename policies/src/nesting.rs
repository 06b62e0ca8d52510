//! What is nested in a text, looked at before the parser: it recurses with brackets and signs, and reads what stands in `[` and `{`
//! again and again, each level up to three times as often as the one around it.
//!
//! Knows strings, raw strings and comments as the parser does, and is wrong on the safe side alone: what it takes for more nesting
//! than there is, is refused. Never: recurses; takes longer than the text is long.

use crate::engine::POLICY_LIMIT;

/// Brackets within brackets.
pub(crate) const BRACKETS: usize = 24;
/// Minus signs that wait for one operand.
pub(crate) const MINUSES: usize = 16;
/// Operators and fields in a row.
pub(crate) const OPERATORS: usize = 256;
/// Imports of one text: each is compared with the others.
pub(crate) const IMPORTS: usize = 256;
/// Bytes that the parser reads at most, those that it reads again counted again.
const WORK: u64 = 8 * POLICY_LIMIT as u64;

/// What is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooNested {
    #[error("brackets are nested deeper than {BRACKETS}")]
    Brackets,
    #[error("lists, sets and objects lie within each other so deeply, or so often, that it takes too long to parse")]
    Work,
    #[error("more than {MINUSES} minus signs stand before one operand")]
    Minuses,
    #[error("an expression has more than {OPERATORS} operators and fields")]
    Operators,
    #[error("a file has more than {IMPORTS} imports")]
    Imports,
}

/// Words after which an operand is awaited.
const KEYWORDS: [&str; 13] =
    ["as", "contains", "default", "else", "every", "if", "import", "in", "not", "package", "some", "with", "or"];

/// One bracket that is open, and the expression in it.
#[derive(Default)]
struct Level {
    minuses: usize,
    operators: usize,
    /// How often the parser may read what stands in it.
    readings: u64,
}

struct Scan {
    levels: Vec<Level>,
    minuses: usize,
    imports: usize,
    work: u64,
}

/// Refuses what is nested too deeply, with the line.
pub(crate) fn look(text: &str) -> Result<(), (usize, TooNested)> {
    let mut at = 0;
    scan(text.as_bytes(), &mut at).map_err(|found| {
        let lines = text.as_bytes()[..at.min(text.len())].split(|byte| *byte == b'\n').count() - 1;
        (lines + 1, found)
    })
}

fn scan(text: &[u8], at: &mut usize) -> Result<(), TooNested> {
    let mut scan = Scan { levels: vec![Level { readings: 1, ..Level::default() }], minuses: 0, imports: 0, work: 0 };
    // Whether what stands before could be an operand, and without a gap.
    let (mut operand, mut gap) = (false, true);
    while let Some(&byte) = text.get(*at) {
        let begun = *at;
        let next = text.get(begun + 1).copied().unwrap_or(0);
        *at += 1;
        let mut now = (false, false);
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => now = (operand, true),
            b'#' => {
                *at = end(text, *at, |byte| byte == b'\n');
                now = (operand, true);
            }
            b'"' => {
                *at = quoted(text, *at);
                now.0 = true;
            }
            b'`' => {
                *at = end(text, *at, |byte| byte == b'`') + 1;
                now.0 = true;
            }
            b'(' | b'[' | b'{' => {
                let is_index = byte == b'[' && operand && !gap;
                scan.open(byte != b'(' && !is_index)?;
                if is_index {
                    scan.operator(1)?;
                }
            }
            b')' | b']' | b'}' => {
                scan.close();
                now.0 = true;
            }
            b'=' if next == b'=' => {
                *at += 1;
                scan.operator(0)?;
            }
            b'<' | b'>' | b'!' => {
                *at += usize::from(next == b'=');
                scan.operator(0)?;
            }
            b',' | b';' | b':' | b'=' => scan.ends(),
            b'-' if !operand && !next.is_ascii_digit() => scan.minus()?,
            _ if byte.is_ascii_alphanumeric() || byte == b'_' => {
                *at = end(text, *at, |byte| !byte.is_ascii_alphanumeric() && byte != b'_');
                let is_field = begun > 0 && text[begun - 1] == b'.';
                let word = core::str::from_utf8(&text[begun..*at]).unwrap_or_default();
                let is_keyword = !is_field && KEYWORDS.contains(&word);
                if word == "import" && !is_field {
                    scan.import()?;
                }
                if word == "in" && !is_field {
                    scan.operator(0)?;
                } else if operand {
                    // Two operands in a row: another statement.
                    scan.ends();
                }
                now.0 = !is_keyword;
            }
            _ => scan.operator(0)?,
        }
        (operand, gap) = now;
        scan.reads((*at - begun) as u64)?;
    }
    Ok(())
}

impl Scan {
    fn open(&mut self, is_read_again: bool) -> Result<(), TooNested> {
        if self.levels.len() > BRACKETS {
            return Err(TooNested::Brackets);
        }
        let around = self.levels.last().map_or(1, |level| level.readings);
        let readings = if is_read_again { around.saturating_mul(3) } else { around };
        self.levels.push(Level { readings, ..Level::default() });
        Ok(())
    }

    fn close(&mut self) {
        self.ends();
        if self.levels.len() > 1 {
            self.levels.pop();
        }
    }

    fn import(&mut self) -> Result<(), TooNested> {
        self.imports += 1;
        if self.imports > IMPORTS { Err(TooNested::Imports) } else { Ok(()) }
    }

    /// An expression ends.
    fn ends(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            self.minuses -= level.minuses;
            (level.minuses, level.operators) = (0, 0);
        }
    }

    /// An operator, which may be that of the level around.
    fn operator(&mut self, outwards: usize) -> Result<(), TooNested> {
        let at = (self.levels.len() - 1).saturating_sub(outwards);
        self.levels[at].operators += 1;
        if self.levels[at].operators > OPERATORS { Err(TooNested::Operators) } else { Ok(()) }
    }

    fn minus(&mut self) -> Result<(), TooNested> {
        let level = self.levels.len() - 1;
        self.levels[level].minuses += 1;
        self.minuses += 1;
        if self.minuses > MINUSES { Err(TooNested::Minuses) } else { Ok(()) }
    }

    fn reads(&mut self, bytes: u64) -> Result<(), TooNested> {
        let readings = self.levels.last().map_or(1, |level| level.readings);
        self.work = self.work.saturating_add(bytes.saturating_mul(readings));
        if self.work > WORK { Err(TooNested::Work) } else { Ok(()) }
    }
}

/// Where the first byte of a kind is, or the end.
fn end(text: &[u8], from: usize, is: impl Fn(u8) -> bool) -> usize {
    text[from.min(text.len())..].iter().position(|byte| is(*byte)).map_or(text.len(), |found| from + found)
}

/// Behind the quote that ends a string.
fn quoted(text: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => break,
            b'\\' => at += 1,
            _ => {}
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(body: &str) -> Option<TooNested> {
        look(&format!("package x\n{body}\n")).err().map(|(_, found)| found)
    }

    #[test]
    fn what_is_nested_too_deeply_is_named_with_its_line() {
        let nested = |open: &str, inner: &str, close: &str, times: usize| {
            format!("allow if {}{inner}{}", open.repeat(times), close.repeat(times))
        };
        assert_eq!(found(&nested("(", "1", ")", BRACKETS)), None);
        assert_eq!(found(&nested("(", "1", ")", BRACKETS + 1)), Some(TooNested::Brackets));
        assert_eq!(found(&nested("[", "1", "]", 10)), None);
        for body in [
            nested("[", "1", "]", 24),
            nested("{\"a\":", "1", "}", 20),
            nested("{ ", "1", "}", 20),
            nested("x in[", "1", "]", 20),
            nested("not[", "1", "]", 20),
            nested("[x|", "1", "]", 20),
            nested("[-", "1", "]", 20),
            // Few brackets, again and again.
            format!("x := [{}]", format!("{},", nested("[", "1", "]", 9)).replace("allow if ", "").repeat(40)),
        ] {
            assert_eq!(found(&body), Some(TooNested::Work), "{body}");
        }
        for body in [
            format!("x := {}1", "-".repeat(900)),
            format!("x := {}1", "- \n# -\n".repeat(900)),
            format!("x := {}1", "-a * ".repeat(17)),
            format!("x := {}1", "-a in ".repeat(17)),
            format!("x := {}", format!("{}f(", "- ".repeat(6)).repeat(5)),
        ] {
            assert_eq!(found(&body), Some(TooNested::Minuses), "{body}");
        }
        for body in [
            format!("x := 1{}", "+1".repeat(1000)),
            format!("x := 1{}", "\n- 1".repeat(1000)),
            format!("x := a{}", "[0]".repeat(1000)),
            format!("x := a{}", ".in".repeat(1000)),
            format!("x if a{}", " in a".repeat(1000)),
            format!("x if a{}", " != a".repeat(1000)),
        ] {
            assert_eq!(found(&body), Some(TooNested::Operators), "{body}");
        }
        let imports = |count: usize| "import data.a\n".repeat(count);
        assert_eq!(found(&imports(IMPORTS)), None);
        assert_eq!(found(&imports(IMPORTS + 1)), Some(TooNested::Imports));
        assert_eq!(found(&format!("# {}\nx := input.import", imports(IMPORTS).replace('\n', " "))), None);
        assert_eq!(look("package x\n\nallow if ((((((((((((((((((((((((((1"), Err((3, TooNested::Brackets)));
    }

    #[test]
    fn what_is_text_or_one_after_the_other_is_not_nested() {
        let many = [
            format!("# {}\nx := 1", "[".repeat(900)),
            format!("x := \"\\\"{}\"", "[".repeat(900)),
            format!("x := `{}`", "[\"\n".repeat(900)),
            "x contains -1 if input.x == -input.y\n".repeat(900),
            format!("x if {{\n{}}}", "input.x.y == -input.y\n".repeat(900)),
            format!("x := [{}]", "-a, a.b[0], ".repeat(900)),
            format!("x := {{{}\"z\": 1}}", "\"key\": [1, \"two\", {\"three\": 3}], ".repeat(900)),
        ];
        for body in many {
            assert_eq!(found(&body), None, "{}", &body[..60]);
        }
        for text in [crate::RELEASE.text, crate::EVIDENCE_SNP.text, crate::RELEASE.tests, crate::EVIDENCE_SNP.tests] {
            assert_eq!(look(text), Ok(()));
        }
    }
}
