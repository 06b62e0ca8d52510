//! This machine as an SEV-SNP host: certificates of genuine chips, and every command where there is no such machine.

use crate::vectors;
use std::path::Path;
use std::process::{Command, Output};

use coffer_runtime::host::Processor;
use coffer_runtime::host::certificates::{CertificatesError, Host, HostCertificates};
use coffer_verifier::Endorsements;
use coffer_verifier::abi::{CertTable, ChipId, ProductLine, TcbVersion};
use serde_json::Value;

fn endorsements(folder: &Path, names: &[&str]) -> Endorsements {
    let mut all = Endorsements::new();
    for name in names {
        let path =
            ["der", "pem"].map(|form| folder.join(format!("{name}.{form}"))).into_iter().find(|path| path.exists());
        all.add_certificates(&std::fs::read(path.unwrap_or_else(|| panic!("{name} in {}", folder.display()))).unwrap())
            .unwrap();
    }
    all
}

fn host_of(found: &Endorsements) -> Host {
    let leaf = found.certificates().find_map(|certificate| certificate.leaf()).unwrap();
    let mut chip = [7; 64];
    if let Some(hwid) = &leaf.hwid {
        chip = [0; 64];
        chip[..hwid.len()].copy_from_slice(hwid);
    }
    Host { product: leaf.product, chip: ChipId::new(chip), reported: leaf.tcb }
}

#[test]
fn genuine_certificates_are_kept_by_their_own_chip_alone() {
    let Some(root) = vectors::folder("snp") else { return };
    for (name, line) in
        [("milan-v3", ProductLine::Milan), ("genoa-v3", ProductLine::Genoa), ("turin-v5", ProductLine::Turin)]
    {
        let found = endorsements(&root.join(name), &["vcek", "ask", "ark"]);
        let host = host_of(&found);
        assert_eq!(host.product, line);
        let set = HostCertificates::check(&found, &host).unwrap();
        // The table is one that guests and relying parties read, and holds the same three.
        let table = set.table();
        assert_eq!(CertTable::parse(&table).unwrap().entries().len(), 3);
        let again = Endorsements::from_cert_table(&table).unwrap();
        let bytes = |all: &Endorsements| all.certificates().map(|one| one.der().to_vec()).collect::<Vec<_>>();
        assert_eq!(bytes(&again), bytes(&found));

        let mut chip = *host.chip.as_bytes();
        chip[3] ^= 1;
        let refused = |host: Host| HostCertificates::check(&found, &host).unwrap_err();
        assert!(matches!(refused(Host { chip: ChipId::new(chip), ..host }), CertificatesError::Chip { .. }));
        let reported = TcbVersion { snp: host.reported.snp + 1, ..host.reported };
        assert!(matches!(refused(Host { reported, ..host }), CertificatesError::Tcb { .. }));
        let other = if line == ProductLine::Milan { ProductLine::Genoa } else { ProductLine::Milan };
        assert!(matches!(
            refused(Host { product: other, ..host }),
            CertificatesError::Product { .. } | CertificatesError::Root(_)
        ));
        for (kept, lacking) in
            [(&["ask", "ark"], "VCEK or VLEK"), (&["vcek", "ark"], "ASK or ASVK"), (&["vcek", "ask"], "ARK")]
        {
            let error = HostCertificates::check(&endorsements(&root.join(name), kept), &host).unwrap_err();
            assert!(matches!(error, CertificatesError::Missing(found) if found == lacking), "{error}");
        }
    }
}

#[test]
fn a_set_is_written_under_the_names_that_verify_reads() {
    let Some(root) = vectors::folder("snp") else { return };
    for (name, kept) in [("milan-v3", ["vcek", "ask", "ark"]), ("milan-v3-vlek-vmpl1", ["vlek", "asvk", "ark"])] {
        let found = endorsements(&root.join(name), &kept);
        let set = HostCertificates::check(&found, &host_of(&found)).unwrap();
        let mut names: Vec<_> = set.files().map(|(name, _)| name.trim_end_matches(".der")).collect();
        names.sort_unstable();
        let mut kept = kept.to_vec();
        kept.sort_unstable();
        assert_eq!(names, kept);
    }
}

#[test]
fn another_intermediate_or_a_foreign_root_is_refused() {
    let Some(root) = vectors::folder("snp") else { return };
    let vlek = root.join("milan-v3-vlek-vmpl1");
    let mut mixed = endorsements(&root.join("milan-v3"), &["vcek", "ark"]);
    let asvk = if vlek.join("asvk.der").exists() || vlek.join("asvk.pem").exists() { "asvk" } else { "ask" };
    mixed.merge(&endorsements(&vlek, &[asvk]));
    let error = HostCertificates::check(&mixed, &host_of(&mixed)).unwrap_err();
    assert!(matches!(error, CertificatesError::Intermediate { .. }), "{error}");

    let impostor = root.join("neg-impostor-chain");
    let names: Vec<_> = ["vcek", "ask", "ark"]
        .into_iter()
        .filter(|name| ["der", "pem"].iter().any(|form| impostor.join(format!("{name}.{form}")).exists()))
        .collect();
    let found = endorsements(&impostor, &names);
    let error = HostCertificates::check(&found, &host_of(&found)).unwrap_err();
    assert!(matches!(error, CertificatesError::Root(_)), "{error}");
}

fn coffer(home: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coffer")).env("COFFER_HOME", home).args(words).output().unwrap()
}

#[test]
fn without_a_secure_processor_every_command_ends_with_4_and_says_what_is_missing() {
    if Processor::from_cpuinfo(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()).sev_snp {
        println!("skipped: this machine may be an SEV-SNP host, whose firmware no test talks to");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("hashstick");
    std::fs::write(&file, [0; 432]).unwrap();
    let file = file.to_str().unwrap();
    for words in [
        &["host", "tcb"][..],
        &["host", "certificates", "show"],
        &["host", "certificates", "export", "--out", "certs"],
        &["host", "certificates", "load-vlek", file],
        &["host", "config", "show"],
        &["host", "config", "set", "--mask-chip-id", "true"],
        &["host", "config", "commit", "--commit-irreversibly"],
    ] {
        let output = coffer(home.path(), words);
        assert_eq!(output.status.code(), Some(4), "{words:?}: {output:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            (text.contains("processor") || text.contains("/dev/sev")) && text.contains("hint:"),
            "{words:?}: {text}"
        );
    }
    let status = coffer(home.path(), &["--json", "host", "status"]);
    assert_eq!(status.status.code(), Some(4));
    let said: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&said["ok"], &said["firmware"]), (&Value::Bool(false), &Value::Null));
    for need in said["checks"].as_array().unwrap() {
        assert_eq!(need["met"].as_bool().unwrap(), need["remedy"].is_null(), "{need}");
    }
}

#[test]
fn a_commit_wants_its_long_name_and_a_change_something_to_change() {
    let home = tempfile::tempdir().unwrap();
    for words in [
        &["host", "config", "commit"][..],
        &["host", "config", "set"],
        &["host", "config", "set", "--reported-tcb", "0xzz"],
        &["host", "config", "set", "--reported-tcb", "3"],
    ] {
        let output = coffer(home.path(), words);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {output:?}");
    }
}
