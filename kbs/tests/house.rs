//! What stands where: SQL in one place, printing and flags in the program alone. Tests of the store may play a database writer.

use std::path::{Path, PathBuf};

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn sql_stands_in_one_place_and_the_library_prints_nothing() {
    let mut files = Vec::new();
    rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("client/src"), &mut files);
    assert!(files.len() > 30);
    let mut wrong = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
        if name.starts_with("src/store/tests") {
            continue;
        }
        let mut forbid = |words: &[&str]| {
            for word in words.iter().filter(|word| text.contains(**word)) {
                wrong.push(format!("{} has {word}", name.display()));
            }
        };
        if name != Path::new("src/store/sqlite.rs") && !name.starts_with("src/store/sqlite") {
            forbid(&["rusqlite", "SELECT ", "INSERT ", "DELETE FROM"]);
        }
        if !name.starts_with("src/bin") {
            forbid(&["println!", "print!(", "clap::", "process::exit"]);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
