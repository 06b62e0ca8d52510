//! The file system of an image, built layer by layer in memory; file data stays in a spool file.
//!
//! Paths are resolved inside this tree only: an absolute symlink starts at its root, `..` never leaves it. Nothing here
//! touches the host's file system. The memory that nodes, names and attributes take is charged before it is taken, at what
//! they cost here and when the image is written ([`cost`]), so a tree never grows beyond its limit. Work is charged like
//! memory: each component that is followed and each name that is looked at is a step, and steps have a limit.
//! Source: OCI Image Specification 1.1, "Image Layer Filesystem Changeset".

use coffer_rim::Foreign;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Index of a node in its [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(usize);

impl NodeId {
    /// The root directory.
    pub const ROOT: Self = Self(0);

    /// Position among all nodes ever made; less than [`Tree::len`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// A file system tree.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    layer: u32,
    /// Bytes of memory it may still take.
    left: u64,
    limit: u64,
    steps: Steps,
    /// Directories in which nothing of a lower layer is left: what is there now, this layer put there.
    cleared: BTreeSet<NodeId>,
}

/// Work that may still be done.
#[derive(Clone, Copy, Debug)]
struct Steps {
    left: u64,
    limit: u64,
}

impl Steps {
    fn take(&mut self, steps: u64) -> Result<(), TreeError> {
        self.left = self.left.checked_sub(steps).ok_or(TreeError::Work { limit: self.limit })?;
        Ok(())
    }
}

/// A file, directory or other inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Owner, mode, times, extended attributes.
    pub meta: Meta,
    /// What it is, and its contents.
    pub kind: Kind,
}

/// What every inode has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits with set-uid, set-gid and sticky; no type bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since 1970.
    pub mtime: u64,
    /// Nanoseconds of it.
    pub mtime_nsec: u32,
    /// Extended attributes by full name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Kind of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Regular file: where its bytes lie in the spool.
    File(Extent),
    /// Directory.
    Directory(BTreeMap<Vec<u8>, Child>),
    /// Symbolic link and its target.
    Symlink(Vec<u8>),
    /// Named pipe.
    Fifo,
    /// Character device: major, minor.
    CharDevice(u32, u32),
    /// Block device: major, minor.
    BlockDevice(u32, u32),
}

/// Bytes in the spool file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Offset of the first.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// What it names.
    pub node: NodeId,
    /// The layer that put it there last.
    layer: u32,
}

/// Why an entry cannot be placed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The path holds `..`.
    #[error("path \"{}\" leaves its directory", Foreign(path))]
    Traversal {
        /// Path of the entry.
        path: String,
    },
    /// A name is longer than 255 bytes, or holds a zero byte.
    #[error("path \"{}\" has a name that is longer than 255 bytes or not a name", Foreign(path))]
    Name {
        /// Path of the entry.
        path: String,
    },
    /// A path leads through something that is no directory.
    #[error("path \"{}\" leads through something that is not a directory", Foreign(path))]
    NotADirectory {
        /// Path of the entry.
        path: String,
    },
    /// Symbolic links on the way never end.
    #[error("path \"{}\" leads through more than {MAX_LINKS} symbolic links", Foreign(path))]
    TooManyLinks {
        /// Path of the entry.
        path: String,
    },
    /// The directory is too deep.
    #[error("path \"{}\" is more than {MAX_DEPTH} directories deep", Foreign(path))]
    TooDeep {
        /// Path of the entry.
        path: String,
    },
    /// A hard link to nothing or to a directory.
    #[error("hard link \"{}\" has no file to link to at \"{}\"", Foreign(path), Foreign(target))]
    LinkTarget {
        /// Path of the entry.
        path: String,
        /// As the entry says.
        target: String,
    },
    /// A symbolic link's target is empty or too long.
    #[error("symbolic link \"{}\" has a target of {length} bytes", Foreign(path))]
    SymlinkTarget {
        /// Path of the entry.
        path: String,
        /// Length of the target.
        length: usize,
    },
    /// The root of the file system must be a directory.
    #[error("the root directory cannot be replaced or removed")]
    Root,
    /// Nodes, names and attributes take more memory than they may.
    #[error("names and attributes take more than {limit} bytes of memory")]
    Memory {
        /// The limit.
        limit: u64,
    },
    /// Following paths and hiding names takes more steps than it may.
    #[error("its paths take more than {limit} steps to follow")]
    Work {
        /// The limit.
        limit: u64,
    },
}

