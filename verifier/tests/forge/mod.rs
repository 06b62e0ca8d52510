//! Forges whole chains in AMD's form, so that a test can spoil exactly one thing.
#![allow(missing_docs)]

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{KeyPair as _, RSA_PSS_SHA384, RsaKeyPair},
};
use coffer_verifier::{
    CrlPolicy, EndorsementError, Endorsements, ExpectedReportData, TrustAnchors, UnixTime, VerifiedReport, VerifyError,
    abi::{SpkiDigest, report::offset},
    verify,
};
use p384::ecdsa::{Signature, SigningKey, signature::Signer as _};

pub const NOW: &str = "2026-09-20T00:00:00Z";
/// RSASSA-PSS, SHA-384, MGF1-SHA-384, salt 48; AMD's newer form.
pub const PSS: &str = "304106092a864886f70d01010a3034a00f300d06096086480165030402020500a11c301a06092a864886f70d010108\
300d06096086480165030402020500a203020130";
/// The same with the trailer field spelled out; AMD's older form.
pub const PSS_TRAILER: &str = "304606092a864886f70d01010a3039a00f300d06096086480165030402020500a11c301a06092a864886f7\
0d010108300d06096086480165030402020500a203020130a303020101";
/// The same with salt 32.
pub const PSS_SALT_32: &str = "304106092a864886f70d01010a3034a00f300d06096086480165030402020500a11c301a06092a864886f70d\
010108300d06096086480165030402020500a203020120";

pub const BASIC: &str = "551d13";
pub const USAGE: &str = "551d0f";
pub const CRL_NUMBER: &str = "551d14";
pub const DELTA: &str = "551d1b";
pub const PARTITION: &str = "551d1c";
/// 1.3.6.1.4.1.3704.1
pub const AMD: &str = "2b060104019c7801";

pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..=0x7f => out.push(short as u8),
        long @ 0x80..=0xff => out.extend([0x81, long as u8]),
        longer => {
            out.push(0x82);
            out.extend((longer as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(content);
    out
}

pub fn hexed(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

pub fn integer(value: u8) -> Vec<u8> {
    if value < 0x80 { vec![2, 1, value] } else { vec![2, 2, 0, value] }
}

/// A name; `cn` may be several common names with `|` between them.
pub fn name(cn: &str) -> Vec<u8> {
    let rdn =
        |oid: &str, text: &str| tlv(0x31, &tlv(0x30, &[tlv(6, &hexed(oid)), tlv(0x0c, text.as_bytes())].concat()));
    let names: Vec<u8> = cn.split('|').flat_map(|cn| rdn("550403", cn)).collect();
    tlv(0x30, &[rdn("55040a", "Coffer Forgery"), names].concat())
}

/// One extension.
#[derive(Clone)]
pub struct Extension {
    pub oid: Vec<u8>,
    pub critical: bool,
    pub value: Vec<u8>,
}

impl Extension {
    pub fn new(oid: &str, critical: bool, value: Vec<u8>) -> Self {
        Self { oid: hexed(oid), critical, value }
    }

    /// An AMD extension; `tail` is hexadecimal after 1.3.6.1.4.1.3704.1.
    pub fn amd(tail: &str, value: Vec<u8>) -> Self {
        Self::new(&format!("{AMD}{tail}"), false, value)
    }

    fn encode(&self) -> Vec<u8> {
        let critical = if self.critical { vec![1, 1, 0xff] } else { Vec::new() };
        tlv(0x30, &[tlv(6, &self.oid), critical, tlv(4, &self.value)].concat())
    }
}

/// Everything in a certificate that a test may spoil.
#[derive(Clone)]
pub struct Cert {
    pub version: u8,
    pub serial: Vec<u8>,
    pub inner_algorithm: String,
    pub outer_algorithm: String,
    pub issuer: String,
    pub subject: String,
    pub from: String,
    pub to: String,
    pub spki: Vec<u8>,
    pub extensions: Vec<Extension>,
    pub trailing: Vec<u8>,
    pub spoil_signature: bool,
}

impl Cert {
    fn new(issuer: &str, subject: &str, spki: Vec<u8>, extensions: Vec<Extension>) -> Self {
        Self {
            version: 2,
            serial: vec![1],
            inner_algorithm: PSS.into(),
            outer_algorithm: PSS.into(),
            issuer: issuer.into(),
            subject: subject.into(),
            from: "240101000000Z".into(),
            to: "300101000000Z".into(),
            spki,
            extensions,
            trailing: Vec::new(),
            spoil_signature: false,
        }
    }

    pub fn set(&mut self, extension: Extension) {
        self.extensions.retain(|known| known.oid != extension.oid);
        self.extensions.push(extension);
    }

    pub fn remove(&mut self, oid: &str) {
        let before = self.extensions.len();
        self.extensions.retain(|known| known.oid != hexed(oid));
        assert_eq!(self.extensions.len() + 1, before, "{oid}");
    }

    pub fn encode(&self, issuer: &RsaKeyPair) -> Vec<u8> {
        let extensions: Vec<u8> = self.extensions.iter().flat_map(Extension::encode).collect();
        let validity = [tlv(0x17, self.from.as_bytes()), tlv(0x17, self.to.as_bytes())].concat();
        let version = if self.version == 0 { Vec::new() } else { tlv(0xa0, &[2, 1, self.version]) };
        let tbs = [
            version,
            tlv(2, &self.serial),
            hexed(&self.inner_algorithm),
            name(&self.issuer),
            tlv(0x30, &validity),
            name(&self.subject),
            self.spki.clone(),
            tlv(0xa3, &tlv(0x30, &extensions)),
        ]
        .concat();
        seal(&tbs, &self.outer_algorithm, issuer, self.spoil_signature, &self.trailing)
    }
}

/// Everything in a revocation list that a test may spoil.
#[derive(Clone)]
pub struct List {
    pub version: u8,
    pub inner_algorithm: String,
    pub outer_algorithm: String,
    pub issuer: String,
    pub from: String,
    pub to: Option<String>,
    pub revoked: Vec<Vec<u8>>,
    pub entry_extensions: Vec<Extension>,
    pub extensions: Vec<Extension>,
    pub trailing: Vec<u8>,
    pub spoil_signature: bool,
}

impl List {
    pub fn encode(&self, issuer: &RsaKeyPair) -> Vec<u8> {
        let time = |text: &str| tlv(0x17, text.as_bytes());
        let entry_extensions: Vec<u8> = self.entry_extensions.iter().flat_map(Extension::encode).collect();
        let entry_extensions = if entry_extensions.is_empty() { Vec::new() } else { tlv(0x30, &entry_extensions) };
        let revoked: Vec<u8> = self
            .revoked
            .iter()
            .flat_map(|serial| tlv(0x30, &[tlv(2, serial), time("250101000000Z"), entry_extensions.clone()].concat()))
            .collect();
        let extensions: Vec<u8> = self.extensions.iter().flat_map(Extension::encode).collect();
        let tbs = [
            if self.version == 0 { Vec::new() } else { vec![2, 1, self.version] },
            hexed(&self.inner_algorithm),
            name(&self.issuer),
            time(&self.from),
            self.to.as_deref().map(time).unwrap_or_default(),
            if revoked.is_empty() { Vec::new() } else { tlv(0x30, &revoked) },
            if self.version == 0 { Vec::new() } else { tlv(0xa0, &tlv(0x30, &extensions)) },
        ]
        .concat();
        seal(&tbs, &self.outer_algorithm, issuer, self.spoil_signature, &self.trailing)
    }
}

fn seal(tbs: &[u8], algorithm: &str, key: &RsaKeyPair, spoil: bool, trailing: &[u8]) -> Vec<u8> {
    let tbs = tlv(0x30, tbs);
    let mut signature = vec![0; 512];
    key.sign(&RSA_PSS_SHA384, &SystemRandom::new(), &tbs, &mut signature).unwrap();
    signature[100] ^= u8::from(spoil);
    let bits = tlv(3, &[&[0], signature.as_slice()].concat());
    [tlv(0x30, &[tbs, hexed(algorithm), bits].concat()), trailing.to_vec()].concat()
}

pub fn rsa(name: &str) -> RsaKeyPair {
    let path = format!("{}/testdata/{name}.pk8", env!("CARGO_MANIFEST_DIR"));
    RsaKeyPair::from_pkcs8(&std::fs::read(path).unwrap()).unwrap()
}

pub fn rsa_spki(key: &RsaKeyPair) -> Vec<u8> {
    let bits = [&[0], key.public_key().as_ref()].concat();
    tlv(0x30, &[hexed("300d06092a864886f70d0101010500"), tlv(3, &bits)].concat())
}

pub fn leaf_key(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 48]).unwrap()
}

pub fn leaf_spki(key: &SigningKey) -> Vec<u8> {
    let point = key.verifying_key().to_sec1_point(false);
    let bits = [&[0], point.as_bytes()].concat();
    tlv(0x30, &[hexed("301006072a8648ce3d020106052b81040022"), tlv(3, &bits)].concat())
}

/// A Milan world: chain, list and a version 3 report, all consistent.
pub struct World {
    pub root_key: RsaKeyPair,
    pub ask_key: RsaKeyPair,
    pub leaf_key: SigningKey,
    pub root: Cert,
    pub ask: Cert,
    pub leaf: Cert,
    pub list: Option<List>,
    pub report: Vec<u8>,
    pub anchored: bool,
    pub crl: CrlPolicy,
    pub expected: ExpectedReportData,
    pub now: UnixTime,
    /// Signs the ASK, the leaf or the list with the other RSA key.
    pub wrong_issuer: (bool, bool, bool),
}

impl World {
    pub fn new() -> Self {
        let (root_key, ask_key, leaf_key) = (rsa("ark"), rsa("ask"), leaf_key(7));
        let authority = |usage: u8, path: &str| {
            vec![Extension::new(USAGE, true, vec![3, 2, 1, usage]), Extension::new(BASIC, true, hexed(path))]
        };
        let root = Cert::new("ARK-Milan", "ARK-Milan", rsa_spki(&root_key), authority(0x06, "30030101ff"));
        let mut ask = Cert::new("ARK-Milan", "SEV-Milan", rsa_spki(&ask_key), authority(0x04, "30060101ff020100"));
        ask.serial = vec![1, 0, 1];
        let hwid: Vec<u8> = (1..=64).collect();
        let spl = |tail: &str, value| Extension::amd(&format!("03{tail}"), integer(value));
        let leaf = Cert::new(
            "SEV-Milan",
            "SEV-VCEK",
            leaf_spki(&leaf_key),
            vec![
                Extension::amd("01", integer(0)),
                Extension::amd("02", tlv(0x16, b"Milan-B0")),
                spl("01", 4),
                spl("02", 0),
                spl("04", 0),
                spl("05", 0),
                spl("06", 0),
                spl("07", 0),
                spl("03", 0x18),
                spl("08", 0xdb),
                Extension::amd("04", hwid.clone()),
            ],
        );
        let mut report = vec![0; 1184];
        report[offset::VERSION] = 3;
        report[offset::POLICY..][..8].copy_from_slice(&0x30000_u64.to_le_bytes());
        report[offset::SIGNATURE_ALGO] = 1;
        for at in [offset::CURRENT_TCB, offset::REPORTED_TCB, offset::COMMITTED_TCB, offset::LAUNCH_TCB] {
            report[at..][..8].copy_from_slice(&[4, 0, 0, 0, 0, 0, 0x18, 0xdb]);
        }
        report[offset::REPORT_DATA..][..64].copy_from_slice(&[0x5a; 64]);
        report[offset::MEASUREMENT..][..48].copy_from_slice(&[0x11; 48]);
        report[offset::HOST_DATA..][..32].copy_from_slice(&[0x22; 32]);
        report[offset::REPORT_ID_MA..][..32].copy_from_slice(&[0xff; 32]);
        report[offset::CPUID..][..3].copy_from_slice(&[0x19, 1, 1]);
        report[offset::CHIP_ID..][..64].copy_from_slice(&hwid);
        let list = List {
            version: 1,
            inner_algorithm: PSS.into(),
            outer_algorithm: PSS.into(),
            issuer: "ARK-Milan".into(),
            from: "260901000000Z".into(),
            to: Some("261001000000Z".into()),
            revoked: Vec::new(),
            entry_extensions: Vec::new(),
            extensions: vec![Extension::new(CRL_NUMBER, false, integer(7))],
            trailing: Vec::new(),
            spoil_signature: false,
        };
        Self {
            root_key,
            ask_key,
            leaf_key,
            root,
            ask,
            leaf,
            list: Some(list),
            report,
            anchored: true,
            crl: CrlPolicy::Required,
            expected: ExpectedReportData::Any,
            now: UnixTime::parse(NOW).unwrap(),
            wrong_issuer: (false, false, false),
        }
    }

    /// The same in Turin's form: 8-byte hwID, FMC first, no `.3.4`, report version 5.
    pub fn turin() -> Self {
        let mut world = Self::new();
        for (name, cert) in [("ARK-Turin", &mut world.root), ("SEV-Turin", &mut world.ask)] {
            cert.subject = name.into();
            cert.issuer = "ARK-Turin".into();
        }
        world.list().issuer = "ARK-Turin".into();
        let leaf = &mut world.leaf;
        leaf.issuer = "SEV-Turin".into();
        leaf.remove(&format!("{AMD}0304"));
        leaf.set(Extension::amd("01", integer(1)));
        leaf.set(Extension::amd("02", tlv(0x16, b"Turin")));
        leaf.set(Extension::amd("0309", integer(1)));
        leaf.set(Extension::amd("04", (1..=8).collect()));
        world.patch(offset::VERSION, &[5]);
        world.patch(offset::CPUID, &[0x1a, 2, 1]);
        world.patch(offset::CHIP_ID + 8, &[0; 56]);
        for at in [offset::CURRENT_TCB, offset::REPORTED_TCB, offset::COMMITTED_TCB, offset::LAUNCH_TCB] {
            world.patch(at, &[1, 4, 0, 0x18, 0, 0, 0, 0xdb]);
        }
        world
    }

    /// Puts a field into the report.
    pub fn patch(&mut self, at: usize, bytes: &[u8]) {
        self.report[at..][..bytes.len()].copy_from_slice(bytes);
    }

    pub fn list(&mut self) -> &mut List {
        self.list.as_mut().unwrap()
    }

    pub fn signed_report(&self) -> Vec<u8> {
        let signature: Signature = self.leaf_key.sign(&self.report[..0x2a0]);
        let (r, s) = signature.split_bytes();
        let mut report = self.report.clone();
        report[offset::R..][..48].copy_from_slice(&r.iter().rev().copied().collect::<Vec<_>>());
        report[offset::S..][..48].copy_from_slice(&s.iter().rev().copied().collect::<Vec<_>>());
        report
    }

    pub fn endorsements(&self) -> Result<Endorsements, EndorsementError> {
        let (ark, ask) = (&self.root_key, &self.ask_key);
        let pick = |wrong, right, other| if wrong { other } else { right };
        let mut all = Endorsements::new();
        all.add_certificates(&self.leaf.encode(pick(self.wrong_issuer.1, ask, ark)))?;
        all.add_certificates(&self.ask.encode(pick(self.wrong_issuer.0, ark, ask)))?;
        all.add_certificates(&self.root.encode(ark))?;
        if let Some(list) = &self.list {
            all.add_crl(&list.encode(pick(self.wrong_issuer.2, ark, ask)))?;
        }
        Ok(all)
    }

    pub fn anchors(&self) -> TrustAnchors {
        let anchors = TrustAnchors::amd();
        if self.anchored { anchors.with_simulated(SpkiDigest::of(&self.root.spki)) } else { anchors }
    }

    pub fn verify(&self) -> Result<VerifiedReport, VerifyError> {
        let endorsements = self.endorsements()?;
        let (report, anchors) = (self.signed_report(), self.anchors());
        verify(&report, &endorsements, &anchors, &self.expected, &self.crl, self.now)
    }

    /// The code this world is refused with.
    pub fn code(&self) -> &'static str {
        self.verify().map_or_else(|error| error.reason().code.as_str(), |_| "accepted")
    }
}

/// The code a fresh world is refused with once `spoil` has changed it.
pub fn spoiled(spoil: impl FnOnce(&mut World)) -> &'static str {
    let mut world = World::new();
    spoil(&mut world);
    world.code()
}
