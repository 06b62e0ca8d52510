//! `EvidencePolicy` as an operator writes it: one TOML file, unknown keys refused.
//!
//! A key left out keeps the built-in floor, except `measurements`: whoever writes a policy says which guests it is about,
//! or writes `"any"`. See `docs/verifier.md` for the reference.

use core::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Unexpected, Visitor},
};

use super::age::MaxAge;
use super::policy::{Accept, BitRule, Chips, EvidencePolicy, FirmwareRule, Pair, SignerRule, TcbMinimum, TcbRule};
use crate::abi::{ChipId, HostData, KeyDigest, Measurement, PlatformBit, PolicyBit, ProductLine};

/// Why text is not a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyFileError {
    /// Longer than any policy.
    #[error("policy of {found} bytes is longer than {limit}")]
    TooLong {
        /// Bytes given.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Not TOML, an unknown key, or a value of the wrong kind.
    #[error("policy file: {0}")]
    Toml(String),
    /// `measurements` left out.
    #[error("policy file has no `measurements`: list launch digests, or write measurements = \"any\" to waive them")]
    NoMeasurements,
    /// A name that is none of the bits.
    #[error("policy file: {table} has no bit named {name}")]
    UnknownBit {
        /// `guest_policy` or `platform_info`.
        table: &'static str,
        /// As written.
        name: String,
    },
    /// A VMPL that does not exist.
    #[error("policy file: VMPL {found} does not exist, expected 0 to 3")]
    Vmpl {
        /// As written.
        found: u32,
    },
    /// The same product or chip listed and denied.
    #[error("policy file: {found} stands in both {listed} and {denied}")]
    Contradiction {
        /// Key that accepts it.
        listed: &'static str,
        /// Key that refuses it.
        denied: &'static str,
        /// What stands in both.
        found: String,
    },
    /// A TCB entry that demands nothing.
    #[error("policy file: the tcb entry for {product} sets no level above zero: it would accept every TCB")]
    EmptyTcb {
        /// Product of the entry.
        product: ProductLine,
    },
    /// A VLEK or Milan/Genoa entry with an FMC level.
    #[error("policy file: {product} has no FMC level")]
    Fmc {
        /// Product of the entry.
        product: ProductLine,
    },
    /// An age of Rego where no Rego is asked.
    #[error(
        "policy file: max_policy_age is not asked here, where no policy in Rego stands behind this one: leave it out"
    )]
    NoRego,
    /// An age of manifests where no manifest is asked.
    #[error("policy file: max_manifest_age is not asked here, where no manifest admits a guest: leave it out")]
    NoManifest,
}

/// `"any"` or a list.
enum AnyOr<T> {
    Any,
    List(Vec<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for AnyOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = AnyOr<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list, or the word \"any\"")
            }
            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Self::Value, E> {
                if word == "any" { Ok(AnyOr::Any) } else { Err(E::invalid_value(Unexpected::Str(word), &self)) }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    all.push(one);
                }
                Ok(AnyOr::List(all))
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl<T> From<AnyOr<T>> for Accept<T> {
    fn from(value: AnyOr<T>) -> Self {
        match value {
            AnyOr::Any => Self::Any,
            AnyOr::List(list) => Self::Only(list),
        }
    }
}

