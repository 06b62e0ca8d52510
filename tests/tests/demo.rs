//! What `make demo` shows is also a test, on each monitor that works here: every step and every refusal goes as told.

use std::process::Command;

use anyhow::{Result, ensure};
use coffer_tests::{
    monitors::on_each,
    process::{binary, run},
};

#[test]
fn the_demo_goes_as_told() -> Result<()> {
    on_each(|monitor| {
        let finished = run(Command::new(binary("coffer-demo")?).args(["--isolation", monitor.word]), b"")?;
        ensure!(finished.status == 0, "{}", finished.describe());
        ensure!(finished.stdout.contains("all 5 attacks were refused"), "{}", finished.describe());
        Ok(())
    })
}
