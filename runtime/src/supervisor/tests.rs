//! Every fate of a box, with a fake in the monitor's place.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coffer_guest_proto::Phase;
use coffer_machine::{Refusal, console};
use coffer_platform::files::{Manifest, Platform};
use coffer_platform::sample;
use coffer_rim::{Class, Failure};
use coffer_spec::{Document, Tee};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::again::Again;
use super::control::{self, Command};
use super::lifeline;
use super::message::{Ended, Message, Reporter};
use super::run::{Order, Patience};
use crate::boxes::{BoxOptions, Step, Timings, files};
use crate::home::{Home, private_folder};
use crate::id::BoxId;
use crate::lock::BoxLock;
use crate::monitor::fake::{Agent, Fake};
use crate::monitor::{End, How, Isolation, Monitor};
use crate::state::tests::record;
use crate::state::{BoxRecord, BoxState, State};
use crate::tools::Search;

mod again;
mod paused;
mod unwanted;

/// A home with one box that was created and never started.
struct World {
    _dir: tempfile::TempDir,
    home: Home,
    platform: PathBuf,
    id: BoxId,
}

/// What came of a run.
struct Ran {
    messages: Vec<Message>,
    recorded: Result<Option<Again>, Failure>,
}

const ORIGIN: i64 = 5;

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut BoxOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(&dir.path().join("home")).unwrap();
        let platform = dir.path().join("platform");
        let none = String::new;
        let manifest = Manifest {
            version: 2,
            stage0: none(),
            kernel_package: none(),
            kernel: none(),
            initrd: none(),
            init: none(),
            modules: Vec::new(),
        };
        let (kernel, initrd) = (b"kernel".to_vec(), b"initrd".to_vec());
        let mut built = Platform { folder: platform.clone(), manifest, stage0: sample::rom(1), kernel, initrd };
        built.save().unwrap();
        let mut options = BoxOptions { platform: platform.clone(), ..crate::boxes::tests::options() };
        change(&mut options);
        let id = BoxId::random();
        let folder = home.box_folder(&id);
        private_folder(&folder).unwrap();
        let spec = document(options.tee);
        options.workload_digest = spec.digest().to_string();
        std::fs::write(folder.join(files::SPEC), spec.bytes()).unwrap();
        let mut timings = Timings { origin_unix_us: ORIGIN, steps: Vec::new() };
        timings.reached("image-ready", None);
        let record = BoxRecord { id: id.clone(), options, timings, ..record("box") };
        State::open(&home).unwrap().add(&record).unwrap();
        Self { _dir: dir, home, platform, id }
    }

    fn folder(&self) -> PathBuf {
        self.home.box_folder(&self.id)
    }

    fn record(&self) -> BoxRecord {
        State::open(&self.home).unwrap().box_of(&self.id).unwrap()
    }

    /// Waits until the supervisor knows that the workload runs.
    fn until_running(&self) -> impl Future<Output = ()> + Send + 'static {
        let (home, id) = (self.home.clone(), self.id.clone());
        async move {
            let runs = || {
                let record = State::open(&home).unwrap().box_of(&id).unwrap();
                record.timings.steps.iter().any(|step| step.phase == "running")
            };
            while !runs() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }

    async fn supervise(&self, fake: &Arc<Fake>) -> Ran {
        self.supervise_with(fake, Patience::default(), std::future::pending()).await
    }

    async fn supervise_with(
        &self,
        fake: &Arc<Fake>,
        patience: Patience,
        line: impl Future<Output = lifeline::End> + Send + 'static,
    ) -> Ran {
        self.follow(fake, patience, line, None).await
    }

    async fn follow(
        &self,
        fake: &Arc<Fake>,
        patience: Patience,
        line: impl Future<Output = lifeline::End> + Send + 'static,
        after: Option<Again>,
    ) -> Ran {
        let (queue, mut received) = mpsc::channel(256);
        let monitors = |_| Ok(Box::new(Arc::clone(fake)) as Box<dyn Monitor>);
        let order = Order {
            home: &self.home,
            id: &self.id,
            monitors: &monitors,
            search: &Search::default(),
            origin_unix_us: ORIGIN,
            after,
            reporter: Reporter::to(queue),
            signals: false,
            patience,
        };
        let recorded = tokio::time::timeout(Duration::from_mins(1), order.run(line)).await.expect("it ends");
        let mut messages = Vec::new();
        while let Ok(message) = received.try_recv() {
            messages.push(message);
        }
        let again = recorded.as_ref().is_ok_and(Option::is_some);
        assert_eq!(BoxLock::is_held(&self.folder()), again);
        Ran { messages, recorded }
    }

    /// Nothing of a run lies about.
    fn assert_clean(&self) {
        let mut left: Vec<_> = std::fs::read_dir(self.folder())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| ![files::SPEC, files::LOG, files::CONSOLE, "lock"].contains(&name.as_str()))
            .collect();
        left.sort();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Ran {
    fn failure(&self) -> &Failure {
        match self.messages.last() {
            Some(Message::Failed(failure)) => failure,
            other => panic!("not failed: {other:?}"),
        }
    }

    fn ended(&self) -> (i32, Option<&str>) {
        match self.messages.last() {
            Some(Message::Exited(Ended { code, error })) => (*code, error.as_deref()),
            other => panic!("not exited: {other:?}"),
        }
    }

    fn steps(&self) -> Vec<Step> {
        let step = |message: &Message| match message {
            Message::Phase(step) => Some(step.clone()),
            _ => None,
        };
        self.messages.iter().filter_map(step).collect()
    }
}

