//! What speaks against a typed policy: mistakes for which it is not read, and what it reads as but nobody will have meant.
//!
//! Takes the text, gives every finding with its line. Trusts nothing in it. Never: says that a policy without findings is a good one.

mod mistakes;
mod places;
#[cfg(test)]
mod tests;

use coffer_verifier::abi::{ChipId, HostData, KeyDigest, Measurement, PolicyBit, ProductLine};
use coffer_verifier::said::plain;
use coffer_verifier::{
    Accept, BitRule, EvidencePolicy, Look, MaxAge, Pair, PolicyFileError, SignerRule, TcbMinimum, TcbRule,
};
use toml::Table;

use crate::lint::Finding;
use places::Places;

/// Every kind of finding, and what it says.
pub const TYPED_FINDINGS: [(&str, &str); 14] = [
    ("mistake", "it is no TOML, or a key or value is not what it should be: no program reads this policy"),
    ("any-guest", "neither measurements, pairs, signers nor keys are listed: whatever a genuine chip runs is accepted"),
    ("host-data-alone", "HOST_DATA is all that says which guest: the host chooses it, so it proves nothing alone"),
    ("debug-allowed", "guests that their host may read are accepted"),
    ("migration-allowed", "guests that a migration agent may carry elsewhere are accepted"),
    ("other-vmpls", "less privileged software of a guest may ask for the report too"),
    ("no-minimum-tcb", "no minimum TCB: firmware and microcode with known flaws are accepted"),
    (
        "microcode-of-any-model",
        "a microcode level, and not for which model and stepping: within one alone they compare",
    ),
    ("unsigned-version", "minimum_guest_svn, and no ID key, author key or signer: whoever launches states the version"),
    ("all-refused", "nothing is accepted, or nothing of this product line"),
    ("never-matches", "an entry that no report can match, beside what else is demanded"),
    ("no-effect", "it changes nothing beside what else stands there"),
    ("twice", "the same entry stands there twice"),
    ("long-age", "an age of more than a year"),
];

/// Who says which guests are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guests {
    /// This policy alone.
    Here,
    /// Something beside it: a key broker's references, or the reference that a command is given.
    Elsewhere,
}

/// Everything that speaks against a typed policy of this text, sorted by place.
pub fn lint_typed(file: &str, text: &str, guests: Guests) -> Vec<Finding> {
    let mut lint = Lint { file, places: Places::of(text), findings: Vec::new() };
    match EvidencePolicy::from_toml(text) {
        Ok(policy) => lint.policy(&policy, guests),
        Err(error) => lint.mistakes(text, &error),
    }
    lint.findings.sort();
    lint.findings.dedup();
    lint.findings
}

struct Lint<'a> {
    file: &'a str,
    places: Places<'a>,
    findings: Vec<Finding>,
}

/// Lists end by themselves after about 45 days, and that is how AMD makes them.
const LIST_LASTS: u32 = 60 * DAY;
const YEAR: u32 = 366 * DAY;
const DAY: u32 = 86_400;

