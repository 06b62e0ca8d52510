//! Terms of release as they travel, and as we mean them.

use coffer_kbs_client::kbs::admin::v1 as wire;
use coffer_verifier::{
    TcbRule,
    abi::{ChipId, KeyDigest, Measurement, ProductLine, WordError, WorkloadDigest},
};
use tonic::Status;

use super::{AdminService, name};
use crate::{
    policies::DEFAULT,
    store::{Labels, Ledger},
    tenant::Tenant,
    terms::{AuthorRule, RULES, Rules, Terms},
};

/// Labels of one secret.
const LABELS: usize = 32;

/// Terms of something that has none yet. Whether their policy is there is asked in the transaction, by
/// [`AdminService::policy_is_there`].
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
pub(super) fn terms(message: Option<wire::Terms>) -> Result<Terms, Status> {
    let message = message.ok_or_else(|| Status::invalid_argument("terms: none were given"))?;
    Ok(Terms {
        allow_simulated: message.allow_simulated,
        policy: name("policy", message.policy)?.unwrap_or_else(|| DEFAULT.to_owned()),
        rules: rules(message.rules)?.unwrap_or_default(),
    })
}

impl AdminService {
    /// Refuses a policy that neither the tenant keeps nor the broker has.
    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    pub(super) fn policy_is_there(&self, ledger: &mut Ledger, tenant: &Tenant, policy: &str) -> Result<(), Status> {
        if self.policies.has(policy) || ledger.has_policy(tenant, policy) {
            return Ok(());
        }
        let mut known = self.policies.names();
        known.extend(ledger.policy_names(tenant));
        let known = known.join(", ");
        Err(Status::invalid_argument(format!("policy: none of that name is there; there are: {known}")))
    }
}

/// Rules, if they are given.
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
pub(super) fn rules(message: Option<wire::Rules>) -> Result<Option<Rules>, Status> {
    let Some(message) = message else { return Ok(None) };
    let wire::Rules { measurements, workloads, authors, chips, tcb } = message;
    let lengths = [measurements.len(), workloads.len(), authors.len(), chips.len(), tcb.len()];
    if lengths.iter().any(|length| *length > RULES) {
        return Err(Status::invalid_argument(format!("rules: a list has over {RULES} entries")));
    }
    let twice = |(at, one): (usize, &wire::TcbRule)| tcb[..at].iter().any(|before| before.product == one.product);
    if tcb.iter().enumerate().any(twice) {
        return Err(Status::invalid_argument("tcb: a product stands twice, and the lower of the two would count"));
    }
    Ok(Some(Rules {
        measurements: words("measurements", &measurements, Measurement::try_from, Measurement::is_zero)?,
        workloads: words("workloads", &workloads, WorkloadDigest::try_from, WorkloadDigest::is_zero)?,
        authors: authors.into_iter().map(author).collect::<Result<_, _>>()?,
        chips: words("chips", &chips, ChipId::try_from, ChipId::is_zero)?,
        tcb: tcb.iter().map(least).collect::<Result<_, _>>()?,
    }))
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn words<'a, T>(
    field: &str,
    list: &'a [Vec<u8>],
    parse: impl Fn(&'a [u8]) -> Result<T, WordError>,
    zero: impl Fn(&T) -> bool,
) -> Result<Vec<T>, Status> {
    let one = |bytes: &'a Vec<u8>| {
        let word = parse(bytes).map_err(|error| Status::invalid_argument(format!("{field}: {error}")))?;
        if zero(&word) {
            return Err(Status::invalid_argument(format!("{field}: a zero word never matches")));
        }
        Ok(word)
    };
    list.iter().map(one).collect()
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn author(message: wire::AuthorRule) -> Result<AuthorRule, Status> {
    let wire::AuthorRule { author_key_digest, minimum_guest_svn } = message;
    let keys = [author_key_digest];
    let mut keys = words("author_key_digest", &keys, KeyDigest::try_from, KeyDigest::is_zero)?;
    Ok(AuthorRule { author_key: keys.remove(0), minimum_guest_svn })
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn least(message: &wire::TcbRule) -> Result<(ProductLine, TcbRule), Status> {
    let product: ProductLine =
        message.product.parse().map_err(|_| Status::invalid_argument("product: expected Milan, Genoa or Turin"))?;
    let part = |name, value: u32| {
        u8::try_from(value).map_err(|_| Status::invalid_argument(format!("{name}: is {value}, expected 0 to 255")))
    };
    if message.fmc != 0 && product != ProductLine::Turin {
        return Err(Status::invalid_argument(format!("fmc: {product} has no FMC level")));
    }
    let rule = TcbRule {
        fmc: part("fmc", message.fmc)?,
        bootloader: part("bootloader", message.bootloader)?,
        tee: part("tee", message.tee)?,
        snp: part("snp", message.snp)?,
        microcode: part("microcode", message.microcode)?,
    };
    if rule == TcbRule::default() {
        return Err(Status::invalid_argument("tcb: a rule that asks for nothing; leave it out"));
    }
    Ok((product, rule))
}

/// Labels, if they are given.
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
pub(super) fn labels(message: Option<wire::Labels>) -> Result<Option<Labels>, Status> {
    let Some(message) = message else { return Ok(None) };
    if message.labels.len() > LABELS {
        return Err(Status::invalid_argument(format!("labels: over {LABELS}")));
    }
    let mut labels = Labels::new();
    for label in message.labels {
        if label.name.parse::<coffer_spec::Name>().is_err() {
            return Err(Status::invalid_argument(format!("labels: name: expected {}", coffer_spec::NAME_RULE)));
        }
        let value = super::needed("labels: value", label.value)?;
        if labels.insert(label.name, value).is_some() {
            return Err(Status::invalid_argument("labels: name: one is there twice"));
        }
    }
    Ok(Some(labels))
}

pub(super) fn terms_wire(terms: &Terms) -> wire::Terms {
    let Terms { allow_simulated, policy, rules } = terms;
    wire::Terms {
        allow_simulated: *allow_simulated,
        policy: Some(policy.clone()),
        rules: Some(rules_wire(rules)).filter(|_| !rules.is_empty()),
    }
}

fn rules_wire(rules: &Rules) -> wire::Rules {
    let author = |one: &AuthorRule| wire::AuthorRule {
        author_key_digest: one.author_key.as_bytes().to_vec(),
        minimum_guest_svn: one.minimum_guest_svn,
    };
    let tcb = |(product, least): &(ProductLine, TcbRule)| wire::TcbRule {
        product: product.name().to_owned(),
        fmc: least.fmc.into(),
        bootloader: least.bootloader.into(),
        tee: least.tee.into(),
        snp: least.snp.into(),
        microcode: least.microcode.into(),
    };
    wire::Rules {
        measurements: rules.measurements.iter().map(|one| one.as_bytes().to_vec()).collect(),
        workloads: rules.workloads.iter().map(|one| one.as_bytes().to_vec()).collect(),
        authors: rules.authors.iter().map(author).collect(),
        chips: rules.chips.iter().map(|one| one.as_bytes().to_vec()).collect(),
        tcb: rules.tcb.iter().map(tcb).collect(),
    }
}

pub(super) fn labels_wire(labels: &Labels) -> wire::Labels {
    let label = |(name, value): (&String, &String)| wire::Label { name: name.clone(), value: value.clone() };
    wire::Labels { labels: labels.iter().map(label).collect() }
}