pub(crate) fn document(tee: Tee) -> Document {
    use crate::request::{self, WorkloadRequest, tests};
    request::document(&tests::image(), tests::verity(), &WorkloadRequest { tee, ..tests::request() }).unwrap()
}

/// Everything takes as long as it takes, but what a test waits for.
fn patience() -> Patience {
    let long = Duration::from_secs(50);
    Patience { start: long, power_off: long, answer: long, margin: long, closing: long }
}

const SHORT: Duration = Duration::from_millis(30);

fn fake<F: Future<Output = How> + Send + 'static>(
    script: impl Fn(crate::monitor::fake::Guest) -> F + Send + Sync + 'static,
) -> Arc<Fake> {
    Arc::new(Fake::playing(script))
}

/// A guest whose workload runs until it is stopped or killed.
fn that_runs(agent: &Agent) -> Arc<Fake> {
    let agent = agent.clone();
    fake(move |mut guest| {
        let agent = agent.clone();
        async move {
            guest.runs(&agent).await;
            std::future::pending().await
        }
    })
}

/// The same, until it is asked to stop; then it ends with this status.
fn that_stops(agent: &Agent, status: i32) -> Arc<Fake> {
    let agent = agent.clone();
    fake(move |mut guest| {
        let agent = agent.clone();
        async move {
            guest.runs(&agent).await;
            agent.asked_to_stop().await;
            guest.exits(status).await
        }
    })
}

/// The same; `running` tells when it does.
fn that_tells(agent: &Agent, running: &Arc<Notify>) -> Arc<Fake> {
    let (agent, running) = (agent.clone(), Arc::clone(running));
    fake(move |mut guest| {
        let (agent, running) = (agent.clone(), Arc::clone(&running));
        async move {
            guest.runs(&agent).await;
            running.notify_one();
            agent.asked_to_stop().await;
            running.notify_one();
            std::future::pending().await
        }
    })
}

#[tokio::test]
async fn a_workload_that_ends_gives_its_status_its_output_and_true_timings() {
    for (remove, status) in [(false, 3), (true, 0)] {
        let world = World::with(|options| options.remove = remove);
        let fake = fake(move |mut guest| async move {
            guest.console(&format!("{}\n{}\n", console::START, console::CHECKED));
            let agent = Agent::with_output(&["one\n", "two\n"]);
            guest.runs(&agent).await;
            agent.read_out().await;
            guest.exits(status).await
        });
        let ran = world.supervise(&fake).await;
        assert_eq!(ran.ended(), (status, None));
        ran.recorded.as_ref().unwrap();
        let output: Vec<_> = ran.messages.iter().filter(|message| matches!(message, Message::Log(_))).collect();
        assert_eq!(output.len(), 2);
        let words: Vec<_> = ran.steps().into_iter().map(|step| step.phase).collect();
        for word in ["launched", "vmm-started", "stage0-started", "kernel-checked", "booted", "running", "exited"] {
            assert!(words.contains(&word.to_string()), "{word} in {words:?}");
        }
        let guests = ran.steps().into_iter().filter(|step| step.guest_us == Some(7)).count();
        assert_eq!(guests, 6, "phases of the guest carry its clock");
        if remove {
            assert!(!world.folder().exists());
            assert!(State::open(&world.home).unwrap().all().unwrap().is_empty());
        } else {
            let record = world.record();
            assert_eq!((record.state, record.exit_code, record.error), (BoxState::Exited, Some(status), None));
            let recorded = &record.timings.steps;
            assert_eq!((recorded[0].phase.as_str(), &recorded[1..]), ("image-ready", &ran.steps()[..]));
            assert_eq!(std::fs::read_to_string(world.folder().join(files::LOG)).unwrap().lines().count(), 2);
            world.assert_clean();
        }
    }
}

