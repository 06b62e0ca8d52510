//! What `opa check --strict` refuses, as far as it can be told without the tool, and what our engine refuses beside it.
//!
//! Every finding has a file, a line and a column. Trusts nothing in the text. Never: evaluates a rule on anything but an empty input.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{AssignOp, Expr, Literal, LiteralStmt, Module, Rule, RuleHead, Span};
use serde::Serialize;

use crate::{
    Policy, PolicyError,
    bounds::{self, File, on_large_stack},
    calls,
    deciding::{deciding, is_test_file},
    engine::POLICY_LIMIT,
    error::forbidden,
    input,
    lint::known::Known,
    policy::filled,
    syntax::{self, Part, parts, root},
    visit::{self, Visitor},
};

/// What is wrong at one place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// The file.
    pub file: String,
    /// Line, from 1; 1 for what is about the whole file.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// Which kind it is.
    pub code: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

impl core::fmt::Display for Finding {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { file, line, column, code, message } = self;
        write!(f, "{file}:{line}:{column}: {code}: {message}")
    }
}

/// Every kind of finding, and what it says.
pub const FINDINGS: [(&str, &str); 13] = [
    ("parse", "the text is not Rego v1, calls what is not there, or is beyond what is evaluated here"),
    (
        "no-allow",
        "no package, or more than one, has a rule `allow`; or something else gives a value to a rule: data, or another package under `allow` or `deny`",
    ),
    ("allow-no-boolean", "a rule `allow` whose value is neither true nor false: it allows nothing"),
    ("deny-no-set", "a rule `deny` that is no set: everything is refused for ever"),
    ("rule-in-test", "a file of unit tests gives a value to a rule that decides, and decides nothing"),
    ("unused-import", "an import that nothing uses"),
    ("unused-variable", "a local name that is given and never used"),
    ("unused-argument", "an argument of a function that its bodies do not use"),
    ("shadows-input", "an argument or a name is called `input` or `data`"),
    ("deprecated-function", "a function that OPA deprecates, and that is not here"),
    ("forbidden-function", "a function with I/O, a clock, randomness or an unbounded result"),
    ("unknown-field", "a reference into the input to a field that is not there: it would be undefined for ever"),
    (
        "unknown-data",
        "a reference into `data` to what no rule and no `data.json` here gives: it is undefined, and what asks for it holds of nothing",
    ),
];

/// Functions that OPA deprecates, and what to write.
const DEPRECATED: [(&str, &str); 12] = [
    ("all", "`every x in xs { x }`"),
    ("any", "`some x in xs; x`"),
    ("cast_array", "a test of the type, such as `is_array`"),
    ("cast_boolean", "a test of the type, such as `is_boolean`"),
    ("cast_null", "a test of the type, such as `is_null`"),
    ("cast_object", "a test of the type, such as `is_object`"),
    ("cast_set", "a test of the type, such as `is_set`"),
    ("cast_string", "a test of the type, such as `is_string`"),
    ("net.cidr_overlap", "`net.cidr_contains`, which is not here either: compare texts"),
    ("re_match", "`regex.match`"),
    ("regex.globs_match", "`regex.match`"),
    ("set_diff", "`a - b`"),
];

/// Everything that is wrong with a policy of these files, sorted by place. Test files, whose names end in `_test.rego`, may have what a
/// policy may not: an input of their own making, and no `allow`.
///
/// # Errors
/// [`PolicyError`] where there is no thread to look on.
pub fn lint(name: &str, files: &[File], data: Option<&serde_json::Value>) -> Result<Vec<Finding>, PolicyError> {
    let mut findings = on_large_stack(name, || Ok(lint_here(name, files, data)))?;
    // What is about all of them stands in the first that decides: a finding has one file.
    let deciding = files.iter().find(|file| !is_test_file(&file.name)).or(files.first());
    for finding in findings.iter_mut().filter(|finding| files.iter().all(|file| file.name != finding.file)) {
        if let Some(first) = deciding {
            finding.file.clone_from(&first.name);
        }
    }
    Ok(sorted(findings))
}

