//! The typed floors: what any evidence must show before anybody asks whom it belongs to. One for hardware, one for simulated
//! roots, and one more for a tenant that wants it; a tenant's floor only ever narrows.
//!
//! The form is that of `coffer verify --policy`. Left out it is `strict`: AMD's published minima, for hardware roots.

use std::{collections::BTreeMap, path::Path};

use coffer_rim::{input, regular};
use coffer_verifier::{Accept, EvidencePolicy, MaxAge, abi::ProductLine};

use crate::tenant::Tenant;

/// Every floor.
#[derive(Clone, Debug)]
pub struct Floors {
    hardware: EvidencePolicy,
    simulated: EvidencePolicy,
    tenants: BTreeMap<Tenant, EvidencePolicy>,
}

impl Floors {
    /// From what the configuration names; files are relative to `folder`.
    pub fn read(
        floor: Option<&str>,
        waivers: &[String],
        tenants: impl Iterator<Item = (Tenant, String)>,
        folder: &Path,
        mistakes: &mut Vec<String>,
    ) -> Self {
        let (hardware, simulated) = match floor.unwrap_or(STRICT) {
            STRICT => (strict(waivers, mistakes), EvidencePolicy::default_floor()),
            VMPL_AND_DEBUG_ALONE => (EvidencePolicy::default_floor(), EvidencePolicy::default_floor()),
            file => {
                let policy = read("floor", file, folder, mistakes);
                (policy.clone(), policy)
            }
        };
        if floor.is_some_and(|floor| floor != STRICT) && !waivers.is_empty() {
            mistakes
                .push(format!("floor_waivers belong to floor = {STRICT:?}; another floor says itself what it accepts"));
        }
        let tenants = tenants.map(|(tenant, file)| {
            let field = format!("tenants.{tenant}.floor");
            let policy = if file == STRICT { EvidencePolicy::strict() } else { read(&field, &file, folder, mistakes) };
            (tenant, policy)
        });
        Self { hardware, simulated, tenants: tenants.collect() }
    }

    /// For evidence under such a root.
    pub fn of(&self, simulated: bool) -> &EvidencePolicy {
        if simulated { &self.simulated } else { &self.hardware }
    }

    /// How old a manifest may be that admits a guest of a tenant: the broker's word, which the tenant's only narrows.
    pub fn max_manifest_age(&self, simulated: bool, tenant: &Tenant) -> MaxAge {
        let of_tenant = self.of_tenant(tenant).map_or(MaxAge::Any, |floor| floor.max_manifest_age);
        self.of(simulated).max_manifest_age.stricter(of_tenant)
    }

    /// What a tenant asks for beside.
    pub fn of_tenant(&self, tenant: &Tenant) -> Option<&EvidencePolicy> {
        self.tenants.get(tenant)
    }
}

fn strict(waivers: &[String], mistakes: &mut Vec<String>) -> EvidencePolicy {
    let mut policy = EvidencePolicy::strict();
    for (at, waiver) in waivers.iter().enumerate() {
        match (waiver.as_str(), &mut policy.products) {
            (MILAN, Accept::Only(products)) if !products.contains(&ProductLine::Milan) => {
                products.push(ProductLine::Milan);
            }
            (MILAN, _) => mistakes.push(format!("floor_waivers[{at}] stands twice")),
            _ => mistakes.push(format!("floor_waivers[{at}] is {waiver:?}, expected {MILAN:?}")),
        }
    }
    policy
}

fn read(field: &str, file: &str, folder: &Path, mistakes: &mut Vec<String>) -> EvidencePolicy {
    if file.is_empty() {
        mistakes.push(format!("{field} is empty, expected {STRICT:?}, {VMPL_AND_DEBUG_ALONE:?} or a file"));
        return EvidencePolicy::strict();
    }
    let is_text = Path::new(file).extension().is_some_and(|end| end == "rego");
    if is_text || coffer_policies::Shipped::named(file).is_some() {
        mistakes.push(format!(
            "{field} ({file}) is Rego, and a floor is a typed policy: {STRICT:?}, {VMPL_AND_DEBUG_ALONE:?} or a TOML file"
        ));
        return EvidencePolicy::strict();
    }
    let text = regular::read_text(&folder.join(file), input::DOCUMENT).map_err(|error| error.to_string());
    // Whoever administers the broker sets its Rego as texts, which have no date.
    let parsed = |text: String| EvidencePolicy::from_toml(&text).and_then(EvidencePolicy::without_rego);
    match text.and_then(|text| parsed(text).map_err(|error| error.to_string())) {
        Ok(policy) => {
            let wider = policy.wider_than_floor();
            if !wider.is_empty() {
                mistakes.push(format!("{field} ({file}): {} may only narrow the built-in floor", wider.join(", ")));
            }
            policy
        }
        Err(error) => {
            let word = !file.contains(['.', '/']);
            let words = format!("; {STRICT:?} and {VMPL_AND_DEBUG_ALONE:?} are words, anything else is a file");
            mistakes.push(format!("{field} ({file}): {error}{}", if word { words.as_str() } else { "" }));
            EvidencePolicy::strict()
        }
    }
}

