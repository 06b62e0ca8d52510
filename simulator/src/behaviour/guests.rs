//! The part of the suite that launches its guests: whatever lies between guest and processor, the facts of the launch come through.

use coffer_verifier::abi::{
    FamilyId, GuestFieldSelect, HostData, ImageId, KeyRequest, KeySelect, ProductLine, Report, ReportData,
    ReportRequest, SecureProcessor, SigningKey,
};
use coffer_verifier::measure::{IdAuth, IdBlock, PageType};
use coffer_verifier::{CrlPolicy, Endorsements, ExpectedReportData, TrustAnchors, UnixTime, verify};
use p384::ecdsa::{Signature, SigningKey as EcdsaKey, signature::Signer};

use super::{ALL_FIELDS, Check, Deviation, FIELDS, chain, check, derived, hold, key_request, report};
use crate::guest::SimulatedGuest;
use crate::installation::Installation;
use crate::launch::{IdEvidence, SecureProcessor as Launch};
use crate::options::LaunchOptions;

/// Launches guests on every product `installation` has keys for, at `now` (Unix seconds), and asks their processors as `open`
/// gives them. With an ASVK, under a VLEK too.
///
/// # Errors
/// The first [`Deviation`].
pub fn check_guests(
    installation: &Installation,
    now: u64,
    open: &mut dyn FnMut(SimulatedGuest) -> Box<dyn SecureProcessor>,
) -> Check {
    let products: Vec<ProductLine> = installation.anchors().map(|anchor| anchor.product).collect();
    hold("the installation has keys", !products.is_empty(), "none")?;
    for product in products {
        let on = |mut deviation: Deviation| {
            deviation.property = format!("{product}: {}", deviation.property);
            deviation
        };
        let maker = Maker { installation, options: LaunchOptions::new(product, now) };
        one_guest(&maker, open).map_err(on)?;
        masked_key(&maker, open).map_err(on)?;
        each_field_enters(&maker, open).map_err(on)?;
    }
    Ok(())
}

struct Maker<'a> {
    installation: &'a Installation,
    options: LaunchOptions,
}

/// The facts a launch fixes, each to be varied by itself.
#[derive(Clone)]
struct Facts {
    policy: u64,
    image_id: ImageId,
    family_id: FamilyId,
    page: u8,
    guest_svn: u32,
    host_data: u8,
    vlek: bool,
}

const USUAL: Facts = Facts {
    policy: 0x3_0000,
    image_id: ImageId::new([0x11; 16]),
    family_id: FamilyId::new([0x22; 16]),
    page: 7,
    guest_svn: 5,
    host_data: 3,
    vlek: false,
};

impl Maker<'_> {
    fn launch(&self, facts: &Facts) -> Result<SimulatedGuest, Deviation> {
        let refused = |error| Deviation::new("a usual launch is not refused", chain(&error));
        let vlek = facts.vlek.then(|| "CN=cc-behaviour.invalid".to_owned());
        let options = LaunchOptions { policy: facts.policy, vlek, ..self.options.clone() };
        let mut launch = Launch::launch_start(self.installation, options).map_err(refused)?;
        launch.update(PageType::Normal, 0x1000, &[facts.page; 4096]).map_err(refused)?;
        let block = IdBlock {
            measurement: launch.digest(),
            family_id: facts.family_id,
            image_id: facts.image_id,
            guest_svn: facts.guest_svn,
            policy: facts.policy,
        };
        let auth = sign(&block).ok_or_else(|| Deviation::new("an ID block can be signed", "no"))?;
        let id = IdEvidence { block, auth, author_key_enabled: true };
        launch.finish(HostData::new([facts.host_data; 32]), Some(&id)).map_err(refused)
    }
}

