//! Makes a state folder: whole under its name, or not there at all.
//!
//! Everything is made in a folder beside, synced, and renamed into place as the last step. Where that cannot be (the folder is
//! a mount point, or its parent is not ours) it is made inside and linked up name by name, the configuration last, and
//! taken back on failure.
//! Never: overwrites a file, least of all a key.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use coffer_kbs_client::AdminProfile;
use coffer_ratls::Identity;
use coffer_rim::{
    file::{Writer, sync_folder},
    folder::tighten,
};
use coffer_verifier::abi::SpkiDigest;

use crate::{
    config::{AdminEntry, ConfigFile},
    custody::{Custody as _, FileCustody},
    floors::STRICT,
    limits::LimitsEntry,
    owner,
    scratch::Scratch,
    server_key::Listener,
    state::{
        ADMIN_SERVER, CHECKPOINT, CONFIG, DATABASE, NEXT_ADMIN_SERVER, NEXT_SERVER, PROFILE, ROOT_KEY, SERVER,
        StateError, keeper, write_identity, write_private,
    },
    store::{Store, Witness},
};

/// What `init` made.
#[derive(Clone, Debug)]
pub struct Initialized {
    /// What guests pin.
    pub pin: SpkiDigest,
    /// The first operator's profile.
    pub profile: PathBuf,
}

/// Makes a state folder. Nothing is overwritten.
///
/// # Errors
/// [`StateError`]; then nothing is there that was not before.
pub async fn init(folder: &Path, listen: &str, admin_listen: &str) -> Result<Initialized, StateError> {
    init_with_checkpoint(folder, listen, admin_listen, None).await
}

/// The same with the checkpoint at another place, best on another disk; nothing: in the folder.
///
/// # Errors
/// As [`init`]; a checkpoint that is there already is one.
pub async fn init_with_checkpoint(
    folder: &Path,
    listen: &str,
    admin_listen: &str,
    checkpoint: Option<&Path>,
) -> Result<Initialized, StateError> {
    let wanted = Wanted { listen, admin_listen, checkpoint };
    // Whatever lies there, it is somebody's, and stays. Only what this call began is taken back.
    let is_free = checkpoint
        .is_some_and(|path| fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
    let made = init_by_steps(folder, wanted, &|_| Ok(())).await;
    if let (true, Err(_), Some(checkpoint)) = (is_free, &made, checkpoint) {
        let _ = fs::remove_file(checkpoint);
    }
    made
}

/// What a folder is made for.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    listen: &'a str,
    admin_listen: &'a str,
    checkpoint: Option<&'a Path>,
}

impl Wanted<'_> {
    /// What stands in the folder's configuration.
    fn config(self, admins: Vec<AdminEntry>) -> ConfigFile {
        ConfigFile {
            listen: self.listen.into(),
            admin_listen: self.admin_listen.into(),
            admins,
            tenants: std::collections::BTreeMap::default(),
            policies: std::collections::BTreeMap::default(),
            endorsements: Vec::new(),
            limits: LimitsEntry::default(),
            admin_socket: None,
            metrics_listen: None,
            floor: Some(STRICT.into()),
            floor_waivers: Vec::new(),
            revocation_waivers: Vec::new(),
            kds: None,
            checkpoint: self.checkpoint.map(Path::to_owned),
        }
    }
}

