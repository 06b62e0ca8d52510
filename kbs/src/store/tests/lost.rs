//! What an owner gives up by name, because nothing brings it back: lines of the trail, keys of tenants, counters.

use coffer_kbs_client::{
    Scope, SealingName, SealingPolicy,
    trail::{Chain, ChainError},
};

use super::*;

on_every_store!(
    lost_lines_are_accepted_by_name_and_the_trail_goes_on,
    a_checkpoint_that_ends_with_a_lost_line_follows,
    a_line_that_was_lost_is_still_known_by_a_log,
    keys_and_counters_are_given_up_by_name_alone,
);

const ACCEPT: Forget = Forget { crl_numbers: false, audit_lines: true, tenant_keys: false, generations: false };

/// The whole trail as whoever exports it checks it.
async fn exported(store: &Store) -> Result<Vec<(u64, u64)>, ChainError> {
    let lines = store.read().await.unwrap().audit_lines(1, 1000).await.unwrap();
    let mut chain = Chain::whole(None);
    lines.iter().try_for_each(|line| chain.next(line))?;
    let lost = chain.lost().iter().map(|lost| (lost.first, lost.last)).collect();
    chain.finish().map(|()| lost)
}

async fn lost_lines_are_accepted_by_name_and_the_trail_goes_on(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    for id in ["one", "two", "three", "four", "five", "six"] {
        fixture.append(id).await;
    }
    let whole = fixture.dump().await;
    let row = |number: u64| {
        let is_it = |(kind, key, _): &&(Kind, Vec<u8>, Row)| *kind == Kind::AuditLine && *key == number.to_be_bytes();
        whole.iter().find(is_it).unwrap().2.clone()
    };
    let edited = |number: u64| Row { body: vec![b'x'; row(number).body.len()], ..row(number) };
    type Damage<'a> = Vec<(u64, Option<Row>)>;
    let cases: [(Damage<'_>, Vec<(u64, u64)>); 9] = [
        (vec![(1, None)], vec![(1, 1)]),
        (vec![(3, None)], vec![(3, 3)]),
        (vec![(3, Some(edited(3)))], vec![(3, 3)]),
        (vec![(6, None)], vec![(6, 6)]),
        (vec![(5, None), (6, Some(edited(6)))], vec![(5, 6)]),
        (vec![(2, None), (3, None), (5, None)], vec![(2, 3), (5, 5)]),
        (vec![(2, Some(row(4))), (4, Some(row(2)))], vec![(2, 2), (4, 4)]),
        ((1..=6).map(|number| (number, None)).collect(), vec![(1, 6)]),
        // Nothing is lost, and something was added.
        (vec![(9, Some(row(2)))], vec![]),
    ];
    for (damage, lost) in cases {
        for (number, form) in &damage {
            fixture.tamper(Kind::AuditLine, &number.to_be_bytes(), form.clone()).await;
        }
        let store = fixture.reopened().await.unwrap();
        assert_eq!(store.verify_state().await.unwrap().faults.len(), 1, "{lost:?}");
        store.repair(Forget::default(), 5).await.unwrap();
        assert!(!store.verify_state().await.unwrap().faults.is_empty(), "nobody has said so: {lost:?}");
        let repaired = store.repair(ACCEPT, 6).await.unwrap();
        assert_eq!(repaired.faults.len(), 1, "{:?}", repaired.faults);
        for store in [&store, &fixture.reopened().await.unwrap()] {
            assert_eq!(store.verify_state().await.unwrap().faults, [], "{lost:?}");
            store.verify_audit().await.unwrap();
            assert_eq!(exported(store).await.as_ref(), Ok(&lost));
            let search = store.audit_search(&AuditFilter::default(), None, 100, AuditOrder::Newest).await.unwrap();
            assert_eq!(search.lines.len() as u64, store.position().await.unwrap().lines, "{lost:?}");
            let stretch = store.lines_to_archive(TrailStart::default()).await.unwrap();
            assert_eq!(stretch.lines.len() as u64, stretch.end, "{lost:?}");
        }
        assert_eq!(store.repair(ACCEPT, 7).await.unwrap().faults, [], "what is accepted is no fault");
        let mut ledger = store.write().await.unwrap();
        ledger.append_audit(&AuditEntry { event: "test", ..AuditEntry::default() }, 1000).await.unwrap();
        ledger.commit().await.unwrap();
        fixture.reopened().await.unwrap().verify_audit().await.unwrap();
        fixture.replace_all(&whole).await;
    }
    // A marker is believed under this server's MAC alone.
    fixture.tamper(Kind::AuditLine, &3_u64.to_be_bytes(), None).await;
    let store = fixture.reopened().await.unwrap();
    store.repair(ACCEPT, 6).await.unwrap();
    let is_third = |(kind, key, _): &(Kind, Vec<u8>, Row)| *kind == Kind::AuditLine && *key == 3_u64.to_be_bytes();
    let (.., mut marker) = fixture.dump().await.into_iter().find(is_third).unwrap();
    marker.mac[0] ^= 1;
    fixture.tamper(Kind::AuditLine, &3_u64.to_be_bytes(), Some(marker)).await;
    let fault = fixture.reopened().await.unwrap().verify_audit().await;
    assert!(matches!(fault, Err(StoreError::Audit(AuditFault::Line { sequence: 3 }))), "{fault:?}");
}

async fn a_checkpoint_that_ends_with_a_lost_line_follows(keeper: Keeper) {
    let (fixture, checkpoint) = Fixture::watched(keeper).await;
    for id in ["one", "two", "three"] {
        fixture.append(id).await;
    }
    fixture.store.settle().await.unwrap();
    for number in [2_u64, 3] {
        fixture.tamper(Kind::AuditLine, &number.to_be_bytes(), None).await;
    }
    let witness = || Witness::Kept(Arc::new(checkpoint.clone()));
    let open = || Store::open(fixture.rows.clone(), root(), witness());
    let store = open().await.unwrap();
    store.repair(ACCEPT, 6).await.unwrap();
    drop(store);
    let store = open().await.unwrap();
    assert_eq!(store.verify_state().await.unwrap().faults, []);
    assert_eq!(exported(&store).await, Ok(vec![(2, 3)]));
}

async fn a_line_that_was_lost_is_still_known_by_a_log(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    let mut log = String::new();
    for id in ["one", "two", "three", "four"] {
        log.push_str(&(fixture.append(id).await + "\n"));
    }
    for number in [2_u64, 3] {
        fixture.tamper(Kind::AuditLine, &number.to_be_bytes(), None).await;
    }
    let store = fixture.reopened().await.unwrap();
    assert_eq!(store.verify_against(&log).await.unwrap().unwrap_err().sequence, 2);
    store.repair(ACCEPT, 6).await.unwrap();
    let compared = store.verify_against(&log).await.unwrap().unwrap();
    assert_eq!((compared.lines, compared.lost), (2, 2));
    // The last of a gap is known by its hash.
    let other = log.replace("\"three\"", "\"other\"");
    assert_eq!(store.verify_against(&other).await.unwrap().unwrap_err().sequence, 3);
}

async fn keys_and_counters_are_given_up_by_name_alone(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    let name = SealingName {
        policy: SealingPolicy::Workload,
        scope: Scope::Workload,
        context: b"context".to_vec(),
        minimum_svn: None,
    };
    let counter = Counter::new(&tenant(), &SpkiDigest::new([1; 32]), &name, b"subject", &[2; 16]);
    let mut ledger = fixture.store.write().await.unwrap();
    let new = OpenKey { public: b"public".to_vec(), key: Zeroizing::new(vec![5; 32]) };
    ledger.keep_tenant_key(&tenant(), KeyUse::Sealing, &new).await.unwrap();
    ledger.set_generation(&counter, 7).await.unwrap();
    ledger.commit().await.unwrap();
    for (kind, forget) in [
        (Kind::TenantKey, Forget { tenant_keys: true, ..Forget::default() }),
        (Kind::Generation, Forget { generations: true, ..Forget::default() }),
    ] {
        let (_, key, _) = fixture.dump().await.into_iter().find(|(of, ..)| *of == kind).unwrap();
        fixture.tamper(kind, &key, None).await;
        let store = fixture.reopened().await.unwrap();
        let others = Forget { crl_numbers: true, audit_lines: true, tenant_keys: true, generations: true };
        let others = match kind {
            Kind::TenantKey => Forget { tenant_keys: false, ..others },
            _ => Forget { generations: false, ..others },
        };
        for leaves in [Forget::default(), others] {
            let repaired = store.repair(leaves, 5).await.unwrap();
            assert!(repaired.faults[0].repair.contains("or say --"), "{:?}", repaired.faults);
            assert_eq!(store.verify_state().await.unwrap().faults.len(), 1, "{kind:?} goes on refusing");
        }
        assert!(store.repair(forget, 6).await.unwrap().faults[0].loses);
        let store = fixture.reopened().await.unwrap();
        assert_eq!(store.verify_state().await.unwrap().faults, [], "{kind:?}");
    }
    let store = fixture.reopened().await.unwrap();
    let mut ledger = store.read().await.unwrap();
    assert!(ledger.tenant_key(&tenant(), KeyUse::Sealing).await.unwrap().is_none());
    assert_eq!(ledger.generation(&counter).await.unwrap(), None);
}
