//! A monitor without a guest, for tests: a script plays the guest's part at the same sockets and the same console.
//!
//! The script gets a [`Guest`] and ends with how the guest ended; a kill ends it before. Nothing here takes time.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use coffer_guest_proto::control_server::{Control, ControlServer};
use coffer_guest_proto::{
    Event, LogsRequest, LogsResponse, Phase, SignalRequest, SignalResponse, StateRequest, StateResponse, StatsRequest,
    StatsResponse, StopRequest, StopResponse, event, ports,
};
use coffer_rim::{Class, Failure};
use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Capabilities, Console, End, How, Launch, Monitor, Ready, Running, Starting};
use crate::boxes::files;
use crate::socket::{bind_socket, connect_socket};

type Script = Box<dyn Fn(Guest) -> BoxFuture<'static, End> + Send + Sync>;

/// A monitor that plays a script.
pub struct Fake {
    checks: Option<Failure>,
    starts: Option<Failure>,
    script: Script,
    /// What it was asked to start.
    pub launched: Mutex<Vec<Launch>>,
    /// Whether its guest goes on: true for a pause, false for its end.
    pub held: Arc<Mutex<Vec<bool>>>,
    holds: bool,
}

impl Fake {
    /// Plays this for each guest.
    pub fn playing<F: Future<Output = How> + Send + 'static>(
        script: impl Fn(Guest) -> F + Send + Sync + 'static,
    ) -> Self {
        Self::saying(move |guest| {
            let playing = script(guest);
            async move { End { how: playing.await, last_words: None } }
        })
    }

    /// As [`Fake::playing`], with last words.
    pub fn saying<F: Future<Output = End> + Send + 'static>(
        script: impl Fn(Guest) -> F + Send + Sync + 'static,
    ) -> Self {
        let script: Script = Box::new(move |guest| script(guest).boxed());
        Self { checks: None, starts: None, script, launched: Mutex::default(), held: Arc::default(), holds: true }
    }

    /// Cannot hold the guest.
    #[must_use]
    pub fn that_cannot_pause(self) -> Self {
        Self { holds: false, ..self }
    }

    /// Does not work on this machine.
    pub fn that_lacks(what: &str) -> Self {
        let lacking = Failure::new(Class::Platform, what).hint("install it");
        Self { checks: Some(lacking), ..Self::playing(|_| async { How::PoweredOff }) }
    }

    /// Works, and starts no guest.
    pub fn that_cannot_start(why: &str) -> Self {
        Self { starts: Some(Failure::new(Class::Platform, why)), ..Self::playing(|_| async { How::PoweredOff }) }
    }
}

/// Nothing outside is waited for.
pub fn ready() -> Ready<'static> {
    std::future::ready(Ok(())).boxed()
}

/// So that a test keeps the fake that it lends to a supervisor.
impl Monitor for Arc<Fake> {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn check_snp(&self) -> Result<(), Failure> {
        Err(Failure::new(Class::Platform, "nothing encrypts"))
    }

    fn check(&self) -> Result<Capabilities, Failure> {
        match &self.checks {
            Some(lacking) => Err(lacking.clone()),
            None => Ok(Capabilities { hardware: false, why: "nothing runs".into() }),
        }
    }

    fn start<'a>(&'a self, launch: &'a Launch, console: Console, ready: Ready<'a>) -> Starting<'a> {
        async move {
            self.launched.lock().unwrap().push(launch.clone());
            if let Some(why) = &self.starts {
                return Err(why.clone());
            }
            ready.await?;
            let guest = Guest { folder: launch.folder.clone(), console, events: None };
            let held = self.holds.then(|| Arc::clone(&self.held));
            Ok(Box::new(FakeRunning { guest: tokio::spawn((self.script)(guest)), killed: Notify::new(), held }) as _)
        }
        .boxed()
    }
}

struct FakeRunning {
    guest: JoinHandle<End>,
    killed: Notify,
    held: Option<Arc<Mutex<Vec<bool>>>>,
}

impl FakeRunning {
    fn hold(&self, pause: bool) -> Result<(), Failure> {
        let held = self.held.as_ref().ok_or_else(|| Failure::new(Class::Platform, "does not hold it"))?;
        held.lock().unwrap().push(pause);
        Ok(())
    }
}

impl Running for FakeRunning {
    fn pid(&self) -> Option<u32> {
        None
    }

    fn wait(&mut self) -> BoxFuture<'_, End> {
        async {
            tokio::select! {
                biased;
                () = self.killed.notified() => {
                    self.guest.abort();
                    End { how: How::Signal(9), last_words: None }
                }
                end = &mut self.guest => end.expect("the script of a test does not panic"),
            }
        }
        .boxed()
    }

    fn kill(&mut self) {
        self.killed.notify_one();
    }

    fn pause(&mut self) -> Result<(), Failure> {
        self.hold(true)
    }

    fn resume(&mut self) -> Result<(), Failure> {
        self.hold(false)
    }
}

impl Drop for FakeRunning {
    fn drop(&mut self) {
        self.guest.abort();
    }
}

