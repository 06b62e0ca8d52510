//! The interface over gRPC: the same answers, behind the same guard; and messages that are none.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf as _, BufMut as _};
use coffer_verifier::abi::{CertKind, CertTable};
use coffer_verifier_service::wire::verifier_client::VerifierClient;
use coffer_verifier_service::wire::{
    Any, AppraiseRequest, ChallengeRequest, PoliciesRequest, TokenRequest, appraise_request::Demanded,
    result::Result as One,
};
use coffer_verifier_service::{AppraiseBatchRequest, MAX_BATCH};
use serde_json::{Value, json};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::common::{Running, asks, evidence, now, with};
use crate::mutate::mutate;

async fn channel(service: &Running) -> Channel {
    Endpoint::new(service.url("")).unwrap().connect().await.unwrap()
}

pub fn keyed<T>(message: T, key: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", MetadataValue::try_from(format!("Bearer {key}")).unwrap());
    request
}

pub fn wanted(report_data: [u8; 64], demanded: Option<Demanded>) -> AppraiseRequest {
    let evidence = evidence(now(), report_data).to_cmw();
    AppraiseRequest { evidence, demanded, policy: "lab".into(), ..AppraiseRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_answers_come_over_both() {
    let service = Running::start().await;
    let mut client = VerifierClient::new(channel(&service).await);
    let strange = client.appraise(wanted([5; 64], Some(Demanded::Any(Any {})))).await.unwrap_err();
    assert_eq!(strange.code(), Code::Unauthenticated);

    let evidence = evidence(now(), [5; 64]);
    let asked = AppraiseRequest {
        evidence: evidence.to_cmw(),
        demanded: Some(Demanded::ReportData(vec![5; 64])),
        policy: "lab".into(),
        request_nonce: vec![6; 16],
        token: Some(TokenRequest { audience: "me".into(), lifetime_seconds: 0 }),
        ..AppraiseRequest::default()
    };
    let answer = client.appraise(keyed(asked, &service.key)).await.unwrap().into_inner();
    assert_eq!((answer.verdict.as_str(), answer.policy_id.as_str()), ("accepted", "lab"));
    assert_eq!((answer.request_nonce, answer.token.split('.').count()), (vec![6; 16], 3));
    let more = json!({ "policy": "lab", "report_data": "05".repeat(64) });
    let (_, over_http) = service.appraise(&with(asks(&evidence), more)).await;
    let over_grpc: Value = serde_json::from_str(&answer.appraisal_json).unwrap();
    let timeless = |mut appraisal: Value| {
        // The second in which it was judged.
        appraisal["claims"]["verified_at"] = Value::Null;
        for check in appraisal["checks"].as_array_mut().unwrap() {
            check["expected"] = Value::Null;
        }
        appraisal
    };
    assert_eq!(timeless(over_grpc), timeless(over_http["appraisal"].clone()));
    assert_eq!(answer.policy_revision, over_http["policy"]["revision"].as_str().unwrap());

    let policies = client.policies(keyed(PoliciesRequest {}, &service.key)).await.unwrap().into_inner();
    assert_eq!((policies.default_policy.as_str(), policies.policies.len()), ("strict", 3));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_is_good_once_over_both_together() {
    let service = Running::start().await;
    let mut client = VerifierClient::new(channel(&service).await);
    let given = client.challenge(keyed(ChallengeRequest {}, &service.key)).await.unwrap().into_inner();
    let bytes: [u8; 64] = given.challenge.clone().try_into().unwrap();
    let asked = wanted(bytes, Some(Demanded::Challenge(given.challenge)));
    let answer = client.appraise(keyed(asked.clone(), &service.key)).await.unwrap().into_inner();
    assert_eq!(answer.verdict, "accepted");
    let again = client.appraise(keyed(asked, &service.key)).await.unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition);
    assert!(again.message().starts_with("challenge-spent: "), "{again}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_means_nothing_is_an_invalid_argument() {
    let service = Running::start().await;
    let mut client = VerifierClient::new(channel(&service).await);
    let good = || wanted([5; 64], Some(Demanded::Any(Any {})));
    for (asked, word) in [
        (AppraiseRequest { demanded: None, ..good() }, "say what REPORT_DATA must hold"),
        (AppraiseRequest { demanded: Some(Demanded::ReportData(vec![5; 63])), ..good() }, "report_data"),
        (AppraiseRequest { demanded: Some(Demanded::Challenge(vec![5; 63])), ..good() }, "challenge"),
        (AppraiseRequest { demanded: Some(Demanded::Nonce(vec![5; 7])), ..good() }, "nonce"),
        (AppraiseRequest { policy: "none".into(), ..good() }, "unknown-policy"),
        (AppraiseRequest { request_nonce: vec![1], ..good() }, "request_nonce"),
        (AppraiseRequest { certificates: vec![Vec::new(); 17], ..good() }, "too-many"),
        (AppraiseRequest { evidence: vec![1], ..good() }, "malformed-evidence"),
    ] {
        let error = client.appraise(keyed(asked, &service.key)).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains(word), "{error}");
    }
    service.stop().await;
}

fn batch(requests: Vec<AppraiseRequest>) -> AppraiseBatchRequest {
    AppraiseBatchRequest { requests, too_many: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_answered_as_over_http_in_its_order_and_within_its_limits() {
    let service = Running::start().await;
    let mut client = VerifierClient::new(channel(&service).await);
    let good = || wanted([5; 64], Some(Demanded::Any(Any {})));
    let many = [
        good(),
        AppraiseRequest { evidence: vec![1], ..good() },
        AppraiseRequest { policy: "none".into(), ..good() },
        AppraiseRequest { policy: "strict".into(), ..good() },
    ];
    let answer = client.appraise_batch(keyed(batch(many.to_vec()), &service.key)).await.unwrap().into_inner();
    let over_http: Vec<_> = many
        .iter()
        .map(|one| json!({ "evidence": STANDARD.encode(&one.evidence), "report_data": "any", "policy": one.policy }))
        .collect();
    let over_http = service.post("/v1/appraise/batch", &json!({ "requests": over_http })).await;
    let over_http: Value = over_http.json().await.unwrap();
    assert_eq!(answer.results.len(), many.len());
    for (one, document) in answer.results.into_iter().zip(over_http["results"].as_array().unwrap()) {
        match one.result.unwrap() {
            One::Answer(answer) => {
                assert_eq!(answer.verdict, document["appraisal"]["verdict"].as_str().unwrap());
                assert_eq!(answer.policy_id, document["policy"]["id"].as_str().unwrap());
            }
            One::Error(error) => {
                assert_eq!(error.status, i32::from(Code::InvalidArgument));
                let document = &document["error"];
                assert_eq!(error.code, document["reason"]["code"].as_str().unwrap());
                assert_eq!(error.message, document["message"].as_str().unwrap());
                assert_eq!(error.hint, document["hint"].as_str().unwrap());
            }
        }
    }
    let metrics = service.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("coffer_verifier_requests_refused_total{why=\"request\"} 4\n"), "{metrics}");
    for (requests, word) in [(Vec::new(), "malformed-request: "), (vec![good(); MAX_BATCH + 1], "too-many: ")] {
        let error = client.appraise_batch(keyed(batch(requests), &service.key)).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().starts_with(word), "{error}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_of_hundreds_of_kilobytes_is_judged_over_both() {
    let service = Running::start().await;
    let mut evidence = evidence(now(), [5; 64]);
    // What a host has beside its certificates, and nobody reads.
    let table = CertTable::parse(&evidence.cert_table).unwrap();
    let rest = vec![7; 300 << 10];
    let entries: Vec<_> = table.entries().iter().copied().chain([(CertKind::Other([9; 16]), &rest[..])]).collect();
    evidence.cert_table = CertTable::write(&entries);
    let cmw = evidence.to_cmw();
    assert!(cmw.len() > 300 << 10);
    let (status, answer) = service.appraise(&with(asks(&evidence), json!({ "policy": "lab" }))).await;
    assert_eq!((status, &answer["appraisal"]["verdict"]), (200, &json!("accepted")), "{answer}");
    let mut client = VerifierClient::new(channel(&service).await);
    let asked = AppraiseRequest { evidence: cmw, ..wanted([5; 64], Some(Demanded::Any(Any {}))) };
    let answer = client.appraise(keyed(asked, &service.key)).await.unwrap().into_inner();
    assert_eq!(answer.verdict, "accepted");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_takes_longer_than_a_request_may_is_answered_with_nothing_by_halves() {
    // Each judgement takes all that a policy may have of a processor, a quarter of a second: a batch takes sixteen times its time.
    let folder = tempfile::tempdir().unwrap();
    let service = Running::with(|file| {
        let slow = "package slow\nallow if count([1 | some a in numbers.range(1, 4000); \
                    some b in numbers.range(1, 4000); some c in numbers.range(1, 4000); a + b + c < 0]) == 0\n";
        std::fs::write(folder.path().join("slow.rego"), slow).unwrap();
        file.policies.get_mut("lab").unwrap().rego = Some(folder.path().join("slow.rego"));
        file.limits.request_seconds = 1;
    })
    .await;
    let mut client = VerifierClient::new(channel(&service).await);
    let asked = vec![wanted([5; 64], Some(Demanded::Any(Any {}))); MAX_BATCH];
    let error = client.appraise_batch(keyed(batch(asked), &service.key)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().starts_with("slow: "), "{error}");
    let one = with(asks(&evidence(now(), [5; 64])), json!({ "policy": "lab" }));
    let response = service.post("/v1/appraise/batch", &json!({ "requests": vec![one; MAX_BATCH] })).await;
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    let document: Value = response.json().await.unwrap();
    assert_eq!(document["error"]["reason"]["code"], "slow");
    assert!(document.get("results").is_none(), "{document}");
    service.stop().await;
}

/// Where one piece of evidence is judged.
pub fn appraise() -> http::uri::PathAndQuery {
    http::uri::PathAndQuery::from_static("/coffer.verifier.v1.Verifier/Appraise")
}

/// Bytes as they are.
#[derive(Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_messages_that_are_none_are_refused_and_it_goes_on() {
    use tonic_prost::prost::Message as _;
    let service = Running::start().await;
    let mut client = tonic::client::Grpc::new(channel(&service).await);
    let good = wanted([5; 64], Some(Demanded::ReportData(vec![5; 64]))).encode_to_vec();
    let mut seed = 7;
    let mut refused = 0;
    for round in 0..10_000 {
        let bent = mutate(&good, &mut seed);
        client.ready().await.unwrap();
        match client.unary(keyed(bent.clone(), &service.key), appraise(), Raw).await {
            Err(error) => {
                let known = [Code::InvalidArgument, Code::FailedPrecondition];
                assert!(known.contains(&error.code()), "{round}: {error}");
                refused += 1;
            }
            // Bent where it is evidence: then the judge said no, or what was bent counts for nothing.
            Ok(answer) => assert!(!answer.into_inner().is_empty()),
        }
    }
    assert!(refused > 1000, "{refused}");
    let metrics = service.get("/metrics").await.text().await.unwrap();
    let counted = format!("coffer_verifier_requests_refused_total{{why=\"request\"}} {refused}\n");
    assert!(metrics.contains(&counted), "each once: {refused}: {metrics}");
    let mut client = VerifierClient::new(channel(&service).await);
    let asked = wanted([5; 64], Some(Demanded::Any(Any {})));
    assert_eq!(client.appraise(keyed(asked, &service.key)).await.unwrap().into_inner().verdict, "accepted");
    service.stop().await;
}
