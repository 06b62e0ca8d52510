//! The server's identity, and whose client certificates are believed. TLS 1.3 alone, on aws-lc-rs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use coffer_rim::input;
use coffer_verifier::UnixTime;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::secret_file;

/// `[tls]`, as typed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsEntry {
    /// Certificate and what is above it, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM, mode 0600.
    pub key: PathBuf,
    /// Roots, PEM: whoever has a client certificate under one of them may ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_roots: Option<PathBuf>,
}

/// What TLS is served with.
#[derive(Clone)]
pub struct Tls {
    /// For handshakes.
    pub config: Arc<ServerConfig>,
    /// Whose client certificates are believed; nobody's without.
    pub client_roots: Option<ClientRoots>,
    /// Last second of the certificates, of the first that ends; none where they do not say.
    pub until: Option<UnixTime>,
}

/// SHA-256 of the roots of client certificates: what was checked under these counts while these are the ones, and no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientRoots([u8; 32]);

impl TlsEntry {
    /// As meant. TLS asks for a client certificate where roots are listed and goes on without: who may ask what is decided behind it.
    pub fn read(&self, folder: &Path, mistakes: &mut Vec<String>) -> Option<Tls> {
        let mut keep = |field: &str, file: &Path, why: String| {
            mistakes.push(format!("tls.{field} ({}): {why}", file.display()));
        };
        let chain = certificates(&folder.join(&self.certificate));
        let chain = chain.map_err(|why| keep("certificate", &self.certificate, why));
        let key = secret_file::read(&folder.join(&self.key)).and_then(|bytes| {
            PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| "has no private key in PEM".to_owned())
        });
        let key = key.map_err(|why| keep("key", &self.key, why));
        let roots = self
            .client_roots
            .as_ref()
            .map(|file| roots(&folder.join(file)).map_err(|why| keep("client_roots", file, why)));
        let (chain, key, roots) = (chain.ok()?, key.ok()?, roots.transpose().ok()?);
        let (roots, client_roots) = roots.unzip();
        let until = chain.iter().filter_map(|one| ends(one)).min();
        let config = config(chain, key, roots).map_err(|error| keep("key", &self.key, error)).ok()?;
        Some(Tls { config, client_roots, until })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = input::read(path, input::DOCUMENT).map_err(|error| error.to_string())?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err("has no certificates in PEM".to_owned()),
    }
}

fn ends(certificate: &[u8]) -> Option<UnixTime> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(UnixTime::from_secs(parsed.validity().not_after.timestamp()))
}

fn roots(path: &Path) -> Result<(RootCertStore, ClientRoots), String> {
    let (mut store, mut digest) = (RootCertStore::empty(), Sha256::new());
    for certificate in certificates(path)? {
        // DER says where each ends.
        digest.update(&certificate);
        store.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok((store, ClientRoots(digest.finalize().into())))
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Option<RootCertStore>,
) -> Result<Arc<ServerConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?;
    let builder = match roots {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let clients = clients.allow_unauthenticated().build().map_err(|error| error.to_string())?;
            builder.with_client_cert_verifier(clients)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => "it is not the key of the certificate in tls.certificate".to_owned(),
        other => other.to_string(),
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A session taken up again brings the client's certificate of then, whose dates and roots nobody would look at any more.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}
