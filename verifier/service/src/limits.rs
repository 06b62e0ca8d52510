//! What callers may cost: connections, requests at once, bytes and seconds of each.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Limits, as they are configured.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsEntry {
    /// Connections at once. Whoever comes then is hung up on.
    pub connections: usize,
    /// Requests at once. Whoever comes then is told to come again.
    pub requests: usize,
    /// Requests at once of one caller, so that none takes every place.
    pub requests_of_one: usize,
    /// Bytes of one request.
    pub request_bytes: usize,
    /// Seconds that one request may take, from its first byte to the answer.
    pub request_seconds: u64,
    /// Seconds until TLS is up, and until the head of a request is there.
    pub head_seconds: u64,
}

impl Default for LimitsEntry {
    fn default() -> Self {
        Self {
            connections: 1024,
            requests: 64,
            requests_of_one: 48,
            request_bytes: 2 << 20,
            request_seconds: 30,
            head_seconds: 10,
        }
    }
}

/// Limits, as they are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// See [`LimitsEntry`].
    pub connections: usize,
    /// See [`LimitsEntry`].
    pub requests: usize,
    /// See [`LimitsEntry`].
    pub requests_of_one: usize,
    /// See [`LimitsEntry`].
    pub request_bytes: usize,
    /// See [`LimitsEntry`].
    pub request_time: Duration,
    /// See [`LimitsEntry`].
    pub head_time: Duration,
}

impl LimitsEntry {
    /// As meant; what means nothing is added to `mistakes`.
    pub fn read(&self, mistakes: &mut Vec<String>) -> Limits {
        let mut within = |name: &str, value: u64, most: u64| {
            if value == 0 || value > most {
                mistakes.push(format!("limits.{name} is {value}, expected 1 to {most}"));
            }
        };
        within("connections", self.connections as u64, 1_000_000);
        within("requests", self.requests as u64, 10_000);
        within("requests_of_one", self.requests_of_one as u64, 10_000);
        within("request_bytes", self.request_bytes as u64, 64 << 20);
        within("request_seconds", self.request_seconds, 3600);
        within("head_seconds", self.head_seconds, 3600);
        Limits {
            connections: self.connections,
            requests: self.requests,
            requests_of_one: self.requests_of_one,
            request_bytes: self.request_bytes,
            request_time: Duration::from_secs(self.request_seconds),
            head_time: Duration::from_secs(self.head_seconds),
        }
    }
}
