//! `coffer exec`.

use std::io::Write as _;
use std::process::ExitCode;

use coffer_guest_proto::exec_client::ExecClient;
use coffer_guest_proto::exec_request::Message as Ask;
use coffer_guest_proto::exec_response::Message as Tell;
use coffer_guest_proto::{ExecRequest, ExecStart};
use coffer_runtime::supervisor::of_state;
use coffer_runtime::{BoxState, agent, owner_access};
use coffer_spec::Act;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::cli::Context;
use crate::error::{Class, CliError};
use crate::guest::{self, Trust};

/// Run a program in a running box.
#[derive(Debug, clap::Args)]
#[command(
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
    /// Name or id.
    #[arg(value_name = "BOX")]
    name: String,
    /// Program and arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs it; the exit code is the program's.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let (home, state) = context.open_state()?;
    let record = state.find(&args.name).map_err(of_state)?;
    if record.state != BoxState::Running {
        return Err(CliError::new(Class::Config, format!("box {} is not running", record.name))
            .hint(format!("start it with `coffer start {}`", record.name)));
    }
    let document = guest::document(&home, &record)?;
    let as_host = document.spec().host_may.contains(Act::Exec);
    if !as_host {
        guest::owner_listed(&home, &document, &record.name, Act::Exec)?;
    }
    let runtime = context.runtime()?;
    let code = runtime.block_on(async {
        if as_host {
            return stream(args, agent::exec(&home.box_folder(&record.id)).await?).await;
        }
        // The connection must outlive the call: attestation is its state.
        let connection = guest::connect(context, &home, &record, &args.trust).await?;
        let call = connection.kept(stream(args, ExecClient::new(connection.channel())));
        call.await.map_err(|lapsed| owner_access::lapsed(&lapsed))?
    })?;
    // A read of our terminal may still be pending; nobody waits for it.
    runtime.shutdown_background();
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(125)))
}

async fn stream(args: &Args, mut client: ExecClient<Channel>) -> Result<i32, CliError> {
    let (asks, receiver) = mpsc::channel(16);
    let start = ExecStart {
        argv: args.command.clone(),
        env: args.env.clone(),
        cwd: args.workdir.clone(),
        user: args.user.clone(),
    };
    let ask = |message| ExecRequest { message: Some(message) };
    let _ = asks.send(ask(Ask::Start(start))).await;
    forward_input(asks.clone(), args.interactive);
    forward_signals(&asks)?;
    let answer = client.run(ReceiverStream::new(receiver)).await.map_err(|status| agent::of_status(&status))?;
    let mut answers = answer.into_inner();
    while let Some(answer) = answers.message().await.map_err(|status| agent::of_status(&status))? {
        match answer.message {
            Some(Tell::Stdout(bytes)) => {
                let mut stdout = std::io::stdout().lock();
                let _ = stdout.write_all(&bytes).and_then(|()| stdout.flush());
            }
            Some(Tell::Stderr(bytes)) => drop(std::io::stderr().write_all(&bytes)),
            Some(Tell::ExitStatus(code)) => return Ok(code),
            None => {}
        }
    }
    Err(CliError::new(Class::Unreachable, "the guest ended before the program did"))
}

/// Our standard input, to its end; without `-i` it ends at once.
fn forward_input(asks: mpsc::Sender<ExecRequest>, interactive: bool) {
    tokio::spawn(async move {
        let ask = |message| ExecRequest { message: Some(message) };
        if interactive {
            let mut stdin = tokio::io::stdin();
            let mut bytes = vec![0; 16 * 1024];
            while let Ok(count @ 1..) = stdin.read(&mut bytes).await {
                if asks.send(ask(Ask::Stdin(bytes[..count].to_vec()))).await.is_err() {
                    return;
                }
            }
        }
        let _ = asks.send(ask(Ask::StdinClosed(true))).await;
    });
}

fn forward_signals(asks: &mpsc::Sender<ExecRequest>) -> Result<(), CliError> {
    for (kind, number) in [(SignalKind::interrupt(), 2), (SignalKind::terminate(), 15)] {
        let mut signals = signal(kind)?;
        let asks = asks.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                let _ = asks.send(ExecRequest { message: Some(Ask::Signal(number)) }).await;
            }
        });
    }
    Ok(())
}
