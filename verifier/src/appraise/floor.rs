//! The checks of the typed floor. Each writes one line, whether it passes or not.

use super::policy::{Accept, BitRule, EvidencePolicy, FirmwareRule, Pair, SignerRule, TcbMinimum, TcbRule};
use crate::{
    CheckLine, Reason,
    abi::{FamilyId, ImageId, Report, TcbVersion},
    verify::VerifiedReport,
};

/// What the floor said.
pub(super) struct Floor {
    pub reasons: Vec<Reason>,
    pub checks: Vec<CheckLine>,
}

impl Floor {
    fn check(
        &mut self,
        ok: bool,
        code: &'static str,
        found: impl ToString,
        expected: impl ToString,
        hint: &'static str,
    ) {
        if ok {
            self.checks.push(CheckLine::passed(code, found, expected));
        } else {
            let reason = Reason::new(code, found, expected, hint);
            self.checks.push(CheckLine::from(&reason));
            self.reasons.push(reason);
        }
    }

    fn listed<T: PartialEq + ToString>(
        &mut self,
        code: &'static str,
        found: &T,
        usable: bool,
        accepted: &Accept<T>,
        hint: &'static str,
    ) {
        match accepted {
            Accept::Any => self.check(true, code, found.to_string(), "any", hint),
            Accept::Only(list) => {
                self.check(usable && list.contains(found), code, found.to_string(), one_of(list), hint);
            }
        }
    }
}

/// Runs every check.
pub(super) fn apply(verified: &VerifiedReport, policy: &EvidencePolicy) -> Floor {
    let report = verified.report();
    let mut floor = Floor { reasons: Vec::new(), checks: Vec::new() };
    floor.listed(
        "product-refused",
        &verified.product(),
        true,
        &policy.products,
        "run on one of the listed products, or list this one",
    );
    let denied = &policy.denied_products;
    floor.check(
        !denied.contains(&verified.product()),
        "product-denied",
        verified.product(),
        if denied.is_empty() { "any".to_owned() } else { format!("not {}", one_of(denied)) },
        "run on a product line that is not denied",
    );
    chips(&mut floor, report, policy);
    let vmpl = report.vmpl();
    floor.check(
        policy.vmpls.contains(&vmpl),
        "vmpl",
        vmpl,
        one_of(&policy.vmpls),
        "the report was asked for from a less privileged level than the policy wants",
    );
    bits(&mut floor, report, policy);
    tcb(&mut floor, verified, policy);
    mitigations(&mut floor, report, policy);
    floor.check(
        report.guest_svn() >= policy.minimum_guest_svn,
        "guest-svn",
        report.guest_svn(),
        format!("{} or higher", policy.minimum_guest_svn),
        "launch a newer version of the guest",
    );
    identities(&mut floor, report, policy);
    floor
}

fn chips(floor: &mut Floor, report: &Report, policy: &EvidencePolicy) {
    let chip = report.chip_id();
    let unmasked = !chip.is_zero();
    floor.listed(
        "chip-not-listed",
        &chip,
        unmasked,
        &policy.chips.allow,
        "run on a listed chip, or add this one after proof of where it stands",
    );
    let denied = &policy.chips.deny;
    floor.check(
        denied.is_empty() || (unmasked && !denied.contains(&chip)),
        "chip-denied",
        chip,
        if denied.is_empty() { "any".to_owned() } else { format!("unmasked and none of {} denied", denied.len()) },
        "this chip is denied, or masked and so not known to be another",
    );
}

