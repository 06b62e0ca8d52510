//! What a simulated secure processor does for its guest, and refuses.

use crate::vectors;
use std::path::Path;

use crate::common::{NOW, guest, installation, launch};
use coffer_simulator::{
    IdEvidence, Installation, LaunchFailure, LaunchOptions, SecureProcessor, TcbState, default_tcb,
};
use coffer_verifier::abi::message::{GuestChannel, KIND_EXTENDED, KIND_REQUEST, MessagePage, MessageType, SecretsPage};
use coffer_verifier::abi::{
    GuestFieldSelect, HostData, KeyRequest, KeySelect, ProcessorError, ProductLine, Report, ReportData, ReportRequest,
    RootKey, SecureProcessor as _, SigningKey, TcbVersion,
};
use coffer_verifier::measure::{IdAuth, IdBlock, PageType};
use coffer_verifier::{CrlPolicy, Endorsements, ExpectedReportData, TrustAnchors, UnixTime, VerifyError, verify};

fn anchors(product: ProductLine) -> TrustAnchors {
    TrustAnchors::amd().with_simulated(installation().anchor(product).unwrap().spki)
}

fn check(report: &[u8], table: &[u8], product: ProductLine, data: ReportData) -> Result<(), VerifyError> {
    let endorsements = Endorsements::from_cert_table(table).unwrap();
    let now = UnixTime(NOW.cast_signed());
    let expected = ExpectedReportData::Exactly(data);
    verify(report, &endorsements, &anchors(product), &expected, &CrlPolicy::Required, now).map(|_| ())
}

fn all_fields(guest_tcb: TcbVersion) -> KeyRequest {
    KeyRequest {
        root: RootKey::Vcek,
        key: KeySelect::Vcek,
        fields: GuestFieldSelect(
            GuestFieldSelect::POLICY | GuestFieldSelect::MEASUREMENT | GuestFieldSelect::TCB_VERSION,
        ),
        vmpl: 0,
        guest_svn: 0,
        tcb_version: guest_tcb.to_raw(),
        launch_mit_vector: 0,
    }
}

#[test]
fn the_verifier_accepts_every_product_version_and_key() {
    let data = ReportData::new([0xd5; 64]);
    for product in ProductLine::ALL {
        let versions: &[u32] = if product == ProductLine::Turin { &[3, 4, 5] } else { &[2, 3, 4, 5] };
        for &report_version in versions {
            for vlek in [None, Some("CN=cc-test.example".to_owned())] {
                let guest =
                    launch(LaunchOptions { report_version, vlek: vlek.clone(), ..LaunchOptions::new(product, NOW) });
                let measurement = guest.measurement();
                let got = guest.into_processor().report(&ReportRequest::new(data)).unwrap();
                check(&got.report, &got.cert_table, product, data)
                    .unwrap_or_else(|error| panic!("{product} version {report_version} {vlek:?}: {error:?}"));
                let report = Report::parse(&got.report).unwrap();
                assert_eq!(report.version(), report_version);
                assert_eq!(report.measurement(), measurement);
                assert_eq!(report.host_data(), HostData::new([3; 32]));
                let name = if vlek.is_some() { SigningKey::Vlek } else { SigningKey::Vcek };
                assert_eq!(report.signing_key(), name);
            }
        }
    }
}

#[test]
fn nobody_who_does_not_list_the_anchor_accepts_it() {
    let data = ReportData::new([1; 64]);
    let got = guest(ProductLine::Milan).into_processor().report(&ReportRequest::new(data)).unwrap();
    let endorsements = Endorsements::from_cert_table(&got.cert_table).unwrap();
    let expected = ExpectedReportData::Exactly(data);
    let amd_only = TrustAnchors::amd();
    let now = UnixTime(NOW.cast_signed());
    assert!(verify(&got.report, &endorsements, &amd_only, &expected, &CrlPolicy::Required, now).is_err());
}