/// Asked before each step, which does not happen if it says no: how tests try what a failure there leaves behind.
pub(crate) type Before<'a> = &'a (dyn Fn(&'static str) -> io::Result<()> + Sync);

async fn init_by_steps(folder: &Path, wanted: Wanted<'_>, before: Before<'_>) -> Result<Initialized, StateError> {
    // A link to a folder is that folder.
    let folder = &fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    refuse_used(folder)?;
    // What `serve` would refuse is not made.
    wanted.config(Vec::new()).resolve(folder)?;
    let building = building(folder)?;
    let pin = fill(building.path(), wanted, before).await?;
    before("publish").and_then(|()| sync_folder(building.path())).map_err(at(folder))?;
    publish(building, folder, before)?;
    Ok(Initialized { pin, profile: folder.join(PROFILE) })
}

async fn fill(folder: &Path, wanted: Wanted<'_>, before: Before<'_>) -> Result<SpkiDigest, StateError> {
    let Wanted { admin_listen, checkpoint, .. } = wanted;
    let identity = |name: &str| {
        Identity::generate(name).map_err(|source| StateError::Identity { path: folder.join(name), source })
    };
    let step = |name| before(name).map_err(at(&folder.join(name)));
    let (server, admin_server) = (identity(Listener::Guests.name())?, identity(Listener::Operators.name())?);
    let admin = identity("admin")?;
    step(ROOT_KEY)?;
    let root = FileCustody::new(folder.join(ROOT_KEY)).create().await?;
    step(SERVER)?;
    write_identity(&folder.join(SERVER), &server)?;
    step(ADMIN_SERVER)?;
    write_identity(&folder.join(ADMIN_SERVER), &admin_server)?;
    step(DATABASE)?;
    // Closed before it moves: what it logged is then in the file.
    let beside = folder.join(CHECKPOINT);
    let witness = Witness::Kept(keeper(folder, checkpoint.unwrap_or(&beside))?);
    drop(Store::create_file(&folder.join(DATABASE), root, witness).await?);
    step(PROFILE)?;
    let profile = AdminProfile { address: admin_listen.into(), pins: vec![admin_server.spki()], identity: admin };
    profile.write(&folder.join(PROFILE))?;
    step(CONFIG)?;
    let config = wanted.config(vec![AdminEntry { name: "admin".into(), key: profile.identity.spki().to_string() }]);
    let text = toml::to_string(&config).map_err(|error| StateError::Config(error.to_string()))?;
    write_private(&folder.join(CONFIG), text.as_bytes())?;
    Ok(server.spki())
}

/// Something is there that is neither ours from an earlier try nor the file system's.
pub(crate) fn refuse_used(folder: &Path) -> Result<(), StateError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(at(folder)(error)),
        Ok(entries) => entries,
    };
    for entry in entries {
        let name = entry.map_err(at(folder))?.file_name();
        if name != "lost+found" && !name.to_string_lossy().starts_with(BUILDING) {
            return Err(StateError::Exists { path: folder.into() });
        }
    }
    Ok(())
}

/// A private folder beside the one that is wanted, or inside where there is no place beside. Gone when dropped.
pub(crate) fn building(folder: &Path) -> Result<Scratch, StateError> {
    let parent = parent(folder);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(at(parent))?;
    private(parent).or_else(|error| if folder.is_dir() { private(folder) } else { Err(error) }).map_err(at(folder))
}

pub(crate) fn publish(building: Scratch, folder: &Path, before: Before<'_>) -> Result<(), StateError> {
    let inside = building.path().parent() == Some(folder);
    owner::like(folder, building.path());
    let renamed = if inside { Err(io::ErrorKind::ResourceBusy.into()) } else { fs::rename(building.path(), folder) };
    match renamed {
        Ok(()) => {
            // What it was called is no longer there to be removed.
            building.keep();
            sync_folder(parent(folder)).map_err(at(folder))
        }
        Err(error) => match error.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
                Err(StateError::Exists { path: folder.into() })
            }
            io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices if inside => {
                link_up(building.path(), folder, before)
            }
            // A mount point: no name leads into it from beside.
            io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices => {
                let carried = carried(building.path(), folder)?;
                link_up(carried.path(), folder, before)
            }
            _ => Err(at(folder)(error)),
        },
    }
}

/// The same, in a private folder within `folder`.
fn carried(building: &Path, folder: &Path) -> Result<Scratch, StateError> {
    let inside = private(folder).map_err(at(folder))?;
    owner::like(folder, inside.path());
    for entry in fs::read_dir(building).map_err(at(building))? {
        let from = entry.map_err(at(building))?.path();
        let place = inside.path().join(from.file_name().unwrap_or_default());
        let mut read = fs::File::open(&from).map_err(at(&from))?;
        let written = Writer::private().new_only().write_with(&place, |to| io::copy(&mut read, to).map(drop));
        written.map_err(at(&place))?;
    }
    owner::like(folder, inside.path());
    Ok(inside)
}

/// A folder that nobody else reaches, within another. Gone when dropped.
fn private(place: &Path) -> io::Result<Scratch> {
    Scratch::make(BUILDING, place)
}

