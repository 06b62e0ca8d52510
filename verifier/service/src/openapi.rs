//! The interface as an OpenAPI document: one entry for each route of the table, and the shapes that travel.

use std::sync::LazyLock;

use axum::body::Bytes;
use serde_json::{Map, Value, json};

use crate::challenge::LIFETIME;
use crate::decisions::DECISIONS;
use crate::request::{MAX_BATCH, MAX_CERTIFICATES, MAX_CRLS};
use crate::routes::{Open, ROUTES, Route};

/// The document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for Route { method, path, open } in ROUTES {
        let mut operation = described(path);
        operation["operationId"] = id(path).into();
        operation["responses"]["500"] = refusal("This service failed.");
        if open == Open::ToAll {
            operation["security"] = json!([]);
        }
        let responses = operation["responses"].as_object_mut();
        if let (Some(responses), Open::ToCallers) = (responses, open) {
            responses.insert("401".into(), refusal("Who asks is not known here."));
            responses
                .insert("421".into(), refusal("Where anyone may ask over plain HTTP: not for a host of the loopback."));
            responses.insert("503".into(), refusal("Busy, slow or about to end; Retry-After says when to come again."));
        }
        paths.insert(path.into(), json!({ method: operation }));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "coffer-verifier",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Decides about AMD SEV-SNP evidence, and says so in signed tokens.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "security": [{ "key": [] }, { "certificate": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": { "type": "http", "scheme": "bearer" },
                "certificate": { "type": "mutualTLS" },
            },
            "schemas": schemas(),
        },
    })
}

/// What programs that are made of the document call it: the words of its path.
fn id(path: &str) -> String {
    let words = path.split(['/', '.', '-']).filter(|word| !matches!(*word, "" | "v1" | "well" | "known" | "json"));
    let id = words.collect::<Vec<_>>().join("_");
    if id.is_empty() { "page".to_owned() } else { id }
}

/// As it is served: made once, and one copy for everybody, since everybody may ask for it.
pub static SERVED: LazyLock<Bytes> = LazyLock::new(|| text().into());

/// The same as text.
pub fn text() -> String {
    format!("{:#}\n", document())
}

