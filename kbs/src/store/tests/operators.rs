//! Operators and tenants for the stories of damage.

use super::*;
use crate::{
    roles::{Grant, Role},
    store::Admin,
};

/// Two operators, one of them anew with each number, and two tenants.
pub(super) async fn furnish(store: &Store, number: i64) {
    let mut ledger = store.write().await.unwrap();
    for (key, added_unix) in [(3, number), (4, 4)] {
        let grants = vec![Grant { role: Role::Operator, tenant: Some(tenant()) }];
        let admin = Admin { key: SpkiDigest::new([key; 32]), name: format!("ops-{key}"), grants, added_unix };
        if ledger.admin(&admin.key).await.unwrap().as_ref() != Some(&admin) {
            ledger.put_admin(&admin).await.unwrap();
        }
    }
    ledger.add_tenant(&tenant(), 4).await.unwrap();
    ledger.add_tenant(&Tenant::parse("globex").unwrap(), 4).await.unwrap();
    ledger.commit().await.unwrap();
}

/// What each of their rows says when it is asked for.
pub(super) async fn rows(ledger: &mut Ledger) -> Vec<Result<(), StoreError>> {
    let mut found: Vec<_> = ledger.admins().await.unwrap().into_iter().map(|row| row.map(|_| ())).collect();
    for tenant in ledger.tenants() {
        found.push(ledger.has_tenant(&tenant).await.map(|_| ()));
    }
    found
}
