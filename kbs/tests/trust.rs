//! Authors and signed manifests: whom they admit, and how each of them ceases to.

use crate::common;
use std::sync::{Arc, atomic::Ordering};

use crate::common::{Author, Guest, Kbs, Key, Launch, PATH, TENANT, VALUE, ask, edit_all, has_reason, refused, spec};
use coffer_kbs::Kind;
use coffer_kbs_client::{BrokerClient, ClientError, ManifestKey, Reference, Signer, StillAdmitted};
use coffer_verifier::{
    Expiry, SignerRule, UnixTime,
    abi::{FamilyId, ImageId, KeyDigest, Measurement, WorkloadDigest},
    manifest::{Contents, MeasuredLaunch, ReferenceManifest, SignedManifest},
    measure::LaunchForm,
};

pub const MANIFEST_KEY: u8 = 0x30;

fn now() -> i64 {
    i64::try_from(common::unix()).unwrap()
}

/// A manifest of two forms, of which the guest is of the second.
pub fn contents(sequence: u64, measurement: Measurement, workload: WorkloadDigest) -> Contents {
    let launch = |launch, measurement| MeasuredLaunch { launch, vcpus: 2, vcpu_type: "EPYC-Milan".into(), measurement };
    Contents {
        name: "web".into(),
        sequence,
        release: None,
        created: UnixTime(now() - 10),
        expires: UnixTime(now() + 600),
        components: Vec::new(),
        workload,
        measurements: vec![
            launch(LaunchForm::ResetVector, Measurement::new([0xee; 48])),
            launch(LaunchForm::LongMode, measurement),
        ],
    }
}

pub fn sign(contents: Contents, seed: u8) -> Vec<u8> {
    let envelope = SignedManifest::of(&ReferenceManifest::new(contents).unwrap());
    let key = Key::new(seed);
    let signature = key.sign(&envelope.signing_input());
    envelope.with_signature(&key.public, signature).to_json().into_bytes()
}

pub async fn list_key(kbs: &Kbs, seed: u8) -> bool {
    let key = ManifestKey { tenant: TENANT.into(), name: "ci".into(), key: Key::new(seed).public };
    kbs.admin().await.add_manifest_key(&key).await.unwrap()
}

pub async fn add(kbs: &Kbs, envelope: Vec<u8>) -> Result<bool, String> {
    match kbs.admin().await.add_manifest(TENANT, envelope).await {
        Ok((added, _)) => Ok(added),
        Err(ClientError::Rejected { message, .. }) => Err(message),
        Err(other) => panic!("{other:?}"),
    }
}

/// A broker with the secret and a listed manifest key, and a connected guest.
async fn ready() -> (Kbs, Arc<Guest>, BrokerClient) {
    let kbs = Kbs::start().await;
    kbs.put(PATH, true).await;
    assert!(list_key(&kbs, MANIFEST_KEY).await);
    let guest = Guest::usual();
    let client = kbs.connect(guest.clone()).await.unwrap();
    (kbs, guest, client)
}

