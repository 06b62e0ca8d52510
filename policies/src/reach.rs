//! How deeply an evaluation can recurse, from a text that is parsed: rules that read rules, functions that call functions, statements,
//! and expressions within each other, all counted together. The engine recurses with each of them.
//!
//! A rule is known by its first name: `a.b` and `a.c` are one. What cannot be told from the text (`data.x[name]`) reaches every rule.
//! Never: takes what calls itself, for nothing but a stack ends that.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{AssignOp, Expr, Literal, Module, Query, Rule, RuleHead};

use crate::syntax::{self, Part, bind, first_name, parts, refr, root};

/// Steps of the deepest evaluation.
pub(crate) const STEPS: usize = 2048;

/// Why an evaluation may have no end that a stack can wait for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooDeep {
    #[error("{0}: a rule or function may not come back to itself")]
    Recursion(String),
    #[error(
        "{0} reaches deeper than {STEPS} steps: what it reads and calls, and the statements and expressions of that, are counted together"
    )]
    Steps(String),
}

/// What a rule needs by itself, and whom it asks.
#[derive(Default)]
struct Node {
    own: usize,
    asks: BTreeSet<String>,
    place: Place,
}

/// Which of the modules, and the line of the rule.
type Place = (usize, u32);

/// Refuses what comes back to itself or reaches too deeply, with the place of the rule. All modules that are evaluated together are looked at
/// together: what one asks of another counts.
pub(crate) fn look(modules: &[Module]) -> Result<(), (Place, TooDeep)> {
    let nodes = Reader::new(modules).read(modules);
    let mut walk = Walk { nodes: &nodes, known: BTreeMap::new(), path: Vec::new() };
    for name in nodes.keys() {
        walk.need(name, 0)?;
    }
    Ok(())
}

struct Walk<'a> {
    nodes: &'a BTreeMap<String, Node>,
    known: BTreeMap<&'a str, usize>,
    path: Vec<&'a str>,
}

impl<'a> Walk<'a> {
    /// Steps below a rule; `above` are those that led to it, so that this recurses no further than the engine may.
    fn need(&mut self, name: &'a str, above: usize) -> Result<usize, (Place, TooDeep)> {
        let Some(node) = self.nodes.get(name) else { return Ok(0) };
        if let Some(known) = self.known.get(name) {
            return Ok(*known);
        }
        if let Some(from) = self.path.iter().position(|before| *before == name) {
            let shown: Vec<&str> = self.path[from..].iter().take(NAMED).copied().chain([name]).collect();
            return Err((node.place, TooDeep::Recursion(shown.join(" asks "))));
        }
        let too_deep = || (node.place, TooDeep::Steps(name.to_owned()));
        if above + node.own > STEPS {
            return Err(too_deep());
        }
        self.path.push(name);
        let mut deepest = 0;
        for asked in &node.asks {
            deepest = deepest.max(self.need(asked, above + node.own)?);
        }
        self.path.pop();
        let need = node.own + deepest;
        if need > STEPS {
            return Err(too_deep());
        }
        self.known.insert(name, need);
        Ok(need)
    }
}

/// Rules that are named of a circle.
const NAMED: usize = 8;
/// Steps of a rule, a function, a statement.
const RULE: usize = 4;
const STATEMENT: usize = 2;

struct Reader {
    /// Rules by package.
    packages: Vec<(Vec<String>, BTreeSet<String>)>,
    /// The package that is read now.
    here: usize,
    /// What its imports stand for.
    imports: BTreeMap<String, Vec<Part>>,
    nodes: BTreeMap<String, Node>,
}

/// The names that are not rules where an expression stands.
type Scope = BTreeSet<String>;

/// What was found in an expression or a query.
#[derive(Default)]
struct Found {
    steps: usize,
    asks: BTreeSet<String>,
}

impl Found {
    /// One beside the other.
    fn beside(&mut self, other: Self) {
        self.steps = self.steps.max(other.steps);
        self.asks.extend(other.asks);
    }

    /// One after the other: what came before is still held.
    fn after(&mut self, other: Self) {
        self.steps = self.steps.saturating_add(other.steps);
        self.asks.extend(other.asks);
    }

    fn within(mut self, steps: usize) -> Self {
        self.steps = self.steps.saturating_add(steps);
        self
    }
}

impl Reader {
    fn new(modules: &[Module]) -> Self {
        let mut packages: Vec<(Vec<String>, BTreeSet<String>)> = Vec::new();
        for module in modules {
            let (package, rules) = (syntax::package(module), module.policy.iter().map(|rule| first_name(refr(rule))));
            match packages.iter_mut().find(|(known, _)| *known == package) {
                Some((_, known)) => known.extend(rules),
                None => packages.push((package, rules.collect())),
            }
        }
        Self { packages, here: 0, imports: BTreeMap::new(), nodes: BTreeMap::new() }
    }

