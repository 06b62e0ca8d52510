use std::collections::HashSet;

use coffer_verifier::measure::{Firmware, Launch, measure_ovmf};
use sha2::Digest as _;

use super::*;
use crate::sample::{inputs, rom, rom_with};

fn measured(inputs: &LaunchInputs<'_>) -> Measurement {
    LaunchPlan::new(inputs).unwrap().measurement()
}

/// `base`, and with each input that every form measures another.
fn variants<'a>(base: LaunchInputs<'a>, other_rom: &'a [u8]) -> [LaunchInputs<'a>; 7] {
    [
        base,
        LaunchInputs { firmware: other_rom, ..base },
        LaunchInputs { kernel: LaunchFile::Bytes(b"kernel2"), ..base },
        LaunchInputs { initrd: LaunchFile::Bytes(b"initrd2"), ..base },
        LaunchInputs { command_line: "coffer.tee=none", ..base },
        LaunchInputs { command_line: "coffer.tee=simulated ", ..base },
        LaunchInputs { vcpus: 2, ..base },
    ]
}

#[test]
fn every_input_is_measured() {
    let (rom, other_rom) = (rom(1), rom(2));
    let base = inputs(&rom);
    let mut digests: HashSet<_> = variants(base, &other_rom).iter().map(measured).collect();
    digests.insert(measured(&LaunchInputs { signature: "EPYC-Genoa".parse().unwrap(), ..base }));
    digests.insert(measured(&LaunchInputs { form: LaunchForm::LongMode, ..base }));
    digests.insert(measured(&LaunchInputs { form: LaunchForm::Namespaces, ..base }));
    assert_eq!(digests.len(), 10);
    assert_eq!(LaunchPlan::new(&base).unwrap(), LaunchPlan::new(&base).unwrap());
}

#[test]
fn the_plan_is_the_launch_of_an_ovmf_guest() {
    let rom = rom(7);
    for vcpus in [1, 2, MAX_VCPUS] {
        let inputs = LaunchInputs { vcpus, ..inputs(&rom) };
        let plan = LaunchPlan::new(&inputs).unwrap();
        let launch = Launch {
            firmware: Firmware::Image(plan.rom()),
            kernel: None,
            vcpus,
            signature: inputs.signature,
            features: GUEST_FEATURES,
            vmm: Vmm::Qemu,
        };
        assert_eq!(Ok(plan.measurement()), measure_ovmf(&launch));
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
    // Nothing else of the ROM is another one, and where the page goes is empty until start code copies it there.
    let mut without = plan.rom().to_vec();
    without[ROM_HASHES..][..PAGE].fill(0);
    assert_eq!(without, rom);
    let there = plan.pages().iter().find(|page| page.gpa == HASHES_GPA).unwrap();
    assert_eq!((there.page_type, &*there.page), (PageType::Zero, &[0; PAGE]));
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
    let base = rom(1);
    let filled = LaunchPlan::new(&inputs(&base)).unwrap();
    assert!(matches!(refused(filled.rom()), PlanError::NotStage0 { what: "bytes in its page for hashes", .. }));
}

fn both_forms(inputs: &LaunchInputs<'_>) -> [LaunchPlan; 2] {
    LaunchForm::MACHINES.map(|form| LaunchPlan::new(&LaunchInputs { form, ..*inputs }).unwrap())
}

/// A ROM of which some pages are zero and some are not, as stage0's are.
fn full_rom() -> Vec<u8> {
    let mut rom = rom(1);
    rom[..5 * PAGE].fill(0xC3);
    rom[ROM_SIZE - PAGE..][..16].fill(0xF4);
    rom
}

#[test]
fn the_forms_differ_in_the_rom_in_what_start_code_writes_and_in_the_processors_state() {
    let rom = full_rom();
    let [reset, long] = both_forms(&LaunchInputs { vcpus: 2, ..inputs(&rom) });
    assert_eq!((reset.form(), long.form()), (LaunchForm::ResetVector, LaunchForm::LongMode));
    let in_rom = |page: &&PlannedPage| (ROM_GPA..ROM_GPA + ROM_SIZE as u64).contains(&page.gpa);
    assert_eq!(reset.pages().iter().filter(in_rom).count(), ROM_SIZE / PAGE);
    assert_eq!(long.pages().iter().filter(in_rom).count(), 0);
    let rest: Vec<_> = reset.pages().iter().filter(|page| !in_rom(page)).collect();
    assert_eq!(rest.len(), long.pages().len(), "page for page the same places");
    let written = [
        PAGE_TABLES_GPA..PAGE_TABLES_GPA + 4 * PAGE as u64,
        STAGE0_GPA..STAGE0_GPA + ROM_SIZE as u64,
        HASHES_GPA..HASHES_GPA + PAGE as u64,
        PARKING_GPA..PARKING_GPA + PAGE as u64,
    ];
    for (one, other) in rest.into_iter().zip(long.pages()) {
        assert_eq!(one.gpa, other.gpa);
        if one.page_type == PageType::Vmsa {
            assert!(other.page_type == PageType::Vmsa && one.page != other.page);
        } else if written.iter().any(|range| range.contains(&one.gpa)) {
            assert_eq!(one.page_type, PageType::Zero);
            let empty = other.page.iter().all(|byte| *byte == 0);
            assert_eq!(other.page_type, if empty { PageType::Zero } else { PageType::Normal }, "{:#x}", one.gpa);
        } else {
            assert_eq!(one, other, "secrets and CPUID are the same");
        }
    }
    let at = |gpa: u64| &long.pages().iter().find(|page| page.gpa == gpa).unwrap().page;
    assert_eq!(at(STAGE0_GPA)[..], rom[..PAGE]);
    assert_eq!(at(PARKING_GPA)[..], rom[ROM_SIZE - PAGE..]);
    assert_eq!(at(HASHES_GPA)[..], long.hash_page()[..]);
    assert_eq!(at(STAGE0_GPA + ROM_HASHES as u64)[..], [0; PAGE], "no part of the image");
    assert_eq!(at(PAGE_TABLES_GPA)[..], page_tables(true)[..PAGE]);
}

#[test]
fn every_input_is_measured_in_the_64_bit_form_but_for_the_type_of_processor() {
    let (rom, other_rom) = (full_rom(), rom_with(2, |_| {}));
    let base = LaunchInputs { form: LaunchForm::LongMode, ..inputs(&rom) };
    let all = variants(base, &other_rom);
    assert_eq!(all.iter().map(measured).collect::<HashSet<_>>().len(), all.len());
    // RDX is zero, and it alone says what processor it is.
    assert_eq!(measured(&base), measured(&LaunchInputs { signature: "EPYC-Genoa".parse().unwrap(), ..base }));
}

/// The scripts' texts, which docs/measured-boot.md prints.
const SCRIPT: &str = include_str!("../../../../scripts/long-mode-digest.py");
const ROM_SCRIPT: &str = include_str!("../../../../scripts/rom-with-hashes.py");

#[test]
fn a_script_that_shares_no_code_computes_the_64_bit_form() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let rom = full_rom();
    for vcpus in [1, 2, MAX_VCPUS] {
        let inputs = LaunchInputs { form: LaunchForm::LongMode, vcpus, ..inputs(&rom) };
        let output = std::process::Command::new("python3")
            .arg(put("digest.py", SCRIPT.as_bytes()))
            .args([put("stage0", &rom), put("kernel", b"kernel"), put("initrd", b"initrd")])
            .args([inputs.command_line, &vcpus.to_string()])
            .output()
            .unwrap();
        let ours = LaunchPlan::new(&inputs).unwrap().measurement().to_string();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), ours, "{output:?}");
    }
}