#[test]
fn reports_state_what_launch_fixed_and_a_changed_bit_is_refused() {
    let data = ReportData::new([9; 64]);
    let got = guest(ProductLine::Milan).into_processor().report(&ReportRequest::new(data)).unwrap();
    for at in [0x4, 0x8, 0x50, 0x90, 0xc0, 0x140, 0x1a0] {
        let mut changed = got.report.clone();
        changed[at] ^= 1;
        assert!(check(&changed, &got.cert_table, ProductLine::Milan, data).is_err(), "{at:#x}");
    }
}

#[test]
fn a_replayed_or_reordered_or_foreign_message_is_refused_and_changes_nothing() {
    let mut guest = guest(ProductLine::Milan);
    let keys = SecretsPage::parse(&guest.secrets_page()).unwrap().vmpcks;
    let [vmpck0, _, _, _] = keys;
    let mut channel = GuestChannel::new(vmpck0, 0);
    let ask = |channel: &mut GuestChannel| {
        channel
            .request(MessageType::ReportRequest, 1, &ReportRequest::new(ReportData::new([1; 64])).to_bytes())
            .unwrap()
    };
    let first = ask(&mut channel);
    let answer = guest.guest_request(KIND_REQUEST, &first);
    assert_eq!(answer.exitinfo2, 0);
    assert!(answer.cert_table.is_empty(), "only the extended request brings certificates");
    channel.response(&answer.page).unwrap();

    assert_eq!(guest.guest_request(KIND_REQUEST, &first).exitinfo2, 0x16, "replay");
    let mut foreign: MessagePage = *first;
    foreign[0x20] = 3;
    assert_eq!(guest.guest_request(KIND_REQUEST, &foreign).exitinfo2, 0x10, "renumbered");
    foreign[0x3c] = 9;
    assert_eq!(guest.guest_request(KIND_REQUEST, &foreign).exitinfo2, 0x16, "no such VMPCK");
    assert_ne!(guest.guest_request(7, &first).exitinfo2, 0, "unknown kind");

    let second = ask(&mut channel);
    let answer = guest.guest_request(KIND_EXTENDED, &second);
    assert_eq!((answer.exitinfo2, answer.cert_table.is_empty()), (0, false));
    channel.response(&answer.page).unwrap();
}

#[test]
fn a_guest_cannot_use_another_guests_processor() {
    let (one, mut other) = (guest(ProductLine::Milan), guest(ProductLine::Milan));
    let [key, _, _, _] = SecretsPage::parse(&one.secrets_page()).unwrap().vmpcks;
    let page = GuestChannel::new(key, 0)
        .request(MessageType::ReportRequest, 1, &ReportRequest::new(ReportData::new([1; 64])).to_bytes())
        .unwrap();
    assert_eq!(other.guest_request(KIND_REQUEST, &page).exitinfo2, 0x10);
}

#[test]
fn a_lower_vmpl_cannot_speak_for_a_higher() {
    let mut guest = guest(ProductLine::Milan);
    let [_, _, vmpck2, _] = SecretsPage::parse(&guest.secrets_page()).unwrap().vmpcks;
    let mut channel = GuestChannel::new(vmpck2, 2);
    for (vmpl, status) in [(1, 0x16), (2, 0), (3, 0), (4, 0x16)] {
        let request = ReportRequest { vmpl, ..ReportRequest::new(ReportData::new([1; 64])) };
        let page = channel.request(MessageType::ReportRequest, 1, &request.to_bytes()).unwrap();
        let payload = channel.response(&guest.guest_request(KIND_REQUEST, &page).page).unwrap();
        assert_eq!(payload[0], status, "VMPL {vmpl}");
    }
}

