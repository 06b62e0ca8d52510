//! One simulator installation for all tests, made once per target folder, and the fixed moment they run at.

use std::{
    fs::{self, File},
    path::Path,
    sync::OnceLock,
};

use coffer_simulator::{Installation, LaunchOptions, SecureProcessor, SimulatedGuest};
use coffer_verifier::abi::{HostData, ProductLine};
use coffer_verifier::measure::PageType;

/// 2026-09-20T00:00:00Z.
pub const NOW: u64 = 1_789_862_400;

pub fn installation() -> &'static Installation {
    static INSTALLATION: OnceLock<Installation> = OnceLock::new();
    INSTALLATION.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let stored = folder.join("simulator-1.json");
        let lock = File::create(folder.join("simulator.lock")).unwrap();
        lock.lock().unwrap();
        if let Ok(bytes) = fs::read(&stored) {
            return Installation::from_bytes(&bytes).unwrap();
        }
        let mut made = Installation::create(NOW - 10 * 86_400).unwrap();
        for product in ProductLine::ALL {
            made.ensure_vlek(product, NOW - 10 * 86_400).unwrap();
        }
        fs::write(&stored, made.to_bytes().unwrap()).unwrap();
        made
    })
}

pub fn launch(options: LaunchOptions) -> SimulatedGuest {
    let mut processor = SecureProcessor::launch_start(installation(), options).unwrap();
    processor.update(PageType::Normal, 0x1000, &[7; 4096]).unwrap();
    processor.finish(HostData::new([3; 32]), None).unwrap()
}

pub fn guest(product: ProductLine) -> SimulatedGuest {
    launch(LaunchOptions::new(product, NOW))
}
