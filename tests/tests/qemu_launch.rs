//! QEMU's own code for SEV-SNP guests, run up to the guest's first instruction: the command line we give, a real QEMU 9.1 or
//! later, and below it a host that pretends to have SEV-SNP and writes down what it is told (`scripts/fake-snp-host.c`).
//!
//! Shows what QEMU submits, in which order, and that its measurement is the one that is predicted. Shows nothing of firmware
//! or processor: nothing is encrypted, and no guest runs.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use coffer_machine::{
    firmware::{self, SECTIONS},
    map::{C_BIT, CPUID_GPA, PAGE, ROM_GPA, ROM_SIZE},
};
use coffer_platform::plan::GUEST_POLICY;
use coffer_runtime::{
    boxes::BoxOptions,
    launch::{plan, prepare},
    monitor::{
        Console, End, How, Isolation, Launch, Limits, Monitor as _, SnpId,
        qemu::{QEMU, Qemu, VHOST_VSOCK},
    },
    platform_folder,
    tools::Search,
};
use coffer_spec::{Document, Tee, sample::workload};
use coffer_stage0::cpuid_page::{CpuidPage, keep_only_entries};
use coffer_tests::{World, process::cache};
use coffer_verifier::measure::LaunchForm;
use serde_json::Value;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts");
const MEMORY: u64 = 256 << 20;

/// A newer QEMU on a host that pretends; `None`, said aloud, where one of the two is missing.
fn pretending(folder: &Path, calls: &Path) -> Result<Option<PathBuf>> {
    let newer = cache()?.join("newer-qemu/qemu-system-x86_64");
    for (needed, path) in [("a newer QEMU: run `make setup`", newer.as_path()), ("KVM", Path::new("/dev/kvm"))] {
        if !path.exists() {
            eprintln!(
                "SKIPPED: what QEMU submits of an SEV-SNP launch was not looked at: no {needed} ({})",
                path.display()
            );
            return Ok(None);
        }
    }
    let library = folder.join("fake.so");
    let mut compiler = Command::new("cc");
    compiler
        .args(["-Wall", "-Werror", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(format!("{SCRIPTS}/fake-snp-host.c"));
    ensure!(compiler.status().context("a C compiler")?.success(), "the host that pretends does not compile");
    let program = folder.join("qemu");
    let [library, calls, newer] = [&library, calls, &newer].map(|path| path.display().to_string());
    fs::write(&program, format!("#!/bin/sh\nLD_PRELOAD={library} FAKE_SNP_CALLS={calls} exec {newer} \"$@\"\n"))?;
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755))?;
    Ok(Some(program))
}

/// A launch as a supervisor prepares it, its MEASUREMENT as `coffer measure` predicts it, and the HOST_DATA.
fn prepared(folder: &Path, platform: &Path, vcpus: u32) -> Result<(Launch, String, String)> {
    let root = folder.join("root.erofs");
    fs::write(&root, [0; PAGE])?;
    let document = Document::write(&workload(Tee::Snp))?;
    let options = BoxOptions {
        tee: Tee::Snp,
        isolation: Isolation::Qemu,
        launch: LaunchForm::ResetVector,
        vcpus,
        memory_bytes: MEMORY,
        limits: Limits::default(),
        remove: false,
        command: vec!["true".into()],
        platform: platform.into(),
        root,
        volumes: 0,
        data: Vec::new(),
        scratch_bytes: 1 << 20,
        image_digest: String::new(),
        workload_digest: String::new(),
        publish: Vec::new(),
        labels: std::collections::BTreeMap::new(),
        stop_timeout: None,
        restart: coffer_runtime::RestartPolicy::No,
        log: coffer_runtime::boxes::LogLimits::default(),
        health: None,
        card_network: None,
        networks: Vec::new(),
        card: false,
        id_block: false,
    };
    let home = coffer_runtime::Home::open(&folder.join("home"))?;
    let launch = prepare(folder, &options, &document, &home)?.launch;
    let line = coffer_platform::command_line(&document.digest(), Tee::Snp);
    let planned = plan(&platform_folder::load_platform(platform)?, options.launch, &line, vcpus)?;
    Ok((launch, planned.measurement().to_string(), document.digest().host_data().to_string()))
}

