//! One process per running box: holds the box's lock, owns its VMM, and ends when the guest does.
//!
//! The kernel kills QEMU and the vsock device when the supervisor dies, however it dies. The supervisor stops the box when
//! the attached command dies, records how the box ended, and removes what a `--rm` box leaves.
//! Trusts: the box record and folder. Believes a guest about its own fate only.

mod bounded;
pub mod control;
mod fate;
pub mod lifeline;
mod lines;
mod logs;
pub mod message;
mod processes;

pub use crate::state::of_state;
pub use bounded::former;
pub use lines::Answerer;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use coffer_guest_proto::event::phase_word;
use coffer_guest_proto::{Event, Phase, ports};
use coffer_rim::{Class, Failure};
use coffer_spec::{Act, Document};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::boxes::{BOOT_FILES, Timings, clean_run_files, files, unix_ms};
use crate::home::Home;
use crate::id::BoxId;
use crate::lock::BoxLock;
use crate::state::{BoxRecord, State};
use crate::tools::Tools;
use crate::{agent, hybrid, launch};
use control::Command;
use fate::Fate;
use lifeline::End;
use lines::RelayTrouble;
use message::{Ended, Message, Reporter};
use processes::{Processes, VmmEnd};

/// How long a guest may take until its workload runs.
pub const START_TIMEOUT: Duration = Duration::from_mins(2);
/// How long a guest may take to power off after it said that it is done.
const POWER_OFF: Duration = Duration::from_secs(10);
/// How long a stop may take beyond its grace.
const STOP_MARGIN: Duration = Duration::from_secs(5);
/// Grace of a stop nobody gave a grace.
pub const DEFAULT_GRACE: u32 = 10;
/// Grace when the attached command died: nobody waits any more.
const ORPHAN_GRACE: u32 = 3;

/// Supervises a box until it ends.
///
/// # Errors
/// Only where nobody could be told otherwise: the box is supervised already, or the database does not answer.
pub fn supervise(home: &Home, id: &BoxId, tools: &Tools) -> Result<(), Failure> {
    // One thread: children die with the thread that started them, so it must be the one that lives longest.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let folder = home.box_folder(id);
        let lock = BoxLock::take(&folder)
            .map_err(|error| Failure::caused(Class::Config, &error).while_doing("box is supervised already"))?;
        let state = State::open(home).map_err(of_state)?;
        let record = state.box_of(id).map_err(of_state)?;
        clean_run_files(&folder);
        state.supervised(id, std::process::id(), unix_ms()).map_err(of_state)?;
        let (reporter, writer) = Reporter::to_stdout();
        let timings = record.timings.clone();
        let mut run = Run {
            home: home.clone(),
            folder,
            state,
            record,
            reporter,
            timings,
            trouble: RelayTrouble::default(),
            phase: Phase::Unspecified,
            fate: Fate::default(),
            deadline: Instant::now() + START_TIMEOUT,
            waiting_for: Waiting::Start,
        };
        let ended = run.until_end(tools).await;
        let message = run.conclude(ended)?;
        run.reporter.send_soon(message).await;
        drop(run);
        let _ = tokio::time::timeout(Duration::from_secs(2), writer).await;
        drop(lock);
        Ok(())
    })
}

/// What the deadline stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// The workload to run.
    Start,
    /// Nothing: the box runs.
    Nothing,
    /// The guest to power off, after a stop or its own end.
    End,
}

