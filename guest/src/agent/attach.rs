//! Somebody at the workload's own program: what it writes comes from its log, what is sent goes to it, its status comes last.
//!
//! Never: ends the program, or its input, because whoever is here goes; keeps it waiting because whoever only looks reads slowly. What is
//! shown here stands in the log too.

use std::{sync::Arc, time::Duration};

use coffer_guest_proto::{Phase, Shown, exec_response::Message as Tell};
use tokio::sync::watch;

use super::{
    Agent,
    answers::{Answers, Gone},
    request::Attach,
    room::Taken,
    running::{Asks, hand_on},
    shares::Share,
};
use crate::log_ring::Follower;

/// How long a caller has to go once it was told everything.
const FAREWELL: Duration = Duration::from_secs(2);

/// What of the log somebody may be shown who asks for as much as `asked`: all that is kept only with the right to `logs`, or, which is
/// the same but for what is the agent's own, what comes from now on where the program has not begun. Nothing: to be refused.
pub(super) fn may_be_shown(asked: Shown, logs: bool, begun: bool) -> Option<Shown> {
    match asked {
        Shown::FromBeginning if logs => Some(Shown::FromBeginning),
        Shown::FromBeginning if begun => None,
        Shown::FromBeginning | Shown::FromNow => Some(Shown::FromNow),
        Shown::Not => Some(Shown::Not),
    }
}

/// To the program's end, or its caller's. Held to then: its place among those that may be here, and its room.
pub(super) async fn attend(
    agent: Arc<Agent>,
    order: Attach,
    (_place, _taken): (Share, Taken),
    asks: Asks,
    answers: Answers,
) {
    let follower = match order.shown {
        Shown::FromNow => Some(agent.logs.follow_new()),
        Shown::FromBeginning => Some(agent.logs.follow(0)),
        Shown::Not => None,
    };
    let _ = answers.tell(Tell::Heard(true)).await;
    let mut state = agent.events.watch();
    tokio::select! {
        _ = state.wait_for(|state| state.phase == Phase::Running || state.phase.is_end()) => {}
        () = answers.0.closed() => return,
    }
    let (let_go, mut gone) = watch::channel(false);
    let asking = agent.ways().map(|ways| {
        if let (Some(size), Some(terminal)) = (order.terminal, &ways.terminal) {
            let _ = terminal.resize(size);
        }
        tokio::spawn(hand_on(asks, ways, let_go.clone(), answers.clone()))
    });
    tokio::select! {
        _ = show(&agent, follower, &answers) => {}
        () = answers.0.closed() => {}
        _ = gone.wait_for(|gone| *gone) => {}
    }
    let Some(asking) = asking else { return };
    if !*let_go.borrow() {
        asking.abort();
    }
    let _ = asking.await; // it says that it lets go
}

/// All of it, and then the status.
async fn show(agent: &Agent, mut follower: Option<Follower>, answers: &Answers) -> Result<(), Gone> {
    while let Some(follower) = &mut follower
        && let Some(entry) = follower.next().await
    {
        let lost = follower.lost();
        if lost > 0 {
            answers.tell(Tell::Lost(lost)).await?;
        }
        answers.show(entry.stream, entry.data).await?;
    }
    let mut state = agent.events.watch();
    let ended = *state.wait_for(|state| state.phase.is_end()).await.map_err(|_| Gone)?;
    if ended.phase == Phase::Exited {
        answers.tell(Tell::ExitStatus(ended.exit_status)).await?;
    }
    // Until then the guest does not go: what is on its way to a slow caller would be lost.
    let _ = tokio::time::timeout(FAREWELL, answers.0.closed()).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_before_is_shown_only_to_those_who_may_read_logs() {
        for (asked, logs, begun, shown) in [
            (Shown::FromBeginning, true, true, Some(Shown::FromBeginning)),
            (Shown::FromBeginning, true, false, Some(Shown::FromBeginning)),
            (Shown::FromBeginning, false, true, None),
            (Shown::FromBeginning, false, false, Some(Shown::FromNow)),
            (Shown::FromNow, false, true, Some(Shown::FromNow)),
            (Shown::Not, false, true, Some(Shown::Not)),
        ] {
            assert_eq!(may_be_shown(asked, logs, begun), shown, "{asked:?} {logs} {begun}");
        }
    }
}
