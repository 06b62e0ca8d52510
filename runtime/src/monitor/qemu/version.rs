//! Whether a program is a QEMU.

use std::fmt;
use std::path::Path;
use std::process::Command;

use coffer_rim::{Class, Failure};

/// What a QEMU says of its version, started with what every guest of ours has around it.
///
/// # Errors
/// Class `platform` if it does not start, has no seccomp, or is no QEMU.
pub fn version_line(program: &Path) -> Result<String, Failure> {
    let lacks = |what: &dyn fmt::Display, remedy: &str| {
        Err(Failure::new(Class::Platform, format!("{}: {what}", program.display())).hint(remedy))
    };
    let output = match Command::new(program).args(["-sandbox", "on", "-version"]).env_clear().output() {
        Ok(output) => output,
        Err(error) => return lacks(&error, "it does not run; install it again"),
    };
    let first = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().to_owned();
    if !output.status.success() {
        return lacks(&first(&output.stderr), "a QEMU with seccomp (-sandbox on) is needed");
    }
    match first(&output.stdout) {
        line if line.starts_with("QEMU ") && line.contains("version ") => Ok(line),
        _ => lacks(&"it is no QEMU: it says no version of one", "install QEMU, or name it in COFFER_QEMU"),
    }
}