enum Input {
    Event(Event),
    Stage0(&'static str),
    Command(Command),
    CommandLost,
    StopRefused(Failure),
}

struct Run {
    home: Home,
    folder: PathBuf,
    state: State,
    record: BoxRecord,
    reporter: Reporter,
    timings: Timings,
    trouble: RelayTrouble,
    phase: Phase,
    fate: Fate,
    deadline: Instant,
    waiting_for: Waiting,
}

impl Run {
    /// From prepared box to dead VMM.
    async fn until_end(&mut self, tools: &Tools) -> Result<VmmEnd, Failure> {
        let bytes = std::fs::read(self.folder.join(files::SPEC))
            .map_err(|error| Failure::caused(Class::Config, &error).while_doing("cannot read the box's spec"))?;
        let document = Document::parse(bytes).map_err(|error| Failure::caused(Class::Config, &error))?;
        let (inputs, mut inbox) = mpsc::channel(64);
        // From here on a lost command or a stop is noticed, so that no guest starts that nobody wants.
        self.listen_to_commands(&inputs)?;
        let options = self.record.options.clone();
        let launch = launch::prepare(&self.folder, &options, &document, &self.home.simulator())?;
        self.reached("launched", None).await;
        self.listen_to_guest(&inputs, &document, launch.processor)?;
        let heard = Self::listen_to_stage0(&inputs);
        let mut processes = Processes::start(&self.folder, tools, &options, heard).await?;
        self.state.vmm_started(&self.record.id, processes.vmm_pid()).map_err(of_state)?;
        self.reached("vmm-started", None).await;

        let mut log = None;
        let end = loop {
            let deadline = (self.waiting_for != Waiting::Nothing).then_some(self.deadline);
            tokio::select! {
                biased;
                Some(input) = inbox.recv() => self.handle(input, &document, &mut processes, &inputs, &mut log),
                end = processes.wait() => break end,
                () = sleep_until(deadline) => self.too_late(&mut processes),
            }
        };
        // What the guest said before it ended may still lie in the queue.
        while let Ok(Some(input)) = tokio::time::timeout(Duration::from_millis(50), inbox.recv()).await {
            if let Input::Event(event) = input {
                self.event(&event, &document);
            }
        }
        if let Some(log) = log {
            let _ = tokio::time::timeout(Duration::from_secs(3), log).await;
        }
        Ok(end)
    }

