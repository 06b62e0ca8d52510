//! The trail by what its lines are about, from either end, and whether what is read of it holds.

use crate::common::{Guest, Kbs, PATH, TENANT, ask, refused};
use coffer_kbs::Kind;
use coffer_kbs_client::{AuditQuery, ClientError};
use serde_json::Value;

fn of(lines: &[String], key: &str) -> Vec<Value> {
    lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()[key].clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_are_found_by_what_they_are_about_newest_first() {
    let kbs = Kbs::start().await;
    let admin = kbs.admin().await;
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    kbs.put("kbs:///default/app/other", true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = kbs.connect(guest).await.unwrap();
    ask(&client, PATH).await.unwrap();
    let id = refused(ask(&client, "kbs:///default/app/other").await);
    admin.delete_secret("default", &PATH.parse().unwrap(), None).await.unwrap();

    let search = async |query: AuditQuery, limit| of(&admin.audit_search(&query, limit).await.unwrap(), "sequence");
    let newest = || AuditQuery { newest: true, ..AuditQuery::default() };
    let all = search(newest(), 100).await;
    assert_eq!(all, [6, 5, 4, 3, 2, 1]);
    assert_eq!(search(newest(), 2).await, [6, 5]);
    assert_eq!(search(AuditQuery { from: Some(3), ..newest() }, 2).await, [3, 2]);
    assert_eq!(search(AuditQuery { from: Some(4), ..AuditQuery::default() }, 100).await, [4, 5, 6]);
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(search(AuditQuery { tenant: some("default"), ..newest() }, 100).await, [6]);
    assert_eq!(search(AuditQuery { path: some(PATH), tenant: some(TENANT), ..newest() }, 100).await, [4, 1]);
    assert_eq!(search(AuditQuery { event: some("secret.release"), ..newest() }, 100).await, [5, 4]);
    assert_eq!(search(AuditQuery { event: some("secret"), ..AuditQuery::default() }, 100).await, [1, 2, 4, 5, 6]);
    assert_eq!(search(AuditQuery { outcome: some("refused"), ..newest() }, 100).await, [5]);
    assert_eq!(search(AuditQuery { id: Some(id), ..AuditQuery::default() }, 100).await, [5]);
    let later = Some(i64::try_from(crate::common::unix()).unwrap() + 60);
    assert!(search(AuditQuery { since_unix: later, ..newest() }, 100).await.is_empty());
    assert_eq!(search(AuditQuery { until_unix: later, ..newest() }, 100).await.len(), 6);
    // Many answers make one list.
    let mut paged = Vec::new();
    let mut query = newest();
    loop {
        let page = admin.audit_page(&query, 4).await.unwrap();
        paged.extend(of(&page.lines, "sequence"));
        assert_eq!(page.end, 6);
        let Some(next) = page.next else { break };
        query.from = Some(next);
    }
    assert_eq!(paged, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_hold_is_not_passed_over_from_either_end() {
    let kbs = Kbs::start().await;
    let admin = kbs.admin().await;
    for _ in 0..4 {
        kbs.put(PATH, true).await;
    }
    kbs.tamper(Kind::AuditLine, |rows| {
        let body = String::from_utf8(rows[1].1.body.clone()).unwrap().replace("admin", "nobody");
        rows[1].1.body = body.into_bytes();
    })
    .await;
    let search = async |query: AuditQuery| admin.audit_search(&query, 100).await;
    let newest = AuditQuery { newest: true, ..AuditQuery::default() };
    let held = search(newest.clone()).await;
    assert!(matches!(&held, Err(ClientError::NotAuthentic { message }) if message.contains("line 2")), "{held:?}");
    let first = admin.audit_page(&newest, 100).await.unwrap();
    // Line 3 names the line before it, which is another now.
    assert_eq!(of(&first.lines, "sequence"), [4], "what holds is given");
    let oldest = admin.audit_page(&AuditQuery::default(), 100).await.unwrap();
    assert_eq!(of(&oldest.lines, "sequence"), [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_that_no_line_can_have_is_refused_with_those_there_are() {
    let kbs = Kbs::start().await;
    let admin = kbs.admin().await;
    let none = AuditQuery::default;
    for (query, words) in [
        (AuditQuery { event: Some("secrets".into()), ..none() }, ["event: ", "secret.release", "tenant.adopt"]),
        (AuditQuery { event: Some("secret.rel".into()), ..none() }, ["event: ", "secret.release", "tenant.adopt"]),
        (AuditQuery { outcome: Some("denied".into()), ..none() }, ["outcome: ", "refused", "there-already"]),
    ] {
        match admin.audit_search(&query, 1).await {
            Err(ClientError::Rejected { message, .. }) => {
                assert!(words.iter().all(|word| message.contains(word)), "{message}");
            }
            other => panic!("{query:?}: {other:?}"),
        }
    }
    for query in [
        AuditQuery { event: Some("secret".into()), ..none() },
        AuditQuery { event: Some("crl.remove".into()), outcome: Some("nothing-there".into()), ..none() },
    ] {
        assert!(admin.audit_search(&query, 1).await.unwrap().is_empty());
    }
}
