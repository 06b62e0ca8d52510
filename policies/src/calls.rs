//! Every function that a text calls must be there before anything is decided by it: the engine finds out only where a call is reached.

use std::collections::BTreeSet;

use regorus::unstable::{BUILTINS, Expr, Module};

use crate::{
    builtins,
    syntax::{self, Part, first_name, parts, refr, root},
    visit::{self, Visitor},
};

/// A call of something that is not there.
pub(crate) struct Unknown {
    /// Which module.
    pub module: usize,
    /// Line and column.
    pub place: (u32, u32),
    /// What is called.
    pub name: String,
}

/// The first call of a function that neither a rule nor the engine is.
pub(crate) fn unknown(modules: &[Module]) -> Option<Unknown> {
    let rules: BTreeSet<(Vec<String>, String)> = modules
        .iter()
        .flat_map(|module| {
            let package = syntax::package(module);
            module.policy.iter().map(move |rule| (package.clone(), first_name(refr(rule))))
        })
        .collect();
    for (at, module) in modules.iter().enumerate() {
        let (package, imports) = (syntax::package(module), syntax::imports(module));
        let mut calls = Calls(Vec::new());
        module.policy.iter().for_each(|rule| visit::rule(rule, &mut calls));
        for (path, place) in calls.0 {
            let import =
                imports.iter().find(|(name, ..)| path.first().is_some_and(|first| first.as_ref() == Some(name)));
            let full: Vec<Part> = match import {
                Some((_, import, _)) => import.iter().chain(&path[1..]).cloned().collect(),
                None => path,
            };
            // What depends on a value is the engine's to find.
            let Some(words) = full.iter().cloned().collect::<Option<Vec<String>>>() else { continue };
            let is_rule = match words.split_first() {
                Some((first, rest)) if first == "data" => rules
                    .iter()
                    .any(|(package, rule)| rest.strip_prefix(&package[..]).and_then(<[_]>::first) == Some(rule)),
                Some((first, _)) => rules.contains(&(package.clone(), first.clone())),
                None => false,
            };
            let name = words.join(".");
            if !is_rule && !BUILTINS.contains_key(name.as_str()) && !builtins::is_listed(&name) {
                return Some(Unknown { module: at, place, name });
            }
        }
    }
    None
}

struct Calls(Vec<(Vec<Part>, (u32, u32))>);

impl Visitor for Calls {
    fn expression(&mut self, expr: &Expr) {
        if let Expr::Call { fcn, .. } = expr {
            let span = root(fcn).span();
            let path = [Some(span.text().to_owned())].into_iter().chain(parts(fcn).1).collect();
            self.0.push((path, (span.line, span.col)));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{File, Policy, PolicyError};

    #[test]
    fn a_call_of_what_is_not_there_is_refused_wherever_it_stands() {
        let of = |body: &str| {
            let files = [
                File::new("p.rego", format!("package p\nimport data.lib\nimport data.lib as l\n{body}")),
                File::new("lib.rego", "package lib\nf(x) := x\ng(x) := f(x)"),
            ];
            Policy::of("p", &files, None, [0; 32]).map(|_| ())
        };
        for call in ["nope(1)", "lib.nope(1)", "data.lib.nope(1)", "data.other.f(1)", "any([1])", "count.x([1])"] {
            for body in [
                format!("allow if {{ input.x; {call} }}"),
                format!("allow if input.x\nh := 1 if {{ x := [y | y := {call}]; x }}"),
                format!("default allow := false\nallow if {{ input.x; every z in [1] {{ z == {call} }} }}"),
            ] {
                let error = of(&body).unwrap_err();
                let PolicyError::Parse { place: Some(_), message, .. } = &error else { panic!("{body}: {error}") };
                assert!(message.contains("could not find function"), "{message}");
            }
        }
        for call in [
            "lib.f(1)",
            "l.g(1)",
            "data.lib.f(1)",
            "data[\"lib\"].f(1)",
            "h(1)",
            "data.p.h(1)",
            "count([1])",
            "numbers.range(1, 2)",
            "set()",
            "time.weekday(1)",
        ] {
            of(&format!("h(x) := x\nallow if {{ input.x; {call} }}")).unwrap_or_else(|error| panic!("{call}: {error}"));
        }
    }
}
