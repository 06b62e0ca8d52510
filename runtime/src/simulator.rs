//! This machine's simulator installation: a file of mode 0600, made on first use, and the anchors it stands for.
//!
//! Trusts: whoever can read the file, who can forge everything it certifies.
//! Never: lists its own anchor anywhere; that is the operator's word (`--allow-simulated`).

use std::fs::File;
use std::path::{Path, PathBuf};

use coffer_platform::plan::LaunchPlan;
use coffer_rim::file::write_private;
use coffer_rim::{Class, Classify as _, Failure};
use coffer_simulator::{Installation, LaunchFailure, LaunchOptions, SecureProcessor, SimulatedGuest};
use coffer_verifier::abi::message::{LineAnswer, MessagePage};
use coffer_verifier::abi::{ChipId, HostData, ProductLine};
use coffer_verifier::{TrustAnchors, UnixTime};
use rustix::fs::{FlockOperation, flock};

use crate::id_block::{GUEST_POLICY, SignedLaunch};

/// Answers one message page; the simulator's side of one guest.
pub type Answerer = Box<dyn FnMut(u8, &MessagePage) -> LineAnswer + Send>;

const FILE: &str = "installation.json";

/// Root certificate of a product line in the simulator's folder, for whoever wants to list it.
pub fn ark_file(folder: &Path, product: ProductLine) -> PathBuf {
    folder.join(format!("ark-{}.der", product.to_string().to_lowercase()))
}

/// Opens the installation in `folder`, making it and the keys of `product` on first use (a few seconds).
///
/// # Errors
/// Class `config` if a file cannot be read, understood or written.
pub fn open(folder: &Path, product: ProductLine) -> Result<Installation, Failure> {
    open_all(folder, &[product], false)
}

