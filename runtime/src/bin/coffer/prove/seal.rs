//! `coffer seal`, `coffer unseal` and `coffer reseal`.

mod hand_over;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coffer_runtime::engine::{SealAs, SealCounter, SealError};
use coffer_seal::{CHUNK, HEADER, SealPolicy, TAG};
use zeroize::Zeroizing;

use crate::boxes::attend::of_signal;
use crate::boxes::logs::read_input;
use crate::context::Context;
use crate::error::{self, Class, Classify as _, CliError};
use crate::prove::guest::Trust;
use crate::signals::{self, Manner};
use crate::terminal;
use hand_over::{Given, Place};

/// Seal a file to the guest of a box: it opens again where its policy says, and nowhere else.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Policies (all but the first need the key broker, with terms for the context: coffer kbs sealing put):
  measurement-and-chip  the same platform and workload on the same chip
  chip                  the same chip, and whoever the broker admits
  measurement           the same measurement on any chip
  workload              the same workload spec on any platform admitted
  signer                what the same author signs, from this version on

Examples:
  coffer seal db --context backup plain.tar -o sealed.bin
  coffer seal db --to workload --context app/backup \\
      plain.tar -o sealed.bin
  coffer seal db --to workload --context app/backup --counted \\
      plain.tar -o one.bin
  coffer seal db --to workload --context app/backup \\
      --replaces one.bin newer.tar -o two.bin"
)]
pub struct SealArgs {
    /// Who opens it: measurement-and-chip, chip, measurement, workload or signer.
    #[arg(long = "to", id = "to", value_name = "POLICY", default_value = "measurement-and-chip")]
    policy: SealPolicy,
    /// Begin a counter at the key broker, so that an older file in this one's place is noticed.
    #[arg(long, conflicts_with = "replaces")]
    counted: bool,
    /// Sealed file with a counter that this one takes the place of: it opens no more.
    #[arg(long, value_name = "FILE")]
    replaces: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// Open what `seal` sealed, in a guest that its policy names.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer unseal db --context backup sealed.bin -o plain.tar")]
pub struct UnsealArgs {
    #[command(flatten)]
    common: Common,
}

/// Seal anew what was sealed, inside the guest: under another policy, or at the firmware version of today.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer reseal db --context backup --to workload \\
      old.bin -o movable.bin
  coffer reseal db --context backup sealed.bin -o sealed.bin")]
pub struct ResealArgs {
    /// Who opens the new one: measurement-and-chip, chip, measurement, workload or signer [default: as before].
    #[arg(long = "to", id = "to", value_name = "POLICY")]
    policy: Option<SealPolicy>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Label that is part of the key, such as app/backup; the same to seal and to unseal.
    #[arg(long, value_name = "PATH", default_value = "")]
    context: String,
    /// File to write instead of standard output; no link is replaced.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    trust: Trust,
    /// Name or id; or coffer://HOST:PORT of a guest elsewhere, with --reference.
    #[arg(value_name = "BOX")]
    name: String,
    /// File to read instead of standard input: 2 MiB of what is sealed at most.
    #[arg(value_name = "IN")]
    input: Option<PathBuf>,
}

/// Bytes that are sealed, in one message.
const LIMIT: u64 = 2 << 20;

impl Common {
    fn place<'a>(&'a self, context: &'a Context, sealed: bool) -> Place<'a> {
        let output = self.output.as_deref().filter(|path| *path != Path::new("-"));
        Place { output, json: context.json, sealed, first: false, home: &context.home }
    }

    /// Where sealed bytes go: not to a terminal.
    fn sealed<'a>(&'a self, context: &'a Context) -> Result<Place<'a>, CliError> {
        let place = self.place(context, true);
        if place.output.is_none() && !place.json && terminal::shows() {
            let failure = CliError::new(Class::Usage, "sealed bytes are not written to a terminal");
            return Err(failure.hint("name a file for them: -o FILE"));
        }
        Ok(place)
    }

