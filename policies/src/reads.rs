//! Which fields right below the input a policy reads, as far as its texts say it.

use std::collections::BTreeSet;

use regorus::unstable::{Expr, Module};

use crate::{
    syntax::{self, Part, parts, root},
    visit::{self, Visitor},
};

/// Each such as `input.result`, sorted.
pub(crate) fn fields(modules: &[Module]) -> Vec<String> {
    let mut read = BTreeSet::new();
    for module in modules {
        let mut fields = Fields { imports: syntax::imports(module), read: &mut read };
        module.policy.iter().for_each(|rule| visit::rule(rule, &mut fields));
    }
    read.into_iter().collect()
}

struct Fields<'a> {
    imports: Vec<(String, Vec<Part>, u32)>,
    read: &'a mut BTreeSet<String>,
}

impl Visitor for Fields<'_> {
    fn expression(&mut self, expr: &Expr) {
        let Expr::Var { span, .. } = root(expr) else { return };
        let name = span.text();
        let path = parts(expr).1;
        let whole: Vec<Part> = match self.imports.iter().find(|(import, ..)| import == name) {
            Some((_, import, _)) => import.iter().cloned().chain(path).collect(),
            None => [Some(name.to_owned())].into_iter().chain(path).collect(),
        };
        if let [Some(first), Some(field), ..] = &whole[..]
            && first == "input"
        {
            self.read.insert(format!("input.{field}"));
        }
    }
}
