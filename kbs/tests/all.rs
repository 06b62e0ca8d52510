//! The tests of this crate. Each file of this folder is named here.

mod common;

mod archive;
mod audit;
mod contention;
mod crash;
mod dry_run;
mod endorsements;
mod fields;
mod first_use;
mod floors;
mod group_commit;
mod guest_api;
mod house;
mod listeners;
mod local_admin;
mod messages;
mod operation;
mod operators_places;
mod policies;
mod process;
mod refused;
mod release;
mod revoke;
mod roles;
mod rollback;
mod rotation;
mod starvation;
mod strangers;
mod trips;
mod trust;
mod upgrade;
mod widening;
