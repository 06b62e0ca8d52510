//! Traces as OpenTelemetry has them: a span for each request that was let in, one for each appraisal in it, and one for each of its
//! steps, sent by OTLP to a collector on this machine.
//!
//! Trusts: a caller's `traceparent`, as the name of what the request belongs to, and nothing else of it. Believes nothing a collector
//! answers. Never: sends evidence, a value of it, a token, a nonce or a key; keeps an answer waiting for a collector; begins a span for
//! whoever may not ask.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, SpanData, SpanExporter as Export,
};

use crate::access::Caller;
use crate::appraiser::Answer;
use crate::refusal::Refusal;
use crate::routes::ROUTES;

/// Longest that a collector may take for one lot of spans.
const PATIENCE: Duration = Duration::from_secs(3);
/// Spans that wait; what comes beyond them is dropped.
const WAITING: usize = 2048;

/// A collector: OTLP over gRPC, on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collector(SocketAddr);

impl Collector {
    /// `http://IP:PORT`, the address one of the loopback: traces say who asked for what, and leave this machine in the hands of a
    /// collector that encrypts.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let address = text.strip_prefix("http://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
        match address.and_then(|address| address.parse::<SocketAddr>().ok()) {
            Some(address) if address.ip().is_loopback() && address.port() != 0 => Ok(Self(address)),
            _ => Err(format!(
                "traces is \"{}\", expected http:// with an address of the loopback, such as http://127.0.0.1:4317: a collector on \
                 this machine passes them on, encrypted",
                coffer_rim::foreign(text)
            )),
        }
    }
}

/// Where spans go.
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    lost: Arc<AtomicU64>,
}

impl Traces {
    /// To this collector, which need not be there yet. On an event loop.
    ///
    /// # Errors
    /// As OTLP's client.
    pub fn to(Collector(address): Collector) -> Result<Self, ExporterBuildError> {
        let client = SpanExporter::builder().with_tonic();
        let exporter = client.with_endpoint(format!("http://{address}")).with_timeout(PATIENCE).build()?;
        let lost = Arc::new(AtomicU64::new(0));
        let exporter = Counted { exporter, lost: Arc::clone(&lost), away: AtomicBool::new(false) };
        let lots = BatchConfigBuilder::default().with_max_queue_size(WAITING).build();
        let resource = Resource::builder_empty()
            .with_service_name("coffer-verifier")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(lots).build())
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .with_resource(resource.build())
            .build();
        let tracer = provider.tracer("coffer-verifier");
        Ok(Self { provider, tracer, lost })
    }

    /// Spans that no collector took.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// The span of a request that was let in.
    pub fn request(&self, request: &Request, caller: &Caller) -> Context {
        let path = request.uri().path();
        let route = ROUTES.iter().map(|route| route.path).chain(CALLS).find(|route| *route == path).unwrap_or("other");
        let method = request.method().as_str().to_owned();
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &Parent(request.headers()));
        let attributes = [
            KeyValue::new("http.request.method", method.clone()),
            KeyValue::new("http.route", route),
            KeyValue::new("user.id", caller.to_string()),
        ];
        let span = self.tracer.span_builder(format!("{method} {route}")).with_kind(SpanKind::Server);
        let span = span.with_attributes(attributes).start_with_context(&self.tracer, &parent);
        Context::new().with_span(span)
    }

    /// A span of its own within another; it ends when the last of it is dropped.
    pub fn step(&self, name: &'static str, within: &Context) -> Context {
        let span = self.tracer.span_builder(name).with_kind(SpanKind::Internal);
        Context::new().with_span(span.start_with_context(&self.tracer, within))
    }

    /// Sends what is left, and ends. Waits: for a thread of its own.
    pub fn end(&self) {
        // What was not taken is counted and said where it is sent.
        let _ = self.provider.shutdown_with_timeout(PATIENCE);
    }
}

/// How a request ended.
pub fn answered(request: &Context, status: StatusCode) {
    let span = request.span();
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    if status.is_server_error() {
        span.set_status(Status::error(""));
    }
}

/// How an appraisal ended: words of this program and names of the configuration.
pub fn appraised(appraisal: &Context, result: Result<&Answer, &Refusal>) {
    let span = appraisal.span();
    match result {
        Ok(answer) => {
            let codes = answer.appraisal.reasons().iter().map(|reason| StringValue::from(reason.code.as_str()));
            span.set_attribute(KeyValue::new("coffer.verdict", answer.appraisal.verdict().as_str()));
            span.set_attribute(KeyValue::new("coffer.reasons", Value::Array(Array::String(codes.collect()))));
            span.set_attribute(KeyValue::new("coffer.policy.id", answer.policy.name.to_string()));
            span.set_attribute(KeyValue::new("coffer.policy.revision", answer.policy.revision.to_string()));
            span.set_attribute(KeyValue::new("coffer.token", answer.token.is_some()));
        }
        Err(refusal) => {
            span.set_attribute(KeyValue::new("error.type", refusal.code()));
            span.set_status(Status::error(""));
        }
    }
}

/// Calls of gRPC.
const CALLS: [&str; 4] = [
    "/coffer.verifier.v1.Verifier/Appraise",
    "/coffer.verifier.v1.Verifier/AppraiseBatch",
    "/coffer.verifier.v1.Verifier/Challenge",
    "/coffer.verifier.v1.Verifier/Policies",
];

/// A caller's `traceparent`: of fixed length. What else callers send along with it (`tracestate`, baggage) is of any length and theirs.
struct Parent<'a>(&'a HeaderMap);

impl Extractor for Parent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        if key == TRACEPARENT { self.0.get(key)?.to_str().ok() } else { None }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

const TRACEPARENT: &str = "traceparent";

/// Counts what is lost, and says once that a collector is away, and once that it is there again.
#[derive(Debug)]
struct Counted {
    exporter: SpanExporter,
    lost: Arc<AtomicU64>,
    away: AtomicBool,
}

impl Export for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len() as u64;
        let result = self.exporter.export(batch).await;
        match &result {
            Ok(()) if self.away.swap(false, Ordering::Relaxed) => {
                tracing::info!(lost = self.lost.load(Ordering::Relaxed), "the collector of traces takes spans again");
            }
            Ok(()) => {}
            Err(error) => {
                self.lost.fetch_add(count, Ordering::Relaxed);
                if !self.away.swap(true, Ordering::Relaxed) {
                    let error = coffer_rim::foreign(&error.to_string()).into_owned();
                    tracing::warn!(%error, "the collector of traces takes no spans: they are dropped and counted");
                }
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_on_this_machine() {
        for good in ["http://127.0.0.1:4317", "http://[::1]:4317/"] {
            assert!(Collector::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:4317",
            "https://127.0.0.1:4317",
            "http://192.0.2.1:4317",
            "http://127.0.0.1:0",
            "http://collector:4317",
        ] {
            assert!(Collector::parse(bad).unwrap_err().starts_with("traces is "), "{bad}");
        }
        assert!(!Collector::parse("http://\u{1b}[2J").unwrap_err().contains('\u{1b}'));
    }
}
