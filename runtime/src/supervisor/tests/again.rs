//! Boxes that are started again by their policies.

use super::*;
use crate::restart_policy::RestartPolicy;

/// A guest whose workload runs and ends with this status.
fn that_exits(status: i32) -> Arc<Fake> {
    fake(move |mut guest| async move {
        guest.runs(&Agent::default()).await;
        guest.exits(status).await
    })
}

fn with(restart: RestartPolicy) -> World {
    World::with(|options| options.restart = restart)
}

/// Runs until no run follows; how many there were, and how the last one was.
async fn all_runs(world: &World, fake: &Arc<Fake>) -> (usize, Ran) {
    let mut ran = world.supervise(fake).await;
    let mut count = 1;
    loop {
        let Some(Again { lock, .. }) = ran.recorded.unwrap() else { break };
        assert_eq!(world.record().state, BoxState::Restarting);
        let after = Again { lock, wait: Duration::ZERO };
        ran = world.follow(fake, Patience::default(), std::future::pending(), Some(after)).await;
        count += 1;
    }
    ran.recorded = Ok(None);
    (count, ran)
}

#[tokio::test]
async fn a_box_is_started_again_as_often_as_its_policy_has_it() {
    for (policy, status, runs) in
        [(RestartPolicy::No, 1, 1), (RestartPolicy::OnFailure(Some(2)), 3, 3), (RestartPolicy::OnFailure(None), 0, 1)]
    {
        let world = with(policy);
        let (count, ran) = all_runs(&world, &that_exits(status)).await;
        assert_eq!((count, ran.ended()), (runs, (status, None)), "{policy}");
        let record = world.record();
        assert_eq!((record.state, record.exit_code), (BoxState::Exited, Some(status)));
        assert_eq!(record.restarts as usize, runs - 1);
        world.assert_clean();
    }
}

#[tokio::test]
async fn the_command_is_told_the_end_of_the_first_run_and_the_lock_is_kept() {
    let world = with(RestartPolicy::Always);
    let ran = world.supervise(&that_exits(0)).await;
    assert_eq!(ran.messages.last(), Some(&Message::Restarting(Ended { code: 0, error: None })));
    let next = ran.recorded.unwrap().unwrap();
    assert_eq!(next.wait, Duration::from_millis(100));
    let record = world.record();
    assert_eq!((record.state, record.exit_code, record.restarts), (BoxState::Restarting, Some(0), 1));
    State::open(&world.home).unwrap().reconcile(&world.home, 9).unwrap();
    assert_eq!(world.record().state, BoxState::Restarting);
    drop(next);
    State::open(&world.home).unwrap().reconcile(&world.home, 9).unwrap();
    assert_eq!(world.record().state, BoxState::Exited, "its supervisor died between two runs");
}

#[tokio::test]
async fn a_stop_is_heeded_while_it_runs_while_it_waits_and_where_nobody_heard_it() {
    // While it runs.
    let world = with(RestartPolicy::Always);
    let agent = Agent::default();
    let fake = that_stops(&agent, 0);
    let (folder, runs) = (world.folder(), world.until_running());
    let stop = async {
        runs.await;
        control::send(&folder, Command::Stop(100)).await.unwrap();
    };
    let (ran, ()) = tokio::join!(world.supervise_with(&fake, patience(), std::future::pending()), stop);
    assert!(ran.recorded.unwrap().is_none());
    // Whatever a start beside it recorded.
    assert!(world.record().state == BoxState::Exited && world.record().stopped_by_hand);

    // While it waits, however long that is.
    for command in [Command::Stop(100), Command::Kill] {
        let world = with(RestartPolicy::Always);
        let Again { lock, .. } = world.supervise(&that_exits(5)).await.recorded.unwrap().unwrap();
        let folder = world.folder();
        let stop = async {
            while control::send(&folder, command).await.is_err() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let fake = that_exits(5);
        let after = Again { lock, wait: Duration::from_hours(1) };
        let (ran, ()) = tokio::join!(world.follow(&fake, patience(), std::future::pending(), Some(after)), stop);
        assert!(ran.recorded.unwrap().is_none() && fake.launched.lock().unwrap().is_empty());
        assert_eq!((world.record().state, world.record().exit_code), (BoxState::Exited, Some(5)));
        assert!(world.record().stopped_by_hand);
    }

    // Recorded, and not heard: after the run, and after the wait.
    let world = with(RestartPolicy::Always);
    let state = State::open(&world.home).unwrap();
    state.by_hand(&world.id, true).unwrap();
    assert!(world.supervise(&that_exits(1)).await.recorded.unwrap().is_none());
    state.by_hand(&world.id, false).unwrap();
    let next = world.supervise(&that_exits(1)).await.recorded.unwrap().unwrap();
    state.by_hand(&world.id, true).unwrap();
    let fake = that_exits(1);
    let after = Again { wait: Duration::ZERO, ..next };
    assert!(world.follow(&fake, patience(), std::future::pending(), Some(after)).await.recorded.unwrap().is_none());
    assert!(fake.launched.lock().unwrap().is_empty());
    assert_eq!(world.record().state, BoxState::Exited);
}

#[tokio::test]
async fn a_first_start_that_fails_is_its_callers_and_a_later_one_is_tried_again() {
    let world = with(RestartPolicy::Always);
    let fails = fake(|mut guest| async move { guest.fails("kbs-unreachable").await });
    let ran = world.supervise(&fails).await;
    assert!(ran.recorded.as_ref().unwrap().is_none() && ran.failure().class == Class::Unreachable);

    let Again { lock, .. } = world.supervise(&that_exits(0)).await.recorded.unwrap().unwrap();
    let after = Again { lock, wait: Duration::ZERO };
    let ran = world.follow(&fails, Patience::default(), std::future::pending(), Some(after)).await;
    let next = ran.recorded.unwrap().unwrap();
    assert_eq!((world.record().state, world.record().exit_code), (BoxState::Restarting, Some(125)));
    // Another policy is heeded at once.
    State::open(&world.home).unwrap().set_restart_policy(&world.id, RestartPolicy::No).unwrap();
    let ran = world.follow(&fails, Patience::default(), std::future::pending(), Some(next)).await;
    assert!(ran.recorded.unwrap().is_none());
    assert_eq!(world.record().state, BoxState::Exited);
}