/// What QEMU says to KVM and the secure processor of this launch.
fn submitted(program: &Path, calls: &Path, launch: &Launch) -> Result<Vec<Value>> {
    let named = BTreeMap::from([(QEMU.variable, program.to_owned())]);
    let user_home = std::env::var_os("HOME").map(PathBuf::from);
    let search = Search { named, user_home, path: std::env::var_os("PATH"), ..Search::default() };
    search.program(&VHOST_VSOCK)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let End { how, last_words } = runtime.block_on(async {
        let (reached, _) = tokio::sync::mpsc::unbounded_channel();
        let console = Console::open(&launch.folder, reached);
        anyhow::Ok(Qemu::new(&search).start(launch, console, Box::pin(async { Ok(()) })).await?.wait().await)
    })?;
    ensure!(how == How::PoweredOff, "{how:?}: {last_words:?}");
    fs::read_to_string(calls)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// By a script that knows neither QEMU nor us.
fn digest(calls: &Path) -> Result<String> {
    let mut script = Command::new("python3");
    script.arg(format!("{SCRIPTS}/snp-calls-digest.py")).stdin(Stdio::from(fs::File::open(calls)?));
    let output = script.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A call in few words: all but the contents of pages and registers.
fn shown(call: &Value) -> String {
    let number = |of: &Value, name: &str| of[name].as_u64().unwrap_or(u64::MAX);
    if let Some(update) = call.get("update") {
        let pages = update["pages"].as_array().map_or(0, Vec::len);
        return format!("update {:#x} {} type {}", number(update, "gpa"), pages, number(update, "type"));
    }
    let at = || format!("{:#x} {:#x}", number(call, "gpa"), number(call, "bytes"));
    match call["call"].as_str() {
        Some("attributes") => format!("attributes {} {}", at(), number(call, "attributes")),
        Some("slot") => format!("slot {} {} guest_memfd {}", number(call, "slot"), at(), call["memfd"]),
        Some("memfd") => format!("guest_memfd {:#x}", number(call, "bytes")),
        Some("machine") => format!("machine {}", number(call, "type")),
        Some("exits") => format!("exits {:#x}", number(call, "hypercalls")),
        Some("start") => format!("start {:#x}", number(call, "policy")),
        Some("vcpu") => format!("vcpu {}", number(call, "id")),
        Some(other) => other.to_owned(),
        None if call.get("features").is_some() => format!("init2 {}", number(call, "features")),
        None if call.get("processor").is_some() => "state".into(),
        None => "finish".into(),
    }
}

/// The calls of QEMU 10.0 in their order, and where each comes from.
///
/// Source: QEMU target/i386/sev.c, hw/i386/x86-common.c, accel/kvm/kvm-all.c.
fn expected(vcpus: u32) -> Vec<String> {
    let rom = format!("{ROM_GPA:#x} {ROM_SIZE:#x}");
    let mut all = vec![
        "machine 4".into(),                                 // sev_snp_kvm_type
        "sev".into(),                                       // sev_common_kvm_init: its device,
        "init2 0".into(),                                   // KVM_SEV_INIT2,
        "exits 0x1000".into(),                              // sev_snp_launch_start: MAP_GPA_RANGE,
        format!("start {GUEST_POLICY:#x}"),                 // before there is memory or a processor
        format!("guest_memfd {MEMORY:#x}"),                 // the memory backend's,
        format!("slot 0 0x0 {MEMORY:#x} guest_memfd true"), // kvm_set_phys_mem,
        format!("attributes 0x0 {MEMORY:#x} 8"),            // private from the start
    ];
    all.extend((0..vcpus).map(|id| format!("vcpu {id}")));
    // x86_bios_rom_init: the ROM has a guest_memfd of its own, and no second place below 1 MiB.
    all.extend([
        format!("guest_memfd {ROM_SIZE:#x}"),
        format!("slot 1 {rom} guest_memfd true"),
        format!("attributes {rom} 8"),
    ]);
    // sev_snp_launch_finish: the ROM, then what its metadata names; each made private once more.
    all.extend([format!("attributes {rom} 8"), format!("update {ROM_GPA:#x} {} type 1", ROM_SIZE / PAGE)]);
    for section in SECTIONS {
        let kind = match section.kind {
            firmware::SECRETS => 5,
            firmware::CPUID => 6,
            _ => 3,
        };
        all.push(format!("attributes {:#x} {:#x} 8", section.gpa, section.size));
        all.push(format!("update {:#x} {} type {kind}", section.gpa, section.size as usize / PAGE));
    }
    all.extend((0..vcpus).map(|_| "state".into()));
    all.extend(["finish".into(), "run".into()]);
    all
}

#[test]
fn what_qemu_submits_is_what_was_planned_and_measures_as_predicted() -> Result<()> {
    let platform = World::new()?.platform.clone();
    let mut digests = Vec::new();
    for vcpus in [1, 2] {
        let folder = tempfile::Builder::new().prefix("coffer-qemu-").tempdir()?;
        let calls_file = folder.path().join("calls");
        let Some(program) = pretending(folder.path(), &calls_file)? else { return Ok(()) };
        let (mut launch, predicted, host_data) = prepared(folder.path(), &platform, vcpus)?;
        let id = (vcpus == 2).then(|| SnpId { block: vec![1; 96], auth: vec![2; PAGE], author: true });
        launch.snp.as_mut().context("an SEV-SNP launch")?.id.clone_from(&id);
        let calls = submitted(&program, &calls_file, &launch)?;

        let order: Vec<_> = calls.iter().map(shown).collect();
        ensure!(order == expected(vcpus), "{order:#?}");
        let found = digest(&calls_file)?;
        ensure!(found == predicted, "{vcpus} processors: {found} is not {predicted}");
        digests.push(found);

        let finish = calls.iter().find(|call| call.get("finish").is_some()).context("LAUNCH_FINISH")?;
        ensure!(finish["host_data"] == host_data && finish["vcek_disabled"] == 0, "{finish}");
        let text = |bytes: Option<&Vec<u8>>| bytes.map_or(Value::Null, |bytes| hex::encode(bytes).into());
        ensure!(finish["id_block"] == text(id.as_ref().map(|id| &id.block)), "{finish}");
        ensure!(finish["id_auth"] == text(id.as_ref().map(|id| &id.auth)), "{finish}");
        ensure!(finish["author_key"] == u8::from(id.is_some()), "{finish}");

        // What firmware and guest make of the CPUID page: as many entries as it holds, and the C-bit where stage0 has it.
        let cpuid = calls.iter().filter_map(|call| call.get("update")).find(|update| update["gpa"] == CPUID_GPA);
        let page = cpuid.context("a CPUID page")?["pages"][0].as_str().map(hex::decode).context("one page")??;
        let mut page: [u8; PAGE] = page.try_into().ok().context("a whole page")?;
        let before = page;
        ensure!(keep_only_entries(&mut page).is_ok() && page == before, "nothing stands beside its entries");
        let read = CpuidPage::parse(&page).ok().context("entries")?;
        ensure!(read.check_c_bit().is_ok() && read.leaf(0x8000_001F, 0)[1] & 0x3F == C_BIT, "the C-bit");
    }
    ensure!(digests[0] != digests[1]);
    Ok(())
}

/// The host that pretends sees a change of what is measured, of any kind: else it would see nothing.
#[test]
fn one_changed_byte_of_what_qemu_loads_is_another_measurement() -> Result<()> {
    let platform = World::new()?.platform.clone();
    let folder = tempfile::Builder::new().prefix("coffer-qemu-").tempdir()?;
    let calls = folder.path().join("calls");
    let Some(program) = pretending(folder.path(), &calls)? else { return Ok(()) };
    let (launch, predicted, _) = prepared(folder.path(), &platform, 1)?;
    let rom = folder.path().join(&launch.measured.stage0);
    let mut bytes = fs::read(&rom)?;
    bytes[coffer_machine::map::ROM_HASHES + 40] ^= 1;
    fs::write(&rom, bytes)?;
    submitted(&program, &calls, &launch)?;
    let found = digest(&calls)?;
    ensure!(found != predicted && found.len() == predicted.len(), "{found}");
    Ok(())
}