/// What things cost in bytes of memory, all told: in the tree, in the plan of the image, and while it is written.
/// `tests/memory` holds these numbers against what a process really takes.
pub(crate) mod cost {
    /// An inode: the node, its place in the plan, its share of lists made on the way.
    pub(crate) const NODE: u64 = 320;
    /// A directory, on top of that: the first leaf of its map.
    pub(crate) const DIRECTORY: u64 = 448;
    /// A name in a directory, on top of its bytes.
    pub(crate) const NAME: u64 = 128;
    /// A directory that was cleared of what lower layers had there.
    pub(crate) const CLEARED: u64 = 48;
    /// A file's first attribute: the first leaf of its map.
    pub(crate) const ATTRIBUTES: u64 = 640;
    /// An attribute, on top of name and value.
    pub(crate) const ATTRIBUTE: u64 = 192;

    /// Attributes of one file.
    pub(crate) fn attributes<'a>(all: impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>) -> u64 {
        let bytes: u64 = all.map(|(name, value)| ATTRIBUTE + name.len() as u64 + value.len() as u64).sum();
        if bytes == 0 { 0 } else { ATTRIBUTES + bytes }
    }
}

/// Bytes of memory a tree may take where nothing else is said: some 500 000 files.
pub const DEFAULT_MEMORY: u64 = 256 << 20;
/// Steps a tree may take where nothing else is said: sixty for each file that [`DEFAULT_MEMORY`] has room for, and some ten
/// seconds of a processor.
pub const DEFAULT_STEPS: u64 = 1 << 25;

