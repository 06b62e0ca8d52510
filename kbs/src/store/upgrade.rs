//! Brings the tables of formats 1 and 2 into the ledger, and gives format 3 its epoch and checkpoint: once, under their own root
//! key, and on somebody's word. No format before this one had a checkpoint, so that none of them shows by itself that it is the newest.
//!
//! Trusts: the root key. Believes an old row if its old MAC holds; one that is not believed is listed as such, so that it is
//! named whenever it is asked for, and nobody finds it forgotten.
//! Never: changes a file that is not this key's; or any file, without being told to by name.

use std::{path::Path, sync::Arc};

use coffer_kbs_client::ResourcePath;
use coffer_verifier::{
    Expiry, P384PublicKey, SignerRule,
    abi::{FamilyId, ImageId, KeyDigest, Measurement, SpkiDigest, WorkloadDigest},
};

use super::{
    AuditEntry, AuditFault, BROKER, ManifestKey, Reference, Signer, StoreError, StoredManifest, Witness,
    checkpoint::Checkpoint,
    head::{Head, Live},
    ledger::{Ledger, Store, opened},
    manifests,
    record::RowKey,
    references,
    rows::{Kind, Row},
    secrets::{self, Secret},
    signers,
    sqlite::{OldManifest, OldSigner, OldTables, OldVersion, Opened, SqliteRows, Upgrade},
};
use crate::{
    keys::{RootKey, RowKind, SecretContext, StoredCiphertext},
    tenant::Tenant,
    terms::{Rules, Terms},
};

impl Store {
    /// Makes a new database file; fails if it is there.
    ///
    /// # Errors
    /// [`StoreError::Rows`] or [`StoreError::Checkpoint`].
    pub async fn create_file(path: &Path, root: RootKey, witness: Witness) -> Result<Self, StoreError> {
        Self::create(Arc::new(SqliteRows::create(path)?), root, witness).await
    }

    /// Opens a database file, and brings one of an earlier format up to date where `upgrade` names it. Formats before this one had
    /// no checkpoint: it is begun, unless there is one, which then must fit.
    ///
    /// # Errors
    /// As [`Store::open`]; an older file is then as it was.
    pub async fn open_file(path: &Path, root: RootKey, upgrade: Upgrade, witness: Witness) -> Result<Self, StoreError> {
        let (store, mut ledger, unbelieved) = match SqliteRows::open(path, upgrade).await? {
            Opened::Current(rows) => return Self::open(Arc::new(rows), root, witness).await,
            Opened::Old { rows, tables, transaction } => {
                let (lines, line_hash) = checked_head(&root, &tables)?;
                let store = Self::unread(Arc::new(rows), root, witness);
                let mut ledger = store.over(transaction, Head::first()).await;
                (ledger.head.lines, ledger.head.line_hash) = (lines, line_hash);
                store.begin_checkpoint(&ledger.root, &ledger.head).await?;
                let unbelieved = taken(&mut ledger, *tables).await?;
                (store, ledger, unbelieved)
            }
            Opened::Format3 { rows, mut transaction } => {
                let row = transaction.get(Kind::Head, &[]).await?;
                let head = row.and_then(|row| Head::from_old_row(&root, &row));
                let head = head.ok_or(StoreError::Audit(AuditFault::Head))?;
                let store = Self::unread(Arc::new(rows), root, witness);
                let known = store.shared.known();
                store.begin_checkpoint(&known.root, &head).await?;
                let checkpoint = store.checkpoint(&known.root).await?;
                let known = opened(&known, &mut *transaction, head, checkpoint.as_ref()).await?;
                let live = Live::of(&known.root, known.rows.iter());
                store.shared.publish(known);
                let ledger = store.over(transaction, Head { live, ..head }).await;
                (store, ledger, Vec::new())
            }
        };
        tracing::warn!(unbelieved = unbelieved.len(), "database brought to this version's format");
        let entry = AuditEntry {
            event: "store.upgrade",
            outcome: "done",
            peer: BROKER.into(),
            reasons: unbelieved.into_iter().map(|what| format!("store: {what} was not believed")).collect(),
            ..AuditEntry::default()
        };
        ledger.append_audit(&entry, now()).await?;
        ledger.commit().await?;
        Ok(store)
    }

