//! Terms of release as flags: who may have it of those that are admitted, and whether simulated evidence may.

use std::str::FromStr;

use coffer_kbs_client::kbs::admin::v1::{AuthorRule, Rules, TcbRule, Terms};
use coffer_verifier::abi::{ChipId, KeyDigest, Measurement, ProductLine, WorkloadDigest};
use serde_json::{Value, json};

/// Typed rules. Of each kind any may be met; they only narrow.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_field_names, reason = "a field's name is its flag's")]
pub struct RuleFlags {
    /// Only this launch measurement, 96 hex digits; may be repeated.
    #[arg(long, value_name = "HEX")]
    rule_measurement: Vec<Measurement>,
    /// Only this workload digest, 64 hex digits; may be repeated.
    #[arg(long, value_name = "HEX")]
    rule_workload: Vec<WorkloadDigest>,
    /// Only what this author signed, from this GUEST_SVN on: 96 hex digits, `:` and a number; may be repeated.
    #[arg(long, value_name = "HEX:SVN")]
    rule_author: Vec<Author>,
    /// Only on this chip, 128 hex digits; may be repeated.
    #[arg(long, value_name = "HEX")]
    rule_chip: Vec<ChipId>,
    /// Only from this REPORTED_TCB on, part by part, such as `Milan:bootloader=4,snp=24,microcode=219`; once a product.
    #[arg(long, value_name = "PRODUCT:PART=N,…")]
    rule_tcb: Vec<Tcb>,
}

impl RuleFlags {
    /// The rules, if a flag gives any.
    pub fn given(&self) -> Option<Rules> {
        let rules = Rules {
            measurements: self.rule_measurement.iter().map(|one| one.as_bytes().to_vec()).collect(),
            workloads: self.rule_workload.iter().map(|one| one.as_bytes().to_vec()).collect(),
            authors: self.rule_author.iter().map(|one| one.0.clone()).collect(),
            chips: self.rule_chip.iter().map(|one| one.as_bytes().to_vec()).collect(),
            tcb: self.rule_tcb.iter().map(|one| one.0.clone()).collect(),
        };
        (rules != Rules::default()).then_some(rules)
    }
}

/// Terms of something that has no versions: each put says them whole.
#[derive(Debug, clap::Args)]
pub struct TermFlags {
    /// Simulated evidence may have it, where the broker lists the simulator's root for the tenant.
    #[arg(long)]
    allow_simulated: bool,
    /// Release policy the broker knows by this name.
    #[arg(long, default_value = "default", value_name = "NAME")]
    policy: String,
    #[command(flatten)]
    rules: RuleFlags,
}

impl TermFlags {
    /// As they travel.
    pub fn terms(&self) -> Terms {
        Terms { allow_simulated: self.allow_simulated, policy: Some(self.policy.clone()), rules: self.rules.given() }
    }
}

/// An author and a version.
#[derive(Clone, Debug)]
pub struct Author(AuthorRule);

impl FromStr for Author {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (author, svn) = text.split_once(':').unwrap_or((text, "0"));
        let author: KeyDigest = author.parse().map_err(|error| format!("{error}"))?;
        let minimum_guest_svn = svn.parse().map_err(|_| "expected a number after the colon")?;
        Ok(Self(AuthorRule { author_key_digest: author.as_bytes().to_vec(), minimum_guest_svn }))
    }
}

/// A least TCB of one product.
#[derive(Clone, Debug)]
pub struct Tcb(TcbRule);

impl FromStr for Tcb {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected PRODUCT:PART=N, with parts fmc, bootloader, tee, snp and microcode";
        let (product, parts) = text.split_once(':').ok_or(expected)?;
        let product: ProductLine = product.parse().map_err(|_| "expected Milan, Genoa or Turin")?;
        let mut rule = TcbRule { product: product.name().to_owned(), ..TcbRule::default() };
        for part in parts.split(',') {
            let (name, level) = part.split_once('=').ok_or(expected)?;
            let level = u32::from(level.parse::<u8>().map_err(|_| "expected a level of 0 to 255")?);
            match name {
                "fmc" => rule.fmc = level,
                "bootloader" => rule.bootloader = level,
                "tee" => rule.tee = level,
                "snp" => rule.snp = level,
                "microcode" => rule.microcode = level,
                _ => return Err(expected.into()),
            }
        }
        Ok(Self(rule))
    }
}

/// Rules for scripts.
pub fn rules_json(rules: &Rules) -> Value {
    let hex = |all: &[Vec<u8>]| all.iter().map(hex::encode).collect::<Vec<_>>();
    json!({
        "measurements": hex(&rules.measurements), "workloads": hex(&rules.workloads), "chips": hex(&rules.chips),
        "authors": rules.authors.iter().map(|one| json!({
            "author_key_digest": hex::encode(&one.author_key_digest), "minimum_svn": one.minimum_guest_svn,
        })).collect::<Vec<_>>(),
        "tcb": rules.tcb.iter().map(|one| json!({
            "product": one.product, "fmc": one.fmc, "bootloader": one.bootloader, "tee": one.tee, "snp": one.snp,
            "microcode": one.microcode,
        })).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_or_refused() {
        let tcb: Tcb = "Milan:bootloader=4,snp=24,microcode=219".parse().unwrap();
        assert_eq!((tcb.0.bootloader, tcb.0.tee, tcb.0.snp, tcb.0.microcode), (4, 0, 24, 219));
        for bad in ["Milan", "Rome:snp=1", "Milan:snp", "Milan:snp=256", "Milan:other=1", "Milan:"] {
            assert!(bad.parse::<Tcb>().is_err(), "{bad}");
        }
        let author: Author = format!("{}:7", "ab".repeat(48)).parse().unwrap();
        assert_eq!(author.0.minimum_guest_svn, 7);
        assert!("ab:7".parse::<Author>().is_err());
        assert!(format!("{}:x", "ab".repeat(48)).parse::<Author>().is_err());
    }
}
