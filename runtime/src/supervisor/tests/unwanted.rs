//! Starts that somebody ended, and one that the guest did.

use super::*;
use crate::supervisor::fate;

#[tokio::test]
async fn no_guest_starts_that_nobody_wants_any_more() {
    let world = World::new();
    let before = world.record();
    let fake = that_runs(&Agent::default());
    let ran = world.supervise_with(&fake, patience(), async { lifeline::End::Lost }).await;
    assert_eq!(ran.failure(), &fate::not_wanted());
    assert!(fake.launched.lock().unwrap().is_empty());
    assert_eq!(world.record(), before);
    world.assert_clean();
}

#[tokio::test]
async fn a_start_that_was_ended_before_the_workload_ran_has_failed_and_is_recorded_so() {
    for command in [Command::Stop(100), Command::Kill] {
        let world = World::new();
        let booted = Arc::new(Notify::new());
        let tells = Arc::clone(&booted);
        let fake = fake(move |mut guest| {
            let tells = Arc::clone(&tells);
            async move {
                guest.reaches(Phase::Booted).await;
                tells.notify_one();
                std::future::pending().await
            }
        });
        let folder = world.folder();
        let end = async {
            booted.notified().await;
            control::send(&folder, command).await.unwrap();
        };
        let (ran, ()) = tokio::join!(world.supervise_with(&fake, patience(), std::future::pending()), end);
        assert_eq!(ran.failure(), &fate::not_wanted(), "{command:?}");
        let record = world.record();
        assert_eq!((record.state, record.exit_code), (BoxState::Exited, Some(125)), "{command:?}");
        assert_eq!(record.error, Some(fate::not_wanted().message));
        world.assert_clean();
    }
}

#[tokio::test]
async fn a_guest_that_gives_up_says_why() {
    let world = World::new();
    let ran = world.supervise(&fake(|mut guest| async move { guest.fails("workload-not-found").await })).await;
    assert_eq!(ran.failure().docker_code, Some(127));
    assert_eq!(world.record().exit_code, Some(127));
}
