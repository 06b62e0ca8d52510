//! No false reject and no false accept, over 100,000 random reports each, on all processors: half a minute on two.

use crate::common::{NOW, installation};
use coffer_simulator::attack::{EvidenceSet, Scene, genuine};
use coffer_simulator::{LaunchOptions, SecureProcessor};
use coffer_verifier::abi::{
    HostData, ProductLine, Report, ReportData, ReportRequest, SIGNED_LEN, SecureProcessor as _,
};
use coffer_verifier::measure::PageType;
use coffer_verifier::{CrlPolicy, Endorsements, ExpectedReportData, TrustAnchors, UnixTime, VerifiedChain};

/// A small generator of our own (SplitMix64): the same cases in every run.
struct Stream(u64);

impl Stream {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
        out
    }
}

const NOW_TIME: UnixTime = UnixTime(NOW.cast_signed());

fn chain(product: ProductLine, set: &EvidenceSet) -> VerifiedChain {
    let anchors = TrustAnchors::amd().with_simulated(installation().anchor(product).unwrap().spki);
    let endorsements = Endorsements::from_cert_table(&set.cert_table).unwrap();
    let report = Report::parse(&set.report).unwrap();
    VerifiedChain::verify(&report, &endorsements, &anchors, &CrlPolicy::Required, NOW_TIME).unwrap()
}

/// Product lines and report versions, each with its share of the cases.
const KINDS: [(ProductLine, u32); 7] = [
    (ProductLine::Milan, 2),
    (ProductLine::Milan, 3),
    (ProductLine::Milan, 5),
    (ProductLine::Genoa, 3),
    (ProductLine::Genoa, 5),
    (ProductLine::Turin, 5),
    (ProductLine::Turin, 3),
];

const CASES: usize = 100_000;

/// Shares at least [`CASES`] out over all kinds, and each kind's share over as many workers as the machine has processors.
/// `work` gets a random stream of its own and the number of cases it owes.
fn share_out(work: impl Fn(ProductLine, u32, Stream, usize) + Sync) {
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let each = CASES.div_ceil(KINDS.len() * workers);
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let work = &work;
            scope.spawn(move || {
                for (kind, (product, version)) in KINDS.into_iter().enumerate() {
                    work(product, version, Stream((worker * KINDS.len() + kind) as u64), each);
                }
            });
        }
    });
    println!("{} cases", each * workers * KINDS.len());
}

#[test]
fn no_simulated_report_is_falsely_refused() {
    share_out(|product, version, mut stream, cases| {
        let mut options = LaunchOptions::new(product, NOW);
        options.report_version = version;
        let mut processor = SecureProcessor::launch_start(installation(), options.clone()).unwrap();
        processor.update(PageType::Normal, 0, &stream.bytes()).unwrap();
        let guest = processor.finish(HostData::new(stream.bytes()), None).unwrap();
        let chain = chain(product, &genuine(installation(), &Scene { options, ..Scene::new(product, NOW) }).unwrap());
        let mut processor = guest.into_processor();
        for _ in 0..cases {
            let data = ReportData::new(stream.bytes());
            let vmpl = (stream.next() % 4) as u32;
            let got = processor.report(&ReportRequest { vmpl, ..ReportRequest::new(data) }).unwrap();
            chain
                .verify_report(&got.report, &ExpectedReportData::Exactly(data), NOW_TIME)
                .unwrap_or_else(|error| panic!("{product} version {version}: {error:?}"));
        }
    });
}

#[test]
fn no_report_with_one_bit_changed_is_falsely_accepted() {
    share_out(|product, version, mut stream, cases| {
        let mut scene = Scene::new(product, NOW);
        scene.options.report_version = version;
        let set = genuine(installation(), &scene).unwrap();
        let chain = chain(product, &set);
        let mut report = set.report.clone();
        for _ in 0..cases {
            let bit = (stream.next() % (8 * report.len() as u64)) as usize;
            report[bit / 8] ^= 1 << (bit % 8);
            let answer = chain.verify_report(&report, &ExpectedReportData::Any, NOW_TIME);
            assert!(answer.is_err(), "{product} version {version}, bit {bit} (signed: {})", bit / 8 < SIGNED_LEN);
            report[bit / 8] ^= 1 << (bit % 8);
        }
        chain.verify_report(&report, &ExpectedReportData::Any, NOW_TIME).expect("every bit was set back");
    });
}
