//! Figures for Prometheus, on a listener of their own: how many decisions of each kind and connections there are, how often a limit was
//! reached, where the trail ends, what evidence cost.
//!
//! Labels are words of this program, never a tenant, a path, a name or a source: who reads the figures learns no secret's
//! name. Plain HTTP, so it belongs on the loopback or behind something that authenticates.
//! Never: takes a lock of the ledger for longer than a look at its end.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::Write as _,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use coffer_ratls::Load;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::{
    audit_log::{AuditLog, Unprinted},
    guest::GuestVerifier,
    store::Store,
};

/// Decisions by event and outcome.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Mutex<BTreeMap<(String, String), u64>>>);

/// What others count.
pub struct Counted {
    pub store: Arc<Store>,
    pub verifier: Arc<GuestVerifier>,
    pub unprinted: Unprinted,
    pub listeners: [Listener; 2],
    /// Requests that were too many, by who asked.
    pub over_rate: [OverRate; 2],
}

type OverRate = (&'static str, Box<dyn Fn() -> u64 + Send + Sync>);

/// Connections of one listener.
pub struct Listener {
    pub of: &'static str,
    pub load: Load,
    /// Closed for what their source may have.
    pub over_source: Arc<AtomicU64>,
}

/// What is looked at of a line.
#[derive(Default, Deserialize)]
struct Words<'a> {
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    outcome: Option<Cow<'a, str>>,
}

impl Metrics {
    /// Counts every line on its way.
    pub fn counting(&self, log: &AuditLog) -> AuditLog {
        let metrics = self.clone();
        log.seen_by(move |line| metrics.count(line))
    }

    fn count(&self, line: &str) {
        let Words { event, outcome } = serde_json::from_str(line).unwrap_or_default();
        let word = |word: Option<Cow<'_, str>>| word.map_or_else(|| "unknown".to_owned(), Cow::into_owned);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((word(event), word(outcome))).or_default() += 1;
    }

    async fn text(&self, counted: &Counted) -> String {
        let Counted { store, verifier, unprinted, listeners, over_rate } = counted;
        let mut text = String::from(
            "# HELP coffer_kbs_decisions_total Lines of the audit trail since the start.\n\
             # TYPE coffer_kbs_decisions_total counter\n",
        );
        for ((event, outcome), count) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = writeln!(text, "coffer_kbs_decisions_total{{event=\"{event}\",outcome=\"{outcome}\"}} {count}");
        }
        let _ = writeln!(
            text,
            "# HELP coffer_kbs_log_lines_unprinted_total Lines of the audit trail that standard output did not take.\n\
             # TYPE coffer_kbs_log_lines_unprinted_total counter\ncoffer_kbs_log_lines_unprinted_total {}",
            unprinted.count()
        );
        connections(&mut text, listeners, over_rate);
        // A store that cannot be looked at is not a figure of 0.
        if let Ok(position) = store.position().await {
            for (name, kind, value) in [
                ("epoch", "gauge", position.epoch),
                ("audit_lines", "counter", position.lines),
                ("changes", "counter", position.changes),
            ] {
                let _ = writeln!(text, "# TYPE coffer_kbs_{name} {kind}\ncoffer_kbs_{name} {value}");
            }
        }
        let up = u8::from(store.is_witnessed() && store.position().await.is_ok());
        let _ = writeln!(
            text,
            "# HELP coffer_kbs_store_up Decisions are recorded: the database answers, the checkpoint moves.\n\
             # TYPE coffer_kbs_store_up gauge\ncoffer_kbs_store_up {up}"
        );
        let cost = verifier.cost();
        for (name, value) in [("rsa", cost.rsa), ("ecdsa", cost.ecdsa)] {
            let name = format!("coffer_kbs_evidence_{name}_verifications_total");
            let _ = writeln!(text, "# TYPE {name} counter\n{name} {value}");
        }
        text
    }
}

fn connections(text: &mut String, listeners: &[Listener], over_rate: &[OverRate]) {
    let mut say = |name: &str, help: &str, kind: &str, values: Vec<(String, u64)>| {
        let _ = writeln!(text, "# HELP coffer_kbs_{name} {help}\n# TYPE coffer_kbs_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "coffer_kbs_{name}{{{labels}}} {value}");
        }
    };
    let of = |one: &Listener| format!("listener=\"{}\"", one.of);
    let open = |one: &Listener| {
        // Two looks: a stranger may have become known in between.
        let (strangers, open) = (one.load.strangers(), one.load.open());
        [("strangers", strangers), ("known", open.saturating_sub(strangers))]
            .map(|(who, value)| (format!("{},who=\"{who}\"", of(one)), value))
    };
    let closed = |one: &Listener| {
        [("place", one.load.closed()), ("source", one.over_source.load(Ordering::Relaxed))]
            .map(|(limit, value)| (format!("{},limit=\"{limit}\"", of(one)), value))
    };
    let now = listeners.iter().flat_map(open).collect();
    say("connections", "Open now; strangers have shown nothing yet.", "gauge", now);
    let since = listeners.iter().flat_map(closed).collect();
    say("connections_closed_total", "For want of a place, or for what their source has.", "counter", since);
    let over = over_rate.iter().map(|(who, count)| (format!("who=\"{who}\""), count())).collect();
    say("requests_over_rate_total", "Too many of one guest, stranger or operator.", "counter", over);
}

/// Serves them until dropped.
pub async fn serve(listener: TcpListener, metrics: Metrics, counted: Counted) {
    let counted = Arc::new(counted);
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Whoever comes while all are busy is hung up on.
        let Ok(permit) = at_once.clone().try_acquire_owned() else { continue };
        let (metrics, counted) = (metrics.clone(), counted.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let _ = tokio::time::timeout(PATIENCE, answer(stream, &metrics, &counted)).await;
        });
    }
}

async fn answer(mut stream: TcpStream, metrics: &Metrics, counted: &Counted) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut more = [0; 1024];
        let read = stream.read(&mut more).await?;
        request.extend_from_slice(&more[..read]);
        if read == 0 || request.len() > LONGEST {
            return Ok(());
        }
    }
    let (status, body) = if request.starts_with(b"GET /metrics ") {
        ("200 OK", metrics.text(counted).await)
    } else {
        ("404 Not Found", "there is /metrics\n".to_owned())
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

const AT_ONCE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(2);
const LONGEST: usize = 8 * 1024;
