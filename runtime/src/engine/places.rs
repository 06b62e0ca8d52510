//! Whether the image has a place for each mount and the working directory of a spec.
//!
//! Walks the image and the snapshots as the guest's kernel will, with its links and in the guest's order of mounts, before
//! anything boots. What the guest's own file systems hold is not known here; the guest looks again, whatever this found.
//! Source: `guest/src/container/place.rs`.

use std::collections::VecDeque;
use std::fmt;

use coffer_image::erofs::{Found, Look};
use coffer_rim::foreign::foreign_at_most;
use coffer_spec::{Mount, VolumeKind, WorkloadSpec};

use super::{Fault, Hint};
use crate::Class;

/// The image has no place for what the spec asks for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// What is there has nothing below it, and a folder is wanted.
    #[error("{asked} has no place: {} is no folder", shown(at))]
    NoFolder {
        /// What was asked for.
        asked: Asked,
        /// What is in the way, as it is reached in the box.
        at: String,
    },
    /// A folder is there, and a file was to be.
    #[error("{asked} is a file, and {} is a folder", shown(at))]
    Folder {
        /// What was asked for.
        asked: Asked,
        /// The folder.
        at: String,
    },
    /// Nothing is there, and nothing can be made there.
    #[error("{asked} has no place: {} is not there, and what it would be made in is read-only", shown(at))]
    ReadOnly {
        /// What was asked for.
        asked: Asked,
        /// What is not there.
        at: String,
    },
    /// A link of the image leads nowhere, or round and round.
    #[error("{asked} has no place: a link on the way to it leads nowhere ({})", shown(at))]
    Link {
        /// What was asked for.
        asked: Asked,
        /// Where it leads.
        at: String,
    },
    /// A link of the image leads to what something else owns.
    #[error("{asked} would hide what is at {}: links in the image lead there", shown(at))]
    Hides {
        /// What was asked for.
        asked: Asked,
        /// Where it would be.
        at: String,
    },
    /// The image or a snapshot cannot be looked into.
    #[error("cannot look into the image for {asked}")]
    Unreadable {
        /// What was asked for.
        asked: Asked,
        /// The file's error.
        #[source]
        source: std::io::Error,
    },
}

/// What a spec, or the guest itself, wants a place for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Asked {
    /// A tmpfs.
    Tmpfs(String),
    /// A volume.
    Volume(String),
    /// The working directory.
    Cwd(String),
    /// A folder of the guest's own.
    Guest(&'static str),
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tmpfs(path) => write!(f, "the tmpfs at {}", shown(path)),
            Self::Volume(path) => write!(f, "the volume at {}", shown(path)),
            Self::Cwd(path) => write!(f, "the working directory {}", shown(path)),
            Self::Guest(path) => write!(f, "the guest's own {path}"),
        }
    }
}

fn shown(path: &str) -> String {
    foreign_at_most(path, 200)
}

impl Fault for PlaceError {
    fn class(&self) -> Class {
        match self {
            Self::Unreadable { .. } => Class::Config,
            Self::NoFolder { asked, .. }
            | Self::Folder { asked, .. }
            | Self::ReadOnly { asked, .. }
            | Self::Link { asked, .. }
            | Self::Hides { asked, .. } => match asked {
                Asked::Guest(_) => Class::Config,
                _ => Class::Usage,
            },
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::NoFolder { .. } | Self::Folder { .. } => {
                Some("a folder goes onto a folder, a file onto a file, and either where nothing is".into())
            }
            Self::ReadOnly { .. } => Some(
                "put an empty file or folder there into what the volume is made from, or let the tmpfs be writable"
                    .into(),
            ),
            Self::Link { .. } | Self::Hides { .. } => Some("name another path".into()),
            Self::Unreadable { .. } => Some("remove the image and pull it again".into()),
        }
    }
}

