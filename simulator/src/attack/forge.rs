//! Makes good evidence, and the same with one thing wrong.

use std::sync::OnceLock;

use coffer_verifier::Evidence;
use coffer_verifier::abi::report::offset;
use coffer_verifier::abi::{
    CertKind, CertTable, ChipId, HostData, KeyDigest, Measurement, ProductLine, REPORT_LEN, ReportData, ReportId,
    SigningKey as KeyName, TcbVersion,
};
use p384::ecdsa::SigningKey;

use super::list::find;
use crate::derive::ChipSecret;
use crate::installation::{Installation, InstallationError, VCEK_YEARS, authority_validity, leaf_validity, public_key};
use crate::options::{LaunchOptions, TcbState};
use crate::report::{self, GuestFacts};
use crate::x509::{
    AuthorityKey, CryptoError, Extension, PssEncoding, Revoked, Template, Validity, ark_template, ask_template,
    vcek_template,
};

/// What the evidence is about, good or bad.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Platform; its VLEK makes good evidence under a VLEK, attacks are made under the VCEK.
    pub options: LaunchOptions,
    /// MEASUREMENT of the good guest.
    pub measurement: Measurement,
    /// HOST_DATA of the good guest.
    pub host_data: HostData,
    /// REPORT_DATA the verifier asked for.
    pub report_data: ReportData,
}

impl Scene {
    /// A well-kept platform of `product` at `now`, with a measurement and host data of the kit's own.
    pub fn new(product: ProductLine, now: u64) -> Self {
        Self {
            options: LaunchOptions::new(product, now),
            measurement: Measurement::new([0x4d; 48]),
            host_data: HostData::new([0x48; 32]),
            report_data: ReportData::new([0x52; 64]),
        }
    }

    /// The policy under which the good guest, and it alone, is accepted: a policy file of ours, which for any other verifier
    /// says what to configure.
    pub fn policy_toml(&self, installation: &Installation) -> String {
        let product = self.options.product;
        let TcbVersion { fmc, bootloader, tee, snp, microcode } = self.options.tcb.reported;
        let fmc = fmc.map_or(String::new(), |fmc| format!("fmc = {fmc}, "));
        let (measurement, host_data, chip) = (self.measurement, self.host_data, installation.chip_id(product));
        format!(
            r#"products = ["{product}"]
measurements = ["{measurement}"]
host_data = ["{host_data}"]
chips = ["{chip}"]
vmpls = [0]
provisional_firmware = "refused"

[guest_policy]
debug = "forbidden"
migrate_ma = "forbidden"

[platform_info]
alias_check_complete = "required"

[[tcb]]
product = "{product}"
reported = {{ {fmc}bootloader = {bootloader}, tee = {tee}, snp = {snp}, microcode = {microcode} }}
source = "coffer sim"
"#
        )
    }
}

impl EvidenceSet {
    /// All of it as one record.
    pub fn evidence(&self) -> Evidence {
        Evidence {
            report: self.report.clone(),
            cert_table: self.cert_table.clone(),
            crls: self.crl.iter().cloned().collect(),
            workload_spec: Vec::new(),
        }
    }
}

/// Evidence in pieces and as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceSet {
    /// ATTESTATION_REPORT.
    pub report: Vec<u8>,
    /// ARK, DER.
    pub ark: Vec<u8>,
    /// ASK or ASVK, DER.
    pub intermediate: Vec<u8>,
    /// VCEK or VLEK, DER.
    pub leaf: Vec<u8>,
    /// True if the leaf is a VLEK.
    pub is_vlek: bool,
    /// CRL, DER, unless it is missing.
    pub crl: Option<Vec<u8>>,
    /// Certificate table.
    pub cert_table: Vec<u8>,
}

/// Why there is no such evidence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttackError {
    /// No attack of that name.
    #[error("unknown attack {0:?}")]
    Unknown(String),
    /// Keys.
    #[error(transparent)]
    Installation(#[from] InstallationError),
    /// The platform asked for is none.
    #[error("the kit needs a TCB above zero and below the maximum")]
    Scene,
}

