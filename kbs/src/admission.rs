//! What a tenant admits, gathered for one guest: listed pairs, pairs of signed manifests, and authors.
//!
//! A manifest's signature is checked again under the keys listed now, so that taking a key away counts at the next
//! release; so do expiry and revocation. A row this server did not write admits nothing, and says so where nothing else admits:
//! every row here only ever admits, so that a damaged one stops those it would have admitted and nobody else.

use coffer_verifier::{Expiry, MaxAge, P384PublicKey, Pair, SignerRule, UnixTime, VerifiedReport, abi::Measurement};
use serde_json::json;

use crate::{
    guest::Judged,
    revoked::{Chipless, Marks},
    store::{Ledger, Reference, Signer, StoreError, StoredManifest, Touching},
};

/// What a guest is held against beside the typed floor. Who asks says which; nothing is left out by absence.
pub enum Admission {
    /// Nothing: whoever is above the floor may attest. Nothing is released on it.
    FloorOnly,
    /// One of these pairs, or one of these authors. Empty lists admit nobody.
    Listed {
        /// Measurement and workload.
        pairs: Vec<Pair>,
        /// Authors.
        signers: Vec<SignerRule>,
    },
}

/// How old a manifest may be, and when it is asked.
#[derive(Clone, Copy, Debug)]
pub struct ManifestAge {
    /// When.
    pub now: i64,
    /// The floor's word.
    pub most: MaxAge,
}

/// What may admit one guest, and what explains why nothing does.
#[derive(Default)]
pub struct Candidates {
    references: Vec<Reference>,
    signers: Vec<Signer>,
    notes: Vec<String>,
    touching: Touching,
}

impl Candidates {
    /// Reads what is near this guest.
    ///
    /// # Errors
    /// As the store; a row that is not believed is a note, not an error.
    pub async fn gather(ledger: &mut Ledger, judged: &Judged, age: ManifestAge) -> Result<Self, StoreError> {
        let (tenant, workload) = (&judged.tenant, judged.document.digest());
        let report = judged.verified.report();
        let mut believed = Believed { notes: Vec::new() };
        let references = believed.rows(ledger.references_near(tenant, &report.measurement(), &workload).await?);
        // Whoever listed it for another tenant looks for the name of this one.
        let is_the_pair = |one: &Reference| one.measurement == report.measurement() && one.workload == workload;
        if !references.iter().any(is_the_pair) {
            believed.notes.push(format!("reference: no such pair is listed for tenant {tenant}, which the spec names"));
        }
        let touching = ledger.revocations_touching(tenant, &Marks::of(&judged.verified)).await?;
        let mut all = Self { references, touching, ..Self::default() };
        let manifests = believed.rows(ledger.manifests_for(tenant, &workload).await?);
        if !manifests.is_empty() {
            let keys: Vec<_> =
                believed.rows(ledger.manifest_keys(tenant).await?).into_iter().map(|one| one.key).collect();
            for manifest in &manifests {
                all.manifest(manifest, &keys, &report.measurement(), age);
            }
        }
        all.signers = believed.rows(ledger.signers(tenant).await?);
        all.notes.append(&mut believed.notes);
        // Those that admit and those of the same author: the rest would only say that others exist.
        let author = report.author_key_digest();
        all.signers.retain(|one| one.rule.author_key == author);
        if all.signers.is_empty() && report.key_info().author_key_en {
            all.notes.push(format!("signer: author {author} is not listed for tenant {tenant}"));
        }
        Ok(all)
    }

    /// What counts now.
    pub fn admission(&self, now: i64) -> Admission {
        Admission::Listed { pairs: self.pairs(now), signers: self.authors(now) }
    }

    fn pairs(&self, now: i64) -> Vec<Pair> {
        let current = self.references.iter().filter(|one| !one.expires.is_over(UnixTime::from_secs(now)));
        current.map(|one| Pair { measurement: one.measurement, host_data: one.workload.host_data() }).collect()
    }

    /// Authors that admit now.
    pub fn authors(&self, now: i64) -> Vec<SignerRule> {
        self.signers.iter().filter(|one| one.is_current(now)).map(|one| one.rule).collect()
    }

