//! A simulated key distribution service on loopback, whose answers a test decides. Included by the tests of several crates.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coffer_kds::Base;
use coffer_simulator::Installation;
use coffer_simulator::kds::{Fault, answer};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What a test makes of a request: `None` is the honest answer.
#[allow(dead_code, reason = "no crate's tests need all of them")]
pub enum Reply {
    Status(u16, &'static str),
    Body(Vec<u8>),
    /// Bytes for ever.
    Endless,
    /// The honest answer after this.
    Late(Duration),
    /// The honest answer, once the test sends `true`.
    Held(watch::Receiver<bool>),
    /// Nothing, while the client waits.
    Hang,
    /// A byte of its body now and then.
    Drip,
    /// A byte of its head now and then.
    DripHead,
}

type Rule = dyn Fn(&str, u64) -> Option<Reply> + Send + Sync;

/// A service that counts.
pub struct Service {
    pub base: Base,
    asked: Arc<Mutex<HashMap<String, u64>>>,
    /// Days since the start.
    pub days: Arc<AtomicU64>,
}

impl Service {
    /// Of this installation; what it says is of `start`, in Unix seconds, and the days after it.
    /// `rule`: by path and query, and how often this path was asked before.
    pub async fn start(
        installation: &'static Installation,
        start: u64,
        rule: impl Fn(&str, u64) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let rule: Arc<Rule> = Arc::new(rule);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = Base::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let (asked, days) = (Arc::<Mutex<HashMap<String, u64>>>::default(), Arc::<AtomicU64>::default());
        let (count, day) = (Arc::clone(&asked), Arc::clone(&days));
        tokio::spawn(async move {
            while let Ok((line, _)) = listener.accept().await {
                let (rule, count, day) = (Arc::clone(&rule), Arc::clone(&count), Arc::clone(&day));
                tokio::spawn(async move {
                    let when = || start + day.load(Ordering::Relaxed) * 86_400;
                    // A client may leave at any time.
                    let _ = serve(line, installation, &*rule, &count, when).await;
                });
            }
        });
        Self { base, asked, days }
    }

    /// Requests whose path holds `part`.
    pub fn asked(&self, part: &str) -> u64 {
        self.asked.lock().unwrap().iter().filter(|(path, _)| path.contains(part)).map(|(_, count)| count).sum()
    }
}

async fn serve(
    line: TcpStream,
    installation: &Installation,
    rule: &Rule,
    count: &Mutex<HashMap<String, u64>>,
    when: impl Fn() -> u64,
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
    let honest = || {
        let got = answer(installation, &path, Fault::None, when());
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
        Some(Reply::Held(mut gate)) => {
            // A test that is over opens none.
            let _ = gate.wait_for(|open| *open).await;
            honest()
        }
        Some(Reply::Hang) => {
            tokio::time::sleep(Duration::from_hours(1)).await;
            return Ok(());
        }
        Some(drips @ (Reply::Drip | Reply::DripHead)) => {
            let of_body = matches!(drips, Reply::Drip);
            let rest = if of_body { "content-length: 4096\r\nconnection: close\r\n\r\n" } else { "x-filler: " };
            line.write_all(format!("HTTP/1.1 200 OK\r\n{rest}").as_bytes()).await?;
            loop {
                line.write_all(b"0").await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
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