/// Good evidence.
///
/// # Errors
/// [`AttackError`].
pub fn genuine(installation: &Installation, scene: &Scene) -> Result<EvidenceSet, AttackError> {
    let options = &scene.options;
    let (product, tcb) = (options.product, options.tcb.reported);
    let facts = facts(installation, scene);
    let (key, name) = match options.vlek.as_deref() {
        Some(csp_id) => (installation.chip().vlek(product, csp_id, tcb), KeyName::Vlek),
        None => (installation.chip().vcek(product, tcb), KeyName::Vcek),
    };
    let mut report = report::unsigned(&facts, &scene.report_data, 0, name);
    report::sign(&mut report, &key);
    let ends = installation.endorse(product, tcb, options.vlek.as_deref(), options.now)?;
    Ok(EvidenceSet {
        report: report.to_vec(),
        cert_table: ends.cert_table(),
        ark: ends.ark,
        intermediate: ends.intermediate,
        leaf: ends.leaf,
        is_vlek: ends.is_vlek,
        crl: Some(ends.crl),
    })
}

/// Evidence with the one thing wrong that `name` says.
///
/// # Errors
/// [`AttackError`].
pub fn forge(installation: &Installation, scene: &Scene, name: &str) -> Result<EvidenceSet, AttackError> {
    let attack = find(name).ok_or_else(|| AttackError::Unknown(name.to_owned()))?;
    let mut scene = scene.clone();
    scene.options.vlek = None;
    let mut forger = Forger::new(installation, &scene)?;
    forger.spoil_guest(attack.name);
    forger.spoil_chain(attack.name)?;
    Ok(forger.finish(attack.name))
}

struct Forger<'a> {
    installation: &'a Installation,
    scene: Scene,
    facts: GuestFacts,
    vmpl: u32,
    key_name: KeyName,
    key: SigningKey,
    /// Written into the report before it is signed.
    signed_patches: Vec<(usize, Vec<u8>)>,
    /// Certified by the leaf, if not what the report states.
    certified: Option<TcbVersion>,
    certified_chip: Option<ChipId>,
    ark: Vec<u8>,
    ask: Vec<u8>,
    leaf: Option<Vec<u8>>,
    crl: Option<Vec<u8>>,
}

impl<'a> Forger<'a> {
    fn new(installation: &'a Installation, scene: &Scene) -> Result<Self, AttackError> {
        let product = scene.options.product;
        let reported = scene.options.tcb.reported;
        if reported.microcode == 0 || reported.microcode == u8::MAX || reported.snp == 0 {
            return Err(AttackError::Scene);
        }
        Ok(Self {
            installation,
            facts: facts(installation, scene),
            vmpl: 0,
            key_name: KeyName::Vcek,
            key: installation.chip().vcek(product, reported),
            signed_patches: Vec::new(),
            certified: None,
            certified_chip: None,
            ark: installation.product(product)?.ark.certificate.clone(),
            ask: installation.ask(product)?.to_vec(),
            leaf: None,
            crl: Some(installation.crl(product, scene.options.now)?),
            scene: scene.clone(),
        })
    }

