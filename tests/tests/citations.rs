//! Every page, section and file that code or docs cite is there, and every page can be come by: a citation nobody can follow is
//! worse than none.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

const FOLDERS: &[&str] = &[
    "verifier",
    "simulator",
    "guest",
    "kbs",
    "policies",
    "runtime",
    "tests",
    "docs",
    "fuzz",
    "scripts",
    "deploy",
    ".ci",
];
const EXTENSIONS: &[&str] = &["rs", "md", "toml", "proto", "rego", "ld", "s", "S", "html", "py", "sh", ""];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn collect(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !path.ends_with("target") && !path.ends_with("corpus") && !path.ends_with("testdata") {
                collect(&path, out);
            }
        } else if path.extension().map_or(Some(""), |e| e.to_str()).is_some_and(|e| EXTENSIONS.contains(&e)) {
            out.push(path);
        }
    }
}

fn texts() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for folder in FOLDERS.iter().filter(|folder| root().join(folder).is_dir()) {
        collect(&root().join(folder), &mut files);
    }
    for entry in std::fs::read_dir(root()).unwrap().flatten() {
        let path = entry.path();
        if path.is_file() && path.extension().is_some_and(|e| e == "md" || e == "toml") {
            files.push(path);
        }
    }
    let own = Path::new(file!()).file_name().unwrap();
    files
        .into_iter()
        .filter(|path| path.file_name() != Some(own))
        .filter_map(|path| std::fs::read_to_string(&path).ok().map(|text| (path, text)))
        .collect()
}

/// Sections of a page: `## 4. Title`, `### 4.1 Title`, and `4.` of a numbered list under `## 4.` as 4.4.
fn sections(page: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut chapter = String::new();
    for line in page.lines() {
        let heading = line.trim_start_matches('#').trim_start();
        let number: String = heading.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let number = number.trim_end_matches('.').to_owned();
        if number.is_empty() {
            continue;
        }
        if line.starts_with("## ") {
            chapter.clone_from(&number);
            all.insert(number);
        } else if line.starts_with("### ") {
            all.insert(number);
        } else if !line.starts_with(' ') && !chapter.is_empty() && heading[number.len()..].starts_with(". ") {
            all.insert(format!("{chapter}.{number}"));
        }
    }
    all
}

/// `docs/a/b.md`, and the sections that follow it: `docs/a/b.md §4.1, §6`.
fn citations(text: &str) -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("docs/") {
        rest = &rest[at..];
        let word: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "/-_.".contains(*c)).collect();
        rest = &rest[word.len()..];
        let Some(end) = word.find(".md") else { continue };
        let mut cited = Vec::new();
        let mut after = rest;
        while let Some(section) = after.trim_start_matches([',', ' ']).strip_prefix('§') {
            let number: String = section.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            after = &section[number.len()..];
            cited.push(number.trim_end_matches('.').to_owned());
        }
        all.push((word[..end + 3].to_owned(), cited));
    }
    all
}

