//! `coffer port`.

use std::process::ExitCode;

use coffer_runtime::publish::{How, Publish};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{self, Class, CliError};

/// Say which ports of the host lead to which ports of a running box.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer port web
  coffer port web 80
  coffer port web 53/udp
  coffer port web 8080/ra-tls")]
pub struct Args {
    /// Name or id.
    #[arg(value_name = "BOX")]
    name: String,
    /// One port of the box alone: what leads there.
    #[arg(value_name = "PORT[/tcp|/udp|/ra-tls|/tls]")]
    port: Option<String>,
}

/// Prints them as Docker does: `8080/ra-tls -> 0.0.0.0:8443`, or of one port the address alone.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let all = context.engine()?.ports(&args.name).map_err(error::of)?;
    let Some(text) = &args.port else {
        show(&all, context, |Publish { host, guest, how }| format!("{guest}/{} -> {host}", how.word()));
        return Ok(ExitCode::SUCCESS);
    };
    let (number, how) = match text.split_once('/') {
        None => (text.as_str(), None),
        Some((number, word)) => (number, Some(word)),
    };
    let known = how.is_none_or(|word| How::ALL.iter().any(|how| how.word() == word));
    let Some(port) = number.parse::<u16>().ok().filter(|_| known) else {
        return Err(
            CliError::new(Class::Usage, format!("{text:?} is no port")).hint("write 80, 80/tcp, 53/udp or 8080/ra-tls")
        );
    };
    let asked = |publish: &Publish| publish.guest == port && how.is_none_or(|word| publish.how.word() == word);
    let of_port: Vec<_> = all.into_iter().filter(asked).collect();
    if of_port.is_empty() {
        let how = how.unwrap_or(How::Tcp.word());
        let message = format!("No public port '{port}/{how}' published for {}", args.name);
        return Err(CliError::new(Class::NotFound, message));
    }
    show(&of_port, context, |publish| publish.host.to_string());
    Ok(ExitCode::SUCCESS)
}

/// As `--json` has it.
pub fn row(Publish { host, guest, how }: &Publish) -> Value {
    json!({ "port": guest, "protocol": how, "host": host })
}

fn show(all: &[Publish], context: &Context, line: impl Fn(&Publish) -> String) {
    if context.json {
        println!("{}", json!({ "ports": all.iter().map(row).collect::<Vec<_>>() }));
    } else {
        for publish in all {
            println!("{}", line(publish));
        }
    }
}
