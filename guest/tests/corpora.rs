//! Replays the fuzzing corpora of a workload's requests and of the agent's messages on a stable compiler, with mutations: no panic,
//! bounds kept, nothing repeated.

#[path = "../../fuzz/fuzz_targets/agent_exercise.rs"]
mod agent_exercise;
#[path = "../../tests/mutate.rs"]
mod mutate;
#[path = "../../fuzz/fuzz_targets/workload_exercise.rs"]
mod workload_exercise;

use std::{fs, path::Path};

use coffer_guest::workload_api::Asked;
use coffer_guest_proto::ExecRequest;
use mutate::mutate;
use prost::Message as _;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    fs::read_dir(folder).unwrap().flatten().map(|entry| fs::read(entry.path()).unwrap()).collect()
}

#[test]
fn no_message_to_the_agent_or_from_it_goes_beyond_its_words() {
    let mut seed = 0x5EED;
    for data in corpus("agent_request") {
        assert!(ExecRequest::decode(&data[..]).unwrap().message.is_some());
        agent_exercise::request(&data);
        for _ in 0..5000 {
            agent_exercise::request(&mutate(&data, &mut seed));
        }
    }
    for data in corpus("agent_event") {
        agent_exercise::event(&data);
        for _ in 0..5000 {
            agent_exercise::event(&mutate(&data, &mut seed));
        }
    }
    for data in corpus("owner_list") {
        assert!(coffer_spec::SignedOwnerList::parse(&data).unwrap().unverified().is_ok());
        agent_exercise::owner_list(&data);
        for _ in 0..5000 {
            agent_exercise::owner_list(&mutate(&data, &mut seed));
        }
    }
    let lengths = ["agent_request", "agent_event", "owner_list"].map(|name| corpus(name).len());
    assert_eq!(lengths, [6, 2, 1]);
}

#[test]
fn no_request_of_the_corpus_or_near_it_is_read_beyond_its_bounds_or_repeated() {
    let (mut seed, mut calls) = (0x5EED, 0);
    for data in corpus("workload_request") {
        let line = String::from_utf8(data.clone()).unwrap();
        let (method, target) = line.split_once(' ').unwrap();
        let read = Asked::at_each_door(method, target);
        calls += read.iter().filter(|asked| matches!(asked, Asked::Call { .. })).count();
        workload_exercise::request(&data);
        for _ in 0..2000 {
            workload_exercise::request(&mutate(&data, &mut seed));
        }
    }
    assert_eq!(calls, 11, "each file is a call of one door");
}