/// Two numbers, and no third that would be passed over.
fn pair<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<(u8, u8)>, D::Error> {
    let all = Vec::<u8>::deserialize(deserializer)?;
    let [major, minor] = all[..] else {
        return Err(serde::de::Error::invalid_length(all.len(), &"two numbers, such as [1, 55]"));
    };
    Ok(Some((major, minor)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    products: Option<AnyOr<ProductLine>>,
    #[serde(default)]
    denied_products: Vec<ProductLine>,
    chips: Option<AnyOr<ChipId>>,
    #[serde(default)]
    denied_chips: Vec<ChipId>,
    vmpls: Option<Vec<u32>>,
    #[serde(default)]
    guest_policy: std::collections::BTreeMap<String, BitRule>,
    #[serde(default, deserialize_with = "pair")]
    minimum_abi: Option<(u8, u8)>,
    #[serde(default)]
    platform_info: std::collections::BTreeMap<String, BitRule>,
    tcb: Option<AnyOr<TcbMinimum>>,
    #[serde(default)]
    provisional_firmware: FirmwareRule,
    #[serde(default)]
    launch_mitigations: u64,
    #[serde(default)]
    current_mitigations: u64,
    #[serde(default)]
    minimum_guest_svn: u32,
    #[serde(default)]
    max_crl_age: MaxAge,
    #[serde(default)]
    max_manifest_age: MaxAge,
    #[serde(default)]
    max_policy_age: MaxAge,
    measurements: Option<AnyOr<Measurement>>,
    host_data: Option<AnyOr<HostData>>,
    pairs: Option<AnyOr<Pair>>,
    signers: Option<Vec<SignerRule>>,
    id_keys: Option<AnyOr<KeyDigest>>,
    author_keys: Option<AnyOr<KeyDigest>>,
}

/// Room for thousands of digests.
const MAX_POLICY: usize = 1024 * 1024;

/// The text of the built-in policy `strict`, to copy and extend.
pub const STRICT: &str = include_str!("strict.toml");

impl EvidencePolicy {
    /// The built-in policy `strict`: [`STRICT`].
    ///
    /// # Panics
    /// Never: a test parses the same text.
    pub fn strict() -> Self {
        Self::from_toml(STRICT).expect("the text is part of this crate and of its tests")
    }

    /// Parses a policy file.
    ///
    /// ```
    /// use coffer_verifier::EvidencePolicy;
    ///
    /// let policy = EvidencePolicy::from_toml("measurements = \"any\"\ndenied_products = [\"Milan\"]")?;
    /// assert_eq!(policy.vmpls, [0], "what is left out keeps the built-in floor");
    /// assert!(EvidencePolicy::from_toml("vmpls = [0]").is_err(), "which guests it is about must be said");
    /// # Ok::<(), coffer_verifier::PolicyFileError>(())
    /// ```
    ///
    /// # Errors
    /// [`PolicyFileError`].
    pub fn from_toml(text: &str) -> Result<Self, PolicyFileError> {
        use PolicyFileError as E;
        if text.len() > MAX_POLICY {
            return Err(E::TooLong { found: text.len(), limit: MAX_POLICY });
        }
        let file: PolicyFile = toml::from_str(text).map_err(|error| E::Toml(crate::said::toml_error(text, &error)))?;
        let mut policy = Self::default_floor();
        for (name, rule) in &file.guest_policy {
            let bit = PolicyBit::ALL.into_iter().find(|bit| bit.name() == name);
            let bit = bit.ok_or_else(|| E::UnknownBit { table: "guest_policy", name: name.clone() })?;
            policy.guest_policy = policy.guest_policy.with(bit, *rule);
        }
        for (name, rule) in &file.platform_info {
            if name == "unknown" {
                policy.platform.unknown = *rule;
                continue;
            }
            let bit = PlatformBit::ALL.into_iter().find(|bit| bit.name() == name);
            let bit = bit.ok_or_else(|| E::UnknownBit { table: "platform_info", name: name.clone() })?;
            policy.platform = policy.platform.with(bit, *rule);
        }
        if let Some(vmpls) = file.vmpls {
            if let Some(found) = vmpls.iter().copied().find(|vmpl| *vmpl > 3) {
                return Err(E::Vmpl { found });
            }
            policy.vmpls = vmpls;
        }
        if let Some(tcb) = file.tcb {
            policy.tcb = tcb.into();
        }
        if let Accept::Only(entries) = &policy.tcb {
            for entry in entries {
                let rules = [Some(entry.reported), entry.committed, entry.launch];
                if rules.iter().flatten().all(|rule| *rule == TcbRule::default()) {
                    return Err(E::EmptyTcb { product: entry.product });
                }
                if entry.product != ProductLine::Turin && rules.iter().flatten().any(|rule| rule.fmc != 0) {
                    return Err(E::Fmc { product: entry.product });
                }
            }
        }
        let set = |accept: &mut Accept<_>, list: Option<AnyOr<KeyDigest>>| {
            if let Some(list) = list {
                *accept = list.into();
            }
        };
        set(&mut policy.id_keys, file.id_keys);
        set(&mut policy.author_keys, file.author_keys);
        policy.products = file.products.map_or(policy.products, Accept::from);
        policy.denied_products = file.denied_products;
        policy.chips = Chips { allow: file.chips.map_or(Accept::Any, Accept::from), deny: file.denied_chips };
        not_both(&policy.products, &policy.denied_products, "products", "denied_products")?;
        not_both(&policy.chips.allow, &policy.chips.deny, "chips", "denied_chips")?;
        policy.minimum_abi = file.minimum_abi.unwrap_or(policy.minimum_abi);
        policy.provisional_firmware = file.provisional_firmware;
        policy.launch_mitigations = file.launch_mitigations;
        policy.current_mitigations = file.current_mitigations;
        policy.minimum_guest_svn = file.minimum_guest_svn;
        policy.max_crl_age = file.max_crl_age;
        policy.max_manifest_age = file.max_manifest_age;
        policy.max_policy_age = file.max_policy_age;
        policy.host_data = file.host_data.map_or(Accept::Any, Accept::from);
        // Whoever lists signers and no pairs means these signers, not everybody; an empty list means nobody.
        let unlisted = if file.signers.is_none() { Accept::Any } else { Accept::Only(Vec::new()) };
        policy.pairs = file.pairs.map_or(unlisted, Accept::from);
        policy.signers = file.signers.unwrap_or_default();
        policy.measurements = file.measurements.ok_or(E::NoMeasurements)?.into();
        Ok(policy)
    }

    /// For callers that ask no Rego: what this says of its age would be passed over.
    ///
    /// # Errors
    /// [`PolicyFileError::NoRego`].
    pub fn without_rego(self) -> Result<Self, PolicyFileError> {
        if self.max_policy_age == MaxAge::Any { Ok(self) } else { Err(PolicyFileError::NoRego) }
    }

    /// For callers whose guests no dated manifest admits: what this says of its age would be passed over.
    ///
    /// # Errors
    /// [`PolicyFileError::NoManifest`].
    pub fn without_manifests(self) -> Result<Self, PolicyFileError> {
        if self.max_manifest_age == MaxAge::Any { Ok(self) } else { Err(PolicyFileError::NoManifest) }
    }
}

/// Whoever lists and denies the same thing has made a mistake in one of the lists.
fn not_both<T: PartialEq + fmt::Display>(
    accepted: &Accept<T>,
    refused: &[T],
    listed: &'static str,
    denied: &'static str,
) -> Result<(), PolicyFileError> {
    let Accept::Only(accepted) = accepted else { return Ok(()) };
    match accepted.iter().find(|each| refused.contains(each)) {
        Some(found) => Err(PolicyFileError::Contradiction { listed, denied, found: found.to_string() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_strict_policy_parses_and_is_stricter_than_the_floor() {
        let strict = EvidencePolicy::strict();
        assert_eq!(strict.products, Accept::Only(vec![ProductLine::Genoa, ProductLine::Turin]));
        assert_eq!(strict.guest_policy.rule(PolicyBit::Debug), BitRule::Forbidden);
        assert_eq!(strict.platform.rule(PlatformBit::AliasCheckComplete), BitRule::Required);
        assert_eq!(strict.platform.unknown, BitRule::Forbidden);
        assert!(matches!(&strict.tcb, Accept::Only(entries) if entries.len() == 6));
    }

    #[test]
    fn a_file_that_only_waives_the_measurement_is_the_default_floor() {
        assert_eq!(EvidencePolicy::from_toml("measurements = \"any\"").unwrap(), EvidencePolicy::default_floor());
    }

    #[test]
    fn what_a_file_opens_beyond_the_floor_has_a_name() {
        let wider = |text: &str| {
            EvidencePolicy::from_toml(&format!("measurements = \"any\"\n{text}")).unwrap().wider_than_floor()
        };
        assert!(wider("").is_empty() && EvidencePolicy::strict().wider_than_floor().is_empty());
        assert!(wider("vmpls = []\n[guest_policy]\nsmt = \"forbidden\"").is_empty());
        assert_eq!(wider("vmpls = [0, 1]"), ["vmpls"]);
        assert_eq!(
            wider("[guest_policy]\ndebug = \"any\"\nmigrate_ma = \"required\""),
            ["guest_policy.migrate_ma", "guest_policy.debug"]
        );
    }

    #[test]
    fn a_version_has_two_numbers_and_no_third_that_is_passed_over() {
        let of = |text: &str| EvidencePolicy::from_toml(&format!("measurements = \"any\"\nminimum_abi = {text}"));
        assert_eq!(of("[1, 55]").unwrap().minimum_abi, (1, 55));
        for bad in ["[1, 55, 3]", "[1]", "[]", "[1, 256]", "\"1.55\""] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_age_of_rego_is_refused_where_no_rego_is_asked() {
        let policy = EvidencePolicy::from_toml("measurements = \"any\"\nmax_policy_age = \"7d\"").unwrap();
        assert_eq!(policy.max_policy_age, MaxAge::Seconds(604_800));
        assert_eq!(policy.without_rego(), Err(PolicyFileError::NoRego));
        assert_eq!(EvidencePolicy::strict().without_rego(), Ok(EvidencePolicy::strict()));
    }

    #[test]
    fn signers_without_pairs_admit_nobody_else() {
        let rule = format!(
            "measurements = \"any\"\nsigners = [{{ author_key = \"{}\", family_id = \"{}\", image_id = \"{}\", \
             minimum_guest_svn = 3 }}]\n",
            "ab".repeat(48),
            "01".repeat(16),
            "02".repeat(16)
        );
        let policy = EvidencePolicy::from_toml(&rule).unwrap();
        assert_eq!(policy.pairs, Accept::Only(vec![]));
        assert_eq!(policy.signers[0].minimum_guest_svn, 3);
        assert_eq!(EvidencePolicy::from_toml(&format!("{rule}pairs = \"any\"")).unwrap().pairs, Accept::Any);
        let nobody = EvidencePolicy::from_toml("measurements = \"any\"\nsigners = []").unwrap();
        assert_eq!((nobody.pairs, nobody.signers.len()), (Accept::Only(vec![]), 0), "an empty list accepts nothing");
        let without_svn = rule.replace("minimum_guest_svn = 3", "extra = 3");
        assert!(matches!(EvidencePolicy::from_toml(&without_svn), Err(PolicyFileError::Toml(_))));
    }

    #[test]
    fn errors_say_what_is_allowed_in_the_words_of_the_file() {
        let error = |text: &str| EvidencePolicy::from_toml(text).unwrap_err().to_string();
        for (text, wanted) in [
            ("measurements = \"all\"", "a list, or the word \"any\""),
            ("measurements = 7", "a list, or the word \"any\""),
            ("measurements = [\"00\"]", "MEASUREMENT is 48 bytes, found 1"),
            ("measurements = [\"zz\"]", "MEASUREMENT is not hexadecimal"),
            ("measurements = \"any\"\nproducts = [\"Rome\"]", "expected one of `Milan`, `Genoa`, `Turin`"),
            ("measurements = \"any\"\n[[tcb]]\nproduct = \"Genoa\"\nreported = { ucode = 1 }", "`microcode`"),
        ] {
            let said = error(text);
            assert!(said.contains(wanted), "{text}: {said}");
            assert!(!said.contains("AnyOr") && !said.contains("untagged"), "{said}");
        }
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let error = |text: &str| EvidencePolicy::from_toml(&format!("measurements = \"any\"\n{text}")).unwrap_err();
        for text in [
            "vmpl = [0]",
            "measurement = []",
            "products = [\"Venice\"]",
            "chips = \"all\"",
            "[guest_policy]\ndebug = \"no\"",
            "[[tcb]]\nproduct = \"Genoa\"",
            "[[tcb]]\nproduct = \"Genoa\"\nreported = { ucode = 1 }",
            "host_data = [\"00\"]",
            "[[tcb]]\nproduct = \"Genoa\"\nreported = { snp = 1 }\nstep = 1",
            "[[tcb]]\nproduct = \"Genoa\"\nreported = { snp = 256 }",
            "denied_products = [\"Rome\"]",
            "max_crl_age = \"0d\"",
            "max_crl_age = 7",
            "max_manifest_age = \"a week\"",
            "max_policy_age = 7",
        ] {
            assert!(matches!(error(text), PolicyFileError::Toml(_)), "{text}");
        }
        assert!(matches!(error("vmpls = [4]"), PolicyFileError::Vmpl { found: 4 }));
        assert!(matches!(error("[guest_policy]\ndebugs = \"any\""), PolicyFileError::UnknownBit { .. }));
        assert!(matches!(error("[platform_info]\nraps = \"any\""), PolicyFileError::UnknownBit { .. }));
        for rules in
            ["reported = { fmc = 1 }", "reported = {}\ncommitted = { fmc = 1 }", "reported = {}\nlaunch = { fmc = 1 }"]
        {
            let text = format!("[[tcb]]\nproduct = \"Milan\"\n{rules}");
            assert_eq!(error(&text), PolicyFileError::Fmc { product: ProductLine::Milan });
        }
        let chip = "07".repeat(64);
        for (text, listed, found) in [
            ("products = [\"Milan\", \"Genoa\"]\ndenied_products = [\"Genoa\"]".to_owned(), "products", "Genoa"),
            (format!("chips = [\"{chip}\"]\ndenied_chips = [\"{chip}\"]"), "chips", chip.as_str()),
        ] {
            let error = error(&text);
            assert!(matches!(&error, PolicyFileError::Contradiction { listed: l, .. } if *l == listed), "{error}");
            assert!(error.to_string().contains(found), "{error}");
        }
        let apart = format!("chips = [\"{chip}\"]\ndenied_chips = [\"{}\"]\nproducts = \"any\"", "08".repeat(64));
        assert!(EvidencePolicy::from_toml(&format!("measurements = \"any\"\n{apart}")).is_ok());
        for rules in ["reported = {}", "reported = { snp = 0 }", "reported = {}\nlaunch = { tee = 0 }"] {
            let text = format!("[[tcb]]\nproduct = \"Milan\"\n{rules}");
            assert_eq!(error(&text), PolicyFileError::EmptyTcb { product: ProductLine::Milan }, "{rules}");
        }
        let pair = |more: &str| {
            let (m, h) = ("1".repeat(96), "2".repeat(64));
            EvidencePolicy::from_toml(&format!(
                "measurements = \"any\"\npairs = [{{ measurement = \"{m}\", host_data = \"{h}\"{more} }}]"
            ))
        };
        assert!(pair("").is_ok());
        assert!(matches!(pair(", chip = \"any\""), Err(PolicyFileError::Toml(_))), "an unknown key in a pair");
        let long = " ".repeat(MAX_POLICY + 1);
        assert!(matches!(EvidencePolicy::from_toml(&long), Err(PolicyFileError::TooLong { .. })));
        assert_eq!(EvidencePolicy::from_toml("vmpls = [0]"), Err(PolicyFileError::NoMeasurements));
    }
}
