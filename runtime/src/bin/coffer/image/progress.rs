//! How far an operation is, for people: bars on a terminal, else one line per step.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coffer_image::{Digest, Dropped, Progress};
use coffer_rim::foreign;
use coffer_rim::foreign::foreign_at_most;
use coffer_runtime::engine::{self, ProgressFn};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Shows progress on standard error, unless nobody wants it.
pub fn shown(quiet: bool) -> Option<ProgressFn> {
    if quiet {
        return None;
    }
    let pull: Box<dyn Fn(&Progress) + Send + Sync> =
        if std::io::stderr().is_terminal() { Box::new(bars()) } else { Box::new(line) };
    Some(Arc::new(move |step| match step {
        engine::Progress::ImageMissing { name } => eprintln!("Unable to find image '{}' locally", foreign(name)),
        engine::Progress::Pull(step) => pull(step),
        engine::Progress::ImagesRemoved { names } => removed(names),
        engine::Progress::OddVariable { entry, why } => {
            eprintln!("warning: an ENV entry of the image is left out, {why}: {}", foreign_at_most(entry, 80));
        }
        engine::Progress::HealthLeftOut => {
            eprintln!("warning: the image's HEALTHCHECK is left out: the host may run nothing in this box");
        }
        _ => {}
    }))
}

fn line(progress: &Progress) {
    let short = |digest: &Digest| digest.hex().chars().take(12).collect::<String>();
    match progress {
        Progress::Resolved { layers, .. } => {
            for (layer, _) in layers {
                eprintln!("{}: Pulling fs layer", short(layer));
            }
        }
        Progress::Present { layer } => eprintln!("{}: Already exists", short(layer)),
        Progress::Stored { layer } => eprintln!("{}: Pull complete", short(layer)),
        Progress::Retrying { what, attempt, reason, wait } => eprintln!("{}", retry(what, *attempt, reason, *wait)),
        Progress::NextRegistry { mirror, reason } => eprintln!("{}", next_registry(mirror, reason)),
        Progress::LeftOut(dropped) => eprintln!("{}", left_out(*dropped)),
        Progress::Sent { blob, present: true } => eprintln!("{}: Already there", short(blob)),
        Progress::Sent { blob, .. } => eprintln!("{}: Pushed", short(blob)),
        _ => {}
    }
}

/// What of the image is not in its root file system.
pub fn left_out(dropped: Dropped) -> String {
    let Dropped { devices, attributes, volumes } = dropped;
    let some = |count: u64, what: &str| (count > 0).then(|| format!("{count} {what}"));
    let parts = [
        some(devices, "device nodes (the guest's /dev is its own)"),
        some(attributes, "extended attributes"),
        some(volumes, "VOLUME paths where no folder can be"),
    ];
    format!("warning: left out of the image: {}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

/// A registry had its hand in the reason.
fn retry(what: &str, attempt: u32, reason: &str, wait: Duration) -> String {
    let when = if wait < Duration::from_secs(1) { String::new() } else { format!(" in {} s", wait.as_secs()) };
    format!("{}: retry {attempt}{when}: {}", foreign(what), foreign(reason))
}

fn next_registry(mirror: &str, reason: &str) -> String {
    format!("mirror {}: {}; the next registry is asked", foreign(mirror), foreign(reason))
}

/// Says which images went.
pub fn removed(names: &[String]) {
    for name in names {
        eprintln!("removed, to keep images to their limit: {}", foreign(name));
    }
}

/// Says of a push what is done, a line for each part.
pub fn lines(quiet: bool) -> Option<ProgressFn> {
    (!quiet).then(|| -> ProgressFn {
        Arc::new(|step| {
            if let engine::Progress::Pull(step) = step {
                line(step);
            }
        })
    })
}

/// One bar per layer.
fn bars() -> impl Fn(&Progress) + Send + Sync {
    let all = MultiProgress::new();
    let layers: Mutex<BTreeMap<Digest, ProgressBar>> = Mutex::default();
    let style = ProgressStyle::with_template("{prefix}: {msg:18} {bar:30} {bytes}/{total_bytes}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    move |progress: &Progress| {
        let mut layers = layers.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            Progress::Resolved { layers: found, .. } => {
                for (layer, size) in found {
                    let bar = all.add(ProgressBar::new(*size).with_style(style.clone()));
                    bar.set_prefix(layer.hex().chars().take(12).collect::<String>());
                    bar.set_message("Pulling fs layer");
                    layers.insert(*layer, bar);
                }
            }
            Progress::Present { layer } => finish(&layers, layer, "Already exists"),
            Progress::Stored { layer } => finish(&layers, layer, "Pull complete"),
            Progress::Downloading { layer, done, .. } => {
                if let Some(bar) = layers.get(layer) {
                    bar.set_message("Downloading");
                    bar.set_position(*done);
                }
            }
            Progress::Retrying { what, attempt, reason, wait } => {
                let _ = all.println(retry(what, *attempt, reason, *wait));
            }
            Progress::NextRegistry { mirror, reason } => {
                let _ = all.println(next_registry(mirror, reason));
            }
            Progress::LeftOut(dropped) => {
                let _ = all.println(left_out(*dropped));
            }
            _ => {}
        }
    }
}

fn finish(layers: &BTreeMap<Digest, ProgressBar>, layer: &Digest, word: &'static str) {
    if let Some(bar) = layers.get(layer) {
        bar.set_position(bar.length().unwrap_or(0));
        bar.finish_with_message(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_words_cannot_drive_the_terminal() {
        let (now, later) = (Duration::from_millis(500), Duration::from_secs(7));
        assert_eq!(retry("a:1", 2, "503: \u{1b}]0;x\u{7}", now), "a:1: retry 2: 503: \\u{1b}]0;x\\u{7}");
        assert_eq!(retry("a:1", 1, "429", later), "a:1: retry 1 in 7 s: 429");
    }
}
