//! One policy: its text, parsed once; asked often.

use std::collections::BTreeSet;

use coffer_verifier::{MaxAge, UnixTime, manifest::CLOCKS_DIFFER_BY};
use regorus::{Engine, Value, unstable::Module};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{
    PolicyError,
    bounds::{File, on_large_stack, within_bounds},
    builtins,
    engine::{self, INPUT_LIMIT},
    error::last_line,
    reads,
    stack::on_large,
    syntax,
    time::{CutOff, TIME_LIMIT, WALL_LIMIT, within},
};

/// Reasons of one answer; what is more is counted in one that says so.
pub const REASONS_LIMIT: usize = 32;
const AHEAD_HINT: &str = "its date lies ahead of the time that counts: compare the clocks of this machine and of whoever signed it, or \
    decide as of a later time (--at)";
/// Longest reason, in bytes.
pub const REASON_LIMIT: usize = 256;

/// A policy's answer. Only [`Policy::decide`] makes one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    allow: bool,
    reasons: Vec<String>,
}

impl Decision {
    /// True only if `allow` was the boolean true and `deny` was empty.
    pub fn allows(&self) -> bool {
        self.allow
    }

    /// The reasons against, sorted, within [`REASONS_LIMIT`] and [`REASON_LIMIT`]; never empty when the answer is no.
    pub fn reasons(&self) -> &[String] {
        &self.reasons
    }

    /// Of evidence that was refused before, and of what nobody says was not: no policy admits it.
    #[must_use]
    pub(crate) fn behind_what_was_said(mut self, input: &serde_json::Value) -> Self {
        let reason = match input["result"]["status"].as_str() {
            Some("affirming" | "warning") => return self,
            Some("contraindicated") => "status: the typed stages refused it, which no policy changes",
            _ if !self.allow => return self,
            _ => {
                "status: input.result.status does not say that the typed stages did not refuse it, which no policy changes"
            }
        };
        self.allow = false;
        self.reasons.push(reason.to_owned());
        self
    }

    fn no(reason: String) -> Self {
        Self { allow: false, reasons: vec![reason] }
    }
}

/// A parsed policy. Asking does not change it.
#[derive(Clone)]
pub struct Policy {
    engine: Engine,
    name: String,
    package: String,
    allow: String,
    deny: Option<String>,
    digest: [u8; 32],
    signed_at: Option<UnixTime>,
    reads: Vec<String>,
}

impl Policy {
    /// What helps where a policy has no date, or one that is too long ago.
    pub(crate) const AGE_HINT: &str =
        "take the newest bundle, with the key that signed it; `coffer policy re-endorse` gives one another date";

    /// Parses a policy of one text.
    ///
    /// # Errors
    /// [`PolicyError`] if it is too long, nested too deeply, not Rego v1, comes back to itself, or has no `allow`.
    pub fn parse(name: &str, text: &str) -> Result<Self, PolicyError> {
        Self::of(name, &[File::new(name, text)], None, Sha256::digest(text).into())
    }

    /// Parses a policy of several texts and the data beside them. `digest` is what names them all.
    ///
    /// # Errors
    /// As [`Self::parse`], also where more than one package has an `allow`, or data stands under a rule's name.
    pub fn of(
        name: &str,
        files: &[File],
        data: Option<&serde_json::Value>,
        digest: [u8; 32],
    ) -> Result<Self, PolicyError> {
        on_large_stack(name, || Self::of_here(name, files, data, digest))
    }

    fn of_here(
        name: &str,
        files: &[File],
        data: Option<&serde_json::Value>,
        digest: [u8; 32],
    ) -> Result<Self, PolicyError> {
        let parse = |error: anyhow::Error| PolicyError::parse(name, &error);
        let (mut engine, packages, modules) = filled(name, files, data)?;
        let reads = reads::fields(&modules);
        let declares = |engine: &Engine, rule: &str| -> Result<BTreeSet<String>, PolicyError> {
            let mut found = BTreeSet::new();
            for (file, package) in files.iter().zip(&packages) {
                if engine.has_declared_rule_rooted_at(&file.name, rule).map_err(parse)? {
                    found.insert(package.clone());
                }
            }
            Ok(found)
        };
        let mut deciding: Vec<String> = declares(&engine, "allow")?.into_iter().collect();
        let package = match (deciding.pop(), deciding.is_empty()) {
            (Some(package), true) => package,
            (Some(last), false) => {
                deciding.push(last);
                return Err(PolicyError::SeveralAllow { name: name.into(), packages: deciding });
            }
            (None, _) => {
                let all: BTreeSet<String> = packages.into_iter().collect();
                let package = all.into_iter().collect::<Vec<_>>().join(", ");
                return Err(PolicyError::NoAllow { name: name.into(), package });
            }
        };
        alone(&modules, data, &package).map_err(|message| PolicyError::Data { name: name.into(), message })?;
        let deny = declares(&engine, "deny")?.contains(&package).then(|| format!("{package}.deny"));
        let allow = format!("{package}.allow");
        // The first question makes the engine analyse the rules: faults show here, and not at the first release.
        builtins::refill();
        engine.set_input(Value::new_object());
        if let Err(error) = engine.eval_rule(allow.clone())
            && !is_runtime(&error.to_string())
        {
            return Err(parse(error));
        }
        Ok(Self { engine, name: name.into(), package, allow, deny, digest, signed_at: None, reads })
    }

