//! How far an operation is, for people: bars on a terminal, else one line per step.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};

use coffer_image::{Digest, Progress};
use coffer_rim::foreign;
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
        Progress::Retrying { what, attempt, reason } => eprintln!("{}", retry(what, *attempt, reason)),
        _ => {}
    }
}

/// A registry had its hand in the reason.
fn retry(what: &str, attempt: u32, reason: &str) -> String {
    format!("{}: retry {attempt}: {}", foreign(what), foreign(reason))
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
            Progress::Retrying { what, attempt, reason } => {
                let _ = all.println(retry(what, *attempt, reason));
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
        assert_eq!(retry("a:1", 2, "503: \u{1b}]0;x\u{7}"), "a:1: retry 2: 503: \\u{1b}]0;x\\u{7}");
    }
}
