//! What stage0 is made of besides Rust: the ACPI tables, which become part of its image, and its linker script, which gets
//! the addresses of the machine model here.

use std::{env, fmt::Write as _, fs, path::PathBuf};

use coffer_machine::{
    firmware::METADATA_FROM_END,
    map::{ROM_END, ROM_GPA, ROM_HASHES, STAGE0_GPA, STAGE0_SIZE},
};

mod acpi;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let write = |name: &str, bytes: &[u8]| fs::write(out.join(name), bytes).expect("OUT_DIR can be written to");
    write("acpi.bin", &acpi::tables());

    let mut script = String::new();
    for (name, value) in [
        ("ROM", ROM_GPA),
        ("HASHES", ROM_GPA + ROM_HASHES as u64),
        ("ROM_END", ROM_END),
        ("TABLES", METADATA_FROM_END.into()),
        ("RUN", STAGE0_GPA),
        ("RUN_SIZE", STAGE0_SIZE),
    ] {
        writeln!(script, "{name} = {value:#X};").expect("a string takes everything");
    }
    script.push_str(include_str!("layout.ld"));
    write("stage0.ld", script.as_bytes());
    println!("cargo::rustc-link-arg-bin=stage0=-Wl,-T,{}", out.join("stage0.ld").display());
    println!("cargo::rerun-if-changed=build");
}