impl Lint<'_> {
    fn say(&mut self, (line, column): (u32, u32), code: &'static str, message: impl Into<String>) {
        self.findings.push(Finding { file: self.file.to_owned(), line, column, code, message: message.into() });
    }

    fn at(&mut self, road: &[&str], code: &'static str, message: impl Into<String>) {
        self.say(self.places.key(road), code, message);
    }

    /// Not the first alone, as a reader has it: each key by itself.
    fn mistakes(&mut self, text: &str, error: &PolicyFileError) {
        let document: Table = match toml::from_str(text) {
            Ok(document) => document,
            Err(error) => {
                let look = Look::of(text.as_bytes());
                if !matches!(look, Look::Text | Look::Empty) {
                    let more = if look == Look::Tar { ": pack a bundle with `tar -z`" } else { "" };
                    return self.say((1, 1), "mistake", format!("{look} where a policy (TOML) is due{more}"));
                }
                let start = error.span().map_or(0, |span| span.start);
                self.say(self.places.byte(start), "mistake", plain(error.message()));
                return;
            }
        };
        if !document.contains_key("measurements") {
            self.say((1, 1), "mistake", said(&PolicyFileError::NoMeasurements));
        }
        let before = self.findings.len();
        for (key, value) in &document {
            self.key(key, value);
        }
        if self.findings.len() > before || *error == PolicyFileError::NoMeasurements {
            return;
        }
        // Each can be read by itself, and not beside the others.
        match error {
            PolicyFileError::Contradiction { denied, .. } => self.at(&[denied], "mistake", said(error)),
            _ => self.say((1, 1), "mistake", said(error)),
        }
    }

    fn policy(&mut self, policy: &EvidencePolicy, guests: Guests) {
        self.which_guests(policy, guests);
        self.opened(policy);
        self.minimum(policy);
        self.lists(policy);
        self.admitted(policy);
        self.ages(policy);
    }

    fn which_guests(&mut self, policy: &EvidencePolicy, guests: Guests) {
        let any_key = policy.id_keys == Accept::Any && policy.author_keys == Accept::Any && policy.signers.is_empty();
        if policy.minimum_guest_svn > 0 && any_key {
            let message =
                "GUEST_SVN stands in the ID block, which whoever launches signs: list id_keys, author_keys or signers";
            self.at(&["minimum_guest_svn"], "unsigned-version", message);
        }
        let any_guest = policy.measurements == Accept::Any && policy.pairs == Accept::Any && any_key;
        if guests == Guests::Elsewhere || !any_guest {
            return;
        }
        if policy.host_data == Accept::Any {
            let message = "whatever a genuine chip runs is accepted: list launch digests, pairs or signers";
            self.at(&["measurements"], "any-guest", message);
        } else {
            let message = "the host chooses HOST_DATA, so it proves nothing alone: list measurements too, or pairs";
            self.at(&["host_data"], "host-data-alone", message);
        }
    }

    fn opened(&mut self, policy: &EvidencePolicy) {
        if policy.guest_policy.rule(PolicyBit::Debug) != BitRule::Forbidden {
            let message = "the host may read such a guest's memory: debug = \"forbidden\" is what is left out";
            self.at(&["guest_policy", "debug"], "debug-allowed", message);
        }
        if policy.guest_policy.rule(PolicyBit::MigrateMa) != BitRule::Forbidden {
            let message = "a migration agent, of which nothing is checked, may take such a guest elsewhere";
            self.at(&["guest_policy", "migrate_ma"], "migration-allowed", message);
        }
        if policy.vmpls.iter().any(|vmpl| *vmpl != 0) {
            let message =
                "what runs above VMPL 0 is less privileged software of the guest's, and may report in its place";
            self.at(&["vmpls"], "other-vmpls", message);
        }
    }

    fn minimum(&mut self, policy: &EvidencePolicy) {
        let Accept::Only(entries) = &policy.tcb else {
            let message =
                "firmware and microcode with known flaws are accepted: `coffer policy show strict` has AMD's minima";
            return self.at(&["tcb"], "no-minimum-tcb", message);
        };
        let rules = |entry: &TcbMinimum| [Some(entry.reported), entry.committed, entry.launch];
        for (number, entry) in entries.iter().enumerate() {
            let microcode = |rule: &TcbRule| rule.microcode != 0;
            let any_model = entry.model.is_none() || entry.stepping.is_none();
            if any_model && rules(entry).iter().flatten().any(microcode) {
                let message = "microcode levels compare only within one model and stepping: name both";
                self.say(self.places.item("tcb", number), "microcode-of-any-model", message);
            }
            if entries[..number].contains(entry) {
                self.say(self.places.item("tcb", number), "twice", "the same minimum stands there already");
            }
        }
        if entries.is_empty() {
            return self.at(&["tcb"], "all-refused", "no processor has a minimum, and those without one are refused");
        }
        let Accept::Only(products) = &policy.products else { return };
        for product in products.iter().filter(|line| !entries.iter().any(|entry| entry.product == **line)) {
            let message = format!("{product} is listed, and refused: no [[tcb]] is for it");
            self.at(&["products"], "all-refused", message);
        }
    }

    fn lists(&mut self, policy: &EvidencePolicy) {
        for (key, accepts_nothing) in [
            ("products", is_empty(&policy.products)),
            ("chips", is_empty(&policy.chips.allow)),
            ("vmpls", policy.vmpls.is_empty()),
            ("measurements", is_empty(&policy.measurements)),
            ("host_data", is_empty(&policy.host_data)),
            ("id_keys", is_empty(&policy.id_keys)),
            ("author_keys", is_empty(&policy.author_keys)),
            ("pairs", is_empty(&policy.pairs) && policy.signers.is_empty()),
        ] {
            if accepts_nothing {
                self.at(&[key], "all-refused", "an empty list accepts nothing");
            }
        }
        if ProductLine::ALL.iter().all(|line| policy.denied_products.contains(line)) {
            self.at(&["denied_products"], "all-refused", "every product line is denied");
        }
        if matches!(&policy.products, Accept::Only(_)) && !policy.denied_products.is_empty() {
            self.at(&["denied_products"], "no-effect", "products lists those that are accepted, and none of these");
        }
        if matches!(&policy.chips.allow, Accept::Only(_)) && !policy.chips.deny.is_empty() {
            self.at(&["denied_chips"], "no-effect", "chips lists those that are accepted, and none of these");
        }
        self.each("products", &policy.products, |_| false);
        self.each("chips", &policy.chips.allow, ChipId::is_zero);
        self.each("denied_products", &Accept::Only(policy.denied_products.clone()), |_| false);
        self.each("denied_chips", &Accept::Only(policy.chips.deny.clone()), ChipId::is_zero);
        self.each("measurements", &policy.measurements, Measurement::is_zero);
        self.each("host_data", &policy.host_data, HostData::is_zero);
        self.each("id_keys", &policy.id_keys, KeyDigest::is_zero);
        self.each("author_keys", &policy.author_keys, KeyDigest::is_zero);
    }

    fn each<T: PartialEq + core::fmt::Display>(&mut self, key: &str, accept: &Accept<T>, is_zero: impl Fn(&T) -> bool) {
        let Accept::Only(list) = accept else { return };
        for (number, one) in list.iter().enumerate() {
            if is_zero(one) {
                self.at(&[key], "never-matches", "zero matches no report");
            }
            if list[..number].contains(one) {
                self.at(&[key], "twice", format!("{one} stands there twice"));
            }
        }
    }

    fn admitted(&mut self, policy: &EvidencePolicy) {
        let admits = |pair: &Pair| {
            !pair.measurement.is_zero()
                && !pair.host_data.is_zero()
                && accepts(&policy.measurements, &pair.measurement)
                && accepts(&policy.host_data, &pair.host_data)
        };
        if let Accept::Only(pairs) = &policy.pairs {
            for (number, pair) in pairs.iter().enumerate() {
                if !admits(pair) {
                    let message = "zero matches no report, and what measurements or host_data do not list is refused";
                    self.say(self.places.item("pairs", number), "never-matches", message);
                }
                if pairs[..number].contains(pair) {
                    self.say(self.places.item("pairs", number), "twice", "the same pair stands there already");
                }
            }
        } else if !policy.signers.is_empty() {
            self.at(&["signers"], "no-effect", "pairs = \"any\" admits every launch, signed by them or not");
        }
        let may_sign = |one: &SignerRule| !one.author_key.is_zero() && accepts(&policy.author_keys, &one.author_key);
        for (number, one) in policy.signers.iter().enumerate() {
            if !may_sign(one) {
                let message = "zero matches no author, and one whom author_keys does not list is refused";
                self.say(self.places.item("signers", number), "never-matches", message);
            }
            if policy.signers[..number].contains(one) {
                self.say(self.places.item("signers", number), "twice", "the same signer stands there already");
            }
        }
    }

    fn ages(&mut self, policy: &EvidencePolicy) {
        let longer = |age: MaxAge, most: u32| matches!(age, MaxAge::Seconds(seconds) if seconds > most);
        if longer(policy.max_crl_age, LIST_LASTS) {
            let message = "a revocation list is over after about 45 days by itself";
            self.at(&["max_crl_age"], "no-effect", message);
        }
        for (key, age) in [("max_manifest_age", policy.max_manifest_age), ("max_policy_age", policy.max_policy_age)] {
            if longer(age, YEAR) {
                let message =
                    "what was signed over a year ago counts: a date is of use where somebody renews it each week";
                self.at(&[key], "long-age", message);
            }
        }
    }
}

fn is_empty<T>(accept: &Accept<T>) -> bool {
    matches!(accept, Accept::Only(list) if list.is_empty())
}

fn accepts<T: PartialEq>(accept: &Accept<T>, one: &T) -> bool {
    match accept {
        Accept::Any => true,
        Accept::Only(list) => list.contains(one),
    }
}

/// Its own words: a parser's begin with a place in the text it was given, which is not this one.
fn said(error: &PolicyFileError) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("policy file: ").unwrap_or(&text);
    let words = match error {
        PolicyFileError::Toml(_) => text.split_once(": ").map_or(text, |(_, words)| words),
        _ => text,
    };
    words.trim().to_owned()
}