fn bits(floor: &mut Floor, report: &Report, policy: &EvidencePolicy) {
    let guest = report.policy();
    let broken: Vec<_> = policy.guest_policy.broken(guest).collect();
    if broken.is_empty() {
        floor.check(true, "guest-policy", guest, "the bits the policy wants", "");
    }
    for (bit, rule) in broken {
        let (code, hint) = match (bit, rule) {
            (crate::abi::PolicyBit::Debug, BitRule::Forbidden) => {
                ("debug", "the host can read this guest's memory: launch it without the debug bit")
            }
            (crate::abi::PolicyBit::MigrateMa, BitRule::Forbidden) => {
                ("migration-agent", "launch the guest without a migration agent")
            }
            _ => ("guest-policy", "launch the guest with another POLICY"),
        };
        floor.check(false, code, format!("{} {}", bit.name(), u8::from(guest.has(bit))), expected_bit(rule), hint);
    }
    let (major, minor) = guest.abi();
    floor.check(
        guest.abi() >= policy.minimum_abi,
        "minimum-abi",
        format!("{major}.{minor}"),
        format!("{}.{} or higher", policy.minimum_abi.0, policy.minimum_abi.1),
        "launch the guest with a higher ABI version in POLICY",
    );
    let info = report.platform_info();
    let broken: Vec<_> = policy.platform.broken(info).collect();
    if broken.is_empty() {
        floor.check(true, "platform-info", info, "the bits the policy wants", "");
    }
    for (bit, rule) in broken {
        floor.check(
            false,
            "platform-info",
            format!("{} {}", bit.name(), u8::from(info.has(bit))),
            expected_bit(rule),
            "change the host's firmware settings or version",
        );
    }
    let unknown = info.unknown_bits();
    floor.check(
        policy.platform.unknown.admits(unknown != 0),
        "platform-info-unknown",
        format!("{unknown:#x}"),
        match policy.platform.unknown {
            BitRule::Any => "any",
            BitRule::Required => "some",
            BitRule::Forbidden => "none",
        },
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
    match &policy.tcb {
        Accept::Any => floor.check(true, "tcb-minimum", tcbs.reported, "any", ""),
        Accept::Only(entries) => match matching(verified, entries) {
            Err((found, expected)) => floor.check(
                false,
                "tcb-no-minimum",
                found,
                expected,
                "add a minimum for this processor, or run on one that has one",
            ),
            Ok(matching) => {
                for entry in matching {
                    at_least(floor, "tcb-minimum", tcbs.reported, Some(&entry.reported), &entry.source);
                    at_least(floor, "tcb-minimum-committed", tcbs.committed, entry.committed.as_ref(), &entry.source);
                    at_least(floor, "tcb-minimum-launch", tcbs.launch, entry.launch.as_ref(), &entry.source);
                }
            }
        },
    }
    let provisional = tcbs.committed != tcbs.current || report.committed_firmware() != report.current_firmware();
    floor.check(
        policy.provisional_firmware == FirmwareRule::Accepted || !provisional,
        "provisional-firmware",
        format!("committed {} ({})", tcbs.committed, report.committed_firmware()),
        match policy.provisional_firmware {
            FirmwareRule::Accepted => "any".to_owned(),
            FirmwareRule::Refused => format!("current {} ({})", tcbs.current, report.current_firmware()),
        },
        "the host's operator must commit the firmware (SNP_COMMIT)",
    );
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
                return Err((format!("{product}, model not stated"), "a report of version 3 or later"));
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
        let found = verified.report().cpuid().map_or_else(
            || product.to_string(),
            |cpu| format!("{product} model {:#04x} stepping {:#x}", cpu.model, cpu.stepping),
        );
        return Err((found, "a processor with a minimum TCB in the policy"));
    }
    Ok(out)
}

fn at_least(floor: &mut Floor, code: &'static str, found: TcbVersion, rule: Option<&TcbRule>, source: &str) {
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
        ("launch-mitigations", report.launch_mit_vector(), policy.launch_mitigations),
        ("current-mitigations", report.current_mit_vector(), policy.current_mitigations),
    ] {
        floor.check(
            wanted == 0 || found.is_some_and(|found| found & wanted == wanted),
            code,
            found.map_or_else(|| "absent".to_owned(), |found| format!("{found:#x}")),
            if wanted == 0 { "any".to_owned() } else { format!("all of {wanted:#x}") },
            "the host needs firmware that has these mitigations and reports them (report version 5)",
        );
    }
}

fn identities(floor: &mut Floor, report: &Report, policy: &EvidencePolicy) {
    let measurement = report.measurement();
    floor.listed(
        "measurement",
        &measurement,
        !measurement.is_zero(),
        &policy.measurements,
        "the guest runs another platform image, command line or vCPU set than the listed ones",
    );
    let host_data = report.host_data();
    floor.listed(
        "host-data",
        &host_data,
        !host_data.is_zero(),
        &policy.host_data,
        "the guest was launched for another workload spec",
    );
    admission(floor, report, policy);
    let id_key = report.id_key_digest();
    floor.listed("id-key", &id_key, !id_key.is_zero(), &policy.id_keys, "launch with an ID block by a listed key");
    let author_key = report.author_key_digest();
    floor.listed(
        "author-key",
        &author_key,
        report.key_info().author_key_en && !author_key.is_zero(),
        &policy.author_keys,
        "launch with an ID block whose key a listed author signed",
    );
}

/// By pair or by signer: one is enough, and where none fits both say why.
fn admission(floor: &mut Floor, report: &Report, policy: &EvidencePolicy) {
    let pair = Pair { measurement: report.measurement(), host_data: report.host_data() };
    let signed = SignerRule {
        author_key: report.author_key_digest(),
        family_id: FamilyId::new(report.family_id()),
        image_id: ImageId::new(report.image_id()),
        minimum_guest_svn: report.guest_svn(),
    };
    let found = if report.key_info().author_key_en { signed.describe("") } else { "no author key".to_owned() };
    if let Some(rule) = policy.signers.iter().find(|rule| rule.admits(report)) {
        floor.check(true, "signer", found, rule, "");
        return;
    }
    if policy.signers.is_empty() || policy.pairs != Accept::Only(Vec::new()) {
        floor.listed(
            "measurement-and-workload",
            &pair,
            !pair.measurement.is_zero() && !pair.host_data.is_zero(),
            &policy.pairs,
            "this platform was not admitted for this workload",
        );
    }
    let by_pair = match &policy.pairs {
        Accept::Any => true,
        Accept::Only(list) => list.contains(&pair),
    };
    if !policy.signers.is_empty() && !by_pair {
        floor.check(
            false,
            "signer",
            found,
            one_of(&policy.signers),
            "launch with an ID block that a listed author signed for this family and image, at a version not below the least",
        );
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
