//! Progress bars of a pull on a terminal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use coffer_image::{Digest, Progress, ProgressFn};
use coffer_rim::Foreign;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// One bar per layer.
pub fn bars() -> ProgressFn {
    let all = MultiProgress::new();
    let layers: Mutex<BTreeMap<Digest, ProgressBar>> = Mutex::default();
    let style = ProgressStyle::with_template("{prefix}: {msg:18} {bar:30} {bytes}/{total_bytes}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    Arc::new(move |progress: &Progress| {
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
                let _ = all.println(format!("{}: retry {attempt}: {}", Foreign(what), Foreign(reason)));
            }
            _ => {}
        }
    })
}

fn finish(layers: &BTreeMap<Digest, ProgressBar>, layer: &Digest, word: &'static str) {
    if let Some(bar) = layers.get(layer) {
        bar.set_position(bar.length().unwrap_or(0));
        bar.finish_with_message(word);
    }
}
