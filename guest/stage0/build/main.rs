//! Writes the ACPI tables into `acpi.bin`, which becomes part of stage0's image.

use std::{env, fs, path::Path};

mod acpi;
#[path = "../src/machine.rs"]
#[allow(dead_code, missing_docs)]
mod machine;

fn main() {
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("acpi.bin"), acpi::tables()).expect("OUT_DIR can be written to");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=src/machine.rs");
}
