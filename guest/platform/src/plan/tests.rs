use std::collections::HashSet;

use coffer_verifier::measure::{Firmware, Launch, measure_ovmf};
use sha2::Digest as _;

use super::*;
use crate::sample::{rom, rom_with};

pub(crate) fn inputs(firmware: &[u8]) -> LaunchInputs<'_> {
    LaunchInputs {
        firmware,
        kernel: b"kernel",
        initrd: b"initrd",
        command_line: "coffer.tee=simulated",
        vcpus: 1,
        signature: VCPU_TYPE.parse().unwrap(),
    }
}

#[test]
fn every_input_is_measured() {
    let (rom, other_rom) = (rom(1), rom(2));
    let base = inputs(&rom);
    let variants = [
        base,
        LaunchInputs { firmware: &other_rom, ..base },
        LaunchInputs { kernel: b"kernel2", ..base },
        LaunchInputs { initrd: b"initrd2", ..base },
        LaunchInputs { command_line: "coffer.tee=none", ..base },
        LaunchInputs { command_line: "coffer.tee=simulated ", ..base },
        LaunchInputs { vcpus: 2, ..base },
        LaunchInputs { signature: "EPYC-Genoa".parse().unwrap(), ..base },
    ];
    let digests: HashSet<_> = variants.iter().map(|inputs| LaunchPlan::new(inputs).unwrap().measurement()).collect();
    assert_eq!(digests.len(), variants.len());
    assert_eq!(LaunchPlan::new(&base).unwrap(), LaunchPlan::new(&base).unwrap());
}

#[test]
fn the_plan_is_the_launch_of_an_ovmf_guest() {
    let rom = rom(7);
    for vcpus in [1, 2, MAX_VCPUS] {
        let inputs = LaunchInputs { vcpus, ..inputs(&rom) };
        let launch = Launch {
            firmware: Firmware::Image(&rom),
            kernel: Some(KernelHashes::of(inputs.kernel, inputs.initrd, inputs.command_line.as_bytes())),
            vcpus,
            signature: inputs.signature,
            features: GUEST_FEATURES,
            vmm: Vmm::Qemu,
        };
        assert_eq!(Ok(LaunchPlan::new(&inputs).unwrap().measurement()), measure_ovmf(&launch));
    }
}

#[test]
fn pages_do_not_overlap() {
    let rom = rom(1);
    let plan = LaunchPlan::new(&LaunchInputs { vcpus: MAX_VCPUS, ..inputs(&rom) }).unwrap();
    let own: Vec<_> = plan.pages().iter().filter(|page| page.page_type != PageType::Vmsa).map(|p| p.gpa).collect();
    assert_eq!(own.iter().collect::<HashSet<_>>().len(), own.len());
}

/// The verifier knows QEMU's format by itself, stage0 reads the machine model's; both have to be the same page.
#[test]
fn stage0_reads_the_hash_page_that_is_measured() {
    let rom = rom(1);
    let plan = LaunchPlan::new(&inputs(&rom)).unwrap();
    let read = coffer_machine::hash_page::Hashes::parse(plan.hash_page()).unwrap();
    let hash = |bytes: &[u8]| -> [u8; 32] { sha2::Sha256::digest(bytes).into() };
    assert_eq!((read.kernel, read.initrd), (hash(b"kernel"), hash(b"initrd")));
    assert_eq!(read.command_line, hash(b"coffer.tee=simulated\0"));
    assert_eq!(&read.to_page(), plan.hash_page());
}

#[test]
fn refuses_what_the_machine_model_has_no_place_for() {
    let rom = rom(1);
    let base = inputs(&rom);
    assert!(LaunchPlan::new(&LaunchInputs { vcpus: 0, ..base }).is_err());
    assert!(LaunchPlan::new(&LaunchInputs { vcpus: MAX_VCPUS + 1, ..base }).is_err());
    assert_eq!(LaunchPlan::new(&LaunchInputs { command_line: "a\0b", ..base }), Err(PlanError::CommandLine));
}

#[test]
fn refuses_firmware_that_is_not_stage0_of_this_machine_model() {
    let refused = |firmware: &[u8]| LaunchPlan::new(&inputs(firmware)).unwrap_err();
    assert!(matches!(refused(&vec![0; ROM_SIZE]), PlanError::Firmware(_)));
    let short = rom(1).split_off(ROM_SIZE / 2);
    assert!(matches!(refused(&short), PlanError::NotStage0 { what: "bytes", .. }));
    let moved = rom_with(1, |sections| sections[2].gpa += 0x1000);
    assert!(matches!(refused(&moved), PlanError::NotStage0 { what: "launch sections", .. }));
    let error = refused(&rom_with(1, |sections| sections.swap(0, 1))).to_string();
    assert!(error.contains("launch sections"), "{error}");
}
