//! `coffer exec`.

use std::path::PathBuf;
use std::process::ExitCode;

use coffer_runtime::engine::{Engine, ExecInput, ExecOutput, ExecRequest, Trust as MustProve};
use serde_json::Value;

use crate::boxes::attend::{End, Ours, attend};
use crate::boxes::environment::environment;
use crate::context::Context;
use crate::error::{self, Class, CliError};
use crate::output::Output;
use crate::prove::guest::Trust;
use crate::signals::Manner;
use crate::terminal::detach_keys::{self, DetachKeys};
use crate::terminal::size;

/// Run a program in a running box.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "coffer exec [OPTIONS] BOX COMMAND [ARG]...",
    after_help = "Where the spec does not let the host exec, it is done as owner, in a guest that proves itself first.

Signals that we get go to the program as they are. It has 10 s to end after SIGTERM, then it is killed, as it is at a second SIGTERM, \
at a third SIGINT, and when nobody reads its output any more (141).

Examples:
  coffer exec web ps
  coffer exec -it web sh
  coffer exec -d web touch /tmp/file
  coffer exec -i web sh -c 'cat > /tmp/file'"
)]
pub struct Args {
    /// Give the program our standard input.
    #[arg(short, long)]
    interactive: bool,
    /// Give the program a terminal.
    #[arg(short, long)]
    tty: bool,
    /// Leave the program to itself once it runs; it has no input, and its output is dropped.
    #[arg(short, long)]
    detach: bool,
    /// Keys that leave a program with -it to itself.
    #[arg(long, value_name = "KEYS", default_value = detach_keys::DEFAULT)]
    detach_keys: DetachKeys,
    /// Set an environment variable; without a value, ours.
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file.
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory.
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User: name or id, and optionally :group.
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    trust: Trust,
    /// Name or id, or coffer://HOST:PORT of a guest elsewhere, with --reference; then the program and its arguments. Options end at the box.
    #[arg(required = true, num_args = 1.., trailing_var_arg = true, value_names = ["BOX", "COMMAND"])]
    words: Vec<String>,
}

/// Runs it; the exit code is the program's.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let (name, argv) = words(&args.words)?;
    if argv.first().is_some_and(|word| word.starts_with("--")) {
        eprintln!("coffer: warning: {} stands behind the box, so it is what runs there", coffer_rim::foreign(&argv[0]));
        eprintln!("hint: options of coffer stand before BOX");
    }
    let engine = context.engine()?;
    let trust = args.trust.read()?;
    let (input, keys) = (args.interactive && !args.detach, args.detach_keys.clone());
    let ours = Ours { input, terminal: args.tty, keys, manner: Manner::EXEC };
    ours.check()?;
    let request = ExecRequest {
        argv: argv.to_vec(),
        env: last_of_each(&environment(&args.env_file, &args.env)?),
        cwd: args.workdir.clone(),
        user: args.user.clone(),
        terminal: args.tty.then(size),
        detached: args.detach,
    };
    let runtime = context.runtime()?;
    let output = Output::new(context, &Value::Null);
    let ended = runtime.block_on(async {
        if args.detach {
            leave(context, &engine, (name, request), &trust, &output).await
        } else {
            let session = engine.exec(name, request, &trust).await.map_err(error::of)?;
            context.taken();
            if !ours.input {
                session.inputs().send(ExecInput::StdinClosed).await;
            }
            attend(session, &ours, &output).await
        }
    });
    // A read of our terminal may still be pending; nobody waits for it.
    runtime.shutdown_background();
    if let Ok(Some(said)) = ended.as_ref().map(|end| end.said("it is killed"))
        && !args.detach
    {
        eprintln!("{said}");
    }
    let told = ended.map(|end| {
        let (mut told, code) = end.told();
        if let (End::Exited(125..=127), Some(why)) = (end, output.refusal()) {
            told["why"] = why.into();
        }
        (told, code)
    });
    output.end(context, told)
}

/// Of several values of a name the last: what `-e` sets goes before a file.
fn last_of_each(all: &[String]) -> Vec<String> {
    let name = |entry: &String| entry.split('=').next().unwrap_or_default().to_owned();
    let is_last = |at: usize| !all.iter().skip(at + 1).any(|later| name(later) == name(&all[at]));
    (0..all.len()).filter(|at| is_last(*at)).map(|at| all[at].clone()).collect()
}

/// The box, and what runs there.
fn words(words: &[String]) -> Result<(&String, &[String]), CliError> {
    let missing = |what: &str| {
        CliError::new(Class::Usage, format!("{what} was not named")).hint("coffer exec BOX COMMAND [ARG]...")
    };
    let (name, argv) = words.split_first().ok_or_else(|| missing("a box"))?;
    if argv.is_empty() { Err(missing("a program to run there")) } else { Ok((name, argv)) }
}

/// Starts a program that goes on by itself; else shows why it does not.
async fn leave(
    context: &Context,
    engine: &Engine,
    (name, request): (&str, ExecRequest),
    trust: &MustProve,
    output: &Output,
) -> Result<End, CliError> {
    let mut session = engine.exec(name, request, trust).await.map_err(error::of)?;
    context.taken();
    loop {
        match session.next().await.map_err(error::of)? {
            ExecOutput::Stdout(bytes) => output.show_bytes(false, bytes),
            ExecOutput::Stderr(bytes) => output.show_bytes(true, bytes),
            ExecOutput::Exited(code) => return Ok(End::Exited(code)),
            ExecOutput::Detached => return Ok(End::Detached),
            ExecOutput::Lost(_) | ExecOutput::SignalRefused(_) => continue,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn of_several_values_of_a_variable_the_last_counts() {
        let all = ["A=1", "B=2", "A=3"].map(str::to_owned).to_vec();
        assert_eq!(last_of_each(&all), ["B=2", "A=3"]);
    }

    #[test]
    fn options_end_at_the_box() {
        let parse = |line: &str| Line::try_parse_from(line.split(' ')).map(|line| line.args);
        let args = parse("x -i web -i -e --user root --json").unwrap();
        assert_eq!(args.words, ["web", "-i", "-e", "--user", "root", "--json"]);
        assert!(args.interactive && !args.tty && args.env.is_empty() && args.user.is_none());
        let args = parse("x -itd --detach-keys ctrl-a,d web sh -t").unwrap();
        assert!(args.tty && args.detach && args.detach_keys.to_string() == "ctrl-a,d");
        assert!(parse("x --detach-keys nosuch web id").is_err());
        let missing = words(&parse("x web").unwrap().words).unwrap_err();
        assert!(missing.class == Class::Usage && missing.message.contains("a program"), "{missing:?}");
        assert!(parse("x").is_err(), "no box");
        assert!(parse("x --nosuch web id").is_err());
    }
}