/// Checks each mount of a spec, in the guest's order, and the working directory. `volumes`: in the order of the spec's.
///
/// # Errors
/// [`PlaceError`] naming the first that has none.
pub(super) fn check(spec: &WorkloadSpec, root: &Look, volumes: &[Look]) -> Result<(), PlaceError> {
    let mut world = World { mounted: vec![Mounted { at: Vec::new(), tree: Tree::Image(root) }] };
    // Those below /run come last, over what is asked for above them.
    let (late, early): (Vec<_>, Vec<_>) = Mount::OWN.into_iter().partition(|own| own.starts_with("/run/"));
    world.files_of_the_guest()?;
    for own in early {
        let at = world.folder(Asked::Guest(own), own)?;
        world.mount(Asked::Guest(own), at, Tree::Guest)?;
    }
    let mut reserved = Vec::new();
    for own in &late {
        reserved.push(world.folder(Asked::Guest(own), own)?);
    }
    world.mounted.extend(reserved.iter().map(|at| Mounted { at: at.clone(), tree: Tree::Made }));

    let tmpfs = spec.mounts.iter().map(|mount| (mount.path.as_str(), Wanted::Tmpfs(mount)));
    let disks = spec
        .volumes
        .iter()
        .zip(volumes)
        .map(|(volume, look)| (volume.path.as_str(), Wanted::Volume(volume.kind, look)));
    let data = spec.data_volumes.iter().map(|volume| (volume.path.as_str(), Wanted::Data));
    let sealed = spec.sealed_volumes.iter().map(|volume| (volume.path.as_str(), Wanted::Data));
    let mut wanted: Vec<_> = tmpfs.chain(disks).chain(data).chain(sealed).collect();
    wanted.sort_unstable_by_key(|(path, _)| *path);
    for (path, what) in wanted {
        let asked = match what {
            Wanted::Tmpfs(_) => Asked::Tmpfs(path.into()),
            Wanted::Volume(..) | Wanted::Data => Asked::Volume(path.into()),
        };
        let at = match what {
            Wanted::Volume(VolumeKind::File, _) => world.file(asked.clone(), path)?,
            _ => world.folder(asked.clone(), path)?,
        };
        let tree = match what {
            Wanted::Tmpfs(mount) if mount.read_only => Tree::Empty,
            Wanted::Tmpfs(_) => Tree::Tmpfs,
            Wanted::Volume(VolumeKind::Folder, look) => Tree::Volume(look),
            Wanted::Volume(VolumeKind::File, _) => Tree::File,
            Wanted::Data => Tree::Data,
        };
        if reserved.iter().any(|own| at.starts_with(own)) {
            return Err(PlaceError::Hides { asked, at: text(&at) });
        }
        world.mount(asked, at, tree)?;
    }
    for own in late {
        let at = world.folder(Asked::Guest(own), own)?;
        world.mounted.push(Mounted { at, tree: Tree::Guest });
    }
    world.folder(Asked::Cwd(spec.process.cwd.clone()), &spec.process.cwd).map(drop)
}

/// What a spec asks to be mounted.
enum Wanted<'a> {
    Tmpfs(&'a Mount),
    Volume(VolumeKind, &'a Look),
    Data,
}

type Components = Vec<Vec<u8>>;

/// What the workload will see, as far as it is known.
struct World<'a> {
    /// In the order of mounting: what comes later is on top.
    mounted: Vec<Mounted<'a>>,
}

struct Mounted<'a> {
    at: Components,
    tree: Tree<'a>,
}