fn named(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn answer(description: &str, schema: &Value) -> Value {
    json!({ "description": description, "content": { "application/json": { "schema": schema } } })
}

fn refusal(description: &str) -> Value {
    answer(description, &named("Error"))
}

fn plain(summary: &str, description: &str) -> Value {
    let content = json!({ "text/plain": { "schema": { "type": "string" } } });
    json!({ "summary": summary, "responses": { "200": { "description": description, "content": content } } })
}

fn got(summary: &str, description: &str, schema: &Value) -> Value {
    json!({ "summary": summary, "responses": { "200": answer(description, schema) } })
}

fn posted(summary: &str, takes: &str, gives: &str) -> Value {
    json!({
        "summary": summary,
        "requestBody": { "required": true, "content": { "application/json": { "schema": named(takes) } } },
        "responses": {
            "200": answer("The judge's answer, whatever it says.", &named(gives)),
            "400": refusal("Not a request, evidence in no form, or no policy of that name."),
            "409": refusal("The challenge is none of this service's, has expired, or was used before."),
            "413": refusal("Longer than a request may be."),
            "415": refusal("Not application/json."),
        },
    })
}

fn described(path: &str) -> Value {
    let issued = |value: Value| {
        let mut value = value;
        value["responses"]["404"] = refusal("This service issues no tokens.");
        value
    };
    match path {
        "/v1/appraise" => posted("Judge evidence under a policy.", "Request", "Answer"),
        "/v1/appraise/batch" => posted("Judge several, each for itself.", "Batch", "Answers"),
        "/v1/challenge" => got(
            "A value to have put into REPORT_DATA.",
            "Good once at each replica, for a minute.",
            &named("Challenge"),
        ),
        "/v1/policies" => got("The policies there are.", "Each with the text that it is.", &named("Policies")),
        "/v1/decisions" => got(
            "The last decisions of this replica, the newest first.",
            "In memory, of all callers, without evidence.",
            &named("Decisions"),
        ),
        "/" => {
            let content = json!({ "text/html": { "schema": { "type": "string" } } });
            json!({ "summary": "A page for people.", "responses": { "200": { "description": "HTML.", "content": content } } })
        }
        "/metrics" => plain("Figures for Prometheus.", "Text format 0.0.4."),
        "/.well-known/jwks.json" => {
            issued(got("Keys that tokens are signed with.", "A JWK set (RFC 7517).", &json!({ "type": "object" })))
        }
        "/.well-known/openid-configuration" => issued(got(
            "Who issues, and where the keys are.",
            "As OpenID Connect Discovery has it.",
            &json!({ "type": "object" }),
        )),
        "/openapi.json" => got("This document.", "OpenAPI 3.1.", &json!({ "type": "object" })),
        "/healthz" => plain("Is it running?", "It is."),
        "/readyz" => {
            let mut value = plain("May requests come?", "They may.");
            value["responses"]["503"] = refusal("It is about to end.");
            value
        }
        // A test has a description of each.
        _ => json!({ "responses": {} }),
    }
}

fn schemas() -> Value {
    let base64 = json!({ "type": "string", "contentEncoding": "base64" });
    let pem_or_base64 = json!({ "type": "string", "description": "PEM, or DER in base64." });
    let nullable = |kind: &str| json!({ "type": [kind, "null"] });
    json!({
        "Request": {
            "type": "object",
            "additionalProperties": false,
            "required": ["evidence"],
            "oneOf": [{ "required": ["report_data"] }, { "required": ["challenge"] }, { "required": ["nonce"] }],
            "properties": {
                "evidence": {
                    "type": "string",
                    "contentEncoding": "base64",
                    "description": "A report of 1184 bytes, an Azure HCL blob, a CMW record, or a TSM report in JSON or CBOR.",
                },
                "cert_table": base64,
                "certificates": { "type": "array", "maxItems": MAX_CERTIFICATES, "items": pem_or_base64 },
                "crls": { "type": "array", "maxItems": MAX_CRLS, "items": pem_or_base64 },
                "report_data": {
                    "type": "string",
                    "pattern": "^([0-9a-fA-F]{128}|any)$",
                    "description": "What REPORT_DATA must be; the word any waives it, and the answer says so.",
                },
                "challenge": { "type": "string", "description": "One of this service's, which REPORT_DATA must be." },
                "nonce": {
                    "type": "string",
                    "description": "Chosen by the caller, base64url without padding, of 8 to 64 bytes: REPORT_DATA must be what `coffer attest --nonce` makes of it and HOST_DATA (coffer/nonce/v1). A token has it as eat_nonce.",
                },
                "policy": { "type": "string", "description": "Left out: the default that /v1/policies names." },
                "request_nonce": {
                    "type": "string",
                    "description": "Repeated in answer and token: base64url without padding, of 8 to 64 bytes.",
                },
                "token": {
                    "type": "object",
                    "additionalProperties": false,
                    "required": ["audience"],
                    "properties": {
                        "audience": { "type": "string", "minLength": 1, "maxLength": 256 },
                        "lifetime_seconds": { "type": "integer", "minimum": 1, "maximum": 86400, "default": 300 },
                    },
                },
            },
        },
        "Batch": {
            "type": "object",
            "additionalProperties": false,
            "required": ["requests"],
            "properties": {
                "requests": { "type": "array", "minItems": 1, "maxItems": MAX_BATCH, "items": named("Request") },
            },
        },
        "Answer": {
            "type": "object",
            "required": ["policy", "appraisal", "not_fetched", "request_nonce", "token"],
            "properties": {
                "policy": {
                    "type": "object",
                    "required": ["id", "revision"],
                    "properties": { "id": { "type": "string" }, "revision": { "type": "string" } },
                },
                "appraisal": named("Appraisal"),
                "not_fetched": { "type": "array", "items": { "type": "object" } },
                "request_nonce": nullable("string"),
                "token": nullable("string"),
            },
        },
        "Answers": {
            "type": "object",
            "required": ["results"],
            "properties": {
                "results": { "type": "array", "items": { "anyOf": [named("Answer"), named("Error")] } },
            },
        },
        "Appraisal": {
            "type": "object",
            "description": "What `coffer verify --json` prints.",
            "required": [
                "verdict", "simulated", "anchor", "workload_digest", "claims", "missing", "reasons", "checks",
            ],
            "properties": {
                "verdict": { "enum": ["accepted", "refused", "not-authentic"] },
                "simulated": nullable("boolean"),
                "anchor": nullable("object"),
                "workload_digest": nullable("string"),
                "claims": nullable("object"),
                "missing": { "type": "array", "items": { "type": "object" } },
                "reasons": { "type": "array", "items": named("Reason") },
                "checks": { "type": "array", "items": { "type": "object" } },
            },
        },
        "Reason": {
            "type": "object",
            "required": ["code", "found", "expected", "hint"],
            "properties": {
                "code": { "type": "string" },
                "found": { "type": "string" },
                "expected": { "type": "string" },
                "hint": { "type": "string" },
            },
        },
        "Challenge": {
            "type": "object",
            "required": ["challenge", "report_data", "expires_in"],
            "properties": {
                "challenge": { "type": "string", "description": "64 bytes, base64url without padding." },
                "report_data": { "type": "string", "description": "The same 64 bytes, hexadecimal." },
                "expires_in": { "type": "integer", "const": LIFETIME, "description": "Seconds." },
            },
        },
        "Policies": {
            "type": "object",
            "required": ["default", "policies"],
            "properties": {
                "default": { "type": "string" },
                "policies": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["id", "revision", "rego", "simulated_roots"],
                        "properties": {
                            "id": { "type": "string" },
                            "revision": { "type": "string" },
                            "rego": { "type": "boolean" },
                            "simulated_roots": { "type": "array", "items": { "type": "string" } },
                        },
                    },
                },
            },
        },
        "Decisions": {
            "type": "object",
            "required": ["made", "held_at_most", "decisions"],
            "properties": {
                "made": { "type": "integer", "description": "Since this replica started." },
                "held_at_most": { "type": "integer", "const": DECISIONS },
                "decisions": { "type": "array", "maxItems": DECISIONS, "items": named("Decision") },
            },
        },
        "Decision": {
            "type": "object",
            "required": [
                "number", "at", "caller", "policy", "revision", "verdict", "simulated", "token", "reasons", "further_reasons",
            ],
            "properties": {
                "number": { "type": "integer" },
                "at": { "type": "string", "format": "date-time" },
                "caller": { "type": "string" },
                "policy": { "type": "string" },
                "revision": { "type": "string" },
                "verdict": { "enum": ["accepted", "refused", "not-authentic"] },
                "simulated": nullable("boolean"),
                "token": { "type": "boolean" },
                "reasons": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["code", "text"],
                        "properties": { "code": { "type": "string" }, "text": { "type": "string" } },
                    },
                },
                "further_reasons": { "type": "integer" },
            },
        },
        "Error": {
            "type": "object",
            "required": ["error"],
            "properties": {
                "error": {
                    "type": "object",
                    "required": ["class", "message", "hint", "reason"],
                    "properties": {
                        "class": { "type": "string" },
                        "message": { "type": "string" },
                        "hint": nullable("string"),
                        "reason": {
                            "type": "object",
                            "required": ["code"],
                            "properties": { "code": { "type": "string", "description": "A stable word." } },
                        },
                    },
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_in_is_described_and_every_shape_that_is_named_is_there() {
        let document = document();
        for route in ROUTES {
            let operation = &document["paths"][route.path][route.method];
            assert!(operation["summary"].is_string() && operation["responses"]["200"].is_object(), "{}", route.path);
            assert_eq!(operation["security"].is_array(), route.open == Open::ToAll, "{}", route.path);
        }
        let text = text();
        for named in text.split("#/components/schemas/").skip(1) {
            let name = named.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }

    #[test]
    fn the_document_is_the_one_that_is_kept() {
        let kept = include_str!("../testdata/openapi.json");
        assert!(kept == text(), "testdata/openapi.json is another document than this one:\n{}", text());
    }
}