    /// The same, with the date of a signature that was checked.
    #[must_use]
    pub fn with_date(self, signed_at: Option<UnixTime>) -> Self {
        Self { signed_at, ..self }
    }

    /// When it was signed, where that is known.
    pub fn signed_at(&self) -> Option<UnixTime> {
        self.signed_at
    }

    /// Fields right below the input that its texts read, such as `input.result`.
    pub(crate) fn reads(&self) -> &[String] {
        &self.reads
    }

    /// What is wrong with its age: found, expected, and what helps. No date is no young one.
    pub(crate) fn too_old(&self, most: MaxAge, now: UnixTime) -> Option<(String, String, &'static str)> {
        if most == MaxAge::Any {
            return None;
        }
        let (found, hint) = match self.signed_at {
            None => ("no date of a signature".to_owned(), Self::AGE_HINT),
            Some(at) if at.0 > now.0.saturating_add(CLOCKS_DIFFER_BY) => {
                (format!("signed at {at}, which is to come"), AHEAD_HINT)
            }
            Some(at) if !most.admits(now.0.saturating_sub(at.0)) => (format!("signed at {at}"), Self::AGE_HINT),
            Some(_) => return None,
        };
        Some((found, format!("a signature of {} {most} (max_policy_age)", self.name), hint))
    }

    /// Name it was parsed under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The package that decides, without `data` before it.
    pub fn package(&self) -> &str {
        self.package.strip_prefix("data.").unwrap_or(&self.package)
    }

    /// SHA-256 of its text, or of the bundle it came in, for the audit trail.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Asks the policy about one input. Undefined, not boolean, an error or too long: no.
    pub fn decide(&self, input: &serde_json::Value) -> Decision {
        self.decide_text(&input.to_string())
    }

    /// The same of an input that is written out already, as JSON.
    pub fn decide_text(&self, text: &str) -> Decision {
        if text.len() > INPUT_LIMIT {
            return Decision::no(format!("policy: input has {} bytes, more than {INPUT_LIMIT}", text.len()));
        }
        on_large(|| self.decide_here(text))
            .unwrap_or_else(|error| Decision::no(format!("policy: {} cannot be asked now: {error}", self.name)))
    }

    fn decide_here(&self, text: &str) -> Decision {
        let mut engine = self.engine.clone();
        if let Err(error) = engine.set_input_json(text) {
            return Decision::no(format!("policy: input is not usable: {}", last_line(&error)));
        }
        let answer = within(TIME_LIMIT, WALL_LIMIT, |may_take| {
            let mut engine = engine.clone();
            engine::may_take(&mut engine, may_take);
            self.answer(&mut engine)
        });
        answer.unwrap_or_else(|CutOff| {
            let limit = TIME_LIMIT.as_millis();
            Decision::no(format!("policy: {} failed: it has no answer in time, {limit} ms", self.name))
        })
    }

    fn answer(&self, engine: &mut Engine) -> Result<Decision, CutOff> {
        builtins::refill();
        let allow = match engine.eval_rule(self.allow.clone()) {
            Ok(Value::Bool(answer)) => Some(answer),
            Ok(Value::Undefined) => None,
            Ok(_) => return Ok(Decision::no(format!("policy: allow of {} is not a boolean", self.name))),
            Err(error) if engine::was_cut_off(&error) => return Err(CutOff),
            Err(error) => return Ok(Decision::no(format!("policy: {} failed: {}", self.name, last_line(&error)))),
        };
        let mut reasons = self.denials(engine)?;
        match allow {
            None => reasons.push(format!("policy: allow of {} is undefined for this input", self.name)),
            Some(false) if reasons.is_empty() => {
                reasons.push(format!("policy: {} does not allow it and gives no reason", self.name));
            }
            Some(_) => {}
        }
        Ok(Decision { allow: allow == Some(true) && reasons.is_empty(), reasons })
    }