#[test]
fn a_script_that_shares_no_code_makes_the_rom_that_is_launched() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let rom = full_rom();
    let inputs = inputs(&rom);
    let output = std::process::Command::new("python3")
        .arg(put("rom.py", ROM_SCRIPT.as_bytes()))
        .args([put("stage0", &rom), put("kernel", b"kernel"), put("initrd", b"initrd")])
        .arg(inputs.command_line)
        .output()
        .unwrap();
    assert!(output.stdout == LaunchPlan::new(&inputs).unwrap().rom(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_page_prints_the_scripts_as_they_are() {
    let page = include_str!("../../../../docs/measured-boot.md");
    let printed = page.split_once("```python\n").unwrap().1.split_once("```").unwrap().0;
    assert_eq!(printed, SCRIPT);
    let printed = page.split_once("<<'END'\n").unwrap().1.split_once("END\n").unwrap().0;
    let (_, program) = ROM_SCRIPT.split_once("import").unwrap();
    assert_eq!(printed, format!("import{program}"));
}

/// What a simulated processor says of a box in namespaces must never be what any processor says of a machine.
#[test]
fn a_box_without_a_machine_is_measured_as_nothing_that_a_processor_could_run() {
    let (rom, other_rom) = (rom(1), rom(2));
    let base = LaunchInputs { form: LaunchForm::Namespaces, ..inputs(&rom) };
    let plan = LaunchPlan::new(&base).unwrap();
    let [page] = plan.pages() else { panic!("{} pages", plan.pages().len()) };
    assert_eq!((page.gpa, page.page_type), (0, PageType::Normal));
    assert!(page.page.starts_with(NAMESPACES_LABEL) && NAMESPACES_LABEL.starts_with(b"coffer: a box in namespaces"));
    for machine in both_forms(&base) {
        assert!(machine.pages().iter().all(|page| page.gpa != 0), "no machine is launched with anything there");
        assert!(machine.pages().iter().any(|page| page.page_type == PageType::Vmsa), "and each has a processor");
    }
    // Of its inputs what runs is measured, init and the workload's digest, and nothing that is not there.
    let digests: Vec<_> = variants(base, &other_rom).iter().map(measured).collect();
    let [plain, firmware, kernel, initrd, line, other_line, vcpus] = digests[..] else { panic!("seven variants") };
    assert_eq!([firmware, kernel, vcpus], [plain; 3]);
    assert_eq!(HashSet::from([plain, initrd, line, other_line]).len(), 4);
    assert!(crate::igvm_file::write(&plan).is_err());
}

#[test]
fn a_file_and_its_hash_are_planned_alike() {
    let rom = rom(1);
    let hashed = |bytes: &[u8]| LaunchFile::Sha256(Sha256::digest(bytes).into());
    for form in LaunchForm::MACHINES.into_iter().chain([LaunchForm::Namespaces]) {
        let bytes = LaunchInputs { form, ..inputs(&rom) };
        let hashes = LaunchInputs { kernel: hashed(b"kernel"), initrd: hashed(b"initrd"), ..bytes };
        assert_eq!(LaunchPlan::new(&bytes), LaunchPlan::new(&hashes));
    }
}

#[test]
fn a_script_that_shares_no_code_computes_the_measurement_of_a_box_without_a_machine() {
    let rom = rom(1);
    let inputs = LaunchInputs { form: LaunchForm::Namespaces, ..inputs(&rom) };
    let folder = tempfile::tempdir().unwrap();
    let initrd = folder.path().join("initrd");
    std::fs::write(&initrd, b"initrd").unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/namespaces-digest.py");
    let output =
        std::process::Command::new("python3").arg(script).arg(initrd).arg(inputs.command_line).output().unwrap();
    let ours = LaunchPlan::new(&inputs).unwrap().measurement().to_string();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), ours, "{output:?}");
}
