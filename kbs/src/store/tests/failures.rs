//! What keeps the rows fails: at any step, or after the commit.

use coffer_verifier::P384PublicKey;

use super::{faulty::Faulty, *};

on_every_store!(
    a_failure_at_any_step_of_any_act_changes_nothing,
    a_commit_whose_answer_is_lost_is_caught_up_with,
    a_line_that_would_be_too_long_says_less_and_that_it_does
);

async fn a_failure_at_any_step_of_any_act_changes_nothing(keeper: Keeper) {
    let acts = [
        "put",
        "delete",
        "reference",
        "unreference",
        "signer",
        "unsigner",
        "manifest-key",
        "manifest",
        "revocation",
        "crl",
        "line",
    ];
    for act in acts {
        for step in 0.. {
            let (fixture, _) = furnished(keeper).await;
            let before = fixture.dump().await;
            let faulty = Faulty::new(fixture.rows.clone());
            let store =
                Store::open(Arc::new(faulty.clone()), root(), Witness::OlderDatabaseIsNotNoticed).await.unwrap();
            faulty.fail(step);
            let done = act_on(&store, act).await;
            faulty.mend();
            if done.is_ok() {
                assert!(step > 2, "{act} has {step} steps");
                break;
            }
            assert!(fixture.dump().await == before, "{act}, step {step}");
            act_on(&store, act).await.unwrap();
            assert!(fixture.dump().await != before, "{act}");
            assert!(complaints(&store).await.is_empty(), "{act}, step {step}");
            store.verify_audit().await.unwrap();
        }
    }
}

async fn act_on(store: &Store, act: &str) -> Result<(), StoreError> {
    let mut ledger = store.write().await?;
    let pair = reference(1);
    match act {
        "put" => {
            let new = NewSecret {
                tenant: &tenant(),
                path: &path_of("a/b/c"),
                value: b"newer",
                allow_simulated: Some(true),
                policy: Some("other"),
                rules: None,
                labels: None,
                expires: None,
                expected_version: None,
            };
            ledger.put_secret(new, 1000).await.map(|_| ())?;
        }
        // Put again below, so that nothing is missing afterwards.
        "delete" => {
            ledger.delete_secret(&tenant(), &path_of("a/b/c"), None, 1000).await?;
            let new = NewSecret {
                tenant: &tenant(),
                path: &path_of("a/b/c"),
                value: b"newer",
                allow_simulated: Some(true),
                policy: Some("other"),
                rules: None,
                labels: None,
                expires: None,
                expected_version: Some(0),
            };
            ledger.put_secret(new, 1000).await.map(|_| ())?;
        }
        "reference" => ledger.add_reference(&tenant(), &pair).await.map(|_| ())?,
        "unreference" => ledger.remove_reference(&tenant(), &pair.measurement, &pair.workload).await.map(|_| ())?,
        "signer" => ledger.add_signer(&tenant(), &signer("new")).await.map(|_| ())?,
        "unsigner" => ledger.remove_signer(&tenant(), "c").await.map(|_| ())?,
        "manifest-key" => {
            let secret = p384::ecdsa::SigningKey::from_slice(&[7; 48]).unwrap();
            let key = P384PublicKey::from_sec1(secret.verifying_key().to_sec1_point(false).as_bytes()).unwrap();
            ledger.add_manifest_key(&tenant(), &ManifestKey { name: "k".into(), key }).await.map(|_| ())?;
        }
        "manifest" => ledger.put_manifest(&tenant(), &manifest()).await?,
        "revocation" => {
            ledger.put_manifest(&tenant(), &manifest()).await?;
            assert_eq!(ledger.revoke_manifest(&tenant(), "m").await?, Some(3));
        }
        "crl" => ledger.raise_crl_number(&SpkiDigest::new([1; 32]), 9).await.map(|_| ())?,
        _ => {}
    }
    ledger.append_audit(&AuditEntry { event: "test", ..AuditEntry::default() }, 1000).await?;
    ledger.commit().await
}

async fn a_line_that_would_be_too_long_says_less_and_that_it_does(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    let reasons = (0..40_000).map(|at| format!("{at}: {}", "ä".repeat(100))).collect();
    let long = AuditEntry { event: "test", outcome: "refused", id: "ab".into(), reasons, ..AuditEntry::default() };
    let wide = AuditEntry { reasons: vec!["ä".repeat(100_000)], ..long.clone() };
    for (entry, count, last) in [(long, 33, "… and 39968 more reasons"), (wide, 1, "ä…")] {
        let mut ledger = fixture.store.write().await.unwrap();
        let line = ledger.append_audit(&entry, 1000).await.unwrap();
        ledger.commit().await.unwrap();
        assert!(line.len() < 64 * 1024, "{}", line.len());
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let said = line["reasons"].as_array().unwrap();
        assert!(said.len() == count && said[count - 1].as_str().unwrap().ends_with(last), "{said:?}");
        assert_eq!((&line["event"], &line["outcome"], &line["id"]), (&"test".into(), &"refused".into(), &"ab".into()));
    }
    assert_eq!(fixture.store.verify_audit().await.unwrap().lines, 2);
}

async fn a_commit_whose_answer_is_lost_is_caught_up_with(keeper: Keeper) {
    let (fixture, _) = furnished(keeper).await;
    let faulty = Faulty::new(fixture.rows.clone());
    let store = Store::open(Arc::new(faulty.clone()), root(), Witness::OlderDatabaseIsNotNoticed).await.unwrap();
    faulty.lose_the_answer();
    assert!(act_on(&store, "unreference").await.is_err());
    faulty.mend();
    let listed = store.read().await.unwrap().references(&tenant()).await.unwrap();
    assert_eq!(listed.len(), 1, "it happened");
    act_on(&store, "reference").await.unwrap();
    store.verify_audit().await.unwrap();
}

/// What lies in the store is not judged here.
fn manifest() -> StoredManifest {
    StoredManifest {
        name: "m".into(),
        sequence: 3,
        revoked_through: 0,
        workload: WorkloadDigest::new([5; 32]),
        envelope: b"signed".to_vec(),
        added_unix: 1000,
    }
}
