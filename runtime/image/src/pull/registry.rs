//! One registry over HTTP: where it is, who we are to it, one request at a time.
//!
//! Credentials go to the registry and to the token service it names, which for a registry spoken to in https must be https
//! too; never to where a request is sent on to. Addresses in manifests are never followed.
//!
//! Of oci-client (0.18) this takes references, credentials, tokens, manifests and error documents. Not its `Client`, since
//! what that reads cannot be bounded from outside, and it lets nobody give it an HTTP client: manifests
//! (`_pull_manifest_raw`), tokens (`_auth`) and every refusal, also one in place of a streamed blob
//! (`stream_from_response`), are read to their end before a caller sees a byte. It also panics where a token is no header
//! value (`apply_auth`), and follows a challenge from https to a token service in plain http, with the password. What a
//! registry can do here instead is in `tests/memory`.
//! Source: OCI Distribution Specification 1.1; distribution's "Token Authentication Specification"; RFC 9110 §11.6.1.

use super::answer::{Failure, Passing, Refusal, body, refusal};
use super::options::PullOptions;
use crate::credentials;
use crate::error::{ImageError, Result};
use base64::Engine as _;
use coffer_rim::chain;
use http_auth::parser::ChallengeParser;
use oci_client::Reference;
use oci_client::secrets::RegistryAuth;
use oci_client::token_cache::RegistryToken;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use std::time::Duration;
use tokio::sync::Mutex;

pub(super) struct Registry {
    http: Client,
    /// `https://host[:port]/v2/repository/`.
    base: Url,
    /// As people write it.
    name: String,
    repository: String,
    login: RegistryAuth,
    /// What it was content with last.
    authorization: Mutex<Option<HeaderValue>>,
}

/// Longest answer of a token service in bytes.
const MAX_TOKEN: u64 = 64 << 10;

