//! A simulated service on loopback whose answers a test decides, and a client of it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use coffer_kds::{Base, Collected, Kds, Options};
use coffer_simulator::kds::{Fault, answer};
use coffer_simulator::{Installation, LaunchOptions, SecureProcessor};
use coffer_verifier::abi::{HostData, ProductLine, Report, ReportData, ReportRequest, SecureProcessor as _};
use coffer_verifier::measure::PageType;
use coffer_verifier::{
    CrlPolicy, Endorsements, Evidence, EvidencePolicy, Expected, ExpectedGuest, ExpectedReportData, TrustAnchors,
    UnixTime, Verdict, Verifier,
};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// 2026-09-20T00:00:00Z, as Unix seconds.
pub const SECONDS: u64 = 1_789_862_400;
pub const NOW: UnixTime = UnixTime::from_secs(1_789_862_400);
pub const DAY: i64 = 86_400;

pub fn installation() -> &'static Installation {
    static INSTALLATION: OnceLock<Installation> = OnceLock::new();
    INSTALLATION.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let stored = folder.join("kds-simulator.json");
        let lock = File::create(folder.join("kds-simulator.lock")).unwrap();
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

pub fn anchors() -> TrustAnchors {
    installation().anchors().fold(TrustAnchors::amd(), |all, anchor| all.with_simulated(anchor.spki))
}

/// A bare report of the simulated chip.
pub fn report(product: ProductLine) -> Vec<u8> {
    let mut processor = SecureProcessor::launch_start(installation(), LaunchOptions::new(product, SECONDS)).unwrap();
    processor.update(PageType::Normal, 0x1000, &[7; 4096]).unwrap();
    let guest = processor.finish(HostData::new([3; 32]), None).unwrap();
    guest.into_processor().report(&ReportRequest::new(ReportData::new([2; 64]))).unwrap().report
}

/// A report of a chip that is not there: another CHIP_ID, so nobody signed it.
pub fn fake(number: u32) -> Vec<u8> {
    let mut bytes = report_milan().to_vec();
    bytes[0x1a0..0x1a4].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn report_milan() -> &'static [u8] {
    static REPORT: OnceLock<Vec<u8>> = OnceLock::new();
    REPORT.get_or_init(|| report(ProductLine::Milan))
}

/// What a test makes of a request: `None` is the honest answer.
pub enum Reply {
    Status(u16, &'static str),
    Body(Vec<u8>),
    /// Bytes for ever.
    Endless,
    /// The honest answer after this.
    Late(Duration),
    /// Nothing, while the client waits.
    Hang,
}

type Rule = dyn Fn(&str, u64) -> Option<Reply> + Send + Sync;

/// A service that counts.
pub struct Service {
    pub base: Base,
    asked: Arc<Mutex<HashMap<String, u64>>>,
    /// Days that its lists are newer than those of [`NOW`].
    pub days: Arc<AtomicU64>,
}

impl Service {
    pub async fn honest() -> Self {
        Self::new(|_, _| None).await
    }

    /// `rule`: by path and query, and how often this path was asked before.
    pub async fn new(rule: impl Fn(&str, u64) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let rule: Arc<Rule> = Arc::new(rule);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = Base::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let (asked, days) = (Arc::<Mutex<HashMap<String, u64>>>::default(), Arc::new(AtomicU64::new(50)));
        let (count, day) = (Arc::clone(&asked), Arc::clone(&days));
        tokio::spawn(async move {
            while let Ok((line, _)) = listener.accept().await {
                let (rule, count, day) = (Arc::clone(&rule), Arc::clone(&count), Arc::clone(&day));
                tokio::spawn(async move {
                    // A client may leave at any time.
                    let _ = serve(line, &*rule, &count, &day).await;
                });
            }
        });
        Self { base, asked, days }
    }

    /// Requests whose path holds `part`.
    pub fn asked(&self, part: &str) -> u64 {
        self.asked.lock().unwrap().iter().filter(|(path, _)| path.contains(part)).map(|(_, count)| count).sum()
    }

    pub fn options(&self) -> Options {
        let mut options = Options::simulated(self.base.clone(), anchors());
        options.timeout = Duration::from_secs(2);
        options.patience = Duration::from_secs(4);
        options
    }

    pub fn client(&self) -> Kds {
        Kds::open(self.options()).unwrap()
    }
}

async fn serve(
    line: TcpStream,
    rule: &Rule,
    count: &Mutex<HashMap<String, u64>>,
    day: &AtomicU64,
) -> std::io::Result<()> {
    let mut line = BufReader::new(line);
    let (mut request, mut header) = (String::new(), String::new());
    line.read_line(&mut request).await?;
    while line.read_line(&mut header).await? > 2 {
        header.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let before = {
        let mut count = count.lock().unwrap();
        let count = count.entry(path.clone()).or_default();
        *count += 1;
        *count - 1
    };
    let when = SECONDS + day.load(Ordering::Relaxed) * 86_400 - 50 * 86_400;
    let honest = || {
        let got = answer(installation(), &path, Fault::None, when);
        (got.status, "", got.body)
    };
    let (status, extra, body) = match rule(&path, before) {
        None => honest(),
        Some(Reply::Status(status, extra)) => (status, extra, b"no".to_vec()),
        Some(Reply::Body(body)) => (200, "", body),
        Some(Reply::Late(late)) => {
            tokio::time::sleep(late).await;
            honest()
        }
        Some(Reply::Hang) => {
            tokio::time::sleep(Duration::from_hours(1)).await;
            return Ok(());
        }
        Some(Reply::Endless) => {
            line.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await?;
            loop {
                line.write_all(&[0x30; 4096]).await?;
            }
        }
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n{extra}\r\n");
    line.write_all(head.as_bytes()).await?;
    line.write_all(&body).await
}

pub async fn collect(kds: &Kds, report: &[u8]) -> Collected {
    kds.collect(&Report::parse(report).unwrap(), &Endorsements::new(), NOW).await
}

/// What the judge says of a bare report with what was collected.
pub fn judged(report: &[u8], found: &Endorsements, at: UnixTime) -> Verdict {
    judge(report, found, anchors(), at)
}

pub fn judge(report: &[u8], found: &Endorsements, anchors: TrustAnchors, at: UnixTime) -> Verdict {
    let verifier = Verifier { anchors, crl: CrlPolicy::Required, policy: EvidencePolicy::default_floor() };
    let expected = Expected { report_data: ExpectedReportData::Any, guest: ExpectedGuest::WhateverThePolicyAdmits };
    let evidence = Evidence { report: report.to_vec(), ..Evidence::default() };
    let appraisal = verifier.judge(&evidence, found, &expected, at);
    if appraisal.verdict() != Verdict::Accepted {
        println!("{}", appraisal.why());
    }
    appraisal.verdict()
}

/// True if the report is authentic with what was collected.
pub fn holds(report: &[u8], found: &Collected) -> bool {
    judged(report, &found.endorsements, NOW) != Verdict::NotAuthentic
}
