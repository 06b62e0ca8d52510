//! What a new version keeps, and how single versions come and go; the keys of a tenant.

use super::*;
use crate::terms::Rules;

on_every_store!(
    a_new_version_keeps_what_is_not_said_anew,
    versions_are_deleted_brought_back_and_destroyed_one_by_one,
    tenant_keys_are_made_once,
);

async fn a_new_version_keeps_what_is_not_said_anew(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    let (tenant, path) = (tenant(), path_of("a/b/c"));
    let rules = Rules { measurements: vec![Measurement::new([1; 48])], ..Rules::default() };
    let labels = Labels::from([("owner".to_owned(), "ops".to_owned())]);
    let first = NewSecret {
        tenant: &tenant,
        path: &path,
        value: b"one",
        allow_simulated: Some(true),
        policy: Some("strict"),
        rules: Some(rules.clone()),
        labels: Some(labels.clone()),
        expires: Some(Expiry::At(UnixTime(2000))),
        expected_version: None,
    };
    let put = async |new: NewSecret<'_>| {
        let mut ledger = fixture.store.write().await.unwrap();
        let put = ledger.put_secret(new, 1000).await.unwrap();
        ledger.commit().await.unwrap();
        put
    };
    put(first.clone()).await;
    let silent = NewSecret {
        value: b"two",
        allow_simulated: None,
        policy: None,
        rules: None,
        labels: None,
        expires: None,
        ..first.clone()
    };
    let terms = Terms { allow_simulated: true, policy: "strict".into(), rules };
    let kept = put(silent.clone()).await;
    assert_eq!(kept.now.stated, Stated { version: 2, terms, labels: labels.clone() });
    assert!(!kept.widens);
    // Until when, too; and what is over is no answer to the question until when.
    let mut ledger = fixture.store.write().await.unwrap();
    let over = ledger.put_secret(silent.clone(), 2000).await;
    assert!(matches!(over, Err(StoreError::Expired { version: 2, .. })), "{over:?}");
    drop(ledger);
    let changed = put(NewSecret {
        allow_simulated: Some(false),
        rules: Some(Rules::default()),
        expires: Some(Expiry::Never),
        ..silent.clone()
    })
    .await;
    assert!(changed.widens);
    let terms = Terms { policy: "strict".into(), ..Terms::default() };
    assert_eq!((changed.now.stated.terms, changed.now.stated.labels), (terms, labels));
    assert!(changed.before.unwrap().stated.terms.allow_simulated);
    let list = fixture.store.read().await.unwrap().secret_versions(&tenant, &path).await.unwrap();
    let expiries: Vec<_> = list.into_iter().map(|one| one.unwrap().expires).collect();
    let until = Expiry::At(UnixTime(2000));
    assert_eq!(expiries, [until, until, Expiry::Never]);
    // A secret that was deleted begins anew.
    let mut ledger = fixture.store.write().await.unwrap();
    assert!(ledger.delete_secret(&tenant, &path, None, 5).await.unwrap());
    ledger.commit().await.unwrap();
    let anew = put(silent).await;
    assert_eq!(anew.now.stated, Stated { version: 4, terms: Terms::default(), labels: Labels::new() });
    assert!(anew.before.is_none() && anew.widens, "other terms than those that were deleted");
    let mut ledger = fixture.store.read().await.unwrap();
    for old in 1..4 {
        let found = ledger.find_secret(&tenant, &path, Some(old)).await.unwrap();
        assert!(matches!(found, Err(Absent::BelowMinimum { least: 4, .. })), "version {old} came back");
    }
    assert!(ledger.find_secret(&tenant, &path, None).await.unwrap().is_ok());
}

async fn versions_are_deleted_brought_back_and_destroyed_one_by_one(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    let (tenant, path) = (tenant(), path_of("a/b/c"));
    for value in [b"one", b"two", b"six"] {
        fixture.put("a/b/c", value, None).await.unwrap();
    }
    let mut ledger = fixture.store.write().await.unwrap();
    let found = async |ledger: &mut Ledger, version| match ledger.find_secret(&tenant, &path, version).await.unwrap() {
        Ok(secret) => Ok(ledger.open_secret(&tenant, &path, &secret).unwrap().to_vec()),
        Err(absent) => Err(absent),
    };
    assert_eq!(found(&mut ledger, Some(2)).await, Ok(b"two".to_vec()));
    assert_eq!(found(&mut ledger, Some(4)).await, Err(Absent::NoVersion(4)));
    assert!(ledger.delete_secret(&tenant, &path, Some(3), 5).await.unwrap());
    assert!(!ledger.delete_secret(&tenant, &path, Some(3), 5).await.unwrap());
    // An older one does not step in its place.
    assert_eq!(found(&mut ledger, None).await, Err(Absent::VersionDeleted(3)));
    assert!(ledger.undelete_secret(&tenant, &path, Some(3)).await.unwrap());
    assert!(!ledger.undelete_secret(&tenant, &path, Some(3)).await.unwrap());
    assert_eq!(found(&mut ledger, None).await, Ok(b"six".to_vec()));
    assert!(ledger.destroy_secret(&tenant, &path, 1).await.unwrap());
    assert!(!ledger.destroy_secret(&tenant, &path, 1).await.unwrap());
    assert!(!ledger.undelete_secret(&tenant, &path, Some(1)).await.unwrap());
    assert_eq!(found(&mut ledger, Some(1)).await, Err(Absent::Destroyed(1)));
    let least = |version| SecretUpdate { minimum_version: Some(version), ..SecretUpdate::default() };
    assert!(ledger.update_secret(&tenant, &path, least(3)).await.unwrap().is_some());
    assert_eq!(found(&mut ledger, Some(2)).await, Err(Absent::BelowMinimum { found: 2, least: 3 }));
    let above = ledger.update_secret(&tenant, &path, least(4)).await;
    assert!(matches!(above, Err(StoreError::Minimum { least: 4, current: 3 })));
    assert!(ledger.delete_secret(&tenant, &path, None, 5).await.unwrap());
    assert_eq!(found(&mut ledger, None).await, Err(Absent::Deleted));
    assert!(ledger.undelete_secret(&tenant, &path, None).await.unwrap());
    assert_eq!(found(&mut ledger, None).await, Ok(b"six".to_vec()));
    ledger.commit().await.unwrap();
    // What was destroyed is nowhere any more.
    let rows = fixture.dump().await;
    let versions: Vec<_> = rows.iter().filter(|(kind, ..)| *kind == Kind::SecretVersion).collect();
    assert_eq!(versions.len(), 3);
    assert!(versions[0].2.body.len() < versions[1].2.body.len());
}

async fn tenant_keys_are_made_once(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    let open = |byte: u8| OpenKey { public: vec![byte], key: Zeroizing::new(vec![byte; 32]) };
    for (used, byte) in [(KeyUse::Sealing, 1), (KeyUse::Certificates, 2)] {
        let mut ledger = fixture.store.write().await.unwrap();
        assert!(!ledger.has_tenant_key(&tenant(), used));
        ledger.keep_tenant_key(&tenant(), used, &open(byte)).await.unwrap();
        ledger.keep_tenant_key(&tenant(), used, &open(9)).await.unwrap();
        ledger.commit().await.unwrap();
        let mut ledger = fixture.store.read().await.unwrap();
        let found = ledger.tenant_key(&tenant(), used).await.unwrap().unwrap();
        assert_eq!((found.public, found.key.to_vec()), (vec![byte], vec![byte; 32]));
        assert!(ledger.tenant_key(&Tenant::parse("other").unwrap(), used).await.unwrap().is_none());
    }
}
