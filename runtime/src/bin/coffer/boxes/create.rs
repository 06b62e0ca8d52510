//! `coffer create`: records a box without starting it.

use std::process::ExitCode;

use coffer_platform::plan::VCPU_TYPE;
use coffer_rim::file::write_private;
use coffer_runtime::boxes::{BoxOptions, Timings, files, unix_ms};
use coffer_runtime::id::{check_name, random_name};
use coffer_runtime::images::of_image;
use coffer_runtime::launch::load_platform;
use coffer_runtime::supervisor::of_state;
use coffer_runtime::{BoxId, BoxRecord, BoxState, Home, State, home};
use coffer_spec::Scratch;

use crate::cli::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::flags::{BoxFlags, check_hardware};
use crate::id_flags::IdFlags;
use crate::measure::measurement;

/// Create a box from an image, to be started later.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer create --name web busybox httpd -f
  coffer create --tee-simulate --id-key id.pem --author-key author.pem --guest-svn 3 busybox httpd -f")]
pub struct Args {
    /// Name of the box [default: adjective_noun].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Remove the box when it ends.
    #[arg(long)]
    rm: bool,
    /// Print nothing but the id.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    id: IdFlags,
    #[command(flatten)]
    flags: BoxFlags,
}

/// Creates it and prints its id.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let (home, state) = context.open_state()?;
    let timings = Timings::start();
    let quiet = args.quiet || context.json;
    let wanted = Wanted { name: args.name.as_deref(), remove: args.rm, quiet, id: &args.id };
    let record = context.runtime()?.block_on(make(context, &home, &state, &args.flags, &wanted, timings))?;
    if context.json {
        println!("{}", serde_json::json!({ "id": record.id, "name": record.name }));
    } else {
        println!("{}", record.id);
    }
    Ok(ExitCode::SUCCESS)
}

/// What a box gets besides its description.
pub struct Wanted<'a> {
    /// Name.
    pub name: Option<&'a str>,
    /// `--rm`.
    pub remove: bool,
    /// No progress.
    pub quiet: bool,
    /// ID block.
    pub id: &'a IdFlags,
}

/// Pulls, describes and records a box.
pub async fn make(
    context: &Context,
    home: &Home,
    state: &State,
    flags: &BoxFlags,
    wanted: &Wanted<'_>,
    mut timings: Timings,
) -> Result<BoxRecord, CliError> {
    flags.check_isolation()?;
    check_hardware(flags.tee_wanted())?;
    if flags.spec.is_none() {
        wanted.id.check_tee(flags.tee_wanted())?;
    }
    if let Some(name) = wanted.name {
        check_name(name).class(Class::Usage)?;
        // Before a long pull; the database refuses a race once more.
        if let Some(holder) = state.all().map_err(of_state)?.into_iter().find(|found| found.name == name) {
            return Err(of_state(coffer_runtime::StateError::NameInUse { name: name.into(), holder: holder.id }));
        }
    }
    let described = flags.describe(context, home, wanted.quiet).await?;
    let tee = described.document.spec().tee;
    check_hardware(tee)?;
    wanted.id.check_tee(tee)?;
    let platform = load_platform(&described.platform)?;
    // Signed now, so that a start needs no private key.
    let signed = wanted.id.signed(|| measurement(&platform, &described.document, tee, described.vcpus, VCPU_TYPE))?;
    let isolation = flags.isolated_by(&context.search)?;
    timings.reached("image-ready", None);

    let id = BoxId::random();
    let folder = home.box_folder(&id);
    home::private_folder(&folder).class(Class::Config)?;
    let spec = described.document.spec();
    let scratch_bytes = match spec.root.scratch {
        Scratch::Disk { bytes } => bytes,
        Scratch::Tmpfs { .. } => 0,
    };
    let volumes = described.snapshots.len();
    let mut snapshots = described.snapshots.into_iter().enumerate();
    let written = snapshots
        .try_for_each(|(index, snapshot)| snapshot.persist(&folder.join(files::volume(index))))
        .map_err(|error| of_image(&error))
        .and_then(|()| {
            write_private(&folder.join(files::SPEC), described.document.bytes())
                .class_while(Class::Config, "cannot write the box's spec")
        })
        .and_then(|()| signed.as_ref().map_or(Ok(()), |signed| signed.write(&folder)));
    let recorded = written.and_then(|()| {
        record(state, wanted, &timings, |name| BoxRecord {
            id: id.clone(),
            name,
            image: described.image_name.clone(),
            state: BoxState::Created,
            supervisor_pid: None,
            vmm_pid: None,
            created: unix_ms(),
            started: None,
            finished: None,
            exit_code: None,
            error: None,
            options: BoxOptions {
                tee,
                isolation,
                vcpus: described.vcpus,
                memory_bytes: described.memory_bytes,
                remove: wanted.remove,
                command: spec.process.argv.clone(),
                platform: described.platform.clone(),
                root: described.rootfs.path.clone(),
                volumes,
                scratch_bytes,
                image_digest: described.image.config_digest.to_string(),
                workload_digest: described.document.digest().to_string(),
                id_block: signed.is_some(),
            },
            timings: Timings::default(),
        })
    });
    if recorded.is_err() {
        let _ = std::fs::remove_dir_all(&folder);
    }
    recorded
}

/// Records it under the name asked for, or under one that is free.
fn record(
    state: &State,
    wanted: &Wanted<'_>,
    timings: &Timings,
    with_name: impl Fn(String) -> BoxRecord,
) -> Result<BoxRecord, CliError> {
    let mut attempts = 0;
    loop {
        let mut record = with_name(wanted.name.map_or_else(random_name, str::to_string));
        record.timings = Timings::clone(timings);
        match state.add(&record) {
            Ok(()) => return Ok(record),
            Err(coffer_runtime::StateError::NameInUse { .. }) if wanted.name.is_none() && attempts < 20 => {
                attempts += 1;
            }
            Err(error) => return Err(of_state(error)),
        }
    }
}
