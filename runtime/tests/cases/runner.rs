//! Reads and runs files of cases.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// A case: steps in one folder.
#[derive(Default)]
struct Case {
    title: String,
    files: BTreeMap<String, String>,
    env: Vec<(String, String)>,
    steps: Vec<Step>,
}

/// A command line and its answer.
#[derive(Default)]
struct Step {
    line: String,
    input: String,
    exit: i32,
    out: Vec<String>,
    err: Vec<String>,
}

/// Runs every case of a folder and says how many there are. Panics with what does not hold.
pub fn run(folder: &Path, name: &str, program: &Path) -> usize {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "case"));
    files.sort();
    let mut count = 0;
    let mut failures = String::new();
    for file in files {
        let cases =
            parse(&fs::read_to_string(&file).unwrap()).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
        count += cases.len();
        for case in cases {
            if let Err(why) = play(&case, name, program) {
                writeln!(failures, "\n{}: {}\n{why}", file.display(), case.title).unwrap();
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
    count
}

fn parse(text: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    let mut input = String::new();
    for (number, line) in text.lines().enumerate() {
        let bad = |why: &str| format!("line {}: {why}: {line}", number + 1);
        if let Some(title) = line.strip_prefix("# ") {
            cases.push(Case { title: title.to_owned(), ..Case::default() });
            continue;
        }
        if line.trim().is_empty() {
            continue;
        }
        let case = cases.last_mut().ok_or_else(|| bad("before the first title"))?;
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (word, case.steps.last_mut()) {
            ("write", _) => {
                let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
                writeln!(case.files.entry(name.to_owned()).or_default(), "{text}").unwrap();
            }
            ("env", _) => {
                let (name, value) = rest.split_once('=').ok_or_else(|| bad("expected NAME=VALUE"))?;
                case.env.push((name.to_owned(), value.to_owned()));
            }
            ("0<", _) => writeln!(input, "{rest}").unwrap(),
            ("$", _) => {
                case.steps.push(Step { line: rest.to_owned(), input: std::mem::take(&mut input), ..Step::default() });
            }
            ("exit", Some(step)) => step.exit = rest.parse().map_err(|_| bad("expected a number"))?,
            ("1>", Some(step)) => step.out.push(rest.to_owned()),
            ("2>", Some(step)) => step.err.push(rest.to_owned()),
            _ => return Err(bad("expected write, env, 0<, $, exit, 1> or 2>")),
        }
    }
    Ok(cases)
}

fn play(case: &Case, name: &str, program: &Path) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    for (file, text) in &case.files {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    for step in &case.steps {
        let words = words(&step.line)?;
        let Some((first, rest)) = words.split_first().filter(|(first, _)| *first == name) else {
            return Err(format!("not a line of {name}: {}", step.line));
        };
        let mut child = Command::new(program)
            .args(rest)
            .current_dir(folder.path())
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", folder.path())
            .env("COFFER_HOME", folder.path().join("home"))
            .envs(case.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{first}: {error}"));
        // A program that reads nothing may be gone already.
        let _ = child.stdin.take().unwrap().write_all(step.input.as_bytes());
        let answer = child.wait_with_output().unwrap();
        let lines = |bytes: &[u8]| -> Vec<String> {
            let text = String::from_utf8_lossy(bytes).replace(folder.path().to_str().unwrap(), "{folder}");
            text.lines().map(str::to_owned).collect()
        };
        let (exit, out, err) = (answer.status.code().unwrap_or(-1), lines(&answer.stdout), lines(&answer.stderr));
        if exit != step.exit || !holds(&step.out, &out) || !holds(&step.err, &err) {
            let mut said = format!("$ {}\nexit {exit}\n", step.line);
            for (mark, lines) in [("1>", out), ("2>", err)] {
                for line in lines {
                    writeln!(said, "{mark} {line}").unwrap();
                }
            }
            return Err(said);
        }
    }
    Ok(())
}

/// The words of a line, with the shell's quotes.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => {
                let next = characters.next().ok_or("nothing behind the last \\")?;
                word.get_or_insert_default().push(next);
            }
            ('\'' | '"', None) => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (' ', None) => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("a quote is not closed: {line}"));
    }
    words.extend(word);
    Ok(words)
}

/// These lines are what the patterns say.
fn holds(patterns: &[String], lines: &[String]) -> bool {
    match (patterns.split_first(), lines.split_first()) {
        (None, None) => true,
        (Some((pattern, rest)), _) if pattern == "…" => {
            holds(rest, lines) || lines.split_first().is_some_and(|(_, further)| holds(patterns, further))
        }
        (Some((pattern, rest)), Some((line, further))) => is_like(pattern, line) && holds(rest, further),
        _ => false,
    }
}

/// This line is what the pattern says.
fn is_like(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[test]
fn patterns_are_held_to_the_whole_line_and_all_lines() {
    for (pattern, line, expected) in [
        ("a…c", "abc", true),
        ("a…c", "abcd", false),
        ("…", "", true),
        ("a", "ab", false),
        ("a…b…c", "a-b-b-c", true),
        ("a…", "b", false),
    ] {
        assert_eq!(is_like(pattern, line), expected, "{pattern} {line}");
    }
    let lines = |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
    assert!(holds(&lines("a\n…\nd"), &lines("a\nb\nc\nd")) && holds(&lines("…"), &[]));
    assert!(!holds(&[], &lines("a")) && !holds(&lines("a"), &lines("a\nb")) && !holds(&lines("a\nb"), &lines("a")));
}

#[test]
fn lines_are_split_as_a_shell_does() {
    assert_eq!(words("a 'b c' \"d \\\" e\" '' f\\ g").unwrap(), ["a", "b c", "d \" e", "", "f g"]);
    assert!(words("a 'b").is_err());
}
