//! SNP_LAUNCH_START, _UPDATE and _FINISH.
//!
//! Source: SNP ABI, guest launch commands; the firmware's checks of ID block and ID authentication block.

use coffer_verifier::abi::{HostData, KeyDigest, Measurement, PlatformBit, PlatformInfo, ProductLine, ReportId};
use coffer_verifier::measure::{IdAuth, IdBlock, LaunchDigest, Page, PageType, VmplPermissions};
use p384::ecdsa::{Signature, VerifyingKey, signature::Verifier};
use zeroize::Zeroizing;

use crate::guest::{SigningKeys, SimulatedGuest};
use crate::installation::{Installation, InstallationError};
use crate::options::LaunchOptions;
use crate::refusal::{LaunchFailure, check_tcb};
use crate::report::GuestFacts;
use crate::x509::CryptoError;

/// ID block and ID authentication block of a launch.
#[derive(Clone)]
pub struct IdEvidence {
    /// What the launch must be.
    pub block: IdBlock,
    /// Who says so.
    pub auth: IdAuth,
    /// AUTHOR_KEY_EN.
    pub author_key_enabled: bool,
}

/// A launch in progress: started, maybe with pages, not finished.
pub struct SecureProcessor<'a> {
    installation: &'a Installation,
    options: LaunchOptions,
    digest: LaunchDigest,
}

impl<'a> SecureProcessor<'a> {
    /// SNP_LAUNCH_START.
    ///
    /// # Errors
    /// [`LaunchFailure`] if the installation lacks the product's keys, or policy, TCB state and report version do not go with
    /// the platform.
    pub fn launch_start(installation: &'a Installation, options: LaunchOptions) -> Result<Self, LaunchFailure> {
        installation.product(options.product)?;
        if options.vlek.is_some() {
            installation.asvk(options.product)?;
        }
        check_policy(&options)?;
        check_tcb(options.product, &options.tcb)?;
        let oldest = if options.product == ProductLine::Turin { 3 } else { 2 };
        if !(oldest..=5).contains(&options.report_version) {
            return Err(LaunchFailure::ReportVersion { product: options.product, version: options.report_version });
        }
        Ok(Self { installation, options, digest: LaunchDigest::new() })
    }

    /// SNP_LAUNCH_UPDATE of one page without permissions for VMPL 1 to 3.
    ///
    /// # Errors
    /// [`LaunchFailure::Page`].
    pub fn update(&mut self, page_type: PageType, gpa: u64, page: &Page) -> Result<(), LaunchFailure> {
        Ok(self.digest.extend(page_type, gpa, page)?)
    }

    /// SNP_LAUNCH_UPDATE of one page.
    ///
    /// # Errors
    /// [`LaunchFailure::Page`].
    pub fn update_with(
        &mut self,
        page_type: PageType,
        gpa: u64,
        page: &Page,
        permissions: VmplPermissions,
    ) -> Result<(), LaunchFailure> {
        Ok(self.digest.extend_with(page_type, gpa, page, permissions)?)
    }

    /// The launch digest so far.
    pub fn digest(&self) -> Measurement {
        self.digest.current()
    }