    /// What of it admits a guest that is admitted, by name.
    pub fn admitting(&self, verified: &VerifiedReport, now: i64) -> Vec<String> {
        let report = verified.report();
        let pairs = self.references.iter().filter(|one| {
            one.measurement == report.measurement()
                && one.workload.host_data() == report.host_data()
                && !one.expires.is_over(UnixTime::from_secs(now))
        });
        let signers = self.signers.iter().filter(|one| one.is_current(now) && one.rule.admits(report));
        let named = |what: &str, name: &str| if name.is_empty() { what.to_owned() } else { format!("{what} {name}") };
        let pairs = pairs.map(|one| {
            // Those of a manifest are called after it.
            if one.name.starts_with("manifest ") { one.name.clone() } else { named("reference", &one.name) }
        });
        pairs.chain(signers.map(|one| named("signer", &one.name))).collect()
    }

    /// Why a guest is refused whatever admits it.
    pub fn revocations(&self, chipless: Chipless) -> Vec<String> {
        let mut reasons = self.touching.reasons.clone();
        if self.touching.chips_it_may_hide > 0 && chipless == Chipless::Refused {
            let revoked = self.touching.chips_it_may_hide;
            reasons.push(format!("revoked: the evidence shows no chip, and {revoked} are revoked: it may hide one"));
        }
        reasons
    }

    /// Why references, manifests and authors that are there admit nothing now.
    pub fn notes(&self, now: i64) -> Vec<String> {
        let over = self.references.iter().filter(|one| one.expires.is_over(UnixTime::from_secs(now)));
        let over = over.map(|one| {
            let Reference { name, expires, .. } = one;
            if name.starts_with("manifest ") {
                format!("{name}: expired at {expires}")
            } else {
                format!("reference: {name} expired at {expires}")
            }
        });
        let expired = self.signers.iter().filter(|one| !one.is_current(now));
        let expired = expired.map(|one| format!("signer: {} expired at {}", one.name, one.expires));
        self.notes.iter().cloned().chain(over).chain(expired).collect()
    }

    /// `input.references` of a policy.
    pub fn references_input(&self) -> serde_json::Value {
        self.references
            .iter()
            .map(|one| {
                json!({
                    "measurement": one.measurement, "workload_digest": one.workload,
                    "name": one.name, "expires_unix": one.expires.to_secs(),
                })
            })
            .collect()
    }

    /// `input.signers` of a policy.
    pub fn signers_input(&self) -> serde_json::Value {
        self.signers
            .iter()
            .map(|one| {
                json!({
                    "name": one.name, "author_key_digest": one.rule.author_key, "family_id": one.rule.family_id,
                    "image_id": one.rule.image_id, "minimum_guest_svn": one.rule.minimum_guest_svn,
                    "expires_unix": one.expires.to_secs(),
                })
            })
            .collect()
    }

    fn manifest(
        &mut self,
        stored: &StoredManifest,
        keys: &[P384PublicKey],
        found: &Measurement,
        ManifestAge { now, most }: ManifestAge,
    ) {
        let name = format!("manifest {} sequence {}", stored.name, stored.sequence);
        if stored.is_revoked() {
            self.notes.push(format!("{name}: revoked"));
            return;
        }
        let verified = match stored.verify(keys) {
            Ok(verified) => verified,
            Err(error) => {
                self.notes.push(format!("{name}: {error}"));
                return;
            }
        };
        let contents = verified.manifest().contents();
        if !most.admits(now.saturating_sub(contents.created.0)) {
            self.notes.push(format!("{name}: made at {}, expected {most} (max_manifest_age)", contents.created));
            return;
        }
        let mut others = 0;
        for measurement in verified.manifest().measurements() {
            // Of those that only explain a refusal a few are enough.
            if measurement != found {
                others += 1;
                if others > EXPLAINED {
                    continue;
                }
            }
            self.references.push(Reference {
                measurement: *measurement,
                workload: contents.workload,
                name: name.clone(),
                expires: Expiry::At(contents.expires),
            });
        }
    }
}

const EXPLAINED: usize = 3;

/// Keeps the rows that are believed, and says which are not.
struct Believed {
    notes: Vec<String>,
}

impl Believed {
    fn rows<T>(&mut self, rows: Vec<Result<T, StoreError>>) -> Vec<T> {
        let mut good = Vec::with_capacity(rows.len());
        for row in rows {
            match row {
                Ok(row) => good.push(row),
                Err(error) => {
                    tracing::error!(error = %coffer_rim::chain(&error), hint = error.hint(), "stored row is not believed");
                    self.notes.push(format!("store: {error}"));
                }
            }
        }
        good
    }
}
