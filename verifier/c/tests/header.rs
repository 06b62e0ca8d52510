//! The header is what the functions are.

use std::path::Path;

#[test]
fn the_header_is_what_cbindgen_writes_of_the_functions() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(here.join("cbindgen.toml")).unwrap();
    let written =
        cbindgen::Builder::new().with_config(config).with_src(here.join("src/sys/abi.rs")).generate().unwrap();
    let mut text = Vec::new();
    written.write(&mut text);
    let path = here.join("include/coffer_verifier.h");
    if std::env::var_os("COFFER_WRITE_HEADER").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let held = std::fs::read_to_string(&path).unwrap_or_default();
    let again = "run this test with COFFER_WRITE_HEADER=1 and look at what changed: the header is a promise";
    assert!(held.as_bytes() == text, "{} is not of these functions; {again}", path.display());
}
