//! What `coffer measure` predicts of a launch into 64-bit mode, and what our monitor tells KVM in one: the same MEASUREMENT, by
//! a script that knows neither.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::recorder::{Call, Recorder};
use anyhow::{Context, Result, ensure};
use coffer_machine::map::{PAGE, ROM_SIZE};
use coffer_machine::memory::Range;
use coffer_platform::plan::{GUEST_POLICY, LaunchInputs, LaunchPlan};
use coffer_platform::sample::{inputs, rom};
use coffer_verifier::measure::LaunchForm;
use coffer_vmm::snp::host::Finish;
use coffer_vmm::snp::{Launch, launch, plan};
use serde_json::{Value, json};

/// A ROM of which some pages are zero and some are not, as stage0's are.
fn full_rom() -> Vec<u8> {
    let mut rom = rom(1);
    rom[..5 * PAGE].fill(0xC3);
    rom[ROM_SIZE - PAGE..][..16].fill(0xF4);
    rom
}

/// The calls of a launch, as the script reads them.
fn told(recorder: &Recorder) -> Vec<Value> {
    macro_rules! words {
        ($of:expr, $($name:ident)*) => { json!({ $(stringify!($name): $of.$name),* }) };
    }
    macro_rules! segments {
        ($into:expr, $of:expr, $($name:ident)*) => {
            $({
                let mut segment = words!($of.$name, selector limit base s dpl present avl l db g);
                segment["type"] = $of.$name.type_.into();
                $into[stringify!($name)] = segment;
            })*
        };
    }
    let mut told = Vec::new();
    let mut processor = Value::Null;
    for call in recorder.calls.borrow().iter() {
        match call {
            Call::Init2 { vmsa_features, .. } => told.push(json!({ "features": vmsa_features })),
            Call::SetSregs { registers, .. } => {
                processor = words!(registers, cr0 cr2 cr3 cr4 efer);
                segments!(processor, registers, es cs ss ds fs gs ldt tr);
                processor["gdt"] = words!(registers.gdt, base limit);
                processor["idt"] = words!(registers.idt, base limit);
            }
            Call::SetRegs { registers, .. } => {
                let general =
                    words!(registers, rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15 rip rflags);
                for (name, word) in general.as_object().into_iter().flatten() {
                    processor[name] = word.clone();
                }
                told.push(json!({ "processor": processor.take() }));
            }
            Call::LaunchUpdate { gpa, kind, pages, .. } => {
                let pages: Vec<_> = pages.iter().map(|page| hex::encode(page.0)).collect();
                told.push(json!({ "update": { "gpa": gpa, "type": *kind as u8, "pages": pages } }));
            }
            Call::LaunchFinish(_) => told.push(json!({ "finish": 1 })),
            _ => {}
        }
    }
    told
}

fn digest(calls: &[Value]) -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/snp-calls-digest.py");
    let mut python = Command::new("python3");
    let mut python = python.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = python.stdin.take().context("a pipe")?;
    for call in calls {
        writeln!(input, "{call}")?;
    }
    drop(input);
    let output = python.wait_with_output()?;
    ensure!(output.status.success(), "the script: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn recorded(measured: &LaunchPlan, rom: &[u8], vcpus: u32) -> Result<Recorder> {
    let shared = [(0x20_1000, PAGE as u64), (0x800_0000, 0x100_0000)];
    let mut all = Launch {
        policy: GUEST_POLICY,
        memory_bytes: 256 << 20,
        shared: shared.map(|(start, bytes)| Range { start, end: start + bytes }).to_vec(),
        vcpus,
        runs: plan::plan(rom, measured.hash_page()),
        finish: Finish { host_data: [0; 32], identity: None },
    };
    let mut recorder = Recorder::default();
    launch(&mut recorder, &mut all)?;
    Ok(recorder)
}

#[test]
fn what_the_monitor_launches_is_what_measure_predicts() -> Result<()> {
    let rom = full_rom();
    let mut digests = Vec::new();
    for vcpus in [1, 2, 8] {
        let measured = LaunchPlan::new(&LaunchInputs { form: LaunchForm::LongMode, vcpus, ..inputs(&rom) })?;
        let calls = told(&recorded(&measured, &rom, vcpus)?);
        let found = digest(&calls)?;
        ensure!(found == measured.measurement().to_string(), "{vcpus}: {found} is not {}", measured.measurement());
        digests.push(found);
    }
    digests.dedup();
    ensure!(digests.len() == 3);
    Ok(())
}

#[test]
fn another_order_another_page_or_another_register_is_another_measurement() -> Result<()> {
    let rom = full_rom();
    let measured = LaunchPlan::new(&LaunchInputs { form: LaunchForm::LongMode, ..inputs(&rom) })?;
    let calls = told(&recorded(&measured, &rom, 1)?);
    let honest = digest(&calls)?;
    let updates: Vec<_> = (0..calls.len()).filter(|at| calls[*at].get("update").is_some()).collect();
    let mut others = Vec::new();
    let mut swapped = calls.clone();
    swapped.swap(updates[0], updates[1]);
    others.push(digest(&swapped)?);
    let mut moved = calls.clone();
    moved[updates[1]]["update"]["gpa"] = 0x11_0000.into();
    others.push(digest(&moved)?);
    for (register, value) in [("cr3", 0x1000_u64), ("rip", 0x10_0004), ("rdx", 1), ("cr4", 0)] {
        let mut other = calls.clone();
        let at = calls.iter().position(|call| call.get("processor").is_some()).context("a processor")?;
        other[at]["processor"][register] = value.into();
        others.push(digest(&other)?);
    }
    ensure!(others.iter().all(|other| *other != honest), "{honest} in {others:?}");
    Ok(())
}
