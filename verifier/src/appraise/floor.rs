//! The checks of the typed floor. Each writes one line, whether it passes or not.

use super::{
    age::{Age, MaxAge},
    expected::ExpectedGuest,
    policy::{Accept, BitRule, EvidencePolicy, FirmwareRule, Pair, SignerRule, TcbMinimum, TcbRule},
};
use crate::{
    CheckLine, Code, Reason,
    abi::{PolicyBit, Report, TcbVersion},
    trail::Trail,
    verify::{CrlStatus, VerifiedReport},
};

/// What the floor said.
#[derive(Default)]
pub(super) struct Floor {
    pub reasons: Vec<Reason>,
    pub trail: Trail,
}

impl Floor {
    fn check(
        &mut self,
        ok: bool,
        code: Code,
        found: impl core::fmt::Display,
        expected: impl core::fmt::Display,
        hint: &'static str,
    ) {
        if ok {
            self.trail.pass(code, found, expected);
        } else {
            let reason = Reason::new(code, found, expected, hint);
            self.trail.fail(&reason);
            self.reasons.push(reason);
        }
    }

    /// `usable`: none for a zero word, which matches no rule.
    fn listed<T: PartialEq + ToString>(
        &mut self,
        code: Code,
        found: &T,
        usable: Usable,
        accepted: &Accept<T>,
        hint: &'static str,
    ) {
        let found_text = found.to_string();
        match (accepted, usable) {
            (Accept::Any, _) => self.trail.waive(code, found_text, "any: the policy names none"),
            (Accept::Only(list), Usable::Yes) => {
                self.check(list.contains(found), code, found_text, one_of(list), hint);
            }
            (Accept::Only(list), Usable::No(why)) => {
                self.check(false, code, format_args!("{found_text} ({why})"), one_of(list), hint);
            }
        }
    }

    pub fn lines(self) -> Vec<CheckLine> {
        self.trail.lines
    }
}