#[test]
fn every_cited_page_and_section_is_there() {
    let mut wrong = Vec::new();
    let mut found = 0;
    for (path, text) in texts() {
        for (page, cited) in citations(&text) {
            found += 1;
            let Ok(target) = std::fs::read_to_string(root().join(&page)) else {
                wrong.push(format!("{}: {page} is not there", path.display()));
                continue;
            };
            let sections = sections(&target);
            let missing = cited.iter().filter(|number| !sections.contains(*number));
            wrong.extend(missing.map(|number| format!("{}: {page} has no §{number}", path.display())));
        }
        if text.contains(concat!("DES", "IGN §")) || text.contains(concat!("DES", "IGN.md")) {
            wrong.push(format!("{}: cites the design without its page", path.display()));
        }
    }
    assert!(found > 30, "only {found} citations found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut wrong = Vec::new();
    for (path, text) in texts() {
        if path.extension().is_none_or(|e| e != "md") {
            continue;
        }
        for link in links(&text) {
            if link.contains("://") {
                continue;
            }
            let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if target.is_empty() { path.clone() } else { path.parent().unwrap().join(target) };
            let anchors = || std::fs::read_to_string(&target).map(|page| anchors(&page)).unwrap_or_default();
            if !target.exists() || !anchor.is_empty() && !anchors().contains(anchor) {
                wrong.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn links(page: &str) -> impl Iterator<Item = &str> {
    page.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// What a link may name behind `#`: headings in small letters, hyphens for blanks, without other marks.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
    headings.map(|text| text.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

/// README, ARCHITECTURE, SECURITY, CHANGELOG and what lies under docs.
fn pages() -> Vec<(PathBuf, String)> {
    let pages = texts().into_iter().filter(|(path, _)| {
        let path = path.strip_prefix(root()).unwrap();
        path.extension().is_some_and(|e| e == "md") && (path.starts_with("docs") || path.components().count() == 1)
    });
    pages.collect()
}

#[test]
fn every_page_can_be_come_by_from_the_readme() {
    let (mut reached, mut next) = (BTreeSet::new(), vec![root().join("README.md").canonicalize().unwrap()]);
    while let Some(page) = next.pop() {
        let text = std::fs::read_to_string(&page).unwrap();
        let targets = links(&text)
            .filter_map(|link| link.split('#').next())
            .filter(|link| Path::new(link).extension().is_some_and(|e| e == "md"));
        let targets = targets.filter_map(|link| page.parent().unwrap().join(link).canonicalize().ok());
        let linked: Vec<_> = targets.filter(|target| !reached.contains(target)).collect();
        next.extend(linked);
        reached.insert(page);
    }
    let lost: Vec<_> =
        pages().into_iter().filter(|(path, _)| !reached.contains(&path.canonicalize().unwrap())).collect();
    assert!(lost.is_empty(), "no link leads to {:#?}", lost.iter().map(|(path, _)| path).collect::<Vec<_>>());
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn expanded(path: &str) -> Vec<String> {
    match path.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?))) {
        Some((before, (words, after))) => {
            words.split(',').flat_map(|word| expanded(&format!("{before}{word}{after}"))).collect()
        }
        None => vec![path.to_owned()],
    }
}

/// Text in backticks that names a file of ours by its path from the root: it begins with one of our folders, or ends as sources do.
fn cited_files(page: &str) -> Vec<String> {
    let fenced = page.split("\n```").step_by(2).collect::<Vec<_>>().join("\n");
    let spans = fenced.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let is_path = |span: &&String| {
        let ours = FOLDERS.iter().any(|folder| span.starts_with(&format!("{folder}/")));
        let source = [".rs", ".rego", ".proto", ".md", ".list", ".lock"].iter().any(|end| span.ends_with(end));
        // Words in capitals and what a shell expands stand for others' names.
        let literal = span.chars().all(|c| c.is_ascii_alphanumeric() || "/-_.{},*".contains(c))
            && !span.split(['/', '.']).any(|part| part.len() > 1 && part.chars().all(|c| c.is_ascii_uppercase()));
        span.contains('/') && (ours || source) && literal
    };
    spans.iter().filter(is_path).flat_map(|span| expanded(span.split('*').next().unwrap_or_default())).collect()
}

#[test]
fn every_file_that_a_page_cites_is_there_from_the_root() {
    let (mut wrong, mut found) = (Vec::new(), 0);
    for (path, text) in pages() {
        for cited in cited_files(&text) {
            found += 1;
            // `bin coffer` and the like are programs; a module may be cited without its end.
            if !root().join(&cited).exists() && !root().join(format!("{cited}.rs")).exists() {
                wrong.push(format!("{}: {cited}", path.display()));
            }
        }
    }
    assert!(found > 40, "only {found} files cited");
    assert!(wrong.is_empty(), "not there from the root: {wrong:#?}");
}

/// The tree of docs/design/roles.md names each folder at its top: it is there, or marked as not built.
#[test]
fn the_tree_of_the_design_is_the_tree() {
    let page = std::fs::read_to_string(root().join("docs/design/roles.md")).unwrap();
    let tree = page.split("```text").nth(1).and_then(|rest| rest.split("```").next()).expect("a tree");
    let mut above = String::new();
    let mut wrong = Vec::new();
    for line in tree.lines() {
        let mut words = line.split("  ").map(str::trim).filter(|word| !word.is_empty());
        if !line.starts_with(' ') {
            above = words.clone().next().unwrap_or_default().split('/').next().unwrap_or_default().to_owned();
        }
        for entry in words.by_ref().flat_map(|word| word.split(", ")) {
            let Some((name, about)) = entry.split_once('/') else { continue };
            if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
                continue;
            }
            let exists = root().join(name).is_dir() || root().join(&above).join(name).is_dir();
            let denied = about.contains("not built yet") || line.contains("(neither built yet)");
            if exists == denied {
                wrong.push(format!(
                    "{name}/: {}",
                    if exists { "is there, and called not built" } else { "is not there" }
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "docs/design/roles.md: {wrong:#?}");
}

#[test]
fn files_and_anchors_are_read_as_they_are_written() {
    let page = "see `guest/{spec,seal}`, `kbs/src/NAME.rs`, `a.rs` and `x/y.rs`\n```text\n`docs/no.md`\n```\nor `kbs:///a/b/c`";
    assert_eq!(cited_files(page), ["guest/spec", "guest/seal", "x/y.rs"]);
    assert_eq!(anchors("# A b\n### 9.1 Exit codes\ntext"), ["91-exit-codes", "a-b"].map(String::from).into());
}

#[test]
fn sections_and_citations_are_read_as_they_are_written() {
    let page = "# T\n## 4. RA-TLS\n1. one\n   2. not this\n12. twelve\n### 4.1 sub\n## 5. Next\n1. first\n";
    assert_eq!(sections(page), ["4", "4.1", "4.12", "5", "5.1"].map(String::from).into());
    let cited = citations("see docs/design/a-b.md §4.1, §6; docs/x.md. And docs/y.txt");
    let expected = [("docs/design/a-b.md", vec!["4.1", "6"]), ("docs/x.md", vec![])];
    assert_eq!(cited, expected.map(|(page, s)| (page.to_owned(), s.into_iter().map(String::from).collect::<Vec<_>>())));
}
