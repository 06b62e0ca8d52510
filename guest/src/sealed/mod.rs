//! Sealed volumes: file systems of a guest with a TEE that outlive it, on disks of the host's.
//!
//! Opened after the secrets came and before the workload starts, closed after the last of its programs has ended and before the
//! host is told so. The order of each step, and what a crash between two of them leaves, is docs/design/sealing.md §7.1.
//! Trusts: the secure processor, the key broker. Of the host's disk nothing is believed: a header opens or does not, tags have the
//! root of the record, a block has its tag.
//! Never: writes over a disk that holds something it cannot open, goes on with a volume whose record it could not move, lets a key
//! out of the guest.

mod ext4;
mod header;
mod stack;
mod tags;

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use coffer_kbs_client::VolumeRecord;
use coffer_machine::disks;
use coffer_seal::{SealError, SealPolicy};
use coffer_spec::{DataVolume, SealedVolume, VolumePolicy, WorkloadSpec};
use rustix::mount::{MountFlags, UnmountFlags, unmount};

use self::{
    header::{Contents, Keeper, Refused, Secrets, Slot, Way},
    stack::Stack,
};
use crate::{
    boot::{
        data,
        devices::{self, Disk},
        mounts,
        root::ROOT,
        scratch::fill,
    },
    container::Bind,
    failure::{Code, Failure, OrFail},
    sealing::{Means, SealingError, VolumeKeys},
    secrets,
};

/// How long programs of the workload may take to be gone once they were killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sets memory aside for the tags of all volumes, so that the kernel never waits for it.
///
/// # Errors
/// `internal`: there is too little.
pub fn set_aside(spec: &WorkloadSpec) -> Result<(), Failure> {
    for (index, volume) in spec.sealed_volumes.iter().enumerate() {
        fill(&tags::node(index), volume.tag_bytes()).or_fail(Code::Internal, "set memory aside for tags")?;
    }
    Ok(())
}

/// What of each volume appears where, once it is open.
pub fn binds(spec: &WorkloadSpec) -> impl Iterator<Item = Bind> {
    spec.sealed_volumes.iter().enumerate().map(|(index, volume)| Bind {
        from: stack::mount_point(index).join(DataVolume::CONTENTS),
        to: volume.path.clone(),
        read_only: volume.read_only,
    })
}

/// The sealing policies that volumes of a spec have.
pub fn policies(spec: &WorkloadSpec) -> Vec<SealPolicy> {
    spec.sealed_volumes.iter().map(|volume| policy(volume.policy)).collect()
}

const fn policy(policy: VolumePolicy) -> SealPolicy {
    match policy {
        VolumePolicy::MeasurementAndChip => SealPolicy::MeasurementAndChip,
        VolumePolicy::Chip => SealPolicy::Chip,
        VolumePolicy::Measurement => SealPolicy::Measurement,
        VolumePolicy::Workload => SealPolicy::Workload,
    }
}

/// A volume in use.
struct Open {
    place: Place,
    /// What the broker's record says, or would.
    record: VolumeRecord,
    /// Which of the two headers is of that record.
    slot: usize,
    keys: VolumeKeys,
    secrets: Secrets,
    stack: Stack,
}

/// Volumes in use. To be closed, whatever happens.
#[derive(Default)]
pub struct Opened(Vec<Open>);

/// Which volume, and where.
#[derive(Clone)]
struct Place {
    index: usize,
    volume: SealedVolume,
    disk: Disk,
}

impl Place {
    fn fail(&self, code: Code, detail: impl core::fmt::Display) -> Failure {
        Failure::new(code, format!("sealed volume {}: {detail}", self.volume.name))
    }

    fn corrupt(&self) -> impl Fn(io::Error) -> Failure + '_ {
        |error| Failure { errno: error.raw_os_error().unwrap_or(0), ..self.fail(Code::SealedVolumeCorrupt, &error) }
    }

    fn context(&self) -> &[u8] {
        self.volume.name.as_str().as_bytes()
    }

    fn policy(&self) -> SealPolicy {
        policy(self.volume.policy)
    }

    fn disk(&self) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(&self.disk.node)
    }

    fn write_header(&self, slot: usize, sealed: &[u8]) -> io::Result<()> {
        let mut block = sealed.to_vec();
        block.resize(SealedVolume::BLOCK as usize, 0);
        let disk = self.disk()?;
        disk.write_all_at(&block, slot as u64 * SealedVolume::BLOCK)?;
        disk.sync_all()
    }
}

