//! `coffer commit`: what a box wrote becomes a layer, and an image in the store.
//!
//! Of plain boxes alone: an image lies in the store of this machine, open to whoever has it.

use std::process::ExitCode;

use coffer_image::Limits;
use coffer_image::archive::Commit;
use coffer_runtime::boxes::unix_ms;
use coffer_runtime::engine::Trust;
use coffer_runtime::images::{self, of_image};
use coffer_spec::Tee;
use serde_json::json;

use crate::boxes::cp::pump::take;
use crate::context::Context;
use crate::error::{self, Class, CliError};
use crate::image::room;
use crate::table;

/// Make an image of a running box's own image and what the box wrote over it, and print its id.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "coffer commit [OPTIONS] BOX [REPOSITORY[:TAG]]",
    after_help = "The layers of the box's image stay, and what the image says it runs, but for what --change says. What is mounted in the box, volumes \
and memory, is not in the image. Nothing stands still meanwhile: stop what writes in the box first.
A box with a TEE is refused, whose files no image of this machine may hold; its owner has `coffer export`.

Examples:
  coffer commit web web:2
  coffer commit -m 'with tools' -c 'CMD [\"/bin/httpd\"]' web team/web:2"
)]
pub struct Args {
    /// What it runs, as a Dockerfile says it: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR.
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// A word for its history.
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    message: String,
    /// Who made it.
    #[arg(short, long, value_name = "NAME", default_value = "")]
    author: String,
    /// Name or id.
    #[arg(value_name = "BOX")]
    name: String,
    /// Its name; without one it has its id alone.
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
}

/// Makes it.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    let record = engine.find(&args.name).map_err(error::of)?;
    if record.options.tee != Tee::None {
        let message = format!("box {} has a TEE: no image of this machine may hold its files", record.name);
        return Err(CliError::new(Class::Refused, message).hint(
            "as its owner, `coffer export` writes them where you say, and `coffer import` makes an image of that",
        ));
    }
    let commit = Commit {
        reference: args.reference.clone(),
        changes: args.change.clone(),
        message: args.message.clone(),
        author: args.author.clone(),
        created_by: record.options.command.join(" "),
        created: table::rfc3339(unix_ms()),
    };
    commit.check().map_err(|error| of_image(&error))?;
    let store = images::open(&context.open_home()?)?;
    let parent = store.resolve(&record.options.image_digest).map_err(|error| {
        let failure = of_image(&error).while_doing("the image that the box was made from has no name any more");
        failure.hint("pull or load that image again")
    })?;
    let limits = Limits::default();
    let layer = context.runtime()?.block_on(async {
        let mut session = engine.read_changes(&args.name, true, &Trust::default()).await.map_err(error::of)?;
        let store = store.clone();
        take(&mut session, false, move |from| store.take_layer(from, limits).map_err(|error| of_image(&error))).await
    })?;
    let image = store.commit(&parent, layer, &commit).map_err(|error| of_image(&error))?.image;
    if context.json {
        let (id, digest) = (image.config_digest.to_string(), image.manifest_digest.to_string());
        println!("{}", json!({ "id": id, "reference": image.reference, "digest": digest }));
    } else {
        println!("{}", image.config_digest);
    }
    room::keep(context, &[image.config_digest])?;
    Ok(ExitCode::SUCCESS)
}
