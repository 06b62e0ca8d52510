//! What about a state folder is not as it should be, for its operator. Changes nothing, and works beside a running server.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use coffer_rim::regular;

use crate::{
    clock::Clock,
    config::{Config, ConfigError, ConfigFile},
    mend::UNCONFIRMED,
    operators::doubled,
    reload::named_and_gone,
    server_key::{Listener, ServerKeys, server_keys},
    state::{DATABASE, PROFILE, ROOT_KEY, UNUSED_ROOT_KEY, checkpoint_path, config_path, open_store},
    store::{Restored, Store, StoreError},
    tenants::missing,
};

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// As it should be.
    Good,
    /// It works, and somebody should know.
    Warning,
    /// The broker does not start, or refuses something.
    Broken,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// How it is.
    pub weight: Weight,
    /// What was found.
    pub what: String,
    /// What the operator can do; empty where nothing is to be done.
    pub hint: String,
}

/// Looks at everything.
pub async fn examine(folder: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    folder_and_key(folder, &mut found);
    whose(folder, &mut found);
    checkpoint(folder, &mut found);
    room(folder, &mut found);
    next_keys(folder, &mut found);
    let config = configuration(folder, &mut found);
    match open_store(folder).await {
        Err(error) => found.push(broken(&coffer_rim::chain(&error), error.hint())),
        Ok(store) => {
            state(&store, &mut found).await;
            if let Err(error) = beside_the_state(&store, config.as_ref(), &mut found).await {
                found.push(broken(&coffer_rim::chain(&error), error.hint()));
            }
        }
    }
    found
}

async fn state(store: &Store, found: &mut Vec<Finding>) {
    match store.verify_state().await {
        Ok(summary) if summary.faults.is_empty() => {
            found.push(good(format!("state holds: {} rows, {} audit lines", summary.rows, summary.lines)));
            if !summary.inputs_gone.is_empty() {
                let count = summary.inputs_gone.len();
                let hint = "find out who took rows away; no policy can be tried on these decisions";
                let plural = if count == 1 { "" } else { "s" };
                found.push(warning(&format!("what policies saw of {count} decision{plural} is gone"), hint));
            }
        }
        Ok(summary) => {
            let hint = "coffer-kbs state repair --state DIR says what it would do";
            found.extend(summary.faults.iter().map(|fault| broken(&fault.what, hint)));
        }
        Err(error) => found.push(broken(&coffer_rim::chain(&error), error.hint())),
    }
}

/// What rows and configuration say together.
async fn beside_the_state(store: &Store, config: Option<&Config>, found: &mut Vec<Finding>) -> Result<(), StoreError> {
    let mut view = store.read().await?;
    // A row that is not believed was named with the state.
    if let Ok(Some(Restored { confirmed_unix: None, .. })) = view.restored().await {
        found.push(warning("an older state was accepted, and no owner has confirmed it", UNCONFIRMED));
    }
    let Some(config) = config else { return Ok(()) };
    for stale in config.stale_lists(Clock::system().now()) {
        let hint = "get the newest list (`coffer collateral fetch`), put it in the file's place and send the broker SIGHUP, or `coffer kbs crl put`";
        found.push(warning(&stale, hint));
    }
    if let Some(missing) = missing(&mut view, config) {
        found.push(broken(&missing.to_string(), missing.hint()));
    }
    for doubled in doubled(&mut view, &config.admins).await? {
        let hint = "the trail does not tell them apart: give one of them another name, or `coffer kbs admin remove` the one that is not needed";
        found.push(warning(&doubled, hint));
    }
    for named in named_and_gone(&mut view, |name| !config.policies.has(name)).await? {
        found.push(warning(&named, "nothing of that is released: put the policy back, or name another one"));
    }
    Ok(())
}

