//! `coffer sim check`: the whole attack kit against anybody's verifier.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use coffer_simulator::attack::{ATTACKS, Expect, Scene};
use coffer_verifier::abi::ProductLine;
use serde_json::json;

use super::{evidence, expected, folder, now, open};
use crate::cli::Context;
use crate::error::{Class, Classify as _, CliError};

/// Check a verifier.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
--cmd runs once per attack, through sh, with these variables:
  COFFER_EVIDENCE     evidence record (CMW); beside it report.bin, *.der, *.pem, crl.der, cert_table.bin
  COFFER_DIR          their folder
  COFFER_POLICY       policy under which the good guest alone is accepted (TOML; see expect.json for the values)
  COFFER_ANCHOR       SHA-256 of the simulator root's public key
  COFFER_REPORT_DATA  what the verifier asked for
Exit status 0 means accepted; 5 not authentic and 6 refused are told apart, anything else counts as not accepted.

--url gets one POST of the record per attack (http only), REPORT_DATA in the header coffer-report-data; 2xx means accepted.
Configure the verifier with the anchor and the policy that `coffer sim evidence --out DIR` writes.

Examples:
  coffer sim check --cmd 'my-verifier \"$COFFER_EVIDENCE\" --policy \"$COFFER_POLICY\"'
  coffer sim check --url http://127.0.0.1:8080/verify --product genoa")]
pub struct Args {
    /// Command to run for each attack.
    #[arg(long, value_name = "CMD", required_unless_present = "url", conflicts_with = "url")]
    cmd: Option<String>,

    /// Endpoint to send each attack to.
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// Product line: milan, genoa or turin.
    #[arg(long, default_value = "milan", value_name = "NAME")]
    product: ProductLine,

    /// Count an attack refused under the wrong class as a failure too (--cmd only).
    #[arg(long, requires = "cmd")]
    strict: bool,

    /// Only this attack.
    #[arg(long, value_name = "NAME")]
    attack: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    NotAuthentic,
    Refused,
    Other,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::NotAuthentic => "not-authentic",
            Self::Refused => "refused",
            Self::Other => "not accepted",
        }
    }
}

/// Checks.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let installation = open(&folder(context), args.product, false)?;
    let anchor = installation.anchor(args.product).map(|anchor| anchor.spki.to_string()).unwrap_or_default();
    let scene = Scene::new(args.product, now());
    let scratch = tempfile::tempdir().class(Class::Config)?;
    let chosen: Vec<_> =
        ATTACKS.iter().filter(|attack| args.attack.as_deref().is_none_or(|name| name == attack.name)).collect();
    if chosen.is_empty() {
        return Err(CliError::new(Class::Usage, "no attack has that name").hint("coffer sim attacks lists them"));
    }
    let ask = |name: Option<&str>, expect: Option<Expect>| {
        let set = evidence::make(&installation, &scene, name)?;
        let out = scratch.path().join(name.unwrap_or("good"));
        evidence::write(&out, &installation, &scene, &set, expect)?;
        match (&args.cmd, &args.url) {
            (Some(command), _) => by_command(command, &out, &anchor, &scene.report_data.to_string()),
            (None, url) => {
                let record = set.evidence().to_cmw();
                by_post(url.as_deref().unwrap_or_default(), &record, &scene.report_data.to_string())
            }
        }
    };

    let mut rows = vec![("(good evidence)", "accepted".to_owned(), ask(None, None)?, true)];
    rows[0].3 = rows[0].2 == Verdict::Accepted;
    for attack in chosen {
        let verdict = ask(Some(attack.name), Some(attack.expect))?;
        let class = match attack.expect {
            Expect::NotAuthentic => Verdict::NotAuthentic,
            Expect::Refused(_) => Verdict::Refused,
        };
        let right = verdict != Verdict::Accepted && (!args.strict || verdict == class);
        rows.push((attack.name, expected(attack.expect), verdict, right));
    }
    let wrong = rows.iter().filter(|row| !row.3).count();
    if context.json {
        let list: Vec<_> = rows
            .iter()
            .map(|(name, expect, verdict, right)| {
                json!({ "attack": name, "expected": expect, "answer": verdict.word(), "ok": right })
            })
            .collect();
        println!("{}", json!({ "product": args.product, "wrong": wrong, "results": list }));
    } else {
        println!("{:<26} {:<32} {:<14}", "ATTACK", "MUST BE ANSWERED", "ANSWER");
        for (name, expect, verdict, right) in &rows {
            println!("{name:<26} {expect:<32} {:<14} {}", verdict.word(), if *right { "ok" } else { "WRONG" });
        }
        println!("{} of {} answers are right", rows.len() - wrong, rows.len());
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::from(Class::Refused.code()) })
}

fn by_command(command: &str, folder: &Path, anchor: &str, report_data: &str) -> Result<Verdict, CliError> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .env("COFFER_DIR", folder)
        .env("COFFER_EVIDENCE", folder.join("evidence.cmw"))
        .env("COFFER_POLICY", folder.join("policy.toml"))
        .env("COFFER_ANCHOR", anchor)
        .env("COFFER_REPORT_DATA", report_data)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .class_while(Class::Config, "running --cmd")?;
    let end = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().class(Class::Internal)? {
            break status;
        }
        if Instant::now() >= end {
            let _ = child.kill();
            let _ = child.wait();
            return Err(CliError::new(Class::Unreachable, "--cmd did not end within 60 seconds"));
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Ok(match status.code() {
        Some(0) => Verdict::Accepted,
        Some(5) => Verdict::NotAuthentic,
        Some(6) => Verdict::Refused,
        Some(126 | 127) => {
            return Err(CliError::new(Class::Config, "--cmd cannot be run").hint("try it by hand with sh -c"));
        }
        _ => Verdict::Other,
    })
}

/// One request, one connection; the status line is all that counts.
fn by_post(url: &str, record: &[u8], report_data: &str) -> Result<Verdict, CliError> {
    let unreachable = |error: std::io::Error| CliError::caused(Class::Unreachable, &error).while_doing(url);
    let rest = url.strip_prefix("http://").ok_or_else(|| {
        CliError::new(Class::Usage, format!("{url:?} is not an http:// URL")).hint("put a proxy in front, or use --cmd")
    })?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let address = address.to_socket_addrs().map_err(unreachable)?.next();
    let address = address.ok_or_else(|| CliError::new(Class::Unreachable, format!("{host} has no address")))?;
    let mut line = TcpStream::connect_timeout(&address, PATIENCE).map_err(unreachable)?;
    line.set_read_timeout(Some(PATIENCE)).map_err(unreachable)?;
    let head = format!(
        "POST /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/cmw+cbor\r\ncoffer-report-data: {report_data}\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        record.len()
    );
    line.write_all(head.as_bytes()).map_err(unreachable)?;
    line.write_all(record).map_err(unreachable)?;
    let mut answer = Vec::new();
    line.take(64 * 1024).read_to_end(&mut answer).map_err(unreachable)?;
    let status = std::str::from_utf8(answer.get(9..12).unwrap_or_default()).ok().and_then(|code| code.parse().ok());
    match status {
        Some(200..=299) => Ok(Verdict::Accepted),
        Some(400 | 401 | 403 | 409 | 422) => Ok(Verdict::Other),
        Some(code @ 100..=599_u16) => {
            Err(CliError::new(Class::Unreachable, format!("{url} answered {code}, which is no verdict")))
        }
        _ => Err(CliError::new(Class::Unreachable, format!("{url} did not answer in HTTP"))),
    }
}

const PATIENCE: Duration = Duration::from_mins(1);