/// The file that a floor names; nothing where it is a word.
pub(crate) fn file(floor: &str) -> Option<std::path::PathBuf> {
    (![STRICT, VMPL_AND_DEBUG_ALONE].contains(&floor)).then(|| floor.into())
}

/// AMD's published minima; no Milan.
pub const STRICT: &str = "strict";
/// Any genuine processor, however old its firmware.
const VMPL_AND_DEBUG_ALONE: &str = "vmpl-and-debug-alone";
/// Keys of Milan chips can be taken from hardware in hand, whatever the firmware (AMD-SB-3045).
const MILAN: &str = "milan-chip-keys-can-be-extracted";

#[cfg(test)]
mod tests {
    use super::*;

    fn floors(floor: Option<&str>, waivers: &[&str]) -> Result<Floors, Vec<String>> {
        let mut mistakes = Vec::new();
        let waivers: Vec<String> = waivers.iter().map(ToString::to_string).collect();
        let floors = Floors::read(floor, &waivers, std::iter::empty(), Path::new("/nonexistent"), &mut mistakes);
        if mistakes.is_empty() { Ok(floors) } else { Err(mistakes) }
    }

    #[test]
    fn left_out_it_is_strict_for_hardware_and_weaker_has_a_name() {
        for floor in [None, Some("strict")] {
            assert_eq!(*floors(floor, &[]).unwrap().of(false), EvidencePolicy::strict());
        }
        let milan = floors(None, &[MILAN]).unwrap();
        assert!(matches!(&milan.of(false).products, Accept::Only(all) if all.contains(&ProductLine::Milan)));
        assert_eq!(milan.of(false).tcb, EvidencePolicy::strict().tcb, "its minimum stays");
        assert_eq!(*floors(Some(VMPL_AND_DEBUG_ALONE), &[]).unwrap().of(false), EvidencePolicy::default_floor());
        assert_eq!(*milan.of(true), EvidencePolicy::default_floor());
    }

    #[test]
    fn a_file_only_narrows() {
        let folder = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            std::fs::write(folder.path().join("floor.toml"), format!("measurements = \"any\"\n{text}")).unwrap();
            let mut mistakes = Vec::new();
            Floors::read(Some("floor.toml"), &[], std::iter::empty(), folder.path(), &mut mistakes);
            mistakes
        };
        assert_eq!(read("minimum_guest_svn = 3"), Vec::<String>::new());
        assert!(read("vmpls = [0, 1]")[0].contains("vmpls"));
        assert!(read("max_policy_age = \"7d\"")[0].contains("max_policy_age is not asked here"));
        assert!(read("[guest_policy]\ndebug = \"any\"")[0].contains("guest_policy.debug"));
    }

    #[test]
    fn what_means_nothing_is_refused_by_name() {
        for (floor, waivers, word) in [
            (Some(""), &[][..], "floor is empty"),
            (Some("lax"), &[], "floor (lax)"),
            (Some("snp"), &[], "floor (snp) is Rego, and a floor is a typed policy"),
            (Some("team.rego"), &[], "floor (team.rego) is Rego"),
            (Some("strct"), &[], "\"strict\" and \"vmpl-and-debug-alone\" are words"),
            (None, &["milan"], "floor_waivers[0]"),
            (None, &[MILAN, MILAN], "floor_waivers[1] stands twice"),
            (Some(VMPL_AND_DEBUG_ALONE), &[MILAN], "floor_waivers belong"),
        ] {
            let mistakes = floors(floor, waivers).unwrap_err();
            assert!(mistakes.iter().any(|mistake| mistake.contains(word)), "{mistakes:?}");
        }
    }
}
