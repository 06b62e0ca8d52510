//! The service without a network: what was asked in, an answer out.
//!
//! In two halves, for between them somebody may fetch what the evidence lacks: [`Appraiser::admit`] finds the policy and spends the
//! challenge, [`Appraiser::answer`] judges. Time and randomness are arguments.
//! Trusts: its policies and its keys. Believes nothing else.
//! Never: opens a socket or a file, reads a clock, judges under no policy, answers with another shape than `coffer verify --json`.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use coffer_kds::Collected;
use coffer_token::KeySet;
use coffer_verifier::abi::report::offset;
use coffer_verifier::abi::{ChipId, Report};
use coffer_verifier::ear::{
    EarClaims, Issuer, Judged, NamedBinding, Nonce, Terms, TokenId, VerifierBuild, Word, WordError,
};
use coffer_verifier::{Appraisal, ConnectionChain, Endorsements, ExpectedReportData, UnixTime, Verifier};
use serde::Serialize;
use serde_json::Value;

use crate::challenge::Challenges;
use crate::policies::{Policies, Policy};
use crate::refusal::Refusal;
use crate::request::{Asked, Demanded, TokenAsked};

/// Decides about requests.
pub struct Appraiser {
    /// By name.
    pub policies: Policies,
    /// Certificates and lists of the operator's, beside what requests bring.
    pub endorsements: Endorsements,
    /// Who signs tokens; nobody where none is named.
    pub issuer: Option<TokenIssuer>,
    chains: Chains,
}

/// Who signs tokens.
pub struct TokenIssuer {
    /// Its address.
    pub issuer: Issuer,
    /// Its keys.
    pub keys: KeySet,
    build: VerifierBuild,
}

/// A request whose policy is found and whose challenge is spent.
pub struct Admitted {
    asked: Asked,
    policy: Arc<Policy>,
    demanded: ExpectedReportData,
}

/// What a request is answered with.
pub struct Answer {
    /// The policy that was asked.
    pub policy: Arc<Policy>,
    /// The judge's.
    pub appraisal: Appraisal,
    not_fetched: Value,
    /// As it was given.
    pub request_nonce: Option<Nonce>,
    /// Where one was asked for.
    pub token: Option<String>,
}

impl TokenIssuer {
    /// Under this address and with these keys.
    ///
    /// # Errors
    /// [`WordError`], never in fact: our own names are words.
    pub fn new(issuer: Issuer, keys: KeySet) -> Result<Self, WordError> {
        let build = VerifierBuild {
            developer: Word::parse("coffer")?,
            build: Word::parse(concat!("coffer-verifier/", env!("CARGO_PKG_VERSION")))?,
        };
        Ok(Self { issuer, keys, build })
    }
}

impl Admitted {
    /// The report, and what there is for it without asking anybody (`configured` and what came with it), for whoever fetches what is
    /// lacking. Nothing where the evidence cannot be read: the judge says so.
    pub fn wants(&self, configured: &Endorsements) -> Option<(Report, Endorsements)> {
        let evidence = self.asked.presented.evidence();
        let (Ok(report), Ok(mut carried)) = (Report::parse(&evidence.report), Endorsements::from_evidence(evidence))
        else {
            return None;
        };
        carried.merge(&self.asked.beside);
        carried.merge(configured);
        Some((report, carried))
    }

    /// To judge it takes a few signatures and no more: less than to begin a thread for it, and wait for its end, costs all the others.
    /// What is longer than evidence is may take longer, and so may a text of somebody's.
    pub fn is_soon_judged(&self) -> bool {
        self.asked.bytes <= EVIDENCE && !self.policy.has_rego()
    }

    /// What the caller wants repeated.
    #[cfg(test)]
    pub fn request_nonce(&self) -> Option<&Nonce> {
        self.asked.request_nonce.as_ref()
    }

    /// The policy believes simulators, so that what is lacking is theirs to give.
    pub fn believes_simulated(&self) -> bool {
        self.policy.verifier.anchors.accepts_simulated()
    }
}

impl Appraiser {
    /// With these.
    pub fn new(policies: Policies, endorsements: Endorsements, issuer: Option<TokenIssuer>) -> Self {
        Self { policies, endorsements, issuer, chains: Chains::default() }
    }

