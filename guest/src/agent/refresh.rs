//! Keeps the broker's secrets of a running workload current, and tells the workload.
//!
//! The host hears nothing of it, and nothing from it: when a look is due, this guest's own clock says.

use std::{sync::Arc, time::Duration};

use coffer_guest_proto::{Found, Refreshed, Stream};
use coffer_spec::OnChange;

use super::Agent;
use crate::{
    broker::questions::{LOOK, Whose},
    container::{Place, STATUS_OURS},
    secrets::{Round, pause},
    sys::process_id::ProcessId,
    workload::{program, resolve_user, start_kept, unix_nanos},
};

/// How long a program that follows a new version may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// Looks at the broker's secrets while the workload runs.
pub async fn keep_current(agent: Arc<Agent>) {
    if agent.refresher.get().is_none() {
        return;
    }
    let mut was_broken = false;
    loop {
        let mut chance = [0];
        // Without chance the pause is only a little longer.
        let _ = getrandom::fill(&mut chance);
        tokio::time::sleep(pause(was_broken, chance[0])).await;
        was_broken = now(&agent, Whose::Guest).await.is_some_and(|round| round.was_broken());
    }
}

/// Looks for an owner, when it is the owners' turn to ask the broker.
pub(super) async fn for_owner(agent: &Agent) -> Option<Round> {
    agent.refresher.get()?;
    agent.questions.owners(LOOK).await;
    now(agent, Whose::Owners).await
}

/// Looks now. Nothing where the broker has no part in this guest, or its workload does not run yet.
async fn now(agent: &Agent, whose: Whose) -> Option<Round> {
    let refresher = agent.refresher.get()?;
    let (spec, places) = (agent.document.spec(), &agent.places);
    let meter = agent.questions.meter(whose);
    let round = refresher.round(places.host, spec, &places.secrets, &agent.owners, meter).await;
    if let Some(error) = &round.owners {
        agent.say_of_owners(error).await;
    }
    for refused in round.found.iter().filter(|it| matches!(it.found(), Found::Refused | Found::Unusable)) {
        let about = format!("secret {}", refused.name);
        agent.say(&about, refused.found().as_str_name(), &of_refused(refused)).await;
    }
    for follows in &round.follows {
        follow(agent, follows).await;
    }
    Some(round)
}

/// What stays, and why, for whoever may read the output.
fn of_refused(it: &Refreshed) -> String {
    let why = match it.found() {
        Found::Refused => format!("the key broker does not release it any more (id {:016x})", it.denial_id),
        _ => "its new version cannot be put there".to_owned(),
    };
    format!("secret {}: {why}: version {} stays", it.name, it.version)
}

async fn follow(agent: &Agent, what: &OnChange) {
    let Some(workload) = agent.workload() else { return };
    match what {
        OnChange::Signal(number) => drop(workload.signal(*number)),
        OnChange::Command(argv) => {
            if let Err(error) = run_beside(agent, workload, argv).await {
                let said = format!("coffer: after a new version of a secret: {error}\n");
                agent.logs.push(Stream::Stderr, unix_nanos(), said.as_bytes()).await;
            }
        }
    }
}

/// Runs a program beside the workload; what it writes is the workload's output.
async fn run_beside(agent: &Agent, workload: ProcessId, argv: &[String]) -> Result<(), String> {
    let spec = agent.document.spec();
    let groups = &spec.process.rights.groups;
    let user = resolve_user(&agent.places.root, &spec.process.user, groups).map_err(|error| error.to_string())?;
    let mut program = program(spec, user);
    program.argv = argv.to_vec();
    let secrets = agent.secret_env.read().await;
    let starting = start_kept(&agent.places, &agent.reaper, Place::Beside { workload }, program, &secrets, &agent.logs);
    // Whoever sets others does not wait for a program that somebody holds up.
    drop(secrets);
    let mut running = starting.await.map_err(|error| error.to_string())?;
    let ended = tokio::time::timeout(PATIENCE, &mut running.started.status).await;
    if ended.is_err() {
        let _ = running.started.process.signal(libc::SIGKILL);
    }
    running.drain().await;
    match ended {
        Ok(Ok(0)) => Ok(()),
        Ok(status) => Err(format!("{:?} ended with {}", argv[0], status.unwrap_or(STATUS_OURS))),
        Err(_) => Err(format!("{:?} took longer than {} s", argv[0], PATIENCE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_come_any_more_is_said_with_what_stays() {
        let of = |found: Found, denial_id| {
            of_refused(&Refreshed { name: "token".into(), version: 3, found: found.into(), denial_id })
        };
        let refused = of(Found::Refused, 0xab);
        assert!(refused.contains("secret token") && refused.contains("id 00000000000000ab"), "{refused}");
        for said in [refused, of(Found::Unusable, 0)] {
            assert!(said.ends_with("version 3 stays"), "{said}");
        }
    }
}
