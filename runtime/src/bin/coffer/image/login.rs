//! `coffer login`.

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use coffer_image::credentials::Login;
use coffer_image::credentials::keep::{self, Place};
use coffer_image::login::{registry_name, try_login};
use coffer_rim::foreign;
use coffer_runtime::images::of_image;
use secrecy::{ExposeSecret as _, SecretString};

use crate::context::Context;
use crate::error::{Class, CliError};
use crate::terminal;

/// Try a login of a registry, and keep it where Docker keeps it: with a credential helper, or in its configuration file.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer login -u ann registry.example
  coffer login -u ann --password-stdin registry.example < password.txt")]
pub struct Args {
    /// User; asked for at a terminal.
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Read the password or token from standard input; without it, it is asked for at a terminal.
    #[arg(long)]
    password_stdin: bool,
    /// Speak plain http to this registry.
    #[arg(long, value_name = "HOST:PORT")]
    insecure_registry: Vec<String>,
    /// HOST or HOST:PORT; Docker's own without it.
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    registry: String,
}

/// Tries it, then keeps it.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let registry = registry(&args.registry)?;
    let file = file(context)?;
    let user = match &args.username {
        Some(user) => user.clone(),
        None => asked(context, args.password_stdin, || line("Username: "))?,
    };
    let password = if args.password_stdin {
        from_stdin()?
    } else {
        asked(context, false, || terminal::hidden_line("Password: "))?.into()
    };
    if user.is_empty() || user.contains(':') || password.expose_secret().is_empty() {
        return Err(CliError::new(Class::Usage, "a login is a user, without a colon, and a password"));
    }
    let options = context.engine()?.pull_options(&args.insecure_registry, None)?;
    let tried = try_login(&registry, Login::Basic(user.clone(), password.clone()), &options);
    context.runtime()?.block_on(tried).map_err(|error| match error.class() {
        "unauthorized" => {
            CliError::new(Class::Refused, format!("{registry} does not take this user with this password"))
        }
        _ => of_image(&error),
    })?;
    let place = keep::keep(&file, &registry, &user, &password).map_err(|error| of_image(&error))?;
    let helper = match &place {
        Place::File => None,
        Place::Helper(program) => Some(program),
    };
    if context.json {
        println!("{}", serde_json::json!({ "registry": registry, "user": user, "file": file, "helper": helper }));
        return Ok(ExitCode::SUCCESS);
    }
    if place == Place::File {
        let path = file.to_string_lossy();
        eprintln!("warning: the password lies readable in {}; a credential helper would keep it", foreign(&path));
    }
    println!("Login Succeeded");
    Ok(ExitCode::SUCCESS)
}

/// A registry that was typed.
pub fn registry(text: &str) -> Result<String, CliError> {
    let message = || format!("\"{}\" is no registry", foreign(text));
    registry_name(text).ok_or_else(|| CliError::new(Class::Usage, message()).hint("write HOST or HOST:PORT"))
}

/// Docker's configuration file.
pub fn file(context: &Context) -> Result<PathBuf, CliError> {
    context.docker_config.clone().ok_or_else(|| {
        let failure = CliError::new(Class::Config, "nobody says where logins are kept");
        failure.hint("set HOME, or DOCKER_CONFIG to the folder of config.json")
    })
}

/// Asks where somebody is there to answer.
fn asked(
    context: &Context,
    stdin_is_taken: bool,
    ask: impl FnOnce() -> io::Result<String>,
) -> Result<String, CliError> {
    if context.json || stdin_is_taken || !terminal::is_there() {
        let failure = CliError::new(Class::Usage, "nobody is there to be asked for a user and a password");
        return Err(failure.hint("give them with --username and --password-stdin"));
    }
    Ok(ask()?)
}

fn line(prompt: &str) -> io::Result<String> {
    print!("{prompt}");
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().lock().take(MOST).read_line(&mut answer)?;
    Ok(answer.trim().to_owned())
}

/// All of it but the end of its last line.
fn from_stdin() -> Result<SecretString, CliError> {
    let bytes = coffer_rim::input::all(io::stdin().lock(), MOST)?;
    let text = String::from_utf8(bytes).map_err(|_| CliError::new(Class::Usage, "the password is no UTF-8 text"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).into())
}

/// Tokens are long, and not longer than that.
const MOST: u64 = 64 << 10;