fn folder_and_key(folder: &Path, found: &mut Vec<Finding>) {
    match fs::metadata(folder) {
        Ok(metadata) if metadata.permissions().mode().trailing_zeros() >= 6 => {
            found.push(good("only its owner reaches the folder"));
        }
        Ok(_) => found.push(warning("others reach the state folder", "chmod 700 it")),
        Err(error) => found.push(broken(&format!("{}: {error}", folder.display()), "name a state folder")),
    }
    if folder.join(ROOT_KEY).exists() {
        let hint = "whoever copies the folder has everything: keep backups of root.key and kbs.db apart, or encrypted";
        found.push(warning("the root key lies beside the database", hint));
    }
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    for name in names.filter(|name| name.to_string_lossy().starts_with(UNUSED_ROOT_KEY)) {
        let what = format!("{} is a root key that came to nothing, of a change that was cut off", name.display());
        found.push(warning(
            &what,
            "once `coffer-kbs state verify` holds, and no backup of then is missed, remove it (shred -u)",
        ));
    }
    if folder.join(PROFILE).exists() {
        found.push(warning(
            "the first operator's profile, with its private key, lies on the broker",
            "move admin.toml to where the operator works",
        ));
    }
}

/// Files that the folder's owner, as whom the broker runs, may not read: root made them, mostly.
fn whose(folder: &Path, found: &mut Vec<Finding>) {
    let Ok(owner) = fs::metadata(folder).map(|there| there.uid()) else { return };
    let inside = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in inside.chain([checkpoint_path(folder)]).collect::<BTreeSet<_>>() {
        let Ok(there) = fs::symlink_metadata(&path) else { continue };
        if there.is_file() && there.uid() != owner && there.mode().trailing_zeros() >= 6 {
            let what = format!("{} belongs to user {}, the state folder to user {owner}", path.display(), there.uid());
            let hint = format!("chown --reference={} {}", folder.display(), path.display());
            found.push(broken(&what, &hint));
        }
    }
}

/// Whether there is room to record anything.
fn room(folder: &Path, found: &mut Vec<Finding>) {
    let Ok(there) = rustix::fs::statvfs(folder) else { return };
    found.extend(little(there.f_bavail.saturating_mul(there.f_frsize)));
}

fn little(bytes: u64) -> Option<Finding> {
    let hint = "make room there: what cannot be recorded is neither changed nor released";
    if bytes < FULL {
        return Some(broken("the disk of the state folder is full", hint));
    }
    (bytes < LITTLE)
        .then(|| warning(&format!("the disk of the state folder has room for {} MiB more", bytes >> 20), hint))
}

/// No commit fits.
const FULL: u64 = 64 * 1024;
/// Some thousands of decisions.
const LITTLE: u64 = 64 * 1024 * 1024;

/// Next keys of the listeners: one that waits is to be switched to some day.
fn next_keys(folder: &Path, found: &mut Vec<Finding>) {
    for listener in Listener::ALL {
        match server_keys(folder, listener) {
            Ok(ServerKeys { next: Some(next), .. }) => {
                let whose = listener.whose();
                let hint = format!(
                    "once all who pin the present key pin it too: `coffer-kbs server-key switch --state {} --listener {whose}`, and start \
                     the broker again",
                    folder.display()
                );
                found.push(warning(&format!("a next key waits for the {whose}' listener: {next}"), &hint));
            }
            Ok(ServerKeys { next: None, .. }) => {}
            Err(error) => found.push(broken(&coffer_rim::chain(&error), error.hint())),
        }
    }
}

fn checkpoint(folder: &Path, found: &mut Vec<Finding>) {
    let path = checkpoint_path(folder);
    // As the broker opens it for each write; nothing is written.
    match regular::open(fs::OpenOptions::new().read(true).write(true), &path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let hint = "nothing is changed or released while it cannot be written: mount its disk for writing, or mend its permissions";
            found.push(broken(&format!("checkpoint {}: {error}", path.display()), hint));
            return;
        }
        _ => {}
    }
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev());
    match (device(&path), device(&folder.join(DATABASE))) {
        (Ok(one), Ok(other)) if one == other => {
            let hint = "put it on another disk (checkpoint = \"/…\" in config.toml, and move the file): whoever puts the \
                        whole disk back puts both back";
            found.push(warning("the checkpoint lies on the database's device", hint));
        }
        (Ok(_), Ok(_)) => found.push(good("the checkpoint lies on another device than the database")),
        // Said with the state, which is not served then.
        _ => {}
    }
}