    /// SNP_LAUNCH_FINISH.
    ///
    /// # Errors
    /// [`LaunchFailure`] if the ID evidence is for another launch or not signed by its keys.
    pub fn finish(self, host_data: HostData, id: Option<&IdEvidence>) -> Result<SimulatedGuest, LaunchFailure> {
        let Self { installation, options, digest } = self;
        let measurement = digest.finish();
        if let Some(id) = id {
            check_id(id, measurement, options.policy)?;
        }
        let product = options.product;
        let mut report_id = [0; 32];
        aws_lc_rs::rand::fill(&mut report_id)
            .map_err(|_| InstallationError::from(CryptoError { what: "draw randomness" }))?;
        let mut vmpcks = Zeroizing::new([0; 128]);
        aws_lc_rs::rand::fill(vmpcks.as_mut_slice())
            .map_err(|_| InstallationError::from(CryptoError { what: "draw randomness" }))?;

        let reported = options.tcb.reported;
        let endorsements = installation.endorse(product, reported, options.vlek.as_deref(), options.now)?;
        let keys = SigningKeys::of(installation.chip(), &options);
        let block = id.map(|id| id.block);
        let author = id.filter(|id| id.author_key_enabled).and_then(|id| id.auth.author_key_digest());
        let facts = GuestFacts {
            measurement,
            host_data,
            guest_svn: block.map_or(0, |block| block.guest_svn),
            family_id: block.map_or([0; 16], |block| *block.family_id.as_bytes()),
            image_id: block.map_or([0; 16], |block| *block.image_id.as_bytes()),
            id_key_digest: id.map_or(KeyDigest::new([0; 48]), |id| id.auth.id_key_digest()),
            author_key_digest: author,
            report_id: ReportId::new(report_id),
            chip_id: installation.chip_id(product),
            options,
        };
        Ok(SimulatedGuest::new(facts, keys, &vmpcks, endorsements))
    }
}

fn check_policy(options: &LaunchOptions) -> Result<(), LaunchFailure> {
    let policy = options.policy;
    let refuse = |why| Err(LaunchFailure::Policy { policy, why });
    let asks = |bit: u32| policy >> bit & 1 == 1;
    let platform = PlatformInfo(options.platform_info);
    if !asks(17) {
        return refuse("bit 17 must be one");
    }
    if policy >> 26 != 0 {
        return refuse("reserved bits are set");
    }
    let firmware = options.firmware;
    if ((policy >> 8 & 0xff) as u8, (policy & 0xff) as u8) > (firmware.major, firmware.minor) {
        return refuse("it demands a newer firmware ABI");
    }
    if !asks(16) && platform.has(PlatformBit::Smt) {
        return refuse("it forbids SMT, which is on");
    }
    if asks(23) && !platform.has(PlatformBit::RaplDisabled) {
        return refuse("it demands RAPL off, which is on");
    }
    if asks(24) && !platform.has(PlatformBit::CiphertextHiding) {
        return refuse("it demands ciphertext hiding, which is off");
    }
    Ok(())
}

fn check_id(id: &IdEvidence, measurement: Measurement, policy: u64) -> Result<(), LaunchFailure> {
    let IdEvidence { block, auth, author_key_enabled } = id;
    if block.measurement != measurement {
        return Err(LaunchFailure::IdBlockMeasurement { expected: block.measurement, found: measurement });
    }
    if block.policy != policy {
        return Err(LaunchFailure::IdBlockPolicy { expected: block.policy, found: policy });
    }
    if !verifies(auth.id_key(), auth.id_block_signature(), &block.to_bytes()) {
        return Err(LaunchFailure::IdSignature("signature of the ID key over the ID block"));
    }
    if *author_key_enabled && !verifies(auth.author_key(), auth.id_key_signature(), auth.id_key()) {
        return Err(LaunchFailure::IdSignature("signature of the author key over the ID key"));
    }
    Ok(())
}

/// `key`: curve, then QX and QY of 72 bytes, little endian. `signature`: R and S likewise.
fn verifies(key: &[u8], signature: &[u8], message: &[u8]) -> bool {
    let check = || {
        let mut point = [4; 97];
        point[1..49].copy_from_slice(&big_endian(key.get(4..76)?)?);
        point[49..].copy_from_slice(&big_endian(key.get(76..148)?)?);
        let key = VerifyingKey::from_sec1_bytes(&point).ok()?;
        let signature =
            Signature::from_scalars(big_endian(signature.get(..72)?)?, big_endian(signature.get(72..144)?)?).ok()?;
        key.verify(message, &signature).ok()
    };
    check().is_some()
}

fn big_endian(field: &[u8]) -> Option<[u8; 48]> {
    let (used, padding) = field.split_at_checked(48)?;
    if padding.iter().any(|byte| *byte != 0) {
        return None;
    }
    let mut out: [u8; 48] = used.try_into().ok()?;
    out.reverse();
    Some(out)
}
