//! ATTESTATION_REPORT as the firmware writes and signs it.
//!
//! Source: SNP ABI, ATTESTATION_REPORT; offsets are the verifier's, so that both read one table.

use coffer_verifier::abi::report::offset;
use coffer_verifier::abi::{
    ChipId, HostData, KeyDigest, Measurement, REPORT_LEN, ReportData, ReportId, SIGNED_LEN, SigningKey as KeyName,
};
use p384::ecdsa::{Signature, SigningKey, signature::Signer};

use crate::options::LaunchOptions;

/// What launch fixed about one guest.
#[derive(Clone, Debug)]
pub struct GuestFacts {
    pub options: LaunchOptions,
    pub measurement: Measurement,
    pub host_data: HostData,
    pub guest_svn: u32,
    pub family_id: [u8; 16],
    pub image_id: [u8; 16],
    pub id_key_digest: KeyDigest,
    pub author_key_digest: Option<KeyDigest>,
    pub report_id: ReportId,
    pub chip_id: ChipId,
}

/// The report with its signature field still zero.
pub fn unsigned(facts: &GuestFacts, report_data: &ReportData, vmpl: u32, key: KeyName) -> [u8; REPORT_LEN] {
    let options = &facts.options;
    let mut report = [0; REPORT_LEN];
    let mut put = |at: usize, bytes: &[u8]| report[at..at + bytes.len()].copy_from_slice(bytes);
    put(offset::VERSION, &options.report_version.to_le_bytes());
    put(offset::GUEST_SVN, &facts.guest_svn.to_le_bytes());
    put(offset::POLICY, &options.policy.to_le_bytes());
    put(offset::FAMILY_ID, &facts.family_id);
    put(offset::IMAGE_ID, &facts.image_id);
    put(offset::VMPL, &vmpl.to_le_bytes());
    put(offset::SIGNATURE_ALGO, &1_u32.to_le_bytes());
    put(offset::CURRENT_TCB, &options.tcb.current.to_raw().to_le_bytes());
    put(offset::PLATFORM_INFO, &options.platform_info.to_le_bytes());
    let signing_key: u32 = match key {
        KeyName::Vcek => 0,
        KeyName::Vlek => 1,
        KeyName::None => 7,
    };
    let key_info =
        u32::from(facts.author_key_digest.is_some()) | u32::from(options.mask_chip_key) << 1 | signing_key << 2;
    put(offset::KEY_INFO, &key_info.to_le_bytes());
    put(offset::REPORT_DATA, report_data.as_bytes());
    put(offset::MEASUREMENT, facts.measurement.as_bytes());
    put(offset::HOST_DATA, facts.host_data.as_bytes());
    put(offset::ID_KEY_DIGEST, facts.id_key_digest.as_bytes());
    if let Some(author) = &facts.author_key_digest {
        put(offset::AUTHOR_KEY_DIGEST, author.as_bytes());
    }
    put(offset::REPORT_ID, facts.report_id.as_bytes());
    put(offset::REPORT_ID_MA, options.report_id_ma.as_bytes());
    put(offset::REPORTED_TCB, &options.tcb.reported.to_raw().to_le_bytes());
    if options.report_version >= 3 {
        let cpuid = options.cpuid;
        put(offset::CPUID, &[cpuid.family, cpuid.model, cpuid.stepping]);
    }
    if !options.mask_chip_id {
        put(offset::CHIP_ID, facts.chip_id.as_bytes());
    }
    put(offset::COMMITTED_TCB, &options.tcb.committed.to_raw().to_le_bytes());
    let firmware = [options.firmware.build, options.firmware.minor, options.firmware.major];
    put(offset::CURRENT_VERSION, &firmware);
    put(offset::COMMITTED_VERSION, &firmware);
    put(offset::LAUNCH_TCB, &options.tcb.launch.to_raw().to_le_bytes());
    if options.report_version >= 5 {
        put(offset::LAUNCH_MIT_VECTOR, &options.launch_mit_vector.to_le_bytes());
        put(offset::CURRENT_MIT_VECTOR, &options.current_mit_vector.to_le_bytes());
    }
    report
}

/// Signs the first 0x2A0 bytes by ECDSA P-384 with SHA-384; R and S little endian.
pub fn sign(report: &mut [u8; REPORT_LEN], key: &SigningKey) {
    let signature: Signature = key.sign(&report[..SIGNED_LEN]);
    let (r, s) = signature.split_bytes();
    for (at, scalar) in [(offset::R, r), (offset::S, s)] {
        for (index, byte) in scalar.iter().rev().enumerate() {
            report[at + index] = *byte;
        }
    }
}
