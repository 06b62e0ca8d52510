//! Sources as text, for tests about what stands where.
//!
//! Reads lines, not Rust: what it takes for code is a line outside comments and outside a file's tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace is there")
}

/// Every Rust file under a folder, generated ones apart.
pub fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect(folder, &mut files);
    files.sort();
    files
}

fn collect(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())).flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}

/// The code of a file: without comments, and without the tests at its foot. Line by line, empty where nothing is left.
pub fn code(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut lines: Vec<String> = Vec::new();
    let mut of_tests = false;
    for line in text.lines() {
        // Tests stand at the foot of a file, in a module of their own.
        of_tests =
            of_tests || (line.ends_with("mod tests {") && lines.last().is_some_and(|line| line == "#[cfg(test)]"));
        lines.push(if of_tests { String::new() } else { without_comment(line).to_string() });
    }
    lines
}

fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    let bytes = line.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'"' if at == 0 || bytes[at - 1] != b'\\' => quoted = !quoted,
            b'/' if !quoted && bytes.get(at + 1) == Some(&b'/') => return line[..at].trim_end(),
            _ => {}
        }
    }
    line
}

/// Is a file of tests alone: `tests.rs`, or in a folder of tests.
pub fn is_test(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name == "tests.rs")
        || file.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "benches")
}

/// Which file of a crate imports which other, by the paths its code names (`crate::`, `super::`, `self::`, children).
///
/// A name that a module passes on with `pub use` leads to the file it comes from.
pub struct Imports {
    /// Files by module path, such as `["store", "sqlite"]`; the crate's root is the empty path.
    modules: BTreeMap<Vec<String>, PathBuf>,
    /// What each file names, as absolute module paths.
    named: BTreeMap<Vec<String>, BTreeSet<Vec<String>>>,
    /// What each module passes on: name to absolute path. `*` stands under its own name.
    passed_on: BTreeMap<Vec<String>, BTreeMap<String, Vec<String>>>,
}

impl Imports {
    /// Of the crate whose root file is `root` (`lib.rs`, `main.rs`).
    pub fn of_crate(root: &Path) -> Self {
        let folder = root.parent().expect("a file lies in a folder");
        let mut modules = BTreeMap::from([(Vec::new(), root.to_path_buf())]);
        let mut texts = BTreeMap::new();
        let mut queue = vec![(Vec::new(), root.to_path_buf(), folder.to_path_buf())];
        while let Some((path, file, children)) = queue.pop() {
            let code = code(&file).join("\n");
            for name in declared(&code) {
                let candidates = [children.join(format!("{name}.rs")), children.join(&name).join("mod.rs")];
                let Some(child) = candidates.into_iter().find(|candidate| candidate.is_file()) else { continue };
                if is_test(&child) {
                    continue;
                }
                let child_path: Vec<String> = path.iter().cloned().chain([name.clone()]).collect();
                modules.insert(child_path.clone(), child.clone());
                queue.push((child_path, child, children.join(&name)));
            }
            texts.insert(path, code);
        }
        let mut named = BTreeMap::new();
        let mut passed_on = BTreeMap::new();
        for (path, text) in &texts {
            let (uses, text) = used(text);
            let absolute = |words: &[String]| absolute(path, words, &modules);
            let passed: BTreeMap<_, _> = uses
                .iter()
                .filter(|each| each.public)
                .filter_map(|each| Some((each.name.clone(), absolute(&each.path)?)))
                .collect();
            let mut names: BTreeSet<_> =
                uses.iter().filter(|each| !each.public).filter_map(|each| absolute(&each.path)).collect();
            names.extend(inline(&text).iter().filter_map(|words| absolute(words)));
            named.insert(path.clone(), names);
            passed_on.insert(path.clone(), passed);
        }
        Self { modules, named, passed_on }
    }

    /// Edges between files, as module paths.
    pub fn edges(&self) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
        let edge = |from: &Vec<String>, names: &BTreeSet<Vec<String>>| {
            let to = names.iter().map(|name| self.home_of(name, 0)).filter(|to| to != from).collect();
            (from.clone(), to)
        };
        self.named.iter().map(|(from, names)| edge(from, names)).collect()
    }

    /// The module in whose file a path's last name is defined.
    fn home_of(&self, path: &[String], depth: usize) -> Vec<String> {
        let module = (0..=path.len()).rev().map(|length| &path[..length]).find(|part| self.modules.contains_key(*part));
        let module = module.unwrap_or(&[]).to_vec();
        let Some(name) = path.get(module.len()) else { return module };
        match self.passed_on.get(&module).and_then(|names| names.get(name)) {
            Some(target) if depth < 8 => {
                let further = target.iter().chain(&path[module.len() + 1..]).cloned().collect::<Vec<_>>();
                self.home_of(&further, depth + 1)
            }
            _ => module,
        }
    }

    /// Groups of files that import one another in a circle, each sorted.
    pub fn circles(&self) -> Vec<Vec<String>> {
        let edges = self.edges();
        let reach: BTreeMap<_, _> = edges.keys().map(|from| (from.clone(), reachable(from, &edges))).collect();
        let mut circles = BTreeSet::new();
        for (from, to) in &reach {
            let mut circle: Vec<_> =
                to.iter().filter(|other| reach[*other].contains(from)).map(|p| p.join("::")).collect();
            circle.sort();
            if circle.len() > 1 {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }
}

fn reachable(from: &[String], edges: &BTreeMap<Vec<String>, BTreeSet<Vec<String>>>) -> BTreeSet<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut queue = vec![from.to_vec()];
    while let Some(at) = queue.pop() {
        for next in edges.get(&at).into_iter().flatten() {
            if seen.insert(next.clone()) {
                queue.push(next.clone());
            }
        }
    }
    seen
}

