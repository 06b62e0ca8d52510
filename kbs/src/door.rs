//! The door for guests: judges evidence, then asks whether anything that is listed admits whoever showed it.
//!
//! Who is above the floor and admitted is one of the known. A genuine guest that nothing admits stays a stranger: with strangers'
//! places, time and rate; what it asks for is refused without a lock of the ledger as long as the ledger does not change,
//! and summed in the trail.
//! Trusts: the ledger. Never: releases anything; whoever is known is judged again at each release.

use std::{sync::Arc, time::Instant};

use coffer_ratls::{Appraiser, Attested, Claim, ConnectionState, Reception, Refusal, Source};
use coffer_verifier::{
    Evidence,
    abi::{ReportData, ReportId},
};

use crate::{
    admission::{Candidates, ManifestAge},
    clock::Clock,
    guest::{GuestVerifier, Judged, NotAdmitted, facts},
    guests::{Guests, Present},
    limits::{Buckets, Rate},
    refusals::{Refusals, Whom},
    revoked::Marks,
    shares::Shares,
    sources::source_name,
    standing::{Found, NotListed},
    store::{AuditEntry, Claimed, Store, StoreError, drive},
    tenants::{Known, NO_TENANT},
};

/// Everything the door needs.
pub struct Door {
    verifier: Arc<GuestVerifier>,
    store: Arc<Store>,
    clock: Clock,
    shares: Shares,
    guests: Guests,
    refusals: Arc<Refusals>,
    tenants: Known,
    /// Requests of strangers, by where they come from.
    rate: Buckets<Source>,
    /// Looks at guests because the ledger has changed since the last one: each has its own, whoever else comes from its address.
    looks: Buckets<ReportId>,
}

/// What somebody is who asks for something.
pub enum Asker {
    /// Admitted when last looked at.
    Known,
    /// Not admitted by anything that is listed.
    Stranger(NotListed),
    /// A stranger that asks too much.
    TooFast,
}

impl Door {
    /// With nobody inside.
    pub fn new(
        verifier: Arc<GuestVerifier>,
        store: Arc<Store>,
        clock: Clock,
        guests: Guests,
        refusals: Arc<Refusals>,
        tenants: Known,
        rate: Rate,
    ) -> Self {
        let (shares, rate, looks) = (Shares::new(PER_GUEST), Buckets::new(rate), Buckets::new(rate));
        Self { verifier, store, clock, shares, guests, refusals, tenants, rate, looks }
    }

    /// How many requests and looks were too many of one stranger or guest.
    pub fn over_rate(&self) -> u64 {
        self.rate.refused() + self.looks.refused()
    }

    /// Looks whether anything admits a guest now, and remembers it. Gives the last change of the ledger that was seen, too.
    async fn look(&self, judged: &Judged) -> Result<(u64, Result<Vec<String>, NotListed>), StoreError> {
        let (now, edition) = (self.clock.now(), self.verifier.edition());
        let mut ledger = self.store.read().await?;
        let changes = ledger.changes();
        let manifests = ManifestAge { now, most: self.verifier.max_manifest_age(judged) };
        let candidates = Candidates::gather(&mut ledger, judged, manifests).await?;
        drop(ledger);
        let appraisal = self.verifier.appraise(&judged.verified, candidates.admission(now));
        let mut reasons = candidates.revocations(self.verifier.chipless());
        if appraisal.result().is_none() {
            reasons.extend(appraisal.reasons().iter().map(ToString::to_string));
            reasons.extend(candidates.notes(now));
        }
        if !reasons.is_empty() && !self.tenants.has(&judged.tenant).await? {
            reasons.insert(0, NO_TENANT.to_owned());
        }
        let verdict = if reasons.is_empty() {
            Ok(candidates.admitting(&judged.verified, now))
        } else {
            Err(NotListed { reasons, checks: appraisal.checks() })
        };
        judged.standing.put(Found { changes, edition, now, verdict: verdict.clone() });
        Ok((changes, verdict))
    }

    /// What somebody is who asks for something. Takes a lock of the ledger only where it changed since it was last asked about
    /// this guest.
    ///
    /// # Errors
    /// As the store.
    pub async fn asker(
        &self,
        connection: &Arc<ConnectionState>,
        attested: &Arc<Attested<Judged>>,
    ) -> Result<Asker, StoreError> {
        let judged = attested.admitted();
        if judged.standing.admitted().is_some() {
            return Ok(Asker::Known);
        }
        let now = Instant::now();
        let stranger = |no| if self.rate.take(connection.source(), now) { Asker::Stranger(no) } else { Asker::TooFast };
        if let Some(no) = judged.standing.stranger(self.store.changes(), self.verifier.edition(), self.clock.now()) {
            return Ok(stranger(no));
        }
        // It may be listed now: then what strangers of its address ask for is nothing to it.
        if !self.looks.take(*attested.report_id(), now) {
            return Ok(Asker::TooFast);
        }
        match self.look(judged).await? {
            (changes, Ok(by)) => {
                self.let_in(connection, attested, changes, by);
                Ok(Asker::Known)
            }
            (_, Err(no)) => {
                // It may have been one of the known until now.
                judged.leave();
                connection.estrange();
                Ok(stranger(no))
            }
        }
    }

