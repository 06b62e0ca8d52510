//! Every page and section that code or docs cite is there: a citation nobody can follow is worse than none.

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
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            if !path.parent().unwrap().join(target).exists() {
                wrong.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn sections_and_citations_are_read_as_they_are_written() {
    let page = "# T\n## 4. RA-TLS\n1. one\n   2. not this\n12. twelve\n### 4.1 sub\n## 5. Next\n1. first\n";
    assert_eq!(sections(page), ["4", "4.1", "4.12", "5", "5.1"].map(String::from).into());
    let cited = citations("see docs/design/a-b.md §4.1, §6; docs/x.md. And docs/y.txt");
    let expected = [("docs/design/a-b.md", vec!["4.1", "6"]), ("docs/x.md", vec![])];
    assert_eq!(cited, expected.map(|(page, s)| (page.to_owned(), s.into_iter().map(String::from).collect::<Vec<_>>())));
}