/// One guest under each key: the suite for any processor, and what only a known guest allows to be asked.
fn one_guest(maker: &Maker<'_>, open: &mut dyn FnMut(SimulatedGuest) -> Box<dyn SecureProcessor>) -> Check {
    let has_asvk = maker.installation.asvk(maker.options.product).is_ok();
    for vlek in [false, true].into_iter().filter(|vlek| !vlek || has_asvk) {
        let guest = maker.launch(&Facts { vlek, ..USUAL })?;
        let (measurement, report_id) = (guest.measurement(), guest.report_id());
        let table = guest.endorsements().cert_table();
        let mut processor = open(guest);
        check(&mut *processor)?;

        let data = ReportData::new([0xd5; 64]);
        let got = processor.report(&ReportRequest::new(data));
        let got = got.map_err(|error| Deviation::new("a report is given after all that", chain(&error)))?;
        let delivered = got.cert_table.get(..table.len()) == Some(table.as_slice());
        let only_room = got.cert_table.iter().skip(table.len()).all(|byte| *byte == 0);
        hold("the certificate table arrives whole", delivered && only_room, "it does not")?;
        authentic(maker, &got.report, &got.cert_table, data)?;
        let stated = Report::parse(&got.report).map_err(|error| Deviation::new("a report parses", error))?;
        let expected = if vlek { SigningKey::Vlek } else { SigningKey::Vcek };
        hold("the installed key signs", stated.signing_key() == expected, stated.signing_key())?;
        let same = (stated.measurement(), stated.report_id()) == (measurement, report_id)
            && stated.host_data() == HostData::new([USUAL.host_data; 32])
            && (stated.family_id(), stated.image_id()) == (USUAL.family_id, USUAL.image_id)
            && (stated.guest_svn(), stated.policy().raw()) == (USUAL.guest_svn, USUAL.policy)
            && stated.key_info().author_key_en;
        hold("a report states what the launch fixed", same, "another launch")?;
        if vlek {
            let from = |key| KeyRequest { key, ..key_request(&stated) };
            let vlek = derived(&mut *processor, &from(KeySelect::Vlek), "KEY_SEL 2")?;
            let default = derived(&mut *processor, &from(KeySelect::VlekOrVcek), "KEY_SEL 0")?;
            let vcek = derived(&mut *processor, &from(KeySelect::Vcek), "KEY_SEL 1")?;
            hold("KEY_SEL 0 roots a key in the VLEK where one is installed", vlek == default, "another root")?;
            hold("the roots of VLEK and VCEK differ", vlek != vcek, "they are the same")?;
        }
    }
    Ok(())
}

/// MASK_CHIP_KEY: zeros in place of the VCEK's signature, and the report says so.
fn masked_key(maker: &Maker<'_>, open: &mut dyn FnMut(SimulatedGuest) -> Box<dyn SecureProcessor>) -> Check {
    let options = LaunchOptions { mask_chip_key: true, ..maker.options.clone() };
    let mut processor = open(Maker { installation: maker.installation, options }.launch(&USUAL)?);
    let masked = report(&mut *processor, &ReportRequest::new(ReportData::new([4; 64])))?;
    let (r, s) = masked.signature();
    let nothing = r.iter().chain(&s).all(|byte| *byte == 0) && masked.signing_key() == SigningKey::None;
    hold("a masked chip key signs nothing", nothing, masked.signing_key())
}