#[test]
fn derived_keys_are_stable_and_differ_by_each_selected_field() {
    let tcb = default_tcb(ProductLine::Milan);
    let key = |options: LaunchOptions, request: &KeyRequest| {
        let mut processor = launch(options).into_processor();
        *processor.derived_key(request).unwrap().expose()
    };
    let options = || LaunchOptions::new(ProductLine::Milan, NOW);
    let base = all_fields(tcb);
    let first = key(options(), &base);
    assert_eq!(first, key(LaunchOptions { now: NOW + 5, ..options() }, &base), "same guest, later launch");

    let lower = TcbVersion { snp: tcb.snp - 1, ..tcb };
    let others = [
        key(LaunchOptions { policy: 0xb_0000, ..options() }, &base),
        key(options(), &KeyRequest { vmpl: 1, ..base.clone() }),
        key(options(), &KeyRequest { tcb_version: lower.to_raw(), ..base.clone() }),
        key(options(), &KeyRequest { fields: GuestFieldSelect(0), ..base.clone() }),
        key(
            options(),
            &KeyRequest { fields: GuestFieldSelect(base.fields.0 | GuestFieldSelect::IMAGE_ID), ..base.clone() },
        ),
        key(
            LaunchOptions { vlek: Some("CN=a".to_owned()), ..options() },
            &KeyRequest { key: KeySelect::Vlek, ..base.clone() },
        ),
        key(
            LaunchOptions { vlek: Some("CN=b".to_owned()), ..options() },
            &KeyRequest { key: KeySelect::Vlek, ..base.clone() },
        ),
        key(LaunchOptions::new(ProductLine::Genoa, NOW), &all_fields(default_tcb(ProductLine::Genoa))),
    ];
    for (index, other) in others.iter().enumerate() {
        assert_ne!(&first, other, "{index}");
        assert!(others[index + 1..].iter().all(|later| later != other), "{index}");
    }
    let mut pages = SecureProcessor::launch_start(installation(), options()).unwrap();
    pages.update(PageType::Normal, 0x1000, &[8; 4096]).unwrap();
    let changed = pages.finish(HostData::new([3; 32]), None).unwrap();
    assert_ne!(&first, changed.into_processor().derived_key(&base).unwrap().expose(), "another measurement");
    let policy_only = KeyRequest { fields: GuestFieldSelect(GuestFieldSelect::POLICY), ..base.clone() };
    let mut same_policy = SecureProcessor::launch_start(installation(), options()).unwrap();
    same_policy.update(PageType::Normal, 0, &[1; 4096]).unwrap();
    let same_policy = same_policy.finish(HostData::new([3; 32]), None).unwrap();
    assert_eq!(
        &key(options(), &policy_only),
        same_policy.into_processor().derived_key(&policy_only).unwrap().expose(),
        "a field not selected does not matter"
    );
}

#[test]
fn key_requests_beyond_the_guest_are_refused() {
    let tcb = default_tcb(ProductLine::Milan);
    let mut processor = guest(ProductLine::Milan).into_processor();
    let above = TcbVersion { microcode: tcb.microcode + 1, ..tcb };
    for (request, status) in [
        (KeyRequest { guest_svn: 1, ..all_fields(tcb) }, 0x16),
        (KeyRequest { tcb_version: above.to_raw(), ..all_fields(tcb) }, 0x16),
        (KeyRequest { tcb_version: 1 << 20, ..all_fields(tcb) }, 0x16),
        (KeyRequest { root: RootKey::Vmrk, ..all_fields(tcb) }, 0x16),
        (KeyRequest { key: KeySelect::Vlek, ..all_fields(tcb) }, 0x27),
        (KeyRequest { vmpl: 4, ..all_fields(tcb) }, 0x16),
        (KeyRequest { launch_mit_vector: 1 << 40, ..all_fields(tcb) }, 0x16),
    ] {
        match processor.derived_key(&request) {
            Err(ProcessorError::Status { status: found, .. }) => assert_eq!(found, status, "{request:?}"),
            other => panic!("{request:?}: {:?}", other.map(|_| "a key")),
        }
    }
    processor.derived_key(&all_fields(tcb)).expect("a refused request leaves the channel open");
}

