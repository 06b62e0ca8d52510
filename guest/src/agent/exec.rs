//! `Exec`: one program beside the workload, its streams over gRPC, its exit status last.

use std::{pin::Pin, process::Stdio, sync::Arc, time::Duration};

use coffer_guest_proto::{
    ExecRequest, ExecResponse, exec_request::Message as Ask, exec_response::Message as Tell, exec_server::Exec,
};
use coffer_spec::Act;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    sync::mpsc,
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Agent,
    authority::Door,
    request::{self, Start},
};
use crate::{
    container::{Cause, Orders, Place, Program},
    spawn::{StartError, Started, start},
    sys::process::signal,
    workload::{output_pipe, program, resolve_user},
};

/// How long output may still come after the program has ended; something may hold the pipe open.
const AFTERMATH: Duration = Duration::from_secs(1);

pub(super) struct ExecService {
    pub(super) agent: Arc<Agent>,
    pub(super) door: Door,
}

type Answers = mpsc::Sender<Result<ExecResponse, Status>>;

#[tonic::async_trait]
impl Exec for ExecService {
    type RunStream = Pin<Box<dyn Stream<Item = Result<ExecResponse, Status>> + Send>>;

    async fn run(&self, request: Request<Streaming<ExecRequest>>) -> Result<Response<Self::RunStream>, Status> {
        self.door.admit(request.extensions(), self.agent.document.spec(), Act::Exec)?;
        let mut asks = request.into_inner();
        let Some(ExecRequest { message: Some(Ask::Start(order)) }) = asks.message().await? else {
            return Err(Status::invalid_argument("expected-start"));
        };
        let pid = self.agent.workload().ok_or_else(|| Status::failed_precondition("workload-not-running"))?;
        let (sender, receiver) = mpsc::channel(16);
        let program = match self.program(request::exec_start(order, self.agent.document.spec())?) {
            Ok(program) => program,
            Err(words) => {
                refuse(&sender, &words, Cause::NotExecutable.status()).await;
                return Ok(Response::new(Box::pin(ReceiverStream::new(receiver))));
            }
        };
        let control_group = self.agent.places.control_group.clone();
        let users = self.agent.places.users;
        let orders = Orders { place: Place::Beside { pid }, program, control_group, users };
        match self.start(&orders).await {
            Ok(running) => {
                tokio::spawn(run(running, asks, sender));
            }
            Err(error) => refuse(&sender, &error.to_string(), error.cause.status()).await,
        }
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

struct Running {
    started: Started,
    stdin: pipe::Sender,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
}

impl ExecService {
    fn program(&self, order: Start) -> Result<Program, String> {
        let spec = self.agent.document.spec();
        let user = order.user.as_ref().unwrap_or(&spec.process.user);
        let identity = resolve_user(&self.agent.places.root, user).map_err(|error| error.to_string())?;
        let mut program = program(spec, identity);
        program.argv = order.argv;
        program.env.extend(order.env);
        program.cwd = order.cwd.unwrap_or(program.cwd);
        Ok(program)
    }

    async fn start(&self, orders: &Orders) -> Result<Running, StartError> {
        let failed = |error: &std::io::Error| StartError::ours("make a pipe", error);
        let (their_stdin, stdin) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(&error.into()))?;
        let stdin = pipe::Sender::from_owned_fd(stdin).map_err(|error| failed(&error))?;
        let (stdout, their_stdout) = output_pipe()?;
        let (stderr, their_stderr) = output_pipe()?;
        let stdio: [Stdio; 3] = [their_stdin.into(), their_stdout.into(), their_stderr.into()];
        // A program runs beside the workload, which starts after its secrets are in place.
        let secrets = self.agent.secret_env.read().await;
        let started = start(&self.agent.places.binary, &self.agent.reaper, orders, &secrets, stdio).await?;
        Ok(Running { started, stdin, stdout, stderr })
    }
}

/// Says on stderr why nothing runs, and Docker's status for it.
async fn refuse(answers: &Answers, words: &str, status: i32) {
    let _ = answers.send(Ok(tell(Tell::Stderr(format!("coffer: {words}\n").into_bytes())))).await;
    let _ = answers.send(Ok(tell(Tell::ExitStatus(status)))).await;
}

fn tell(message: Tell) -> ExecResponse {
    ExecResponse { message: Some(message) }
}

async fn run(running: Running, asks: Streaming<ExecRequest>, answers: Answers) {
    let Running { started: Started { pid, mut status }, stdin, stdout, stderr } = running;
    let asking = tokio::spawn(take_input(asks, stdin, pid));
    let mut outputs = tokio::task::JoinSet::new();
    outputs.spawn(forward(stdout, answers.clone(), Tell::Stdout));
    outputs.spawn(forward(stderr, answers.clone(), Tell::Stderr));
    let status = tokio::select! {
        status = &mut status => status,
        () = answers.closed() => {
            // Nobody is there to see it end.
            let _ = signal(pid, libc::SIGKILL);
            status.await
        }
    };
    let all = async { while outputs.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(AFTERMATH, all).await;
    outputs.shutdown().await;
    asking.abort();
    let status = status.unwrap_or(crate::container::STATUS_OURS);
    let _ = answers.send(Ok(tell(Tell::ExitStatus(status)))).await;
}

async fn forward(mut output: pipe::Receiver, answers: Answers, wrap: fn(Vec<u8>) -> Tell) {
    // vsock on 6.12 stalls on packets above 32 KiB with some devices; these are below.
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        if answers.send(Ok(tell(wrap(buffer[..count].to_vec())))).await.is_err() {
            return;
        }
    }
}

/// Hands on what the caller sends: input and signals.
async fn take_input(mut asks: Streaming<ExecRequest>, stdin: pipe::Sender, pid: i32) {
    let mut stdin = Some(stdin);
    while let Ok(Some(ask)) = asks.message().await {
        match ask.message {
            Some(Ask::Stdin(bytes)) => {
                if let Some(pipe) = &mut stdin
                    && pipe.write_all(&bytes).await.is_err()
                {
                    stdin = None; // the program closed its end
                }
            }
            Some(Ask::StdinClosed(true)) => stdin = None,
            Some(Ask::Signal(number)) => {
                let _ = request::exec_signal(number).map(|number| signal(pid, number));
            }
            // A second start, an end that is none, or nothing: no version of the protocol sends it.
            Some(Ask::Start(_) | Ask::StdinClosed(false)) | None => return,
        }
    }
}
