//! Every function that a text calls must be there, and be one for policies, before anything is decided by it: the engine finds out only
//! where a call is reached.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{BUILTINS, Expr, Module, Rule, RuleHead};

use crate::{
    PolicyError, builtins,
    syntax::{self, Part, first_name, parts, refr, root},
    visit::{self, Visitor},
};

/// A call that fails wherever it is reached.
pub(crate) struct Fault {
    /// Which module.
    pub module: usize,
    /// Line and column.
    place: (u32, u32),
    /// What is called.
    name: String,
    why: Why,
}

enum Why {
    /// Neither a rule nor the engine is such a function.
    Unknown,
    /// It is none for policies.
    Forbidden,
    /// It takes another number of arguments.
    Arguments { takes: usize, given: usize },
}

impl Fault {
    /// As the policy's: `name` is that of the file which the module is of.
    pub fn error(self, name: &str) -> PolicyError {
        let Self { place, name: function, why, .. } = self;
        let name = name.to_owned();
        let message = match why {
            Why::Forbidden => return PolicyError::Forbidden { name, place, function },
            Why::Unknown => format!("could not find function {function}"),
            Why::Arguments { takes, given } => {
                let one = if takes == 1 { "" } else { "s" };
                format!("{function} takes {takes} argument{one}, and has {given} here")
            }
        };
        PolicyError::Parse { name, place: Some(place), message }
    }
}

/// Every call of what is no function, of one that policies have not, or with another number of arguments than it takes.
pub(crate) fn faults(modules: &[Module]) -> Vec<Fault> {
    // By their whole paths: a text of somebody's may have as many rules as calls.
    let rules: BTreeSet<Vec<String>> = modules
        .iter()
        .flat_map(|module| {
            let package = syntax::package(module);
            module.policy.iter().map(move |rule| package.iter().cloned().chain([first_name(refr(rule))]).collect())
        })
        .collect();
    let functions: BTreeMap<Vec<String>, usize> = modules.iter().flat_map(functions).collect();
    let mut faults = Vec::new();
    for (module, of) in modules.iter().enumerate() {
        let package = syntax::package(of);
        let mut imports = BTreeMap::new();
        for (name, import, _) in syntax::imports(of) {
            imports.entry(name).or_insert(import);
        }
        let mut calls = Calls(Vec::new());
        of.policy.iter().for_each(|rule| visit::rule(rule, &mut calls));
        for Call { path, place, given } in calls.0 {
            let import = path.first().and_then(|first| imports.get(first.as_ref()?));
            let full: Vec<Part> = match import {
                Some(import) => import.iter().chain(&path[1..]).cloned().collect(),
                None => path,
            };
            // What depends on a value is the engine's to find.
            let Some(words) = full.iter().cloned().collect::<Option<Vec<String>>>() else { continue };
            let own = match words.split_first() {
                Some((first, rest)) if first == "data" => rest.to_vec(),
                _ => package.iter().chain(&words).cloned().collect(),
            };
            let is_rule = match words.split_first() {
                Some((first, rest)) if first == "data" => (1..=rest.len()).any(|end| rules.contains(&rest[..end])),
                Some(_) => rules.contains(&own[..=package.len()]),
                None => false,
            };
            let name = words.join(".");
            let takes = functions.get(&own).copied();
            let why = if takes.is_none() && builtins::is_forbidden(&name) {
                Some(Why::Forbidden)
            } else if !is_rule && !BUILTINS.contains_key(name.as_str()) && !builtins::is_listed(&name) {
                Some(Why::Unknown)
            } else {
                // One more is a name that its answer is given to.
                let takes = takes.or_else(|| if is_rule { None } else { builtins::arguments(&name) });
                let other = takes.filter(|takes| given != *takes && given != *takes + 1);
                other.map(|takes| Why::Arguments { takes, given })
            };
            faults.extend(why.map(|why| Fault { module, place, name, why }));
        }
    }
    faults
}

