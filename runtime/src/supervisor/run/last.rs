//! What is heard while there is no guest to do anything to: before it is started, and after it ended.

use std::time::Duration;

use coffer_spec::Document;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Input, Run};

/// How long the last words of a guest that has ended may be apart.
const LAST_WORDS: Duration = Duration::from_millis(50);

impl Run {
    /// What the guest said before it ended may still lie in the queue, or be on its way as long as it has not told its end; and
    /// so may the word that nobody wants another run.
    pub(super) async fn hear_the_last(&mut self, document: &Document, inbox: &mut mpsc::Receiver<Input>) {
        let mut silent = Instant::now();
        loop {
            let until = if self.phase.is_end() { Instant::now() } else { silent + LAST_WORDS };
            let Ok(Some(input)) = timeout_at(until, inbox.recv()).await else { break };
            match input {
                Input::Event(event) => self.event(&event, document),
                Input::Console(word) => self.console_said(word),
                other => {
                    self.heard_without_a_guest(&other);
                    continue;
                }
            }
            silent = Instant::now();
        }
        if let Some(log) = self.log.take() {
            let _ = timeout(Duration::from_secs(3), log).await;
        }
        while let Ok(input) = inbox.try_recv() {
            self.heard_without_a_guest(&input);
        }
    }

    /// For how long its workload ran: a start that takes long is no long run.
    pub(super) fn ran(&self, now: Instant) -> Duration {
        self.runs_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Nothing is there to be ended. True where no run is wanted from then on.
    pub(super) fn heard_without_a_guest(&mut self, input: &Input) -> bool {
        match input {
            Input::CommandLost => self.not_wanted(false),
            Input::Command(asked) if asked.ends() => self.not_wanted(asked.by_hand),
            _ => return false,
        }
        true
    }

    /// Its policy does not start it again. `by_hand`: and it counts as stopped, whatever a start beside the stop recorded.
    pub(super) fn not_wanted(&mut self, by_hand: bool) {
        self.fate.unwanted = true;
        if by_hand && let Err(error) = self.state.by_hand(&self.record.id, true) {
            tracing::warn!(%error, "that the box was stopped by hand is not recorded");
        }
    }
}

#[cfg(test)]
mod tests {
    use coffer_guest_proto::{Event, Phase};
    use coffer_spec::Tee;

    use super::*;
    use crate::boxes::Timings;
    use crate::home::Home;
    use crate::state::State;
    use crate::state::tests::{home, made, started};
    use crate::supervisor::control::{Asked, Command};
    use crate::supervisor::fate::Fate;
    use crate::supervisor::lines::RelayFailure;
    use crate::supervisor::message::Reporter;
    use crate::supervisor::run::{Life, Patience};
    use crate::volumes::Volumes;

    /// A run of a box that is recorded as one that runs, and what it hears by.
    fn run(home: &Home, phase: Phase, tee: Tee) -> (Run, mpsc::Receiver<Input>) {
        let state = State::open(home).unwrap();
        let record = made(home, "web");
        state.add(&record).unwrap();
        started(&state, &record, 5);
        let (inputs, inbox) = mpsc::channel(4);
        let run = Run {
            folder: home.box_folder(&record.id),
            volumes: Volumes::at(home.volumes()),
            state,
            reporter: Reporter::to(mpsc::channel(64).0),
            inputs,
            timings: Timings::default(),
            relay_failure: RelayFailure::default(),
            phase,
            fate: Fate::default(),
            life: if phase.is_end() { Life::Ending } else { Life::Booting },
            follows: false,
            patience: Patience::default(),
            deadline: Instant::now(),
            tee,
            runs_since: None,
            log: None,
            network: None,
            health: None,
            paused: tokio::sync::watch::channel(false).0,
            record,
        };
        (run, inbox)
    }

    fn document() -> Document {
        crate::supervisor::tests::document(Tee::None)
    }

    /// What became of a run whose guest was gone when this came: whether another is wanted, and whether it was stopped by hand.
    async fn after_the_end(phase: Phase, came: Vec<Input>) -> (bool, bool) {
        let (_dir, home) = home();
        let (mut run, mut inbox) = run(&home, phase, Tee::None);
        for input in came {
            run.inputs.send(input).await.unwrap_or_else(|_| panic!("there is room"));
        }
        run.hear_the_last(&document(), &mut inbox).await;
        (!run.fate.unwanted, run.state.find("web").unwrap().stopped_by_hand)
    }

    fn asked(command: Command, by_hand: bool) -> Input {
        Input::Command(Asked { by_hand, ..Asked::by_signal(command) })
    }

    #[tokio::test]
    async fn a_console_says_that_a_block_is_corrupt_of_a_guest_whose_kernel_ends_over_it_alone() {
        for (tee, believed) in [(Tee::None, false), (Tee::Simulated, true), (Tee::Snp, true)] {
            let (_dir, home) = home();
            let (mut run, _inbox) = run(&home, Phase::Running, tee);
            run.console_said(crate::monitor::BLOCK_CORRUPT);
            assert_eq!(run.fate.corrupt, believed, "{tee:?}");
        }
    }

    #[tokio::test]
    async fn a_start_that_takes_long_is_no_long_run() {
        let (_dir, home) = home();
        let (mut run, _inbox) = run(&home, Phase::Booted, Tee::None);
        let later = |run: &Run| run.ran(Instant::now() + Duration::from_hours(1));
        assert_eq!(later(&run), Duration::ZERO, "it boots");
        run.event(&Event { phase: Phase::Running.into(), ..Event::default() }, &document());
        assert!(later(&run) >= Duration::from_hours(1));
    }

    #[tokio::test]
    async fn whoever_wants_no_further_run_is_heard_after_the_end_as_well() {
        // It has told its end, so that nothing is waited for, or it has not.
        for phase in [Phase::Exited, Phase::Running] {
            let after = |input| after_the_end(phase, vec![input]);
            assert_eq!(after(Input::CommandLost).await, (false, false));
            assert_eq!(after(asked(Command::Stop(1), false)).await, (false, false), "a machine that goes down");
            for command in [Command::Stop(1), Command::Kill] {
                assert_eq!(after(asked(command, true)).await, (false, true));
            }
            assert_eq!(after(asked(Command::Pause, true)).await, (true, false));
            assert_eq!(after_the_end(phase, Vec::new()).await, (true, false));
        }
        // Behind what the guest said last.
        let exited = Event { phase: Phase::Exited.into(), ..Event::default() };
        let came = vec![Input::Event(exited), Input::CommandLost];
        assert_eq!(after_the_end(Phase::Running, came).await, (false, false));
    }
}