/// Whether a value can match a rule at all.
#[derive(Clone, Copy)]
enum Usable {
    Yes,
    /// It cannot, and why.
    No(&'static str),
}

impl Usable {
    const fn unless(zero: bool, why: &'static str) -> Self {
        if zero { Self::No(why) } else { Self::Yes }
    }
}

const ZERO: &str = "zero, which matches no rule, one that lists zero included";

/// Runs every check: first whether the guest is the expected one, which no policy can widen, then the policy's.
pub(super) fn apply(verified: &VerifiedReport, policy: &EvidencePolicy, guest: &ExpectedGuest) -> Floor {
    let report = verified.report();
    let mut floor = Floor::default();
    expected(&mut floor, report, policy, guest);
    floor.listed(
        Code::ProductRefused,
        &verified.product(),
        Usable::Yes,
        &policy.products,
        "run on one of the listed products, or list this one",
    );
    let denied = &policy.denied_products;
    if denied.is_empty() {
        floor.trail.waive(Code::ProductDenied, verified.product(), "any: the policy denies none");
    } else {
        floor.check(
            !denied.contains(&verified.product()),
            Code::ProductDenied,
            verified.product(),
            format_args!("not {}", one_of(denied)),
            "run on a product line that is not denied",
        );
    }
    chips(&mut floor, verified, policy);
    let vmpl = report.vmpl();
    floor.check(
        policy.vmpls.contains(&vmpl),
        Code::Vmpl,
        vmpl,
        one_of(&policy.vmpls),
        "the report was asked for from a less privileged level than the policy wants",
    );
    bits(&mut floor, report, policy);
    tcb(&mut floor, verified, policy);
    mitigations(&mut floor, report, policy);
    crl_age(&mut floor, verified, policy.max_crl_age);
    floor.check(
        report.guest_svn() >= policy.minimum_guest_svn,
        Code::GuestSvn,
        report.guest_svn(),
        format_args!("{} or higher", policy.minimum_guest_svn),
        "launch a newer version of the guest",
    );
    identities(&mut floor, report, policy);
    floor
}

fn chips(floor: &mut Floor, verified: &VerifiedReport, policy: &EvidencePolicy) {
    let chip = verified.report().chip_id();
    floor.listed(
        Code::ChipNotListed,
        &chip,
        Usable::unless(chip.is_zero(), "masked, which matches no list"),
        &policy.chips.allow,
        "run on a listed chip, or add this one after proof of where it stands",
    );
    let denied = &policy.chips.deny;
    if denied.is_empty() {
        floor.trail.waive(Code::ChipDenied, chip, "any: the policy denies none");
        return;
    }
    // By what the leaf certifies as well: masking CHIP_ID hides no chip that has a VCEK.
    let shown = verified.chip();
    floor.check(
        shown.is_some_and(|chip| !denied.contains(&chip)),
        Code::ChipDenied,
        shown.map_or_else(|| "none: masked, under a VLEK".to_owned(), |chip| chip.to_string()),
        format_args!("shown, and none of {} denied", denied.len()),
        "this chip is denied, or not shown and so not known to be another",
    );
}

fn bits(floor: &mut Floor, report: &Report, policy: &EvidencePolicy) {
    let guest = report.policy();
    for (bit, code, hint) in [
        (PolicyBit::MigrateMa, Code::MigrationAgent, "launch the guest without a migration agent"),
        (PolicyBit::Debug, Code::Debug, "the host can read this guest's memory: launch it without the debug bit"),
    ] {
        let (rule, found) = (policy.guest_policy.rule(bit), format!("{} {}", bit.name(), u8::from(guest.has(bit))));
        // Required is nothing a debug check is for: it is a wish about POLICY like any other.
        match rule {
            BitRule::Any => floor.trail.waive(code, found, "any: the policy has no rule"),
            BitRule::Forbidden => floor.check(rule.admits(guest.has(bit)), code, found, expected_bit(rule), hint),
            BitRule::Required => floor.trail.skip(code, "the policy requires this bit: see guest-policy"),
        }
    }
    let broken: Vec<_> = policy
        .guest_policy
        .broken(guest)
        .filter(|(bit, rule)| !(matches!(bit, PolicyBit::Debug | PolicyBit::MigrateMa) && *rule == BitRule::Forbidden))
        .collect();
    if broken.is_empty() {
        floor.check(true, Code::GuestPolicy, guest, "the bits the policy wants", "");
    }
    for (bit, rule) in broken {
        floor.check(
            false,
            Code::GuestPolicy,
            format_args!("{} {}", bit.name(), u8::from(guest.has(bit))),
            expected_bit(rule),
            "launch the guest with another POLICY",
        );
    }
    let (major, minor) = guest.abi();
    floor.check(
        guest.abi() >= policy.minimum_abi,
        Code::MinimumAbi,
        format_args!("{major}.{minor}"),
        format_args!("{}.{} or higher", policy.minimum_abi.0, policy.minimum_abi.1),
        "launch the guest with a higher ABI version in POLICY",
    );
    let info = report.platform_info();
    let broken: Vec<_> = policy.platform.broken(info).collect();
    if broken.is_empty() {
        floor.check(true, Code::PlatformInfo, info, "the bits the policy wants", "");
    }
    for (bit, rule) in broken {
        floor.check(
            false,
            Code::PlatformInfo,
            format_args!("{} {}", bit.name(), u8::from(info.has(bit))),
            expected_bit(rule),
            "change the host's firmware settings or version",
        );
    }
    let unknown = info.unknown_bits();
    let wanted = match policy.platform.unknown {
        BitRule::Any => {
            floor.trail.waive(Code::PlatformInfoUnknown, format_args!("{unknown:#x}"), "any: the policy has no rule");
            return;
        }
        BitRule::Required => "some",
        BitRule::Forbidden => "none",
    };
    floor.check(
        policy.platform.unknown.admits(unknown != 0),
        Code::PlatformInfoUnknown,
        format_args!("{unknown:#x}"),
        wanted,
        "a newer verifier may know these bits",
    );
}

const fn expected_bit(rule: BitRule) -> &'static str {
    match rule {
        BitRule::Any => "any",
        BitRule::Required => "1",
        BitRule::Forbidden => "0",
    }
}

const UPDATE: &str = "update the host's firmware and microcode, then ask for a report under the new TCB";

