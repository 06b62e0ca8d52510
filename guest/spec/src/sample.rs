//! A spec for tests, of this crate's users too.

use crate::{Floors, Image, Process, Root, Scratch, Tee, VerityTable, WorkloadSpec};

/// The least there is: one program, no network names, nobody who may do anything.
pub fn workload(tee: Tee) -> WorkloadSpec {
    WorkloadSpec {
        version: 1,
        tenant: "acme".into(),
        tee,
        host_may: Vec::new(),
        inject: Vec::new(),
        image: Image {
            reference: "registry.example/app:1".into(),
            config_digest: format!("sha256:{}", "0".repeat(64)),
        },
        root: Root {
            verity: VerityTable {
                algorithm: "sha256".into(),
                block_size: 4096,
                data_blocks: 8,
                hash_start: 8,
                salt: String::new(),
                root_hash: "0".repeat(64),
            },
            scratch: Scratch::Tmpfs { bytes: 1 << 20 },
        },
        process: Process {
            argv: vec!["/bin/app".into()],
            env: Vec::new(),
            cwd: "/".into(),
            user: "0".into(),
            stop_signal: 15,
            hostname: "box".into(),
        },
        kbs: None,
        secrets: Vec::new(),
        owners: Vec::new(),
        mounts: Vec::new(),
        volumes: Vec::new(),
        audiences: Vec::new(),
        floors: Floors::default(),
    }
}