#[test]
fn a_masked_chip_key_signs_nothing_and_a_masked_chip_id_is_zero() {
    let options =
        LaunchOptions { mask_chip_key: true, mask_chip_id: true, ..LaunchOptions::new(ProductLine::Milan, NOW) };
    let got = launch(options).into_processor().report(&ReportRequest::new(ReportData::new([1; 64]))).unwrap();
    assert!(got.report[0x2a0..0x330].iter().all(|byte| *byte == 0));
    let report = Report::parse(&got.report).unwrap();
    assert!(report.chip_id().is_zero());
    assert_eq!(report.signing_key(), SigningKey::None);
}

#[test]
fn a_platform_changes_under_a_guest_as_firmware_lets_it() {
    let product = ProductLine::Genoa;
    let old = TcbState::all(default_tcb(product));
    let newer = TcbVersion { microcode: old.current.microcode + 1, ..old.current };
    let older = TcbVersion { microcode: old.current.microcode - 1, ..old.current };
    let data = ReportData::new([6; 64]);
    let stated = |change: &[TcbState]| {
        let mut guest = guest(product);
        for tcb in change {
            guest.change_platform(installation(), *tcb).map_err(|error| error.to_string())?;
        }
        let got = guest.into_processor().report(&ReportRequest::new(data)).unwrap();
        check(&got.report, &got.cert_table, product, data).unwrap();
        let tcbs = Report::parse(&got.report).unwrap().tcbs(product).unwrap();
        Ok::<_, String>((tcbs.current, tcbs.committed, tcbs.launch, tcbs.reported))
    };
    let launch = old.launch;
    // Updated, then committed, then set back to what older certificates are for.
    assert_eq!(stated(&[old.run(newer)]), Ok((newer, launch, launch, launch)));
    let committed = old.run(newer).commit();
    assert_eq!(stated(&[old.run(newer), committed]), Ok((newer, newer, launch, newer)));
    assert_eq!(stated(&[committed, committed.report_as(older)]), Ok((newer, newer, launch, older)));
    assert_eq!(
        stated(&[old.run(newer), old]),
        Ok((launch, launch, launch, launch)),
        "what is not committed rolls back"
    );
    for (change, why) in [
        (vec![old.run(older)], "committed exceeds current"),
        (vec![old.report_as(newer)], "reported exceeds committed"),
        (vec![committed, old], "committed never sinks"),
        (vec![TcbState { launch: older, ..old }], "launch is fixed"),
        (vec![TcbState::all(default_tcb(ProductLine::Turin))], "FMC"),
    ] {
        let found = stated(&change).unwrap_err();
        assert!(found.contains(why), "{why}: {found}");
    }
}

#[test]
fn a_key_follows_the_committed_floor_and_another_chip_has_another() {
    let product = ProductLine::Milan;
    let old = TcbState::all(default_tcb(product));
    let newer = TcbVersion { microcode: old.current.microcode + 1, ..old.current };
    let mut updated = guest(product);
    updated.change_platform(installation(), old.run(newer).commit()).unwrap();
    let mut updated = updated.into_processor();
    let request = all_fields(old.committed);
    let mut key = |request: &KeyRequest| *updated.derived_key(request).unwrap().expose();
    let own = key(&request);
    assert_eq!(
        own,
        *guest(product).into_processor().derived_key(&request).unwrap().expose(),
        "an update keeps old keys"
    );
    assert_ne!(own, key(&all_fields(newer)));

    let bytes = installation().to_bytes().unwrap();
    let mut stored: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    stored["chip_secret"] = "07".repeat(32).into();
    let other = Installation::from_bytes(stored.to_string().as_bytes()).unwrap();
    let mut launch = SecureProcessor::launch_start(&other, LaunchOptions::new(product, NOW)).unwrap();
    launch.update(PageType::Normal, 0x1000, &[7; 4096]).unwrap();
    let mut elsewhere = launch.finish(HostData::new([3; 32]), None).unwrap().into_processor();
    assert_ne!(own, *elsewhere.derived_key(&request).unwrap().expose(), "the root is the chip's");
    assert_ne!(other.chip_id(product), installation().chip_id(product));
}

