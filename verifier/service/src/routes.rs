//! The table of ways in, which the router and the OpenAPI document are both made of.

/// Whether one must be somebody to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Anybody may.
    ToAll,
    /// Callers alone.
    ToCallers,
}

/// One way in.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Lower case.
    pub method: &'static str,
    /// From the root.
    pub path: &'static str,
    /// For whom.
    pub open: Open,
}

const fn callers(method: &'static str, path: &'static str) -> Route {
    Route { method, path, open: Open::ToCallers }
}

const fn all(path: &'static str) -> Route {
    Route { method: "get", path, open: Open::ToAll }
}

/// Every one.
pub const ROUTES: [Route; 12] = [
    callers("post", "/v1/appraise"),
    callers("post", "/v1/appraise/batch"),
    callers("get", "/v1/challenge"),
    callers("get", "/v1/policies"),
    callers("get", "/v1/decisions"),
    callers("get", "/metrics"),
    all("/"),
    all("/.well-known/jwks.json"),
    all("/.well-known/openid-configuration"),
    all("/openapi.json"),
    all("/healthz"),
    all("/readyz"),
];
