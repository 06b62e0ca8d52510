//! Exec over the wire, with a process of ours in the workload's place.

use std::{
    fs::File,
    io::Write as _,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use coffer_guest_proto::{
    Attach, ExecRequest, ExecResponse, ExecStart, ListPrograms, LogsRequest, Phase, STDIN_ROOM, Shown, Stream,
    control_server::Control as _,
    exec_client::ExecClient,
    exec_request::Message as Ask,
    exec_response::Message as Tell,
    exec_server::{Exec, ExecServer},
    exec_start::Own,
};
use coffer_spec::{Document, HostMay, Tee, WorkloadSpec};
use hyper_util::rt::TokioIo;
use tokio::{
    io::duplex,
    net::unix::pipe,
    sync::{mpsc, oneshot},
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{
    Code, Request, Response, Status, Streaming,
    service::Routes,
    transport::{Channel, Endpoint, Uri},
};

use super::{
    Agent, MOST_AT_IT, MOST_READERS, Wide,
    answers::Answers,
    authority::Door,
    control::ControlService,
    exec::ExecService,
    request::{self, Sendable},
    room::Rooms,
    running::{Asks, Running},
    serve,
};
use crate::{
    container::Users,
    events::Events,
    host::Host,
    lines::{Input, Lines, Output, Ways, output_pipe},
    spawn::Started,
    sys::process_id::ProcessId,
    workload::Places,
};

/// Whatever a test waits for comes, or never does.
const PATIENCE: Duration = Duration::from_mins(1);

/// A workload that runs, as the agent has it, whose host may this.
pub(super) struct World {
    pub(super) agent: Arc<Agent>,
    pub(super) client: ExecClient<Channel>,
    program: Child,
    /// What the program reads, if anybody does.
    input: pipe::Receiver,
}

pub(super) async fn world(host_may: &str) -> World {
    world_of(WorkloadSpec { host_may: HostMay::parse(host_may).unwrap(), ..crate::boot::tests::spec(Tee::None) }).await
}

async fn world_of(spec: WorkloadSpec) -> World {
    let places = Places {
        binary: "/nowhere".into(),
        root: "/nowhere".into(),
        secrets: "/nowhere".into(),
        sockets: "/nowhere".into(),
        volumes: Vec::new(),
        control_group: None,
        users: Users::Own,
        host: Host::Sockets,
    };
    let agent = Arc::new(Agent::new(Document::write(&spec).unwrap(), Arc::new(Events::silent()), places));
    let program = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
    let [number, parent] = [program.id(), std::process::id()].map(|id| i32::try_from(id).unwrap());
    let (theirs, ours) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let input = Input::Pipe(pipe::Sender::from_owned_fd(ours).unwrap());
    let process = ProcessId::of_child(number, parent);
    agent.set_workload(Some(Ways { process, input: Arc::new(input.into()), terminal: None }));
    agent.events.reached(Phase::Running);

    let client = ExecClient::new(channel(Routes::new(serve::exec(&agent, Door::Host))).await);
    World { agent, client, program, input: pipe::Receiver::from_owned_fd(theirs).unwrap() }
}

/// A connection to services, as a host's.
pub(super) async fn channel(routes: Routes) -> Channel {
    let (near, far) = duplex(64 * 1024);
    let incoming = tokio_stream::once(Ok::<_, std::io::Error>(far));
    tokio::spawn(serve::take(incoming, 1, routes));
    let mut line = Some(TokioIo::new(near));
    let connector = tower::service_fn(move |_: Uri| {
        core::future::ready(line.take().ok_or(std::io::Error::from(std::io::ErrorKind::NotConnected)))
    });
    Endpoint::from_static("http://guest.invalid").connect_with_connector(connector).await.unwrap()
}

/// Somebody at the workload's program.
pub(super) struct AtIt {
    asks: mpsc::Sender<ExecRequest>,
    answers: Streaming<ExecResponse>,
    room: usize,
}

impl World {
    pub(super) async fn attach(&self, shown: Shown) -> Result<AtIt, Status> {
        let (asks, receiver) = mpsc::channel(16);
        let attach = Attach { shown: shown.into(), terminal: None };
        asks.send(ExecRequest { message: Some(Ask::Attach(attach)) }).await.unwrap();
        let answer = self.client.clone().run(ReceiverStream::new(receiver)).await?;
        let room = answer.metadata().get(STDIN_ROOM).unwrap().to_str().unwrap().parse().unwrap();
        let mut at_it = AtIt { asks, answers: answer.into_inner(), room };
        assert_eq!(at_it.told().await, Tell::Heard(true));
        Ok(at_it)
    }

    async fn writes(&self, text: &str) {
        self.agent.logs.push(Stream::Stdout, 1, text.as_bytes()).await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

impl AtIt {
    async fn asks(&self, ask: Ask) {
        let sending = self.asks.send(ExecRequest { message: Some(ask) });
        tokio::time::timeout(PATIENCE, sending).await.expect("it is read").unwrap();
    }

    async fn told(&mut self) -> Tell {
        let next = tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("an answer");
        next.unwrap().expect("no end").message.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_before_is_shown_to_nobody_who_may_not_read_logs() {
    let world = world("attach").await;
    world.writes("secret of before").await;
    let refused = world.attach(Shown::FromBeginning).await.err().unwrap();
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "host-may-not:logs"));
    let mut looks = world.attach(Shown::FromNow).await.unwrap();
    world.writes("since").await;
    assert_eq!(looks.told().await, Tell::Stdout(b"since".to_vec()));

    let world = self::world("attach,logs").await;
    world.writes("before").await;
    let mut reads = world.attach(Shown::FromBeginning).await.unwrap();
    assert_eq!(reads.told().await, Tell::Stdout(b"before".to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_that_nobody_reads_holds_up_neither_signals_nor_who_goes() {
    let mut world = world("exec,stop").await;
    let mut leaves = world.attach(Shown::Not).await.unwrap();
    let signals = world.attach(Shown::Not).await.unwrap();
    for at_it in [&leaves, &signals] {
        for _ in 0..at_it.room / 1024 {
            at_it.asks(Ask::Stdin(vec![b'x'; 1024])).await;
        }
    }
    leaves.asks(Ask::Detach(true)).await;
    let mut told = leaves.told().await;
    while matches!(told, Tell::StdinRoom(_)) {
        told = leaves.told().await; // what the pipe took
    }
    assert_eq!(told, Tell::Detached(true));
    signals.asks(Ask::Signal(libc::SIGKILL)).await;
    let ended = tokio::task::spawn_blocking({
        let mut program = std::mem::replace(&mut world.program, Command::new("true").spawn().unwrap());
        move || program.wait().unwrap()
    });
    let ended = tokio::time::timeout(PATIENCE, ended).await.expect("it was sent").unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(libc::SIGKILL));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_is_told_of_room_as_the_program_reads() {
    use tokio::io::AsyncReadExt as _;
    let mut world = world("exec").await;
    let mut types = world.attach(Shown::Not).await.unwrap();
    let room = types.room;
    assert_eq!(room, 128 << 10, "much, for the first");
    for _ in 0..room / (16 << 10) {
        types.asks(Ask::Stdin(vec![b'x'; 16 << 10])).await;
    }
    types.asks(Ask::StdinClosed(true)).await;
    let mut read = Vec::new();
    world.input.read_to_end(&mut read).await.unwrap();
    assert_eq!(read.len(), room, "all of it, and then its end");
    let mut told = 0;
    while told < room {
        let Tell::StdinRoom(more) = types.told().await else { panic!("no room") };
        told += usize::try_from(more).unwrap();
    }
    assert_eq!(told, room);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_attach_sends_no_signal_that_takes_another_right() {
    for (may, number, sent) in [
        ("attach", libc::SIGUSR1, false),
        ("attach", libc::SIGKILL, false),
        ("attach,stop", libc::SIGUSR1, false),
        ("attach,stop", libc::SIGKILL, true),
        ("exec", libc::SIGUSR1, true),
    ] {
        let mut world = world(may).await;
        let mut at_it = world.attach(Shown::Not).await.unwrap();
        at_it.asks(Ask::Signal(number)).await;
        if sent {
            let mut program = std::mem::replace(&mut world.program, Command::new("true").spawn().unwrap());
            let ended = tokio::task::spawn_blocking(move || program.wait().unwrap());
            let ended = tokio::time::timeout(PATIENCE, ended).await.expect("it was sent").unwrap();
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(number), "{may}");
        } else {
            assert_eq!(at_it.told().await, Tell::RefusedSignal(number), "{may}");
            assert!(world.program.try_wait().unwrap().is_none(), "{may}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_at_the_program_takes_no_place_of_programs_and_there_are_not_too_many() {
    let mut world = world("exec").await;
    let places = world.agent.beside.available_permits();
    let mut all = Vec::new();
    for _ in 0..MOST_AT_IT {
        // A connection has few streams, and there may be many connections.
        world.client = ExecClient::new(channel(Routes::new(serve::exec(&world.agent, Door::Host))).await);
        all.push(world.attach(Shown::Not).await.unwrap());
    }
    world.client = ExecClient::new(channel(Routes::new(serve::exec(&world.agent, Door::Host))).await);
    let refused = world.attach(Shown::Not).await.err().unwrap();
    assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, "too-many-attached"));
    assert_eq!(world.agent.beside.available_permits(), places);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_reads_the_log_as_it_is_gets_that_and_there_are_not_too_many() {
    let world = world("logs").await;
    let mut wanted = String::new();
    for number in 0..100 {
        let line = format!("{number}\n");
        world.writes(&line).await;
        wanted.push_str(&line);
    }
    let service = ControlService { agent: world.agent.clone(), door: Door::Host };
    let ask = |follow| service.logs(Request::new(LogsRequest { follow, from_sequence: 0 }));
    let mut all = Vec::new();
    for number in 0..MOST_READERS {
        all.push(ask(number != 0).await.unwrap().into_inner());
    }
    let refused = ask(false).await.err().unwrap();
    assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, "too-many-readers"));
    assert!(coffer_guest_proto::refusal_word(refused.message()).is_some());

    world.writes("later").await;
    let (mut reads, mut text) = (all.swap_remove(0), String::new());
    while let Some(piece) = tokio::time::timeout(PATIENCE, reads.next()).await.expect("an end") {
        text.push_str(std::str::from_utf8(&piece.unwrap().data).unwrap());
    }
    assert_eq!(text, wanted);
    let free = async {
        while world.agent.readers.taken() == MOST_READERS {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.expect("its place is free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_without_its_groups_keeps_nobody_from_what_is_the_agents_own() {
    let mut spec = crate::boot::tests::spec(Tee::None);
    spec.process.rights.groups = vec!["mail".into()];
    let world = world_of(spec.clone()).await;
    let service = ExecService { agent: world.agent.clone(), door: Door::Host };
    let program = |order| service.program(request::exec_start(order, &spec).unwrap());
    let argv = vec!["/bin/true".into()];
    assert!(program(ExecStart { argv, ..ExecStart::default() }).is_err(), "there is no such group");
    let own = Some(Own::ListPrograms(ListPrograms {}));
    let listing = program(ExecStart { own, ..ExecStart::default() }).unwrap();
    assert!(listing.identity.groups.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_looks_too_slowly_is_told_what_is_not_shown() {
    let world = world("attach").await;
    let mut looks = world.attach(Shown::FromNow).await.unwrap();
    // More than lies between here and there: the log's own room, and every buffer on the way.
    let piece = "x".repeat(16 * 1024);
    let count = 400;
    for _ in 0..count {
        world.writes(&piece).await;
    }
    world.agent.logs.end();
    world.agent.events.exited(0);
    let (mut shown, mut lost) = (0, 0);
    loop {
        match looks.told().await {
            Tell::Stdout(bytes) => shown += bytes.len(),
            Tell::Lost(bytes) => lost += usize::try_from(bytes).unwrap(),
            Tell::ExitStatus(status) => break assert_eq!(status, 0),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(shown + lost, count * piece.len());
    assert!(lost > 0);
}

/// Hands on what a caller sends, for a test to answer.
struct Caller(mpsc::Sender<Streaming<ExecRequest>>);

#[tonic::async_trait]
impl Exec for Caller {
    type RunStream = tokio_stream::Pending<Result<ExecResponse, Status>>;

    async fn run(&self, request: Request<Streaming<ExecRequest>>) -> Result<Response<Self::RunStream>, Status> {
        self.0.send(request.into_inner()).await.map_err(|_| Status::aborted("over"))?;
        Ok(Response::new(tokio_stream::pending()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_reads_slowly_gets_all_that_a_program_wrote_and_then_its_status() {
    let (hand, mut handed) = mpsc::channel(1);
    let (_asks, receiver) = mpsc::channel(1);
    let _called = ExecClient::new(channel(Routes::new(ExecServer::new(Caller(hand)))).await)
        .run(ReceiverStream::new(receiver))
        .await
        .unwrap();
    let asks = Asks {
        coming: handed.recv().await.unwrap(),
        signals: Sendable::All,
        room: Wide::default().take(Rooms::BESIDE).room,
    };

    let (ours, theirs) = output_pipe().unwrap();
    let written = vec![b'x'; 64 << 10];
    File::from(theirs).write_all(&written).unwrap();
    let (end, status) = oneshot::channel();
    end.send(7).unwrap();
    let world = world("exec").await;
    let running = Running {
        started: Started { process: world.agent.workload().unwrap(), status },
        lines: Lines { outputs: vec![(Stream::Stdout, Output::Pipe(ours))], ..Lines::default() },
        places: (world.agent.beside.clone().try_acquire_owned().unwrap(), None),
        taken: world.agent.wide.take(Rooms::BESIDE),
    };
    let (sender, mut told) = mpsc::channel(1);
    tokio::spawn(running.attend(Some(asks), Answers(sender)));
    // Longer than a program's output is listened for behind its end.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut shown = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, told.recv()).await.expect("an answer").unwrap().unwrap().message {
            Some(Tell::Stdout(bytes)) => shown.extend(bytes),
            Some(Tell::ExitStatus(status)) => break assert_eq!(status, 7),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(shown.len(), written.len());
}
