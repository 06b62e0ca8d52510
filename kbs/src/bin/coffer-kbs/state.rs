//! `coffer-kbs state verify|repair`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use coffer_kbs::{CheckpointError, Fault, Forget, StateError, StateSummary, StoreError, Witness, open_store_watched};
use coffer_rim::{Class, Failure};
use serde_json::json;

use crate::error::{OrFail as _, Said as _};

/// What to do with the state.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Look at every row, the record of changes, the audit trail and the checkpoint, and name what is wrong. Changes nothing;
    /// also beside a running server, and on a copy.
    #[command(after_help = "Examples:\n  coffer-kbs state verify --state ./kbs\n  \
                            coffer-kbs state verify --state ./copy --no-checkpoint")]
    Verify {
        /// State folder.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// The copy came without its checkpoint: whether it is an old one is not looked at.
        #[arg(long)]
        no_checkpoint: bool,
    },
    /// Mend what can be mended without giving anybody more than they had, and say what is given up. The server must not run.
    #[command(after_help = "Examples:\n  coffer-kbs state repair --state ./kbs\n  \
                            coffer-kbs state repair --state ./kbs --give-up-what-is-damaged\n  \
                            coffer-kbs state repair --state ./kbs --give-up-what-is-damaged \\\n      --accept-lost-audit-lines")]
    Repair {
        /// State folder.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// Do it; without this, only say what would be done.
        #[arg(long)]
        give_up_what_is_damaged: bool,
        /// Forget damaged revocation list numbers too: older lists are believed again until a newer one is seen.
        #[arg(long, requires = "give_up_what_is_damaged")]
        believe_older_revocation_lists: bool,
        /// Accept that lines of the audit trail are gone or edited: other lines say so in their place, and the trail can be archived and backed
        /// up again.
        #[arg(long, requires = "give_up_what_is_damaged")]
        accept_lost_audit_lines: bool,
        /// Give damaged keys of tenants up: nothing that was sealed under one opens again, no certificate or token that it signed is
        /// followed by another of the same key.
        #[arg(long, requires = "give_up_what_is_damaged")]
        lose_damaged_tenant_keys: bool,
        /// Let damaged generation counters begin again: older sealed data is not told from newer.
        #[arg(long, requires = "give_up_what_is_damaged")]
        begin_damaged_generations_again: bool,
    },
}

/// Does it.
pub fn run(command: &Command, as_json: bool) -> Result<ExitCode, Failure> {
    let event_loop = crate::event_loop::event_loop()?;
    match command {
        Command::Verify { state, no_checkpoint } => {
            let summary = event_loop.block_on(verify(state, *no_checkpoint))?;
            let what = match summary.faults.len() {
                1 => "1 thing is not as this server left it".to_owned(),
                many => format!("{many} things are not as this server left them"),
            };
            let failure = Failure::new(Class::NotAuthentic, what)
                .hint("coffer-kbs state repair --state DIR says what it would give up");
            tell(&summary, as_json, "would", failure)
        }
        Command::Repair { state, give_up_what_is_damaged: false, .. } => {
            let summary = event_loop.block_on(async { coffer_kbs::repair_plan(state).await.or_fail() })?;
            let failure =
                Failure::new(Class::NotAuthentic, "nothing was changed").hint("repeat with --give-up-what-is-damaged");
            tell(&summary, as_json, "would", failure)
        }
        Command::Repair {
            state,
            give_up_what_is_damaged: true,
            believe_older_revocation_lists: crl_numbers,
            accept_lost_audit_lines: audit_lines,
            lose_damaged_tenant_keys: tenant_keys,
            begin_damaged_generations_again: generations,
        } => {
            let [crl_numbers, audit_lines, tenant_keys, generations] =
                [crl_numbers, audit_lines, tenant_keys, generations].map(|said| *said);
            let forget = Forget { crl_numbers, audit_lines, tenant_keys, generations };
            let summary = event_loop.block_on(async { coffer_kbs::repair(state, forget).await.or_fail() })?;
            let left = event_loop.block_on(verify(state, false))?.faults.len();
            let what = match left {
                1 => "1 thing is left as it was".to_owned(),
                many => format!("{many} things are left as they were"),
            };
            let failure = Failure::new(Class::NotAuthentic, what)
                .hint("`coffer-kbs state verify` names it, and the flag that gives it up, too, where there is one");
            let failure = (left > 0).then_some(failure);
            let code = said(&summary, as_json, "did", failure.clone());
            failure.filter(|_| !as_json).map_or(Ok(code), Err)
        }
    }
}

/// Says what was found; `failure` where that is anything.
fn tell(summary: &StateSummary, as_json: bool, verb: &str, failure: Failure) -> Result<ExitCode, Failure> {
    let failure = (!summary.faults.is_empty()).then_some(failure);
    let code = said(summary, as_json, verb, failure.clone());
    // A script has it in the one document already.
    failure.filter(|_| !as_json).map_or(Ok(code), Err)
}

async fn verify(state: &Path, no_checkpoint: bool) -> Result<StateSummary, Failure> {
    let store = if no_checkpoint {
        open_store_watched(state, Witness::OlderDatabaseIsNotNoticed).await
    } else {
        coffer_kbs::open_store(state).await
    };
    let store = match store {
        Err(error @ StateError::Store(StoreError::Checkpoint(CheckpointError::Missing { .. }))) => {
            return Err(error.said().hint("for a copy that came without its checkpoint: --no-checkpoint"));
        }
        store => store.or_fail()?,
    };
    store.verify_state().await.or_fail()
}

fn said(summary: &StateSummary, as_json: bool, verb: &str, failure: Option<Failure>) -> ExitCode {
    let StateSummary { epoch, lines, archived, changes, rows, faults, inputs_gone } = summary;
    if as_json {
        let value = json!({
            "ok": faults.is_empty(), "epoch": epoch, "lines": lines, "archived": archived, "changes": changes, "rows": rows,
            "faults": faults, "inputs_gone": inputs_gone,
        });
        return crate::document::document(value, failure);
    }
    for Fault { what, repair, .. } in faults {
        coffer_rim::println!("{what}\n  repair {verb}: {repair}");
    }
    if let (count @ 1.., Some(last)) = (inputs_gone.len(), inputs_gone.last()) {
        let plural = if count == 1 { "" } else { "s" };
        coffer_rim::println!(
            "what policies saw of {count} decision{plural} is gone, the last of them line {last}: it decided nothing, and no policy can be tried on them"
        );
    }
    if faults.is_empty() {
        coffer_rim::println!("state holds: {rows} rows, {changes} changes, {lines} audit lines, epoch {epoch}");
        if *archived > 0 {
            coffer_rim::println!("audit lines 1 to {archived} are archived");
        }
    }
    ExitCode::SUCCESS
}