/// Functions that a module defines, by their whole paths, and how many arguments each takes.
fn functions(module: &Module) -> Vec<(Vec<String>, usize)> {
    let package = syntax::package(module);
    let of = |rule: &Rule| {
        let takes = match rule {
            Rule::Spec { head: RuleHead::Func { args, .. }, .. } => args.len(),
            Rule::Default { args, .. } if !args.is_empty() => args.len(),
            _ => return None,
        };
        let name = refr(rule);
        let path = [Some(first_name(name))].into_iter().chain(parts(name).1).collect::<Option<Vec<String>>>()?;
        Some((package.iter().cloned().chain(path).collect(), takes))
    };
    module.policy.iter().filter_map(|rule| of(rule)).collect()
}

struct Call {
    path: Vec<Part>,
    place: (u32, u32),
    given: usize,
}

struct Calls(Vec<Call>);

impl Visitor for Calls {
    fn expression(&mut self, expr: &Expr) {
        if let Expr::Call { fcn, params, .. } = expr {
            let span = root(fcn).span();
            let path = [Some(span.text().to_owned())].into_iter().chain(parts(fcn).1).collect();
            self.0.push(Call { path, place: (span.line, span.col), given: params.len() });
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

    #[test]
    fn a_call_that_no_policy_may_make_is_refused_wherever_it_stands() {
        let of = |body: &str| Policy::parse("p.rego", &format!("package p\n{body}")).map(|_| ());
        for (call, function) in [
            ("http.send({\"url\": \"x\"}).status_code == 200", "http.send"),
            ("http[\"send\"]({}).x", "http.send"),
            ("time.now_ns() > 0", "time.now_ns"),
            ("rand.intn(\"a\", 5) > 0", "rand.intn"),
            ("opa.runtime().x", "opa.runtime"),
            ("trace(\"x\")", "trace"),
            ("print(\"x\")", "print"),
        ] {
            // Reached for no input, for some, and in what nothing asks.
            for body in [
                format!("allow if {{\n\tfalse\n\t{call}\n}}"),
                format!("allow if {{\n\tinput.x\n\t{call}\n}}"),
                format!("allow := true\n\nother if {call}"),
                format!("allow := true\n\nf(x) := [y | y := x; {call}]"),
            ] {
                let error = of(&body).unwrap_err();
                let PolicyError::Forbidden { name, place, function: found } = &error else { panic!("{body}: {error}") };
                assert_eq!((name.as_str(), found.as_str()), ("p.rego", function), "{body}");
                assert!(place.0 == 4, "{body}: {place:?}");
                assert!(error.to_string().contains(&format!("line {}, column {}", place.0, place.1)), "{error}");
            }
        }
        of("print(x) := x\n\nallow if print(true)").unwrap();
    }

    #[test]
    fn a_call_with_other_arguments_than_a_function_takes_is_refused_wherever_it_stands() {
        let of = |body: &str| {
            let files = [
                File::new("p.rego", format!("package p\nimport data.lib\n{body}")),
                File::new("lib.rego", "package lib\nf(x) := x\ng(x, y) := x if y"),
            ];
            Policy::of("p", &files, None, [0; 32]).map(|_| ())
        };
        for call in ["count([1], 2, 3)", "split(\"a\")", "lib.f()", "lib.g(1)", "h(1, 2, 3)", "data.lib.g(1, 2, 3, 4)"]
        {
            let error = of(&format!("h(x) := x\nallow if {{ input.x; {call} }}")).unwrap_err();
            let PolicyError::Parse { place: Some(_), message, .. } = &error else { panic!("{call}: {error}") };
            assert!(message.contains("argument"), "{message}");
        }
        for call in ["count([1])", "count([1], 1)", "split(\"a\", \"b\", x)", "lib.g(1, true)", "lib.g(1, true, 1)"] {
            of(&format!("allow if {{ input.x; {call} }}")).unwrap_or_else(|error| panic!("{call}: {error}"));
        }
    }
}
