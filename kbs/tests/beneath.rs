//! What is done to the broker's files while it runs: said by name, and nothing is given or taken meanwhile.

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use crate::{
    common::{Guest, Kbs, PATH, TENANT, VALUE, ask},
    printed::Served,
};
use coffer_kbs_client::ClientError;

fn failed<T>(result: Result<T, ClientError>) -> String {
    match result {
        Err(ClientError::Failed { message }) => message,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("done"),
    }
}

async fn revoked(kbs: &Kbs, byte: &str) -> Result<(bool, u32), ClientError> {
    kbs.admin().await.revoke(Some(TENANT), "report-id", &byte.repeat(32), None).await
}

#[tokio::test]
async fn nothing_is_released_admitted_or_changed_in_a_database_that_is_not_at_its_path_any_more() {
    let kbs = Kbs::start().await;
    let guest = Guest::usual();
    kbs.admit(guest.measurement, guest.document.digest()).await;
    kbs.put(PATH, true).await;
    let client = kbs.connect(guest.clone()).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    let (database, away) = (kbs.state().join("kbs.db"), kbs.state().join("away"));
    fs::rename(&database, &away).unwrap();
    fs::copy(&away, &database).unwrap();
    let said = failed(revoked(&kbs, "05").await);
    assert!(said.contains("kbs.db was replaced while it was open; nothing is released or changed until"), "{said}");
    let asked = ask(&client, PATH).await;
    assert!(matches!(&asked, Err(ClientError::Undecided { code, .. }) if code == "broker-failed"), "{asked:?}");
    // Its evidence is good; whether anything admits it nobody can say.
    let stranger = kbs.connect(guest.clone()).await.unwrap();
    let asked = ask(&stranger, PATH).await;
    assert!(matches!(&asked, Err(ClientError::Undecided { code, .. }) if code == "broker-failed"), "{asked:?}");
    fs::rename(&away, &database).unwrap();
    assert_eq!(kbs.admin().await.list_guests(None).await.unwrap().len(), 1, "it was not admitted");
    assert_eq!(ask(&stranger, PATH).await.unwrap(), VALUE);
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE, "it is back");
    assert!(revoked(&kbs, "05").await.unwrap().0);
}

#[tokio::test]
async fn a_change_whose_checkpoint_cannot_move_is_said_to_be_done_and_has_its_printed_line() {
    let kbs = Kbs::start().await;
    let checkpoint = kbs.state().join("checkpoint");
    revoked(&kbs, "04").await.unwrap();
    let (away, printed) = (kbs.state().join("away"), kbs.lines.lock().unwrap().len());
    fs::rename(&checkpoint, &away).unwrap();
    fs::create_dir(&checkpoint).unwrap();
    let said = failed(revoked(&kbs, "05").await);
    assert!(said.starts_with("it is done, and its checkpoint could not be moved: checkpoint "), "{said}");
    assert!(!said.contains("nothing is changed"), "{said}");
    assert_eq!(kbs.lines.lock().unwrap().len(), printed + 1, "what is in force has its line");
    let said = failed(revoked(&kbs, "06").await);
    assert!(said.contains("nothing is changed without it"), "{said}");
    fs::remove_dir(&checkpoint).unwrap();
    fs::rename(&away, &checkpoint).unwrap();
    let listed = kbs.admin().await.list_revocations(Some(TENANT)).await.unwrap().rows;
    let values: Vec<_> = listed.iter().map(|one| one.value.clone()).collect();
    assert_eq!(values, ["04".repeat(32), "05".repeat(32)]);
    assert_eq!(kbs.lines.lock().unwrap().len(), printed + 1);
}

#[tokio::test]
async fn a_broker_that_nobody_asks_anything_says_when_its_database_goes_and_when_it_is_back() {
    let served = Served::start(Stdio::null()).await;
    // Ready is before all of it runs, which would end at once; an answer is behind that.
    served.admin().await.add_tenant(TENANT).await.unwrap();
    let state = served.folder.path().join("state");
    let (database, away) = (state.join("kbs.db"), state.join("away"));
    let says = async |words: &str, times: usize| {
        let begun = Instant::now();
        while served.log().matches(words).count() < times {
            assert!(begun.elapsed() < Duration::from_mins(1), "{words}: {}", served.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    fs::rename(&database, &away).unwrap();
    says("kbs.db was taken away while it was open", 1).await;
    fs::copy(&away, &database).unwrap();
    says("kbs.db was replaced while it was open", 1).await;
    fs::rename(&away, &database).unwrap();
    says("the database is as it was opened again", 1).await;
    // Once, and not each second.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(served.log().matches("the database is not as it was opened").count(), 2, "{}", served.log());
}