    fn read(mut self, modules: &[Module]) -> BTreeMap<String, Node> {
        for (at, module) in modules.iter().enumerate() {
            let package = syntax::package(module);
            self.here = self.packages.iter().position(|(known, _)| *known == package).unwrap_or_default();
            self.imports.clear();
            for (name, path, _) in syntax::imports(module) {
                // Which of two counts is not ours to know.
                self.imports.entry(name).and_modify(|path| *path = vec![None]).or_insert(path);
            }
            for rule in &module.policy {
                let found = self.rule(rule).within(RULE);
                let name = self.node(self.here, &first_name(refr(rule)));
                let node = self.nodes.entry(name).or_default();
                node.own = node.own.max(found.steps);
                node.asks.extend(found.asks);
                node.place = (at, rule.span().line);
            }
        }
        self.nodes
    }

    /// What a rule is called here: by its package, where there are several.
    fn node(&self, package: usize, rule: &str) -> String {
        match &self.packages[..] {
            [_] => rule.to_owned(),
            packages => format!("data.{}.{rule}", packages[package].0.join(".")),
        }
    }

    fn all(&self) -> BTreeSet<String> {
        (0..self.packages.len()).flat_map(|package| self.all_of(package)).collect()
    }

    fn all_of(&self, package: usize) -> Vec<String> {
        self.packages[package].1.iter().map(|rule| self.node(package, rule)).collect()
    }

    fn one(&self, package: usize, rule: &str) -> Option<String> {
        self.packages[package].1.contains(rule).then(|| self.node(package, rule))
    }

    fn rule(&mut self, rule: &Rule) -> Found {
        let mut found = Found::default();
        match rule {
            Rule::Default { args, value, .. } => {
                let mut scope = Scope::new();
                for arg in args {
                    bind(arg, &mut scope);
                }
                found.beside(self.expression(value, &scope));
            }
            Rule::Spec { head, bodies, .. } => {
                let (refr, args, output) = match head {
                    RuleHead::Compr { refr, assign, .. } => (refr, &[][..], assign.as_ref().map(|a| &a.value)),
                    RuleHead::Set { refr, key, .. } => (refr, &[][..], key.as_ref()),
                    RuleHead::Func { refr, args, assign, .. } => {
                        (refr, &args[..], assign.as_ref().map(|assign| &assign.value))
                    }
                };
                let mut outer = Scope::new();
                for arg in args {
                    bind(arg, &mut outer);
                }
                let head = |reader: &mut Self, scope: &Scope| {
                    let mut found = Found::default();
                    for index in parts(refr).0 {
                        found.beside(reader.expression(index, scope));
                    }
                    args.iter().chain(output).for_each(|expr| found.beside(reader.expression(expr, scope)));
                    found
                };
                if bodies.is_empty() {
                    found.beside(head(self, &outer));
                }
                for body in bodies {
                    let (mut inside, scope) = self.query(&body.query, &outer);
                    inside.after(head(self, &scope));
                    if let Some(assign) = &body.assign {
                        inside.after(self.expression(&assign.value, &scope));
                    }
                    found.beside(inside);
                }
            }
        }
        found
    }

