//! What the command line answers, from files that a writer of documentation can edit: `cases/README.md` says how.

use crate::runner;
use std::path::Path;

#[test]
fn every_case_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let count = runner::run(&folder, "coffer", Path::new(env!("CARGO_BIN_EXE_coffer")));
    assert!(count >= 60, "{count} cases: were some lost?");
}
