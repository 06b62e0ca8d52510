//! `scripts/conformance`: the contract of other verifiers' suites, in front of `coffer verify`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/conformance")
}

/// Exit code, and what was printed.
fn ask(words: &[&str], input: &[u8]) -> (i32, Value) {
    let mut child = Command::new(script())
        .args(words)
        .env("COFFER", env!("CARGO_BIN_EXE_coffer"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that ends before it has read all is a matter of its exit code.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stderr).contains("Traceback"), "{output:?}");
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
}

fn verify(input: &Value) -> (i32, Value) {
    ask(&["verify-attestation-sev"], input.to_string().as_bytes())
}

#[track_caller]
fn rejected(input: &Value, code: &str) {
    let (exit, said) = verify(input);
    assert_eq!(
        (exit, &said["accepted"], said["rejection"]["code"].as_str()),
        (10, &json!(false), Some(code)),
        "{said}"
    );
}

fn packed(report: &[u8]) -> Value {
    let mut out = GzEncoder::new(Vec::new(), Compression::default());
    out.write_all(report).unwrap();
    STANDARD.encode(out.finish().unwrap()).into()
}

fn with(input: &Value, key: &str, value: impl Into<Value>) -> Value {
    let mut input = input.clone();
    input[key] = value.into();
    input
}

#[test]
fn each_word_of_the_contract_is_what_our_judge_says() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("evidence");
    let made = Command::new(env!("CARGO_BIN_EXE_coffer"))
        .env("COFFER_HOME", dir.path().join("home"))
        .args(["sim", "evidence", "--product", "milan", "--out", out.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let file = |name: &str| std::fs::read(out.join(name)).unwrap();
    let text = |name: &str| String::from_utf8(file(name)).unwrap();
    let report = file("report.bin");
    let good = json!({
        "schema_version": "1", "attestation_doc_b64": packed(&report), "vcek_der_b64": STANDARD.encode(file("vcek.der")),
        "amd_root_ca_pem": text("ark.pem"), "ask_pem": text("ask.pem"),
    });
    let part = |at: usize, length: usize| hex::encode(&report[at..at + length]);
    let pins = json!({
        "expected_measurement_hex": part(0x90, 48), "expected_host_data_hex": part(0xc0, 32),
        "expected_report_data_hex": part(0x50, 64), "expected_id_key_digest_hex": "00".repeat(48),
        "expected_author_key_digest_hex": "00".repeat(48), "min_tcb_snp_spl": 1, "enforce_spec_defaults": true,
    });
    let (exit, said) = verify(&with(&good, "policy", pins.clone()));
    assert_eq!((exit, &said["accepted"]), (0, &json!(true)), "{said}");
    assert_eq!(said["outputs"]["measurement"]["registers"], json!([part(0x90, 48)]));
    assert_eq!(said["outputs"]["body_fields"]["chip_id_hex"], part(0x1a0, 64));

    for (pin, code) in [
        ("expected_measurement_hex", "MEASUREMENT_MISMATCH"),
        ("expected_host_data_hex", "HOST_DATA_MISMATCH"),
        ("expected_report_data_hex", "REPORT_DATA_MISMATCH"),
        ("expected_id_key_digest_hex", "ID_KEY_DIGEST_MISMATCH"),
        ("expected_author_key_digest_hex", "AUTHOR_KEY_DIGEST_MISMATCH"),
    ] {
        let other = pins[pin].as_str().unwrap().replace('0', "f").replace('4', "5").replace('2', "3");
        assert_ne!(other, pins[pin]);
        rejected(&with(&good, "policy", json!({ pin: other })), code);
    }
    rejected(&with(&good, "policy", json!({ "expected_host_data_hex": "00".repeat(32) })), "HOST_DATA_MISMATCH");
    rejected(&with(&good, "policy", json!({ "min_tcb_ucode_spl": 255 })), "TCB_OUT_OF_DATE");
    rejected(&with(&good, "expiration_check_date_unix", 4_102_444_800_u64), "VCEK_EXPIRED");

    let bent = |at: usize, to: u8| {
        let mut report = report.clone();
        report[at] = to;
        with(&good, "attestation_doc_b64", packed(&report))
    };
    rejected(&bent(0x2a0, !report[0x2a0]), "REPORT_SIGNATURE_INVALID");
    rejected(&bent(0x90, !report[0x90]), "REPORT_SIGNATURE_INVALID");
    rejected(&bent(0, 9), "WRONG_REPORT_VERSION");
    rejected(&with(&good, "attestation_doc_b64", packed(&report[..1183])), "REPORT_TRUNCATED");
    rejected(&with(&good, "attestation_doc_b64", packed(&vec![0; 2 << 20])), "REPORT_FORMAT_UNSUPPORTED");
    rejected(&with(&good, "vcek_der_b64", STANDARD.encode(b"no certificate")), "VCEK_CHAIN_INVALID");
    // Without its root the chain is no better than none.
    let mut rootless = good.clone();
    rootless.as_object_mut().unwrap().remove("amd_root_ca_pem");
    assert_eq!(verify(&rootless).0, 10);

    for wrong in [
        with(&good, "schema_version", "2"),
        with(&good, "surprise", 1),
        with(&good, "attestation_doc_b64", "no base64"),
        with(&good, "attestation_doc_b64", STANDARD.encode(b"no gzip")),
        // The head of gzip (RFC 1952), and no deflate behind it.
        with(&good, "attestation_doc_b64", STANDARD.encode(b"\x1f\x8b\x08\0\0\0\0\0\0\xffno deflate")),
        with(&good, "policy", json!({ "expected_measurement_hex": "00" })),
        with(&good, "policy", json!({ "min_tcb_bl_spl": 1.5 })),
        with(&good, "policy", json!({ "expected": 1 })),
        with(&good, "expiration_check_date_unix", "now"),
        json!([]),
    ] {
        assert_eq!(verify(&wrong), (30, Value::Null), "{wrong}");
    }
    assert_eq!(ask(&["verify-attestation-sev"], b"{\"schema_version\":\"1\",\"schema_version\":\"1\"}").0, 30);
    assert_eq!(ask(&["verify-attestation-tdx"], b"{}").0, 20);
}

#[test]
fn what_it_can_is_said() {
    let (exit, said) = ask(&["capabilities"], b"");
    assert_eq!((exit, &said["stages_supported"]), (0, &json!(["verify-attestation-sev"])), "{said}");
    assert_eq!(said["sdk_version"], env!("CARGO_PKG_VERSION"));
}
