//! `coffer port`.

use std::process::ExitCode;

use coffer_runtime::publish::{How, OWNERS, Publish};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{self, Class, CliError};

/// Say which ports of the host lead to which ports of a running box.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer port web
  coffer port web 80
  coffer port web 53/udp
  coffer port web 8080/ra-tls
  coffer port web owners")]
pub struct Args {
    /// Name or id.
    #[arg(value_name = "BOX")]
    name: String,
    /// One port of the box alone: what leads there.
    #[arg(value_name = "PORT[/tcp|/udp|/ra-tls|/tls]|owners")]
    port: Option<String>,
}

/// Prints them as Docker does: `8080/ra-tls -> 0.0.0.0:8443`, or of one port the address alone.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let all = context.engine()?.ports(&args.name).map_err(error::of)?;
    let Some(text) = &args.port else {
        show(&all, context, |publish| format!("{} -> {}", publish.what(), publish.host));
        return Ok(ExitCode::SUCCESS);
    };
    let (number, word) = match text.split_once('/') {
        None => (text.as_str(), None),
        Some((number, word)) => (number, Some(word)),
    };
    let known = word.is_none_or(|word| How::ALL.iter().any(|how| how.word() == word));
    let is_port = number.parse::<u16>().is_ok_and(|port| port > 0) && known;
    if !is_port && text != OWNERS {
        return Err(CliError::new(Class::Usage, format!("{text:?} is no port"))
            .hint("write 80, 80/tcp, 53/udp, 8080/ra-tls or owners"));
    }
    let asked = |publish: &Publish| match word {
        None if is_port => publish.port().is_some_and(|port| port.to_string() == number),
        _ => publish.what() == *text,
    };
    let of_port: Vec<_> = all.into_iter().filter(asked).collect();
    if of_port.is_empty() {
        let missing = if is_port && word.is_none() { format!("{text}/{}", How::Tcp.word()) } else { text.clone() };
        let message = format!("No public port '{missing}' published for {}", args.name);
        return Err(CliError::new(Class::NotFound, message));
    }
    show(&of_port, context, |publish| publish.host.to_string());
    Ok(ExitCode::SUCCESS)
}

/// As `--json` has it.
pub fn row(publish: &Publish) -> Value {
    json!({ "port": publish.port(), "protocol": publish.how, "host": publish.host })
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
