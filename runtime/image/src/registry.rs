//! One registry over HTTP: where it is, who we are to it, one request at a time.
//!
//! Credentials go to the registry and to the token service it names, which for a registry spoken to in https must be https
//! too; never to where a request is sent on to, and a token service that sends on is followed nowhere: what it is asked with
//! stands in the body too. Nothing leads from https to plain http. Addresses in manifests are never followed.
//!
//! Of oci-client (0.18) this takes references, credentials, tokens, manifests and error documents. Not its `Client`, since
//! what that reads cannot be bounded from outside, and it lets nobody give it an HTTP client: manifests
//! (`_pull_manifest_raw`), tokens (`_auth`) and every refusal, also one in place of a streamed blob
//! (`stream_from_response`), are read to their end before a caller sees a byte. It also panics where a token is no header
//! value (`apply_auth`), and follows a challenge from https to a token service in plain http, with the password. What a
//! registry can do here instead is in `tests/memory`.
//! Source: OCI Distribution Specification 1.1; distribution's "Token Authentication Specification"; RFC 9110 §11.6.1.

mod answer;
mod challenge;

use crate::credentials::{self, Login};
use crate::error::{ImageError, Result};
use crate::pull::options::{Pace, PullOptions};
pub(crate) use answer::{Failure, Passing, Reading, body};
use answer::{Refusal, refusal, without_address};
use base64::Engine as _;
use challenge::Bearer;
use coffer_rim::chain;
use oci_client::Reference;
use oci_client::token_cache::RegistryToken;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use secrecy::ExposeSecret as _;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::timeout;

pub(crate) struct Registry {
    http: Client,
    /// For what is sent: the other one's time for an answer begins before the body is gone.
    sending: Client,
    /// For token services: goes where it is told and not on from there.
    tokens: Client,
    /// `https://host[:port]/v2/repository/`.
    base: Url,
    /// As people write it.
    name: String,
    /// What its tokens are for: `repository:NAME:pull`; nothing where only a login is tried.
    scope: Option<String>,
    login: Login,
    pace: Pace,
    /// What it was content with last.
    authorization: Mutex<Option<HeaderValue>>,
}

/// How often one request is sent on.
const MAX_REDIRECTS: usize = 10;
const LEAVES_HTTPS: &str = "it leads on to what is not spoken to in https";

/// Sent on a few times, and never out of https.
fn following() -> Policy {
    Policy::custom(|attempt| match why_not(attempt.previous(), attempt.url()) {
        Some(reason) => attempt.error(reason),
        None => attempt.follow(),
    })
}

/// Why a request that went to `before` is not sent on to `next`.
fn why_not(before: &[Url], next: &Url) -> Option<&'static str> {
    if next.scheme() != "https" && before.iter().any(|url| url.scheme() == "https") {
        Some(LEAVES_HTTPS)
    } else {
        (before.len() > MAX_REDIRECTS).then_some("it sends on more than 10 times")
    }
}

/// What is done with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Pull,
    Push,
}

/// Longest answer of a token service in bytes.
const MAX_TOKEN: u64 = 64 << 10;

impl Registry {
    /// The repository of a reference; `mirror`: another registry, asked in its place.
    pub(crate) async fn of(
        reference: &Reference,
        mirror: Option<&str>,
        options: &PullOptions,
        act: Act,
    ) -> Result<Self> {
        let (host, name) = mirror.map_or((reference.resolve_registry(), reference.registry()), |host| (host, host));
        let login = credentials::find(options.docker_config.clone(), name).await?;
        let repository = reference.repository();
        let actions = if act == Act::Push { "pull,push" } else { "pull" };
        let mut registry = Self::at(host, name, &format!("{repository}/"), options, login)?;
        registry.scope = Some(format!("repository:{repository}:{actions}"));
        Ok(registry)
    }

