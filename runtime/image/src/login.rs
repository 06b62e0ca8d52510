//! Whether a registry takes a login.

use crate::credentials::Login;
use crate::error::Result;
use crate::pull::options::PullOptions;
use crate::pull::retry::Retry;
use crate::registry::{Failure, Registry};
use crate::store::parse_reference;
use reqwest::Method;

/// The name of a registry as references have it; Docker's own by default and by its older names. `None` for what is no HOST or
/// HOST:PORT.
pub fn registry_name(text: &str) -> Option<String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let host = host.split('/').next().unwrap_or(host);
    if ["", "docker.io", "index.docker.io", "registry-1.docker.io"].contains(&host) {
        return Some("docker.io".to_owned());
    }
    // What is no host with a dot or port would be taken for part of a repository's name.
    let reference = parse_reference(&format!("{host}/x")).ok()?;
    (reference.registry() == host).then(|| host.to_owned())
}

/// Asks a registry whether it takes a login. One that asks nobody takes every one.
///
/// # Errors
/// Class `unauthorized`; those of a registry that cannot be asked.
pub async fn try_login(registry: &str, login: Login, options: &PullOptions) -> Result<()> {
    let host = parse_reference(&format!("{registry}/x"))?.resolve_registry().to_owned();
    let (asked, retry) = (Registry::at(&host, registry, "", options, login)?, Retry::new(options));
    let mut attempt = 0;
    loop {
        let once = async {
            let url = asked.address("")?;
            asked.ask(Method::GET, &url, "it", |request| request).await
        };
        match once.await {
            Ok(_) => return Ok(()),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Passing(passing)) => retry.pause(&asked, registry, &mut attempt, passing).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::registry_name;

    #[test]
    fn a_registry_is_a_host() {
        for text in ["", "docker.io", "https://index.docker.io/v1/", "registry-1.docker.io"] {
            assert_eq!(registry_name(text).as_deref(), Some("docker.io"), "{text:?}");
        }
        assert_eq!(registry_name("https://r.example:5000/v2/").as_deref(), Some("r.example:5000"));
        assert_eq!(registry_name("localhost").as_deref(), Some("localhost"));
        for text in ["team", "a b.example", "r.example:x", "UPPER_.example"] {
            assert!(registry_name(text).is_none(), "{text:?}");
        }
    }
}
