//! Revocation lists that operators bring: a believed root's, fresh, and never older than one that was seen.

use std::collections::BTreeMap;

use coffer_kbs_client::kbs::admin::v1 as wire;
use coffer_verifier::{abi::SpkiDigest, chain::Crl};
use tonic::{Response, Status};

use super::{AdminService, sorted, store_status};
use crate::{
    operators::Caller,
    store::{AuditEntry, StoreError, StoredCrl},
};

impl AdminService {
    pub(super) async fn crl_put(
        &self,
        caller: Caller,
        message: wire::PutCrlRequest,
    ) -> Result<Response<wire::PutCrlResponse>, Status> {
        let (list, root) = self.verifier.issuer_of(&message.crl, message.root.as_deref()).map_err(|error| {
            tracing::info!(%error, "a revocation list was not taken");
            let root = if error.contains("not at hand") { ": bring it too, with --root FILE" } else { "" };
            Status::invalid_argument(format!("{error}{root}"))
        })?;
        let number = list.number();
        let entry = AuditEntry {
            event: "crl.put",
            name: Some(format!("list {number}")),
            key: Some(root.to_string()),
            ..AuditEntry::default()
        };
        let by = caller.name.clone();
        let mut change = self.change(caller, entry).await?;
        let seen = change.ledger.crl_number(&root).await.map_err(store_status)?.unwrap_or(0);
        if number < seen {
            let message = format!("crl: it is list {number}, and list {seen} of this root was seen before");
            return Err(Status::failed_precondition(message));
        }
        let stored = StoredCrl { root, der: list.der().to_vec(), by, put_unix: change.now };
        let there = match change.ledger.crl(&root).await {
            // Bringing it anew is how a damaged row is mended.
            Err(StoreError::Tampered { .. }) => None,
            other => other.map_err(store_status)?,
        };
        let added = there.is_none_or(|there| there.der != stored.der);
        change.ledger.raise_crl_number(&root, number).await.map_err(store_status)?;
        change.ledger.put_crl(&stored).await.map_err(store_status)?;
        let answer = wire::PutCrlResponse { added, list: Some(info(&stored, &list, number)) };
        let then = self.bring_stored();
        change.done_and(added, "there-already", answer, then).await
    }

    pub(super) async fn crl_removed(
        &self,
        caller: Caller,
        message: wire::RemoveCrlRequest,
    ) -> Result<Response<wire::RemoveCrlResponse>, Status> {
        let root = SpkiDigest::try_from(message.root.as_slice());
        let root = root.map_err(|error| Status::invalid_argument(format!("root: {error}")))?;
        if root.is_zero() {
            return Err(Status::invalid_argument("root: a zero digest is nobody's"));
        }
        let entry = AuditEntry { event: "crl.remove", key: Some(root.to_string()), ..AuditEntry::default() };
        let mut change = self.change(caller, entry).await?;
        // Taken away, it still says which lists are too old.
        let seen = change.ledger.crl_number(&root).await.map_err(store_status)?.unwrap_or(0);
        let existed = change.ledger.remove_crl(&root).await.map_err(store_status)?;
        let then = self.bring_stored();
        change.done_and(existed, "nothing-there", wire::RemoveCrlResponse { existed, seen }, then).await
    }

    /// Has what is stored at hand, once a change of it is committed.
    fn bring_stored(&self) -> impl Future<Output = ()> + Send + 'static {
        let (store, verifier) = (self.store.clone(), self.verifier.clone());
        async move {
            if let Err(error) = verifier.bring_what_is_stored(&store).await {
                let (error, hint) = (coffer_rim::chain(&error), error.hint());
                tracing::error!(error = %error, hint, "a change of the revocation lists counts only after SIGHUP or a start");
            }
        }
    }

    pub(super) async fn crls_listed(&self) -> Result<Response<wire::ListCrlsResponse>, Status> {
        let mut view = self.view().await?;
        let (stored, mut damaged) = sorted(view.crls().await.map_err(store_status)?);
        let (mut lists, mut numbers) = (Vec::new(), BTreeMap::new());
        for root in view.crl_roots() {
            match view.crl_number(&root).await {
                Err(error @ StoreError::Tampered { .. }) => damaged.extend(sorted::<()>(vec![Err(error)]).1),
                seen => numbers.extend(seen.map_err(store_status)?.map(|seen| (*root.as_bytes(), seen))),
            }
        }
        for one in stored {
            let seen = numbers.remove(one.root.as_bytes());
            match Crl::parse(&one.der) {
                Ok(list) => lists.push(info(&one, &list, seen.unwrap_or(0))),
                Err(error) => damaged.push(format!("revocation list of root {}: {error}", one.root)),
            }
        }
        // Seen in evidence or in the configuration, or taken away since.
        let seen_alone =
            numbers.into_iter().map(|(root, seen)| wire::SeenCrl { root: root.to_vec(), number: seen }).collect();
        Ok(Response::new(wire::ListCrlsResponse { lists, damaged, seen_alone }))
    }
}

fn info(stored: &StoredCrl, list: &Crl, seen: u64) -> wire::CrlInfo {
    let (from, to) = list.validity();
    wire::CrlInfo {
        root: stored.root.as_bytes().to_vec(),
        number: list.number(),
        this_update_unix: from.0,
        next_update_unix: to.0,
        seen,
        by: stored.by.clone(),
        put_unix: stored.put_unix,
    }
}
