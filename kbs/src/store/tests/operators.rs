//! Operators, tenants and revocations for the stories of damage.

use super::*;
use crate::{
    revoked::Revoked,
    roles::{Grant, Role},
    store::{Admin, Revocation},
};

/// Two operators and two revocations, one of them anew with each number, and two tenants.
pub(super) async fn furnish(store: &Store, number: i64) {
    let mut ledger = store.write().await.unwrap();
    for (key, added_unix) in [(3, number), (4, 4)] {
        let grants = vec![Grant { role: Role::Operator, tenant: Some(tenant()) }];
        let admin = Admin { key: SpkiDigest::new([key; 32]), name: format!("ops-{key}"), grants, added_unix };
        if ledger.admin(&admin.key).await.unwrap().as_ref() != Some(&admin) {
            ledger.put_admin(&admin).await.unwrap();
        }
    }
    for (kind, value, since_unix) in [("workload", "03".repeat(32), number), ("tcb", "Milan:snp=3".to_owned(), 4)] {
        let revocation = Revocation {
            revoked: Revoked::parse(kind, &value).unwrap(),
            tenant: None,
            reason: "stolen".into(),
            by: "ops-3".into(),
            since_unix,
        };
        if !ledger.revocations(None).await.unwrap().iter().flatten().any(|one| *one == revocation) {
            ledger.put_revocation(&revocation).await.unwrap();
        }
    }
    ledger.add_tenant(&tenant(), 4).await.unwrap();
    ledger.add_tenant(&Tenant::parse("globex").unwrap(), 4).await.unwrap();
    ledger.commit().await.unwrap();
}

/// What each of their rows says when it is asked for.
pub(super) async fn rows(ledger: &mut Ledger) -> Vec<Result<(), StoreError>> {
    let mut found: Vec<_> = ledger.admins().await.unwrap().into_iter().map(|row| row.map(|_| ())).collect();
    found.extend(ledger.revocations(None).await.unwrap().into_iter().map(|row| row.map(|_| ())));
    for tenant in ledger.tenants() {
        found.push(ledger.has_tenant(&tenant).await.map(|_| ()));
    }
    found
}