/// Gives each file its name in `folder`; a name that is taken is an error, and what was named so far is taken back.
fn link_up(building: &Path, folder: &Path, before: Before<'_>) -> Result<(), StateError> {
    // Before there is anything in it that others could put something else in place of.
    tighten(folder).map_err(at(folder))?;
    let mut named: Vec<PathBuf> = Vec::new();
    let names = [ROOT_KEY, SERVER, ADMIN_SERVER, NEXT_SERVER, NEXT_ADMIN_SERVER, DATABASE, CHECKPOINT, PROFILE, CONFIG];
    for name in names {
        let place = folder.join(name);
        // A checkpoint may lie elsewhere, a backup has no operator's profile, and mostly no next key.
        if [CHECKPOINT, PROFILE, NEXT_SERVER, NEXT_ADMIN_SERVER].contains(&name) && !building.join(name).exists() {
            continue;
        }
        let linked = before("name").and_then(|()| fs::hard_link(building.join(name), &place));
        if let Err(error) = linked {
            for place in named {
                let _ = fs::remove_file(place);
            }
            return Err(match error.kind() {
                io::ErrorKind::AlreadyExists => StateError::Exists { path: folder.into() },
                _ => at(&place)(error),
            });
        }
        named.push(place);
    }
    sync_folder(folder).map_err(at(folder))
}