fn tcb(floor: &mut Floor, verified: &VerifiedReport, policy: &EvidencePolicy) {
    let report = verified.report();
    let tcbs = verified.tcbs();
    let each = [
        (Code::TcbMinimum, tcbs.reported),
        (Code::TcbMinimumCommitted, tcbs.committed),
        (Code::TcbMinimumLaunch, tcbs.launch),
    ];
    match &policy.tcb {
        Accept::Any => {
            floor.trail.waive(Code::TcbNoMinimum, processor(verified), "any: the policy has no minimum");
            for (code, found) in each {
                floor.trail.waive(code, found, "any: the policy has no minimum");
            }
        }
        Accept::Only(entries) => match matching(verified, entries) {
            Err((found, expected)) => {
                floor.check(
                    false,
                    Code::TcbNoMinimum,
                    found,
                    expected,
                    "add a minimum for this processor, or run on one that has one",
                );
                for (code, _) in each {
                    floor.trail.skip(code, "the policy has no minimum for this processor");
                }
            }
            Ok(matching) => {
                floor.check(true, Code::TcbNoMinimum, processor(verified), "a minimum in the policy", "");
                for (code, found) in each {
                    let mut ruled = false;
                    for entry in &matching {
                        let rule = match code {
                            Code::TcbMinimumCommitted => entry.committed.as_ref(),
                            Code::TcbMinimumLaunch => entry.launch.as_ref(),
                            _ => Some(&entry.reported),
                        };
                        ruled |= rule.is_some();
                        at_least(floor, code, found, rule, &entry.source);
                    }
                    if !ruled {
                        floor.trail.waive(code, found, "any: the policy's entry has no such minimum");
                    }
                }
            }
        },
    }
    let provisional = tcbs.committed != tcbs.current || report.committed_firmware() != report.current_firmware();
    let committed = format!("committed {} ({})", tcbs.committed, report.committed_firmware());
    match policy.provisional_firmware {
        FirmwareRule::Accepted => {
            floor.trail.waive(Code::ProvisionalFirmware, committed, "any: the policy accepts provisional firmware");
        }
        FirmwareRule::Refused => floor.check(
            !provisional,
            Code::ProvisionalFirmware,
            committed,
            format_args!("current {} ({})", tcbs.current, report.current_firmware()),
            "the host's operator must commit the firmware (SNP_COMMIT)",
        ),
    }
}

/// The reporting processor, as far as it is stated.
fn processor(verified: &VerifiedReport) -> String {
    let product = verified.product();
    verified.report().cpuid().map_or_else(
        || format!("{product}, model not stated"),
        |cpu| format!("{product} model {:#04x} stepping {:#x}", cpu.model, cpu.stepping),
    )
}

/// Entries for the reporting processor. None at all is a refusal, and so is an entry that might apply to a version 2
/// report, which does not say which model it comes from.
fn matching<'a>(
    verified: &VerifiedReport,
    entries: &'a [TcbMinimum],
) -> Result<Vec<&'a TcbMinimum>, (String, &'static str)> {
    let product = verified.product();
    let mut out = Vec::new();
    for entry in entries.iter().filter(|entry| entry.product == product) {
        let Some(cpu) = verified.report().cpuid() else {
            if entry.model.is_some() || entry.stepping.is_some() {
                return Err((processor(verified), "a report of version 3 or later"));
            }
            out.push(entry);
            continue;
        };
        if entry.model.is_none_or(|model| model == cpu.model)
            && entry.stepping.is_none_or(|stepping| stepping == cpu.stepping)
        {
            out.push(entry);
        }
    }
    if out.is_empty() {
        return Err((processor(verified), "a processor with a minimum TCB in the policy"));
    }
    Ok(out)
}

fn at_least(floor: &mut Floor, code: Code, found: TcbVersion, rule: Option<&TcbRule>, source: &str) {
    let Some(rule) = rule else { return };
    let least = TcbVersion {
        fmc: found.fmc.map(|_| rule.fmc),
        bootloader: rule.bootloader,
        tee: rule.tee,
        snp: rule.snp,
        microcode: rule.microcode,
    };
    let ok = found.at_least(least) && (found.fmc.is_some() || rule.fmc == 0);
    let because = if source.is_empty() { String::new() } else { format!(" ({source})") };
    floor.check(ok, code, found, format!("at least {least}{because}"), UPDATE);
}