    /// What the guest or its platform is.
    fn spoil_guest(&mut self, name: &str) {
        let tcb = self.scene.options.tcb.reported;
        let options = &mut self.facts.options;
        match name {
            "tcb-not-certified" => self.certified = Some(TcbVersion { microcode: tcb.microcode + 1, ..tcb }),
            "tcb-overstated" => {
                self.certified = Some(tcb);
                let above = TcbVersion { microcode: tcb.microcode + 1, ..tcb };
                options.tcb = TcbState::all(above);
            }
            "tcb-reserved" => self.signed_patches.push((offset::REPORTED_TCB + 4, vec![1])),
            "tcb-old" => {
                let old = TcbVersion { fmc: tcb.fmc.map(|_| 0), bootloader: 0, tee: 0, snp: 1, microcode: 1 };
                self.at_tcb(TcbState::all(old));
            }
            "microcode-old" => self.at_tcb(TcbState::all(TcbVersion { microcode: tcb.microcode - 1, ..tcb })),
            "firmware-provisional" => {
                let above = TcbVersion { microcode: tcb.microcode + 1, ..tcb };
                self.at_tcb(TcbState { current: above, launch: above, committed: tcb, reported: tcb });
            }
            "chip-differs" => {
                self.certified_chip = Some(self.facts.chip_id);
                self.facts.chip_id = other_chip(self.scene.options.product);
            }
            "chip-not-listed" => self.facts.chip_id = other_chip(self.scene.options.product),
            "chip-masked" => {
                options.mask_chip_id = true;
                self.certified_chip = Some(self.facts.chip_id);
            }
            "chip-key-masked" => {
                options.mask_chip_key = true;
                self.key_name = KeyName::None;
            }
            "vcek-as-vlek" => self.key_name = KeyName::Vlek,
            "unknown-processor" => (options.cpuid.family, options.cpuid.model) = (0x17, 0x31),
            "other-product" => {
                let other = if options.product == ProductLine::Genoa { ProductLine::Milan } else { ProductLine::Genoa };
                options.cpuid = crate::options::default_cpuid(other);
            }
            "debug" => options.policy |= 1 << 19,
            "migration" => options.policy |= 1 << 18,
            "vmpl-3" => self.vmpl = 3,
            "host-requested" => self.vmpl = u32::MAX,
            "alias-check-open" => options.platform_info &= !(1 << 5),
            "other-measurement" => self.facts.measurement = Measurement::new([0x6d; 48]),
            "zero-measurement" => self.facts.measurement = Measurement::new([0; 48]),
            "other-host-data" => self.facts.host_data = HostData::new([0x68; 32]),
            "replayed" => {
                let mut other = *self.scene.report_data.as_bytes();
                for byte in &mut other {
                    *byte = !*byte;
                }
                self.scene.report_data = ReportData::new(other);
            }
            "report-data-zero" => self.scene.report_data = ReportData::new([0; 64]),
            "signature-algorithm" => self.signed_patches.push((offset::SIGNATURE_ALGO, vec![0])),
            "reserved-signed" => self.signed_patches.push((0x4c, vec![1])),
            "policy-reserved" => self.signed_patches.push((offset::POLICY + 7, vec![0x80])),
            "key-info-reserved" => self.signed_patches.push((offset::KEY_INFO, vec![3 << 2])),
            "version-1" => self.signed_patches.push((offset::VERSION, vec![1])),
            "version-99" => self.signed_patches.push((offset::VERSION, vec![99])),
            _ => {}
        }
    }

    /// The platform is at another TCB, with the endorsement key of that TCB.
    fn at_tcb(&mut self, tcb: TcbState) {
        self.facts.options.tcb = tcb;
        self.key = self.installation.chip().vcek(self.scene.options.product, tcb.reported);
    }

