//! The example of the header, compiled by `cc` and run on genuine evidence.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::vectors;

/// When the revocation lists of the vectors are fresh.
const NOW: &str = "1789862400";
const ANY: &str = "measurements = \"any\"";

/// The library as it was built for this test: beside the test.
fn libraries() -> PathBuf {
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    assert!(folder.join("libcoffer_verifier_c.so").is_file(), "no library in {}", folder.display());
    folder
}

/// The example; compiled as C11 without a warning.
fn compiled(dir: &Path) -> PathBuf {
    compiled_of(dir, "examples/verify.c")
}

fn compiled_of(dir: &Path, source: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = dir.join("program");
    let mut compile = Command::new("cc");
    compile.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]).arg(here.join(source));
    compile.arg("-I").arg(here.join("include")).arg("-L").arg(libraries()).arg("-lcoffer_verifier_c");
    let output = compile.arg("-o").arg(&program).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn the_header_is_c_and_cplusplus() {
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/coffer_verifier.h");
    for language in [["-std=c11", "-xc"], ["-std=c++17", "-xc++"]] {
        let output = Command::new("cc")
            .args(language)
            .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"])
            .arg(&header)
            .output()
            .unwrap();
        assert!(output.status.success(), "{language:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_example_prints_claims_of_genuine_evidence_and_the_reason_against_any_other() {
    let Some(vectors) = vectors::folder("snp") else { return };
    let dir = tempfile::tempdir().unwrap();
    let program = compiled(dir.path());
    let run = |report: &Path, endorsed: &Path, policy: &str, now: &str| {
        let mut command = Command::new(&program);
        command.arg(report).arg(endorsed.join("vcek.der")).arg(endorsed.join("crl.der")).args([policy, now]);
        command.env("LD_LIBRARY_PATH", libraries()).output().unwrap()
    };
    for (name, product) in [("milan-v2-kvm", "Milan"), ("genoa-v3", "Genoa"), ("turin-v5", "Turin")] {
        let folder = vectors.join(name);
        let output = run(&folder.join("report.bin"), &folder, ANY, NOW);
        let claims: serde_json::Value = serde_json::from_str(&said(&output)).unwrap();
        assert_eq!((output.status.code(), &claims["verdict"]), (Some(0), &"accepted".into()), "{name}");
        assert_eq!((&claims["anchor"]["product"], &claims["simulated"]), (&product.into(), &false.into()), "{name}");
    }
    let (milan, genoa) = (vectors.join("milan-v2-kvm"), vectors.join("genoa-v3"));
    let report = milan.join("report.bin");
    let bent = dir.path().join("bent.bin");
    let mut bytes = std::fs::read(&report).unwrap();
    bytes[0x90] ^= 1;
    std::fs::write(&bent, &bytes).unwrap();
    for (report, endorsed, policy, now, why) in [
        (&bent, &milan, ANY, NOW, "signature"),
        (&report, &genoa, ANY, NOW, "tcb"),
        (&report, &milan, "strict", NOW, "product-refused"),
        (&report, &milan, ANY, "1", "certificate-dates"),
    ] {
        let output = run(report, endorsed, policy, now);
        assert_eq!((output.status.code(), said(&output).split(':').next()), (Some(1), Some(why)), "{}", said(&output));
    }
    let output = run(&report, &milan, "vmpls = [9]", NOW);
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!((output.status.code(), said(&output).as_str()), (Some(1), "no appraisal\n"));
    assert!(stderr.starts_with("the policy cannot be read"), "{stderr}");
}

#[test]
fn a_program_that_looks_at_no_status_does_not_go_on_with_what_it_said_before() {
    let Some(vectors) = vectors::folder("snp") else { return };
    let dir = tempfile::tempdir().unwrap();
    let program = compiled_of(dir.path(), "tests/careless.c");
    let milan = vectors.join("milan-v2-kvm");
    let files = ["report.bin", "vcek.der", "crl.der"].map(|name| milan.join(name));
    let output = Command::new(program).args(files).env("LD_LIBRARY_PATH", libraries()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).starts_with("the policy cannot be read"), "{}", said(&output));
}

#[test]
fn every_vector_is_judged_in_c_as_the_core_judges_it() {
    let Some(vectors) = vectors::folder("snp") else { return };
    let dir = tempfile::tempdir().unwrap();
    let program = compiled(dir.path());
    let mut seen = std::collections::BTreeSet::new();
    let mut folders: Vec<_> = std::fs::read_dir(vectors).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    for folder in folders.iter().filter(|folder| folder.join("crl.der").is_file()) {
        for (name, policy) in [("hcl.bin", "strict"), ("report.bin", "strict"), ("report.bin", ANY)] {
            let file = folder.join(name);
            let Ok(evidence) = std::fs::read(&file) else { continue };
            let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
            let mut question = coffer_verifier::Question::new();
            question.evidence(&evidence).unwrap();
            question.certificates(&read("vcek.der")).unwrap();
            question.crl(&read("crl.der")).unwrap();
            question.policy(policy).unwrap();
            question.waive_report_data();
            let core = question.judge(coffer_verifier::UnixTime(NOW.parse().unwrap())).unwrap();
            let mut command = Command::new(&program);
            command.arg(&file).args([folder.join("vcek.der"), folder.join("crl.der")]).args([policy, NOW]);
            let output = command.env("LD_LIBRARY_PATH", libraries()).output().unwrap();
            let accepted = core.verdict() == coffer_verifier::Verdict::Accepted;
            assert_eq!(output.status.code(), Some(i32::from(!accepted)), "{}: {}", file.display(), said(&output));
            if accepted {
                let json: serde_json::Value = serde_json::from_str(&said(&output)).unwrap();
                assert_eq!(json, serde_json::to_value(&core).unwrap(), "{}", file.display());
            } else {
                assert_eq!(said(&output).trim_end(), core.why().as_str(), "{}", file.display());
            }
            seen.insert(core.verdict().to_string());
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["accepted", "not-authentic", "refused"]);
}