fn mitigations(floor: &mut Floor, report: &Report, policy: &EvidencePolicy) {
    for (code, found, wanted) in [
        (Code::LaunchMitigations, report.launch_mit_vector(), policy.launch_mitigations),
        (Code::CurrentMitigations, report.current_mit_vector(), policy.current_mitigations),
    ] {
        let stated = found.map_or_else(|| "absent".to_owned(), |found| format!("{found:#x}"));
        if wanted == 0 {
            floor.trail.waive(code, stated, "any: the policy demands none");
            continue;
        }
        floor.check(
            found.is_some_and(|found| found & wanted == wanted),
            code,
            stated,
            format_args!("all of {wanted:#x}"),
            "the host needs firmware that has these mitigations and reports them (report version 5)",
        );
    }
}

fn crl_age(floor: &mut Floor, verified: &VerifiedReport, limit: MaxAge) {
    let CrlStatus::Checked { number, this_update, .. } = verified.crl() else {
        let hint = "give a revocation list: a policy that says how old it may be does not go without";
        return match limit {
            MaxAge::Any => floor.trail.waive(Code::CrlAge, "no list", "any: the policy has no limit"),
            MaxAge::Seconds(_) => floor.check(false, Code::CrlAge, "no list: revocation was waived", limit, hint),
        };
    };
    let age = verified.verified_at().0.saturating_sub(this_update.0);
    let found = format!("list {number} of {this_update}, {} old", Age(age).rough());
    match limit {
        MaxAge::Any => floor.trail.waive(Code::CrlAge, found, "any: the policy has no limit"),
        MaxAge::Seconds(_) => floor.check(
            limit.admits(age),
            Code::CrlAge,
            found,
            limit,
            "bring a list made since then, as its issuer's key distribution service (KDS) has it today; where today's is no younger, the policy asks \
             for more than there is",
        ),
    }
}

fn identities(floor: &mut Floor, report: &Report, policy: &EvidencePolicy) {
    let measurement = report.measurement();
    floor.listed(
        Code::Measurement,
        &measurement,
        Usable::unless(measurement.is_zero(), ZERO),
        &policy.measurements,
        "the guest runs another platform image, command line or vCPU set than the listed ones",
    );
    let host_data = report.host_data();
    floor.listed(
        Code::HostData,
        &host_data,
        Usable::unless(host_data.is_zero(), ZERO),
        &policy.host_data,
        "the guest was launched for another workload spec",
    );
    let id_key = report.id_key_digest();
    let usable = Usable::unless(id_key.is_zero(), "zero: launched without an ID block");
    floor.listed(Code::IdKey, &id_key, usable, &policy.id_keys, "launch with an ID block by a listed key");
    let author_key = report.author_key_digest();
    let usable = match (report.key_info().author_key_en, author_key.is_zero()) {
        (false, _) => Usable::No("AUTHOR_KEY_EN is 0: no author signed"),
        (true, zero) => Usable::unless(zero, ZERO),
    };
    floor.listed(
        Code::AuthorKey,
        &author_key,
        usable,
        &policy.author_keys,
        "launch with an ID block whose key a listed author signed",
    );
}

/// The guest the caller expects, and beside it what the policy lists: each must hold, so that neither widens the other.
fn expected(floor: &mut Floor, report: &Report, policy: &EvidencePolicy, guest: &ExpectedGuest) {
    let found = Pair { measurement: report.measurement(), host_data: report.host_data() };
    let listed_by_policy = policy.pairs != Accept::Any || !policy.signers.is_empty();
    match guest {
        ExpectedGuest::WhateverThePolicyAdmits if !listed_by_policy => {
            floor.trail.waive(Code::Guest, found, "any: neither the caller nor the policy names a guest");
            floor.trail.skip(Code::Signer, NO_AUTHOR);
        }
        ExpectedGuest::WhateverThePolicyAdmits => {}
        ExpectedGuest::Exactly(pair) => {
            admission(floor, report, &Accept::Only(vec![*pair]), &[], "");
        }
        ExpectedGuest::Admitted { pairs, signers } => {
            admission(floor, report, &Accept::Only(pairs.clone()), signers, "");
        }
    }
    if listed_by_policy {
        admission(floor, report, &policy.pairs, &policy.signers, "by the policy: ");
    }
}

