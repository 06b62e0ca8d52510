//! Replays the fuzzing corpora of the devices on a stable compiler, with mutations: no panic.

#[path = "../../../tests/mutate.rs"]
mod mutate;
#[path = "../../../fuzz/fuzz_targets/vmm_exercise.rs"]
mod vmm_exercise;

use std::{fs, path::Path};

use mutate::mutate;

#[test]
fn no_input_of_the_corpora_or_near_them_makes_a_device_panic() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let mut seed = 0x5EED;
    let targets = [
        ("vmm_disk", vmm_exercise::disk as fn(&[u8])),
        ("vmm_vsock", vmm_exercise::vsock_packets),
        ("vmm_net", vmm_exercise::net_frames),
        ("vmm_filter", vmm_exercise::filtered_frames),
        ("vmm_switch", vmm_exercise::switched_frames),
        ("vmm_registers", vmm_exercise::registers),
        ("vmm_page_states", vmm_exercise::page_states),
    ];
    for (name, target) in targets {
        let mut seeds = 0;
        for entry in fs::read_dir(corpora.join(name)).unwrap().flatten() {
            let data = fs::read(entry.path()).unwrap();
            target(&data);
            for _ in 0..200 {
                target(&mutate(&data, &mut seed));
            }
            seeds += 1;
        }
        assert!(seeds >= 2, "{name}: {seeds} seeds");
    }
}
