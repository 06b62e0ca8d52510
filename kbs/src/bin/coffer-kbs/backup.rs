//! `coffer-kbs backup` and `coffer-kbs recovery-key`.

use std::path::{Path, PathBuf};

use coffer_kbs::{RecoveryKey, RecoverySecret};
use coffer_rim::{Class, Classify as _, Failure, file::Writer, input};
use serde_json::json;

use crate::error::OrFail as _;

/// Arguments of `backup`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer-kbs backup --state ./kbs --out kbs.backup\n  \
                        coffer-kbs backup --state ./kbs --out kbs.backup --recovery-key recovery.pub")]
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
    let made = crate::event_loop()?.block_on(coffer_kbs::backup(&args.state, &args.out, key.as_ref())).or_fail()?;
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
            "without the root key and identities: keep root.key, server.pem and admin-server.pem elsewhere"
        );
    }
    Ok(())
}

/// Makes a recovery key.
pub fn make_key(args: &KeyArgs, as_json: bool) -> Result<(), Failure> {
    let (key, secret) = coffer_kbs::recovery_pair().class_while(Class::Internal, "making a recovery key")?;
    let public = PathBuf::from(format!("{}.pub", args.out.display()));
    let write = |path: &Path, text: &str| {
        Writer::private().new_only().write(path, text.as_bytes()).class_while(Class::Config, path.display().to_string())
    };
    write(&args.out, &secret.to_text())?;
    write(&public, &key.to_text())?;
    if as_json {
        coffer_rim::println!("{}", json!({ "secret": args.out, "public": public }));
    } else {
        coffer_rim::println!("{} opens backups: keep it off the broker", args.out.display());
        coffer_rim::println!("{} is for `coffer-kbs backup --recovery-key`", public.display());
    }
    Ok(())
}

fn public(path: &Path) -> Result<RecoveryKey, Failure> {
    let text = input::read_text(path, input::DOCUMENT).class_while(Class::Config, path.display().to_string())?;
    RecoveryKey::from_text(&text).class_while(Class::Config, format!("{}, the public half", path.display()))
}

/// The half that opens.
pub fn secret(path: &Path) -> Result<RecoverySecret, Failure> {
    let text = input::read_text(path, input::DOCUMENT).map(zeroize::Zeroizing::new);
    let text = text.class_while(Class::Config, path.display().to_string())?;
    RecoverySecret::from_text(&text).class_while(Class::Config, format!("{}, the secret half", path.display()))
}
