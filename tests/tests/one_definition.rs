//! What firmware, guest and monitors agree on stands once, in `guest/machine`: neither Rust nor a script spells an address, a
//! word, a serial number or a GUID of it again.

use std::{
    fs,
    path::{Path, PathBuf},
};

use coffer_machine::{
    console, devices, disks, firmware, fw_cfg, handover, initrd, map, qemu, refusal::Refusal, spec_disk,
};

/// Where they stand, and who may spell them all the same.
const MAY: &[&str] = &[
    "guest/machine/",
    // Knows no crate of ours: QEMU's and OVMF's formats are its own knowledge, compared in guest/platform/src/plan/tests.rs.
    "verifier/",
    // Judges the ROM by what the launch formats and Linux say, not by what stage0 believes.
    "scripts/snp-model/",
    // Recomputes a launch apart from us.
    "scripts/long-mode-digest.py",
    // Names crates; one is called as a disk is.
    "tests/tests/architecture.rs",
];

/// Addresses as they could be spelled, without digit separators and in one case.
fn numbers() -> Vec<String> {
    let addresses = [
        map::SECRETS_GPA,
        map::CPUID_GPA,
        map::HASHES_GPA,
        map::ACPI_GPA,
        map::ROM_GPA,
        devices::VIRTIO_MMIO_BASE,
        devices::IO_APICS[0].address.into(),
        devices::IO_APICS[1].address.into(),
        devices::LOCAL_APIC.into(),
    ];
    addresses.iter().map(|address| format!("0x{address:x}")).collect()
}

fn words() -> Vec<String> {
    let quoted = |text: &str| format!("{text:?}");
    let mut all = vec![
        console::START.to_owned(),
        console::CHECKED.to_owned(),
        console::REFUSED.trim_end().to_owned(),
        "coffer-vol-".to_owned(),
        quoted(disks::ROOT),
        quoted(disks::SPEC),
        quoted(disks::SCRATCH),
        format!("serial={}", disks::ROOT),
        "opt/coffer/".to_owned(),
        quoted(&format!("/{}", initrd::SCRATCH_MODULES)),
        quoted(&format!("/{}", initrd::NETWORK_MODULES)),
        "microvm,".to_owned(),
        "isa-debug-exit".to_owned(),
        qemu::MODERN_VIRTIO.to_owned(),
    ];
    assert!(qemu::MACHINE.starts_with("microvm,") && fw_cfg::file::KERNEL.starts_with("opt/coffer/"));
    for magic in [&spec_disk::SPEC_MAGIC[..], spec_disk::HOST_MAGIC, handover::MAGIC] {
        all.push(String::from_utf8_lossy(magic).into_owned());
    }
    // Refusals with a name of their own; the others are words of any text.
    all.extend(Refusal::ALL.iter().map(|it| quoted(it.word())).filter(|word| word.contains("-claim")));
    all
}

/// The first bytes of the GUIDs, as Rust, assembler and people spell them.
fn guids() -> Vec<String> {
    use firmware::guid::{FOOTER, RESET_BLOCK, SEV_METADATA};
    let mut all = Vec::new();
    for guid in [SEV_METADATA, RESET_BLOCK, FOOTER] {
        let [a, b, c, d, ..] = guid.to_be_bytes();
        all.push(format!("0x{a:02x}, 0x{b:02x}, 0x{c:02x}, 0x{d:02x}"));
        all.push(format!("0x{a:02x}{b:02x}{c:02x}{d:02x}"));
        all.push(format!("{d:02x}{c:02x}{b:02x}{a:02x}-"));
    }
    all
}

#[test]
fn nothing_of_the_machine_model_is_written_a_second_time() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in
        ["guest", "runtime", "simulator", "kbs", "policies", "tests", "scripts", "fuzz/fuzz_targets", "verifier"]
    {
        sources(&root.join(folder), &mut files);
    }
    let (numbers, words, guids) = (numbers(), words(), guids());
    let mut wrong = Vec::new();
    let mut seen_at_home = 0;
    for file in &files {
        let name = file.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
        let Ok(text) = fs::read_to_string(file) else { continue };
        let plain = text.to_lowercase().replace('_', "");
        let found = numbers.iter().filter(|it| is_number(&plain, it));
        let found = found.chain(guids.iter().filter(|it| plain.contains(*it)));
        let found: Vec<_> = found.chain(words.iter().filter(|it| text.contains(*it))).collect();
        if MAY.iter().any(|may| name.starts_with(may)) {
            seen_at_home += found.len();
        } else if !found.is_empty() && !name.ends_with("one_definition.rs") {
            wrong.push(format!("{name}: {found:?}"));
        }
    }
    assert!(files.len() > 100 && seen_at_home > 20, "{} files, {seen_at_home} findings at home", files.len());
    assert!(wrong.is_empty(), "spelled a second time:\n{}", wrong.join("\n"));
}

/// True if the text has this number and not only one that begins with it.
fn is_number(text: &str, number: &str) -> bool {
    text.match_indices(number)
        .any(|(at, _)| !text[at + number.len()..].starts_with(|next: char| next.is_ascii_hexdigit()))
}

/// Everything that is code: Rust, assembler, linker scripts, and programs without an extension.
fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the repository").flatten() {
        let path = entry.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if path.is_dir() {
            if !path.ends_with("target") && !path.ends_with("testdata") {
                sources(&path, out);
            }
        } else if matches!(extension, None | Some("rs" | "s" | "ld" | "sh" | "py")) {
            out.push(path);
        }
    }
}
