//! `coffer-verifier init`.

use std::{net::SocketAddr, path::PathBuf};

use clap::builder::NonEmptyStringValueParser;
use coffer_rim::{Failure, usage::ip_and_port};
use coffer_verifier::ear::Issuer;
use coffer_verifier_service::{Wanted, init};
use serde_json::json;

use crate::error::Said as _;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The key that may ask is printed once and kept nowhere. The certificate is the \
folder's own: give callers tls.pem, or put one of yours in its place.

Examples:
  coffer-verifier init --state ./verifier
  coffer-verifier init --state ./verifier --listen 0.0.0.0:4490 \\
      --issuer https://verifier.example --name verifier.example")]
pub struct Args {
    /// New or empty folder.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Where callers will connect; port 0: any.
    #[arg(long, default_value = "127.0.0.1:4490", value_name = "IP:PORT", value_parser = ip_and_port)]
    listen: SocketAddr,
    /// Host name or IP address in the certificate [default: localhost, 127.0.0.1, ::1]. May be repeated.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    name: Vec<String>,
    /// Who issues tokens: the address under which others find the keys, https://HOST. Left out: no tokens.
    #[arg(long, value_name = "URL", value_parser = Issuer::parse)]
    issuer: Option<Issuer>,
}

/// Makes the folder and prints the key.
pub fn run(args: &Args, as_json: bool) -> Result<(), Failure> {
    let names = match &args.name[..] {
        [] => ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec(),
        names => names.to_vec(),
    };
    let wanted = Wanted { listen: args.listen, names, issuer: args.issuer.clone() };
    let made = init(&args.state, &wanted).map_err(|error| error.said())?;
    if as_json {
        let value = json!({
            "state": args.state, "listen": args.listen, "certificate": made.certificate, "api_key": made.api_key,
        });
        coffer_rim::println!("{value}");
    } else {
        coffer_rim::println!("state folder {}", args.state.display());
        coffer_rim::println!("certificate {} (for callers to believe)", made.certificate.display());
        let more = if args.name.is_empty() { "; --name puts others into it" } else { "" };
        coffer_rim::println!("it is for {}{more}", wanted.names.join(", "));
        coffer_rim::println!("API key {} (kept nowhere: keep it)", made.api_key);
    }
    Ok(())
}