    /// The `deny` set as text. A set that cannot be read is itself a reason.
    fn denials(&self, engine: &mut Engine) -> Result<Vec<String>, CutOff> {
        let Some(deny) = &self.deny else {
            return Ok(Vec::new());
        };
        Ok(match engine.eval_rule(deny.clone()) {
            Ok(Value::Set(set)) => said(set.len(), set.iter()),
            Ok(Value::Array(array)) => said(array.len(), array.iter()),
            Ok(_) => vec![format!("policy: deny of {} is not a set", self.name)],
            Err(error) if engine::was_cut_off(&error) => return Err(CutOff),
            Err(error) => vec![format!("policy: deny of {} failed: {}", self.name, last_line(&error))],
        })
    }
}

/// An engine with these texts and this data, the package of each text, and what each text says.
pub(crate) fn filled(
    name: &str,
    files: &[File],
    data: Option<&serde_json::Value>,
) -> Result<(Engine, Vec<String>, Vec<Module>), PolicyError> {
    let parse = |error: anyhow::Error| PolicyError::parse(name, &error);
    let modules = within_bounds(name, files)?;
    let mut engine = engine::bounded().map_err(parse)?;
    let mut packages = Vec::new();
    for file in files {
        packages.push(engine.add_policy(file.name.clone(), file.text.clone()).map_err(parse)?);
    }
    if let Some(data) = data {
        let refused = |message: String| PolicyError::Data { name: name.into(), message };
        beside(&modules, data).map_err(refused)?;
        engine.add_data_json(&data.to_string()).map_err(|error| refused(last_line(&error)))?;
    }
    Ok((engine, packages, modules))
}

/// Refuses data under the name of a rule: where the rule says nothing, the data would.
fn beside(modules: &[Module], data: &serde_json::Value) -> Result<(), String> {
    for module in modules {
        let (package, mut at) = (syntax::package(module), Some(data));
        for part in &package {
            at = match at {
                Some(serde_json::Value::Object(fields)) => fields.get(part),
                Some(_) => return Err(format!("it gives a value to a part of package {}", package.join("."))),
                None => None,
            };
        }
        let Some(here) = at else { continue };
        let Some(fields) = here.as_object() else {
            return Err(format!("it gives a value to package {}", package.join(".")));
        };
        let mut rules = module.policy.iter().map(|rule| syntax::first_name(syntax::refr(rule)));
        if let Some(rule) = rules.find(|rule| fields.contains_key(rule)) {
            return Err(format!("it gives a value to rule {rule} of package {}", package.join(".")));
        }
    }
    Ok(())
}

/// Refuses what gives a value to the `allow` or `deny` of the package that decides and is no rule of its own: such a `deny` is not asked.
fn alone(modules: &[Module], data: Option<&serde_json::Value>, deciding: &str) -> Result<(), String> {
    let deciding = deciding.strip_prefix("data.").unwrap_or(deciding);
    let Some(own) = modules.iter().map(syntax::package).find(|package| package.join(".") == deciding) else {
        return Ok(());
    };
    for rule in ["allow", "deny"] {
        let mut place = own.clone();
        place.push(rule.to_owned());
        let shown = place.join(".");
        for module in modules {
            let package = syntax::package(module);
            if package.starts_with(&place) {
                return Err(format!("package {} stands where rule {shown} does", package.join(".")));
            }
            if package != own && module.policy.iter().any(|rule| syntax::gives(&package, syntax::refr(rule), &place)) {
                return Err(format!("a rule of package {} gives a value to {shown}", package.join(".")));
            }
        }
        if place.iter().try_fold(data.unwrap_or(&serde_json::Value::Null), |at, part| at.get(part)).is_some() {
            return Err(format!("it gives a value to {shown}"));
        }
    }
    Ok(())
}

/// What a policy says against, within bounds: it goes into the audit trail, which is everybody's.
fn said<'a>(count: usize, values: impl Iterator<Item = &'a Value>) -> Vec<String> {
    let mut reasons: Vec<String> = values.take(REASONS_LIMIT).map(reason).collect();
    if let Some(more) = count.checked_sub(REASONS_LIMIT).filter(|more| *more > 0) {
        reasons.push(format!("policy: … and {more} more reasons"));
    }
    reasons
}

fn reason(value: &Value) -> String {
    let cut = |text: &str| match text.len() {
        0..=REASON_LIMIT => text.to_owned(),
        _ => format!("{}…", &text[..text.floor_char_boundary(REASON_LIMIT - '…'.len_utf8())]),
    };
    match value {
        Value::String(text) => cut(text),
        // A list of lists of one list is small until it is written out.
        other if builtins::weight([other], 64 * REASON_LIMIT).is_none() => {
            "policy: a reason that is too long".to_owned()
        }
        other => cut(&other.to_string()),
    }
}

/// An error that depends on the input is found again at each question; any other is a fault of the text.
fn is_runtime(message: &str) -> bool {
    !["could not find function", "unsafe", "not defined", "recursion"].iter().any(|word| message.contains(word))
}

#[cfg(test)]
mod tests;