/// Symbolic links followed in one path, as Linux does.
const MAX_LINKS: usize = 40;
/// Directories on one path; bounds every recursion over the tree.
pub(crate) const MAX_DEPTH: usize = 1000;
const MAX_NAME: usize = 255;
const MAX_TARGET: usize = 4095;

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// An empty root directory, mode 0755, owned by root; may take [`DEFAULT_MEMORY`] and [`DEFAULT_STEPS`].
    pub fn new() -> Self {
        Self::within(DEFAULT_MEMORY, DEFAULT_STEPS)
    }

    /// An empty root directory of a tree that may take so many bytes of memory, and so many steps to make.
    pub fn within(limit: u64, steps: u64) -> Self {
        let steps = Steps { left: steps, limit: steps };
        Self { nodes: vec![implicit_directory()], layer: 0, left: limit, limit, steps, cleared: BTreeSet::new() }
    }

    /// Takes memory off the limit, before it is used.
    fn charge(&mut self, bytes: u64) -> Result<(), TreeError> {
        self.left = self.left.checked_sub(bytes).ok_or(TreeError::Memory { limit: self.limit })?;
        Ok(())
    }

    fn push(&mut self, node: Node) -> Result<NodeId, TreeError> {
        let own = match &node.kind {
            Kind::Directory(_) => cost::DIRECTORY,
            Kind::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        self.charge(cost::NODE + own + cost::attributes(node.meta.xattrs.iter()))?;
        let id = NodeId(self.nodes.len());
        self.nodes.push(node);
        Ok(id)
    }

    /// Starts the next layer: what is there so far can be whited out.
    pub fn begin_layer(&mut self) {
        self.layer += 1;
        self.cleared.clear();
    }

    /// The node of an id.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// Nodes ever made; a bound for ids, not a count of files.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is nothing but a root that was never touched.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// The children of a directory; none of anything else.
    pub fn children(&self, id: NodeId) -> impl Iterator<Item = (&[u8], NodeId)> {
        let map = match &self.node(id).kind {
            Kind::Directory(map) => Some(map),
            _ => None,
        };
        map.into_iter().flatten().map(|(name, child)| (name.as_slice(), child.node))
    }

    /// The node at a path; its last component is not followed where it is a symbolic link.
    ///
    /// # Errors
    /// [`TreeError`] where the path is no path; `None` where there is nothing.
    pub fn lookup(&self, path: &[u8]) -> Result<Option<NodeId>, TreeError> {
        let (parent, name) = split(path)?;
        let Some(name) = name else { return Ok(Some(NodeId::ROOT)) };
        // One path is bounded by itself; who changes the tree is charged.
        match self.walk(path, parent, &mut Steps { left: u64::MAX, limit: u64::MAX })? {
            Walk::At(stack) => Ok(self
                .directory(*stack.last().unwrap_or(&NodeId::ROOT))
                .and_then(|map| map.get(name))
                .map(|it| it.node)),
            Walk::Missing(..) => Ok(None),
        }
    }

    /// Puts a node at a path. A directory over a directory keeps the children and takes the new owner, mode, time and
    /// attributes; anything else replaces what was there. Missing parents are made, mode 0755.
    pub fn place(&mut self, path: &[u8], meta: Meta, kind: Kind) -> Result<(), TreeError> {
        if let Kind::Symlink(target) = &kind
            && (target.is_empty() || target.len() > MAX_TARGET || target.contains(&0))
        {
            return Err(TreeError::SymlinkTarget { path: show(path), length: target.len() });
        }
        let is_directory = matches!(kind, Kind::Directory(_));
        let (parent, name) = split(path)?;
        let Some(name) = name else {
            if !is_directory {
                return Err(TreeError::Root);
            }
            return self.dress(NodeId::ROOT, meta);
        };
        let parent = self.make_parent(path, parent, is_directory)?;
        let existing = self.directory(parent).and_then(|map| map.get(name)).map(|child| child.node);
        if is_directory
            && let Some(node) = existing
            && matches!(self.node(node).kind, Kind::Directory(_))
        {
            self.dress(node, meta)?;
            return self.name(path, parent, name, node);
        }
        let node = self.push(Node { meta, kind })?;
        self.name(path, parent, name, node)
    }

    /// Makes a directory, mode 0755, owned by root, where there is none at the end of a path whose links are followed.
    ///
    /// # Errors
    /// [`TreeError`] where something else is in the way.
    pub fn make_folder(&mut self, path: &[u8]) -> Result<(), TreeError> {
        let (parent, name) = split(path)?;
        let components = parent.into_iter().chain(name).collect();
        self.make_parent(path, components, false).map(drop)
    }

    /// Gives a directory that is there another owner, mode, time and attributes.
    fn dress(&mut self, node: NodeId, meta: Meta) -> Result<(), TreeError> {
        self.charge(cost::attributes(meta.xattrs.iter()))?;
        self.nodes[node.0].meta = meta;
        Ok(())
    }

    /// Gives the file at `target` another name.
    ///
    /// # Errors
    /// [`TreeError::LinkTarget`] where there is none, or a directory.
    pub fn link(&mut self, path: &[u8], target: &[u8]) -> Result<(), TreeError> {
        let error = || TreeError::LinkTarget { path: show(path), target: show(target) };
        let (above, name) = split(target)?;
        let node = match (self.follow(target, above)?, name) {
            (Walk::At(stack), Some(name)) => {
                let directory = self.directory(*stack.last().unwrap_or(&NodeId::ROOT));
                directory.and_then(|map| map.get(name)).map(|child| child.node).ok_or_else(error)?
            }
            _ => return Err(error()),
        };
        if matches!(self.node(node).kind, Kind::Directory(_)) {
            return Err(error());
        }
        let (parent, name) = split(path)?;
        let name = name.ok_or(TreeError::Root)?;
        let parent = self.make_parent(path, parent, false)?;
        self.name(path, parent, name, node)
    }

    /// Hides what lower layers have at a path; what this layer put there stays.
    pub fn whiteout(&mut self, path: &[u8]) -> Result<(), TreeError> {
        let (parent, name) = split(path)?;
        let name = name.ok_or(TreeError::Root)?;
        if let Walk::At(stack) = self.follow(path, parent)? {
            let parent = *stack.last().unwrap_or(&NodeId::ROOT);
            if let Some(child) = self.directory(parent).and_then(|map| map.get(name)).copied()
                && !self.keeps(child)?
                && let Some(map) = self.directory_mut(parent)
            {
                map.remove(name);
            }
        }
        Ok(())
    }

    /// Removes whatever is at a path, if anything is.
    pub fn remove(&mut self, path: &[u8]) -> Result<(), TreeError> {
        let (parent, name) = split(path)?;
        let name = name.ok_or(TreeError::Root)?;
        if let Walk::At(stack) = self.follow(path, parent)?
            && let Some(map) = self.directory_mut(*stack.last().unwrap_or(&NodeId::ROOT))
        {
            map.remove(name);
        }
        Ok(())
    }

    /// Hides everything lower layers have in the directory at a path.
    pub fn opaque(&mut self, path: &[u8]) -> Result<(), TreeError> {
        let (parent, name) = split(path)?;
        let components = parent.into_iter().chain(name).collect();
        if let Walk::At(stack) = self.follow(path, components)? {
            self.clear(*stack.last().unwrap_or(&NodeId::ROOT))?;
        }
        Ok(())
    }

    /// Removes from a directory what lower layers put there and below. Done once for each layer: what comes later is this
    /// layer's, so each name is looked at once, however often a layer says it.
    fn clear(&mut self, directory: NodeId) -> Result<(), TreeError> {
        if self.cleared.contains(&directory) {
            return Ok(());
        }
        let Some(map) = self.directory_mut(directory).map(std::mem::take) else { return Ok(()) };
        self.charge(cost::CLEARED)?;
        self.steps.take(map.len() as u64)?;
        let mut kept = BTreeMap::new();
        for (name, child) in map {
            if self.keeps(child)? {
                kept.insert(name, child);
            }
        }
        if let Some(map) = self.directory_mut(directory) {
            *map = kept;
        }
        self.cleared.insert(directory);
        Ok(())
    }

    /// Whether a name stays when lower layers are hidden: this layer put it there, or something below it.
    fn keeps(&mut self, child: Child) -> Result<bool, TreeError> {
        self.clear(child.node)?;
        Ok(child.layer == self.layer || self.children(child.node).next().is_some())
    }

    fn name(&mut self, path: &[u8], parent: NodeId, name: &[u8], node: NodeId) -> Result<(), TreeError> {
        let layer = self.layer;
        self.charge(cost::NAME + name.len() as u64)?;
        let map = self.directory_mut(parent).ok_or_else(|| TreeError::NotADirectory { path: show(path) })?;
        map.insert(name.to_vec(), Child { node, layer });
        Ok(())
    }

    fn directory(&self, id: NodeId) -> Option<&BTreeMap<Vec<u8>, Child>> {
        match &self.nodes[id.0].kind {
            Kind::Directory(map) => Some(map),
            _ => None,
        }
    }

    fn directory_mut(&mut self, id: NodeId) -> Option<&mut BTreeMap<Vec<u8>, Child>> {
        match &mut self.nodes[id.0].kind {
            Kind::Directory(map) => Some(map),
            _ => None,
        }
    }

    /// The directory a new name goes into; made, with those above it, where it is missing.
    fn make_parent(&mut self, path: &[u8], parent: Vec<&[u8]>, new_directory: bool) -> Result<NodeId, TreeError> {
        let (mut stack, missing) = match self.follow(path, parent)? {
            Walk::At(stack) => (stack, VecDeque::new()),
            Walk::Missing(stack, missing) => (stack, missing),
        };
        for name in missing {
            self.steps.take(1)?;
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    if stack.len() > 1 {
                        stack.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let here = *stack.last().unwrap_or(&NodeId::ROOT);
            if let Some(child) = self.directory(here).and_then(|map| map.get(&name)) {
                stack.push(child.node);
            } else {
                if name.len() > MAX_NAME {
                    return Err(TreeError::Name { path: show(path) });
                }
                let node = self.push(implicit_directory())?;
                self.name(path, here, &name, node)?;
                stack.push(node);
            }
            if stack.len() > MAX_DEPTH {
                return Err(TreeError::TooDeep { path: show(path) });
            }
        }
        if stack.len() + usize::from(new_directory) > MAX_DEPTH {
            return Err(TreeError::TooDeep { path: show(path) });
        }
        Ok(*stack.last().unwrap_or(&NodeId::ROOT))
    }

    /// As [`Tree::walk`], charged.
    fn follow(&mut self, path: &[u8], components: Vec<&[u8]>) -> Result<Walk, TreeError> {
        let mut steps = self.steps;
        let walked = self.walk(path, components, &mut steps);
        self.steps = steps;
        walked
    }

    /// Follows components, symbolic links included, from the root.
    fn walk<'a>(&'a self, path: &[u8], components: Vec<&'a [u8]>, steps: &mut Steps) -> Result<Walk, TreeError> {
        let mut pending = VecDeque::from(components);
        let mut stack = vec![NodeId::ROOT];
        let mut links = 0;
        while let Some(name) = pending.pop_front() {
            steps.take(1)?;
            match name {
                b"" | b"." => continue,
                b".." => {
                    if stack.len() > 1 {
                        stack.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let here = *stack.last().unwrap_or(&NodeId::ROOT);
            let Some(child) = self.directory(here).and_then(|map| map.get(name)) else {
                let missing = std::iter::once(name).chain(pending).map(<[u8]>::to_vec).collect();
                return Ok(Walk::Missing(stack, missing));
            };
            match &self.node(child.node).kind {
                Kind::Directory(_) => stack.push(child.node),
                Kind::Symlink(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(TreeError::TooManyLinks { path: show(path) });
                    }
                    if target.starts_with(b"/") {
                        stack.truncate(1);
                    }
                    for part in target.split(|byte| *byte == b'/').rev() {
                        pending.push_front(part);
                    }
                }
                _ => return Err(TreeError::NotADirectory { path: show(path) }),
            }
            if stack.len() > MAX_DEPTH {
                return Err(TreeError::TooDeep { path: show(path) });
            }
        }
        Ok(Walk::At(stack))
    }
}

/// Where a path led: the directories from the root, or how far it went and what was left.
enum Walk {
    At(Vec<NodeId>),
    Missing(Vec<NodeId>, VecDeque<Vec<u8>>),
}

fn implicit_directory() -> Node {
    Node { meta: Meta { mode: 0o755, ..Meta::default() }, kind: Kind::Directory(BTreeMap::new()) }
}

type Split<'a> = (Vec<&'a [u8]>, Option<&'a [u8]>);

/// Components of a path, the last one apart; none where the path is the root.
fn split(path: &[u8]) -> Result<Split<'_>, TreeError> {
    let mut components = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return Err(TreeError::Traversal { path: show(path) }),
            name if name.len() > MAX_NAME || name.contains(&0) => {
                return Err(TreeError::Name { path: show(path) });
            }
            // Nothing else shortens a path, so one that is longer is too deep wherever it leads.
            _ if components.len() > MAX_DEPTH => return Err(TreeError::TooDeep { path: show(path) }),
            name => components.push(name),
        }
    }
    let last = components.pop();
    Ok((components, last))
}

/// A path from an image for a message: text, and not too long. Whoever shows it escapes it.
pub(crate) fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(&path[..path.len().min(800)]).chars().take(200).collect()
}

#[cfg(test)]
mod tests;