#[test]
fn launches_that_firmware_would_refuse_are_refused() {
    let start = |options| SecureProcessor::launch_start(installation(), options).err().map(|error| error.to_string());
    let options = || LaunchOptions::new(ProductLine::Milan, NOW);
    let tcb = default_tcb(ProductLine::Milan);
    let lower = TcbVersion { snp: 1, ..tcb };
    for (bad, why) in [
        (LaunchOptions { policy: 0x1_0000, ..options() }, "bit 17"),
        (LaunchOptions { policy: 0x2_0000, ..options() }, "SMT"),
        (LaunchOptions { policy: 0x83_0000, ..options() }, "RAPL"),
        (LaunchOptions { policy: 0x103_0000, ..options() }, "ciphertext"),
        (LaunchOptions { policy: 1 << 30 | 0x3_0000, ..options() }, "reserved"),
        (LaunchOptions { policy: 0x3_02ff, ..options() }, "newer firmware"),
        (LaunchOptions { tcb: TcbState { current: lower, ..TcbState::all(tcb) }, ..options() }, "committed exceeds"),
        (LaunchOptions { tcb: TcbState { committed: lower, ..TcbState::all(tcb) }, ..options() }, "reported exceeds"),
        (LaunchOptions { tcb: TcbState { launch: tcb, ..TcbState::all(lower) }, ..options() }, "launch exceeds"),
        (LaunchOptions { tcb: TcbState::all(default_tcb(ProductLine::Turin)), ..options() }, "FMC"),
        (LaunchOptions { report_version: 6, ..options() }, "report version 6"),
        (LaunchOptions { report_version: 2, ..LaunchOptions::new(ProductLine::Turin, NOW) }, "report version 2"),
    ] {
        let found = start(bad).unwrap_or_default();
        assert!(found.contains(why), "{why}: {found}");
    }
    let empty = Installation::create(NOW).unwrap();
    assert!(matches!(SecureProcessor::launch_start(&empty, options()), Err(LaunchFailure::Installation(_))));
}

#[test]
fn an_id_block_is_checked_as_firmware_does() {
    let Some(folder) = vectors::folder("measure") else { return };
    let block = IdBlock::parse(&std::fs::read(folder.join("idblock/id_block.bin")).unwrap()).unwrap();
    let page = std::fs::read(folder.join("idblock/id_auth.bin")).unwrap();
    // Pages that give the digest the block was signed for: the launch the vectors describe.
    let finish = |change: &dyn Fn(&mut IdBlock, &mut Vec<u8>)| {
        let (mut block, mut page) = (block, page.clone());
        change(&mut block, &mut page);
        let id = IdEvidence { block, auth: IdAuth::parse(&page).unwrap(), author_key_enabled: true };
        let processor = vector_launch(&folder);
        processor.finish(HostData::new([0; 32]), Some(&id))
    };
    let mut processor = finish(&|_, _| {}).unwrap().into_processor();
    let got = processor.report(&ReportRequest::new(ReportData::new([1; 64]))).unwrap();
    let report = Report::parse(&got.report).unwrap();
    assert_eq!((report.guest_svn(), report.family_id(), report.image_id()), (7, block.family_id, block.image_id));
    assert!(report.id_key_digest().to_string().starts_with("88e4b2db"));
    assert!(report.author_key_digest().to_string().starts_with("25860fd9"));
    assert!(report.key_info().author_key_en);

    let failure = |change: &dyn Fn(&mut IdBlock, &mut Vec<u8>)| finish(change).err().unwrap();
    let digest = failure(&|block, _| block.measurement = coffer_verifier::abi::Measurement::new([1; 48]));
    assert!(matches!(digest, LaunchFailure::IdBlockMeasurement { .. }));
    let policy = failure(&|block, _| block.policy = 0xb_0000);
    assert!(matches!(policy, LaunchFailure::IdBlockPolicy { .. }));
    for (change, what) in [(0x54_usize, "ID key over"), (0x244, "ID key over"), (0x690, "author key over")] {
        let error = failure(&|block, page| if change == 0x54 { block.guest_svn += 1 } else { page[change] ^= 1 });
        assert!(matches!(error, LaunchFailure::IdSignature(text) if text.contains(what)), "{change:#x}: {error}");
    }
}

