//! One run of a box, from its lock to its end.

mod end;
mod last;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use coffer_guest_proto::{Event, Phase, ports};
use coffer_rim::{Class, Classify as _, Failure};
use coffer_spec::{Act, Document, Tee};
use futures_util::FutureExt as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::again::{self, Again, Waited};
use super::control::{self, Asked, Command};
use super::fate::{self, Fate};
use super::health::{self, Looking};
use super::lifeline;
use super::lines::{self, RelayFailure};
use super::logs;
use super::message::{Message, Reporter};
use super::networks;
use crate::agent;
use crate::boxes::{BOOT_FILES, Timings, clean_run_files, files, unix_ms, unix_us};
use crate::health::HealthStatus;
use crate::home::Home;
use crate::id::BoxId;
use crate::launch::{self, Prepared};
use crate::lock::BoxLock;
use crate::monitor::{BLOCK_CORRUPT, Console, End, Isolation, Monitor, Running, lent, network, vsock};
use crate::publish::{self, Publish};
use crate::published::{self, Held};
use crate::restart_policy::{RestartPolicy, wait_after};
use crate::simulator::Answerer;
use crate::socket::bind_socket;
use crate::spec_file::own_spec;
use crate::state::{BoxRecord, State};
use crate::tools::Search;
use crate::volumes::{Kind, Volumes};

/// Grace when the attached command died: nobody waits any more.
const ORPHAN_GRACE: u32 = 3;

/// How long what may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A guest, until its workload runs.
    pub start: Duration,
    /// A guest, to power off after it said that it is done.
    pub power_off: Duration,
    /// An agent, to answer that it will stop.
    pub answer: Duration,
    /// A stop, beyond its grace.
    pub margin: Duration,
    /// A guest, to close sealed volumes behind its workload; within what whoever asks for a stop waits.
    pub closing: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            start: Duration::from_mins(2),
            power_off: Duration::from_secs(10),
            answer: Duration::from_secs(5),
            margin: Duration::from_secs(5),
            closing: Duration::from_secs(20),
        }
    }
}

/// What to run, and with whom to talk.
pub struct Order<'a> {
    /// Where.
    pub home: &'a Home,
    /// Which box.
    pub id: &'a BoxId,
    /// Monitors by their word.
    pub monitors: &'a dyn Fn(Isolation) -> Result<Box<dyn Monitor>, Failure>,
    /// Where the program of a network is.
    pub search: &'a Search,
    /// When the start was asked for, Unix microseconds.
    pub origin_unix_us: i64,
    /// The run before, if this one follows from it.
    pub after: Option<Again>,
    /// To the command that waits.
    pub reporter: Reporter,
    /// SIGTERM and SIGINT stop the box.
    pub signals: bool,
    /// With a guest that is slow.
    pub patience: Patience,
}

impl Order<'_> {
    /// Runs the box to its end. `line` ends when the command lets go of the box or is gone.
    ///
    /// # Errors
    /// What kept the box from starting, or its end from being recorded. The command that waits is told how the box ended.
    pub async fn run(
        mut self,
        line: impl Future<Output = lifeline::End> + Send + 'static,
    ) -> Result<Option<Again>, Failure> {
        match self.try_run(line).await {
            Ok(recorded) => recorded,
            Err(failure) => {
                self.reporter.send_soon(Message::Failed(failure.clone())).await;
                Err(failure)
            }
        }
    }

    /// The outer failure: there was no run. The inner: what became of it is not recorded.
    async fn try_run(
        &mut self,
        line: impl Future<Output = lifeline::End> + Send + 'static,
    ) -> Result<Result<Option<Again>, Failure>, Failure> {
        let folder = self.home.box_folder(self.id);
        let (lock, waited) = match self.after.take() {
            Some(Again { lock, wait }) => (lock, Some(wait)),
            None => (BoxLock::take(&folder).class_while(Class::Config, "box is supervised already")?, None),
        };
        let state = State::open(self.home)?;
        if let Some(wait) = waited {
            let waited = again::wait(&folder, wait, self.signals).await?;
            if waited == (Waited::Ended { by_hand: true }) {
                state.by_hand(self.id, true)?;
            }
            let record = state.box_of(self.id)?;
            if waited != Waited::Whole || record.stopped_by_hand || record.options.restart == RestartPolicy::No {
                return Ok(Ok(state.given_up(self.id).map(|()| None)?));
            }
            self.origin_unix_us = unix_us();
        }
        let record = state.box_of(self.id)?;
        clean_run_files(&folder);
        let (inputs, mut inbox) = mpsc::channel(64);
        let mut run = Run {
            timings: record.timings.of_start(self.origin_unix_us),
            folder,
            volumes: Volumes::at(self.home.volumes()),
            state,
            record,
            reporter: self.reporter.clone(),
            inputs,
            relay_failure: RelayFailure::default(),
            phase: Phase::Unspecified,
            fate: Fate::default(),
            life: Life::Preparing,
            follows: waited.is_some(),
            patience: self.patience,
            deadline: Instant::now(),
            tee: Tee::None,
            runs_since: None,
            log: None,
            network: None,
            health: None,
            paused: watch::channel(false).0,
        };
        let outcome = run.play_out(self, line, &mut inbox).await;
        let (message, recorded) = run.conclude(outcome);
        run.reporter.send_soon(message).await;
        Ok(recorded.map(|again| again.then(|| Again { lock, wait: wait_after(waited, run.ran(Instant::now())) })))
    }
}

