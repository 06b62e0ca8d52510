//! A text as the engine's parser sees it, and what is asked of that again and again.
//!
//! Never: parses what [`crate::nesting`] was not asked about.

use std::collections::BTreeSet;

use regorus::{
    Source,
    unstable::{Expr, Module, Parser, Rule, RuleHead, Span},
};

/// A part of a reference that is known from the text, or not.
pub(crate) type Part = Option<String>;

/// Parses one text.
pub(crate) fn module(name: &str, text: &str) -> anyhow::Result<Module> {
    let source = Source::from_contents(name.into(), text.into())?;
    let mut parser = Parser::new(&source)?;
    parser.enable_rego_v1()?;
    parser.parse()
}

/// The text of a span, with the quotes that the engine leaves out at either end.
pub(crate) fn whole(span: &Span) -> &str {
    let text = span.source.contents();
    let (mut from, mut to) = (span.start as usize, span.end as usize);
    let is_quote = |at: usize| matches!(text.as_bytes().get(at), Some(b'"' | b'`'));
    if from.checked_sub(1).is_some_and(is_quote) {
        from -= 1;
    }
    if is_quote(to) {
        to += 1;
    }
    text.get(from..to).unwrap_or_default()
}

/// The names of a package, in their order.
pub(crate) fn package(module: &Module) -> Vec<String> {
    let mut names: Vec<String> = parts(&module.package.refr).1.into_iter().flatten().collect();
    if let Expr::Var { span, .. } = root(&module.package.refr) {
        names.insert(0, span.text().to_owned());
    }
    names
}

/// What stands behind a name that an import gives, and that name.
pub(crate) fn imports(module: &Module) -> Vec<(String, Vec<Part>, u32)> {
    let mut all = Vec::new();
    for import in &module.imports {
        let (root, mut path) = (root(&import.refr), parts(&import.refr).1);
        if let Expr::Var { span, .. } = root {
            path.insert(0, Some(span.text().to_owned()));
        }
        let last = path.last().cloned().flatten();
        if let Some(name) = import.r#as.as_ref().map(|span| span.text().to_owned()).or(last) {
            all.push((name, path, import.span.line));
        }
    }
    all
}

/// Where a reference begins.
pub(crate) fn root(mut expr: &Expr) -> &Expr {
    while let Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } = expr {
        expr = refr;
    }
    expr
}

/// What stands in brackets behind it, and its parts.
pub(crate) fn parts(mut expr: &Expr) -> (Vec<&Expr>, Vec<Part>) {
    let (mut indices, mut path) = (Vec::new(), Vec::new());
    loop {
        match expr {
            Expr::RefDot { refr, field, .. } => {
                path.push(Some(field.0.text().to_owned()));
                expr = refr;
            }
            Expr::RefBrack { refr, index, .. } => {
                path.push(match index.as_ref() {
                    Expr::String { value, .. } | Expr::RawString { value, .. } => {
                        value.as_string().ok().map(ToString::to_string)
                    }
                    _ => None,
                });
                indices.push(index.as_ref());
                expr = refr;
            }
            _ => break,
        }
    }
    path.reverse();
    (indices, path)
}

/// What a rule is called by.
pub(crate) fn refr(rule: &Rule) -> &Expr {
    match rule {
        Rule::Default { refr, .. } => refr,
        Rule::Spec { head, .. } => match head {
            RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. } => refr,
        },
    }
}

/// The first name of it.
pub(crate) fn first_name(refr: &Expr) -> String {
    root(refr).span().text().to_owned()
}

/// Whether a rule of a package gives a value to what stands at a place, above it or below: `t.deny contains …` in package a says
/// something of a.t.deny.
pub(crate) fn gives(package: &[String], head: &Expr, place: &[String]) -> bool {
    let path = package.iter().cloned().map(Some).chain([Some(first_name(head))]).chain(parts(head).1);
    path.zip(place).all(|(at, part): (Part, &String)| at.is_none_or(|at| at == *part))
}

/// The names that a pattern gives.
pub(crate) fn bind(pattern: &Expr, scope: &mut BTreeSet<String>) {
    match pattern {
        Expr::Var { span, .. } => {
            scope.insert(span.text().to_owned());
        }
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().for_each(|item| bind(item, scope)),
        Expr::Object { fields, .. } => fields.iter().for_each(|(_, _, value)| bind(value, scope)),
        _ => {}
    }
}
