//! What evidence lacks is fetched where a service is named, and from nobody else.

use std::sync::atomic::Ordering;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coffer_kds::KdsEntry;
use coffer_verifier::Endorsements;
use serde_json::json;

use crate::common::{Running, asks, codes, evidence, now, with};
use crate::simulated::installation;

#[path = "../../../tests/kds_service.rs"]
mod kds_service;

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_report_is_completed_once_for_a_policy_that_believes_the_simulator() {
    let started = now() - 86_400;
    let kds = kds_service::Service::start(installation(), started, |_, _| None).await;
    kds.days.store(1, Ordering::Relaxed);
    let simulated_service = Some(kds.base.to_string());
    let service = Running::with(|file| file.kds = Some(KdsEntry { simulated_service, ..KdsEntry::default() })).await;
    let bare = STANDARD.encode(evidence(now(), [5; 64]).report);
    let ask = |policy: &'static str| json!({ "evidence": bare, "report_data": "any", "policy": policy });
    for _ in 0..3 {
        let (_, answer) = service.appraise(&ask("lab")).await;
        assert_eq!(answer["appraisal"]["verdict"], "accepted", "{answer}");
        assert_eq!(answer["not_fetched"], json!([]));
    }
    assert_eq!((kds.asked("/vcek/v1/Genoa/"), kds.asked("crl")), (3, 1), "leaf, chain and list, each once");
    // For AMD's, nobody is named: nobody is asked.
    let (_, answer) = service.appraise(&ask("strict")).await;
    assert_eq!(codes(&answer), ["endorsement-missing"]);
    assert_eq!(kds.asked(""), 3);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn for_what_its_configuration_names_nobody_is_asked() {
    let kds = kds_service::Service::start(installation(), now(), |_, _| None).await;
    let simulated_service = Some(kds.base.to_string());
    let whole = evidence(now(), [5; 64]);
    let held = Endorsements::from_evidence(&whole).unwrap();
    let service = Running::with(|file| {
        let folder = tempfile::tempdir().unwrap().keep();
        for (number, certificate) in held.certificates().enumerate() {
            let name = folder.join(format!("{number}.der"));
            std::fs::write(&name, certificate.der()).unwrap();
            file.endorsements.push(name);
        }
        file.kds = Some(KdsEntry { simulated_service, ..KdsEntry::default() });
    })
    .await;
    let bare = STANDARD.encode(whole.report);
    let (_, answer) = service.appraise(&json!({ "evidence": bare, "report_data": "any", "policy": "lab" })).await;
    assert_eq!(answer["appraisal"]["verdict"], "accepted", "{answer}");
    let list_and_what_signed_it = (kds.asked("/crl"), kds.asked("/cert_chain"));
    assert_eq!((list_and_what_signed_it, kds.asked("")), ((1, 1), 2), "nobody is asked for the chip's");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_got_is_said_as_the_command_says_it() {
    let kds =
        kds_service::Service::start(installation(), now(), |_, _| Some(kds_service::Reply::Status(404, ""))).await;
    let simulated_service = Some(kds.base.to_string());
    let service = Running::with(|file| file.kds = Some(KdsEntry { simulated_service, ..KdsEntry::default() })).await;
    let bare = STANDARD.encode(evidence(now(), [5; 64]).report);
    let (status, answer) = service.appraise(&json!({ "evidence": bare, "report_data": "any", "policy": "lab" })).await;
    assert_eq!((status, codes(&answer)), (200, vec!["endorsement-missing"]));
    let failures = answer["not_fetched"].as_array().unwrap();
    assert!(!failures.is_empty() && failures.iter().all(|one| one["error"]["class"] == "not-found"), "{failures:?}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_answer_costs_no_batch_its_answers() {
    let kds = kds_service::Service::start(installation(), now(), |_, _| Some(kds_service::Reply::Hang)).await;
    let simulated_service = Some(kds.base.to_string());
    let service = Running::with(|file| {
        file.kds = Some(KdsEntry { simulated_service, ..KdsEntry::default() });
        // One after another they would take longer than the request may.
        file.limits.request_seconds = 6;
    })
    .await;
    let whole = asks(&evidence(now(), [5; 64]));
    let bare = |chip: u8| {
        let mut report = evidence(now(), [5; 64]).report;
        // CHIP_ID (SNP ABI 1.58, Table 23): each is another to ask for.
        report[0x1a0..0x1e0].fill(chip);
        json!({ "evidence": STANDARD.encode(report), "report_data": "any", "policy": "lab" })
    };
    let requests = [with(whole, json!({ "policy": "lab" })), bare(1), bare(2), bare(3), bare(4)];
    let response = service.post("/v1/appraise/batch", &json!({ "requests": requests })).await;
    assert_eq!(response.status(), 200);
    let answer: serde_json::Value = response.json().await.unwrap();
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results[0]["appraisal"]["verdict"], "accepted", "{}", results[0]);
    for one in &results[1..] {
        assert_eq!(codes(one), ["endorsement-missing"]);
        assert_ne!(one["not_fetched"], json!([]));
    }
    assert_eq!(results.len(), 5);
    service.stop().await;
}
