//! Why a policy said what it said of one input: which rules held, at which statement the others stopped, what they looked at.
//!
//! The engine keeps no record of that. So each body that did not hold is asked again, one statement more each time, until the first that
//! does not. Trusts: as [`Policy`]. Never: changes the decision, which is made as always; asks without bounds.

use regorus::{
    Engine, Value,
    unstable::{Expr, Module, Query, Rule, RuleHead},
};
use serde::Serialize;
use serde_json::Value as Json;

use crate::{
    Decision, Policy, PolicyError,
    bounds::{File, on_large_stack},
    builtins,
    deciding::deciding,
    policy::filled,
    syntax::{self, Part, first_name, parts, refr, root},
    visit::{self, Visitor},
};

/// Bodies and statements that are asked again, at most.
const PROBES: usize = 256;
/// A value that is longer, written out, is not shown.
const SHOWN: usize = 1024;

/// Why.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// What the policy says.
    #[serde(flatten)]
    pub decision: Decision,
    /// What decided: where it allows, the bodies of `allow` that hold; else those of `deny`, or where `allow` stopped.
    pub decided_by: Vec<String>,
    /// Every rule without arguments, in its order.
    pub rules: Vec<Explained>,
    /// Every field of the input that the policy names, in the order of the paths.
    pub values: Vec<Looked>,
    /// There were more bodies than are asked again.
    pub cut: bool,
}

/// One rule.
#[derive(Debug, Serialize)]
pub struct Explained {
    /// Its name; of another package than the one that decides, with it.
    pub rule: String,
    /// `FILE:LINE`.
    pub at: String,
    /// Its value for this input; null where it is undefined.
    pub value: Option<Json>,
    /// Its bodies; none of a rule that is a value alone.
    pub bodies: Vec<Body>,
}

/// One body of a rule.
#[derive(Debug, Serialize)]
pub struct Body {
    /// `FILE:LINE`.
    pub at: String,
    /// Whether all its statements hold together; null where that could not be asked.
    pub holds: Option<bool>,
    /// The first statement that does not hold behind those before it.
    pub stopped_at: Option<String>,
    /// Where that is.
    pub stopped_line: Option<u32>,
}

/// One field of the input.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Looked {
    /// Its path, up to what depends on other values.
    pub path: String,
    /// What is there; absent is null, and `is_there` says so.
    pub value: Json,
    /// False where the input has nothing there, and everything said of it is undefined.
    pub is_there: bool,
    /// Where the policy names it, `FILE:LINE`.
    pub at: Vec<String>,
}

/// Explains what the policy of these files says of an input.
///
/// # Errors
/// [`PolicyError`] if they are no policy.
pub fn explain(name: &str, files: &[File], data: Option<&Json>, input: &Json) -> Result<Explanation, PolicyError> {
    on_large_stack(name, || explain_here(name, files, data, input))
}

fn explain_here(name: &str, files: &[File], data: Option<&Json>, input: &Json) -> Result<Explanation, PolicyError> {
    let files = deciding(name, files)?;
    let policy = Policy::of(name, &files, data, [0; 32])?;
    let decision = policy.decide(input);
    let by_rules = decision.allows();
    let decision = decision.behind_what_was_said(input);
    let (mut engine, _, modules) = filled(name, &files, data)?;
    if let Err(error) = engine.set_input_json(&input.to_string()) {
        return Err(PolicyError::parse("input", &error));
    }
    let mut asking = Asking { engine, left: PROBES };
    let mut rules = Vec::new();
    for (file, module) in files.iter().zip(&modules) {
        rules.extend(asking.rules(file, module, policy.package()));
    }
    let mut decided_by = decided_by(&rules, by_rules);
    if by_rules && !decision.allows() {
        decided_by = vec![format!("input.result.status: {}", input["result"]["status"])];
    }
    let values = values(&files, &modules, input);
    Ok(Explanation { decision, decided_by, rules, values, cut: asking.left == 0 })
}

fn decided_by(rules: &[Explained], allows: bool) -> Vec<String> {
    let bodies = |name: &'static str| {
        let of = rules.iter().filter(move |one| one.rule == name);
        of.flat_map(|one| one.bodies.iter().map(move |body| (one, body)))
    };
    let held = |name: &'static str| -> Vec<String> {
        let held = bodies(name).filter(|(_, body)| body.holds == Some(true));
        held.map(|(one, body)| format!("{} at {}", one.rule, body.at)).collect()
    };
    if allows {
        return held("allow");
    }
    let denied = held("deny");
    if !denied.is_empty() {
        return denied;
    }
    let stopped = bodies("allow").filter_map(|(_, body)| {
        let (text, line) = (body.stopped_at.as_ref()?, body.stopped_line?);
        Some(format!("allow at {} stops in line {line}: {text}", body.at))
    });
    stopped.collect()
}

struct Asking {
    engine: Engine,
    left: usize,
}