fn parent(folder: &Path) -> &Path {
    folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn at(path: &Path) -> impl Fn(io::Error) -> StateError + use<> {
    let path = path.to_owned();
    move |source| StateError::File { path: path.clone(), source }
}

const BUILDING: &str = ".coffer-kbs-init-";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::state::{State, pin};

    const ANY: &str = "127.0.0.1:0";
    const WANTED: Wanted<'_> = Wanted { listen: ANY, admin_listen: ANY, checkpoint: None };

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Fails at the step of that number.
    fn fail_at(number: usize) -> (impl Fn(&'static str) -> io::Result<()> + Sync, std::sync::Arc<AtomicUsize>) {
        let steps = std::sync::Arc::new(AtomicUsize::new(0));
        let counted = steps.clone();
        let before = move |_| {
            if counted.fetch_add(1, Ordering::Relaxed) == number {
                Err(io::ErrorKind::StorageFull.into())
            } else {
                Ok(())
            }
        };
        (before, steps)
    }

    #[tokio::test]
    async fn a_failure_at_any_step_leaves_nothing_behind_and_the_next_try_works() {
        for there_already in [false, true] {
            for step in 0.. {
                let outer = tempfile::tempdir().unwrap();
                let folder = outer.path().join("state");
                if there_already {
                    fs::create_dir(&folder).unwrap();
                }
                let before = names(outer.path());
                let (fail, steps) = fail_at(step);
                let made = init_by_steps(&folder, WANTED, &fail).await;
                if made.is_ok() {
                    assert_eq!(steps.load(Ordering::Relaxed), step, "no step was passed over");
                    assert!(step >= 7, "only {step} steps");
                    break;
                }
                assert_eq!(names(outer.path()), before, "step {step}");
                assert!(!there_already || names(&folder).is_empty(), "step {step}");
                init(&folder, ANY, ANY).await.unwrap();
                State::open(&folder).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn where_a_folder_cannot_be_renamed_into_place_its_names_are_given_or_taken_back() {
        for step in 0..=7 {
            let outer = tempfile::tempdir().unwrap();
            let (building, folder) = (outer.path().join("building"), outer.path().join("state"));
            fs::create_dir(&building).unwrap();
            fs::create_dir(&folder).unwrap();
            fill(&building, WANTED, &|_| Ok(())).await.unwrap();
            let (fail, _) = fail_at(step);
            // From where it was made, and from a copy within.
            let inside = carried(&building, &folder).unwrap();
            let linked = link_up(if step % 2 == 0 { &building } else { inside.path() }, &folder, &fail);
            drop(inside);
            if step < 7 {
                assert!(linked.is_err());
                assert!(names(&folder).is_empty(), "step {step}: {:?}", names(&folder));
            } else {
                linked.unwrap();
                assert!(matches!(link_up(&building, &folder, &|_| Ok(())), Err(StateError::Exists { .. })));
                State::open(&folder).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn what_is_made_beside_a_mount_point_opens_where_it_was_carried() {
        let outer = tempfile::tempdir().unwrap();
        let (building, folder) = (outer.path().join("building"), outer.path().join("state"));
        fs::create_dir(&building).unwrap();
        fs::create_dir(&folder).unwrap();
        fill(&building, WANTED, &|_| Ok(())).await.unwrap();
        let inside = carried(&building, &folder).unwrap();
        fs::remove_dir_all(&building).unwrap();
        link_up(inside.path(), &folder, &|_| Ok(())).unwrap();
        drop(inside);
        assert!(!names(&folder).iter().any(|name| name.starts_with(BUILDING)));
        State::open(&folder).await.unwrap();
    }

    #[tokio::test]
    async fn a_checkpoint_of_anothers_stays_whatever_fails() {
        let outer = tempfile::tempdir().unwrap();
        let checkpoint = outer.path().join("checkpoint");
        fs::write(&checkpoint, "somebody's").unwrap();
        fs::write(outer.path().join("file"), "").unwrap();
        for folder in ["file/state", "state"] {
            let made = init_with_checkpoint(&outer.path().join(folder), ANY, ANY, Some(&checkpoint)).await;
            assert!(made.is_err());
            assert_eq!(fs::read_to_string(&checkpoint).unwrap(), "somebody's", "{folder}");
        }
        // One that this call would have begun is not left behind.
        let begun = outer.path().join("begun");
        assert!(init_with_checkpoint(&outer.path().join("file/state"), ANY, ANY, Some(&begun)).await.is_err());
        assert!(!begun.exists());
    }

    #[tokio::test]
    async fn makes_private_files_and_three_identities() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("new").join("state");
        let made = init(&folder, ANY, ANY).await.unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
        }
        let state = State::open(&folder).await.unwrap();
        let profile = AdminProfile::read(&made.profile).unwrap();
        assert_eq!(state.server.spki(), made.pin);
        assert_eq!(profile.pins, [state.admin_server.spki()]);
        assert_ne!(state.server.spki(), state.admin_server.spki());
        assert_ne!(profile.identity.spki(), state.admin_server.spki());
    }

    #[tokio::test]
    async fn a_folder_that_others_may_write_to_is_nobody_elses_before_a_key_is_in_it() {
        let open = || {
            let outer = tempfile::tempdir().unwrap();
            let folder = outer.path().join("state");
            fs::create_dir(&folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
            (outer, folder)
        };
        let mode = |folder: &Path| fs::metadata(folder).unwrap().permissions().mode() & 0o7777;
        let (_outer, folder) = open();
        init(&folder, ANY, ANY).await.unwrap();
        assert_eq!(mode(&folder), 0o700);
        // A mount point, into which names are given one by one.
        let (outer, folder) = open();
        let building = outer.path().join("building");
        fs::create_dir(&building).unwrap();
        fill(&building, WANTED, &|_| Ok(())).await.unwrap();
        link_up(&building, &folder, &|_| {
            assert_eq!(mode(&folder), 0o700);
            Ok(())
        })
        .unwrap();
        assert_eq!(mode(&folder), 0o700);
    }

    #[tokio::test]
    async fn makes_nothing_that_cannot_be_served() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("state");
        for (listen, admin_listen) in
            [("127.0.0.1:4480", "127.0.0.1:4480"), ("0.0.0.0:4480", "127.0.0.1:4480"), ("here", "127.0.0.1:4480")]
        {
            let kept = outer.path().join("checkpoint");
            fs::write(&kept, "another's").unwrap();
            let made = init_with_checkpoint(&folder, listen, admin_listen, Some(&kept)).await;
            assert!(matches!(made, Err(StateError::Mistakes(_))), "{listen}, {admin_listen}");
            assert_eq!(names(outer.path()), ["checkpoint"], "{listen}, {admin_listen}");
        }
        init(&folder, ANY, ANY).await.unwrap();
    }

    #[tokio::test]
    async fn overwrites_nothing() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("state");
        let made = init(&folder, ANY, ANY).await.unwrap();
        assert!(matches!(init(&folder, ANY, ANY).await, Err(StateError::Exists { .. })));
        assert_eq!(pin(&folder).unwrap(), made.pin);
        assert_eq!(names(outer.path()), ["state"]);
    }
}