    fn read(&self, limit: u64) -> Result<Vec<u8>, CliError> {
        read_input(self.input.as_deref(), limit).map_err(|failure| match failure.class {
            Class::Usage => failure.hint("the guest takes 2 MiB: seal a key, and encrypt under it what is longer"),
            // It is no thing of Docker's that is looked for.
            Class::NotFound => CliError { class: Class::Config, ..failure },
            _ => failure,
        })
    }
}

/// Seals.
pub fn seal(args: &SealArgs, context: &Context) -> Result<ExitCode, CliError> {
    let SealArgs { policy, counted, replaces, common: args } = args;
    let engine = context.engine()?;
    let trust = args.trust.read()?;
    engine.may_seal(&args.name).map_err(error::of)?;
    let place = Place { first: *counted, ..args.sealed(context)? };
    let before = replaces.as_deref().map(head).transpose()?;
    let counter = match &before {
        Some(head) => SealCounter::Replace(head),
        None if *counted => SealCounter::Begin,
        None => SealCounter::None,
    };
    let how = SealAs { policy: *policy, context: &args.context, counter };
    let plaintext = Zeroizing::new(args.read(LIMIT)?);
    let room = HEADER + plaintext.len() + (plaintext.len() / CHUNK + 1) * TAG;
    hand_over(context, &place, room, async {
        let sealed = engine.seal(&args.name, &how, &plaintext, &trust).await.map_err(error::of)?;
        Ok(Given { bytes: Zeroizing::new(sealed.bytes), rollback_protected: sealed.rollback_protected })
    })
}

/// What the guest wants to see of a file that is replaced: its header and first chunk.
fn head(path: &Path) -> Result<Vec<u8>, CliError> {
    let mut head = Vec::new();
    let most = (HEADER + CHUNK + TAG) as u64;
    let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut head));
    read.class_while(Class::Config, format!("cannot read {}", path.display()))?;
    if head.is_empty() {
        return Err(error::of(SealError::NotSealed).while_doing(path.display()));
    }
    Ok(head)
}

/// Unseals.
pub fn unseal(args: &UnsealArgs, context: &Context) -> Result<ExitCode, CliError> {
    let args = &args.common;
    let engine = context.engine()?;
    let trust = args.trust.read()?;
    engine.may_seal(&args.name).map_err(error::of)?;
    let sealed = args.read(2 * LIMIT)?;
    hand_over(context, &args.place(context, false), sealed.len(), async {
        let opened = engine.unseal(&args.name, &args.context, sealed, &trust).await.map_err(error::of)?;
        Ok(Given { bytes: opened.plaintext, rollback_protected: opened.rollback_protected })
    })
}

/// Reseals.
pub fn reseal(args: &ResealArgs, context: &Context) -> Result<ExitCode, CliError> {
    let ResealArgs { policy, common: args } = args;
    let engine = context.engine()?;
    let trust = args.trust.read()?;
    engine.may_seal(&args.name).map_err(error::of)?;
    let place = args.sealed(context)?;
    let sealed = args.read(2 * LIMIT)?;
    hand_over(context, &place, sealed.len(), async {
        let sealed = engine.reseal(&args.name, *policy, &args.context, sealed, &trust).await.map_err(error::of)?;
        Ok(Given { bytes: Zeroizing::new(sealed.bytes), rollback_protected: sealed.rollback_protected })
    })
}

/// Hands over what a guest is asked for. A signal ends it too, and nothing is left of a file that was begun.
fn hand_over(
    context: &Context,
    place: &Place<'_>,
    room: usize,
    ask: impl Future<Output = Result<Given, CliError>>,
) -> Result<ExitCode, CliError> {
    let runtime = context.runtime()?;
    let mut ended = None;
    let handed = place.hand_over(room, || {
        runtime.block_on(async {
            let mut signals = signals::coming(Manner::EXEC.proxied(false), false)?;
            tokio::select! {
                given = ask => given,
                Some(number) = signals.recv() => {
                    ended = Some(number);
                    Err(CliError::new(Class::Internal, "a signal ends it"))
                }
            }
        })
    });
    ended.map_or(handed, |number| Ok(ExitCode::from(of_signal(number))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exits::Exits;

    #[test]
    fn a_signal_while_a_guest_does_not_answer_leaves_nothing_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("there");
        std::fs::write(&there, "before").unwrap();
        let context = Context::new(false, None, Exits::Class);
        for (output, left) in [(folder.path().join("new"), vec!["there"]), (there, vec!["there"])] {
            let place = Place { output: Some(&output), json: false, sealed: true, first: false, home: folder.path() };
            let ended = hand_over(&context, &place, 6, async {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
                std::future::pending().await
            });
            assert_eq!(ended.unwrap(), ExitCode::from(143));
            let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
            assert_eq!(names.collect::<Vec<_>>(), left);
        }
        assert_eq!(std::fs::read_to_string(folder.path().join("there")).unwrap(), "before");
    }
}