fn lint_here(name: &str, files: &[File], data: Option<&serde_json::Value>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if files.iter().map(|file| file.text.len()).sum::<usize>() <= POLICY_LIMIT {
        // Each by itself: one that is no Rego hides nothing of the others.
        let (mut parsed, mut modules) = (Vec::new(), Vec::new());
        for file in files {
            match bounds::module(file) {
                Ok(module) => {
                    parsed.push(file.clone());
                    modules.push(module);
                }
                Err(error) => findings.push(of_error(&error)),
            }
        }
        let all = || parsed.iter().zip(&modules);
        // What tests make up is there for tests alone.
        let deciding: Vec<&Module> =
            all().filter(|(file, _)| !is_test_file(&file.name)).map(|(_, module)| module).collect();
        let [known, with_tests] = [Known::of(&deciding, data), Known::of(&modules.iter().collect::<Vec<_>>(), data)];
        for (file, module) in all() {
            let known = if is_test_file(&file.name) { &with_tests } else { &known };
            // What is no Rego may hold what the others ask for.
            let known = (parsed.len() == files.len()).then_some(known);
            let decides = deciding
                .iter()
                .any(|other| syntax::package(other) == syntax::package(module) && has_rule(other, "allow"));
            Lint { file, known, decides, findings: &mut findings }.module(module);
        }
        if parsed.len() < files.len() {
            // What they call may stand in those.
            let all = calls::faults(&modules).into_iter().map(|fault| bounds::fault_of(fault, &parsed));
            findings
                .extend(all.filter(|error| matches!(error, PolicyError::Forbidden { .. })).map(|one| of_error(&one)));
            return sorted(findings);
        }
        findings.extend(calls::faults(&modules).into_iter().map(|fault| of_error(&bounds::fault_of(fault, &parsed))));
    }
    findings.extend(whole(name, files, data).err().map(|error| of_error(&error)));
    sorted(findings)
}

fn has_rule(module: &Module, name: &str) -> bool {
    module.policy.iter().any(|rule| syntax::first_name(syntax::refr(rule)) == name)
}

fn sorted(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort();
    findings.dedup();
    findings
}

/// As it would be parsed to decide, and as it would be tested.
fn whole(name: &str, files: &[File], data: Option<&serde_json::Value>) -> Result<(), PolicyError> {
    let deciding = deciding(name, files)?;
    if !deciding.is_empty() {
        Policy::of(name, &deciding, data, [0; 32])?;
    }
    filled(name, files, data).map(|_| ())
}

/// A function that is not here because it is nowhere any more.
fn deprecated(message: &str) -> Option<String> {
    let called = message.strip_prefix("could not find function ")?;
    let (_, instead) = DEPRECATED.iter().find(|(deprecated, _)| *deprecated == called)?;
    Some(format!("{called} is deprecated: write {instead}"))
}

fn of_error(error: &PolicyError) -> Finding {
    let (file, place) = error.place();
    let (line, column) = place.unwrap_or((1, 1));
    let (code, message) = match error {
        PolicyError::Forbidden { function, .. } => ("forbidden-function", forbidden(function)),
        PolicyError::NoAllow { .. } | PolicyError::SeveralAllow { .. } | PolicyError::Data { .. } => {
            ("no-allow", error.to_string())
        }
        PolicyError::Parse { message, .. } => match deprecated(message) {
            Some(message) => ("deprecated-function", message),
            None => ("parse", message.clone()),
        },
        PolicyError::TooDeep { message, .. } => ("parse", message.clone()),
        PolicyError::InTest { .. } => ("rule-in-test", error.to_string()),
        other => ("parse", other.to_string()),
    };
    Finding { file: file.to_owned(), line, column, code, message }
}

struct Lint<'a> {
    file: &'a File,
    known: Option<&'a Known<'a>>,
    /// Its package is the one that decides.
    decides: bool,
    findings: &'a mut Vec<Finding>,
}

