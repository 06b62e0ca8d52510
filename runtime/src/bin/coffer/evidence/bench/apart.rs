//! A program that is measured: found beside this one, on a processor of its own, its memory and its processor time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use super::figures::broken;
use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};

/// The program that was named, or the one of this name beside this program.
pub fn program(named: Option<&Path>, name: &str, context: &Context) -> Result<PathBuf, CliError> {
    let found = named.map(Path::to_owned).or_else(|| Some(context.search.exe_folder.as_ref()?.join(name)));
    let missing = match &found {
        Some(program) if program.is_file() => return Ok(program.clone()),
        Some(program) => format!("{}: no such program", program.display()),
        None => format!("no {name} beside this program"),
    };
    Err(CliError::new(Class::Config, missing).hint(format!("install {name} beside coffer, or name it with --program")))
}

/// A server that is measured: a process of its own on a fresh state folder, gone when this value is.
pub struct Served {
    process: Child,
    /// What it said when it was ready.
    pub ready: Value,
}

impl Served {
    /// Makes a state folder below `folder` with these words of `init`, has `configure` change what was written, and serves. Gives the
    /// folder, and what `init` said.
    pub fn start(
        program: &Path,
        folder: &Path,
        init: &[&str],
        configure: impl FnOnce(&Path) -> Result<(), CliError>,
    ) -> Result<(Self, PathBuf, Vec<u8>), CliError> {
        let (state, ready) = (folder.join("state"), folder.join("ready"));
        let running = || format!("running {}", program.display());
        let made = Command::new(program).args(init).arg("--state").arg(&state).output();
        let made = made.class_while(Class::Config, running())?;
        if !made.status.success() {
            let said = [made.stderr, made.stdout].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
            return Err(CliError::new(Class::Config, format!("{} init: {said}", program.display())));
        }
        configure(&state.join("config.toml"))?;
        let process = Command::new(program)
            .args(["serve", "--state"])
            .arg(&state)
            .arg("--ready-file")
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .class_while(Class::Config, running())?;
        let mut served = Self { process, ready: Value::Null };
        let until = Instant::now() + Duration::from_secs(20);
        while !ready.exists() {
            if Instant::now() > until || served.process.try_wait().is_ok_and(|ended| ended.is_some()) {
                let name = program.file_name().unwrap_or_default().to_string_lossy();
                return Err(CliError::new(Class::Config, format!("the {name} to measure did not start")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        served.ready = serde_json::from_slice(&fs::read(&ready).class(Class::Config)?).class(Class::Internal)?;
        Ok((served, state, made.stdout))
    }

    /// What it said of this name when it was ready.
    pub fn said<T: FromStr>(&self, name: &'static str) -> Result<T, CliError> {
        self.ready[name].as_str().and_then(|text| text.parse().ok()).ok_or_else(|| broken(name))
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Which processor is whose, where there are two.
#[derive(Clone, Copy)]
pub struct Apart {
    of_the_program: usize,
    of_the_load: usize,
}

impl Apart {
    /// Does something on the processor of the program, which has nothing to do meanwhile: two of a virtual machine may differ in
    /// what they do in a second.
    pub fn there<T>(self, work: impl FnOnce() -> Result<T, CliError>) -> Result<T, CliError> {
        pin(self.of_the_program)?;
        let done = work();
        pin(self.of_the_load)?;
        done
    }
}

/// Starts something on a processor of its own, and leaves this thread, and those it makes, another; nothing of it if there is only one.
pub fn apart<T>(start: impl FnOnce() -> Result<T, CliError>) -> Result<(T, Option<Apart>), CliError> {
    let allowed = sched_getaffinity(None).class_while(Class::Internal, "asking for the processors")?;
    let mut processors = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    let pair = processors.next().zip(processors.next());
    let pair = pair.map(|(of_the_program, of_the_load)| Apart { of_the_program, of_the_load });
    let Some(pair) = pair else { return Ok((start()?, None)) };
    pin(pair.of_the_program)?;
    let started = start();
    pin(pair.of_the_load)?;
    Ok((started?, Some(pair)))
}

fn pin(processor: usize) -> Result<(), CliError> {
    let mut only = CpuSet::new();
    only.set(processor);
    sched_setaffinity(None, &only).class_while(Class::Internal, "choosing a processor")
}

/// Resident memory of a process, in bytes.
pub fn resident(process: u32) -> Result<u64, CliError> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).class(Class::Internal)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.map(|number| number * 1024).ok_or_else(|| broken("memory of the program"))
}

/// Processor time of this process.
pub fn own_processor_time() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    // It is counted from nothing: neither part is ever below it.
    Duration::new(spent.tv_sec.try_into().unwrap_or(0), spent.tv_nsec.try_into().unwrap_or(0))
}

/// Processor time of all threads that another process has now, in steps of a nanosecond: to where the kernel looked last, which is when
/// a thread waits, or some milliseconds ago.
pub fn processor_time(process: u32) -> Result<Duration, CliError> {
    let mut all = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{process}/task")).class(Class::Internal)?.flatten() {
        // One that has ended meanwhile has none.
        let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
        let spent = text.split(' ').next().and_then(|spent| spent.parse().ok());
        all += Duration::from_nanos(spent.ok_or_else(|| broken("processor time of the program"))?);
    }
    Ok(all)
}