/// The launch `fw-a/EPYC-Milan/2/kernel` of the vectors, page by page.
fn vector_launch(folder: &Path) -> SecureProcessor<'static> {
    use coffer_verifier::measure::{BSP_RESET_EIP, KernelHashes, OvmfMetadata, SectionType, VMSA_GPA, Vmm, Vmsa};
    use sha2::{Digest, Sha256};
    let image = std::fs::read(folder.join("fw/fw-a.fd")).unwrap();
    let stream = |seed: &str, length: usize| -> Vec<u8> {
        (0_u32..)
            .flat_map(|index| Sha256::new().chain_update(seed).chain_update(index.to_le_bytes()).finalize().to_vec())
            .take(length)
            .collect()
    };
    let mut processor =
        SecureProcessor::launch_start(installation(), LaunchOptions::new(ProductLine::Milan, NOW)).unwrap();
    let start = (1_u64 << 32) - image.len() as u64;
    for (index, page) in image.as_chunks::<4096>().0.iter().enumerate() {
        processor.update(PageType::Normal, start + 4096 * index as u64, page).unwrap();
    }
    let metadata = OvmfMetadata::parse(&image).unwrap();
    let kernel = stream("snp-measure-kernel-1", 12345);
    let initrd = stream("snp-measure-initrd-1", 54321);
    let hashes = KernelHashes::of(&kernel, &initrd, b"console=ttyS0 root=/dev/vda1 ro");
    for section in &metadata.sections {
        for gpa in (section.gpa..section.gpa + section.size).step_by(4096) {
            let zero = [0; 4096];
            match section.kind {
                SectionType::KernelHashes => {
                    let offset = metadata.hash_table.unwrap().gpa - gpa;
                    let page = hashes.page(offset as usize).unwrap();
                    processor.update(PageType::Normal, gpa.into(), &page).unwrap();
                }
                SectionType::Secrets => processor.update(PageType::Secrets, gpa.into(), &zero).unwrap(),
                SectionType::Cpuid => processor.update(PageType::Cpuid, gpa.into(), &zero).unwrap(),
                _ => processor.update(PageType::Zero, gpa.into(), &zero).unwrap(),
            }
        }
    }
    for eip in [BSP_RESET_EIP, metadata.ap_reset_eip] {
        let vmsa = Vmsa { vmm: Vmm::Qemu, eip, signature: "EPYC-Milan".parse().unwrap(), features: 1 };
        processor.update(PageType::Vmsa, VMSA_GPA, &vmsa.page()).unwrap();
    }
    processor
}

#[test]
fn an_installation_survives_its_bytes() {
    let bytes = installation().to_bytes().unwrap();
    let read = Installation::from_bytes(&bytes).unwrap();
    assert_eq!(read.to_bytes().unwrap(), bytes);
    assert_eq!(read.anchors().count(), 3);
    assert!(Installation::from_bytes(b"{}").is_err());
    let older = String::from_utf8(bytes.to_vec()).unwrap().replace("coffer-simulator/1", "coffer-simulator/0");
    assert!(Installation::from_bytes(older.as_bytes()).is_err());
}
