//! The attacks by name, with the answer each must get.

/// What an attack is aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Certificates and their signatures.
    Chain,
    /// Patch levels.
    Tcb,
    /// Which chip, which key.
    Identity,
    /// What the owner asked for.
    Policy,
    /// Dates and revocation.
    Freshness,
    /// What REPORT_DATA and HOST_DATA are about.
    Binding,
    /// Bytes.
    Encoding,
}

/// What a correct verifier answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case", tag = "class", content = "policy")]
pub enum Expect {
    /// The evidence is not authentic, whatever the policy.
    NotAuthentic,
    /// It is authentic, and the policy named refuses it.
    Refused(&'static str),
}

/// One attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Attack {
    /// Name on the command line.
    pub name: &'static str,
    /// Aim.
    pub group: Group,
    /// The right answer.
    #[serde(flatten)]
    pub expect: Expect,
    /// What is wrong.
    pub what: &'static str,
}

/// The attack of that name.
pub fn find(name: &str) -> Option<&'static Attack> {
    ATTACKS.iter().find(|attack| attack.name == name)
}

const fn bad(group: Group, name: &'static str, what: &'static str) -> Attack {
    Attack { name, group, expect: Expect::NotAuthentic, what }
}

const fn refused(group: Group, name: &'static str, policy: &'static str, what: &'static str) -> Attack {
    Attack { name, group, expect: Expect::Refused(policy), what }
}

use Group::{Binding, Chain, Encoding, Freshness, Identity, Policy, Tcb};

/// All attacks.
pub const ATTACKS: &[Attack] = &[
    bad(Chain, "impostor-root", "a consistent chain under the right names, by another root key"),
    bad(Chain, "intermediate-by-stranger", "the ASK is signed by a key that is not the ARK"),
    bad(Chain, "leaf-by-stranger", "the leaf is signed by a key that is not the ASK"),
    bad(Chain, "leaf-by-root", "the leaf is signed by the ARK, past the ASK"),
    bad(Chain, "root-signature", "one bit of the ARK's self-signature is flipped"),
    bad(Chain, "leaf-signature", "one bit of the leaf's signature is flipped"),
    bad(Chain, "intermediate-without-ca", "the ASK's basic constraints say it is no authority"),
    bad(Chain, "intermediate-missing", "the certificate table lacks the ASK"),
    bad(Chain, "salt-of-32", "the leaf's algorithm identifier states another PSS salt length"),
    bad(Chain, "algorithms-differ", "the leaf's inner and outer algorithm identifiers differ"),
    bad(Chain, "critical-extension", "the leaf has a critical extension nobody knows"),
    bad(Chain, "product-name", "the leaf names another product line than its issuer"),
    bad(Freshness, "leaf-expired", "the leaf's validity ended yesterday"),
    bad(Freshness, "leaf-not-yet-valid", "the leaf's validity begins tomorrow"),
    bad(Freshness, "intermediate-expired", "the ASK's validity ended yesterday"),
    bad(Freshness, "root-expired", "the ARK's validity ended yesterday"),
    bad(Freshness, "intermediate-revoked", "the revocation list names the ASK"),
    bad(Freshness, "crl-stale", "the revocation list's next update is past"),
    bad(Freshness, "crl-from-tomorrow", "the revocation list's this-update lies ahead"),
    bad(Freshness, "crl-missing", "there is no revocation list"),
    bad(Freshness, "crl-by-intermediate", "the revocation list is signed by the ASK"),
    bad(Tcb, "tcb-not-certified", "the leaf certifies a higher TCB than the report states"),
    bad(Tcb, "tcb-overstated", "the report states a higher TCB than the leaf certifies"),
    bad(Tcb, "tcb-reserved", "a reserved byte of REPORTED_TCB is set"),
    refused(Tcb, "tcb-old", "tcb", "every patch level is far behind, and honestly so"),
    refused(Tcb, "microcode-old", "tcb", "microcode alone is behind"),
    refused(
        Tcb,
        "firmware-provisional",
        "provisional-firmware",
        "committed lags behind current: it can be rolled back",
    ),
    bad(Identity, "chip-differs", "the report names another chip than the leaf"),
    bad(Identity, "chip-key-masked", "the firmware wrote zeros in place of a signature"),
    bad(Identity, "vcek-as-vlek", "the report says VLEK, its certificate is a VCEK's"),
    bad(Identity, "unknown-processor", "CPUID family and model of no known product line"),
    bad(Identity, "other-product", "CPUID family and model of another product line"),
    refused(Identity, "chip-masked", "chips", "CHIP_ID is zero"),
    refused(Identity, "chip-not-listed", "chips", "a genuine chip that nobody listed"),
    refused(Policy, "debug", "floor", "the guest policy allows debugging"),
    refused(Policy, "migration", "floor", "the guest policy allows a migration agent"),
    refused(Policy, "vmpl-3", "floor", "the report was asked for at VMPL 3"),
    refused(Policy, "alias-check-open", "platform", "the platform never completed its memory alias check"),
    refused(Policy, "other-measurement", "measurement", "another launch digest"),
    refused(Policy, "zero-measurement", "measurement", "a launch digest of zeros"),
    refused(Policy, "other-host-data", "host-data", "another workload under the same platform"),
    bad(Binding, "replayed", "made for another challenge: REPORT_DATA differs"),
    bad(Binding, "report-data-zero", "REPORT_DATA is zero"),
    bad(Binding, "host-requested", "asked for by the host (VMPL FFFFFFFF), not by a guest"),
    bad(Encoding, "measurement-bit", "one bit of MEASUREMENT flipped after signing"),
    bad(Encoding, "host-data-bit", "one bit of HOST_DATA flipped after signing"),
    bad(Encoding, "signature-big-endian", "R and S in the other byte order"),
    bad(Encoding, "signature-zero", "R and S are zero"),
    bad(Encoding, "signature-r-order", "R is the order of the group"),
    bad(Encoding, "signature-padding", "a byte beyond the 48 of R is set"),
    bad(Encoding, "signature-algorithm", "SIGNATURE_ALGO is zero, and signed so"),
    bad(Encoding, "reserved-signed", "a reserved byte is set, and signed so"),
    bad(Encoding, "reserved-unsigned", "a byte after the signature is set"),
    bad(Encoding, "policy-reserved", "a reserved bit of POLICY is set, and signed so"),
    bad(Encoding, "key-info-reserved", "a reserved signing key, and signed so"),
    bad(Encoding, "version-1", "report version 1, and signed so"),
    bad(Encoding, "version-99", "report version 99, and signed so"),
    bad(Encoding, "truncated", "the last byte is missing"),
    bad(Encoding, "trailing-byte", "one byte too many"),
    bad(Encoding, "table-overlap", "two entries of the certificate table share bytes"),
    bad(Encoding, "table-overflow", "an entry's offset and length wrap around"),
    bad(Encoding, "table-duplicate", "the certificate table has two leaves"),
];
