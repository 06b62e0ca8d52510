//! `coffer exec`.

use std::process::ExitCode;

use coffer_runtime::engine::{ExecInput, ExecInputs, ExecOutput, ExecRequest, ExecSession};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::context::Context;
use crate::error::{self, Class, CliError};
use crate::output::Output;
use crate::prove::guest::Trust;

/// Run a program in a running box.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "coffer exec [OPTIONS] BOX COMMAND [ARG]...",
    after_help = "Where the spec does not let the host exec, it is done as owner, in a guest that proves itself first.

Examples:
  coffer exec web ps
  coffer exec -i web sh -c 'cat > /tmp/file'"
)]
pub struct Args {
    /// Give the program our standard input.
    #[arg(short, long)]
    interactive: bool,
    /// Set an environment variable.
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Working directory.
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User: name or id, and optionally :group.
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    trust: Trust,
    /// Name or id, then the program and its arguments. Options end at the box.
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_names = ["BOX", "COMMAND"])]
    words: Vec<String>,
}

/// Runs it; the exit code is the program's.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    let trust = args.trust.read()?;
    let (name, argv) = args.words.split_first().ok_or_else(|| CliError::new(Class::Usage, "no box was named"))?;
    let request =
        ExecRequest { argv: argv.to_vec(), env: args.env.clone(), cwd: args.workdir.clone(), user: args.user.clone() };
    let runtime = context.runtime()?;
    let output = Output::new(context, &Value::Null);
    let code = runtime.block_on(async {
        let mut session = engine.exec(name, request, &trust).await.map_err(error::of)?;
        forward_input(session.inputs(), args.interactive);
        forward_signals(&session.inputs())?;
        show(&mut session, &output).await
    });
    // A read of our terminal may still be pending; nobody waits for it.
    runtime.shutdown_background();
    let ended = code.map(|code| (json!({ "exit_code": code }), ExitCode::from(u8::try_from(code).unwrap_or(125))));
    output.end(context, ended)
}

/// Shows the program's output as it is, up to its end.
async fn show(session: &mut ExecSession, output: &Output) -> Result<i32, CliError> {
    loop {
        let (stderr, bytes) = match session.next().await.map_err(error::of)? {
            ExecOutput::Stdout(bytes) => (false, bytes),
            ExecOutput::Stderr(bytes) => (true, bytes),
            ExecOutput::Exited(code) => return Ok(code),
        };
        output.show_bytes(stderr, bytes);
    }
}

/// Our standard input, to its end; without `-i` it ends at once.
fn forward_input(inputs: ExecInputs, interactive: bool) {
    tokio::spawn(async move {
        if interactive {
            let mut stdin = tokio::io::stdin();
            let mut bytes = vec![0; 16 * 1024];
            while let Ok(count @ 1..) = stdin.read(&mut bytes).await {
                if !inputs.send(ExecInput::Stdin(bytes[..count].to_vec())).await {
                    return;
                }
            }
        }
        inputs.send(ExecInput::StdinClosed).await;
    });
}

fn forward_signals(inputs: &ExecInputs) -> Result<(), CliError> {
    for (kind, number) in [(SignalKind::interrupt(), 2), (SignalKind::terminate(), 15)] {
        let mut signals = signal(kind)?;
        let inputs = inputs.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                inputs.send(ExecInput::Signal(number)).await;
            }
        });
    }
    Ok(())
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
    fn options_end_at_the_box() {
        let parse = |line: &str| Line::try_parse_from(line.split(' ')).map(|line| line.args);
        let args = parse("x -i web -i -e --user root --json").unwrap();
        assert_eq!(args.words, ["web", "-i", "-e", "--user", "root", "--json"]);
        assert!(args.interactive && args.env.is_empty() && args.user.is_none());
        assert!(parse("x web").is_err(), "no program");
        assert!(parse("x --nosuch web id").is_err());
    }
}
