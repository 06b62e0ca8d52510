//! What a restored state folder has not, because no backup holds it.

use std::path::{Path, PathBuf};

use crate::{
    config::ConfigFile,
    state::{ADMIN_SERVER, PROFILE, SERVER, checkpoint_path, config_path},
};

/// What somebody must bring before the folder is what it was, in words.
pub fn lacking(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for (name, what) in [(SERVER, "the identity that guests pin"), (ADMIN_SERVER, "that of the operators' listener")] {
        if !folder.join(name).exists() {
            all.push(format!("{name}: {what}"));
        }
    }
    if !folder.join(PROFILE).exists() {
        all.push(format!(
            "{PROFILE}: the first operator's profile, which works as before where that operator keeps it"
        ));
    }
    match ConfigFile::read(&config_path(folder)) {
        Err(error) => all.push(coffer_rim::chain(&error)),
        Ok(file) => {
            let files = file.files().into_iter();
            let missing = files.filter(|(_, path)| !folder.join(path).exists());
            all.extend(missing.map(|(field, path)| format!("{}: {field} of config.toml names it", path.display())));
            if file.checkpoint.is_some() {
                let place = checkpoint_path(folder);
                all.push(format!(
                    "the checkpoint: config.toml has it at {}, where this restore began one",
                    place.display()
                ));
            }
        }
    }
    all
}

impl ConfigFile {
    /// Files that it names beside the checkpoint, each with the key that does.
    fn files(&self) -> Vec<(String, PathBuf)> {
        let mut files = Vec::new();
        files.extend(self.policies.iter().map(|(name, path)| (format!("policies.{name}"), path.clone())));
        let endorsements = self.endorsements.iter().enumerate();
        files.extend(endorsements.map(|(at, path)| (format!("endorsements[{at}]"), path.clone())));
        let floors = std::iter::once(("floor".to_owned(), self.floor.clone()));
        let floors = floors
            .chain(self.tenants.iter().map(|(name, tenant)| (format!("tenants.{name}.floor"), tenant.floor.clone())));
        files.extend(floors.filter_map(|(field, floor)| Some((field, crate::floors::file(floor.as_deref()?)?))));
        files
    }
}