#[tokio::test]
async fn each_refusal_of_stage0_is_named_and_recorded() {
    for refusal in Refusal::ALL {
        let world = World::new();
        let ran = world.supervise(&fake(move |_| async move { How::Refused(refusal) })).await;
        let named = format!("({})", refusal.word());
        assert!(ran.failure().message.contains(&named), "{}", ran.failure());
        let record = world.record();
        assert_eq!((record.state, record.exit_code), (BoxState::Exited, Some(125)));
        assert_eq!(record.error.as_ref(), Some(&ran.failure().message));
        world.assert_clean();
    }
}

#[tokio::test]
async fn a_guest_that_never_boots_is_ended_and_what_it_said_last_is_kept() {
    let patience = Patience { start: SHORT, ..patience() };
    for remove in [false, true] {
        let world = World::with(|options| options.remove = remove);
        let fake = fake(|mut guest| async move {
            guest.console(&format!("{}\nKernel panic\n", console::START));
            std::future::pending().await
        });
        let ran = world.supervise_with(&fake, patience, std::future::pending()).await;
        let failure = ran.failure();
        assert_eq!(failure.class, Class::Unreachable);
        assert!(failure.message.contains("did not run within 0 s"), "{failure}");
        assert_eq!(failure.message.contains("Kernel panic"), remove, "{failure}");
        assert_eq!(failure.hint.as_deref().unwrap().contains("coffer logs"), !remove);
    }
}

#[tokio::test]
async fn a_monitor_that_is_killed_or_gives_up_is_named_with_its_last_words() {
    let cases = [
        (How::Signal(9), "fake was killed (signal 9)"),
        (How::Status(1), "fake ended with status 1"),
        (How::VsockLost("exit status: 1".into()), "the vsock device died (exit status: 1)"),
        (How::PoweredOff, "the guest ended without saying how"),
    ];
    for (how, words) in cases {
        for (runs, remove) in [(false, false), (true, false), (false, true), (true, true)] {
            let world = World::with(|options| options.remove = remove);
            let how = how.clone();
            let fake = Arc::new(Fake::saying(move |mut guest| {
                let how = how.clone();
                async move {
                    if runs {
                        guest.runs(&Agent::default()).await;
                    }
                    End { how, last_words: Some("cannot set up guest memory".into()) }
                }
            }));
            let ran = world.supervise(&fake).await;
            if runs {
                assert_eq!(ran.ended(), (137, Some(&*format!("{words}: cannot set up guest memory"))));
            } else {
                let failure = ran.failure();
                let message = format!("{words} before the workload ran: cannot set up guest memory");
                assert_eq!((failure.class, &failure.message), (Class::Platform, &message));
                assert_eq!(failure.hint.as_deref().unwrap().contains("supervisor.log"), !remove);
            }
        }
    }
}

#[tokio::test]
async fn a_stop_is_asked_for_once_and_the_workloads_status_counts() {
    let world = World::new();
    let agent = Agent::default();
    let fake = that_stops(&agent, 143);
    let folder = world.folder();
    let stop = || async {
        world.until_running().await;
        control::end(&folder, Command::Stop(7)).await
    };
    let (ran, first, second) =
        tokio::join!(world.supervise_with(&fake, patience(), std::future::pending()), stop(), stop());
    first.unwrap();
    second.unwrap();
    assert_eq!((ran.ended(), agent.stops()), ((143, None), 1));
}

#[tokio::test]
async fn a_second_stop_joins_the_first_and_can_only_bring_its_end_nearer() {
    for (first, second) in [(100, 0), (0, 100)] {
        let world = World::new();
        let (agent, told) = (Agent::default(), Arc::new(Notify::new()));
        let fake = that_tells(&agent, &told);
        let folder = world.folder();
        let stops = async {
            world.until_running().await;
            told.notified().await;
            control::send(&folder, Command::Stop(first)).await.unwrap();
            told.notified().await;
            control::send(&folder, Command::Stop(second)).await.unwrap();
        };
        let patience = Patience { margin: Duration::from_secs(1), ..patience() };
        let began = Instant::now();
        let (ran, ()) = tokio::join!(world.supervise_with(&fake, patience, std::future::pending()), stops);
        assert_eq!((ran.ended(), agent.stops()), ((137, None), 1));
        assert!(began.elapsed() < Duration::from_secs(40));
        assert_eq!(world.record().exit_code, Some(137));
    }
}