/// Opens every volume of the spec, in its order. `means`: of scope `volume`.
///
/// # Errors
/// The words of sealed volumes, those of a key broker that does not give the key, or `internal`. What was opened before is
/// closed again.
pub async fn open(means: &Means<'_>) -> Result<Opened, Failure> {
    let mut opened = Opened::default();
    for (index, volume) in means.spec.sealed_volumes.iter().enumerate() {
        match open_one(means, index, volume).await {
            Ok(open) => opened.0.push(open),
            Err(failure) => {
                let _ = close(means, opened, Patience::default()).await;
                return Err(failure);
            }
        }
    }
    Ok(opened)
}

async fn open_one(means: &Means<'_>, index: usize, volume: &SealedVolume) -> Result<Open, Failure> {
    let disk = devices::find_disk(devices::SYS_BLOCK.as_ref(), &disks::sealed(index).to_string())?;
    let place = Place { index, volume: volume.clone(), disk };
    let refused = |error: SealingError| of_sealing(means, &place, &error);
    let keys = means.volume_keys(place.policy(), place.context()).await.map_err(refused)?;
    let keeper = if volume.rollback_protected {
        Keeper::Broker(means.volume_record(&keys, place.context()).await.map_err(refused)?)
    } else {
        Keeper::Nobody
    };
    let (slots, mut found) = headers(means, &place).await?;
    let way = header::decide(keeper, slots, volume.unclean).map_err(|why| refusal(&place, why))?;
    let contents = match way {
        Way::Make => None,
        Way::Closed(slot) | Way::Recover(slot) => found[slot].take(),
    };
    let from = match keeper {
        Keeper::Broker(record) => record,
        Keeper::Nobody => contents.as_ref().map(|contents| contents.record),
    };
    let record = from.map_or(VolumeRecord::FIRST, VolumeRecord::opened);
    // Before the record is moved everything is as it will be; after it, the volume counts as open.
    let (secrets, slot, made) = if let (Some(contents), Way::Closed(slot) | Way::Recover(slot)) = (contents, way) {
        let secrets = contents.secrets.clone();
        take_tags(&place, contents, matches!(way, Way::Closed(_))).await?;
        (secrets, 1 - slot, None)
    } else {
        let (secrets, stack) = make(&place).await?;
        (secrets, 0, Some(stack))
    };
    let contents = Contents { record, bytes: volume.bytes, secrets: secrets.clone(), root: [0; 32] };
    let sealed = keys.seal(place.context(), record, &contents.encode()).map_err(refused)?;
    away(&place, move |place| place.write_header(slot, &sealed).map_err(place.corrupt())).await?;
    if volume.rollback_protected {
        means.move_volume_record(&keys, place.context(), from, record).await.map_err(refused)?;
    }
    let of_volume = secrets.clone();
    let (stack, mounted) = away(&place, move |place| Ok(mount(place, &of_volume, made))).await?;
    let open = Open { place, record, slot, keys, secrets, stack };
    match (mounted, way) {
        (Ok(()), _) => Ok(open),
        // Nothing of the workload's was written: it is closed again, at the next record.
        (Err(failure), Way::Closed(_)) => {
            let _ = close_one(means, open, &mut Patience::default()).await;
            Err(failure)
        }
        (Err(failure), _) => Err(failure),
    }
}

/// Work at a volume that blocks, beside the event loop.
async fn away<T: Send + 'static>(
    place: &Place,
    work: impl FnOnce(&Place) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let own = place.clone();
    let done = tokio::task::spawn_blocking(move || work(&own)).await;
    done.or_fail(Code::Internal, "work at a sealed volume")?
}

/// What the two headers are, and what those say that open.
async fn headers(means: &Means<'_>, place: &Place) -> Result<([Slot; 2], [Option<Contents>; 2]), Failure> {
    let (mut slots, mut found) = ([Slot::Empty; 2], [None, None]);
    for at in 0..2 {
        let block = away(place, move |place| {
            let mut block = vec![0; SealedVolume::BLOCK as usize];
            let read = place.disk().and_then(|disk| disk.read_exact_at(&mut block, at as u64 * SealedVolume::BLOCK));
            read.map(|()| block).map_err(place.corrupt())
        });
        let block = block.await?;
        if block.iter().all(|byte| *byte == 0) {
            continue;
        }
        let sealed = block.get(..HEADER).unwrap_or_default();
        slots[at] = Slot::Closed;
        match means.open_volume_header(place.policy(), place.context(), sealed).await {
            Ok(plain) => {
                let contents = Contents::decode(&plain).filter(|contents| contents.bytes == place.volume.bytes);
                if let Some(contents) = contents {
                    slots[at] = Slot::Of(contents.record);
                    found[at] = Some(contents);
                }
            }
            Err(SealingError::Seal(_)) => {}
            Err(error) => return Err(of_sealing(means, place, &error)),
        }
    }
    Ok((slots, found))
}

