//! The tests of this crate. Each file of this folder is named here.

#[allow(dead_code, reason = "the other half is for the tests of the monitor")]
#[path = "../../runtime/vmm/tests/snp/recorder.rs"]
mod recorder;
#[path = "../vectors.rs"]
mod vectors;

mod architecture;
mod attached;
mod bench_boxes;
mod bench_kbs;
mod bench_service;
mod box_to_box;
mod boxes;
mod browsers;
mod citations;
mod commands;
mod copies;
mod demo;
mod dependencies;
mod deploy;
mod docker_words;
mod docs;
mod documented;
mod endurance;
mod evidence_files;
mod hardware;
mod hostile_host;
mod hostile_moves;
mod in_namespaces;
mod ingress;
mod kbs_words;
mod kernels;
mod killed;
mod lab;
mod lab_kernel;
mod lost_output;
mod many_connections;
mod many_disks;
mod measured_boot;
mod mutants;
mod network;
mod old_state;
mod one_definition;
mod owners;
mod packages;
mod qemu_launch;
mod reaping;
mod registries;
mod rego;
mod reproducible;
mod rights;
mod root_tamper;
mod sealed_volumes;
mod sealing;
mod secrets;
mod shared_networks;
mod side_doors;
mod simulated_is_refused;
mod snp_launch;
mod snp_model;
mod stage0;
mod stories;
mod terminals;
mod volumes;
mod workload_api;
mod wrong_use;