#[tokio::test]
async fn a_guest_that_refuses_to_stop_or_is_to_be_killed_is_ended_at_once() {
    let refusing = Agent::that_refuses();
    let told = Arc::new(Notify::new());
    let cases =
        [(that_tells(&refusing, &told), Command::Stop(100)), (that_tells(&Agent::default(), &told), Command::Kill)];
    for (fake, command) in cases {
        let world = World::new();
        let folder = world.folder();
        let stop = async {
            told.notified().await;
            control::send(&folder, command).await.unwrap();
        };
        let (ran, ()) = tokio::join!(world.supervise_with(&fake, patience(), std::future::pending()), stop);
        assert_eq!(ran.ended(), (137, None), "{command:?}");
    }
}

#[tokio::test]
async fn a_box_whose_command_dies_is_stopped_and_one_that_was_let_go_lives_on() {
    let (agent, told) = (Agent::default(), Arc::new(Notify::new()));
    let world = World::new();
    let running = world.until_running();
    let line = async move {
        running.await;
        lifeline::End::Lost
    };
    let patience = Patience { margin: SHORT, ..patience() };
    let ran = world.supervise_with(&that_tells(&agent, &told), patience, line).await;
    assert_eq!((ran.ended(), agent.stops()), ((137, None), 1));

    let world = World::new();
    let fake = fake(|mut guest| async move {
        guest.runs(&Agent::default()).await;
        tokio::time::sleep(SHORT).await;
        guest.exits(0).await
    });
    let ran = world.supervise_with(&fake, patience, async { lifeline::End::Detached }).await;
    assert_eq!(ran.ended(), (0, None));
}

#[tokio::test]
async fn a_guest_that_says_it_is_done_and_stays_is_ended() {
    let world = World::new();
    let fake = fake(|mut guest| async move {
        guest.runs(&Agent::default()).await;
        guest.exits(5).await;
        std::future::pending().await
    });
    let patience = Patience { power_off: SHORT, ..patience() };
    let ran = world.supervise_with(&fake, patience, std::future::pending()).await;
    assert_eq!(ran.ended(), (5, None));
}