/// [`open`] for several product lines, with `vlek` their ASVKs as well.
///
/// # Errors
/// As [`open`].
pub fn open_all(folder: &Path, products: &[ProductLine], vlek: bool) -> Result<Installation, Failure> {
    crate::home::private_folder(folder).map_err(|error| Failure::caused(Class::Config, &error))?;
    // Two first uses at once would make two chips.
    let lock = File::create(folder.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(std::io::Error::from)?;
    let path = folder.join(FILE);
    let (mut installation, fresh) = match read(&path)? {
        Some(installation) => (installation, false),
        None => (Installation::create(now()).map_err(|error| Failure::caused(Class::Internal, &error))?, true),
    };
    let ensure = if vlek { Installation::ensure_vlek } else { Installation::ensure };
    let mut changed = false;
    for product in products {
        changed |=
            ensure(&mut installation, *product, now()).map_err(|error| Failure::caused(Class::Internal, &error))?;
    }
    if fresh || changed {
        let bytes = installation.to_bytes().map_err(|error| Failure::caused(Class::Internal, &error))?;
        write(&path, &bytes)?;
    }
    // They follow from the installation: what an interrupted first use left out is written by the next.
    for anchor in installation.anchors() {
        let path = ark_file(folder, anchor.product);
        if !std::fs::read(&path).is_ok_and(|there| there == anchor.ark) {
            write(&path, anchor.ark)?;
        }
    }
    Ok(installation)
}

/// Whether [`open_all`] has no keys to make, which takes seconds. False also of a file that it will refuse.
pub fn has_all(folder: &Path, products: &[ProductLine], vlek: bool) -> bool {
    let installation = read(&folder.join(FILE)).ok().flatten();
    installation.is_some_and(|installation| products.iter().all(|product| installation.has(*product, vlek)))
}

/// AMD's anchors and those of the installation in `folder`.
///
/// # Errors
/// Class `config` if there is no installation, so that nothing is believed by mistake.
pub fn anchors(folder: &Path) -> Result<TrustAnchors, Failure> {
    let path = folder.join(FILE);
    let installation = read(&path)?.ok_or_else(|| {
        Failure::new(Class::Config, format!("no simulator to believe: there is none at {}", folder.display()))
            .hint("the first `coffer run --tee-simulate` makes one, or `coffer sim init`; that of another machine is named with --anchor FILE")
    })?;
    Ok(installation.anchors().fold(TrustAnchors::amd(), |anchors, anchor| anchors.with_simulated(anchor.spki)))
}

/// Whether this chip is the installation's in `folder`, of any product line. No installation has none.
///
/// # Errors
/// Class `config` if its file cannot be read or understood.
pub fn has_chip(folder: &Path, chip: &ChipId) -> Result<bool, Failure> {
    let installation = read(&folder.join(FILE))?;
    let has =
        |installation: Installation| ProductLine::ALL.iter().any(|product| installation.chip_id(*product) == *chip);
    Ok(installation.is_some_and(has))
}

/// Launches a guest on the simulated processor from the pages the VMM loads.
///
/// # Errors
/// Class `config` if the ID block is for another launch or not signed by its keys, `internal` if the launch is refused.
pub fn launch(
    installation: &Installation,
    plan: &LaunchPlan,
    host_data: HostData,
    id: Option<&SignedLaunch>,
) -> Result<SimulatedGuest, Failure> {
    let options = LaunchOptions { policy: GUEST_POLICY, ..LaunchOptions::new(ProductLine::Milan, now()) };
    let mut processor = SecureProcessor::launch_start(installation, options).map_err(refused)?;
    for planned in plan.pages() {
        processor.update(planned.page_type, planned.gpa, &planned.page).map_err(refused)?;
    }
    processor.finish(host_data, id.map(SignedLaunch::evidence).as_ref()).map_err(refused)
}

#[allow(clippy::needless_pass_by_value, reason = "stands in map_err")]
fn refused(error: LaunchFailure) -> Failure {
    match &error {
        // Compared before, with what helps in each case (`SignedLaunch::check`).
        LaunchFailure::IdBlockMeasurement { .. }
        | LaunchFailure::IdBlockPolicy { .. }
        | LaunchFailure::IdSignature(_) => Failure::caused(Class::Config, &error),
        _ => Failure::caused(Class::Internal, &error),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    write_private(path, bytes).class_while(Class::Config, format!("cannot write {}", path.display()))
}

fn read(path: &Path) -> Result<Option<Installation>, Failure> {
    match std::fs::read(path) {
        Ok(bytes) => Installation::from_bytes(&bytes).map(Some).map_err(|error| {
            Failure::caused(Class::Config, &error)
                .while_doing(path.display())
                .hint("move the file away to start a new simulator; what it sealed cannot be opened without it")
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::caused(Class::Config, &error).while_doing(path.display())),
    }
}

fn now() -> u64 {
    u64::try_from(UnixTime::from(std::time::SystemTime::now()).0).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id_block::LaunchNames;
    use crate::signing_key::SigningKey;
    use coffer_platform::plan::LaunchInputs;
    use coffer_verifier::abi::{
        FamilyId, ImageId, Measurement, Report, ReportData, ReportRequest, SecureProcessor as _,
    };
    use coffer_verifier::measure::{IdAuth, LaunchForm};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn an_installation_is_made_once_and_its_launch_is_the_plans() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("sim");
        assert!(anchors(&folder).is_err());
        let installation = open(&folder, ProductLine::Milan).unwrap();
        let again = open(&folder, ProductLine::Milan).unwrap();
        let spki = installation.anchor(ProductLine::Milan).unwrap().spki;
        assert_eq!(again.anchor(ProductLine::Milan).unwrap().spki, spki);
        assert!(anchors(&folder).unwrap().accepts_simulated());
        let mode = std::fs::metadata(folder.join(FILE)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let ark = ark_file(&folder, ProductLine::Milan);
        let bytes = std::fs::read(&ark).unwrap();
        std::fs::remove_file(&ark).unwrap();
        open(&folder, ProductLine::Milan).unwrap();
        assert_eq!(std::fs::read(&ark).unwrap(), bytes, "an interrupted first use is finished by the next");

        let firmware = coffer_platform::sample::rom(1);
        let inputs = LaunchInputs { vcpus: 2, ..coffer_platform::sample::inputs(&firmware) };
        let plan = LaunchPlan::new(&inputs).unwrap();
        let guest = launch(&installation, &plan, HostData::new([7; 32]), None).unwrap();
        assert_eq!((guest.measurement(), guest.host_data()), (plan.measurement(), HostData::new([7; 32])));
        let long_mode = LaunchPlan::new(&LaunchInputs { form: LaunchForm::LongMode, ..inputs }).unwrap();
        let guest = launch(&installation, &long_mode, HostData::new([7; 32]), None).unwrap();
        assert_eq!(guest.measurement(), long_mode.measurement());
        assert_ne!(long_mode.measurement(), plan.measurement());

        // What an author signs for the predicted measurement starts, and shows in the report; for another it does not.
        let (id, author) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let names = LaunchNames { guest_svn: 7, family_id: FamilyId::new([1; 16]), image_id: ImageId::new([2; 16]) };
        let sign = |measurement, policy, author| SignedLaunch::sign(measurement, policy, names, &id, author).unwrap();
        let start = |signed: &SignedLaunch| launch(&installation, &plan, HostData::new([7; 32]), Some(signed));
        let signed = sign(plan.measurement(), GUEST_POLICY, Some(&author));
        let got =
            start(&signed).unwrap().into_processor().report(&ReportRequest::new(ReportData::new([0; 64]))).unwrap();
        let report = Report::parse(&got.report).unwrap();
        let facts = signed.facts();
        assert_eq!(report.id_key_digest(), facts.id_key_digest);
        assert_eq!(Some(report.author_key_digest()), facts.author_key_digest);
        assert!(report.key_info().author_key_en);
        assert_eq!(
            (report.family_id().as_bytes(), report.image_id().as_bytes(), report.guest_svn()),
            (&[1; 16], &[2; 16], 7)
        );
        let alone = sign(plan.measurement(), GUEST_POLICY, None);
        let got =
            start(&alone).unwrap().into_processor().report(&ReportRequest::new(ReportData::new([0; 64]))).unwrap();
        assert!(!Report::parse(&got.report).unwrap().key_info().author_key_en);

        let refusal = |signed: &SignedLaunch| start(signed).err().unwrap();
        let other = Measurement::new([9; 48]);
        let failure = refusal(&sign(other, GUEST_POLICY, None));
        let named =
            failure.message.contains(&other.to_string()) && failure.message.contains(&plan.measurement().to_string());
        assert!(named && failure.class == Class::Config, "{failure}");
        let failure = refusal(&sign(plan.measurement(), 0xb_0000, None));
        assert!(failure.message.contains("0xb0000") && failure.message.contains("0x30000"), "{failure}");
        for (at, what) in [(0x40, "ID key over"), (0x690, "author key over")] {
            let mut page = *signed.auth.as_bytes();
            page[at] ^= 1;
            let failure = refusal(&SignedLaunch { auth: IdAuth::parse(&page).unwrap(), ..signed.clone() });
            assert!(failure.message.contains(what) && failure.class == Class::Config, "{failure}");
        }
    }
}