fn configuration(folder: &Path, found: &mut Vec<Finding>) -> Option<Config> {
    let path = config_path(folder);
    let file = match ConfigFile::read(&path) {
        Ok(file) => file,
        Err(error) => {
            refused(&error, found);
            return None;
        }
    };
    let config = match file.resolve(folder) {
        Ok(config) => {
            found.push(good("the configuration says what it means"));
            Some(config)
        }
        Err(error) => {
            refused(&error, found);
            None
        }
    };
    match file.floor.as_deref() {
        None | Some("strict") if file.floor_waivers.is_empty() => found.push(good("the floor is strict")),
        floor => {
            let floor = floor.unwrap_or("strict");
            let waived = file.floor_waivers.join(", ");
            let what = format!("the floor is {floor}{}{waived}", if waived.is_empty() { "" } else { " but for " });
            found.push(warning(&what, "evidence below AMD's published minima may be admitted"));
        }
    }
    for (tenant, entry) in file.tenants.iter().filter(|(_, entry)| !entry.simulated_anchors.is_empty()) {
        let what = format!("tenant {tenant} accepts {} simulated roots", entry.simulated_anchors.len());
        found.push(warning(&what, "simulated evidence proves nothing about hardware"));
    }
    if file.admins.is_empty() {
        found.push(warning("no operator is listed", "add one under [[admins]]"));
    }
    config
}

fn good(what: impl Into<String>) -> Finding {
    Finding { weight: Weight::Good, what: what.into(), hint: String::new() }
}

fn warning(what: &str, hint: &str) -> Finding {
    Finding { weight: Weight::Warning, what: what.into(), hint: hint.into() }
}

/// Each mistake is a finding.
fn refused(error: &ConfigError, found: &mut Vec<Finding>) {
    match error.mistakes() {
        [] => found.push(broken(&coffer_rim::chain(error), error.hint())),
        all => found.extend(all.iter().map(|one| broken(&format!("configuration: {one}"), error.hint()))),
    }
}

fn broken(what: &str, hint: &str) -> Finding {
    Finding { weight: Weight::Broken, what: what.into(), hint: hint.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{init, state::CHECKPOINT};

    fn of<'a>(found: &'a [Finding], word: &str) -> Vec<&'a Finding> {
        found.iter().filter(|one| one.what.contains(word)).collect()
    }

    #[tokio::test]
    async fn what_the_broker_cannot_write_or_read_is_broken() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("state");
        init(&folder, "127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        assert!(examine(&folder).await.iter().all(|one| one.weight != Weight::Broken));
        // A disk that is mounted for reading alone, or a program that is being run, gives no file to write.
        let place = folder.join(CHECKPOINT);
        fs::remove_file(&place).unwrap();
        fs::create_dir(&place).unwrap();
        let found = examine(&folder).await;
        let said = of(&found, "checkpoint");
        assert!(
            said.iter().any(|one| one.weight == Weight::Broken && one.hint.contains("nothing is changed or released")),
            "{found:?}"
        );
    }

    #[tokio::test]
    async fn files_that_another_user_keeps_to_himself_are_named() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("state");
        init(&folder, "127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        let mut found = Vec::new();
        whose(&folder, &mut found);
        assert_eq!(found, []);
        // Only root can give a file away.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(folder.join(ROOT_KEY), Some(4242), None).unwrap();
            whose(&folder, &mut found);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(
                found[0].what.contains("root.key belongs to user 4242")
                    && found[0].hint.starts_with("chown --reference=")
            );
        }
    }

    #[test]
    fn little_room_is_said_before_there_is_none() {
        assert_eq!(little(0).unwrap().weight, Weight::Broken);
        assert_eq!(little(FULL - 1).unwrap().weight, Weight::Broken);
        let warned = little(LITTLE - 1).unwrap();
        assert_eq!((warned.weight, warned.what.contains("63 MiB")), (Weight::Warning, true), "{warned:?}");
        assert_eq!(little(LITTLE), None);
    }
}
