//! The disks of a guest. A guest finds each by its serial number alone; which of QEMU's transports it hangs on says nothing.

use core::fmt;

use crate::devices::VIRTIO_MMIO_COUNT;

/// Root image.
pub const ROOT: &str = "coffer-root";
/// Workload spec ([`crate::spec_disk`]).
pub const SPEC: &str = "coffer-spec";
/// Room for the writable layer.
pub const SCRATCH: &str = "coffer-scratch";

/// Most volumes of one guest, of all kinds.
pub const MOST_VOLUMES: usize = 16;
/// Transports that are not for volumes: root, spec, scratch, vsock, network, console.
const OTHER_DEVICES: usize = 6;
// One is left over, so that the next device is not another measurement.
const _: () = assert!(MOST_VOLUMES + OTHER_DEVICES < VIRTIO_MMIO_COUNT as usize);

/// Serial number of a volume, counted from 0.
pub fn volume(index: usize) -> impl fmt::Display {
    fmt::from_fn(move |f| write!(f, "coffer-vol-{index}"))
}

/// Serial number of a data volume, counted from 0.
pub fn data(index: usize) -> impl fmt::Display {
    fmt::from_fn(move |f| write!(f, "coffer-data-{index}"))
}

/// Serial number of a sealed volume, counted from 0.
pub fn sealed(index: usize) -> impl fmt::Display {
    fmt::from_fn(move |f| write!(f, "coffer-sealed-{index}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashSet, string::ToString};

    #[test]
    fn serials_are_distinct_and_as_long_as_virtio_carries() {
        let mut all: HashSet<_> = (0..MOST_VOLUMES).map(|index| volume(index).to_string()).collect();
        all.extend((0..MOST_VOLUMES).map(|index| data(index).to_string()));
        all.extend((0..MOST_VOLUMES).map(|index| sealed(index).to_string()));
        all.extend([ROOT, SPEC, SCRATCH].map(ToString::to_string));
        assert_eq!(all.len(), 3 * MOST_VOLUMES + 3);
        assert!(all.iter().all(|serial| serial.len() <= 20), "VIRTIO_BLK_ID_BYTES");
    }
}
