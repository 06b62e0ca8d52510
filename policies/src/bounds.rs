//! What is looked at before anything is parsed or evaluated: how long, how nested, how deep, and whether
//! every function is there and for policies.

use regorus::unstable::Module;

use crate::{PolicyError, calls, engine::POLICY_LIMIT, nesting, reach, stack::on_large, syntax};

/// One file of Rego.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// What it is called in errors.
    pub name: String,
    /// Its text.
    pub text: String,
}

impl File {
    /// A file.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }
}

/// What is done where the stack is known to be large enough for it.
pub(crate) fn on_large_stack<T: Send>(
    name: &str,
    work: impl FnOnce() -> Result<T, PolicyError> + Send,
) -> Result<T, PolicyError> {
    on_large(work).map_err(|source| PolicyError::NoThread { name: name.into(), source })?
}

/// Refuses texts that a stack of that size may not be enough for, or that take too long to parse. They are counted together, as they are
/// evaluated together.
pub(crate) fn within_bounds(name: &str, files: &[File]) -> Result<Vec<Module>, PolicyError> {
    let found = files.iter().map(|file| file.text.len()).sum();
    if found > POLICY_LIMIT {
        return Err(PolicyError::TooLong { name: name.into(), found });
    }
    let modules = files.iter().map(module).collect::<Result<Vec<_>, _>>()?;
    reach::look(&modules).map_err(|((at, line), found)| too_deep(&files[at], line as usize, found))?;
    match calls::faults(&modules).into_iter().next() {
        Some(fault) => Err(fault_of(fault, files)),
        None => Ok(modules),
    }
}

/// The error of a call in one of these files.
pub(crate) fn fault_of(fault: calls::Fault, files: &[File]) -> PolicyError {
    let name = &files[fault.module].name;
    fault.error(name)
}

/// One text by itself.
pub(crate) fn module(file: &File) -> Result<Module, PolicyError> {
    nesting::look(&file.text).map_err(|(line, found)| too_deep(file, line, found))?;
    syntax::module(&file.name, &file.text).map_err(|error| PolicyError::parse(&file.name, &error))
}

#[allow(clippy::needless_pass_by_value, reason = "callers have it of an error")]
fn too_deep(file: &File, line: usize, found: impl ToString) -> PolicyError {
    PolicyError::TooDeep { name: file.name.clone(), line, message: found.to_string() }
}

/// The package of a text; none of one that is no Rego, or beyond the bounds.
pub(crate) fn package(file: &File) -> Option<Vec<String>> {
    if file.text.len() > POLICY_LIMIT || nesting::look(&file.text).is_err() {
        return None;
    }
    on_large(|| syntax::module(&file.name, &file.text).ok().map(|module| syntax::package(&module))).ok()?
}
