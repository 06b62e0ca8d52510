//! `Exec`: one program beside the workload, or the workload's own, its streams over gRPC, its exit status last.

use std::{pin::Pin, sync::Arc};

use coffer_guest_proto::{
    ExecRequest, ExecResponse, Phase, STDIN_ROOM, exec_request::Message as Ask, exec_response::Message as Tell,
    exec_server::Exec,
};
use coffer_spec::{Act, Rights};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Agent,
    answers::Answers,
    attach,
    authority::Door,
    request::{self, Sendable, Start},
    room::{Room, Rooms},
    running::{Asks, Running},
    shares::caller,
};
use crate::{
    container::{Cause, Orders, Place, Program},
    lines::{Lines, Wanted, start_with_lines},
    secret_env::SecretEnv,
    spawn::{StartError, Started},
    workload::{at_terminal, program, resolve_user},
};

pub(super) struct ExecService {
    pub(super) agent: Arc<Agent>,
    pub(super) door: Door,
}

#[tonic::async_trait]
impl Exec for ExecService {
    type RunStream = Answering;

    async fn run(&self, request: Request<Streaming<ExecRequest>>) -> Result<Response<Self::RunStream>, Status> {
        let (extensions, spec) = (request.extensions().clone(), self.agent.document.spec());
        let may = |act| self.door.admit(&extensions, &self.agent, act);
        let mut asks = request.into_inner();
        let first = asks.message().await?.and_then(|first| first.message);
        let order = match first {
            Some(Ask::Start(order)) => order,
            Some(Ask::Attach(order)) => {
                may(Act::Attach)?;
                let mut order = request::attach(order)?;
                let begun = self.agent.events.watch().borrow().phase >= Phase::Running;
                match attach::may_be_shown(order.shown, may(Act::Logs).is_ok(), begun) {
                    Some(shown) => order.shown = shown,
                    // What was written before whoever asks came is a right of its own.
                    None => drop(may(Act::Logs)?),
                }
                let place = self.agent.at_it.take(caller(&extensions));
                let place = place.ok_or_else(|| Status::resource_exhausted("too-many-attached"))?;
                let stop_signal = spec.process.stop_signal;
                let (stop, exec) = (may(Act::Stop).is_ok(), may(Act::Exec).is_ok());
                let signals = Sendable::Some { stop_signal, stop, exec };
                let taken = self.agent.wide.take(Rooms::AT_IT);
                let room = taken.room;
                let (sender, receiver) = mpsc::channel(room.waiting);
                let asks = Asks { coming: asks, signals, room };
                tokio::spawn(attach::attend(self.agent.clone(), order, (place, taken), asks, Answers(sender)));
                return Ok(answer(receiver, room));
            }
            _ => return Err(Status::invalid_argument("expected-start")),
        };
        may(request::act(&order))?;
        let workload = self.agent.workload().ok_or_else(|| Status::failed_precondition("workload-not-running"))?;
        let too_many = || Status::resource_exhausted("too-many-programs");
        let beside = self.agent.beside.clone().try_acquire_owned().map_err(|_| too_many())?;
        let order = request::exec_start(order, self.agent.document.spec())?;
        let detached = order.detached;
        let attended = || self.agent.attended.take(caller(&extensions)).ok_or_else(too_many);
        let places = (beside, if detached { None } else { Some(attended()?) });
        let taken = self.agent.wide.take(Rooms::BESIDE);
        let room = taken.room;
        let (sender, receiver) = mpsc::channel(room.waiting);
        let sender = Answers(sender);
        if detached || order.terminal.is_some() {
            let _ = sender.tell(Tell::Heard(true)).await;
        }
        let program = match self.program(order) {
            Ok(program) => program,
            Err(words) => {
                refuse(&sender, &words, Cause::NotExecutable.status()).await;
                return Ok(answer(receiver, room));
            }
        };
        let control_group = self.agent.places.control_group.clone();
        let users = self.agent.places.users;
        let orders = Orders { place: Place::Beside { workload }, program, control_group, users };
        match self.start(&orders, detached).await {
            Ok((started, lines)) => {
                let asks = (!detached).then_some(Asks { coming: asks, signals: Sendable::All, room });
                tokio::spawn(Running { started, lines, places, taken }.attend(asks, sender));
            }
            Err(error) => refuse(&sender, &error.to_string(), error.cause.status()).await,
        }
        Ok(answer(receiver, room))
    }
}

/// What comes, and in front of it how much input is taken before the first of it is read.
fn answer(receiver: mpsc::Receiver<Result<ExecResponse, Status>>, room: Room) -> Response<Answering> {
    let mut answer = Response::new(Box::pin(ReceiverStream::new(receiver)) as Answering);
    answer.metadata_mut().insert(STDIN_ROOM, room.input.into());
    answer
}

type Answering = Pin<Box<dyn Stream<Item = Result<ExecResponse, Status>> + Send>>;

impl ExecService {
    pub(super) fn program(&self, order: Start) -> Result<Program, String> {
        let spec = self.agent.document.spec();
        let user = order.user.as_ref().unwrap_or(&spec.process.user);
        // What is the agent's own needs none of the image's groups: whoever edits them keeps it from nobody.
        let groups = if order.own.is_some() { &[][..] } else { &spec.process.rights.groups };
        let identity = resolve_user(&self.agent.places.root, user, groups).map_err(|error| error.to_string())?;
        let mut program = program(spec, identity);
        program.argv = order.argv;
        program.env.extend(order.env);
        if order.own.is_some() {
            // It is no program of the image's: what it can do here is what its caller may.
            program.rights = Rights::default();
        }
        program.own = order.own;
        if let Some(size) = order.terminal {
            at_terminal(&mut program, size);
        }
        program.cwd = order.cwd.unwrap_or(program.cwd);
        Ok(program)
    }

    async fn start(&self, orders: &Orders, detached: bool) -> Result<(Started, Lines), StartError> {
        // A program runs beside the workload, which starts after its secrets are in place.
        let none = SecretEnv::default();
        let wanted = if detached { Wanted::None } else { Wanted::All };
        let starting = {
            let secrets = self.agent.secret_env.read().await;
            let secrets = if orders.program.own.is_some() { &none } else { &*secrets };
            start_with_lines(&self.agent.places.binary, &self.agent.reaper, orders, secrets, wanted)
        };
        starting.await
    }
}

/// Says on stderr why nothing runs, and Docker's status for it.
async fn refuse(answers: &Answers, words: &str, status: i32) {
    let _ = answers.tell(Tell::Stderr(format!("coffer: {words}\n").into_bytes())).await;
    let _ = answers.tell(Tell::ExitStatus(status)).await;
}