enum Tree<'a> {
    /// The root: what is not there can be made.
    Image(&'a Look),
    /// What is not there cannot.
    Volume(&'a Look),
    /// Empty: what is not there can be made.
    Tmpfs,
    /// Empty, and what is not there cannot.
    Empty,
    /// One file.
    File,
    /// What outlives the box: nobody knows here.
    Data,
    /// The guest's own: nobody knows here.
    Guest,
    /// A folder the guest makes first, to mount over it last.
    Made,
    /// A file the guest writes.
    Written,
}

/// Where a path ends.
enum End {
    Folder(Components),
    File(Components),
    /// Nothing is there. `under`: the last folder that is; `is_below_link`: a link leads there.
    Nothing {
        at: Components,
        under: Components,
        missing: usize,
        is_below_link: bool,
    },
    Unknown(Components),
}

/// What one step finds.
enum Step {
    Folder,
    File,
    Link(Vec<u8>),
    Nothing,
    Unknown,
}

impl<'a> World<'a> {
    /// The guest writes these before anything of the spec is mounted.
    fn files_of_the_guest(&mut self) -> Result<(), PlaceError> {
        let etc = self.folder(Asked::Guest("/etc"), "/etc")?;
        for (path, name) in [("/etc/hostname", "hostname"), ("/etc/hosts", "hosts")] {
            let at = [etc.as_slice(), &[name.as_bytes().to_vec()]].concat();
            let asked = Asked::Guest(path);
            if let Step::Folder = self.step(&asked, &at)? {
                return Err(PlaceError::Folder { asked, at: text(&at) });
            }
            self.mounted.push(Mounted { at, tree: Tree::Written });
        }
        Ok(())
    }

    /// Puts a tree somewhere, unless it hides what is mounted there already.
    fn mount(&mut self, asked: Asked, at: Components, tree: Tree<'a>) -> Result<(), PlaceError> {
        // Files of the guest's own under /etc may be, by what the owner wants to be seen.
        let can_be = |tree: &Tree<'_>| matches!(tree, Tree::Written | Tree::Made);
        let is_hidden = |other: &&Mounted<'_>| other.at.starts_with(&at) && !can_be(&other.tree);
        let hidden = self.mounted.iter().find(is_hidden).map(|other| text(&other.at));
        // And what lies in a tree of the guest's own is no place.
        let inside = self.mounted.iter().find(|other| at.starts_with(&other.at) && matches!(other.tree, Tree::Guest));
        if let Some(place) = hidden.or_else(|| inside.map(|other| text(&other.at))) {
            return Err(PlaceError::Hides { asked, at: place });
        }
        self.mounted.push(Mounted { at, tree });
        Ok(())
    }

    /// Where a folder is or can be made.
    fn folder(&self, asked: Asked, path: &str) -> Result<Components, PlaceError> {
        match self.resolve(&asked, path)? {
            End::Folder(at) | End::Unknown(at) => Ok(at),
            End::File(at) => Err(PlaceError::NoFolder { asked, at: text(&at) }),
            End::Nothing { at, is_below_link: true, .. } => Err(PlaceError::Link { asked, at: text(&at) }),
            End::Nothing { at, under, .. } => self.can_be_made(asked, at, &under),
        }
    }

    /// Where a file is or can be made, or something else that is no folder.
    fn file(&self, asked: Asked, path: &str) -> Result<Components, PlaceError> {
        match self.resolve(&asked, path)? {
            End::File(at) | End::Unknown(at) => Ok(at),
            End::Folder(at) => Err(PlaceError::Folder { asked, at: text(&at) }),
            // A link may lead to a file that can be made, if its folder is there.
            End::Nothing { at, is_below_link: true, missing: 2.., .. } => {
                Err(PlaceError::Link { asked, at: text(&at) })
            }
            End::Nothing { at, under, .. } => self.can_be_made(asked, at, &under),
        }
    }

    fn can_be_made(&self, asked: Asked, at: Components, under: &[Vec<u8>]) -> Result<Components, PlaceError> {
        match self.tree_at(under).tree {
            Tree::Volume(_) | Tree::Empty => Err(PlaceError::ReadOnly { asked, at: text(&at) }),
            _ => Ok(at),
        }
    }

    /// What is on top at a path.
    fn tree_at(&self, at: &[Vec<u8>]) -> &Mounted<'a> {
        let on_top = self.mounted.iter().rev().find(|mounted| at.starts_with(&mounted.at));
        // The root is under everything.
        on_top.unwrap_or(&self.mounted[0])
    }

    /// What a path stands for of which all but the last component are folders and no links.
    fn step(&self, asked: &Asked, at: &[Vec<u8>]) -> Result<Step, PlaceError> {
        let mounted = self.tree_at(at);
        let rest = &at[mounted.at.len()..];
        let look = match &mounted.tree {
            Tree::Image(look) | Tree::Volume(look) => look,
            Tree::File | Tree::Written => return Ok(Step::File),
            Tree::Tmpfs | Tree::Empty | Tree::Made | Tree::Data | Tree::Guest if rest.is_empty() => {
                return Ok(Step::Folder);
            }
            Tree::Tmpfs | Tree::Empty | Tree::Made => return Ok(Step::Nothing),
            Tree::Data | Tree::Guest => return Ok(Step::Unknown),
        };
        let mut here = Found::Folder(look.root());
        for name in rest {
            let Found::Folder(folder) = here else { return Ok(Step::Nothing) };
            let unreadable = |source| PlaceError::Unreadable { asked: asked.clone(), source };
            match look.find(folder, name).map_err(unreadable)? {
                Some(found) => here = found,
                None => return Ok(Step::Nothing),
            }
        }
        Ok(match here {
            Found::Folder(_) => Step::Folder,
            Found::Link(target) => Step::Link(target),
            Found::File => Step::File,
        })
    }

    /// Follows a path to its end, with all links on the way.
    fn resolve(&self, asked: &Asked, path: &str) -> Result<End, PlaceError> {
        // Each component, and whether a link brought it.
        let split = |path: &[u8], is_linked| -> Vec<(Vec<u8>, bool)> {
            path.split(|byte| *byte == b'/').map(|part| (part.to_vec(), is_linked)).collect()
        };
        let mut pending = VecDeque::from(split(path.as_bytes(), false));
        let mut stack: Components = Vec::new();
        let mut links = 0;
        while let Some((name, is_linked)) = pending.pop_front() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    stack.pop();
                    continue;
                }
                _ => stack.push(name),
            }
            match self.step(asked, &stack)? {
                Step::Folder => {}
                Step::File if pending.iter().all(|(name, _)| name.is_empty()) => return Ok(End::File(stack)),
                Step::File => return Err(PlaceError::NoFolder { asked: asked.clone(), at: text(&stack) }),
                Step::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(PlaceError::Link { asked: asked.clone(), at: text(&stack) });
                    }
                    stack.pop();
                    if target.starts_with(b"/") {
                        stack.clear();
                    }
                    for part in split(&target, true).into_iter().rev() {
                        pending.push_front(part);
                    }
                }
                found @ (Step::Nothing | Step::Unknown) => {
                    let mut at = stack;
                    let under = at[..at.len() - 1].to_vec();
                    let is_below_link = is_linked || pending.iter().any(|(_, is_linked)| *is_linked);
                    let mut missing = 1;
                    for (name, _) in pending.into_iter().filter(|(name, _)| !matches!(name.as_slice(), b"" | b".")) {
                        missing += 1;
                        if name == b".." {
                            at.pop();
                        } else {
                            at.push(name);
                        }
                    }
                    return Ok(match found {
                        Step::Unknown => End::Unknown(at),
                        _ => End::Nothing { at, under, missing, is_below_link },
                    });
                }
            }
        }
        Ok(End::Folder(stack))
    }
}

/// As the kernel has it.
const MAX_LINKS: usize = 40;

fn text(at: &[Vec<u8>]) -> String {
    let parts: Vec<_> = at.iter().map(|part| String::from_utf8_lossy(part)).collect();
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests;
