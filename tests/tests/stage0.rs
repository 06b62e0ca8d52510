//! stage0 on a machine that gives it something else than what was measured: it says what differs, and starts nothing.

use anyhow::{Context, Result, ensure};
use coffer_machine::{
    Refusal, console,
    handover::Handover,
    hash_page::{ENTRY, TABLE_HEADER},
    map::{ACPI_GPA, HANDOVER_GPA, PAGE},
    memory::Range,
};
use coffer_platform::files::Platform;
use coffer_tests::{
    World,
    bare_boot::{BareBoot, INIT_SPOKE, TALKATIVE},
};

fn honest() -> Result<BareBoot> {
    let platform = Platform::load(&World::new()?.platform)?;
    BareBoot::honest(&platform, TALKATIVE)
}

fn refused(what: &str, boot: &BareBoot, expected: Refusal) -> Result<()> {
    let outcome = boot.run(INIT_SPOKE).with_context(|| what.to_owned())?;
    ensure!(outcome.refusal == Some(expected), "{what}: expected {expected:?}, found {outcome:#?}");
    let line = format!("{}{}\n", console::REFUSED, expected.word());
    ensure!(outcome.console.replace('\r', "").ends_with(&line), "{what}: {}", outcome.console);
    ensure!(!outcome.console.contains("Linux version"), "{what}: a kernel ran");
    Ok(())
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed[at] ^= 1;
    changed
}

#[test]
fn a_kernel_initrd_or_command_line_that_was_not_measured_is_refused() -> Result<()> {
    let good = honest()?;
    let kernel = good.kernel.clone().context("a kernel")?;
    let initrd = good.initrd.clone().context("an initrd")?;
    for at in [0x300, kernel.len() / 2, kernel.len() - 1] {
        let bad = BareBoot { kernel: Some(flipped(&kernel, at)), ..good.clone() };
        refused(&format!("kernel byte {at}"), &bad, Refusal::KernelHash)?;
    }
    let longer = BareBoot { kernel: Some([&kernel[..], &[0; 16]].concat()), ..good.clone() };
    refused("a longer kernel", &longer, Refusal::KernelHash)?;
    for (what, initrd) in [
        ("initrd's first byte", Some(flipped(&initrd, 0))),
        ("initrd's last byte", Some(flipped(&initrd, initrd.len() - 1))),
        ("an empty initrd", Some(Vec::new())),
        ("no initrd", None),
    ] {
        refused(what, &BareBoot { initrd, ..good.clone() }, Refusal::InitrdHash)?;
    }
    for line in [&b"console=ttyS0 reboot=t panic=-1 init=/bin/sh\0"[..], b"console=ttyS0 reboot=t panic=-1", b"\0"] {
        let bad = BareBoot { command_line: line.to_vec(), ..good.clone() };
        refused("another command line", &bad, Refusal::CommandLineHash)?;
    }
    Ok(())
}

#[test]
fn a_hash_page_that_is_absent_or_changed_is_refused() -> Result<()> {
    let good = honest()?;
    let page = &good.hash_page;
    let mut zero_entry = page.clone();
    zero_entry[TABLE_HEADER + ENTRY - 32..TABLE_HEADER + ENTRY].fill(0);
    let mut twice = page.clone();
    twice.copy_within(TABLE_HEADER..TABLE_HEADER + ENTRY, TABLE_HEADER + ENTRY);
    let with = |hash_page: Vec<u8>| BareBoot { hash_page, ..good.clone() };
    refused("no hash page", &with(vec![0; PAGE]), Refusal::HashPage)?;
    refused("a zero entry", &with(zero_entry), Refusal::HashPage)?;
    refused("an entry twice", &with(twice), Refusal::HashPage)?;
    refused("something behind the table", &with(flipped(page, PAGE - 1)), Refusal::HashPage)?;
    refused("another kernel's hash", &with(flipped(page, TABLE_HEADER + 3 * ENTRY - 32)), Refusal::KernelHash)
}

#[test]
fn what_was_measured_but_cannot_boot_is_refused_too() -> Result<()> {
    let mut platform = Platform::load(&World::new()?.platform)?;
    let good = BareBoot::honest(&platform, TALKATIVE)?;
    refused("nothing to boot", &BareBoot { kernel: None, ..good.clone() }, Refusal::NoKernel)?;
    refused("too little memory", &BareBoot { memory_mib: 32, ..good.clone() }, Refusal::MemoryClaim)?;
    refused("more memory than the model has", &BareBoot { memory_mib: 3200, ..good.clone() }, Refusal::MemoryClaim)?;
    refused("more processors than the model has", &BareBoot { vcpus: 9, ..good.clone() }, Refusal::VcpuClaim)?;
    refused("no room for the initrd", &BareBoot { memory_mib: 64, ..good }, Refusal::NoRoom)?;
    platform.kernel = b"\x7fELF".repeat(2000);
    refused("no bzImage", &BareBoot::honest(&platform, TALKATIVE)?, Refusal::KernelFormat)
}

#[test]
fn acpi_tables_of_the_host_are_overwritten_and_the_kernel_gets_stage0s() -> Result<()> {
    let mut boot = honest()?;
    // A page full of the host's RSDP, and one where a PC's BIOS would keep a second.
    let tables = b"RSD PTR \0HOSTILE".repeat(256);
    boot.in_memory = vec![(ACPI_GPA, tables.clone()), (0x9_F000, tables)];
    let outcome = boot.run(INIT_SPOKE)?;
    ensure!(outcome.refusal.is_none(), "{outcome:#?}");
    let console = &outcome.console;
    ensure!(console.contains("ACPI: RSDP 0x00000000000E0000 000024 (v02 COFFER)"), "{console}");
    for table in ["XSDT", "FACP", "DSDT", "APIC"] {
        let ours = console.lines().any(|line| line.contains(&format!("ACPI: {table} 0x")) && line.contains("COFFER"));
        ensure!(ours, "{table}: {console}");
    }
    // QEMU makes tables of its own, and leaves them in fw_cfg.
    ensure!(!console.contains("HOSTIL") && !console.contains("BOCHS"), "{console}");
    Ok(())
}

#[test]
fn a_hand_over_in_memory_is_checked_like_any_other() -> Result<()> {
    let good = honest()?;
    let (kernel, initrd) = (good.kernel.clone().context("a kernel")?, good.initrd.clone().context("an initrd")?);
    let range = |start, bytes: &[u8]| Range::new(start, bytes.len() as u64).context("a range");
    // Clear of where stage0 copies them to: the kernel to 16 MiB, the initrd to the end of memory.
    let descriptor = Handover {
        ram_bytes: 512 << 20,
        vcpus: 1,
        kernel: range(0x0C00_0000, &kernel)?,
        initrd: range(0x1000_0000, &initrd)?,
        command_line: range(0x9000, &good.command_line)?,
    };
    let placed = |initrd: Vec<u8>| BareBoot {
        kernel: None,
        initrd: None,
        in_memory: vec![
            (HANDOVER_GPA, descriptor.to_bytes().to_vec()),
            (descriptor.kernel.start, kernel.clone()),
            (descriptor.initrd.start, initrd),
            (descriptor.command_line.start, good.command_line.clone()),
        ],
        ..good.clone()
    };
    refused("a changed initrd in memory", &placed(flipped(&initrd, 99)), Refusal::InitrdHash)?;
    let outcome = placed(initrd.clone()).run(INIT_SPOKE)?;
    ensure!(outcome.refusal.is_none() && outcome.console.contains(INIT_SPOKE), "{outcome:#?}");
    Ok(())
}