impl Lint<'_> {
    fn say(&mut self, (line, column): (u32, u32), code: &'static str, message: String) {
        self.findings.push(Finding { file: self.file.name.clone(), line, column, code, message });
    }

    fn module(&mut self, module: &Module) {
        let imports = syntax::imports(module);
        let mut used = BTreeSet::new();
        for rule in &module.policy {
            let mut seen = Seen::default();
            visit::rule(rule, &mut seen);
            self.rule(rule, &seen, &imports);
            used.extend(seen.names.into_keys());
        }
        for (name, path, line) in &imports {
            let words: Vec<&str> = path.iter().flatten().map(String::as_str).collect();
            if matches!(words[..], ["rego", "v1"] | ["future", "keywords", ..]) {
                continue;
            }
            if !used.contains(name) {
                self.say((*line, 1), "unused-import", format!("nothing uses {name}: leave it out"));
            }
            self.reference((*line, 1), path);
        }
    }

    fn rule(&mut self, rule: &Rule, seen: &Seen, imports: &[(String, Vec<Part>, u32)]) {
        let mut arguments = BTreeMap::new();
        if let Rule::Spec { head: RuleHead::Func { args, .. }, .. } = rule {
            for arg in args {
                spans(arg, &mut arguments);
            }
        }
        for (name, at) in &arguments {
            if seen.names.get(name).copied().unwrap_or_default() <= 1 {
                self.say(*at, "unused-argument", format!("argument {name} is not used: call it _"));
            }
        }
        for (name, (count, at)) in &seen.given {
            if seen.names.get(name).copied().unwrap_or_default() <= *count {
                self.say(*at, "unused-variable", format!("{name} is not used: leave it out, or call it _"));
            }
        }
        for (name, at) in seen.given.iter().map(|(name, (_, at))| (name, at)).chain(&arguments) {
            if is_root(name) {
                self.say(*at, "shadows-input", format!("a name may not be {name}"));
            }
        }
        let local = |name: &str| seen.given.contains_key(name) || arguments.contains_key(name);
        if is_test_file(&self.file.name) {
            return;
        }
        self.allow(rule);
        self.deny(rule);
        for (first, path, at) in &seen.roads {
            let import = imports.iter().find(|(name, ..)| name == first && !local(name));
            let road: Vec<Part> = match import {
                Some((_, import, _)) => import.iter().chain(path).cloned().collect(),
                None => [Some(first.clone())].into_iter().chain(path.iter().cloned()).collect(),
            };
            self.reference(*at, &road);
        }
    }

    /// The rule that decides has to be true or false.
    fn allow(&mut self, rule: &Rule) {
        let (refr, values): (_, Vec<&Expr>) = match rule {
            Rule::Default { refr, value, .. } => (refr, vec![value]),
            Rule::Spec { head: RuleHead::Compr { refr, assign, .. }, bodies, .. } => {
                let assigned = assign.iter().chain(bodies.iter().filter_map(|body| body.assign.as_ref()));
                (refr, assigned.map(|assign| &*assign.value).collect())
            }
            Rule::Spec { .. } => return,
        };
        let is_allow = matches!(&**refr, Expr::Var { span, .. } if span.text() == "allow");
        if is_allow && values.into_iter().any(is_never_true) {
            let span = refr.span();
            let message = "the value of `allow` is neither true nor false: write `allow if …`, or `allow := true`";
            self.say((span.line, span.col), "allow-no-boolean", message.to_owned());
        }
    }

    /// The rule that refuses has to be a set.
    fn deny(&mut self, rule: &Rule) {
        let head = syntax::refr(rule);
        let is_set = match rule {
            Rule::Spec { head: RuleHead::Set { refr, .. }, .. } => matches!(&**refr, Expr::Var { .. }),
            Rule::Default { value, .. } => may_be_a_set(value),
            Rule::Spec { head: RuleHead::Compr { refr, assign, .. }, .. } => {
                matches!(&**refr, Expr::Var { .. }) && assign.as_ref().is_some_and(|given| may_be_a_set(&given.value))
            }
            Rule::Spec { head: RuleHead::Func { .. }, .. } => false,
        };
        if self.decides && syntax::first_name(head) == "deny" && !is_set {
            let (span, message) =
                (head.span(), "`deny` is no set, and then everything is refused: write `deny contains message if …`");
            self.say((span.line, span.col), "deny-no-set", message.to_owned());
        }
    }

    /// What it begins with has to be there.
    fn reference(&mut self, at: (u32, u32), road: &[Part]) {
        match road.split_first() {
            Some((Some(root), rest)) if root == "input" => {
                if let Some((path, there)) = input::stray(rest) {
                    let there = listed("it holds no fields", &there);
                    self.say(at, "unknown-field", format!("{path} is no field of the input: {there}"));
                }
            }
            Some((Some(root), rest)) if root == "data" => {
                if let Some((path, there)) = self.known.and_then(|known| known.stray(rest)) {
                    let there = listed("nothing is there", &there);
                    let message = format!("no rule and no data.json that was given has {path}: {there}");
                    self.say(at, "unknown-data", message);
                }
            }
            _ => {}
        }
    }
}

