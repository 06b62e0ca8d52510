//! What the target of RA-TLS messages does with its input; the stable replay of the corpus includes this file too.

use coffer_ratls::{
    MAX_CERT_TABLE, MAX_CRL, MAX_CRLS, MAX_SPEC, RESULT_LIFETIME,
    heard::{Heard, challenge, request, response},
};
use coffer_verifier::{Endorsements, abi::REPORT_LEN};

/// A message as either end reads it: evidence within its limits, an admission no longer than any counts, or a refusal in few words of
/// ours. Gives how many readings there were that say something.
pub fn messages(data: &[u8]) -> usize {
    let read: Vec<_> = [request(data), response(data), challenge(data)].into_iter().flatten().collect();
    let mut said = 0;
    for one in read {
        match one {
            Ok(Heard::Challenge(_)) => {}
            Ok(Heard::Admission(valid)) => assert!(valid <= RESULT_LIFETIME),
            Ok(Heard::Evidence(evidence, key)) => {
                assert_eq!((evidence.report.len(), key.public_key.len()), (REPORT_LEN, 97));
                assert!(evidence.cert_table.len() <= MAX_CERT_TABLE && evidence.crls.len() <= MAX_CRLS);
                assert!(evidence.crls.iter().all(|crl| crl.len() <= MAX_CRL));
                assert!((1..=MAX_SPEC).contains(&evidence.workload_spec.len()));
                let _ = Endorsements::from_evidence(&evidence);
            }
            Err(refusal) => {
                assert!(refusal.code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
                assert!(refusal.detail.len() < 128 && !refusal.detail.contains("canary"), "{refusal}");
                continue;
            }
        }
        said += 1;
    }
    said
}
