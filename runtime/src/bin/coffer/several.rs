//! One act on each of several names: it goes on after a failure, and all of it is one answer.

use std::process::ExitCode;

use coffer_rim::foreign;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{self, CliError};

/// Does something to each name and says what came of it: `done` of each that went well, in lines; or with `--json` one object
/// of them all under `many`, each with its name under `one`. Fails as the last failure does.
pub fn each<T>(
    context: &Context,
    (many, one): (&str, &str),
    names: &[String],
    mut act: impl FnMut(&str) -> Result<T, CliError>,
    done: impl Fn(&str, &T) -> (String, Value),
) -> ExitCode {
    let mut rows = Vec::new();
    let mut last = None;
    for name in names {
        let mut row = json!({ one: name });
        match act(name) {
            Ok(made) => {
                let (text, more) = done(name, &made);
                if !context.json {
                    print!("{text}");
                }
                if let (Some(row), Value::Object(more)) = (row.as_object_mut(), more) {
                    row.extend(more);
                }
            }
            Err(failure) => {
                if !context.json {
                    error::print(&failure, false);
                }
                row["error"] = failure.json()["error"].take();
                last = Some(failure);
            }
        }
        rows.push(row);
    }
    if context.json {
        let mut all = json!({ many: rows });
        if let Some(failure) = &last {
            all["error"] = failure.json()["error"].take();
        }
        println!("{all}");
    }
    last.map_or(ExitCode::SUCCESS, |failure| context.exit(&failure))
}

/// [`each`] for boxes; what is done to one is said by its name.
pub fn each_box(context: &Context, names: &[String], act: impl FnMut(&str) -> Result<(), CliError>) -> ExitCode {
    each(context, ("boxes", "box"), names, act, |name, ()| (format!("{}\n", foreign(name)), Value::Null))
}
