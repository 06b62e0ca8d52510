//! `coffer system df`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use coffer_image::Image;
use coffer_runtime::engine::{Filter, NamedFilter};
use coffer_runtime::images::{self, of_image};
use serde_json::json;

use crate::context::Context;
use crate::error::{self, CliError};
use crate::table;

/// Show what images, boxes and volumes take of the disk.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "What images share counts once. Reclaimable is what no box uses (`coffer image prune --all`, `coffer volume rm`), and what boxes take that do not run (`coffer prune`).

Examples:
  coffer system df
  coffer --json system df"
)]
pub struct Args {}

/// One kind of thing.
#[derive(Debug, Default, PartialEq, Eq)]
struct Kind {
    total: usize,
    active: usize,
    bytes: u64,
    reclaimable: u64,
}

impl Kind {
    fn add(&mut self, active: bool, bytes: u64) {
        self.total += 1;
        self.active += usize::from(active);
        self.bytes += bytes;
        self.reclaimable += if active { 0 } else { bytes };
    }

    fn row(&self, name: &str) -> Vec<String> {
        let percent = (self.reclaimable * 100).checked_div(self.bytes).unwrap_or(0);
        vec![
            name.into(),
            self.total.to_string(),
            self.active.to_string(),
            table::size(self.bytes),
            format!("{} ({percent}%)", table::size(self.reclaimable)),
        ]
    }

    fn json(&self, name: &str) -> serde_json::Value {
        json!({
            "type": name, "total": self.total, "active": self.active, "bytes": self.bytes,
            "reclaimable_bytes": self.reclaimable,
        })
    }
}

/// Shows it.
pub fn run(_: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    let boxes = engine.list(&Filter::default()).map_err(error::of)?;
    let home = context.open_home()?;
    let store = images::open(&home)?;
    let listing = store.list().map_err(|error| of_image(&error))?;
    let (mut of_images, mut of_boxes, mut of_volumes) = (Kind::default(), Kind::default(), Kind::default());
    let uses = |image: &Image| boxes.iter().any(|found| found.options.image_digest == image.config_digest.to_string());
    let used: Vec<_> = listing.images.iter().filter(|image| uses(image)).collect();
    // Of one image there may be several names.
    let different = |images: &mut dyn Iterator<Item = &Image>| {
        images.map(|image| image.config_digest).collect::<BTreeSet<_>>().len()
    };
    of_images.total = different(&mut listing.images.iter());
    of_images.active = different(&mut used.iter().copied());
    // What leads to no image is there as well, and can go.
    of_images.bytes = store.disk().map_err(|error| of_image(&error))?;
    of_images.reclaimable = of_images.bytes.saturating_sub(store.taken_together(used));
    for found in &boxes {
        of_boxes.add(found.state.is_up(), engine.disk_bytes(found).map_err(error::of)?);
    }
    for listed in engine.list_volumes(&NamedFilter::default()).map_err(error::of)? {
        of_volumes.add(!listed.boxes.is_empty(), listed.volume.disk_bytes());
    }
    if context.json {
        println!(
            "{}",
            json!({ "kinds": [of_images.json("images"), of_boxes.json("boxes"), of_volumes.json("volumes")] })
        );
    } else {
        let rows = [of_images.row("Images"), of_boxes.row("Boxes"), of_volumes.row("Volumes")];
        table::print(&["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"], &rows);
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_is_not_reclaimable() {
        let mut kind = Kind::default();
        assert_eq!(kind.row("X")[4], "0B (0%)");
        kind.add(true, 3_000);
        kind.add(false, 1_000);
        assert_eq!(kind, Kind { total: 2, active: 1, bytes: 4_000, reclaimable: 1_000 });
        assert_eq!(kind.row("X"), ["X", "2", "1", "4.00kB", "1.00kB (25%)"]);
    }
}