/// For each field: a guest that differs in it alone has another key when it is selected, and the same when all others are.
fn each_field_enters(maker: &Maker<'_>, open: &mut dyn FnMut(SimulatedGuest) -> Box<dyn SecureProcessor>) -> Check {
    let mut usual = open(maker.launch(&USUAL)?);
    let about = report(&mut *usual, &ReportRequest::new(ReportData::new([5; 64])))?;
    let select =
        |fields: u64, guest_svn| KeyRequest { fields: GuestFieldSelect(fields), guest_svn, ..key_request(&about) };
    let others = [
        (GuestFieldSelect::POLICY, Facts { policy: 0x3_0001, ..USUAL }),
        (GuestFieldSelect::IMAGE_ID, Facts { image_id: ImageId::new([0x12; 16]), ..USUAL }),
        (GuestFieldSelect::FAMILY_ID, Facts { family_id: FamilyId::new([0x23; 16]), ..USUAL }),
        (GuestFieldSelect::MEASUREMENT, Facts { page: 8, ..USUAL }),
    ];
    for (bit, facts) in others {
        let name = FIELDS.iter().find(|(field, _)| *field == bit).map_or("", |(_, name)| name);
        let mut other = open(maker.launch(&facts)?);
        let mut same = |fields| {
            let request = select(fields, USUAL.guest_svn);
            Ok(derived(&mut *usual, &request, name)? == derived(&mut *other, &request, name)?)
        };
        hold(&format!("{name}, selected, enters the key"), !same(bit)?, "it does not")?;
        hold(&format!("{name}, not selected, does not enter the key"), same(ALL_FIELDS & !bit)?, "it does")?;
    }
    // A newer guest opens what an older one of its line closed, and not the other way round.
    let older = select(ALL_FIELDS, USUAL.guest_svn);
    let mut newer = open(maker.launch(&Facts { guest_svn: USUAL.guest_svn + 1, ..USUAL })?);
    let shared = derived(&mut *usual, &older, "own SVN")? == derived(&mut *newer, &older, "a lower SVN")?;
    hold("a newer guest derives the older one's key", shared, "another key")?;
    // HOST_DATA and REPORT_ID are no part of any key.
    let mut again = open(maker.launch(&Facts { host_data: 9, ..USUAL })?);
    let shared = derived(&mut *usual, &older, "HOST_DATA")? == derived(&mut *again, &older, "other HOST_DATA")?;
    hold("HOST_DATA does not enter a key", shared, "it does")
}

fn authentic(maker: &Maker<'_>, report: &[u8], table: &[u8], data: ReportData) -> Check {
    let property = "the verifier accepts the report under the simulator's anchor";
    let refuse = |error: &dyn core::error::Error| Deviation::new(property, chain(error));
    let anchors = maker.installation.anchors().fold(TrustAnchors::amd(), |all, one| all.with_simulated(one.spki));
    let endorsements = Endorsements::from_cert_table(table).map_err(|error| refuse(&error))?;
    let now = UnixTime(maker.options.now.cast_signed());
    let expected = ExpectedReportData::Exactly(data);
    let verified = verify(report, &endorsements, &anchors, &expected, &CrlPolicy::Required, now);
    let verified = verified.map_err(|error| refuse(&error))?;
    hold("the result says that it is simulated", verified.simulated(), "it does not")
}

/// ID authentication block over `block`, by keys that name nobody.
fn sign(block: &IdBlock) -> Option<IdAuth> {
    let (id, author) = (EcdsaKey::from_slice(&[0x1d; 48]).ok()?, EcdsaKey::from_slice(&[0xa1; 48]).ok()?);
    let mut page = vec![0; 4096];
    page[..8].copy_from_slice(&[1, 0, 0, 0, 1, 0, 0, 0]);
    let id_key = key_structure(&id);
    page[0x240..0x644].copy_from_slice(&id_key);
    page[0x880..0xc84].copy_from_slice(&key_structure(&author));
    put_signature(&mut page[0x40..], &id.sign(&block.to_bytes()));
    put_signature(&mut page[0x680..], &author.sign(&id_key));
    IdAuth::parse(&page).ok()
}

fn key_structure(key: &EcdsaKey) -> [u8; 0x404] {
    let point = key.verifying_key().to_sec1_point(false);
    let coordinates = &point.as_bytes()[1..];
    let mut structure = [0; 0x404];
    structure[0] = 2;
    for (at, coordinate) in [(4, &coordinates[..48]), (76, &coordinates[48..])] {
        coordinate.iter().rev().zip(&mut structure[at..]).for_each(|(byte, place)| *place = *byte);
    }
    structure
}

fn put_signature(place: &mut [u8], signature: &Signature) {
    let (r, s) = signature.split_bytes();
    for (at, scalar) in [(0, r), (72, s)] {
        scalar.iter().rev().zip(&mut place[at..]).for_each(|(byte, place)| *place = *byte);
    }
}