/// A step of a start that fails, and how it is mended.
type Fault = (&'static str, fn(&World), fn(&World));

/// Something in the way of each name a start writes, and everything it reads gone or wrong.
const FAULTS: [Fault; 13] = [
    ("stage0.bin", |w| block(w, files::STAGE0), |w| unblock(w, files::STAGE0)),
    ("hashes.bin", |w| block(w, files::HASHES), |w| unblock(w, files::HASHES)),
    ("kernel", |w| block(w, files::KERNEL), |w| unblock(w, files::KERNEL)),
    ("initrd", |w| block(w, files::INITRD), |w| unblock(w, files::INITRD)),
    ("cmdline", |w| block(w, files::COMMAND_LINE), |w| unblock(w, files::COMMAND_LINE)),
    ("spec.img", |w| block(w, files::SPEC_DISK), |w| unblock(w, files::SPEC_DISK)),
    ("scratch.img", |w| block(w, files::SCRATCH), |w| unblock(w, files::SCRATCH)),
    ("commands", |w| block(w, files::CONTROL), |w| unblock(w, files::CONTROL)),
    ("events", |w| block(w, "vsock.sock_4026531840"), |w| unblock(w, "vsock.sock_4026531840")),
    ("spec", |w| hide(&w.folder().join(files::SPEC)), |w| show(&w.folder().join(files::SPEC))),
    ("another spec", |w| other_spec(w), |w| show(&w.folder().join(files::SPEC))),
    ("platform", |w| hide(&w.platform.join("kernel")), |w| show(&w.platform.join("kernel"))),
    ("record", |w| crate::state::tests::fill_disk(&w.home), |w| crate::state::tests::free_disk(&w.home)),
];

fn block(world: &World, name: &str) {
    std::fs::create_dir_all(world.folder().join(name).join("in the way")).unwrap();
}

fn unblock(world: &World, name: &str) {
    std::fs::remove_dir_all(world.folder().join(name)).unwrap();
}

/// A valid one of another tenant: what starts would prove another workload.
fn other_spec(world: &World) {
    let path = world.folder().join(files::SPEC);
    hide(&path);
    let text = std::fs::read_to_string(path.with_extension("hidden")).unwrap();
    let (tenant, other) = ("tenant = \"default\"", "tenant = \"another\"");
    assert!(text.contains(tenant), "{text}");
    std::fs::write(path, text.replacen(tenant, other, 1)).unwrap();
}

fn hide(path: &std::path::Path) {
    std::fs::rename(path, path.with_extension("hidden")).unwrap();
}

fn show(path: &std::path::Path) {
    std::fs::rename(path.with_extension("hidden"), path).unwrap();
}

#[tokio::test]
async fn a_start_that_fails_at_any_step_leaves_the_record_as_it_was_and_nothing_behind() {
    let world = World::with(|options| options.scratch_bytes = 1 << 20);
    let runs = || {
        fake(|mut guest| async move {
            guest.runs(&Agent::default()).await;
            guest.exits(7).await
        })
    };
    let fails: [Arc<Fake>; 2] =
        [Arc::new(Fake::that_lacks("no KVM here")), Arc::new(Fake::that_cannot_start("no such machine"))];
    // Once for a box that never ran, and once for one that ended with a status of its own.
    for state in [BoxState::Created, BoxState::Exited] {
        let before = world.record();
        assert_eq!(before.state, state);
        for fake in &fails {
            let ran = world.supervise(fake).await;
            assert!(ran.recorded.is_ok() && ran.failure().class == Class::Platform);
            assert_eq!(world.record(), before);
            world.assert_clean();
        }
        for (what, fault, mend) in FAULTS {
            fault(&world);
            let fake = runs();
            let ran = world.supervise(&fake).await;
            let class = if what == "another spec" { Class::NotAuthentic } else { Class::Config };
            assert_eq!(ran.failure().class, class, "{what}");
            assert_eq!(fake.launched.lock().unwrap().len(), usize::from(what == "record"), "{what}");
            mend(&world);
            assert_eq!(world.record(), before, "{what}");
            world.assert_clean();
        }
        assert_eq!(world.supervise(&runs()).await.ended(), (7, None), "all is as it was, so that it starts");
        assert_eq!(world.record().exit_code, Some(7));
    }
}

#[tokio::test]
async fn an_end_that_cannot_be_recorded_is_told_all_the_same() {
    let world = World::new();
    let home = world.home.clone();
    let fake = fake(move |mut guest| {
        let home = home.clone();
        async move {
            crate::state::tests::fill_disk(&home);
            guest.runs(&Agent::default()).await;
            guest.exits(4).await
        }
    });
    let ran = world.supervise(&fake).await;
    assert_eq!(ran.ended(), (4, None));
    assert!(ran.recorded.unwrap_err().message.contains("full"));
    crate::state::tests::free_disk(&world.home);
    // The next command mends what the record says.
    let state = State::open(&world.home).unwrap();
    state.reconcile(&world.home, 9).unwrap();
    assert_eq!(world.record().state, BoxState::Exited);
}

#[tokio::test]
async fn a_box_is_supervised_once() {
    let world = World::new();
    let (agent, told) = (Agent::default(), Arc::new(Notify::new()));
    let fake = that_tells(&agent, &told);
    let folder = world.folder();
    let second = async {
        told.notified().await;
        let before = world.record();
        assert_eq!(before.state, BoxState::Running);
        let (queue, mut received) = mpsc::channel(8);
        let monitors = |_| unreachable!("no second guest");
        let order = Order {
            home: &world.home,
            id: &world.id,
            monitors: &monitors,
            search: &Search::default(),
            origin_unix_us: 6,
            after: None,
            reporter: Reporter::to(queue),
            signals: false,
            patience: patience(),
        };
        let failure = order.run(std::future::pending()).await.unwrap_err();
        assert!(failure.message.contains("supervised already"), "{failure}");
        assert_eq!(received.recv().await, Some(Message::Failed(failure)));
        assert_eq!(world.record(), before);
        control::send(&folder, Command::Kill).await.unwrap();
    };
    let (ran, ()) = tokio::join!(world.supervise_with(&fake, patience(), std::future::pending()), second);
    assert_eq!(ran.ended(), (137, None));
}

#[tokio::test]
async fn a_box_is_started_neither_in_another_form_nor_without_the_hardware_it_demands() {
    let other = |options: &mut BoxOptions| {
        options.tee = Tee::Simulated;
        options.isolation = Isolation::Kvm;
    };
    let hardware = |options: &mut BoxOptions| options.tee = Tee::Snp;
    for (world, why) in [(World::with(other), "another MEASUREMENT"), (World::with(hardware), "nothing encrypts")] {
        let fake = Arc::new(Fake::playing(|_| async { How::PoweredOff }));
        let ran = world.supervise(&fake).await;
        let said = format!("{:?} {:?}", ran.messages, ran.recorded);
        assert!(said.contains(why), "{said}");
        assert!(fake.launched.lock().unwrap().is_empty(), "nothing was launched");
    }
}