fn listed(nothing: &str, names: &[impl AsRef<str>]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    if names.is_empty() { nothing.to_owned() } else { format!("there are {}", names.join(", ")) }
}

/// A value that is written out, and is neither true nor false.
const fn is_never_true(value: &Expr) -> bool {
    matches!(
        value,
        Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Null { .. }
            | Expr::Array { .. }
            | Expr::Set { .. }
            | Expr::Object { .. }
            | Expr::ArrayCompr { .. }
            | Expr::SetCompr { .. }
            | Expr::ObjectCompr { .. }
    )
}

/// Not written out as something else.
const fn may_be_a_set(value: &Expr) -> bool {
    matches!(value, Expr::Set { .. } | Expr::SetCompr { .. })
        || !is_never_true(value) && !matches!(value, Expr::Bool { .. })
}

fn is_root(name: &str) -> bool {
    name == "input" || name == "data"
}

/// The names that a pattern gives, and where.
fn spans(pattern: &Expr, given: &mut BTreeMap<String, (u32, u32)>) {
    match pattern {
        Expr::Var { span, .. } if span.text() != "_" => {
            given.insert(span.text().to_owned(), (span.line, span.col));
        }
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().for_each(|item| spans(item, given)),
        Expr::Object { fields, .. } => fields.iter().for_each(|(_, _, value)| spans(value, given)),
        _ => {}
    }
}

/// What one rule says.
#[derive(Default)]
struct Seen {
    /// How often each name stands in it.
    names: BTreeMap<String, usize>,
    /// Names that are given in it: how often, and where first.
    given: BTreeMap<String, (usize, (u32, u32))>,
    /// References: their first name, what follows, and where.
    roads: Vec<(String, Vec<Part>, (u32, u32))>,
    /// Where references begin that are a part of a longer one.
    inner: BTreeSet<(u32, u32)>,
}

impl Visitor for Seen {
    fn expression(&mut self, expr: &Expr) {
        match expr {
            Expr::Var { span, .. } => *self.names.entry(span.text().to_owned()).or_default() += 1,
            Expr::AssignExpr { op: AssignOp::ColEq, lhs, .. } => self.gives(lhs),
            _ => {}
        }
        if let (Expr::RefDot { .. } | Expr::RefBrack { .. }, Expr::Var { span, .. }) = (expr, root(expr)) {
            // The longest comes first.
            let at = (span.line, span.col);
            if self.inner.insert(at) {
                self.roads.push((span.text().to_owned(), parts(expr).1, at));
            }
        }
    }

    fn statement(&mut self, stmt: &LiteralStmt) {
        match &stmt.literal {
            Literal::SomeVars { vars, .. } => {
                for span in vars {
                    *self.names.entry(span.text().to_owned()).or_default() += 1;
                    self.give(span);
                }
            }
            Literal::SomeIn { key, value, .. } => key.iter().chain([value]).for_each(|pattern| self.gives(pattern)),
            Literal::Expr { .. } | Literal::NotExpr { .. } | Literal::Every { .. } => {}
        }
    }
}

impl Seen {
    fn gives(&mut self, pattern: &Expr) {
        let mut found = BTreeMap::new();
        spans(pattern, &mut found);
        for (name, at) in found {
            self.given.entry(name).or_insert((0, at)).0 += 1;
        }
    }

    fn give(&mut self, span: &Span) {
        self.given.entry(span.text().to_owned()).or_insert((0, (span.line, span.col))).0 += 1;
    }
}

mod known;
#[cfg(test)]
mod tests;
