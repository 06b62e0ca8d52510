//! `coffer volume create`.

use std::process::ExitCode;

use coffer_runtime::request::bytes;
use serde_json::json;

use crate::boxes::new_box::labels;
use crate::context::Context;
use crate::error::{self, Class, CliError};

/// Make a volume, and print its name. One that is there stays as it is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer volume create db
  coffer volume create --opt size=20g --label tier=db db")]
pub struct Args {
    /// Driver; there is one.
    #[arg(short, long, value_name = "DRIVER", default_value = "local")]
    driver: String,
    /// size=SIZE: most bytes that are kept, 16m to 16t [default: 10g]. The host's disk has what is written.
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// What the volume is found by.
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Its name [default: 64 digits; `coffer volume prune` takes one of those that no box has].
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Makes it.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    if args.driver != "local" {
        let message = format!("there is no volume driver {:?}", args.driver);
        return Err(CliError::new(Class::Usage, message).hint("there is one, local: leave --driver out"));
    }
    let mut size = None;
    for text in &args.opt {
        let refused = |why: &str| {
            let message = format!("invalid value {text:?} for --opt: {why}");
            CliError::new(Class::Usage, message).hint("write size=20g")
        };
        match text.split_once('=') {
            Some(("size", _)) if size.is_some() => return Err(refused("size stands there twice")),
            Some(("size", value)) => size = Some(bytes(value).ok_or_else(|| refused("expected a size"))?),
            _ => return Err(refused("there is size")),
        }
    }
    let labels = labels(&args.label)?;
    let name = args.name.as_deref().map(super::name).transpose()?;
    let volume = context.engine()?.create_volume(name.as_ref(), size, labels).map_err(error::of)?;
    if context.json {
        println!("{}", json!({ "name": volume.name.as_str() }));
    } else {
        println!("{}", volume.name);
    }
    Ok(ExitCode::SUCCESS)
}
