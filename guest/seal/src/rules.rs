//! When a guest may seal at all, and which key it asks its secure processor for.

use coffer_verifier::abi::{GuestFieldSelect, KeyRequest, KeySelect, PolicyBit, Report, RootKey};

use crate::{SealError, header::Source};

/// MSG_KEY_REQ of a sealing key: POLICY and TCB_VERSION mixed in, VMPL 0, root VCEK chosen explicitly. `tcb`: COMMITTED_TCB when
/// sealing, the header's when unsealing. None where the secure processor has no part in the key.
///
/// A key without MEASUREMENT in its mix is the same for any guest of this chip, so it is asked for only where the broker's key,
/// for which guests are admitted, is mixed with it.
pub const fn key_request(source: Source, tcb: u64) -> Option<KeyRequest> {
    let usual = GuestFieldSelect::POLICY | GuestFieldSelect::TCB_VERSION;
    let fields = match source {
        Source::Processor => usual | GuestFieldSelect::MEASUREMENT,
        Source::Both => usual,
        Source::Broker => return None,
    };
    Some(KeyRequest {
        root: RootKey::Vcek,
        key: KeySelect::Vcek,
        fields: GuestFieldSelect(fields),
        vmpl: 0,
        guest_svn: 0,
        tcb_version: tcb,
        launch_mit_vector: 0,
    })
}

/// Refuses guests whose memory somebody else may read, or who are not the outermost privilege level.
///
/// # Errors
/// [`SealError::Unsafe`] names what the report shows.
pub fn refuse_unsafe(report: &Report) -> Result<(), SealError> {
    let refuse = |what: String| Err(SealError::Unsafe { what });
    if report.policy().has(PolicyBit::Debug) {
        return refuse("its policy allows debugging".into());
    }
    if report.policy().has(PolicyBit::MigrateMa) {
        return refuse("its policy allows a migration agent".into());
    }
    if report.vmpl() != 0 {
        return refuse(format!("it reports at VMPL {}, not 0", report.vmpl()));
    }
    Ok(())
}

/// Refuses a TCB below the spec's floor, part by part: both are the raw eight bytes of TCB_VERSION, whose every byte is one
/// part or zero on all products. `floor`: 16 hex digits, or nothing for no floor.
///
/// # Errors
/// [`SealError::Floor`], also for a floor that is not 16 hex digits.
pub fn check_floor(tcb: u64, floor: &str) -> Result<(), SealError> {
    if floor.is_empty() {
        return Ok(());
    }
    let found = tcb.to_le_bytes();
    let refuse = || SealError::Floor { found: hex::encode(found), floor: floor.into() };
    let least: [u8; 8] = hex::decode(floor).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(refuse)?;
    if found.iter().zip(least).all(|(found, least)| *found >= least) { Ok(()) } else { Err(refuse()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealing_key_depends_on_the_measurement_unless_the_broker_has_its_part() {
        let usual = GuestFieldSelect::POLICY | GuestFieldSelect::TCB_VERSION;
        for (source, fields) in [(Source::Processor, usual | GuestFieldSelect::MEASUREMENT), (Source::Both, usual)] {
            let request = key_request(source, 7).unwrap();
            assert_eq!(request.fields.0, fields, "{source:?}");
            assert_eq!(
                (request.vmpl, request.root, request.key, request.tcb_version),
                (0, RootKey::Vcek, KeySelect::Vcek, 7)
            );
        }
        assert!(key_request(Source::Broker, 7).is_none());
    }

    /// A report with these fields and nothing else; [`refuse_unsafe`] does not look at signatures.
    fn report(policy: u64, vmpl: u32) -> Report {
        use coffer_verifier::abi::report::{REPORT_LEN, offset};
        let mut bytes = vec![0; REPORT_LEN];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(offset::VERSION, &2_u32.to_le_bytes());
        put(offset::POLICY, &policy.to_le_bytes());
        put(offset::VMPL, &vmpl.to_le_bytes());
        put(offset::SIGNATURE_ALGO, &1_u32.to_le_bytes());
        put(offset::R, &[1]);
        put(offset::S, &[1]);
        Report::parse(&bytes).unwrap()
    }

    #[test]
    fn guests_that_others_may_look_into_do_not_seal() {
        const USUAL: u64 = 0x3_0000;
        assert_eq!(refuse_unsafe(&report(USUAL, 0)), Ok(()));
        for unsafe_report in [report(USUAL | 1 << 19, 0), report(USUAL | 1 << 18, 0), report(USUAL, 1)] {
            assert!(matches!(refuse_unsafe(&unsafe_report), Err(SealError::Unsafe { .. })));
        }
    }

    #[test]
    fn every_part_of_the_tcb_is_compared_by_itself() {
        let tcb = u64::from_le_bytes([4, 0, 0, 0, 0, 0, 0x18, 0xdb]);
        assert_eq!(check_floor(tcb, ""), Ok(()));
        assert_eq!(check_floor(tcb, "04000000000018db"), Ok(()));
        assert!(check_floor(tcb, "0500000000000000").is_err());
        assert!(check_floor(tcb, "00000000000019da").is_err());
        assert!(check_floor(tcb, "zz").is_err());
    }
}