    /// Begins the checkpoint where there is none; else the head must have reached it.
    async fn begin_checkpoint(&self, root: &RootKey, head: &Head) -> Result<(), StoreError> {
        let Witness::Kept(keeper) = self.shared.follower.witness() else { return Ok(()) };
        match Checkpoint::newest(&**keeper, root).await? {
            Some(checkpoint) => Ok(checkpoint.is_reached_by(head)?),
            None => Ok(self.shared.follower.begin(root, head, false).await?),
        }
    }
}

/// Lines and hash of the old trail's end.
fn checked_head(root: &RootKey, tables: &OldTables) -> Result<(u64, [u8; 32]), StoreError> {
    let fault = || StoreError::Audit(AuditFault::Head);
    let (sequence, hash, mac) = tables.audit_head.as_ref().ok_or_else(fault)?;
    let sequence = u64::try_from(*sequence).map_err(|_| fault())?;
    let hash: [u8; 32] = hash.as_slice().try_into().map_err(|_| fault())?;
    root.check_mac(RowKind::OldAuditHead, &[&sequence.to_be_bytes(), &hash], mac).map_err(|_| fault())?;
    Ok((sequence, hash))
}

/// Takes every row. Gives the names of those that are not believed.
async fn taken(ledger: &mut Ledger, old: OldTables) -> Result<Vec<String>, StoreError> {
    let mut unbelieved = Vec::new();
    for (sequence, line, mac) in old.audit_lines {
        // A line that is not believed keeps its MAC, and is named by `audit verify` as before.
        ledger.put_line(sequence.unsigned_abs(), Row { body: line.into_bytes(), mac }).await?;
    }
    for version in old.secret_versions {
        let Some((key, secret)) = old_version(&ledger.root, &version) else { continue };
        settle(ledger, key, secret, &mut unbelieved).await?;
    }
    for (tenant, path, version, deleted, mac) in old.secret_heads {
        let (Ok(tenant), Ok(path)) = (Tenant::parse(&tenant), path.parse::<ResourcePath>()) else { continue };
        let fields: [&[u8]; 4] =
            [tenant.as_str().as_bytes(), path.as_str().as_bytes(), &version.to_be_bytes(), &deleted.to_be_bytes()];
        let believed = ledger.root.check_mac(RowKind::OldSecretHead, &fields, &mac).is_ok();
        let head = secrets::Head::new(version.unsigned_abs(), (deleted != 0).then_some(deleted));
        settle(ledger, secrets::head_key(&tenant, &path), believed.then_some(head), &mut unbelieved).await?;
    }
    for (tenant, measurement, workload, name, expires, mac) in old.references {
        let (Ok(tenant), Ok(measurement), Ok(workload)) = (
            Tenant::parse(&tenant),
            Measurement::try_from(measurement.as_slice()),
            WorkloadDigest::try_from(workload.as_slice()),
        ) else {
            unbelieved.push(format!("a reference of tenant {tenant:?}"));
            continue;
        };
        let fields: [&[u8]; 5] = [
            tenant.as_str().as_bytes(),
            measurement.as_bytes(),
            workload.as_bytes(),
            name.as_bytes(),
            &expires.to_be_bytes(),
        ];
        let believed = ledger.root.check_mac(RowKind::OldReference, &fields, &mac).is_ok();
        let expires = Expiry::from_secs(expires).ok().filter(|_| believed);
        let key = references::key(&tenant, &measurement, &workload);
        let record = expires.map(|expires| Reference { measurement, workload, name, expires });
        settle(ledger, key, record, &mut unbelieved).await?;
    }
    for signer in old.signers {
        let Ok(tenant) = Tenant::parse(&signer.tenant) else { continue };
        let key = signers::key(&tenant, &signer.name);
        let signer = old_signer(&ledger.root, &tenant, signer);
        settle(ledger, key, signer, &mut unbelieved).await?;
    }
    for (tenant, digest, name, der, mac) in old.manifest_keys {
        let (Ok(tenant), Ok(digest)) = (Tenant::parse(&tenant), SpkiDigest::try_from(digest.as_slice())) else {
            unbelieved.push(format!("a manifest key of tenant {tenant:?}"));
            continue;
        };
        let fields = [tenant.as_str().as_bytes(), name.as_bytes(), der.as_slice()];
        let believed = ledger.root.check_mac(RowKind::OldManifestKey, &fields, &mac).is_ok();
        let key = P384PublicKey::from_spki_der(&der).ok().filter(|key| believed && key.spki_digest() == digest);
        let record = key.map(|key| ManifestKey { name, key });
        settle(ledger, manifests::key_of_key(&tenant, &digest), record, &mut unbelieved).await?;
    }
    for manifest in old.manifests {
        let Ok(tenant) = Tenant::parse(&manifest.tenant) else { continue };
        let key = manifests::key(&tenant, &manifest.name);
        match old_manifest(&ledger.root, &tenant, manifest) {
            Some(manifest) => ledger.put_manifest(&tenant, &manifest).await?,
            None => settle::<StoredManifest>(ledger, key, None, &mut unbelieved).await?,
        }
    }
    Ok(unbelieved)
}