/// Bytes of a sealed header.
const HEADER: usize = coffer_seal::HEADER + CONTENTS + coffer_seal::TAG;
const CONTENTS: usize = 8 + 8 + 8 + header::KEY + 3 * 32;

async fn take_tags(place: &Place, contents: Contents, closed: bool) -> Result<(), Failure> {
    let digests = away(place, |place| {
        let loaded = place.disk().and_then(|disk| tags::load(&place.volume, &disk, place.index));
        loaded.map_err(place.corrupt())
    });
    let digests = digests.await?;
    if closed && digests.root != contents.root {
        return Err(place.fail(Code::SealedVolumeCorrupt, "its tags are not those it was closed with"));
    }
    if digests.superblock != contents.secrets.superblock {
        return Err(place.fail(Code::SealedVolumeCorrupt, "its tags begin otherwise than it was made"));
    }
    Ok(())
}

/// A new volume: keys that nobody else has, and an empty file system.
async fn make(place: &Place) -> Result<(Secrets, Stack), Failure> {
    away(place, |place| {
        let internal = "make the keys of a sealed volume";
        let mut secrets = Secrets { key: [0; header::KEY], journal: [0; 32], superblock: [0; 32] };
        getrandom::fill(&mut secrets.key).or_fail(Code::Internal, internal)?;
        getrandom::fill(&mut secrets.journal).or_fail(Code::Internal, internal)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut seeds = ext4::Seeds { uuid: [0; 16], hash: [0; 16], now: u32::try_from(now).unwrap_or(u32::MAX) };
        getrandom::fill(&mut seeds.uuid).or_fail(Code::Internal, internal)?;
        getrandom::fill(&mut seeds.hash).or_fail(Code::Internal, internal)?;
        let stack = open_stack(place, &secrets)?;
        secrets.superblock = tags::superblock(place.index).or_fail(Code::Internal, "read the tags' superblock")?;
        let device = OpenOptions::new().write(true).open(stack.node());
        device.and_then(|device| ext4::format(&device, place.volume.bytes, &seeds)).map_err(place.corrupt())?;
        Ok((secrets, stack))
    })
    .await
}

fn open_stack(place: &Place, secrets: &Secrets) -> Result<Stack, Failure> {
    Stack::open(place.index, &place.disk, &place.volume, secrets).map_err(|(what, error)| Failure {
        detail: format!("sealed volume {}: {what}: {error}", place.volume.name),
        ..place.corrupt()(error)
    })
}

/// Mounts it. What there is of its devices is given in any case.
fn mount(place: &Place, secrets: &Secrets, made: Option<Stack>) -> (Stack, Result<(), Failure>) {
    let opened = made.map_or_else(|| open_stack(place, secrets), Ok);
    match opened {
        Ok(stack) => {
            let mounted = mount_file_system(place, stack.node());
            (stack, mounted)
        }
        Err(failure) => (Stack::default(), Err(failure)),
    }
}

fn mount_file_system(place: &Place, node: &Path) -> Result<(), Failure> {
    let folder = stack::mount_point(place.index);
    let flags = MountFlags::NODEV | MountFlags::NOSUID;
    let (node, target) = (node.to_string_lossy(), folder.to_string_lossy());
    mounts::at(&node, &target, "ext4", flags, "")
        .map_err(|failure| Failure { code: Code::SealedVolumeCorrupt, ..failure })?;
    let SealedVolume { path, begins_empty, .. } = &place.volume;
    let fresh = DataVolume { path: path.clone(), read_only: false, begins_empty: *begins_empty };
    let bound = data::bind(&fresh, &folder, Path::new(ROOT));
    bound.map(drop).map_err(|failure| Failure { code: Code::SealedVolumeCorrupt, ..failure })
}

/// How long a key broker may take over the closing of all volumes: a stop's grace is not spent on one that hangs, and what is
/// left open is said. What a disk takes is not counted.
pub struct Patience(Duration);

