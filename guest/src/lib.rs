//! coffer-init: PID 1 and agent of the guest.
//!
//! One static binary. [`init`] is the road from the first mount ([`boot`]) to the running workload, [`agent`] answers on
//! vsock, [`container`] is how a program gets into the workload's place.
//! Trusts: the measured platform it came with, the spec whose digest is measured, its secure processor.
//! Never: falls back from one TEE to another; believes the host's clock, disks or answers; puts workload output or a
//! secret on the console.
//! Source: docs/design/boot.md §3, docs/design/sealing.md §7, docs/design/guest.md §8.

pub mod init;

pub mod agent;
pub mod boot;
pub mod broker;
pub mod card;
pub mod clock;
pub mod container;
pub mod ending;
pub mod events;
pub mod failure;
mod farewell;
pub mod host;
pub mod host_certificates;
pub mod ingress;
pub mod lines;
pub mod log_ring;
pub mod notices;
pub mod owners;
pub mod passwd;
pub mod peers;
pub mod processor;
pub mod reaper;
mod sealed;
pub mod sealing;
pub mod secret_env;
pub mod secrets;
pub mod spawn;
pub mod sys;
pub mod workload;
pub mod workload_api;