impl Asking {
    fn rules(&mut self, file: &File, module: &Module, deciding: &str) -> Vec<Explained> {
        let package = syntax::package(module).join(".");
        let mut all: Vec<Explained> = Vec::new();
        for rule in &module.policy {
            let (bodies, line) = match rule.as_ref() {
                Rule::Default { args, span, .. } if args.is_empty() => (&[][..], span.line),
                Rule::Spec { head: RuleHead::Compr { .. } | RuleHead::Set { .. }, bodies, span } => {
                    (&bodies[..], span.line)
                }
                _ => continue,
            };
            let name = first_name(refr(rule));
            let full = format!("data.{package}.{name}");
            let said = if package == deciding { name } else { full.clone() };
            let queries: Vec<&Query> = bodies.iter().map(|body| body.query.as_ref()).collect();
            let bodies: Vec<Body> = queries
                .into_iter()
                .filter(|query| !query.stmts.is_empty())
                .map(|query| self.body(file, module, query))
                .collect();
            if let Some(known) = all.iter_mut().find(|one| one.rule == said) {
                known.bodies.extend(bodies);
            } else {
                let value = self.value(full);
                all.push(Explained { rule: said, at: format!("{}:{line}", file.name), value, bodies });
            }
        }
        all
    }

    fn value(&mut self, path: String) -> Option<Json> {
        builtins::refill();
        match self.engine.clone().eval_rule(path) {
            Ok(Value::Undefined) => None,
            Ok(value) if builtins::weight([&value], 16 * SHOWN).is_none() => Some(too_long()),
            Ok(value) => serde_json::to_value(&value).ok().map(shown),
            Err(error) => Some(Json::from(format!("failed: {}", crate::error::last_line(&error)))),
        }
    }

    fn body(&mut self, file: &File, module: &Module, query: &Query) -> Body {
        let at = format!("{}:{}", file.name, query.stmts.first().map_or(query.span.line, |stmt| stmt.span.line));
        let all = query.stmts.len();
        let holds = self.hold(module, query, all);
        let mut body = Body { at, holds, stopped_at: None, stopped_line: None };
        if holds == Some(false) {
            // Statements are asked in the order they are written in; one that needs a later one cannot be asked alone.
            let stopped = (1..all).find(|count| self.hold(module, query, *count) == Some(false)).unwrap_or(all);
            let stmt = &query.stmts[stopped - 1];
            body.stopped_at = Some(syntax::whole(&stmt.span).split_whitespace().collect::<Vec<_>>().join(" "));
            body.stopped_line = Some(stmt.span.line);
        }
        body
    }

    /// Whether the first statements of a body hold together.
    fn hold(&mut self, module: &Module, query: &Query, count: usize) -> Option<bool> {
        self.left = self.left.checked_sub(1)?;
        let mut engine = self.engine.clone();
        let package = module.package.refr.span().text();
        let imports = module.imports.iter().map(|import| {
            let name = import.r#as.as_ref().map(|name| format!(" as {}", name.text()));
            format!("import {}{}\n", import.refr.span().text(), name.unwrap_or_default())
        });
        let imports: String = imports.collect();
        let statements: Vec<&str> = query.stmts[..count].iter().map(|stmt| syntax::whole(&stmt.span)).collect();
        let text = format!("package {package}\n{imports}{PROBE} if {{\n{}\n}}\n", statements.join("\n"));
        let package = engine.add_policy(PROBE.into(), text).ok()?;
        builtins::refill();
        match engine.eval_rule(format!("{package}.{PROBE}")).ok()? {
            Value::Bool(holds) => Some(holds),
            _ => Some(false),
        }
    }
}

/// No policy has a rule of that name for a reason of its own.
const PROBE: &str = "coffer_explains_this_body";

fn too_long() -> Json {
    Json::from(format!("(more than {SHOWN} bytes)"))
}

fn shown(value: Json) -> Json {
    if value.to_string().len() > SHOWN { too_long() } else { value }
}

/// What the texts name of the input.
fn values(files: &[File], modules: &[Module], input: &Json) -> Vec<Looked> {
    let mut all: Vec<Looked> = Vec::new();
    for (file, module) in files.iter().zip(modules) {
        let imports = syntax::imports(module);
        let mut roads = Roads(Vec::new());
        module.policy.iter().for_each(|rule| visit::rule(rule, &mut roads));
        for (first, path, line) in roads.0 {
            let import = imports.iter().find(|(name, ..)| *name == first);
            let road: Vec<Part> = match import {
                Some((_, import, _)) => import.iter().chain(&path).cloned().collect(),
                None => [Some(first)].into_iter().chain(path).collect(),
            };
            let known: Vec<String> = road.into_iter().map_while(|part| part).collect();
            if known.first().is_none_or(|first| first != "input") {
                continue;
            }
            let (path, at) = (known.join("."), format!("{}:{line}", file.name));
            match all.iter_mut().find(|one| one.path == path) {
                Some(known) if known.at.contains(&at) => {}
                Some(known) => known.at.push(at),
                None => {
                    let found = known[1..].iter().try_fold(input, |value, part| match value {
                        Json::Array(items) => items.get(part.parse::<usize>().ok()?),
                        other => other.get(part),
                    });
                    let value = found.cloned().map_or(Json::Null, shown);
                    all.push(Looked { path, value, is_there: found.is_some(), at: vec![at] });
                }
            }
        }
    }
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all
}