    fn listen_to_commands(&self, inputs: &mpsc::Sender<Input>) -> Result<(), Failure> {
        let listener = hybrid::bind_socket(&self.folder, files::CONTROL)?;
        let (commands, mut received) = mpsc::channel(4);
        tokio::spawn(control::serve(listener, commands.clone()));
        let forward = inputs.clone();
        tokio::spawn(async move {
            while let Some(command) = received.recv().await {
                let _ = forward.send(Input::Command(command)).await;
            }
        });
        for kind in [tokio::signal::unix::SignalKind::terminate(), tokio::signal::unix::SignalKind::interrupt()] {
            let mut signals = tokio::signal::unix::signal(kind)?;
            let commands = commands.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    let _ = commands.send(Command::Stop(DEFAULT_GRACE)).await;
                }
            });
        }
        let forward = inputs.clone();
        tokio::spawn(async move {
            if lifeline::watch_stdin().await == End::Lost {
                let _ = forward.send(Input::CommandLost).await;
            }
        });
        Ok(())
    }

    fn listen_to_guest(
        &self,
        inputs: &mpsc::Sender<Input>,
        document: &Document,
        processor: Option<Answerer>,
    ) -> Result<(), Failure> {
        let (events, mut received) = mpsc::channel(16);
        tokio::spawn(lines::events(hybrid::listen(&self.folder, ports::HOST_EVENTS)?, events));
        let forward = inputs.clone();
        tokio::spawn(async move {
            while let Some(event) = received.recv().await {
                let _ = forward.send(Input::Event(event)).await;
            }
        });
        if let Some(answerer) = processor {
            tokio::spawn(lines::processor(hybrid::listen(&self.folder, ports::HOST_PROCESSOR)?, answerer));
        }
        if let Some(kbs) = &document.spec().kbs {
            let listener = hybrid::listen(&self.folder, ports::HOST_KBS_RELAY)?;
            tokio::spawn(lines::relay(listener, kbs.address.clone(), Arc::clone(&self.trouble)));
        }
        Ok(())
    }

    /// The firmware has no line but the console; its fixed words are phases of the boot.
    fn listen_to_stage0(inputs: &mpsc::Sender<Input>) -> mpsc::UnboundedSender<&'static str> {
        let (heard, mut received) = mpsc::unbounded_channel();
        let forward = inputs.clone();
        tokio::spawn(async move {
            while let Some(phase) = received.recv().await {
                let _ = forward.send(Input::Stage0(phase)).await;
            }
        });
        heard
    }

    fn handle(
        &mut self,
        input: Input,
        document: &Document,
        processes: &mut Processes,
        inputs: &mpsc::Sender<Input>,
        log: &mut Option<tokio::task::JoinHandle<()>>,
    ) {
        match input {
            Input::Event(event) => {
                self.event(&event, document);
                if self.phase == Phase::AgentReady && log.is_none() && document.spec().host_may.contains(Act::Logs) {
                    let (folder, reporter) = (self.folder.clone(), self.reporter.clone());
                    *log = Some(tokio::spawn(async move { logs::follow(&folder, reporter).await }));
                }
            }
            Input::Stage0(phase) => {
                self.timings.reached(phase, None);
                let _ = self.state.set_timings(&self.record.id, &self.timings);
            }
            Input::Command(Command::Kill) => {
                self.fate.killed_by_us = true;
                processes.kill();
            }
            Input::Command(Command::Stop(grace)) => self.stop(grace, processes, inputs),
            Input::CommandLost => self.stop(ORPHAN_GRACE, processes, inputs),
            Input::StopRefused(error) => {
                tracing::info!(%error, "the guest does not stop on request, so it is killed");
                self.fate.killed_by_us = true;
                processes.kill();
            }
        }
    }

    /// Asks a guest that can answer, and kills one that cannot.
    fn stop(&mut self, grace: u32, processes: &mut Processes, inputs: &mpsc::Sender<Input>) {
        self.fate.stop_asked = true;
        if !matches!(self.phase, Phase::AgentReady | Phase::Attested | Phase::SecretsReady | Phase::Running) {
            self.fate.killed_by_us = self.phase != Phase::Exited;
            if self.fate.killed_by_us {
                processes.kill();
            }
            return;
        }
        self.deadline = Instant::now() + Duration::from_secs(u64::from(grace)) + STOP_MARGIN;
        self.waiting_for = Waiting::End;
        let (folder, inputs) = (self.folder.clone(), inputs.clone());
        tokio::spawn(async move {
            let asked = tokio::time::timeout(STOP_MARGIN, agent::stop(&folder, grace)).await;
            let refused = match asked {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(_) => Failure::new(Class::Unreachable, "no answer"),
            };
            let _ = inputs.send(Input::StopRefused(refused)).await;
        });
    }

    fn too_late(&mut self, processes: &mut Processes) {
        if self.waiting_for == Waiting::Start {
            let seconds = START_TIMEOUT.as_secs();
            let reached = phase_word(self.phase);
            let message = format!("the workload did not run within {seconds} s; the guest got as far as {reached:?}");
            self.fate.failed = Some(
                Failure::new(Class::Unreachable, message).hint("`coffer logs --console` shows what the guest said"),
            );
        } else {
            self.fate.killed_by_us = true;
        }
        processes.kill();
        self.deadline = Instant::now() + POWER_OFF;
    }

    fn event(&mut self, event: &Event, document: &Document) {
        let phase = event.phase();
        self.phase = phase;
        self.timings.reached(phase_word(phase), Some(event.since_boot_us));
        match phase {
            Phase::Booted => remove_boot_files(&self.folder),
            Phase::Running => {
                self.fate.ran = true;
                if self.waiting_for == Waiting::Start {
                    self.waiting_for = Waiting::Nothing;
                }
            }
            Phase::Exited => self.fate.exited = Some(event.exit_status),
            Phase::Failed => {
                let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
                self.fate.failed = Some(fate::of_event(event, document.spec(), trouble.as_deref()));
            }
            _ => {}
        }
        if matches!(phase, Phase::Exited | Phase::Failed) {
            self.deadline = Instant::now() + POWER_OFF;
            self.waiting_for = Waiting::End;
        }
        if let Err(error) = self.state.set_timings(&self.record.id, &self.timings) {
            tracing::warn!(%error, "timings are not recorded");
        }
        if !matches!(phase, Phase::Exited | Phase::Failed) {
            let (reporter, word) = (self.reporter.clone(), phase_word(phase).to_string());
            tokio::spawn(async move { reporter.send_soon(Message::Phase(word)).await });
        }
    }

    async fn reached(&mut self, phase: &str, guest_us: Option<u64>) {
        self.timings.reached(phase, guest_us);
        let _ = self.state.set_timings(&self.record.id, &self.timings);
        self.reporter.send_soon(Message::Phase(phase.into())).await;
    }

    /// Records the end, and cleans up behind it.
    fn conclude(&mut self, ended: Result<VmmEnd, Failure>) -> Result<Message, Failure> {
        let message = match ended {
            Ok(end) => self.fate.conclude(&end),
            Err(failure) => Message::Failed(failure),
        };
        let (code, error) = match &message {
            Message::Exited(Ended { code, error }) => (*code, error.clone()),
            Message::Failed(failure) => (i32::from(failure.docker_code.unwrap_or(125)), Some(failure.message.clone())),
            Message::Phase(_) | Message::Log(_) => (125, None),
        };
        clean_run_files(&self.folder);
        let id = &self.record.id;
        self.state.ended(id, code, error.as_deref(), unix_ms()).map_err(of_state)?;
        if self.record.options.remove {
            std::fs::remove_dir_all(&self.folder)?;
            self.state.remove(id).map_err(of_state)?;
        }
        Ok(message)
    }
}

/// The VMM has read them; the secrets page in particular has no business on a disk any longer.
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