/// Where a run is, as the picture of the supervisor has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Nothing runs yet, and nothing is recorded.
    Preparing,
    /// The workload has to run before the deadline.
    Booting,
    /// The workload runs; there is no deadline.
    Running,
    /// It would, but no virtual processor runs.
    Paused,
    /// The guest has to power off before the deadline, after a stop or its own end.
    Ending,
}

/// What happens to a run.
enum Input {
    Event(Event),
    Console(&'static str),
    Command(Asked),
    CommandLost,
    StopRefused(Failure),
    Health(HealthStatus),
}

/// How a run ended, if it began.
enum Outcome {
    /// A stop came before there was a guest.
    NotWanted,
    /// The guest is gone; its monitor's name.
    Ended(End, &'static str),
}

struct Run {
    folder: PathBuf,
    volumes: Volumes,
    state: State,
    record: BoxRecord,
    reporter: Reporter,
    inputs: mpsc::Sender<Input>,
    timings: Timings,
    relay_failure: RelayFailure,
    phase: Phase,
    fate: Fate,
    life: Life,
    /// From a run before it, by the box's policy.
    follows: bool,
    patience: Patience,
    deadline: Instant,
    /// What the guest proves itself by.
    tee: Tee,
    /// The workload.
    runs_since: Option<Instant>,
    log: Option<JoinHandle<()>>,
    /// Of the guest's card.
    network: Option<network::Running>,
    /// Whoever looks at its health.
    health: Option<Looking>,
    paused: watch::Sender<bool>,
}

impl Run {
    /// From an idle box to a guest that is gone. Fails only where there never was a guest.
    async fn play_out(
        &mut self,
        order: &Order<'_>,
        line: impl Future<Output = lifeline::End> + Send + 'static,
        inbox: &mut mpsc::Receiver<Input>,
    ) -> Result<Outcome, Failure> {
        let document = Arc::new(own_spec(&self.folder, &self.record.options)?);
        launch::same_form(&self.record.options, self.record.options.isolation)?;
        let monitor = (order.monitors)(self.record.options.isolation)?;
        launch::can_run(monitor.as_ref(), self.record.options.tee)?;
        // Held as long as there is a guest.
        let options = &self.record.options;
        let _volumes = self.volumes.hold(&options.data, options.volume_kind())?;
        // From here on a lost command or a stop is noticed, so that no guest starts that nobody wants.
        self.listen_to_commands(order.signals, line)?;
        let Prepared { launch, processor } = self.prepare(order.home, &document).await?;
        self.reached("launched", None);
        let of_card = self.listen_to_guest(order.home, &document, processor)?;
        // What was there to be heard is heard, also where nothing above took a while.
        tokio::task::yield_now().await;
        while let Ok(input) = inbox.try_recv() {
            if self.heard_without_a_guest(&input) {
                return Ok(Outcome::NotWanted);
            }
        }
        let card = document.spec().network.as_ref();
        let beginning = networks::begin((order.home, order.id, order.search), &self.folder, card, of_card)?;
        self.tee = document.spec().tee;
        let console = Console::open(&self.folder, self.console_words());
        // Held as long as there is a guest.
        let network = &mut self.network;
        let ready = async move {
            if let Some(beginning) = beginning {
                *network = Some(beginning.ready().await?);
            }
            Ok(())
        };
        let mut guest = monitor.start(&launch, console, ready.boxed()).await?;
        self.reached("vmm-started", None);
        if let Err(error) =
            self.state.started(&self.record.id, std::process::id(), guest.pid(), &self.timings, unix_ms())
        {
            guest.kill();
            guest.wait().await;
            return Err(error.into());
        }
        self.life = Life::Booting;
        self.deadline = Instant::now() + self.patience.start;
        let end = loop {
            let deadline = (!matches!(self.life, Life::Running | Life::Paused)).then_some(self.deadline);
            tokio::select! {
                biased;
                Some(input) = inbox.recv() => self.handle(input, &document, guest.as_mut()),
                end = guest.wait() => break end,
                () = sleep_until(deadline) => self.too_late(guest.as_mut()),
            }
        };
        (self.network, self.health) = (None, None);
        self.hear_the_last(&document, inbox).await;
        Ok(Outcome::Ended(end, monitor.name()))
    }

