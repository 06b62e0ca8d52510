//! The figures: counted from the lines of the trail as they come, and looked up in the home when somebody asks.
//!
//! Labels are words of this program: states, phases, outcomes, commands. Never a name that somebody gave.

#![allow(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Instant;

use coffer_runtime::engine::{Engine, Events, Filter, NamedFilter};
use coffer_runtime::images::{self, of_image};
use coffer_runtime::trail::Line;
use coffer_runtime::{BoxRecord, BoxState};

use crate::error::{self, CliError};

/// How often something took how long.
#[derive(Clone, Copy, Debug, Default)]
struct Took {
    count: u64,
    seconds: f64,
}

/// What is counted between two readings.
#[derive(Debug, Default)]
pub struct Figures {
    lines: Option<Events>,
    read: u64,
    acts: BTreeMap<(String, String), u64>,
    took: BTreeMap<&'static str, Took>,
    /// Lines that say that something began, by their number: its time.
    begun: BTreeMap<u64, i64>,
    ends: BTreeMap<&'static str, u64>,
    phases: BTreeMap<String, Took>,
    /// Starts whose phases are counted, by box and beginning.
    starts: BTreeSet<(String, i64)>,
}

/// Commands whose length is told.
const TIMED: [&str; 5] = ["exec", "pull", "run", "attest", "seal"];

/// Lines that are waited for at most: a command that was killed never says how it ended.
const WAITED_FOR: usize = 10_000;

impl Figures {
    /// As Prometheus reads it.
    ///
    /// # Errors
    /// Of the home.
    pub fn text(&mut self, engine: &Engine) -> Result<String, CliError> {
        let began = Instant::now();
        self.read_on(engine)?;
        let boxes = engine.list(&Filter::default()).map_err(error::of)?;
        self.count_starts(&boxes);
        let mut text = Text::default();
        self.of_boxes(&mut text, &boxes);
        self.of_acts(&mut text);
        of_home(&mut text, engine)?;
        let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
        text.one("build_info", "gauge", "The version of this program.", &[(version, 1.0)]);
        let taken = began.elapsed().as_secs_f64();
        text.one("scrape_duration_seconds", "gauge", "What these figures took to gather.", &[(String::new(), taken)]);
        Ok(text.0)
    }

    fn read_on(&mut self, engine: &Engine) -> Result<(), CliError> {
        let mut lines = match self.lines.take() {
            Some(lines) => lines,
            None => engine.all_events().map_err(error::of)?,
        };
        while let Some(line) = lines.kept().map_err(error::of)? {
            self.count(&line);
        }
        self.lines = Some(lines);
        Ok(())
    }

    fn count(&mut self, line: &Line) {
        self.read += 1;
        *self.acts.entry((line.action.clone(), line.outcome.clone())).or_default() += 1;
        if line.outcome == "begun" {
            self.begun.insert(line.number, line.nanos());
            if self.begun.len() > WAITED_FOR {
                self.begun.pop_first();
            }
        }
        let number = |key: &str| line.details.get(key).and_then(serde_json::Value::as_i64);
        let began = number("began").and_then(|number| self.begun.remove(&u64::try_from(number).ok()?));
        if let (Some(began), Some(timed)) = (began, TIMED.iter().find(|timed| **timed == line.action)) {
            self.took.entry(timed).or_default().add(seconds(line.nanos().saturating_sub(began), 1e9));
        }
        if line.action == "box.die" {
            let how = if number("exit_code") == Some(0) { "zero" } else { "other" };
            *self.ends.entry(how).or_default() += 1;
        }
    }

    /// Phases of starts that were not seen yet.
    fn count_starts(&mut self, boxes: &[BoxRecord]) {
        let mut seen = BTreeSet::new();
        for found in boxes.iter().filter(|found| found.started.is_some()) {
            let start = (found.id.to_string(), found.timings.origin_unix_us);
            if !self.starts.contains(&start) {
                for step in &found.timings.steps {
                    let at = i64::try_from(step.at_us).unwrap_or(i64::MAX);
                    self.phases.entry(step.phase.clone()).or_default().add(seconds(at, 1e6));
                }
            }
            seen.insert(start);
        }
        self.starts = seen;
    }

    fn acts(&self, action: &str, outcome: &str) -> u64 {
        self.acts.get(&(action.to_owned(), outcome.to_owned())).copied().unwrap_or(0)
    }

    fn of_boxes(&self, text: &mut Text, boxes: &[BoxRecord]) {
        let states = [
            BoxState::Created,
            BoxState::Running,
            BoxState::Paused,
            BoxState::Restarting,
            BoxState::Exited,
            BoxState::Dead,
        ];
        let of = |state| boxes.iter().filter(|found| found.state == state).count();
        let rows: Vec<_> = states.iter().map(|state| (label("state", state.word()), count(of(*state)))).collect();
        text.one("boxes", "gauge", "Boxes, by state.", &rows);
        let up = || boxes.iter().filter(|found| found.state.is_up());
        let memory: u64 = up().map(|found| found.options.memory_bytes).sum();
        text.one("boxes_memory_bytes", "gauge", "Memory that boxes that run were given.", &[plain(memory)]);
        let processors: u64 = up().map(|found| u64::from(found.options.vcpus)).sum();
        text.one("boxes_processors", "gauge", "Virtual processors of boxes that run.", &[plain(processors)]);
        let restarts: u64 = boxes.iter().map(|found| u64::from(found.restarts)).sum();
        let help = "Starts by restart policy since boxes were last started by hand.";
        text.one("boxes_restarts", "gauge", help, &[plain(restarts)]);
        for (name, action, help) in [
            ("box_creations_total", "box.create", "Boxes that were made."),
            ("box_starts_total", "box.start", "Boxes that came to run, also by restart policy."),
            ("box_removals_total", "box.destroy", "Boxes that were removed."),
            ("box_pauses_total", "box.pause", "Boxes that were paused."),
        ] {
            text.one(name, "counter", help, &[plain(self.acts(action, "done"))]);
        }
        let ends = |how: &str| self.ends.get(how).copied().unwrap_or(0);
        let rows = ["zero", "other"].map(|how| (label("exit_code", how), ends(how) as f64));
        text.one("box_ends_total", "counter", "Runs that ended, by exit code.", &rows);
        let help = "From the beginning of a start to each phase of it.";
        let phases: Vec<_> = self.phases.iter().map(|(phase, took)| (("phase", &**phase), *took)).collect();
        text.summary("box_start_phase_seconds", help, &phases);
    }

