//! What `data` holds of a policy: its packages with their rules, and its documents.

use std::collections::BTreeSet;

use regorus::unstable::Module;
use serde_json::Value;

use crate::syntax::{self, Part, first_name, refr};

/// Names that a message has at most.
const NAMED: usize = 12;

/// All that a reference into `data` can find.
pub(super) struct Known<'a> {
    packages: Vec<(Vec<String>, BTreeSet<String>)>,
    data: Option<&'a Value>,
}

impl<'a> Known<'a> {
    pub(super) fn of(modules: &[&Module], data: Option<&'a Value>) -> Self {
        let rules = |module: &Module| module.policy.iter().map(|rule| first_name(refr(rule))).collect();
        Self { packages: modules.iter().map(|module| (syntax::package(module), rules(module))).collect(), data }
    }

    /// The beginning of a reference below `data` that is nowhere, and what there is in its place. What the text does not say
    /// (`data.x[name]`) may be there.
    pub(super) fn stray(&self, road: &[Part]) -> Option<(String, Vec<String>)> {
        let said: Vec<&str> = road.iter().map_while(|part| part.as_deref()).collect();
        let known = (1..=said.len()).find(|length| !self.may_hold(&said[..*length]))?;
        let mut there = self.there(&said[..known - 1]);
        there.truncate(NAMED);
        Some((format!("data.{}", said[..known].join(".")), there))
    }

    fn may_hold(&self, road: &[&str]) -> bool {
        let in_package = |(package, rules): &(Vec<String>, BTreeSet<String>)| match road.get(package.len()) {
            None => road.iter().zip(package).all(|(said, name)| said == name),
            Some(rule) => package.iter().zip(road).all(|(name, said)| name == said) && rules.contains(*rule),
        };
        self.packages.iter().any(in_package) || self.document(road).is_some()
    }

    fn document(&self, road: &[&str]) -> Option<&Value> {
        road.iter().try_fold(self.data?, |value, name| value.get(name))
    }

    /// The names right below a part of `data` that is there.
    fn there(&self, road: &[&str]) -> Vec<String> {
        let mut names = BTreeSet::new();
        for (package, rules) in &self.packages {
            if package.iter().zip(road).all(|(name, said)| name == said) {
                match package.get(road.len()) {
                    Some(next) => drop(names.insert(next.clone())),
                    None if package.len() == road.len() => names.extend(rules.iter().cloned()),
                    None => {}
                }
            }
        }
        names.extend(self.document(road).and_then(Value::as_object).into_iter().flat_map(|map| map.keys().cloned()));
        names.into_iter().collect()
    }
}
