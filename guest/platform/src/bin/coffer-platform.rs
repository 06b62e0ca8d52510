//! `coffer-platform`: builds the platform folder from a kernel, a static init and modules. Used by `make platform`.

use std::{path::PathBuf, process::ExitCode};

use coffer_platform::files::Platform;

const USAGE: &str = "usage: coffer-platform OUT KERNEL_PACKAGE KERNEL INIT MODULE...

Builds OUT/{kernel,initrd,platform.json}. Modules are packed in the order given, which is the order init loads them in.";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(out), Some(package), Some(kernel), Some(init)) =
        (arguments.next(), arguments.next(), arguments.next(), arguments.next())
    else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let modules: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    match Platform::build(&PathBuf::from(out), &package, &PathBuf::from(kernel), &PathBuf::from(init), &modules) {
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
