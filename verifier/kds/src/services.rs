//! Services as a program's configuration names them: AMD's or a mirror of it, and one of simulators that the program believes.
//!
//! Never: asks AMD for a simulator's, or a simulator's service for AMD's.

use std::path::Path;
use std::time::Duration;

use coffer_verifier::TrustAnchors;
use coffer_verifier::abi::SpkiDigest;
use serde::{Deserialize, Serialize};

use crate::address::Base;
use crate::client::{Kds, OpenError};
use crate::options::Options;

/// `[kds]`, as typed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KdsEntry {
    /// AMD's own, or a mirror of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// A service of the simulators whose roots are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simulated_service: Option<String>,
    /// Nobody is asked: what lies in the folder is all there is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub offline: bool,
}

/// Whom to ask; nobody where none is named.
#[derive(Clone, Debug, Default)]
pub struct Services {
    amd: Option<Base>,
    simulated: Option<(Base, TrustAnchors)>,
    /// None of them is asked.
    offline: bool,
}

/// A client of each.
#[derive(Clone, Default)]
pub struct Clients {
    /// Of AMD's.
    pub amd: Option<Kds>,
    /// Of the simulators'.
    pub simulated: Option<Kds>,
}

impl KdsEntry {
    /// As meant. `simulators`: the roots that are listed, each by a `lister`.
    pub fn read(
        &self,
        simulators: impl IntoIterator<Item = SpkiDigest>,
        lister: &str,
        mistakes: &mut Vec<String>,
    ) -> Services {
        let anchors = simulators.into_iter().fold(TrustAnchors::amd(), TrustAnchors::with_simulated);
        let mut base = |key, text: &Option<String>| {
            let parsed = text.as_deref()?.parse::<Base>();
            parsed.map_err(|error| mistakes.push(format!("kds.{key}: {error}"))).ok()
        };
        let (amd, simulated) = (base("service", &self.service), base("simulated_service", &self.simulated_service));
        let none = self.service.is_none() && self.simulated_service.is_none();
        if self.offline {
            if !none {
                mistakes.push("kds.offline stands beside a service: leave one of them out".to_owned());
            }
            let simulated = anchors.accepts_simulated().then(|| (Base::amd(), anchors));
            return Services { amd: Some(Base::amd()), simulated, offline: true };
        }
        if none {
            mistakes.push(format!(
                "kds names no service: service = \"{}\" is AMD's, and offline = true asks nobody",
                Base::amd()
            ));
        }
        if self.simulated_service.is_some() && !anchors.accepts_simulated() {
            mistakes.push(format!("kds.simulated_service: no {lister} lists a simulated root"));
        }
        Services { amd, simulated: simulated.map(|base| (base, anchors)), offline: false }
    }
}

impl Services {
    /// Their clients, which keep what they get in `folder`, and let nobody wait longer than `patience`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(self, folder: &Path, patience: Duration) -> Result<Clients, OpenError> {
        let open = |mut options: Options| {
            options.patience = patience;
            let options = options.kept_in(folder);
            Kds::open(if self.offline { options.offline() } else { options })
        };
        let amd = self.amd.map(|base| open(Options::mirror(base))).transpose()?;
        let simulated = self.simulated.map(|(base, anchors)| open(Options::simulated(base, anchors))).transpose()?;
        Ok(Clients { amd, simulated })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_offline_names_nobody_and_has_a_client_that_asks_nobody() {
        let read = |text: &str, roots: &[SpkiDigest]| {
            let mut mistakes = Vec::new();
            let entry: KdsEntry = serde_json::from_str(text).unwrap();
            (entry.read(roots.iter().copied(), "policy", &mut mistakes), mistakes)
        };
        let folder = tempfile::tempdir().unwrap();
        let (services, mistakes) = read(r#"{"offline":true}"#, &[]);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let clients = services.open(folder.path(), Duration::from_secs(1)).unwrap();
        assert!(clients.simulated.is_none());
        assert!(clients.amd.unwrap().under_way().service.is_none());
        let (services, _) = read(r#"{"offline":true}"#, &[SpkiDigest::new([1; 32])]);
        assert!(services.open(folder.path(), Duration::from_secs(1)).unwrap().simulated.is_some());
        for text in ["{}", r#"{"offline":false}"#, r#"{"offline":true,"service":"https://kdsintf.amd.com"}"#] {
            assert_eq!(read(text, &[]).1.len(), 1, "{text}");
        }
    }
}