/// What is said of a broker that took longer.
pub const NO_ANSWER: &str = "the key broker does not answer";

impl Default for Patience {
    fn default() -> Self {
        Self(Duration::from_secs(5))
    }
}

impl Patience {
    /// Nothing, if it is over first.
    pub async fn wait<T>(&mut self, answer: impl Future<Output = T>) -> Option<T> {
        let began = Instant::now();
        let answered = tokio::time::timeout(self.0, answer).await;
        self.0 = self.0.saturating_sub(began.elapsed());
        answered.ok()
    }
}

/// Closes volumes. Nothing of the workload lives any more.
///
/// # Errors
/// `sealed-volume-left-open`, of the first that could not be closed; the others are.
pub async fn close(means: &Means<'_>, opened: Opened, mut patience: Patience) -> Result<(), Failure> {
    let mut result = Ok(());
    for open in opened.0.into_iter().rev() {
        if let Err(failure) = close_one(means, open, &mut patience).await {
            result = result.and(Err(failure));
        }
    }
    result
}

async fn close_one(means: &Means<'_>, open: Open, patience: &mut Patience) -> Result<(), Failure> {
    let Open { place, record, slot, keys, secrets, stack } = open;
    let left_open = |detail: &dyn core::fmt::Display| place.fail(Code::SealedVolumeLeftOpen, detail);
    let store = |place: &Place| -> io::Result<[u8; 32]> {
        match unmount(stack::mount_point(place.index), UnmountFlags::empty()) {
            // It was not mounted.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        stack.close()?;
        Ok(tags::store(&place.volume, &place.disk()?, place.index)?.root)
    };
    let stored = away(&place, move |place| store(place).map_err(|error| place.fail(Code::SealedVolumeLeftOpen, error)));
    let root = stored.await?;
    let closed = record.closed();
    let contents = Contents { record: closed, bytes: place.volume.bytes, secrets, root };
    let sealed = keys.seal(place.context(), closed, &contents.encode()).map_err(|error| left_open(&error))?;
    // The header of the open volume stays until the record says that it is not open any more.
    let write = move |place: &Place| place.write_header(1 - slot, &sealed);
    away(&place, move |place| write(place).map_err(|error| place.fail(Code::SealedVolumeLeftOpen, error))).await?;
    if !place.volume.rollback_protected {
        return Ok(());
    }
    let moved = means.move_volume_record(&keys, place.context(), Some(record), closed);
    let moved = patience.wait(moved).await.ok_or_else(|| left_open(&NO_ANSWER))?;
    moved.map_err(|error| left_open(&error))
}

/// Ends all that lives in the workload's control group, so that nobody has a volume any more.
pub fn end_programs(control_group: &Path) {
    let _ = std::fs::write(control_group.join("cgroup.kill"), "1");
    let until = Instant::now() + PATIENCE;
    let some_live = || std::fs::read_to_string(control_group.join("cgroup.procs")).is_ok_and(|all| !all.is_empty());
    while some_live() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn refusal(place: &Place, why: Refused) -> Failure {
    match why {
        Refused::Closed => place.fail(Code::SealedVolumeClosed, "nothing on its disk opens here"),
        Refused::Older => {
            place.fail(Code::SealedVolumeOlder, "its disk is not the one that the key broker's record is of")
        }
        Refused::Unclean => place.fail(Code::SealedVolumeUnclean, "it was not closed when it was last used"),
    }
}

fn of_sealing(means: &Means<'_>, place: &Place, error: &SealingError) -> Failure {
    match (error, &means.spec.kbs) {
        (SealingError::Broker { cause, .. }, Some(kbs)) => {
            secrets::failure(kbs, &format!("sealed volume {}", place.volume.name), cause)
        }
        (SealingError::Seal(SealError::Older { .. }), _) => refusal(place, Refused::Older),
        (SealingError::Seal(_), _) => place.fail(Code::SealedVolumeClosed, error),
        _ => place.fail(Code::Internal, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_kbs_client::VolumeState;

    #[test]
    fn a_header_has_the_length_that_is_read() {
        let secrets = Secrets { key: [1; header::KEY], journal: [2; 32], superblock: [3; 32] };
        let record = VolumeRecord { generation: 7, state: VolumeState::Closed };
        let encoded = Contents { record, bytes: 16 << 20, secrets, root: [4; 32] }.encode();
        assert_eq!(encoded.len(), CONTENTS);
        assert!(HEADER < SealedVolume::BLOCK as usize);
    }
}
