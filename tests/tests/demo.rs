//! What `make demo` shows is also a test: every step and every refusal goes as told.

use std::process::Command;

use anyhow::Result;
use coffer_tests::process::{binary, run};

#[test]
fn the_demo_goes_as_told() -> Result<()> {
    let finished = run(&mut Command::new(binary("coffer-demo")?), b"")?;
    assert_eq!(finished.status, 0, "{}", finished.describe());
    assert!(finished.stdout.contains("all 4 attacks were refused"), "{}", finished.describe());
    Ok(())
}
