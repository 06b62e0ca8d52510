//! A spec for tests, of this crate's users too.

use crate::{
    ConfigDigest, Floors, HostMay, Image, Mount, Name, Process, Rights, Root, Scratch, Tee, Tenant, VerityTable,
    WorkloadSpec,
};

/// A name that is known to be one.
///
/// # Panics
/// If it is none.
pub fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// A tenant.
///
/// # Panics
/// If the name is none.
pub fn tenant(text: &str) -> Tenant {
    text.parse().expect("a tenant's name")
}

/// The least there is: one program, no network names, nobody who may do anything.
pub fn workload(tee: Tee) -> WorkloadSpec {
    WorkloadSpec {
        version: 1,
        tenant: tenant("acme"),
        tee,
        host_may: HostMay::none(),
        inject: Vec::new(),
        image: Image {
            reference: "registry.example/app:1".into(),
            config_digest: ConfigDigest::new([0; 32]),
            manifest_digest: None,
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
            read_only: false,
        },
        process: Process {
            argv: vec!["/bin/app".into()],
            env: Vec::new(),
            cwd: "/".into(),
            user: "0".into(),
            stop_signal: 15,
            hostname: name("box"),
            domainname: None,
            tty: false,
            stdin_open: false,
            init: false,
            rights: Rights::default(),
        },
        kbs: None,
        secrets: Vec::new(),
        owners: Vec::new(),
        owner_authority: None,
        mounts: Vec::new(),
        shm_bytes: Mount::SHM,
        sysctls: Vec::new(),
        volumes: Vec::new(),
        data_volumes: Vec::new(),
        sealed_volumes: Vec::new(),
        ingress: Vec::new(),
        peers: Vec::new(),
        network: None,
        audiences: Vec::new(),
        coco_routes: false,
        floors: Floors::default(),
    }
}