    /// Writes what the guest boots from. A first use of the simulator takes seconds, in which commands are heeded.
    async fn prepare(&self, home: &Home, document: &Arc<Document>) -> Result<Prepared, Failure> {
        let (folder, options) = (self.folder.clone(), self.record.options.clone());
        let (document, home) = (Arc::clone(document), home.clone());
        let prepared = tokio::task::spawn_blocking(move || launch::prepare(&folder, &options, &document, &home));
        prepared.await.class(Class::Internal)?
    }

    fn listen_to_commands(
        &self,
        signals: bool,
        line: impl Future<Output = lifeline::End> + Send + 'static,
    ) -> Result<(), Failure> {
        let listener = bind_socket(&self.folder, files::CONTROL).class_while(Class::Config, "cannot take commands")?;
        let (commands, received) = mpsc::channel(4);
        tokio::spawn(control::serve(listener, commands.clone()));
        self.forward(received, Input::Command);
        let grace = self.record.options.grace();
        for kind in [SignalKind::terminate(), SignalKind::interrupt()].into_iter().filter(|_| signals) {
            let mut signals = signal(kind)?;
            let commands = commands.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    let _ = commands.send(Asked::by_signal(Command::Stop(grace))).await;
                }
            });
        }
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            if line.await == lifeline::End::Lost {
                let _ = inputs.send(Input::CommandLost).await;
            }
        });
        Ok(())
    }

    /// Gives the ports that lead to the guest's card.
    fn listen_to_guest(
        &self,
        home: &Home,
        document: &Document,
        processor: Option<Answerer>,
    ) -> Result<Vec<(Publish, Held)>, Failure> {
        let lending =
            bind_socket(&self.folder, files::LENT).class_while(Class::Config, "cannot lend lines to the guest")?;
        tokio::spawn(lent::serve(lending, self.folder.clone()));
        let listen = |port| vsock::listen(&self.folder, port).class_while(Class::Config, "cannot listen to the guest");
        let (events, received) = mpsc::channel(16);
        tokio::spawn(lines::events(listen(ports::HOST_EVENTS)?, events));
        self.forward(received, Input::Event);
        if let Some(answerer) = processor {
            tokio::spawn(lines::processor(listen(ports::HOST_PROCESSOR)?, answerer));
        }
        if document.spec().tee == Tee::Snp {
            tokio::spawn(lines::certificates(listen(ports::HOST_CERTIFICATES)?, home.host_certificates()));
        }
        if let Some(kbs) = &document.spec().kbs {
            let listener = listen(ports::HOST_KBS_RELAY)?;
            tokio::spawn(lines::relay(listener, kbs.address.clone(), Arc::clone(&self.relay_failure)));
        }
        for (peer, index) in document.spec().peers.iter().zip(0..) {
            let listener = listen(ports::peer(index))?;
            tokio::spawn(lines::relay(listener, peer.address.clone(), RelayFailure::default()));
        }
        let held = published::listen(&self.folder, &self.record.options.publish)?;
        let mut of_card = Vec::new();
        for (published, held) in held {
            match held {
                Held::Stream(listener) if !published.how.is_of_card() => {
                    listener.set_nonblocking(true)?;
                    let listener = TcpListener::from_std(listener)?;
                    let port = match published.how {
                        publish::How::Owners => ports::RA_TLS_ELSEWHERE,
                        _ => ports::ingress(published.guest),
                    };
                    tokio::spawn(lines::ingress(listener, self.folder.clone(), port, self.paused.subscribe()));
                }
                held => of_card.push((published, held)),
            }
        }
        Ok(of_card)
    }

    /// Where a monitor says which fixed words came over the console: firmware, and a kernel that ends, have no other line.
    fn console_words(&self) -> mpsc::UnboundedSender<&'static str> {
        let (said, mut words) = mpsc::unbounded_channel();
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            while let Some(word) = words.recv().await {
                let _ = inputs.send(Input::Console(word)).await;
            }
        });
        said
    }

    fn console_said(&mut self, word: &'static str) {
        if word == BLOCK_CORRUPT {
            // A plain guest reads an error and goes on: whoever writes that on its console is not its kernel.
            self.fate.corrupt |= self.tee != Tee::None;
        } else {
            self.reached(word, None);
        }
    }

    fn forward<T: Send + 'static>(&self, mut from: mpsc::Receiver<T>, as_input: fn(T) -> Input) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            while let Some(item) = from.recv().await {
                let _ = inputs.send(as_input(item)).await;
            }
        });
    }

    fn handle(&mut self, input: Input, document: &Document, guest: &mut dyn Running) {
        match input {
            Input::Event(event) => {
                self.event(&event, document);
                let may_log = document.spec().host_may.contains(Act::Logs);
                if self.phase == Phase::AgentReady && self.log.is_none() && may_log {
                    let (folder, reporter) = (self.folder.clone(), self.reporter.clone());
                    let limits = self.record.options.log;
                    self.log = Some(tokio::spawn(async move { logs::follow(&folder, limits, reporter).await }));
                }
            }
            Input::Console(word) => self.console_said(word),
            Input::Command(asked) => {
                if asked.ends() {
                    self.not_wanted(asked.by_hand);
                }
                match asked.command {
                    Command::Kill => self.kill(guest),
                    Command::Stop(grace) => self.stop(grace, guest),
                    // Whoever asked may be gone; it is so all the same.
                    Command::Pause => drop(asked.answer.send(self.pause(guest))),
                    Command::Resume => drop(asked.answer.send(self.resume(guest))),
                    Command::Networks => {
                        let renewed = self.network.as_ref().map_or(Ok(()), network::Running::renew);
                        drop(asked.answer.send(renewed));
                    }
                }
            }
            Input::CommandLost => {
                self.not_wanted(false);
                self.stop(ORPHAN_GRACE, guest);
            }
            Input::Health(status) => {
                if let Err(error) = self.state.tell_health(&self.record.id, status) {
                    tracing::warn!(%error, "another health of the box is not in the trail");
                }
            }
            Input::StopRefused(error) => {
                tracing::info!(%error, "the guest does not stop on request, so it is killed");
                // A spec that does not let its host ask is no surprise to whoever wrote it.
                if error.class == Class::Unreachable {
                    self.fate.unreached = Some(error.message);
                }
                self.kill(guest);
            }
        }
    }

    fn kill(&mut self, guest: &mut dyn Running) {
        self.fate.killed_by_us = true;
        guest.kill();
    }

    /// Holds the processors of a guest whose workload runs: before that there is a deadline, and after it nothing to hold.
    fn pause(&mut self, guest: &mut dyn Running) -> Result<(), Failure> {
        let refused = |why: &str| Err(Failure::new(Class::Config, why));
        match self.life {
            Life::Paused => return refused("the box is paused already"),
            Life::Running => {}
            Life::Preparing | Life::Booting => return refused("the box is still being started"),
            Life::Ending => return refused("the box is about to end"),
        }
        guest.pause()?;
        if let Err(error) = self.state.set_paused(&self.record.id, true) {
            guest.resume()?;
            return Err(error.into());
        }
        self.life = Life::Paused;
        self.paused.send_replace(true);
        Ok(())
    }

    fn resume(&mut self, guest: &mut dyn Running) -> Result<(), Failure> {
        if self.life != Life::Paused {
            return Err(Failure::new(Class::Config, "the box is not paused"));
        }
        guest.resume()?;
        self.life = Life::Running;
        self.paused.send_replace(false);
        Ok(self.state.set_paused(&self.record.id, false)?)
    }

    /// Asks a guest that can answer, and kills one that cannot. A stop beside another joins it.
    fn stop(&mut self, grace: u32, guest: &mut dyn Running) {
        self.fate.stop_asked = true;
        self.health = None;
        if self.life == Life::Paused
            && let Err(error) = self.resume(guest)
        {
            tracing::info!(%error, "the guest does not go on, so it cannot be asked to end");
        }
        let sealed = self.record.options.volume_kind() == Kind::Sealed && !self.record.options.data.is_empty();
        let closing = if sealed { self.patience.closing } else { Duration::ZERO };
        let deadline = Instant::now() + Duration::from_secs(u64::from(grace)) + self.patience.margin + closing;
        if self.life == Life::Ending {
            self.deadline = self.deadline.min(deadline);
            return;
        }
        self.life = Life::Ending;
        self.deadline = deadline;
        if !matches!(self.phase, Phase::AgentReady | Phase::Attested | Phase::SecretsReady | Phase::Running) {
            self.kill(guest);
            return;
        }
        let (folder, inputs, answer) = (self.folder.clone(), self.inputs.clone(), self.patience.answer);
        tokio::spawn(async move {
            let refused = match timeout(answer, agent::stop(&folder, grace)).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(_) => Failure::new(Class::Unreachable, "no answer"),
            };
            let _ = inputs.send(Input::StopRefused(refused)).await;
        });
    }

    fn too_late(&mut self, guest: &mut dyn Running) {
        if self.life == Life::Booting {
            let seconds = self.patience.start.as_secs();
            let reached = self.phase.word();
            let message = format!("the workload did not run within {seconds} s; the guest got as far as {reached:?}");
            self.fate.failed = Some(Failure::new(Class::Unreachable, message));
            self.fate.too_late = true;
        } else {
            self.fate.killed_by_us = true;
        }
        guest.kill();
        self.life = Life::Ending;
        self.deadline = Instant::now() + self.patience.power_off;
    }

    fn event(&mut self, event: &Event, document: &Document) {
        let phase = event.phase();
        self.phase = phase;
        match phase {
            Phase::Booted => remove_boot_files(&self.folder),
            Phase::Running => {
                self.fate.ran = true;
                self.runs_since.get_or_insert_with(Instant::now);
                if self.life == Life::Booting {
                    self.life = Life::Running;
                    self.look_at_health();
                }
            }
            // A status is one byte; a guest that says more says something else.
            Phase::Exited => self.fate.exited = Some(i32::from(u8::try_from(event.exit_status).unwrap_or(u8::MAX))),
            Phase::Failed => {
                let relay = self.relay_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
                self.fate.failed = Some(fate::of_event(event, document.spec(), relay.as_deref()));
            }
            _ => {}
        }
        if phase.is_end() {
            let deadline = Instant::now() + self.patience.power_off;
            self.deadline = if self.life == Life::Ending { self.deadline.min(deadline) } else { deadline };
            (self.life, self.health) = (Life::Ending, None);
        }
        self.reached(phase.word(), Some(event.since_boot_us));
    }

    fn look_at_health(&mut self) {
        let Some(check) = self.record.options.health.clone() else { return };
        let (changed, told) = mpsc::channel(4);
        self.forward(told, Input::Health);
        self.health = Some(health::look(self.folder.clone(), check, self.paused.subscribe(), changed));
    }

    /// Notes a phase, records it once the box is recorded as running, and tells the command.
    fn reached(&mut self, phase: &str, guest_us: Option<u64>) {
        let Some(step) = self.timings.reached(phase, guest_us) else { return };
        self.reporter.send_now(Message::Phase(step.clone()));
        if self.life != Life::Preparing
            && let Err(error) = self.state.set_timings(&self.record.id, &self.timings)
        {
            tracing::warn!(%error, "timings are not recorded");
        }
    }
}

/// The monitor has read them; the secrets page in particular has no business on a disk any longer.
fn remove_boot_files(folder: &std::path::Path) {
    for name in BOOT_FILES {
        let _ = std::fs::remove_file(folder.join(name));
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
