use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256, Sha384};

use super::*;
use crate::measure::vectors::folder;

fn vectors(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("vectors.json")).unwrap()).unwrap()
}

/// The stream the vectors describe: SHA-256(seed || le32(0)) || SHA-256(seed || le32(1)) || … cut to `length`.
fn stream(seed: &str, length: usize) -> Vec<u8> {
    let blocks = (0_u32..)
        .flat_map(|index| Sha256::new().chain_update(seed).chain_update(index.to_le_bytes()).finalize().to_vec());
    blocks.take(length).collect()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} is text"))
}

fn number(value: &Value, name: &str) -> u64 {
    let text = text(value, name);
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

fn blob(vectors: &Value, name: &str) -> Vec<u8> {
    let about = &vectors["blobs"][name];
    let bytes = stream(text(about, "seed"), about["length"].as_u64().unwrap() as usize);
    assert_eq!(hex::encode(Sha256::digest(&bytes)), text(about, "sha256"));
    bytes
}

fn signature(case: &Value) -> CpuSignature {
    let signature = match &case["vcpu_fms"] {
        Value::Array(parts) => {
            let part = |index: usize| parts[index].as_u64().unwrap() as u8;
            CpuSignature::from_family_model_stepping(part(0), part(1), part(2))
        }
        _ => text(case, "vcpu_type").parse().unwrap(),
    };
    assert_eq!(u64::from(signature.0), number(case, "vcpu_sig"));
    signature
}

/// Runs every case whose firmware is at hand; returns how many digests were compared and how many were refused.
fn run_cases(folder: &Path, vectors: &Value) -> (usize, usize, usize) {
    let (mut equal, mut refused, mut absent) = (0, 0, 0);
    for case in vectors["cases"].as_array().unwrap() {
        let name = text(case, "name");
        let about = &vectors["firmware"][text(case, "firmware")];
        // An absolute path is one of a distribution's package.
        let path = folder.join(text(about, "path"));
        let Ok(bytes) = std::fs::read(&path) else {
            assert!(path.starts_with("/usr/share"), "{} is missing", path.display());
            absent += 1;
            continue;
        };
        assert_eq!(hex::encode(Sha256::digest(&bytes)), text(about, "sha256"), "{}", path.display());
        let firmware = match about["fw_digest"].as_str() {
            Some(digest) => Firmware::Suffix { tail: &bytes, digest: digest.parse().unwrap() },
            None => Firmware::Image(&bytes),
        };
        let kernel = case["kernel"].as_str().map(|kernel| {
            let initrd = case["initrd"].as_str().map(|initrd| blob(vectors, initrd)).unwrap_or_default();
            let line = case["cmdline"].as_str().unwrap_or_default();
            KernelHashes::of(&blob(vectors, kernel), &initrd, line.as_bytes())
        });
        let launch = Launch {
            firmware,
            kernel,
            vcpus: case["vcpus"].as_u64().unwrap() as u32,
            signature: signature(case),
            features: number(case, "guest_features"),
            vmm: text(case, "vmm").parse().unwrap(),
        };
        let found = measure_ovmf(&launch);
        if case["error"].is_string() {
            assert_eq!(found, Err(MeasureError::NoKernelHashes), "{name}");
            refused += 1;
        } else {
            assert_eq!(found.expect(name).to_string(), text(case, "launch_digest"), "{name}");
            equal += 1;
        }
    }
    (equal, refused, absent)
}

#[test]
fn equals_every_launch_digest_vector() {
    let Some(folder) = folder() else { return };
    let (equal, refused, absent) = run_cases(&folder, &vectors(&folder));
    // Seven cases need Debian's ovmf package, which holds the whole image.
    assert_eq!((equal + refused + absent, absent == 0 || absent == 7), (41, true));
    assert!(equal >= 33 && refused >= 1);
}

#[test]
fn equals_every_vmsa_page_vector() {
    let Some(folder) = folder() else { return };
    let vectors = vectors(&folder);
    for (name, about) in vectors["vmsa_pages"].as_object().unwrap() {
        let parts: Vec<&str> = name.split('/').collect();
        let eip = if parts[1] == "bsp" {
            BSP_RESET_EIP
        } else {
            vectors["firmware"]["fw-a"]["spec"]["ap_reset_eip"].as_u64().unwrap() as u32
        };
        let vmsa = Vmsa { vmm: parts[0].parse().unwrap(), eip, signature: parts[2].parse().unwrap(), features: 1 };
        assert_eq!(hex::encode(Sha384::digest(vmsa.page().as_slice())), text(about, "sha384"), "{name}");
    }
}

#[test]
fn equals_the_kernel_hashes_vector() {
    let Some(folder) = folder() else { return };
    let vectors = vectors(&folder);
    let about = &vectors["hashes_page_sha384"];
    let line = text(about, "cmdline").as_bytes();
    let hashes = KernelHashes::of(&blob(&vectors, "kernel-1"), &blob(&vectors, "initrd-1"), line);
    assert_eq!(hex::encode(hashes.table()), text(about, "table_hex"));
    let page = hashes.page(number(about, "offset") as usize).unwrap();
    assert_eq!(hex::encode(Sha384::digest(page.as_slice())), text(about, "sha384"));
    assert!(hashes.page(PAGE_SIZE - TABLE_SIZE + 1).is_none());
}

#[test]
fn damaged_firmware_tables_are_errors_not_panics() {
    assert_eq!(OvmfMetadata::parse(&[]), Err(OvmfError::Size { found: 0 }));
    assert_eq!(OvmfMetadata::parse(&[0; PAGE_SIZE]), Err(OvmfError::NoTable));
    let Some(folder) = folder() else { return };
    let image = std::fs::read(folder.join("fw/fw-n.fd")).unwrap();
    let tail = &image[image.len() - PAGE_SIZE..];
    assert!(OvmfMetadata::parse(tail).is_ok());
    for at in PAGE_SIZE - 1600..PAGE_SIZE {
        for value in [0x00, 0x01, 0x7f, 0xff] {
            let mut damaged = tail.to_vec();
            damaged[at] = value;
            let _ = OvmfMetadata::parse(&damaged);
        }
    }
}

#[test]
fn refuses_no_vcpu_and_far_too_many() {
    let Some(folder) = folder() else { return };
    let image = std::fs::read(folder.join("fw/fw-n.fd")).unwrap();
    for vcpus in [0, 4097] {
        let launch = Launch {
            firmware: Firmware::Image(&image),
            kernel: None,
            vcpus,
            signature: CpuSignature(0),
            features: 1,
            vmm: Vmm::Qemu,
        };
        assert_eq!(measure_ovmf(&launch), Err(MeasureError::Vcpus { found: vcpus }));
    }
}
