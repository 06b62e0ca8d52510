//! `coffer inject-secret`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use coffer_rim::foreign;
use coffer_runtime::engine::{InjectRequest, VALUE_LIMIT};
use zeroize::Zeroizing;

use crate::boxes::logs::read_input;
use crate::context::Context;
use crate::error::{self, Class, CliError};
use crate::prove::guest::Trust;

/// Write values to /run/secrets/NAME of a guest that proves itself first, encrypted to that guest.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer inject-secret web --secret api-token=@token.txt
  printf %s \"$TOKEN\" | coffer inject-secret web --secret TOKEN=- --set-env")]
pub struct Args {
    /// NAME=@FILE, NAME=- for standard input, or NAME=VALUE, which this host sees. The spec must list the name (--inject NAME).
    #[arg(long, value_name = "NAME=VALUE", required = true)]
    secret: Vec<Given>,
    /// Give the values to programs that start from now on (coffer exec, and what follows a new version) as variables, too. The
    /// workload that runs keeps its environment.
    #[arg(long)]
    set_env: bool,
    #[command(flatten)]
    trust: Trust,
    /// Name or id; or coffer://HOST:PORT of a guest elsewhere, with --reference.
    #[arg(value_name = "BOX")]
    name: String,
}

/// A name, and where its value is.
#[derive(Clone)]
struct Given {
    name: String,
    value: Value,
}

#[derive(Clone)]
enum Value {
    File(PathBuf),
    Stdin,
    Typed(Zeroizing<String>),
}

// What was typed is not shown again.
impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Given").field("name", &self.name).finish_non_exhaustive()
    }
}

impl FromStr for Given {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or("there is no = in it")?;
        if name.is_empty() {
            return Err("there is no name before the =");
        }
        let value = match value.strip_prefix('@') {
            Some("") => return Err("there is no file behind the @"),
            Some(file) => Value::File(file.into()),
            None if value == "-" => Value::Stdin,
            None => Value::Typed(value.to_owned().into()),
        };
        Ok(Self { name: name.to_owned(), value })
    }
}

/// Injects them. Nothing that could be compared with a guess is printed: the guest's confirmation is checked, not shown.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    let trust = args.trust.read()?;
    check_once(&args.secret)?;
    for given in &args.secret {
        engine.may_inject(&args.name, &given.name).map_err(error::of)?;
    }
    // All are read before one is sent: a file that is not there is no half of an injection.
    let requests = args.secret.iter().map(|given| request(given, args.set_env)).collect::<Result<Vec<_>, _>>()?;
    for request in &requests {
        context.runtime()?.block_on(engine.inject(&args.name, request, &trust)).map_err(error::of)?;
        if !context.json {
            println!("injected {} into {}", foreign(&request.name), foreign(&args.name));
        }
    }
    if context.json {
        let names: Vec<_> = requests.iter().map(|request| &request.name).collect();
        println!("{}", serde_json::json!({ "injected": names, "set_env": args.set_env }));
    }
    Ok(ExitCode::SUCCESS)
}

fn check_once(all: &[Given]) -> Result<(), CliError> {
    let refuse = |message: String| Err(CliError::new(Class::Usage, message));
    if all.iter().filter(|given| matches!(given.value, Value::Stdin)).count() > 1 {
        return refuse("standard input has one value".into());
    }
    let twice = all.iter().enumerate().find(|(at, given)| all[..*at].iter().any(|other| other.name == given.name));
    match twice {
        Some((_, given)) => refuse(format!("--secret {} stands there twice", given.name)),
        None => Ok(()),
    }
}

fn request(given: &Given, set_env: bool) -> Result<InjectRequest, CliError> {
    let value = match &given.value {
        Value::File(path) => read_input(Some(path), VALUE_LIMIT as u64)?,
        Value::Stdin => read_input(Some(Path::new("-")), VALUE_LIMIT as u64)?,
        Value::Typed(text) => {
            let name = foreign(&given.name);
            eprintln!(
                "coffer: warning: the value of {name} stands on the command line, which others on this host can read"
            );
            eprintln!("hint: write --secret {name}=@FILE, or --secret {name}=- and give it on standard input");
            text.as_bytes().to_vec()
        }
    };
    Ok(InjectRequest { name: given.name.clone(), value: Zeroizing::new(value), set_env })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_a_file_standard_input_or_what_was_typed_and_is_not_shown() {
        let given = |text: &str| text.parse::<Given>();
        assert!(matches!(given("a=@f/x").unwrap().value, Value::File(path) if path == Path::new("f/x")));
        assert!(matches!(given("a=-").unwrap().value, Value::Stdin));
        assert!(matches!(given("a=-x=y").unwrap().value, Value::Typed(text) if *text == "-x=y"));
        for bad in ["a", "=x", "a=@"] {
            assert!(given(bad).is_err(), "{bad}");
        }
        assert!(!format!("{:?}", given("a=hunter2").unwrap()).contains("hunter2"));
        assert!(check_once(&[given("a=-").unwrap(), given("b=-").unwrap()]).is_err());
        assert!(check_once(&[given("a=-").unwrap(), given("a=x").unwrap()]).is_err());
    }
}
