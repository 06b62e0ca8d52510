//! `coffer sim kds`: the simulated key distribution service over HTTP/1.1, for tests of KDS clients.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use coffer_rim::listen;
use coffer_rim::usage::ip_and_port;
use coffer_simulator::Installation;
use coffer_simulator::kds::{Fault, answer};
use coffer_verifier::abi::ProductLine;

use super::{now, open_all};
use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};

/// Serve AMD's KDS paths.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer sim kds --listen 127.0.0.1:8080
  coffer sim kds --fault 429 --answers 3")]
pub struct Args {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "IP:PORT", value_parser = ip_and_port)]
    listen: SocketAddr,

    /// What goes wrong.
    #[arg(long, value_enum, default_value_t = FaultWord::None)]
    fault: FaultWord,

    /// End after so many answers.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    answers: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FaultWord {
    /// Nothing.
    None,
    /// Status 429.
    #[value(name = "429")]
    TooMany,
    /// Status 500.
    #[value(name = "500")]
    ServerError,
    /// Ten seconds before each answer.
    Slow,
    /// The VCEK of another TCB.
    WrongCertificate,
    /// A revocation list past its next update.
    StaleCrl,
}

/// Serves until killed.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let installation = Arc::new(open_all(&ProductLine::ALL, true, context)?);
    let listener = TcpListener::bind(args.listen).map_err(|error| listen::failed(args.listen, &error))?;
    let address = listener.local_addr().class(Class::Internal)?;
    if context.json {
        println!("{}", serde_json::json!({ "url": format!("http://{address}") }));
    } else {
        println!("http://{address}");
    }
    let mut left = args.answers;
    for line in listener.incoming() {
        let Ok(line) = line else { continue };
        left = left.map(|left| left - 1);
        let (installation, fault) = (Arc::clone(&installation), args.fault);
        let serving = std::thread::spawn(move || serve(line, &installation, fault));
        if left == Some(0) {
            let _ = serving.join();
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One request per connection, at most 8 KiB of head; a client that stalls is dropped.
fn serve(mut line: TcpStream, installation: &Installation, fault: FaultWord) -> std::io::Result<()> {
    line.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(line.try_clone()?.take(8 * 1024));
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    if fault == FaultWord::Slow {
        std::thread::sleep(Duration::from_secs(10));
    }
    let mut words = request.split_whitespace();
    let got = match (words.next(), words.next()) {
        (Some("GET"), Some(target)) => answer(installation, target, fault.into(), now()),
        _ => answer(installation, "", Fault::None, now()),
    };
    tracing::info!(request = request.trim_end(), status = got.status, "answered");
    let head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        got.status,
        if got.status == 200 { "OK" } else { "Error" },
        got.content_type,
        got.body.len()
    );
    line.write_all(head.as_bytes())?;
    line.write_all(&got.body)
}

impl From<FaultWord> for Fault {
    fn from(word: FaultWord) -> Self {
        match word {
            FaultWord::None | FaultWord::Slow => Self::None,
            FaultWord::TooMany => Self::TooManyRequests,
            FaultWord::ServerError => Self::ServerError,
            FaultWord::WrongCertificate => Self::WrongCertificate,
            FaultWord::StaleCrl => Self::StaleCrl,
        }
    }
}
