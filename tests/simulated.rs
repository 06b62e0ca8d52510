//! A simulator's installation, made once and kept in the target folder, and reports of its chips. Included by the tests of several
//! crates.

use std::fs::{self, File};
use std::path::Path;
use std::sync::OnceLock;

use coffer_simulator::{Installation, LaunchOptions, SecureProcessor};
use coffer_verifier::abi::{ExtendedReport, HostData, ProductLine, ReportData, ReportRequest, SecureProcessor as _};
use coffer_verifier::measure::PageType;

/// 2026-09-20T00:00:00Z, as Unix seconds. The installation is a hundred days older.
pub const SECONDS: u64 = 1_789_862_400;

pub fn installation() -> &'static Installation {
    static INSTALLATION: OnceLock<Installation> = OnceLock::new();
    INSTALLATION.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let stored = folder.join("simulator-installation.json");
        let lock = File::create(folder.join("simulator-installation.lock")).unwrap();
        lock.lock().unwrap();
        if let Ok(bytes) = fs::read(&stored) {
            return Installation::from_bytes(&bytes).unwrap();
        }
        let mut made = Installation::create(SECONDS - 100 * 86_400).unwrap();
        for product in ProductLine::ALL {
            made.ensure_vlek(product, SECONDS - 100 * 86_400).unwrap();
        }
        fs::write(&stored, made.to_bytes().unwrap()).unwrap();
        made
    })
}

/// A report of a small guest on its chip, with the certificates and the list of `now`.
pub fn report(product: ProductLine, now: u64, report_data: ReportData) -> ExtendedReport {
    let mut processor = SecureProcessor::launch_start(installation(), LaunchOptions::new(product, now)).unwrap();
    processor.update(PageType::Normal, 0x1000, &[7; 4096]).unwrap();
    let guest = processor.finish(HostData::new([3; 32]), None).unwrap();
    guest.into_processor().report(&ReportRequest::new(report_data)).unwrap()
}