struct Roads(Vec<(String, Vec<Part>, u32)>);

impl Visitor for Roads {
    fn expression(&mut self, expr: &Expr) {
        let Expr::Var { span, .. } = root(expr) else { return };
        let is_inner = self
            .0
            .iter()
            .any(|(name, path, line)| *line == span.line && name == span.text() && path.starts_with(&parts(expr).1));
        if matches!(expr, Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. }) && !is_inner {
            self.0.push((span.text().to_owned(), parts(expr).1, span.line));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::EVIDENCE_SNP;

    fn of(text: &str, input: &Json) -> Explanation {
        explain("p.rego", &[File::new("p.rego", text)], None, input).unwrap()
    }

    #[test]
    fn says_which_rule_decided_and_at_which_statement_the_others_stopped() {
        let text = "package p\n\ndefault allow := false\n\nallow if {\n\tinput.a == 1\n\tsome x in input.list\n\tx > 2\n\tnamed\n}\n\n\
                    allow if input.b\n\nnamed if input.name == \"n\"\n\ndeny contains \"never\" if input.c\n";
        let yes = of(text, &json!({"a": 1, "list": [1, 5], "name": "n", "result": {"status": "warning"}}));
        assert!(yes.decision.allows());
        assert_eq!(yes.decided_by, ["allow at p.rego:6"]);
        let no = of(text, &json!({"a": 1, "list": [1, 2], "name": "n"}));
        assert_eq!(
            no.decided_by,
            ["allow at p.rego:6 stops in line 8: x > 2", "allow at p.rego:12 stops in line 12: input.b"]
        );
        let named = no.rules.iter().find(|one| one.rule == "named").unwrap();
        assert_eq!((&named.value, named.bodies[0].holds), (&Some(json!(true)), Some(true)));
        let denied = of(text, &json!({"a": 1, "list": [5], "name": "n", "c": true}));
        assert_eq!(denied.decided_by, ["deny at p.rego:16"]);
        assert_eq!(denied.decision.reasons(), ["never"]);
        let paths: Vec<_> = no.values.iter().map(|one| (one.path.as_str(), one.is_there)).collect();
        assert_eq!(
            paths,
            [("input.a", true), ("input.b", false), ("input.c", false), ("input.list", true), ("input.name", true)]
        );
        assert_eq!(no.values[0].at, ["p.rego:6"]);
    }

    #[test]
    fn an_explanation_never_differs_from_the_decision() {
        let files = [File::new(EVIDENCE_SNP.name, EVIDENCE_SNP.text)];
        let policy = Policy::parse(EVIDENCE_SNP.name, EVIDENCE_SNP.text).unwrap();
        for input in [
            json!({}),
            json!([]),
            json!({"result": {"status": "affirming", "claims": {"anchor": {"simulated": false}, "report": {"vmpl": 0, "measurement": "a",
                "policy": {"debug": false, "migrate_ma": false}}}}}),
        ] {
            let explained = explain(EVIDENCE_SNP.name, &files, None, &input).unwrap();
            assert_eq!(explained.decision, policy.decide(&input), "{input}");
            assert!(!explained.decided_by.is_empty() && !explained.cut, "{explained:#?}");
        }
        // What was refused before a policy is asked is allowed by none, nor what does not say that it was not.
        for (result, decided_by) in [
            (json!({"status": "contraindicated"}), "input.result.status: \"contraindicated\""),
            (json!({}), "input.result.status: null"),
        ] {
            let input = json!({"result": result});
            let refused = explain("p", &[File::new("p.rego", "package p\nallow := true")], None, &input).unwrap();
            assert!(!refused.decision.allows() && refused.decided_by == [decided_by], "{refused:?}");
        }
    }

    #[test]
    fn what_is_long_or_needs_a_later_statement_is_said_so() {
        let text = "package p\nallow if { x := y; some y in input.list; x == 7 }\nlong := numbers.range(1, 4000)\n";
        let no = of(text, &json!({"list": [1]}));
        assert_eq!(no.decided_by, ["allow at p.rego:2 stops in line 2: x == 7"]);
        let long = no.rules.iter().find(|one| one.rule == "long").unwrap();
        assert_eq!(long.value, Some(too_long()));
        let many: Vec<String> = (0..400).map(|at| format!("r{at} if input.x == {at}\n")).collect();
        assert!(of(&format!("package p\nallow := true\n{}", many.concat()), &json!({})).cut);
    }
}
