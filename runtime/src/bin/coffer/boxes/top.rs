//! `coffer top`.

use std::process::ExitCode;

use coffer_runtime::engine::{ExecOutput, ExecSession};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::context::Context;
use crate::error::{self, Class, CliError};
use crate::prove::guest::Trust;
use crate::table;

/// List the programs in a running box.
#[derive(Debug, clap::Args)]
#[command(after_help = "Ids are those in the box. TIME is what the processors gave to the program so far.
Where the spec does not let the host top or exec, it is done as owner, in a guest that proves itself first.

Examples:
  coffer top web
  coffer --json top web")]
pub struct Args {
    #[command(flatten)]
    trust: Trust,
    /// Name or id; or coffer://HOST:PORT of a guest elsewhere, with --reference.
    #[arg(value_name = "BOX")]
    name: String,
}

/// A program, as the agent tells of it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Program {
    pid: u32,
    parent: u32,
    uid: u32,
    state: String,
    milliseconds: u64,
    resident: u64,
    command: String,
}

/// Bytes of a list that are read.
const LONGEST: usize = 64 << 20;

/// Lists them.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    let trust = args.trust.read()?;
    let programs = context.runtime()?.block_on(async {
        let mut session = engine.list_programs(&args.name, &trust).await.map_err(error::of)?;
        all(&mut session).await
    })?;
    if context.json {
        println!("{}", json!({ "programs": programs }));
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = programs.into_iter().map(row).collect();
    table::print(&["UID", "PID", "PPID", "S", "TIME", "RSS", "CMD"], &rows);
    Ok(ExitCode::SUCCESS)
}

fn row(program: Program) -> Vec<String> {
    let Program { pid, parent, uid, state, milliseconds, resident, command } = program;
    let seconds = milliseconds / 1000;
    let time = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    vec![uid.to_string(), pid.to_string(), parent.to_string(), state, time, table::size(resident), command]
}

async fn all(session: &mut ExecSession) -> Result<Vec<Program>, CliError> {
    let (mut lines, mut words) = (Vec::new(), Vec::new());
    let unreadable = || CliError::new(Class::Config, "the guest's list of programs cannot be read");
    loop {
        match session.next().await.map_err(error::of)? {
            ExecOutput::Stdout(bytes) if lines.len() + bytes.len() <= LONGEST => lines.extend(bytes),
            ExecOutput::Stdout(_) | ExecOutput::Detached | ExecOutput::Lost(_) | ExecOutput::SignalRefused(_) => {
                return Err(unreadable());
            }
            ExecOutput::Stderr(bytes) => words.extend(bytes.into_iter().take(4096_usize.saturating_sub(words.len()))),
            ExecOutput::Exited(0) => break,
            ExecOutput::Exited(_) => {
                let words = String::from_utf8_lossy(&words);
                return Err(CliError::new(Class::Config, format!("in the box: {}", words.trim())));
            }
        }
    }
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(|_| unreadable())).collect()
}
