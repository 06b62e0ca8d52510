//! Boxes that are held.

use super::*;

#[tokio::test]
async fn a_box_is_paused_and_goes_on_and_a_stop_lets_it_go_on_first() {
    let world = World::new();
    let agent = Agent::default();
    let fake = that_stops(&agent, 0);
    let folder = world.folder();
    let ask = |command| control::ask(&folder, command);
    let acts = async {
        world.until_running().await;
        assert_eq!(ask(Command::Resume).await.unwrap_err().message, "the box is not paused");
        for _ in 0..2 {
            ask(Command::Pause).await.unwrap();
            assert_eq!(world.record().state, BoxState::Paused);
            assert_eq!(ask(Command::Pause).await.unwrap_err().message, "the box is paused already");
            ask(Command::Resume).await.unwrap();
            assert_eq!(world.record().state, BoxState::Running);
        }
        ask(Command::Pause).await.unwrap();
        control::end(&folder, Command::Stop(7)).await.unwrap();
    };
    let (ran, ()) = tokio::join!(world.supervise_with(&fake, patience(), std::future::pending()), acts);
    assert_eq!((ran.ended(), agent.stops(), world.record().state), ((0, None), 1, BoxState::Exited));
    assert_eq!(*fake.held.lock().unwrap(), [true, false, true, false, true, false]);
}

#[tokio::test]
async fn what_does_not_run_yet_or_cannot_be_held_is_not_paused_and_a_paused_box_can_be_killed() {
    let booting = fake(|mut guest| async move {
        guest.reaches(Phase::Booted).await;
        std::future::pending().await
    });
    let agent = Agent::default();
    let runs = move |mut guest: crate::monitor::fake::Guest| {
        let agent = agent.clone();
        async move {
            guest.runs(&agent).await;
            std::future::pending().await
        }
    };
    let rigid = Arc::new(Fake::playing(runs.clone()).that_cannot_pause());
    let usual = Arc::new(Fake::playing(runs));
    for (fake, phase, answer) in [
        (booting, "booted", Err("the box is still being started")),
        (rigid, "running", Err("does not hold it")),
        (usual, "running", Ok(())),
    ] {
        let world = World::new();
        let folder = world.folder();
        let acts = async {
            while !world.record().timings.steps.iter().any(|step| step.phase == phase) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let paused = control::ask(&folder, Command::Pause).await;
            assert_eq!(
                paused.as_ref().map_err(|failure| failure.message.as_str()),
                answer.as_ref().map_err(|words| *words)
            );
            let state = if answer.is_ok() { BoxState::Paused } else { BoxState::Running };
            assert_eq!(world.record().state, state);
            control::end(&folder, Command::Kill).await.unwrap();
        };
        let (ran, ()) = tokio::join!(world.supervise_with(&fake, patience(), std::future::pending()), acts);
        assert_eq!(world.record().state, BoxState::Exited);
        if phase == "running" {
            assert_eq!(ran.ended(), (137, None));
        } else {
            assert_eq!(ran.failure(), &crate::supervisor::fate::not_wanted());
        }
    }
}
