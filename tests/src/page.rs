//! Examples of a page, as a reader would type them.
//!
//! A block fenced `sh` or `console` is run, in the order of the page, by one shell; of a `console` block the lines behind `$ ` are
//! run, and the others must come out, in their order, `…` standing for any text and a line `...` for any lines. What is not run
//! says why, in a comment in front of its fence: `<!-- not run: REASON -->`. What a page needs stands in a comment near its top:
//! `<!-- runs with: WORD, WORD -->`.

use anyhow::{Result, bail, ensure};

/// One example.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// Line of its fence, from 1.
    pub line: usize,
    /// What it is.
    pub kind: Kind,
}

/// What is done with a block.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// Commands, all of which must succeed.
    Commands(String),
    /// Commands and what they print.
    Session(Vec<Exchange>),
    /// Not run, and why.
    Skipped(String),
}

/// One command of a session.
#[derive(Debug, PartialEq, Eq)]
pub struct Exchange {
    /// As typed.
    pub command: String,
    /// What must come out.
    pub output: Vec<String>,
}

/// A page's examples and needs.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// What it runs with.
    pub needs: Vec<String>,
    /// Its examples in order.
    pub blocks: Vec<Block>,
}

impl Page {
    /// Reads a page.
    ///
    /// # Errors
    /// Names the line of a fence that does not end, and of a reason that is none.
    pub fn parse(text: &str) -> Result<Self> {
        let (mut needs, mut blocks) = (Vec::new(), Vec::new());
        let mut skipped: Option<String> = None;
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let comment = line.trim().strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
            if let Some(reason) = comment.and_then(|c| c.strip_prefix("not run: ")) {
                ensure!(reason.len() > 8, "line {}: a reason is a sentence", number + 1);
                skipped = Some(reason.to_owned());
            } else if let Some(words) = comment.and_then(|c| c.strip_prefix("runs with: ")) {
                needs.extend(words.split(',').map(|word| word.trim().to_owned()));
            } else if let Some(language) = line.strip_prefix("```") {
                let mut body = Vec::new();
                loop {
                    match lines.next() {
                        None => bail!("line {}: the block does not end", number + 1),
                        Some((_, "```")) => break,
                        Some((_, line)) => body.push(line),
                    }
                }
                let kind = match (language, skipped.take()) {
                    ("sh" | "console", Some(reason)) => Kind::Skipped(reason),
                    ("sh", None) => Kind::Commands(body.join("\n")),
                    ("console", None) => Kind::Session(session(&body)),
                    _ => continue,
                };
                blocks.push(Block { line: number + 1, kind });
            } else if !line.trim().is_empty() {
                skipped = None;
            }
        }
        Ok(Self { needs, blocks })
    }
}

fn session(body: &[&str]) -> Vec<Exchange> {
    let mut all: Vec<Exchange> = Vec::new();
    let mut continues = false;
    for line in body {
        let typed = if continues { Some(*line) } else { line.strip_prefix("$ ") };
        match (typed, all.last_mut()) {
            (Some(text), Some(last)) if continues => {
                last.command.push('\n');
                last.command.push_str(text);
                continues = text.ends_with('\\');
            }
            (Some(text), _) => {
                all.push(Exchange { command: text.to_owned(), output: Vec::new() });
                continues = text.ends_with('\\');
            }
            (None, Some(last)) => last.output.push((*line).to_owned()),
            (None, None) => {}
        }
    }
    all
}

/// Whether `printed` is what a page shows: its lines in their order and nothing else, but for what `…` and `...` stand for.
pub fn shows(expected: &[String], printed: &str) -> Result<(), String> {
    let printed: Vec<&str> = printed.lines().map(str::trim_end).collect();
    let (mut at, mut any) = (0, false);
    for line in expected {
        let line = line.trim_end();
        if line.trim() == "..." {
            any = true;
            continue;
        }
        let fits = |found: &&str| line_fits(line, found);
        let found = if any {
            printed[at..].iter().position(fits).map(|skip| at + skip)
        } else {
            Some(at).filter(|at| printed.get(*at).is_some_and(fits))
        };
        match found {
            Some(found) => at = found + 1,
            None => return Err(format!("expected {line:?}, found {:?}", printed.get(at).unwrap_or(&"the end"))),
        }
        any = false;
    }
    match printed.get(at) {
        Some(more) if !any && !expected.is_empty() => Err(format!("expected the end, found {more:?}")),
        _ => Ok(()),
    }
}

fn line_fits(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(part) = last.replace(part) {
            match rest.find(part) {
                Some(at) => rest = &rest[at + str::len(part)..],
                None => return false,
            }
        }
    }
    last.map_or(rest.is_empty(), |part| rest.ends_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_with_their_kind_and_needs() {
        let text = "# T\n<!-- runs with: busybox, report -->\n```sh\na\nb\n```\n<!-- not run: needs the internet -->\n```sh\nc\n```\n```text\nno\n```\n```console\n$ x \\\n  y\nout\n$ z\n```\n";
        let page = Page::parse(text).unwrap();
        assert_eq!(page.needs, ["busybox", "report"]);
        let exchange = |command: &str, output: &[&str]| Exchange {
            command: command.into(),
            output: output.iter().map(ToString::to_string).collect(),
        };
        let kinds: Vec<_> = page.blocks.iter().map(|block| &block.kind).collect();
        assert_eq!(
            kinds,
            [
                &Kind::Commands("a\nb".into()),
                &Kind::Skipped("needs the internet".into()),
                &Kind::Session(vec![exchange("x \\\n  y", &["out"]), exchange("z", &[])]),
            ]
        );
        assert!(Page::parse("```sh\nnever ends").is_err() && Page::parse("<!-- not run: no -->\n").is_err());
    }

    #[test]
    fn a_reason_belongs_to_the_block_right_behind_it() {
        let page = Page::parse("<!-- not run: needs the internet -->\n\nwords\n\n```sh\nc\n```\n").unwrap();
        assert_eq!(page.blocks[0].kind, Kind::Commands("c".into()));
    }

    #[test]
    fn output_must_be_what_the_page_shows() {
        let page = |lines: &[&str]| lines.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(shows(&page(&["a", "b … d"]), "a\nb c d\n").is_ok());
        assert!(shows(&page(&["a", "...", "z"]), "a\nb\nc\nz\n").is_ok());
        assert!(shows(&page(&["a", "..."]), "a\nb\n").is_ok());
        assert!(shows(&page(&[]), "anything\n").is_ok());
        assert!(shows(&page(&["a"]), "a\nb\n").is_err());
        assert!(shows(&page(&["a", "c"]), "a\nb\nc\n").is_err());
        assert!(shows(&page(&["b … d"]), "b c e\n").is_err());
        assert!(shows(&page(&["a", "b"]), "a\n").is_err());
    }
}