    /// Certificates and revocation list.
    fn spoil_chain(&mut self, name: &str) -> Result<(), AttackError> {
        let options = &self.scene.options;
        let (product, now) = (options.product, options.now);
        let keys = self.installation.product(product)?;
        let (ark, ask) = (&keys.ark.key, &keys.ask.key);
        let yesterday = Validity { from: now.saturating_sub(30 * DAY), to: now.saturating_sub(DAY) };
        let encode = InstallationError::from;
        let ask_with = |validity| ask_template(product, validity, ask.spki(), ark.spki()).map_err(encode);
        let mut leaf = self.leaf_template()?;
        let mut leaf_signer = ask;
        match name {
            "impostor-root" => {
                let stranger = stranger()?;
                let spki = stranger.spki();
                let valid = authority_validity(now);
                self.ark = sign(&ark_template(product, valid, spki).map_err(encode)?, stranger)?;
                self.ask = sign(&ask_template(product, valid, spki, spki).map_err(encode)?, stranger)?;
                let mut crl = self.installation.crl_template(product, now)?;
                crl.issuer_spki = spki.to_vec();
                self.crl = Some(crl.sign(stranger).map_err(InstallationError::from)?);
                leaf_signer = stranger;
            }
            "intermediate-by-stranger" => self.ask = sign(&ask_with(authority_validity(now))?, stranger()?)?,
            "intermediate-expired" => self.ask = sign(&ask_with(yesterday)?, ark)?,
            "intermediate-without-ca" => {
                let mut template = ask_with(authority_validity(now))?;
                for extension in template.extensions.iter_mut().filter(|extension| extension.oid == BASIC_CONSTRAINTS) {
                    extension.value = vec![0x30, 0x00];
                }
                self.ask = sign(&template, ark)?;
            }
            "root-expired" => {
                self.ark = sign(&ark_template(product, yesterday, ark.spki()).map_err(encode)?, ark)?;
            }
            "root-signature" => flip_last_bit(&mut self.ark),
            "leaf-by-stranger" => leaf_signer = stranger()?,
            "leaf-by-root" => leaf_signer = ark,
            "leaf-expired" => leaf.validity = yesterday,
            "leaf-not-yet-valid" => leaf.validity.from = now + DAY,
            "salt-of-32" => {
                leaf.inner_algorithm = PssEncoding::SaltOf32;
                leaf.outer_algorithm = PssEncoding::SaltOf32;
            }
            "algorithms-differ" => leaf.outer_algorithm = PssEncoding::WithTrailer,
            "critical-extension" => leaf.extensions.push(Extension {
                oid: "1.3.6.1.4.1.3704.1.99",
                critical: true,
                value: vec![0x05, 0x00],
            }),
            "product-name" => {
                let other: &[u8] = if product == ProductLine::Genoa { b"\x16\x05Turin" } else { b"\x16\x05Genoa" };
                for extension in leaf.extensions.iter_mut().filter(|extension| extension.oid == PRODUCT_NAME) {
                    extension.value = other.to_vec();
                }
            }
            "intermediate-revoked" => {
                let mut crl = self.installation.crl_template(product, now)?;
                let serial = crate::x509::serial(crate::x509::KeyKind::Ask, product);
                crl.revoked.push(Revoked { serial, at: crl.validity.from });
                self.crl = Some(crl.sign(ark).map_err(InstallationError::from)?);
            }
            "crl-stale" | "crl-from-tomorrow" => {
                let mut crl = self.installation.crl_template(product, now)?;
                crl.validity =
                    if name == "crl-stale" { yesterday } else { Validity { from: now + DAY, to: now + 45 * DAY } };
                self.crl = Some(crl.sign(ark).map_err(InstallationError::from)?);
            }
            "crl-missing" => self.crl = None,
            "crl-by-intermediate" => {
                let crl = self.installation.crl_template(product, now)?;
                self.crl = Some(crl.sign(ask).map_err(InstallationError::from)?);
            }
            _ => {}
        }
        let mut leaf = sign(&leaf, leaf_signer)?;
        if name == "leaf-signature" {
            flip_last_bit(&mut leaf);
        }
        self.leaf = Some(leaf);
        Ok(())
    }

    fn leaf_template(&self) -> Result<Template, AttackError> {
        let options = &self.scene.options;
        let spki = public_key(&self.key).map_err(InstallationError::from)?;
        let tcb = self.certified.unwrap_or(self.facts.options.tcb.reported);
        let chip = self.certified_chip.unwrap_or(self.facts.chip_id);
        let template = vcek_template(options.product, leaf_validity(options.now, VCEK_YEARS), &spki, tcb, &chip);
        Ok(template.map_err(InstallationError::from)?)
    }