    /// Looks again at somebody to whom nothing was released: who is admitted no more is a stranger from here on.
    pub async fn reconsider(&self, connection: &Arc<ConnectionState>, attested: &Arc<Attested<Judged>>) {
        let judged = attested.admitted();
        match self.look(judged).await {
            Ok((_, Ok(_))) => {}
            Ok((_, Err(_))) => {
                judged.leave();
                connection.estrange();
            }
            // Nothing is known: it is asked for again before anything is released.
            Err(_) => judged.standing.forget(),
        }
    }

    /// Sums a refusal of somebody who is not known.
    pub fn turned_away(&self, connection: &ConnectionState, entry: AuditEntry) {
        self.refusals.add(Whom::Stranger(connection.source()), entry);
    }

    fn let_in(
        &self,
        connection: &Arc<ConnectionState>,
        attested: &Arc<Attested<Judged>>,
        changes: u64,
        admitted_by: Vec<String>,
    ) {
        let judged = attested.admitted();
        let presence = self.guests.enter(Present {
            peer: *attested.peer_spki(),
            tenant: judged.tenant.clone(),
            facts: facts(&judged.verified),
            marks: Marks::of(&judged.verified),
            admitted_by,
            since_unix: self.clock.now(),
            source: source_name(connection.source()),
            connection: Arc::downgrade(connection),
        });
        // It stands in the list now: what is committed from here on recalls it, and takes the welcome away. What was committed
        // since it was looked at has not, a revocation, say: it is not let in, and is looked at again when it asks.
        if changes != self.store.changes() {
            drop(presence);
            judged.leave();
            judged.standing.forget();
            return;
        }
        judged.enter(presence);
        connection.welcome();
    }
}

impl Door {
    /// What the peer and the trail are told. Blocks: the ledger, where it has changed.
    fn refusal(&self, no: NotAdmitted) -> Refusal {
        let NotAdmitted { code, mut reasons, tenant, .. } = no;
        let claims = tenant.map(|tenant| {
            // Where nobody knows, it is a word.
            let is_there = drive(self.tenants.has(&tenant)).ok();
            if is_there == Some(false) {
                reasons.insert(0, NO_TENANT.to_owned());
            }
            Claim { name: tenant.to_string(), is_known: is_there == Some(true) }
        });
        Refusal { code, detail: reasons.join("; "), claims }
    }
}

impl Appraiser for Door {
    type Admitted = Judged;

    fn appraise(&self, evidence: &Evidence, expected: &ReportData) -> Result<Judged, Refusal> {
        let mut judged = self.verifier.judge(evidence, expected).map_err(|no| self.refusal(no))?;
        let guest = judged.verified.report().report_id();
        let detail = || format!("guest {guest} holds {PER_GUEST} connections already");
        let share = self.shares.take(guest);
        let too_many = || NotAdmitted::early("too-many-connections", detail()).of(judged.tenant.clone());
        judged.share = Some(share.ok_or_else(|| self.refusal(too_many()))?);
        let looked = drive(self.look(&judged));
        // Where the ledger cannot be asked nobody is admitted, and the next question asks it again.
        if let Err(error) = looked {
            tracing::error!(error = %coffer_rim::chain(&error), hint = error.hint(), "whom the ledger admits is not known");
        }
        Ok(judged)
    }

    fn unix_seconds(&self) -> u64 {
        u64::try_from(self.clock.now()).unwrap_or(0)
    }
}

impl Reception<Judged> for Door {
    fn attested(&self, connection: &Arc<ConnectionState>, attested: &Arc<Attested<Judged>>) {
        if let Some((changes, by)) = attested.admitted().standing.admitted() {
            self.let_in(connection, attested, changes, by);
        }
    }

    fn refused(&self, connection: &ConnectionState, refusal: &Refusal, id: &str) {
        let Refusal { code, detail, claims } = refusal;
        let mut reasons: Vec<String> = detail.split("; ").map(str::to_owned).collect();
        if let Some(first) = reasons.first_mut().filter(|first| !first.contains(": ")) {
            *first = format!("{code}: {first}");
        }
        let entry = AuditEntry {
            event: "guest.attest",
            outcome: "refused",
            id: id.to_owned(),
            peer: connection.peer_spki().to_string(),
            claimed_tenant: claims.as_ref().map(|Claim { name, is_known }| match is_known {
                true => Claimed::Tenant(name.clone()),
                false => Claimed::Word(name.clone()),
            }),
            code: Some(*code),
            reasons,
            ..AuditEntry::default()
        };
        self.turned_away(connection, entry);
    }
}

/// Connections of one guest at once. One that attests again holds two for a moment.
const PER_GUEST: usize = 16;
