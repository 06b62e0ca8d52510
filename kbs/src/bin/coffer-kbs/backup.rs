//! `coffer-kbs backup` and `coffer-kbs recovery-key`.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use coffer_kbs::{IfThere, RecoveryKey, RecoverySecret, SealedFileError};
use coffer_rim::{Class, Classify as _, Failure, file::Writer, input};
use serde_json::json;
use zeroize::Zeroizing;

use crate::error::OrFail as _;

/// Arguments of `backup`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer-kbs backup --state ./kbs --out kbs.backup\n  \
                        coffer-kbs backup --state ./kbs --out kbs.backup \\\n      --recovery-key recovery.key.pub")]
pub struct Args {
    /// State folder; its server may run.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Where to write the backup.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Put root key and identities in too, and encrypt all of it to this recovery key's public half.
    #[arg(long, value_name = "FILE")]
    recovery_key: Option<PathBuf>,
    /// Where a backup is there already, replace it; without this it stays, and there is no new one.
    #[arg(long)]
    replace_existing_backup: bool,
}

/// Arguments of `recovery-key`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer-kbs recovery-key --out recovery.key")]
pub struct KeyArgs {
    /// Where to write the secret half, which belongs off the broker; the public half goes to FILE.pub.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Writes a backup.
pub fn run(args: &Args, as_json: bool) -> Result<(), Failure> {
    let key = args.recovery_key.as_deref().map(public).transpose()?;
    let there = if args.replace_existing_backup { IfThere::BackupIsReplaced } else { IfThere::Stays };
    let made = coffer_kbs::backup(&args.state, &args.out, key.as_ref(), there);
    let made = crate::event_loop::event_loop()?.block_on(made).or_fail()?;
    if as_json {
        coffer_rim::println!("{}", json!(made));
        return Ok(());
    }
    let (rows, lines, out) = (made.rows, made.lines, args.out.display());
    coffer_rim::println!("{out}: {rows} rows and {lines} audit lines, each checked");
    if made.encrypted {
        coffer_rim::println!("encrypted, with root key and identities: only the recovery key's secret half opens it");
    } else {
        coffer_rim::println!(
            "without root key and identities: it opens with this root.key alone; keep that, server.pem and admin-server.pem elsewhere"
        );
    }
    Ok(())
}

/// Makes a recovery key.
pub fn make_key(args: &KeyArgs, as_json: bool) -> Result<(), Failure> {
    let (key, secret) = coffer_kbs::recovery_pair().class_while(Class::Internal, "making a recovery key")?;
    let public = PathBuf::from(format!("{}.pub", args.out.display()));
    let write = |path: &Path, text: &str| {
        let written = Writer::private().new_only().write(path, text.as_bytes());
        written.map_err(|error| {
            let exists = error.kind() == ErrorKind::AlreadyExists;
            let failure = Failure::caused(Class::Config, &error).while_doing(path.display());
            if exists { failure.hint("keys are never replaced: name another file") } else { failure }
        })
    };
    // The half that opens comes last: it is never there without the other.
    write(&public, &key.to_text())?;
    write(&args.out, &secret.to_text()).inspect_err(|_| {
        let _ = std::fs::remove_file(&public);
    })?;
    if as_json {
        coffer_rim::println!("{}", json!({ "secret": args.out, "public": public }));
    } else {
        coffer_rim::println!("{} opens backups: keep it off the broker", args.out.display());
        coffer_rim::println!("{} is for `coffer-kbs backup --recovery-key`", public.display());
    }
    Ok(())
}

fn public(path: &Path) -> Result<RecoveryKey, Failure> {
    RecoveryKey::from_text(&text(path)?).map_err(|error| half(path, error))
}

/// The half that opens.
pub fn secret(path: &Path) -> Result<RecoverySecret, Failure> {
    RecoverySecret::from_text(&text(path)?).map_err(|error| half(path, error))
}

fn text(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let text = input::read_text(path, input::DOCUMENT).map(Zeroizing::new);
    text.class_while(Class::Config, format!("recovery key {}", path.display()))
}

fn half(path: &Path, error: SealedFileError) -> Failure {
    Failure::caused(Class::Config, &error).while_doing(path.display()).hint(error.hint())
}