/// Names of `mod name;`, those of tests apart.
fn declared(code: &str) -> Vec<String> {
    let name = |line: &str| {
        let line = line.trim();
        let rest = line.strip_prefix("pub(crate) ").or_else(|| line.strip_prefix("pub ")).unwrap_or(line);
        rest.strip_prefix("mod ")?.strip_suffix(';').map(str::to_string)
    };
    let lines: Vec<_> = code.lines().collect();
    let of_tests = |at: usize| at > 0 && lines[at - 1].trim() == "#[cfg(test)]";
    (0..lines.len()).filter(|at| !of_tests(*at)).filter_map(|at| name(lines[at])).collect()
}

/// One name that a `use` brings in.
struct Used {
    public: bool,
    name: String,
    path: Vec<String>,
}

/// Every name of every `use` of a file, and what is left of the file without them.
fn used(code: &str) -> (Vec<Used>, String) {
    let (mut found, mut left) = (Vec::new(), String::new());
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let before = rest[..at].rsplit('\n').next().unwrap_or_default().trim().to_string();
        left.push_str(&rest[..at]);
        rest = &rest[at + 4..];
        let public = before.starts_with("pub");
        let visibility = before.is_empty() || before == "pub" || before.starts_with("pub(");
        let Some(end) = rest.find(';').filter(|_| visibility) else { continue };
        let statement: String = rest[..end].split_whitespace().collect::<Vec<_>>().join(" ");
        spread(&[], &statement, &mut |name, path| found.push(Used { public, name, path }));
        rest = &rest[end..];
    }
    left.push_str(rest);
    (found, left)
}

/// Spreads `a::{b, c::d as e}` into its names.
fn spread(prefix: &[String], tree: &str, each: &mut impl FnMut(String, Vec<String>)) {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let mut path = prefix.to_vec();
        path.extend(tree[..open].split("::").map(str::trim).filter(|word| !word.is_empty()).map(str::to_string));
        let inner = tree[open + 1..].trim_end().strip_suffix('}').unwrap_or(&tree[open + 1..]);
        let (mut depth, mut start) = (0, 0);
        for (at, c) in inner.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    spread(&path, &inner[start..at], each);
                    start = at + 1;
                }
                _ => {}
            }
        }
        spread(&path, &inner[start..], each);
    } else if !tree.is_empty() {
        let (tree, alias) = tree.split_once(" as ").map_or((tree, None), |(tree, alias)| (tree, Some(alias)));
        let mut path = prefix.to_vec();
        path.extend(tree.split("::").map(|word| word.trim().to_string()));
        if path.len() > 1 && path.last().is_some_and(|word| word == "self") {
            path.pop();
        }
        let name = alias.map_or_else(|| path.last().cloned().unwrap_or_default(), |alias| alias.trim().to_string());
        each(name, path);
    }
}

/// Paths named in the middle of code: `crate::a::b`, `super::a`, `child::b`.
fn inline(code: &str) -> Vec<Vec<String>> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    for word in code.split(|c: char| !is_word(c)).filter(|word| word.contains("::")) {
        let words: Vec<String> = word.split("::").filter(|word| !word.is_empty()).map(str::to_string).collect();
        found.push(words);
    }
    found
}

/// A path as it stands in a module, from the crate's root; nothing if it leads out of the crate.
fn absolute(module: &[String], words: &[String], modules: &BTreeMap<Vec<String>, PathBuf>) -> Option<Vec<String>> {
    let mut at = module.to_vec();
    let mut rest = words;
    match words.first()?.as_str() {
        "crate" => (at, rest) = (Vec::new(), &words[1..]),
        "self" => rest = &words[1..],
        "super" => {
            while rest.first().is_some_and(|word| word == "super") {
                at.pop()?;
                rest = &rest[1..];
            }
        }
        first => {
            let child: Vec<String> = module.iter().cloned().chain([first.to_string()]).collect();
            if !modules.contains_key(&child) {
                return None;
            }
        }
    }
    at.extend(rest.iter().cloned());
    Some(at)
}