async fn settle<R: super::record::Record>(
    ledger: &mut Ledger,
    key: RowKey,
    record: Option<R>,
    unbelieved: &mut Vec<String>,
) -> Result<(), StoreError> {
    if let Some(record) = record {
        ledger.put_record(key, &record).await
    } else {
        unbelieved.push(key.what());
        ledger.condemn(key).await
    }
}

/// Old versions carry no MAC: their ciphertext says whether they are ours.
fn old_version(root: &RootKey, old: &OldVersion) -> Option<(RowKey, Option<Secret>)> {
    let (tenant, path) = (Tenant::parse(&old.tenant).ok()?, old.path.parse::<ResourcePath>().ok()?);
    let version = u64::try_from(old.version).ok()?;
    let key = secrets::version_key(&tenant, &path, version);
    let stored = || {
        Some(StoredCiphertext {
            salt: old.salt.as_slice().try_into().ok()?,
            nonce: old.nonce.as_slice().try_into().ok()?,
            ciphertext: old.ciphertext.clone(),
        })
    };
    let context = SecretContext {
        tenant: tenant.as_str(),
        path: path.as_str(),
        version,
        allow_simulated: old.allow_simulated,
        policy: &old.policy,
    };
    let stored = stored().filter(|stored| root.decrypt(context, stored).is_ok());
    let terms = Terms { allow_simulated: old.allow_simulated, policy: old.policy.clone(), rules: Rules::default() };
    let secret = stored.map(|stored| Secret::of(version, terms, old.created_unix, stored));
    Some((key, secret))
}

fn old_signer(root: &RootKey, tenant: &Tenant, old: OldSigner) -> Option<Signer> {
    let minimum_guest_svn = u32::try_from(old.minimum_guest_svn).ok()?;
    let fields: [&[u8]; 7] = [
        tenant.as_str().as_bytes(),
        old.name.as_bytes(),
        &old.author_key,
        &old.family_id,
        &old.image_id,
        &minimum_guest_svn.to_be_bytes(),
        &old.expires_unix.to_be_bytes(),
    ];
    root.check_mac(RowKind::OldSigner, &fields, &old.mac).ok()?;
    let rule = SignerRule {
        author_key: KeyDigest::try_from(old.author_key.as_slice()).ok()?,
        family_id: FamilyId::try_from(old.family_id.as_slice()).ok()?,
        image_id: ImageId::try_from(old.image_id.as_slice()).ok()?,
        minimum_guest_svn,
    };
    Some(Signer { name: old.name, rule, expires: Expiry::from_secs(old.expires_unix).ok()? })
}

fn old_manifest(root: &RootKey, tenant: &Tenant, old: OldManifest) -> Option<StoredManifest> {
    let (sequence, revoked_through) = (u64::try_from(old.sequence).ok()?, u64::try_from(old.revoked_through).ok()?);
    let fields: [&[u8]; 7] = [
        tenant.as_str().as_bytes(),
        old.name.as_bytes(),
        &sequence.to_be_bytes(),
        &revoked_through.to_be_bytes(),
        &old.workload,
        &old.envelope,
        &old.added_unix.to_be_bytes(),
    ];
    root.check_mac(RowKind::OldManifest, &fields, &old.mac).ok()?;
    Some(StoredManifest {
        name: old.name,
        sequence,
        revoked_through,
        workload: WorkloadDigest::try_from(old.workload.as_slice()).ok()?,
        envelope: old.envelope,
        added_unix: old.added_unix,
    })
}

fn now() -> i64 {
    crate::clock::Clock::system().now()
}