    /// Signs the report, spoils its bytes, and puts all together.
    fn finish(self, name: &str) -> EvidenceSet {
        let mut report = report::unsigned(&self.facts, &self.scene.report_data, self.vmpl, self.key_name);
        for (at, bytes) in &self.signed_patches {
            report[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        if self.key_name != KeyName::None {
            report::sign(&mut report, &self.key);
        }
        let mut report = report.to_vec();
        spoil_bytes(name, &mut report);
        let leaf = self.leaf.unwrap_or_default();
        let cert_table = table(name, &self.ark, &self.ask, &leaf, self.crl.as_deref());
        EvidenceSet { report, ark: self.ark, intermediate: self.ask, leaf, is_vlek: false, crl: self.crl, cert_table }
    }
}

fn spoil_bytes(name: &str, report: &mut Vec<u8>) {
    match name {
        "measurement-bit" => report[offset::MEASUREMENT] ^= 1,
        "host-data-bit" => report[offset::HOST_DATA] ^= 1,
        "signature-big-endian" => {
            report[offset::R..offset::R + 48].reverse();
            report[offset::S..offset::S + 48].reverse();
        }
        "signature-zero" => report[offset::R..offset::S + 72].fill(0),
        "signature-r-order" => {
            for (index, byte) in P384_ORDER.iter().rev().enumerate() {
                report[offset::R + index] = *byte;
            }
        }
        "signature-padding" => report[offset::R + 60] = 1,
        "reserved-unsigned" => report[REPORT_LEN - 1] = 1,
        "truncated" => {
            report.pop();
        }
        "trailing-byte" => report.push(0),
        _ => {}
    }
}

fn table(name: &str, ark: &[u8], ask: &[u8], leaf: &[u8], crl: Option<&[u8]>) -> Vec<u8> {
    let mut entries = vec![(CertKind::Ark, ark), (CertKind::Ask, ask), (CertKind::Vcek, leaf)];
    if name == "intermediate-missing" {
        entries.remove(1);
    }
    if name == "table-duplicate" {
        entries.push((CertKind::Vcek, leaf));
    }
    entries.extend(crl.map(|crl| (CertKind::Crl, crl)));
    let mut table = CertTable::write(&entries);
    // Offset and length of the second entry stand after its GUID.
    let second = 24 + 16;
    match name {
        "table-overlap" => table.copy_within(16..20, second),
        "table-overflow" => table[second..second + 8].fill(0xff),
        _ => {}
    }
    table
}

fn facts(installation: &Installation, scene: &Scene) -> GuestFacts {
    GuestFacts {
        options: scene.options.clone(),
        measurement: scene.measurement,
        host_data: scene.host_data,
        guest_svn: 0,
        family_id: [0; 16],
        image_id: [0; 16],
        id_key_digest: KeyDigest::new([0; 48]),
        author_key_digest: None,
        report_id: ReportId::new([0x49; 32]),
        chip_id: installation.chip_id(scene.options.product),
    }
}

fn other_chip(product: ProductLine) -> ChipId {
    ChipSecret::new([0x43; 32]).chip_id(product)
}

/// A key that certifies nothing anybody trusts, made once per process.
fn stranger() -> Result<&'static AuthorityKey, InstallationError> {
    static STRANGER: OnceLock<Result<AuthorityKey, CryptoError>> = OnceLock::new();
    STRANGER.get_or_init(AuthorityKey::generate).as_ref().map_err(|error| InstallationError::Crypto(*error))
}

fn sign(template: &Template, key: &AuthorityKey) -> Result<Vec<u8>, InstallationError> {
    Ok(template.sign(key)?)
}

fn flip_last_bit(bytes: &mut [u8]) {
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
}

const DAY: u64 = 86_400;
const BASIC_CONSTRAINTS: &str = "2.5.29.19";
const PRODUCT_NAME: &str = "1.3.6.1.4.1.3704.1.2";
/// Order of the group, FIPS 186-4 §D.1.2.4.
const P384_ORDER: [u8; 48] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf, 0x58, 0x1a, 0x0d, 0xb2, 0x48, 0xb0,
    0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
];
