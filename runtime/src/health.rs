//! Health of a box: how it is looked at, and what was seen. It says something, and does nothing: no box is started again or ended for it.
//!
//! What a look writes is the guest's own text; whoever shows it escapes it.
//! Source: Docker's image specification 1.2, "Healthcheck"; Docker Engine API 1.47, `Health`.

use std::io;
use std::path::Path;

use coffer_image::Healthcheck;
use coffer_rim::file::write_private;
use coffer_rim::{Class, Failure, input};
use serde::{Deserialize, Serialize};

/// Its file in a box's folder.
pub const FILE: &str = "health.json";

/// How a box's health is looked at. Times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// As Docker has it: `CMD` and a program with its arguments, or `CMD-SHELL` and a line for the shell.
    pub test: Vec<String>,
    /// Between one look and the next.
    pub interval_ms: u64,
    /// Of one look.
    pub timeout_ms: u64,
    /// In which failures do not count, until it was healthy once.
    pub start_period_ms: u64,
    /// Between looks in that time.
    pub start_interval_ms: u64,
    /// Failures, one after the other, that make it unhealthy.
    pub retries: u32,
}

/// What was said of it when the box was made. What was not said is the image's word, and then Docker's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthWords {
    /// Nobody looks, whatever the image says.
    pub none: bool,
    /// A line for the shell.
    pub command: Option<String>,
    /// As in [`HealthCheck`].
    pub interval_ms: Option<u64>,
    /// As in [`HealthCheck`].
    pub timeout_ms: Option<u64>,
    /// As in [`HealthCheck`].
    pub start_period_ms: Option<u64>,
    /// As in [`HealthCheck`].
    pub start_interval_ms: Option<u64>,
    /// As in [`HealthCheck`].
    pub retries: Option<u32>,
}

/// What an image may ask for: between a second and a day.
const LEAST_OF_IMAGE_MS: u64 = 1_000;
const MOST_OF_IMAGE_MS: u64 = 24 * 3_600_000;

/// Docker's own, in milliseconds: of interval and timeout, and of looks in the start period.
const USUAL_MS: u64 = 30_000;
const USUAL_START_MS: u64 = 5_000;
const USUAL_RETRIES: u32 = 3;

impl HealthWords {
    /// Whether anything was said for a look.
    pub fn ask_for_looks(&self) -> bool {
        !self.none && *self != Self::default()
    }

    /// What comes of it for a box of this image.
    ///
    /// # Errors
    /// Class `usage` for times of a look that nobody takes.
    pub fn over(&self, image: Option<&Healthcheck>) -> Result<Option<HealthCheck>, Failure> {
        if self.none {
            return Ok(None);
        }
        let said = image.cloned().unwrap_or_default();
        let test = match &self.command {
            Some(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
            None => said.test,
        };
        let looks = matches!(test.first().map(String::as_str), Some("CMD" | "CMD-SHELL")) && test.len() > 1;
        if !looks {
            return if self.ask_for_looks() {
                let message = "nothing looks at this box's health, so that times of it mean nothing";
                Err(Failure::new(Class::Usage, message)
                    .hint("say what looks, as a line for its shell: --health-cmd LINE"))
            } else {
                Ok(None)
            };
        }
        let time = |own: Option<u64>, image: i64, usual| {
            let of_image = u64::try_from(image).ok().filter(|nanos| *nanos > 0).map(|nanos| nanos.div_ceil(1_000_000));
            // The host's supervisor looks: how often, and for how long it waits, an image does not have it do as it likes.
            let of_image = of_image.map(|ms| ms.clamp(LEAST_OF_IMAGE_MS, MOST_OF_IMAGE_MS));
            own.filter(|own| *own > 0).or(of_image).unwrap_or(usual)
        };
        let of_image = u32::try_from(said.retries).unwrap_or(0);
        let retries = self.retries.filter(|own| *own > 0).or(Some(of_image).filter(|count| *count > 0));
        Ok(Some(HealthCheck {
            test,
            interval_ms: time(self.interval_ms, said.interval, USUAL_MS),
            timeout_ms: time(self.timeout_ms, said.timeout, USUAL_MS),
            start_period_ms: time(self.start_period_ms, said.start_period, 0),
            start_interval_ms: time(self.start_interval_ms, said.start_interval, USUAL_START_MS),
            retries: retries.unwrap_or(USUAL_RETRIES),
        }))
    }
}

impl HealthCheck {
    /// The program, and its arguments.
    pub fn argv(&self) -> Vec<String> {
        let shell = self.test.first().is_some_and(|word| word == "CMD-SHELL");
        let before: &[&str] = if shell { &["/bin/sh", "-c"] } else { &[] };
        before.iter().map(|word| (*word).to_owned()).chain(self.test.iter().skip(1).cloned()).collect()
    }
}

/// What is known of a box's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Not yet.
    #[default]
    Starting,
    /// The last look, or one of the last few, was well.
    Healthy,
    /// As many as there were retries were not.
    Unhealthy,
}

impl HealthStatus {
    /// The word in filters and documents.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }

    /// From the word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Starting, Self::Healthy, Self::Unhealthy].into_iter().find(|status| status.word() == word)
    }
}

/// One look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Look {
    /// Unix milliseconds.
    pub start: i64,
    /// Unix milliseconds.
    pub end: i64,
    /// Of the program; -1 where there is none.
    pub exit_code: i32,
    /// What it wrote, its beginning, or why there is no exit code. Foreign text.
    pub output: String,
}

/// Health of a box that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// By now.
    pub status: HealthStatus,
    /// Failures that count, one after the other, up to now.
    pub failing_streak: u32,
    /// The last looks, oldest first.
    pub log: Vec<Look>,
}