    /// Finds the policy, and spends the challenge if there is one: also where the evidence turns out to be bad.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn admit(&self, asked: Asked, challenges: &Challenges, now: UnixTime) -> Result<Admitted, Refusal> {
        let policy = self.policies.find(asked.policy.as_deref())?;
        if asked.token.is_some() && self.issuer.is_none() {
            return Err(Refusal::NoTokens);
        }
        let demanded = match &asked.demanded {
            Demanded::Stated(stated) => stated.clone(),
            Demanded::Challenge(challenge) => {
                challenges.spend(challenge, now)?;
                ExpectedReportData::Exactly(challenge.report_data())
            }
            Demanded::Nonce(nonce) => ExpectedReportData::Exactly(asked.presented.over_nonce(nonce)),
        };
        Ok(Admitted { asked, policy, demanded })
    }

    /// Judges. `found`: what was fetched; `random`: of the system's source, for the name of a token.
    ///
    /// # Errors
    /// [`Refusal::Token`], [`Refusal::Internal`]. Evidence that is not authentic, or refused, is an answer.
    pub fn answer(
        &self,
        admitted: Admitted,
        found: &Collected,
        now: UnixTime,
        random: [u8; 16],
    ) -> Result<Answer, Refusal> {
        let Admitted { asked, policy, demanded } = admitted;
        let appraisal = match asked.unusable.clone() {
            Some(error) => Appraisal::of_error(error),
            None => self.judge(&asked, &policy, &demanded, found, now),
        };
        let token = match &asked.token {
            Some(wanted) => Some(self.token(&asked, wanted, &policy, &appraisal, now, random)?),
            None => None,
        };
        let not_fetched = {
            let asked = coffer_kds::Asked { service: found.service.as_ref(), mirror: "service in [kds]" };
            coffer_kds::failures_json(&found.failures, asked)
        };
        Ok(Answer { policy, appraisal, not_fetched, request_nonce: asked.request_nonce, token })
    }

    fn judge(
        &self,
        asked: &Asked,
        policy: &Policy,
        demanded: &ExpectedReportData,
        found: &Collected,
        now: UnixTime,
    ) -> Appraisal {
        let mut others = asked.beside.clone();
        others.merge(&self.endorsements);
        others.merge(&found.endorsements);
        let chain = self.chains.of(policy, &asked.presented.evidence().report);
        let crl = found.crl_policy(&policy.verifier.crl);
        let raised = (crl != policy.verifier.crl).then(|| Verifier { crl, ..policy.verifier.clone() });
        let verifier = raised.as_ref().unwrap_or(&policy.verifier);
        let appraisal = verifier.judge_presented(&chain, &asked.presented, &others, demanded, now);
        policy.lower(appraisal, now)
    }

    fn token(
        &self,
        asked: &Asked,
        wanted: &TokenAsked,
        policy: &Policy,
        appraisal: &Appraisal,
        now: UnixTime,
        random: [u8; 16],
    ) -> Result<String, Refusal> {
        let TokenIssuer { issuer, keys, build } = self.issuer.as_ref().ok_or(Refusal::NoTokens)?;
        let blob = asked.presented.hcl();
        let binding = match &asked.demanded {
            Demanded::Nonce(nonce) => NamedBinding::Nonce(nonce),
            Demanded::Stated(_) | Demanded::Challenge(_) => {
                blob.as_ref().map_or(NamedBinding::Raw, NamedBinding::AzureHcl)
            }
        };
        let terms = Terms {
            issuer,
            audience: &wanted.audience,
            verifier: build,
            policy: &policy.name,
            revision: &policy.revision,
            lifetime: wanted.lifetime,
            request_nonce: asked.request_nonce.as_ref(),
            id: TokenId::new(random),
            now,
        };
        let claims = EarClaims::of(&Judged::from(appraisal), &binding, &terms)?;
        claims.sign(keys.signing()).map_err(|error| {
            tracing::error!(%error, "a token could not be signed");
            Refusal::Internal
        })
    }
}

