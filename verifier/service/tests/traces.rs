//! Traces: what a collector gets to see, and what it does not; and that nobody waits for one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::json;
use tokio_stream::wrappers::TcpListenerStream;

use crate::common::{Running, asks, evidence, now, with};

/// A collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Kept {
    async fn listening() -> (Self, SocketAddr) {
        let kept = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(kept.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (kept, address)
    }

    fn spans(&self) -> Vec<Span> {
        let sent = self.0.lock().unwrap();
        let resources = sent.iter().flat_map(|one| &one.resource_spans);
        resources.flat_map(|one| &one.scope_spans).flat_map(|one| one.spans.clone()).collect()
    }
}

fn value(span: &Span, key: &str) -> Option<Any> {
    span.attributes.iter().find(|one| one.key == key)?.value.clone()?.value
}

fn text(text: &str) -> Any {
    Any::StringValue(text.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_a_trace_with_its_appraisals_and_without_anything_of_the_evidence() {
    let (kept, collector) = Kept::listening().await;
    let service = Running::with(|file| file.traces = Some(format!("http://{collector}"))).await;
    let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let asked = evidence(now(), [5; 64]);
    let nonce = "c3VjaCBhIG5vbmNlIGFzIG5vYm9keSBlbHNl";
    let good = with(asks(&asked), json!({ "policy": "lab", "request_nonce": nonce, "token": { "audience": "me" } }));
    let request = service.client.post(service.url("/v1/appraise")).bearer_auth(&service.key).json(&good);
    let request =
        request.header("traceparent", format!("00-{trace}-{parent}-01")).header("tracestate", "theirs=secret");
    let answer: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
    let token = answer["token"].as_str().unwrap().to_owned();
    let bad = with(asks(&asked), json!({ "policy": "nobody's" }));
    assert_eq!(service.appraise(&bad).await.0, 400);
    // Whoever may not ask is in no trace.
    let stranger = service.client.post(service.url("/v1/appraise")).bearer_auth("no key").json(&good).send().await;
    assert_eq!(stranger.unwrap().status(), 401);
    let key = service.key.clone();
    // What waits is sent before it ends.
    service.stop().await;

    let spans = kept.spans();
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let requests = named("POST /v1/appraise");
    assert_eq!(requests.len(), 2, "{spans:#?}");
    let first = requests.iter().find(|span| hex::encode(&span.trace_id) == trace).unwrap();
    assert_eq!(hex::encode(&first.parent_span_id), parent);
    assert_eq!(first.trace_state, "");
    assert_eq!(value(first, "http.response.status_code"), Some(Any::IntValue(200)));
    assert_eq!(value(first, "http.route"), Some(text("/v1/appraise")));
    assert_eq!(value(first, "user.id"), Some(text("key test")));
    let second = requests.iter().find(|span| hex::encode(&span.trace_id) != trace).unwrap();
    assert_eq!(value(second, "http.response.status_code"), Some(Any::IntValue(400)));
    assert!(second.parent_span_id.is_empty());

    let appraisals = named("appraisal");
    let of = |request: &Span| *appraisals.iter().find(|span| span.parent_span_id == request.span_id).unwrap();
    assert_eq!(value(of(first), "coffer.verdict"), Some(text("accepted")));
    assert_eq!(value(of(first), "coffer.policy.id"), Some(text("lab")));
    assert_eq!(value(of(first), "coffer.token"), Some(Any::BoolValue(true)));
    assert_eq!(value(of(second), "error.type"), Some(text("unknown-policy")));
    for step in ["fetch", "wait for a processor", "judge"] {
        let steps = named(step);
        assert_eq!(steps.len(), 1, "{step}");
        assert_eq!(steps[0].parent_span_id, of(first).span_id);
        assert!(steps[0].end_time_unix_nano >= steps[0].start_time_unix_nano);
    }
    let sent: Vec<u8> = kept.0.lock().unwrap().iter().flat_map(ExportTraceServiceRequest::encode_to_vec).collect();
    let report_data = hex::encode([5; 64]);
    for never in [
        &asked.report[0x50..0x90],
        key.as_bytes(),
        token.as_bytes(),
        nonce.as_bytes(),
        report_data.as_bytes(),
        b"theirs",
    ] {
        assert!(!sent.windows(never.len()).any(|part| part == never), "{}", String::from_utf8_lossy(never));
    }
    let resource = kept.0.lock().unwrap()[0].resource_spans[0].resource.clone().unwrap();
    let name = AnyValue { value: Some(text("coffer-verifier")) };
    assert!(resource.attributes.iter().any(|one| one.key == "service.name" && one.value == Some(name.clone())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_nobody_anything() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let service = Running::with(|file| file.traces = Some(format!("http://{gone}"))).await;
    let request = with(asks(&evidence(now(), [5; 64])), json!({ "policy": "lab" }));
    assert_eq!(service.appraise(&request).await.0, 200);
    // The spans go within seconds of their own accord; that they are lost is counted.
    loop {
        let metrics = service.get("/metrics").await.text().await.unwrap();
        let lost = metrics.lines().find_map(|line| line.strip_prefix("coffer_verifier_spans_lost_total ")).unwrap();
        if lost.parse::<u64>().unwrap() >= 5 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    service.stop().await;
}

#[test]
fn only_a_collector_on_this_machine_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, _) = crate::common::config(folder.path());
    file.traces = Some("http://192.0.2.1:4317".into());
    let Err(error) = file.resolve(folder.path()) else { panic!("taken") };
    assert!(error.to_string().contains("traces is \"http://192.0.2.1:4317\""), "{error}");
}
