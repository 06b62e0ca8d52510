//! One line per step with its time, and a summary at the end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Prints steps and remembers how they went.
pub struct Screen {
    started: Instant,
    steps: usize,
    refusals: Vec<(String, String)>,
}

impl Screen {
    pub fn new() -> Self {
        Self { started: Instant::now(), steps: 0, refusals: Vec::new() }
    }

    /// Runs a step and prints its line; what it returns beside its value stands in the line.
    ///
    /// # Errors
    /// The step's own, with its title.
    pub fn step<T>(&mut self, title: &str, work: impl FnOnce() -> Result<(T, String)>) -> Result<T> {
        let start = Instant::now();
        let (value, note) = work().with_context(|| format!("step `{title}` did not go as told"))?;
        self.steps += 1;
        line("ok", title, start.elapsed(), &note);
        Ok(value)
    }

    /// Runs an attack, which must be refused; `work` gives the reason it was refused for.
    ///
    /// # Errors
    /// If it was not refused, or for another reason.
    pub fn attack(&mut self, title: &str, work: impl FnOnce() -> Result<String>) -> Result<()> {
        let start = Instant::now();
        let reason = work().with_context(|| format!("attack `{title}` was not refused as it must be"))?;
        line("refused", title, start.elapsed(), &reason);
        self.refusals.push((title.into(), reason));
        Ok(())
    }

    /// The summary.
    pub fn finish(&self, place: &str) {
        println!();
        println!(
            "All {} steps went as told and all {} attacks were refused, in {:.0} s.",
            self.steps,
            self.refusals.len(),
            self.started.elapsed().as_secs_f64()
        );
        println!(
            "What you saw: an image from a registry ran in {place} of its own; the guest proved to the key broker what it is"
        );
        println!(
            "and got the secret it was meant to have; its owner attested it, injected a value and sealed data that only this"
        );
        println!(
            "workload on this chip can open, and that outlived an upgrade of the platform; a client read a page from the very"
        );
        println!(
            "guest it had named. A host that changed the platform, the command, the evidence or the guest got nothing:"
        );
        for (title, reason) in &self.refusals {
            println!("  - {title}: {reason}");
        }
        println!("The secure processor was SIMULATED: this shows the flow and its checks, and protects nothing.");
    }
}

fn line(mark: &str, title: &str, time: Duration, note: &str) {
    println!("{mark:>8}  {title:<58} {:>6.2} s  {note}", time.as_secs_f64());
}
