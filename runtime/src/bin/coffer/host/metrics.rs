//! `coffer metrics`: figures of this home for Prometheus, over HTTP/1.1.
//!
//! Trusts: whoever reaches the address, with figures and no names of boxes. Never: listens beyond this machine unless that is asked for by name.

mod figures;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coffer_rim::listen;
use coffer_rim::usage::ip_and_port;
use coffer_runtime::engine::Engine;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use self::figures::Figures;
use crate::context::Context;
use crate::error::{self, Class, Classify as _, CliError};

/// Serve figures of boxes, images and what was done here to Prometheus: /metrics, and /healthz.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It runs until SIGTERM or SIGINT, and ends what it is answering. Counters begin with the oldest line of the trail that is kept, and start anew with it.
There is no login: whoever reaches the address reads the figures, which have no names of boxes.

Examples:
  coffer metrics
  coffer metrics --listen 127.0.0.1:0
  curl -s http://127.0.0.1:9464/metrics"
)]
pub struct Args {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:9464", value_name = "IP:PORT", value_parser = ip_and_port)]
    listen: SocketAddr,
    /// Listen on an address that other machines reach.
    #[arg(long)]
    let_other_machines_read_metrics: bool,
}

/// Answers at one time, and how long one may take.
const AT_ONCE: usize = 16;
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a request that are read.
const REQUEST: u64 = 8 << 10;

/// Serves until a signal comes.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    if !args.listen.ip().to_canonical().is_loopback() && !args.let_other_machines_read_metrics {
        let message = format!("{} can be reached from other machines, and metrics have no login", args.listen);
        let hint = "listen on 127.0.0.1 or [::1], or add --let-other-machines-read-metrics";
        return Err(CliError::new(Class::Usage, message).hint(hint));
    }
    let engine = context.engine()?;
    engine.open().map_err(error::of)?;
    let figures = Arc::new(Mutex::new(Figures::default()));
    context.runtime()?.block_on(serve(args.listen, context.json, engine, figures))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(address: SocketAddr, json: bool, engine: Engine, figures: Arc<Mutex<Figures>>) -> Result<(), CliError> {
    let mut ends = [SignalKind::terminate(), SignalKind::interrupt()].map(signal).into_iter();
    let (Some(Ok(mut terminate)), Some(Ok(mut interrupt))) = (ends.next(), ends.next()) else {
        return Err(CliError::new(Class::Internal, "signals cannot be heard"));
    };
    let listener = TcpListener::bind(address).await.map_err(|error| listen::failed(address, &error))?;
    let address = listener.local_addr().class(Class::Internal)?;
    if json {
        println!("{}", json!({ "url": format!("http://{address}/metrics") }));
    } else {
        println!("http://{address}/metrics");
    }
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let line = tokio::select! {
            line = listener.accept() => line,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        // Whoever finds no place is not answered.
        let (Ok((line, _)), Ok(place)) = (line, Arc::clone(&places).try_acquire_owned()) else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (engine, figures) = (engine.clone(), Arc::clone(&figures));
        tokio::spawn(async move {
            let _place = place;
            let _ = tokio::time::timeout(PATIENCE, answer(line, engine, figures)).await;
        });
    }
    // What is being answered is answered.
    let all = u32::try_from(AT_ONCE).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(PATIENCE, places.acquire_many(all)).await;
    Ok(())
}

/// One request of a connection.
async fn answer(line: TcpStream, engine: Engine, figures: Arc<Mutex<Figures>>) -> std::io::Result<()> {
    let (from, mut to) = line.into_split();
    let mut from = BufReader::new(from.take(REQUEST));
    let mut request = String::new();
    from.read_line(&mut request).await?;
    let mut header = String::new();
    loop {
        header.clear();
        let count = from.read_line(&mut header).await?;
        if count == 0 {
            // It is too long, or was broken off.
            return Ok(());
        }
        if header.trim_end().is_empty() {
            break;
        }
    }
    let mut words = request.split_whitespace();
    let target = words.next().filter(|method| *method == "GET").and_then(|_| words.next());
    let (status, body) = match target.map(|target| target.split('?').next().unwrap_or(target)) {
        Some("/metrics") => {
            // It reads files.
            let read = tokio::task::spawn_blocking(move || {
                figures.lock().unwrap_or_else(PoisonError::into_inner).text(&engine)
            });
            match read.await {
                Ok(Ok(text)) => ("200 OK", text),
                Ok(Err(failure)) => {
                    tracing::warn!(%failure, "there are no figures");
                    ("503 Service Unavailable", "this home cannot be read\n".to_owned())
                }
                Err(_) => ("500 Internal Server Error", String::new()),
            }
        }
        Some("/healthz") => ("200 OK", "ok\n".to_owned()),
        Some(_) => ("404 Not Found", "/metrics and /healthz are here\n".to_owned()),
        None => ("405 Method Not Allowed", "GET alone\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    to.write_all(head.as_bytes()).await?;
    to.write_all(body.as_bytes()).await?;
    to.shutdown().await
}