async fn why_not(kbs: &Kbs, client: &BrokerClient) -> serde_json::Value {
    kbs.line_of(&refused(ask(client, PATH).await))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pair_of_a_signed_manifest_is_a_reference() {
    let (kbs, guest, client) = ready().await;
    let good = contents(1, guest.measurement, guest.document.digest());
    refused(ask(&client, PATH).await);
    assert_eq!(add(&kbs, sign(good.clone(), MANIFEST_KEY)).await, Ok(true));
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    // Signed once more it is the same manifest.
    assert_eq!(add(&kbs, sign(good, MANIFEST_KEY)).await, Ok(false));
    let listed = kbs.admin().await.list_manifests(TENANT).await.unwrap().rows;
    assert_eq!((listed[0].state.as_str(), listed[0].sequence, listed[0].measurements), ("current", 1, 2));
    assert_eq!(listed[0].key, Some(Key::new(MANIFEST_KEY).public.spki_digest()));

    let other = Guest::launch(&Launch { platform: 2, ..Launch::default() });
    let line = why_not(&kbs, &kbs.connect(other).await.unwrap()).await;
    assert!(has_reason(&line, &guest.measurement.to_string()), "{line}");
    let mut changed = spec(&[PATH]);
    changed.process.argv = vec!["/bin/sh".into()];
    let other = Guest::launch(&Launch { spec: changed, ..Launch::default() });
    why_not(&kbs, &kbs.connect(other).await.unwrap()).await;
    kbs.admin().await.add_tenant("other").await.unwrap();
    assert!(kbs.admin().await.list_manifests("other").await.unwrap().rows.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_counts_only_under_a_key_the_tenant_lists_now() {
    let (kbs, guest, client) = ready().await;
    let good = contents(1, guest.measurement, guest.document.digest());
    let error = add(&kbs, sign(good.clone(), MANIFEST_KEY + 1)).await.unwrap_err();
    assert!(error.contains("none of the manifest keys listed (1)"), "{error}");
    let mut forged = sign(good.clone(), MANIFEST_KEY);
    let at = forged.windows(9).position(|window| window == b"signature").unwrap();
    let at = at + forged[at..].windows(14).position(|window| window == b"\"signature\": \"").unwrap_or(0) + 20;
    forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
    assert!(add(&kbs, forged).await.is_err());
    assert!(add(&kbs, b"{}".to_vec()).await.unwrap_err().contains("envelope"));

    assert_eq!(add(&kbs, sign(good, MANIFEST_KEY)).await, Ok(true));
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    let key = Key::new(MANIFEST_KEY).public.spki_digest();
    assert!(kbs.admin().await.remove_manifest_key(TENANT, &key).await.unwrap());
    let line = why_not(&kbs, &client).await;
    assert!(has_reason(&line, "none of the manifest keys listed (0)"), "{line}");
    assert_eq!(kbs.admin().await.list_manifests(TENANT).await.unwrap().rows[0].state, "not-authentic");
    list_key(&kbs, MANIFEST_KEY).await;
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expiry_is_asked_at_each_release() {
    let (kbs, guest, client) = ready().await;
    let good = contents(1, guest.measurement, guest.document.digest());
    let over = Contents { created: UnixTime(now() - 20), expires: UnixTime(now() - 10), ..good.clone() };
    assert!(add(&kbs, sign(over, MANIFEST_KEY)).await.unwrap_err().contains("expired"));
    assert_eq!(add(&kbs, sign(good, MANIFEST_KEY)).await, Ok(true));
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    kbs.skew.store(601, Ordering::Relaxed);
    let line = why_not(&kbs, &client).await;
    assert!(has_reason(&line, "expired"), "{line}");
    assert_eq!(kbs.admin().await.list_manifests(TENANT).await.unwrap().rows[0].state, "expired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_sequence_is_refused_and_a_newer_one_takes_its_place() {
    let (kbs, guest, client) = ready().await;
    let admits = |sequence| contents(sequence, guest.measurement, guest.document.digest());
    let admits_another = |sequence| contents(sequence, Measurement::new([9; 48]), guest.document.digest());
    assert_eq!(add(&kbs, sign(admits(5), MANIFEST_KEY)).await, Ok(true));
    let error = add(&kbs, sign(admits(4), MANIFEST_KEY)).await.unwrap_err();
    assert!(error.contains("is at sequence 5, found sequence 4"), "{error}");
    let error = add(&kbs, sign(admits_another(5), MANIFEST_KEY)).await.unwrap_err();
    assert!(error.contains("says something else"), "{error}");
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    assert_eq!(add(&kbs, sign(admits_another(6), MANIFEST_KEY)).await, Ok(true));
    let line = why_not(&kbs, &client).await;
    assert!(has_reason(&line, "measurement-and-workload"), "{line}");
    // Another name has numbers of its own.
    assert_eq!(add(&kbs, sign(Contents { name: "web2".into(), ..admits(1) }, MANIFEST_KEY)).await, Ok(true));
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_outlives_adding_the_same_or_an_older_manifest_again() {
    let (kbs, guest, client) = ready().await;
    let admits = |sequence| contents(sequence, guest.measurement, guest.document.digest());
    assert_eq!(add(&kbs, sign(admits(5), MANIFEST_KEY)).await, Ok(true));
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    assert_eq!(kbs.admin().await.revoke_manifest(TENANT, "none").await.unwrap(), None);
    assert_eq!(kbs.admin().await.revoke_manifest(TENANT, "web").await.unwrap().map(|it| it.through), Some(5));
    let line = why_not(&kbs, &client).await;
    assert!(has_reason(&line, "manifest web sequence 5: revoked"), "{line}");
    for sequence in [4, 5] {
        let error = add(&kbs, sign(admits(sequence), MANIFEST_KEY)).await.unwrap_err();
        assert!(error.contains("revoked up to sequence 5"), "{error}");
    }
    why_not(&kbs, &client).await;
    assert_eq!(add(&kbs, sign(admits(6), MANIFEST_KEY)).await, Ok(true));
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    let listed = kbs.admin().await.list_manifests(TENANT).await.unwrap().rows;
    assert_eq!((listed[0].sequence, listed[0].revoked_through, listed[0].state.as_str()), (6, 5, "current"));
    assert!(add(&kbs, sign(admits(5), MANIFEST_KEY)).await.unwrap_err().contains("revoked up to sequence 5"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_or_revoked_release_stays_out_whatever_number_a_witness_gives_it() {
    let (kbs, guest, client) = ready().await;
    let admits = |sequence| contents(sequence, guest.measurement, guest.document.digest());
    let witnessed = |of: u64, sequence| Contents { release: Some(of), ..admits(sequence) };
    let older = |of: u64, sequence| Contents {
        release: Some(of),
        ..contents(sequence, Measurement::new([9; 48]), guest.document.digest())
    };
    assert_eq!(add(&kbs, sign(witnessed(5, 8), MANIFEST_KEY)).await, Ok(true));
    let error = add(&kbs, sign(older(4, 9), MANIFEST_KEY)).await.unwrap_err();
    assert!(error.contains("dates release 4 anew, and release 5 is there"), "{error}");
    assert_eq!(add(&kbs, sign(witnessed(5, 9), MANIFEST_KEY)).await, Ok(true), "the same, dated anew");
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    // What is revoked does not come back with the next tick of a timer; what its author made since does.
    assert_eq!(kbs.admin().await.revoke_manifest(TENANT, "web").await.unwrap().map(|it| it.through), Some(9));
    let error = add(&kbs, sign(witnessed(5, 10), MANIFEST_KEY)).await.unwrap_err();
    assert!(error.contains("dates release 5 anew, which is revoked"), "{error}");
    why_not(&kbs, &client).await;
    assert_eq!(add(&kbs, sign(witnessed(6, 10), MANIFEST_KEY)).await, Ok(true));
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    assert!(add(&kbs, sign(older(5, 11), MANIFEST_KEY)).await.unwrap_err().contains("dates release 5 anew"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_says_what_is_still_admitted_and_by_what() {
    let (kbs, guest, client) = ready().await;
    let admits = |name: &str| {
        let contents = contents(1, guest.measurement, guest.document.digest());
        sign(Contents { name: name.into(), ..contents }, MANIFEST_KEY)
    };
    // A manifest has two, of which the tenant's references have one.
    let still = |by: &[Option<&str>]| -> Vec<StillAdmitted> {
        let count = |name: Option<&str>| if name.is_some() { 2 } else { 1 };
        by.iter().map(|name| StillAdmitted { manifest: name.map(Into::into), measurements: count(*name) }).collect()
    };
    for name in ["first", "second"] {
        assert_eq!(add(&kbs, admits(name)).await, Ok(true));
    }
    let pair = Reference {
        tenant: TENANT.into(),
        measurement: guest.measurement,
        workload: guest.document.digest(),
        name: String::new(),
        expires: Expiry::Never,
    };
    kbs.admin().await.add_reference(&pair).await.unwrap();
    // Of another workload's manifest nothing counts, and of a revoked one neither.
    let other = contents(1, guest.measurement, WorkloadDigest::new([7; 32]));
    assert_eq!(add(&kbs, sign(Contents { name: "other".into(), ..other }, MANIFEST_KEY)).await, Ok(true));
    for (name, by) in [("first", &[Some("second"), None][..]), ("second", &[None])] {
        let revoked = kbs.admin().await.revoke_manifest(TENANT, name).await.unwrap().unwrap();
        assert_eq!((revoked.measurements, revoked.still_admitted), (Some(2), still(by)), "{name}");
        assert!(revoked.signers.is_empty());
        assert_eq!(ask(&client, PATH).await.unwrap(), VALUE, "as it says");
    }
    // Where its key is not listed nobody knows what it had: all of its workload is said, and authors in any case.
    kbs.admin().await.add_signer(&signer(rule())).await.unwrap();
    let of_other = Reference { workload: WorkloadDigest::new([7; 32]), ..pair };
    kbs.admin().await.add_reference(&of_other).await.unwrap();
    let key = Key::new(MANIFEST_KEY).public.spki_digest();
    assert!(kbs.admin().await.remove_manifest_key(TENANT, &key).await.unwrap());
    let revoked = kbs.admin().await.revoke_manifest(TENANT, "other").await.unwrap().unwrap();
    assert_eq!((revoked.measurements, revoked.still_admitted), (None, still(&[None])));
    assert_eq!(revoked.signers, [signer(rule()).name]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_rows_admit_nothing_and_are_named() {
    for (kind, removed) in [
        (Kind::Manifest, false),
        (Kind::Manifest, true),
        (Kind::ManifestKey, false),
        (Kind::ManifestKey, true),
        (Kind::Signer, false),
        (Kind::Signer, true),
    ] {
        let (kbs, guest, _) = ready().await;
        let admits = |sequence| contents(sequence, guest.measurement, guest.document.digest());
        add(&kbs, sign(admits(5), MANIFEST_KEY)).await.unwrap();
        kbs.admin().await.revoke_manifest(TENANT, "web").await.unwrap();
        add(&kbs, sign(Contents { name: "web2".into(), ..admits(1) }, MANIFEST_KEY)).await.unwrap();
        kbs.admin().await.add_signer(&signer(rule())).await.unwrap();
        let client = kbs.connect(guest.clone()).await.unwrap();
        assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
        kbs.tamper(kind, |rows| if removed { rows.clear() } else { edit_all(rows) }).await;
        // A damaged author's rule stops whom it would have admitted. This guest is a manifest's.
        if kind == Kind::Signer {
            assert_eq!(ask(&client, PATH).await.unwrap(), VALUE, "{removed}");
            let launch = Launch { platform: 3, ..signed(Author::default()) };
            let author = kbs.connect(Guest::launch(&launch)).await.unwrap();
            let line = why_not(&kbs, &author).await;
            assert!(has_reason(&line, "changed behind the server's back"), "{kind:?} {removed}: {line}");
            continue;
        }
        let line = match ask(&client, PATH).await {
            Err(ClientError::Refused { id, .. }) => kbs.line_of(&id),
            other => panic!("{kind:?} {removed}: {:?}", other.map(|_| "released")),
        };
        assert!(has_reason(&line, "changed behind the server's back"), "{kind:?} {removed}: {line}");
    }
}

/// Rows of others that are near this guest only to explain a refusal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_row_stops_nobody_whom_another_row_admits() {
    let kbs = Kbs::start().await;
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let other = SignerRule { author_key: KeyDigest::new([9; 48]), ..rule() };
    kbs.admin().await.add_signer(&signer(other)).await.unwrap();
    kbs.admit(Measurement::new([9; 48]), guest.document.digest()).await;
    let client = kbs.connect(guest.clone()).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    kbs.tamper(Kind::Signer, edit_all).await;
    kbs.tamper(Kind::Reference, |rows| {
        let mut others = rows.iter_mut().filter(|(key, _)| key.windows(48).any(|part| part == [9; 48]));
        let (_, foreign) = others.next().expect("the other row");
        foreign.body[5] ^= 1;
    })
    .await;
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
}

fn rule() -> SignerRule {
    let id = Author::default();
    SignerRule {
        author_key: Key::new(id.key).author_digest(),
        family_id: FamilyId::new(id.family_id),
        image_id: ImageId::new(id.image_id),
        minimum_guest_svn: id.guest_svn,
    }
}

fn signer(rule: SignerRule) -> Signer {
    Signer { tenant: TENANT.into(), name: "releases".into(), rule, expires: Expiry::Never }
}

fn signed(id: Author) -> Launch {
    Launch { id: Some(id), ..Launch::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_author_admits_what_it_signed_and_upgrades_of_it() {
    let kbs = Kbs::start().await;
    kbs.put(PATH, true).await;
    assert!(kbs.admin().await.add_signer(&signer(rule())).await.unwrap());
    for launch in [
        signed(Author::default()),
        Launch { platform: 2, ..signed(Author { guest_svn: 6, ..Author::default() }) },
        Launch { platform: 3, ..signed(Author { guest_svn: 9, ..Author::default() }) },
    ] {
        let client = kbs.connect(Guest::launch(&launch)).await.unwrap();
        assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    }
    for (id, why) in [
        (Author { guest_svn: 4, ..Author::default() }, "svn 4"),
        (Author { family_id: [9; 16], ..Author::default() }, "family 0909"),
        (Author { image_id: [9; 16], ..Author::default() }, "image 0909"),
        (Author { key: 0x22, ..Author::default() }, "is not listed for tenant acme"),
        (Author { key_enabled: false, ..Author::default() }, "measurement-and-workload"),
    ] {
        let client = kbs.connect(Guest::launch(&signed(id))).await.unwrap();
        let line = why_not(&kbs, &client).await;
        assert!(has_reason(&line, why), "{why}: {line}");
    }
    // Another author's rule under the same names admits nobody here, and is not said to.
    let foreign = Signer {
        name: "foreign".into(),
        ..signer(SignerRule { author_key: Key::new(0x22).author_digest(), ..rule() })
    };
    assert!(kbs.admin().await.add_signer(&foreign).await.unwrap());
    let client = kbs.connect(Guest::launch(&signed(Author::default()))).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    let here = kbs.admin().await.list_guests(Some(TENANT)).await.unwrap();
    assert!(!here.is_empty() && here.iter().all(|one| one.admitted_by == ["signer releases"]), "{here:?}");
    drop(client);
    // No ID block at all.
    why_not(&kbs, &kbs.connect(Guest::usual()).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raised_removed_or_expired_signer_counts_at_the_next_release() {
    let kbs = Kbs::start().await;
    kbs.put(PATH, true).await;
    let admin = kbs.admin().await;
    admin.add_signer(&signer(rule())).await.unwrap();
    let client = kbs.connect(Guest::launch(&signed(Author::default()))).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    assert!(!admin.add_signer(&signer(SignerRule { minimum_guest_svn: 6, ..rule() })).await.unwrap());
    let line = why_not(&kbs, &client).await;
    assert!(has_reason(&line, "svn 6 or higher"), "{line}");
    let until = Signer { expires: Expiry::At(UnixTime(now() + 600)), ..signer(rule()) };
    admin.add_signer(&until).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    kbs.skew.store(601, Ordering::Relaxed);
    let line = why_not(&kbs, &client).await;
    assert!(has_reason(&line, "signer: releases expired"), "{line}");
    kbs.skew.store(0, Ordering::Relaxed);
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    assert!(admin.remove_signer(TENANT, "releases").await.unwrap());
    assert!(!admin.remove_signer(TENANT, "releases").await.unwrap());
    why_not(&kbs, &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_tenants_author_admits_nobody_here() {
    let kbs = Kbs::start().await;
    kbs.put(PATH, true).await;
    kbs.admin().await.add_tenant("other").await.unwrap();
    kbs.admin().await.add_signer(&Signer { tenant: "other".into(), ..signer(rule()) }).await.unwrap();
    why_not(&kbs, &kbs.connect(Guest::launch(&signed(Author::default()))).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_never_be_meant_is_not_taken() {
    let kbs = Kbs::start().await;
    let admin = kbs.admin().await;
    let refusal = |result: Result<bool, ClientError>| match result {
        Err(ClientError::Rejected { message, .. }) => message,
        other => panic!("{other:?}"),
    };
    let zero = signer(SignerRule { author_key: KeyDigest::new([0; 48]), ..rule() });
    assert!(refusal(admin.add_signer(&zero).await).contains("zero digest"));
    let nameless = Signer { name: String::new(), ..signer(rule()) };
    assert!(refusal(admin.add_signer(&nameless).await).contains("name"));
    let past = Signer { expires: Expiry::At(UnixTime(5)), ..signer(rule()) };
    assert!(refusal(admin.add_signer(&past).await).contains("past"));

    // One key has one job, whichever came first.
    let author = Key::new(Author::default().key);
    let key = ManifestKey { tenant: TENANT.into(), name: "ci".into(), key: author.public };
    admin.add_signer(&signer(rule())).await.unwrap();
    assert!(refusal(admin.add_manifest_key(&key).await).contains("one key has one job"));
    admin.remove_signer(TENANT, "releases").await.unwrap();
    assert!(admin.add_manifest_key(&key).await.unwrap());
    assert!(refusal(admin.add_signer(&signer(rule())).await).contains("one key has one job"));

    let lines = admin.audit(0, 0).await.unwrap().concat();
    for event in ["signer.add", "signer.remove", "manifest-key.add"] {
        assert!(lines.contains(event), "{event}");
    }
}