/// Looks that are kept.
const MOST_LOOKS: usize = 5;
/// Bytes of the file: each byte of an output may be written as six.
const LONGEST: u64 = 6 * (MOST_LOOKS * Health::MOST_OUTPUT) as u64 + 4096;

impl Health {
    /// Bytes of an output that are kept.
    pub const MOST_OUTPUT: usize = 4096;

    /// Takes a look into account; gives the status if it is another one now. `excused`: it began in the start period.
    pub fn note(&mut self, look: Look, check: &HealthCheck, excused: bool) -> Option<HealthStatus> {
        let before = self.status;
        if look.exit_code == 0 {
            (self.status, self.failing_streak) = (HealthStatus::Healthy, 0);
        } else if !(excused && before == HealthStatus::Starting) {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= check.retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        self.log.push(look);
        let old = self.log.len().saturating_sub(MOST_LOOKS);
        self.log.drain(..old);
        (self.status != before).then_some(self.status)
    }

    /// Writes it beside the box's other files.
    ///
    /// # Errors
    /// The file's.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        write_private(&folder.join(FILE), &serde_json::to_vec(self)?)
    }

    /// Of a box that runs; one that was not looked at yet is starting.
    ///
    /// # Errors
    /// Class `config` for a file that cannot be read.
    pub fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(FILE);
        let failed =
            |why: &dyn std::fmt::Display| Failure::new(Class::Config, format!("cannot read {}: {why}", path.display()));
        match std::fs::File::open(&path).and_then(|file| input::all(file, LONGEST)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(&error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(failed(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(retries: u32) -> HealthCheck {
        let words = HealthWords { command: Some("x".into()), retries: Some(retries), ..HealthWords::default() };
        words.over(None).unwrap().unwrap()
    }

    fn look(exit_code: i32) -> Look {
        Look { start: 1, end: 2, exit_code, output: "said".into() }
    }

    #[test]
    fn what_was_said_goes_before_the_image_and_that_before_what_is_usual() {
        let image = Healthcheck {
            test: vec!["CMD".into(), "look".into(), "x".into()],
            interval: 2_000_000_000,
            retries: 7,
            timeout: -1,
            ..Healthcheck::default()
        };
        let of_image = HealthWords::default().over(Some(&image)).unwrap().unwrap();
        let odd = Healthcheck { interval: 1, timeout: i64::MAX, ..image.clone() };
        let odd = HealthWords::default().over(Some(&odd)).unwrap().unwrap();
        assert_eq!((odd.interval_ms, odd.timeout_ms), (LEAST_OF_IMAGE_MS, MOST_OF_IMAGE_MS));
        assert_eq!(of_image.argv(), ["look", "x"]);
        assert_eq!((of_image.interval_ms, of_image.timeout_ms, of_image.retries), (2000, 30_000, 7));
        assert_eq!((of_image.start_period_ms, of_image.start_interval_ms), (0, 5000));
        let words = HealthWords {
            command: Some("a b".into()),
            timeout_ms: Some(9),
            retries: Some(1),
            ..HealthWords::default()
        };
        let said = words.over(Some(&image)).unwrap().unwrap();
        assert_eq!(said.argv(), ["/bin/sh", "-c", "a b"]);
        assert_eq!((said.interval_ms, said.timeout_ms, said.retries), (2000, 9, 1));
        let none = HealthWords { none: true, ..HealthWords::default() };
        assert_eq!(none.over(Some(&image)).unwrap(), None);
        for test in [vec![], vec!["NONE".to_owned()], vec!["CMD".to_owned()], vec!["odd".to_owned(), "x".to_owned()]] {
            let nothing = Healthcheck { test, ..image.clone() };
            assert_eq!(HealthWords::default().over(Some(&nothing)).unwrap(), None);
            let times = HealthWords { retries: Some(2), ..HealthWords::default() };
            assert_eq!(times.over(Some(&nothing)).unwrap_err().class, Class::Usage);
        }
    }

    #[test]
    fn as_many_failures_as_there_are_retries_make_it_unhealthy_and_one_success_healthy() {
        let (check, mut health) = (check(3), Health::default());
        assert_eq!([1, 1].map(|code| health.note(look(code), &check, false)), [None, None]);
        assert_eq!(health.note(look(-1), &check, false), Some(HealthStatus::Unhealthy));
        assert_eq!((health.note(look(2), &check, false), health.failing_streak), (None, 4));
        assert_eq!(health.note(look(0), &check, false), Some(HealthStatus::Healthy));
        assert_eq!((health.note(look(1), &check, true), health.failing_streak), (None, 1));
        assert_eq!((health.status, health.log.len()), (HealthStatus::Healthy, 5));
    }

    #[test]
    fn failures_of_the_start_period_do_not_count_until_it_was_healthy_once() {
        let (check, mut health) = (check(1), Health::default());
        assert_eq!((health.note(look(1), &check, true), health.failing_streak), (None, 0));
        assert_eq!(health.note(look(0), &check, true), Some(HealthStatus::Healthy));
        assert_eq!(health.note(look(1), &check, true), Some(HealthStatus::Unhealthy));
    }

    #[test]
    fn it_is_read_as_it_was_written_and_what_is_damaged_is_said() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Health::read(dir.path()).unwrap(), Health::default());
        let mut health = Health::default();
        for _ in 0..9 {
            health.note(Look { output: "\u{1}".repeat(Health::MOST_OUTPUT), ..look(0) }, &check(1), false);
        }
        health.write(dir.path()).unwrap();
        assert_eq!(Health::read(dir.path()).unwrap(), health);
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(Health::read(dir.path()).unwrap_err().class, Class::Config);
    }
}