const NO_AUTHOR: &str = "no author is listed whose launches would be admitted";

/// By pair or by signer: one is enough, and where none fits both say why.
fn admission(floor: &mut Floor, report: &Report, pairs: &Accept<Pair>, signers: &[SignerRule], whose: &str) {
    let pair = Pair { measurement: report.measurement(), host_data: report.host_data() };
    let usable = !pair.measurement.is_zero() && !pair.host_data.is_zero();
    let (by_pair, wanted) = match pairs {
        Accept::Any => (true, "any".to_owned()),
        Accept::Only(list) if list.is_empty() => (false, "a pair listed for it; there is none".to_owned()),
        Accept::Only(list) => (usable && list.contains(&pair), one_of(list)),
    };
    let wanted = format!("{whose}{wanted}");
    let signed = SignerRule {
        author_key: report.author_key_digest(),
        family_id: report.family_id(),
        image_id: report.image_id(),
        minimum_guest_svn: report.guest_svn(),
    };
    let author = if report.key_info().author_key_en { signed.describe("") } else { "no author key".to_owned() };
    let by_signer = signers.iter().find(|rule| rule.admits(report));

    let only_signers = !signers.is_empty() && *pairs == Accept::Only(Vec::new());
    let found = if usable { pair.to_string() } else { format!("{pair} ({ZERO})") };
    match (by_pair, by_signer) {
        (true, _) => floor.trail.pass(Code::Guest, found, wanted),
        (false, Some(_)) => floor.trail.skip(Code::Guest, "an author admits it: see signer"),
        (false, None) if only_signers => floor.trail.skip(Code::Guest, "no pair is listed, only authors: see signer"),
        (false, None) => {
            floor.check(false, Code::Guest, found, wanted, other_than(pair, pairs));
        }
    }
    match by_signer {
        Some(rule) => floor.trail.pass(Code::Signer, author, format_args!("{whose}{rule}")),
        None if signers.is_empty() => floor.trail.skip(Code::Signer, NO_AUTHOR),
        None if by_pair => floor.trail.skip(Code::Signer, "a listed pair admits it: see measurement-and-workload"),
        None => floor.check(
            false,
            Code::Signer,
            author,
            format_args!("{whose}{}", one_of(signers)),
            "launch with an ID block that a listed author signed for this family and image, at a version not below the least",
        ),
    }
}

impl SignerRule {
    fn describe(&self, or_higher: &str) -> String {
        let Self { author_key, family_id, image_id, minimum_guest_svn } = self;
        format!("author {author_key} family {family_id} image {image_id} svn {minimum_guest_svn}{or_higher}")
    }
}

impl core::fmt::Display for SignerRule {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.describe(" or higher"))
    }
}

/// What of a guest is another: what runs, or what it runs on. A measurement covers the workload too, so that HOST_DATA decides.
fn other_than(found: Pair, pairs: &Accept<Pair>) -> &'static str {
    match pairs {
        Accept::Only(list) if list.iter().any(|pair| pair.host_data == found.host_data) => {
            "the workload was admitted, and this platform (MEASUREMENT) was not for it: admit it, or start the workload on one that was"
        }
        _ => {
            "this workload (HOST_DATA) was not admitted: admit it with this platform, or see whether it is the guest that is meant"
        }
    }
}

impl core::fmt::Display for Pair {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} for {}", self.measurement, self.host_data)
    }
}

/// A list as text; long ones are cut, since a reason is read by people.
fn one_of<T: ToString>(list: &[T]) -> String {
    match list {
        [] => "nothing: the list is empty".to_owned(),
        [one] => one.to_string(),
        [first, second] => format!("{} or {}", first.to_string(), second.to_string()),
        [first, rest @ ..] => format!("{} or one of {} more", first.to_string(), rest.len()),
    }
}