    fn of_acts(&self, text: &mut Text) {
        for (name, action, help) in [
            ("execs_total", "exec", "Programs that were run in boxes, by outcome."),
            ("pulls_total", "pull", "Images that were pulled, by outcome."),
            ("attestations_total", "attest", "Attestations that were asked for, by outcome."),
            ("secret_injections_total", "inject-secret", "Injections of secrets, by outcome."),
            ("secret_refreshes_total", "refresh-secrets", "Refreshes of secrets, by outcome."),
            ("seals_total", "seal", "Data that was sealed, by outcome."),
        ] {
            let all = self.acts.iter().filter(|((known, outcome), _)| known == action && outcome != "begun");
            let mut rows: Vec<_> =
                all.map(|((_, outcome), often)| (label("outcome", outcome), *often as f64)).collect();
            if rows.is_empty() {
                rows.push((label("outcome", "done"), 0.0));
            }
            text.one(name, "counter", help, &rows);
        }
        let sum = |wanted: &dyn Fn(&str) -> bool| -> u64 {
            self.acts.iter().filter(|((_, outcome), _)| wanted(outcome)).map(|(_, often)| *often).sum()
        };
        let failed = sum(&|outcome| !matches!(outcome, "begun" | "done"));
        text.one("failures_total", "counter", "Commands that failed or were refused.", &[plain(failed)]);
        text.one("refusals_total", "counter", "What policies refused.", &[plain(sum(&|outcome| outcome == "refused"))]);
        let rows = TIMED.map(|timed| (("command", timed), self.took.get(timed).copied().unwrap_or_default()));
        text.summary("command_seconds", "How long commands took.", &rows);
        text.one("audit_lines_total", "counter", "Lines of the trail that were read.", &[plain(self.read)]);
        let mended = self.acts("audit.mended", "done");
        text.one("audit_mended_total", "counter", "Repairs of the trail.", &[plain(mended)]);
    }
}

/// What is looked up.
fn of_home(text: &mut Text, engine: &Engine) -> Result<(), CliError> {
    let home = engine.home().map_err(error::of)?;
    let store = images::open(home)?;
    let listing = store.list().map_err(|error| of_image(&error))?;
    text.one("images", "gauge", "Images by name that are kept.", &[plain(listing.images.len() as u64)]);
    let bytes = store.disk().map_err(|error| of_image(&error))?;
    text.one("image_store_bytes", "gauge", "Bytes of the disk that images take.", &[plain(bytes)]);
    let volumes = engine.list_volumes(&NamedFilter::default()).map_err(error::of)?;
    text.one("volumes", "gauge", "Volumes.", &[plain(volumes.len() as u64)]);
    let bytes = volumes.iter().map(|listed| listed.volume.disk_bytes()).sum();
    text.one("volume_bytes", "gauge", "Bytes of the disk that volumes take.", &[plain(bytes)]);
    let networks = engine.list_networks(&NamedFilter::default()).map_err(error::of)?;
    text.one("networks", "gauge", "Networks that boxes share.", &[plain(networks.len() as u64)]);
    let folder = home.trail();
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        bytes += entry.metadata().map_or(0, |found| found.len());
    }
    text.one("audit_bytes", "gauge", "Bytes of the trail.", &[plain(bytes)]);
    Ok(())
}

impl Took {
    fn add(&mut self, seconds: f64) {
        self.count += 1;
        self.seconds += seconds;
    }
}

/// The text that is made.
#[derive(Debug, Default)]
struct Text(String);

impl Text {
    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP coffer_{name} {help}\n# TYPE coffer_{name} {kind}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, rows: &[(String, f64)]) {
        self.begin(name, kind, help);
        for (labels, value) in rows {
            let _ = writeln!(self.0, "coffer_{name}{labels} {value}");
        }
    }

    fn summary(&mut self, name: &str, help: &str, rows: &[((&str, &str), Took)]) {
        self.begin(name, "summary", help);
        for ((key, value), took) in rows {
            let labels = label(key, value);
            let _ = writeln!(
                self.0,
                "coffer_{name}_sum{labels} {}\ncoffer_{name}_count{labels} {}",
                took.seconds, took.count
            );
        }
    }
}

fn label(key: &str, value: &str) -> String {
    format!("{{{key}=\"{}\"}}", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

fn plain(value: u64) -> (String, f64) {
    (String::new(), value as f64)
}

fn count(value: usize) -> f64 {
    value as f64
}

/// A clock that was set back makes nothing negative.
fn seconds(value: i64, per_second: f64) -> f64 {
    value.max(0) as f64 / per_second
}
