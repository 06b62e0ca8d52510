//! `coffer-platform`: builds the platform folder from a kernel, a static init and modules. Used by `make platform`.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use coffer_platform::{
    files::{Platform, Sources},
    plan::check_is_stage0,
};

const USAGE: &str = "usage: coffer-platform OUT STAGE0 KERNEL_PACKAGE KERNEL INIT MODULE...

Builds OUT/{stage0.bin,kernel,initrd,platform.json}. Modules are packed in the order given, which is the order init loads them in.";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next();
    let (Some(out), Some(stage0), Some(package), Some(kernel), Some(init)) = (next(), next(), next(), next(), next())
    else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let modules: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    let sources = Sources {
        stage0: stage0.as_ref(),
        kernel_package: &package,
        kernel: kernel.as_ref(),
        init: init.as_ref(),
        modules: &modules,
    };
    match build(out.as_ref(), &sources) {
        Ok(platform) => {
            println!("{}", serde_json::to_string_pretty(&platform.manifest).expect("a manifest of strings is JSON"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("coffer-platform: {error}");
            ExitCode::from(3)
        }
    }
}

/// Builds it, once the firmware is found to be stage0 of this machine model: what is not never becomes a platform.
fn build(out: &Path, sources: &Sources<'_>) -> Result<Platform, Box<dyn Error>> {
    check_is_stage0(&fs::read(sources.stage0)?)?;
    Ok(Platform::build(out, sources)?)
}