    /// A registry as such, with a login to be tried.
    pub(crate) fn at(host: &str, name: &str, below: &str, options: &PullOptions, login: Login) -> Result<Self> {
        let plain = is_loopback(host) || options.insecure_registries.iter().any(|insecure| insecure == host);
        let scheme = if plain { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{host}/v2/{below}"))
            .map_err(|error| ImageError::InvalidReference { reference: name.to_owned(), reason: error.to_string() })?;
        let client = || {
            let client = Client::builder().connect_timeout(Duration::from_secs(10));
            client.user_agent(concat!("coffer/", env!("CARGO_PKG_VERSION"))).redirect(following())
        };
        let failed = |error: reqwest::Error| ImageError::Client { reason: chain(&error) };
        let asking = || client().read_timeout(Duration::from_secs(30));
        let http = asking().build().map_err(failed)?;
        let tokens = asking().redirect(Policy::none()).build().map_err(failed)?;
        let sending = client().build().map_err(failed)?;
        let (name, pace, authorization) = (name.to_owned(), options.pace, Mutex::default());
        Ok(Self { http, sending, tokens, base, name, scope: None, login, pace, authorization })
    }

    /// As people write it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How slow it may be.
    pub(crate) fn pace(&self) -> Pace {
        self.pace
    }

    /// Asks for `path` below the repository; gives answers that are a success. `what`: for messages.
    pub(crate) async fn get(
        &self,
        path: &str,
        accept: &str,
        range: Option<u64>,
        what: &str,
    ) -> Result<Response, Failure> {
        let url = self.address(path)?;
        self.ask(Method::GET, &url, what, |request| {
            let request = request.header(ACCEPT, accept);
            match range {
                Some(from) => request.header("range", format!("bytes={from}-")),
                None => request,
            }
        })
        .await
    }

    /// The address of `path` below the repository; an absolute one, which the registry gave, is taken as it is, but not one
    /// that leads from https to plain http.
    pub(crate) fn address(&self, path: &str) -> Result<Url, Failure> {
        let url = self.base.join(path).map_err(|error| self.protocol(error.to_string()))?;
        if self.base.scheme() == "https" && url.scheme() != "https" {
            return Err(self.protocol(LEAVES_HTTPS.to_owned()));
        }
        Ok(url)
    }

    /// One request, once more with what the registry asks for where it asks; gives answers that are a success.
    /// `dress`: adds headers and a body.
    pub(crate) async fn ask(
        &self,
        method: Method,
        url: &Url,
        what: &str,
        dress: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Failure> {
        let ask = |authorization: Option<HeaderValue>| {
            let sends = method == Method::PUT;
            let client = if sends { &self.sending } else { &self.http };
            let mut request = dress(client.request(method.clone(), url.clone()));
            if let Some(authorization) = authorization.filter(|_| self.is_at(url)) {
                request = request.header(AUTHORIZATION, authorization);
            }
            // What is sent takes its time; whoever sends it looks whether it moves.
            self.send(request, if sends { Duration::MAX } else { self.pace.within })
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
        Err(match refusal(response, self.pace).await {
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

    /// An answer that begins in time.
    async fn send(&self, request: RequestBuilder, within: Duration) -> Result<Response, Failure> {
        let slow = |_| Failure::passing(format!("no answer began within {} s", within.as_secs_f32()));
        timeout(within, request.send()).await.map_err(slow)?.map_err(|error| {
            let final_one = error.is_builder() || error.is_redirect();
            let elsewhere = error.url().filter(|url| !self.is_at(url)).map(|url| self.answering(url));
            let reason = without_address(error);
            let reason = elsewhere.map_or(reason.clone(), |host| format!("{host}: {reason}"));
            if final_one { self.protocol(reason) } else { Failure::passing(reason) }
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
            (Some(bearer), Login::Anonymous | Login::Basic(..) | Login::Identity(_)) => {
                self.token(&bearer, what).await?
            }
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
            // An identity is for a token service alone.
            Login::Anonymous | Login::Identity(_) => None,
            Login::Bearer(token) => Some(format!("Bearer {}", token.expose_secret())),
            Login::Basic(user, password) => {
                let encoded =
                    base64::engine::general_purpose::STANDARD.encode(format!("{user}:{}", password.expose_secret()));
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
        let asked = [("scope", self.scope.as_deref()), ("service", bearer.service.as_deref())];
        let asked = asked.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let request = if let Login::Identity(token) = &self.login {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.extend_pairs(asked);
            form.extend_pairs([
                ("grant_type", "refresh_token"),
                ("client_id", "coffer"),
                ("refresh_token", token.expose_secret()),
            ]);
            self.tokens.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.finish())
        } else {
            url.query_pairs_mut().extend_pairs(asked);
            let request = self.tokens.get(url);
            match &self.login {
                Login::Basic(user, password) => request.basic_auth(user, Some(password.expose_secret())),
                _ => request,
            }
        };
        let response = self.send(request, self.pace.within).await?;
        if response.status().is_redirection() {
            return Err(protocol("sends us on, where nothing of ours is shown to anybody"));
        }
        if !response.status().is_success() {
            return Err(match refusal(response, self.pace).await {
                Refusal::Passing(passing) => {
                    Failure::Passing(Passing { reason: format!("its token service: {}", passing.reason), ..passing })
                }
                _ => self.unauthorized(what),
            });
        }
        let bytes = body(response, self.pace, "bytes of token", MAX_TOKEN).await?;
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
    fn nothing_is_sent_on_out_of_https() {
        let url = |text: &str| Url::parse(text).unwrap();
        let (secure, plain) = (url("https://r.example/v2/"), url("http://r.example/v2/"));
        assert_eq!(why_not(std::slice::from_ref(&secure), &plain), Some(LEAVES_HTTPS));
        assert_eq!(why_not(&[plain.clone(), secure.clone()], &plain), Some(LEAVES_HTTPS));
        assert_eq!(why_not(std::slice::from_ref(&plain), &plain), None, "it began so");
        assert_eq!(why_not(&[plain, secure.clone()], &secure), None);
        assert_eq!(why_not(&vec![secure.clone(); MAX_REDIRECTS], &secure), None);
        assert!(why_not(&vec![secure.clone(); MAX_REDIRECTS + 1], &secure).is_some());
    }

    #[tokio::test]
    async fn a_failure_names_the_host_and_not_what_stands_in_its_address() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dead = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let (own, other) = (dead(), dead());
        let registry = Registry::at(&own, &own, "", &PullOptions::default(), Login::Anonymous).unwrap();
        for (host, named) in [(&own, false), (&other, true)] {
            let url = registry.address(&format!("http://{host}/upload?signature=secret")).unwrap();
            for method in [Method::PUT, Method::GET] {
                let asked = registry.ask(method, &url, "it", |request| request).await;
                let Err(Failure::Passing(Passing { reason, .. })) = asked else { panic!("nobody is there") };
                assert!(reason.contains(&other) == named && !reason.contains("upload"), "{reason}");
                assert!(reason.contains("onnection refused") && !reason.contains("secret"), "{reason}");
            }
        }
    }
}