/// A guest's part, as a script plays it.
pub struct Guest {
    folder: PathBuf,
    console: Console,
    events: Option<UnixStream>,
}

impl Guest {
    /// Says something on the serial line.
    pub fn console(&mut self, text: &str) {
        self.console.take(text.as_bytes());
    }

    /// Reaches a phase.
    pub async fn reaches(&mut self, phase: Phase) {
        self.tells(phase, 0, "").await;
    }

    /// Reaches every phase up to the running workload, with an agent that answers.
    pub async fn runs(&mut self, agent: &Agent) {
        agent.listen(&self.folder);
        for phase in [Phase::Booted, Phase::SpecChecked, Phase::RootReady, Phase::AgentReady, Phase::Running] {
            self.reaches(phase).await;
        }
    }

    /// The workload ends, and with it the guest.
    pub async fn exits(&mut self, status: i32) -> How {
        self.tells(Phase::Exited, status, "").await;
        How::PoweredOff
    }

    /// The guest gives up.
    pub async fn fails(&mut self, code: &str) -> How {
        self.tells(Phase::Failed, 0, code).await;
        How::PoweredOff
    }

    async fn tells(&mut self, phase: Phase, exit_status: i32, code: &str) {
        let event = Event { phase: phase.into(), since_boot_us: 7, exit_status, code: code.into(), ..Event::default() };
        if self.events.is_none() {
            let socket = format!("{}_{}", files::VSOCK, ports::HOST_EVENTS);
            self.events = Some(connect_socket(&self.folder, &socket).expect("the supervisor listens for events"));
        }
        let line = self.events.as_mut().expect("connected above");
        line.write_all(&event::encode(&event)).await.expect("the supervisor reads events");
    }
}

/// The agent inside: counts what it is asked.
#[derive(Clone, Default)]
pub struct Agent(Arc<AgentState>);

#[derive(Default)]
struct AgentState {
    stops: AtomicUsize,
    asked: Notify,
    read: Notify,
    signals: Mutex<Vec<i32>>,
    refuses: bool,
    output: Vec<&'static str>,
}

impl Agent {
    /// One whose spec does not let the host stop it.
    pub fn that_refuses() -> Self {
        Self(Arc::new(AgentState { refuses: true, ..AgentState::default() }))
    }

    /// One whose workload writes this.
    pub fn with_output(output: &[&'static str]) -> Self {
        Self(Arc::new(AgentState { output: output.to_vec(), ..AgentState::default() }))
    }

    /// How often it was asked to stop.
    pub fn stops(&self) -> usize {
        self.0.stops.load(Ordering::SeqCst)
    }

    /// Which signals its workload was sent.
    pub fn signals(&self) -> Vec<i32> {
        self.0.signals.lock().unwrap().clone()
    }

    /// Waits until it is asked to stop.
    pub async fn asked_to_stop(&self) {
        self.0.asked.notified().await;
    }

    /// Waits until somebody reads what the workload wrote.
    pub async fn read_out(&self) {
        self.0.read.notified().await;
    }

    /// Answers at the guest's vsock, in the form every monitor owes.
    fn listen(&self, folder: &std::path::Path) {
        let listener = bind_socket(folder, files::VSOCK).expect("the box folder takes sockets");
        let (streams, incoming) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut line = Vec::new();
                while line.last() != Some(&b'\n') {
                    line.push(stream.read_u8().await.expect("a line"));
                }
                assert_eq!(line, format!("CONNECT {}\n", ports::CONTROL).as_bytes());
                stream.write_all(b"OK 1\n").await.expect("the caller waits");
                if streams.send(Ok::<_, std::io::Error>(stream)).await.is_err() {
                    return;
                }
            }
        });
        let service = ControlServer::new(self.clone());
        let incoming = ReceiverStream::new(incoming);
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    }
}

#[tonic::async_trait]
impl Control for Agent {
    async fn state(&self, _: Request<StateRequest>) -> Result<Response<StateResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn stats(&self, _: Request<StatsRequest>) -> Result<Response<StatsResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn stop(&self, _: Request<StopRequest>) -> Result<Response<StopResponse>, Status> {
        if self.0.refuses {
            return Err(Status::permission_denied("host-may-not:stop"));
        }
        self.0.stops.fetch_add(1, Ordering::SeqCst);
        self.0.asked.notify_one();
        Ok(Response::new(StopResponse {}))
    }

    async fn signal(&self, request: Request<SignalRequest>) -> Result<Response<SignalResponse>, Status> {
        self.0.signals.lock().unwrap().push(request.get_ref().number);
        Ok(Response::new(SignalResponse {}))
    }

    type LogsStream = ReceiverStream<Result<LogsResponse, Status>>;

    async fn logs(&self, _: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let (pieces, stream) = mpsc::channel(self.0.output.len().max(1));
        for (sequence, text) in (1..).zip(&self.0.output) {
            let piece = LogsResponse { stream: 1, data: text.as_bytes().to_vec(), unix_nanos: 1, sequence, lost: 0 };
            pieces.try_send(Ok(piece)).expect("room for all");
        }
        self.0.read.notify_one();
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