    /// What a query needs, and the names that are its own.
    fn query(&mut self, query: &Query, outer: &Scope) -> (Found, Scope) {
        let mut scope = outer.clone();
        for stmt in &query.stmts {
            match &stmt.literal {
                Literal::SomeVars { vars, .. } => scope.extend(vars.iter().map(|var| var.text().to_owned())),
                Literal::SomeIn { key, value, .. } => {
                    key.iter().chain([value]).for_each(|pattern| bind(pattern, &mut scope));
                }
                Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => {
                    if let Expr::AssignExpr { op: AssignOp::ColEq, lhs, .. } = expr.as_ref() {
                        bind(lhs, &mut scope);
                    }
                }
                Literal::Every { .. } => {}
            }
        }
        let mut found = Found::default();
        for stmt in &query.stmts {
            let mut inside = Found::default();
            match &stmt.literal {
                Literal::SomeVars { .. } => {}
                Literal::SomeIn { key, value, collection, .. } => {
                    for expr in key.iter().chain([value, collection]) {
                        inside.beside(self.expression(expr, &scope));
                    }
                }
                Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => {
                    inside.beside(self.expression(expr, &scope));
                }
                Literal::Every { key, value, domain, query, .. } => {
                    inside.beside(self.expression(domain, &scope));
                    let mut each = scope.clone();
                    each.extend(key.iter().chain([value]).map(|span| span.text().to_owned()));
                    inside.beside(self.query(query, &each).0);
                }
            }
            for with in &stmt.with_mods {
                let value = self.expression(&with.r#as, &scope);
                let (replaced, by) = (self.functions(&with.refr), self.functions(&with.r#as));
                for name in replaced {
                    // Whoever asks the one may ask the other.
                    self.nodes.entry(name).or_default().asks.extend(value.asks.iter().chain(&by).cloned());
                }
                inside.beside(value);
            }
            found.after(inside.within(STATEMENT));
        }
        (found, scope)
    }

    fn expression(&mut self, expr: &Expr, scope: &Scope) -> Found {
        let mut found = Found::default();
        let inner: Vec<&Expr> = match expr {
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. } => Vec::new(),
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => return self.reference(expr, scope),
            Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().map(AsRef::as_ref).collect(),
            Expr::Object { fields, .. } => {
                fields.iter().flat_map(|(_, key, value)| [key.as_ref(), value.as_ref()]).collect()
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                return self.comprehension(&[term.as_ref()], query, scope);
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                return self.comprehension(&[key.as_ref(), value.as_ref()], query, scope);
            }
            Expr::Call { fcn, params, .. } => {
                found.asks.extend(self.functions(fcn));
                for index in parts(fcn).0 {
                    found.beside(self.expression(index, scope));
                }
                params.iter().map(AsRef::as_ref).collect()
            }
            Expr::UnaryExpr { expr, .. } => vec![expr.as_ref()],
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. }
            | Expr::AssignExpr { lhs, rhs, .. } => vec![lhs.as_ref(), rhs.as_ref()],
            Expr::Membership { key, value, collection, .. } => {
                key.iter().chain([value, collection]).map(AsRef::as_ref).collect()
            }
        };
        for expr in inner {
            found.beside(self.expression(expr, scope));
        }
        found.within(1)
    }

    fn comprehension(&mut self, output: &[&Expr], query: &Query, scope: &Scope) -> Found {
        let (mut found, scope) = self.query(query, scope);
        for expr in output {
            let output = self.expression(expr, &scope);
            found.after(output);
        }
        found.within(1)
    }

    fn reference(&mut self, expr: &Expr, scope: &Scope) -> Found {
        let mut found = Found::default();
        let (indices, path) = parts(expr);
        match root(expr) {
            Expr::Var { span, .. } if scope.contains(span.text()) => {}
            Expr::Var { span, .. } => found.asks.extend(self.asked(span.text(), &path)),
            other => found.beside(self.expression(other, scope)),
        }
        let steps = path.len() + 1;
        for index in indices {
            found.beside(self.expression(index, scope));
        }
        found.within(steps)
    }

    /// The rules that a reference reads.
    fn asked(&self, first: &str, path: &[Part]) -> BTreeSet<String> {
        let mut asked = match self.imports.get(first) {
            Some(import) => self.read_by(&[&import[..], path].concat()),
            None => BTreeSet::new(),
        };
        asked.extend(self.read_by(&[&[Some(first.to_owned())][..], path].concat()));
        asked
    }

    fn read_by(&self, path: &[Part]) -> BTreeSet<String> {
        match path {
            [Some(first), rest @ ..] if first == "data" => {
                (0..self.packages.len()).flat_map(|package| self.read_of(package, rest)).collect()
            }
            [Some(first), ..] => self.one(self.here, first).into_iter().collect(),
            _ => self.all(),
        }
    }

    /// The rules of a package that `data` and this behind it reads.
    fn read_of(&self, package: usize, path: &[Part]) -> Vec<String> {
        let mut rest = path.iter();
        for part in &self.packages[package].0 {
            match rest.next() {
                Some(Some(found)) if found == part => {}
                Some(Some(_)) => return Vec::new(),
                Some(None) | None => return self.all_of(package),
            }
        }
        match rest.next() {
            Some(Some(name)) => self.one(package, name).into_iter().collect(),
            Some(None) | None => self.all_of(package),
        }
    }

    /// Functions by their name: rules, or the engine's own. No local name stands before them.
    fn functions(&self, expr: &Expr) -> BTreeSet<String> {
        let Expr::Var { span, .. } = root(expr) else { return BTreeSet::new() };
        let path = parts(expr).1;
        let asked = self.asked(span.text(), &path);
        if !asked.is_empty() || span.text() == "input" {
            return asked;
        }
        let names: Vec<&str> = [span.text()].into_iter().chain(path.iter().flatten().map(String::as_str)).collect();
        BTreeSet::from([names.join(".")])
    }
}