impl Registry {
    pub(super) fn new(reference: &Reference, options: &PullOptions) -> Result<Self> {
        let (host, name) = (reference.resolve_registry(), reference.registry().to_owned());
        let plain = is_loopback(host) || options.insecure_registries.iter().any(|insecure| insecure == host);
        let scheme = if plain { "http" } else { "https" };
        let repository = reference.repository().to_owned();
        let base = Url::parse(&format!("{scheme}://{host}/v2/{repository}/")).map_err(|error| {
            ImageError::InvalidReference { reference: reference.whole(), reason: error.to_string() }
        })?;
        let http = Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(30))
            .user_agent(concat!("coffer/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ImageError::Client { reason: chain(&error) })?;
        let login = credentials::lookup(options.docker_config.as_deref(), &name)?;
        Ok(Self { http, base, name, repository, login, authorization: Mutex::default() })
    }

    /// As people write it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Asks for `path` below the repository; gives answers that are a success. `what`: for messages.
    pub(super) async fn get(
        &self,
        path: &str,
        accept: &str,
        range: Option<u64>,
        what: &str,
    ) -> Result<Response, Failure> {
        let url = self.base.join(path).map_err(|error| self.protocol(error.to_string()))?;
        let ask = |authorization: Option<HeaderValue>| {
            let mut request = self.http.get(url.clone()).header(ACCEPT, accept);
            if let Some(from) = range {
                request = request.header("range", format!("bytes={from}-"));
            }
            if let Some(authorization) = authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            self.send(request)
        };
        let known = self.authorization.lock().await.clone();
        let mut response = ask(known.clone()).await?;
        // Where it sent us on to has no say in what we show to whom.
        if response.status() == StatusCode::UNAUTHORIZED && self.is_at(response.url()) {
            let authorization = self.authorize(response.headers(), known.as_ref(), what).await?;
            response = ask(Some(authorization)).await?;
        }
        if response.status().is_success() {
            return Ok(response);
        }
        let (registry, what) = (self.answering(response.url()), what.to_owned());
        Err(match refusal(response).await {
            Refusal::Passing(passing) if registry == self.name => Failure::Passing(passing),
            Refusal::Passing(passing) => {
                Failure::Passing(Passing { reason: format!("{registry}: {}", passing.reason), ..passing })
            }
            Refusal::NotFound(detail) => Failure::Final(ImageError::NotFound { registry, what, detail }),
            Refusal::Unauthorized => Failure::Final(ImageError::Unauthorized { registry, what }),
            Refusal::Other(reason) => Failure::Final(ImageError::Protocol { registry, reason }),
        })
    }

    /// Whether an address is the registry's own.
    fn is_at(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// Who answered, for messages: the registry, or where it sent us on to.
    fn answering(&self, url: &Url) -> String {
        if self.is_at(url) {
            return self.name.clone();
        }
        // Without a password that stands in it.
        let (host, port) = (url.host_str().unwrap_or_default(), url.port().map(|port| format!(":{port}")));
        format!("{host}{} (to which {} sent us on)", port.unwrap_or_default(), self.name)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        request.send().await.map_err(|error| {
            // The text has the address that was asked last.
            let final_one = error.is_builder() || error.is_redirect();
            if final_one { self.protocol(chain(&error)) } else { Failure::passing(chain(&error)) }
        })
    }

    /// What the registry's challenge asks for. `known`: what it was just not content with.
    async fn authorize(
        &self,
        headers: &HeaderMap,
        known: Option<&HeaderValue>,
        what: &str,
    ) -> Result<HeaderValue, Failure> {
        // One at a time; the others take what the first one got.
        let mut kept = self.authorization.lock().await;
        if let Some(newer) = kept.as_ref().filter(|newer| Some(*newer) != known) {
            return Ok(newer.clone());
        }
        let bearer = headers.get_all(WWW_AUTHENTICATE).iter().find_map(|value| Bearer::parse(value.to_str().ok()?));
        let given = || self.given().filter(|_| known.is_none()).ok_or_else(|| self.unauthorized(what));
        let authorization = match (bearer, &self.login) {
            (Some(bearer), RegistryAuth::Anonymous | RegistryAuth::Basic(..)) => self.token(&bearer, what).await?,
            _ => given()?,
        };
        let mut value = HeaderValue::from_str(&authorization)
            .map_err(|_| self.protocol("its token is no header value".to_owned()))?;
        value.set_sensitive(true);
        *kept = Some(value.clone());
        Ok(value)
    }

    /// What the configuration gives for the registry itself.
    fn given(&self) -> Option<String> {
        match &self.login {
            RegistryAuth::Anonymous => None,
            RegistryAuth::Bearer(token) => Some(format!("Bearer {token}")),
            RegistryAuth::Basic(user, password) => {
                let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
                Some(format!("Basic {encoded}"))
            }
        }
    }

    /// Asks the token service that the challenge names; gives the value of the header.
    async fn token(&self, bearer: &Bearer, what: &str) -> Result<String, Failure> {
        let protocol = |reason: &str| self.protocol(format!("its token service {reason}"));
        let mut url = Url::parse(&bearer.realm).map_err(|_| protocol("has no address"))?;
        if self.base.scheme() == "https" && url.scheme() != "https" {
            return Err(protocol("is not spoken to in https"));
        }
        let scope = format!("repository:{}:pull", self.repository);
        url.query_pairs_mut().append_pair("scope", &scope);
        if let Some(service) = &bearer.service {
            url.query_pairs_mut().append_pair("service", service);
        }
        let mut request = self.http.get(url);
        if let RegistryAuth::Basic(user, password) = &self.login {
            request = request.basic_auth(user, Some(password));
        }
        let response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(match refusal(response).await {
                Refusal::Passing(passing) => {
                    Failure::Passing(Passing { reason: format!("its token service: {}", passing.reason), ..passing })
                }
                _ => self.unauthorized(what),
            });
        }
        let bytes = body(response, "bytes of token", MAX_TOKEN).await?;
        // Errors of the reader may quote the token.
        let token: RegistryToken = serde_json::from_slice(&bytes).map_err(|_| protocol("answered with no token"))?;
        Ok(token.bearer_token())
    }

    fn unauthorized(&self, what: &str) -> Failure {
        Failure::Final(ImageError::Unauthorized { registry: self.name.clone(), what: what.to_owned() })
    }

    fn protocol(&self, reason: String) -> Failure {
        Failure::Final(ImageError::Protocol { registry: self.name.clone(), reason })
    }
}

/// A challenge of the scheme Bearer.
#[derive(Debug, PartialEq, Eq)]
struct Bearer {
    realm: String,
    service: Option<String>,
}

impl Bearer {
    /// Finds it in a `WWW-Authenticate` header; `None` where there is none, or one without a realm.
    fn parse(header: &str) -> Option<Self> {
        let challenge = ChallengeParser::new(header).flatten().find(|it| it.scheme.eq_ignore_ascii_case("bearer"))?;
        let value = |name: &str| {
            let found = challenge.params.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        Some(Self { realm: value("realm")?, service: value("service") })
    }
}

/// Whether a registry address is this machine: 127.0.0.0/8, `[::1]` or `localhost`, with or without a port.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => registry.split(':').next().unwrap_or(registry),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_in_plain_http() {
        for yes in ["localhost", "localhost:5000", "127.0.0.1", "127.8.9.1:5000", "[::1]:5000"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in ["docker.io", "localhost.example.org", "128.0.0.1:5000", "127.0.0.1.example.org", "[::2]:5000", ""] {
            assert!(!is_loopback(no), "{no}");
        }
    }

    #[test]
    fn reads_the_challenges_registries_send() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
        };
        let cases = [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull""#,
                bearer("https://auth.docker.io/token", Some("registry.docker.io")),
            ),
            (r#"bearer REALM = "https://a/x,y" , error="invalid_token""#, bearer("https://a/x,y", None)),
            (r#"Basic realm="x", Bearer realm="https://b",service=s"#, bearer("https://b", Some("s"))),
            (r#"Bearer realm="https://b", Basic realm="x""#, bearer("https://b", None)),
            (r#"Bearer realm="a\"b""#, bearer("a\"b", None)),
            (r#"Basic realm="x""#, None),
            (r#"Bearer service="x""#, None),
            (r#"Bearer realm="x"#, None),
            ("Bearer ", None),
            ("", None),
        ];
        for (header, expected) in cases {
            assert_eq!(Bearer::parse(header), expected, "{header}");
        }
    }
}