impl Answer {
    /// The one shape: what `coffer verify --json` prints, under `appraisal`.
    ///
    /// # Errors
    /// [`Refusal::Internal`], never in fact: keys are words.
    pub fn to_json(&self) -> Result<Vec<u8>, Refusal> {
        let Self { policy, not_fetched, request_nonce, token, .. } = self;
        let rest = Rest { not_fetched, request_nonce: request_nonce.as_ref().map(ToString::to_string), token };
        written(|out| {
            out.extend_from_slice(br#"{"policy":"#);
            let named = Named { id: policy.name.as_str(), revision: policy.revision.as_str() };
            serde_json::to_writer(&mut *out, &named)?;
            out.extend_from_slice(br#","appraisal":"#);
            self.write_appraisal(out)?;
            // What follows goes on where its object would begin.
            let begins = out.len();
            serde_json::to_writer(&mut *out, &rest)?;
            out[begins] = b',';
            Ok(())
        })
    }

    /// What `coffer verify --json` prints.
    ///
    /// # Errors
    /// As [`Self::to_json`].
    pub fn appraisal_json(&self) -> Result<String, Refusal> {
        String::from_utf8(written(|out| self.write_appraisal(out))?).map_err(|error| unwritten(&error))
    }

    /// Addresses stand beside what is missing. Where nothing is, the judge's own form is that form already, and no tree is built.
    fn write_appraisal(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        if self.appraisal.missing().is_empty() {
            self.appraisal.write_json(out)
        } else {
            serde_json::to_writer(out, &coffer_kds::appraisal_json(&self.appraisal, false))
        }
    }
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> serde_json::Result<()>) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::with_capacity(USUAL);
    write(&mut out).map_err(|error| unwritten(&error))?;
    Ok(out)
}

fn unwritten(error: &dyn std::error::Error) -> Refusal {
    tracing::error!(%error, "an answer could not be written");
    Refusal::Internal
}

/// Bytes of a report with its chain and list, of any form and of any cloud's, as a rule; with as much again.
const EVIDENCE: usize = 32 << 10;
/// Bytes that an answer has at most, as a rule, so that it is not moved while it grows.
const USUAL: usize = 16 << 10;

/// Behind policy and appraisal.
#[derive(Serialize)]
struct Rest<'a> {
    not_fetched: &'a Value,
    request_nonce: Option<String>,
    token: &'a Option<String>,
}

#[derive(Serialize)]
struct Named<'a> {
    id: &'a str,
    revision: &'a str,
}

/// Chains that were verified, by chip, TCB and policy: what a chain rests on is compared each time by the judge, so that one here is
/// used again for what is the same and for nothing else.
#[derive(Default)]
struct Chains(Mutex<Held>);

#[derive(Default)]
struct Held {
    chains: HashMap<Key, (Arc<ConnectionChain>, u64)>,
    uses: u64,
}

/// What a report states, and a policy.
type Key = ([u8; STATED.end - STATED.start], String);

/// REPORTED_TCB, the processor's CPUID words, CHIP_ID: they stand one behind the other.
const STATED: Range<usize> = offset::REPORTED_TCB..offset::CHIP_ID + ChipId::LEN;

/// Chains held at once; the half that was used longest ago goes where there are more.
const CHAINS: usize = 1024;

impl Chains {
    fn of(&self, policy: &Policy, report: &[u8]) -> Arc<ConnectionChain> {
        // As the bytes state it, whatever they are: what a chain rests on is the judge's to compare.
        let Some(Ok(stated)) = report.get(STATED).map(TryInto::try_into) else { return Arc::default() };
        let key = (stated, policy.name.to_string());
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.uses += 1;
        let uses = held.uses;
        if let Some((chain, used)) = held.chains.get_mut(&key) {
            *used = uses;
            return Arc::clone(chain);
        }
        if held.chains.len() >= CHAINS {
            let mut used: Vec<u64> = held.chains.values().map(|(_, used)| *used).collect();
            let (_, middle, _) = used.select_nth_unstable(CHAINS / 2);
            let middle = *middle;
            held.chains.retain(|_, (_, used)| *used > middle);
        }
        let chain = Arc::<ConnectionChain>::default();
        held.chains.insert(key, (Arc::clone(&chain), uses));
        chain
    }
}
