//! The key broker: releases secrets to guests whose evidence meets policy, and records every decision before it does.
//!
//! Takes requests over attested connections ([`broker`]) and from operators with listed keys ([`admin`]).
//! Trusts: AMD's roots, the operator's configuration, the root key. Believes nothing a guest says that its report does
//! not carry, and nothing in its own database that its MACs do not.
//! Never: releases without a policy, releases what it cannot record, tells a guest why.
//! Source: docs/design/broker.md §6; docs/kbs.md.
#![forbid(unsafe_code)]

mod admin;
mod admin_socket;
mod admission;
mod archive;
mod aside;
mod asked;
mod audit_log;
mod backup;
mod broker;
mod certificate;
mod checkpoint_place;
mod clock;
mod config;
mod crl_floor;
mod custody;
mod decide;
mod doctor;
mod door;
mod endorser;
mod floors;
mod guest;
mod guests;
mod init;
mod inputs;
mod keys;
mod lacking;
mod leaving;
mod limits;
mod listeners;
mod look;
mod mend;
mod metrics;
mod operators;
mod owner;
mod permit;
mod places;
mod policies;
mod refusals;
mod release;
mod reload;
mod revoked;
mod roles;
mod rotation;
mod scratch;
mod sealed_file;
mod sealing;
mod server;
mod server_key;
mod shares;
mod sources;
mod standing;
mod state;
mod store;
mod tenant;
mod tenants;
mod terms;
mod token;
mod turns;
mod wanted;

pub use admin_socket::{AdminSocketEntry, admin_socket_path};
pub use archive::{ArchiveError, ArchiveSummary, ArchivesSummary, Reach, archive, verify_archives};
pub use audit_log::AuditLog;
pub use backup::{BackupError, BackupSummary, CheckpointElsewhere, IfThere, backup, restore};
pub use clock::Clock;
pub use coffer_kds::{KdsEntry, Services};
pub use config::{Config, ConfigError, ConfigFile};
pub use custody::{Custody, CustodyError, FileCustody};
pub use doctor::{Finding, Weight, examine};
pub use init::{Initialized, init, init_with_checkpoint};
pub use keys::{KeyError, RootKey};
pub use lacking::lacking;
pub use mend::{UNCONFIRMED, accept_rollback, repair, repair_plan, upgrade};
pub use reload::{Reload, ReloadError};
pub use roles::{About, Grant, METHODS, Method, Role};
pub use rotation::{Rotation, rotate_root};
pub use sealed_file::{RecoveryKey, RecoverySecret, SealedFileError, recovery_pair};
pub use server::{Addresses, Server, ServerError};
pub use server_key::{Listener, ServerKeys, make_next_key, server_keys, switch_key};
pub use state::{
    State, StateError, begin_store, checkpoint_path, config_path, open_rows, open_store, open_store_watched,
    open_store_with, pin,
};
pub use store::{
    Accepted, Admin, Archive, ArchiveFile, AuditEntry, AuditFault, AuditSummary, CheckpointError, CheckpointKeeper,
    Compared, Fault, FileCheckpoint, Forget, Intent, Kind, LogFault, MemoryCheckpoint, MemoryRows, NewSecret, Position,
    Restored, Row, Rows, RowsError, StateFault, StateSummary, Store, StoreError, Traces, Transaction, Witness, Written,
};
pub use tenant::{Tenant, TenantError};
pub use tenants::NoTenant;
