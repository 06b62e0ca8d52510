use std::sync::{Arc, Mutex};

use coffer_seal::{Header, Scope, SealError, SealPolicy};
use coffer_spec::{Floors, SealFloors, Tee, WorkloadSpec};
use coffer_verifier::abi::{
    DerivedKey, ExtendedReport, KeyRequest, ProcessorError, ReportRequest, SecureProcessor,
    report::{REPORT_LEN, offset},
};
use sha2::{Digest, Sha256};

use super::*;
use crate::processor::SharedProcessor;

/// Derives keys as a secure processor does: from its own root and what the request names.
struct Chip {
    root: u8,
    measurement: u8,
    policy: u64,
    committed: u64,
}

const USUAL: Chip = Chip { root: 1, measurement: 2, policy: 0x3_0000, committed: 0x0102_0000_0000_0304 };

impl SecureProcessor for Chip {
    fn report(&mut self, _: &ReportRequest) -> Result<ExtendedReport, ProcessorError> {
        let mut report = vec![0; REPORT_LEN];
        let mut put = |at: usize, value: &[u8]| report[at..at + value.len()].copy_from_slice(value);
        put(offset::VERSION, &2_u32.to_le_bytes());
        put(offset::POLICY, &self.policy.to_le_bytes());
        put(offset::SIGNATURE_ALGO, &1_u32.to_le_bytes());
        put(offset::MEASUREMENT, &[self.measurement; 48]);
        put(offset::COMMITTED_TCB, &self.committed.to_le_bytes());
        put(offset::R, &[1]);
        put(offset::S, &[1]);
        Ok(ExtendedReport { report, cert_table: vec![] })
    }

    fn derived_key(&mut self, request: &KeyRequest) -> Result<DerivedKey, ProcessorError> {
        let mixed = format!("{}{}{}{request:?}", self.root, self.measurement, self.policy);
        Ok(DerivedKey::new(Sha256::digest(mixed).into()))
    }
}

async fn seal_on(chip: Chip, spec: &WorkloadSpec, policy: SealPolicy) -> Result<Vec<u8>, SealingError> {
    let processor: SharedProcessor = Arc::new(Mutex::new(Box::new(chip)));
    let means = Means { processor: &processor, spec, broker: None, scope: Scope::Agent };
    Ok(means.seal(policy, b"db", Counter::None, b"secret").await?.bytes)
}

async fn unseal_on(chip: Chip, spec: &WorkloadSpec, file: &[u8]) -> Result<Vec<u8>, SealingError> {
    let processor: SharedProcessor = Arc::new(Mutex::new(Box::new(chip)));
    let means = Means { processor: &processor, spec, broker: None, scope: Scope::Agent };
    Ok(means.unseal(b"db", file).await?.plaintext.to_vec())
}

fn spec() -> WorkloadSpec {
    crate::boot::tests::spec(Tee::Snp)
}

fn floor(min_tcb: &str) -> WorkloadSpec {
    WorkloadSpec { floors: Floors { seal: SealFloors { min_tcb: min_tcb.into() }, ..Floors::default() }, ..spec() }
}

async fn sealed() -> Vec<u8> {
    seal_on(USUAL, &spec(), SealPolicy::MeasurementAndChip).await.unwrap()
}

#[tokio::test]
async fn opens_on_the_same_chip_and_platform_after_a_firmware_update() {
    assert_eq!(unseal_on(USUAL, &spec(), &sealed().await).await.unwrap(), b"secret");
    let updated = Chip { committed: 0x0202_0000_0000_0304, ..USUAL };
    let opened = unseal_on(updated, &spec(), &sealed().await).await.unwrap();
    assert_eq!(opened, b"secret", "the header's TCB is asked for, not today's");
}

#[tokio::test]
async fn does_not_open_on_another_chip_or_platform() {
    for other in [Chip { root: 9, ..USUAL }, Chip { measurement: 9, ..USUAL }] {
        let refused = unseal_on(other, &spec(), &sealed().await).await.unwrap_err();
        assert!(matches!(refused, SealingError::Seal(SealError::Closed)), "{refused}");
    }
}

#[tokio::test]
async fn files_sealed_on_hardware_do_not_open_in_a_simulated_guest() {
    let simulated = crate::boot::tests::spec(Tee::Simulated);
    let refused = unseal_on(USUAL, &simulated, &sealed().await).await.unwrap_err();
    assert!(matches!(refused, SealingError::Seal(SealError::Processor { sealed_simulated: false })), "{refused}");
}

#[tokio::test]
async fn neither_seals_nor_opens_below_the_floor_of_the_spec() {
    let high = floor("0503000000000201");
    assert!(unseal_on(USUAL, &floor("0403000000000201"), &sealed().await).await.is_ok());
    for refused in
        [unseal_on(USUAL, &high, &sealed().await).await, seal_on(USUAL, &high, SealPolicy::MeasurementAndChip).await]
    {
        assert!(matches!(refused, Err(SealingError::Seal(SealError::Floor { .. }))));
    }
}

#[tokio::test]
async fn neither_seals_nor_opens_in_a_guest_that_can_be_debugged() {
    let debugged = || Chip { policy: 0xb_0000, ..USUAL };
    for policy in SealPolicy::ALL {
        let refused = seal_on(debugged(), &spec(), policy).await;
        assert!(matches!(refused, Err(SealingError::Seal(SealError::Unsafe { .. }))), "{policy}");
    }
    let refused = unseal_on(debugged(), &spec(), &sealed().await).await;
    assert!(matches!(refused, Err(SealingError::Seal(SealError::Unsafe { .. }))));
}

#[tokio::test]
async fn without_a_broker_its_policies_are_refused_and_not_weakened() {
    for policy in SealPolicy::ALL.into_iter().filter(|policy| policy.source().needs_broker()) {
        let refused = seal_on(USUAL, &spec(), policy).await.unwrap_err();
        match policy {
            SealPolicy::Signer => assert!(matches!(refused, SealingError::NoAuthor), "{refused}"),
            _ => assert!(matches!(refused, SealingError::NoBroker { policy: named } if named == policy), "{refused}"),
        }
        // A file of that policy: its header alone says where its key is.
        let mut file = Header::new(policy, false, USUAL.committed, b"db", [1; 32]).encode().to_vec();
        file.extend([0; 40]);
        let refused = unseal_on(USUAL, &spec(), &file).await.unwrap_err();
        assert!(matches!(refused, SealingError::NoBroker { policy: named } if named == policy), "{refused}");
    }
}

#[tokio::test]
async fn counters_are_the_brokers() {
    let processor: SharedProcessor = Arc::new(Mutex::new(Box::new(USUAL)));
    let (policy, spec) = (SealPolicy::MeasurementAndChip, spec());
    let means = Means { processor: &processor, spec: &spec, broker: None, scope: Scope::Agent };
    let refused = means.seal(policy, b"db", Counter::Begin, b"x").await.unwrap_err();
    assert!(matches!(refused, SealingError::CounterNeedsBroker { .. }), "{refused}");
    let refused = means.seal(policy, b"db", Counter::Replace(&sealed().await), b"x").await.unwrap_err();
    assert!(matches!(refused, SealingError::NotReplaceable { .. }), "{refused}");
}
