//! The `coffer-kbs` that is measured.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use coffer_kbs_client::{AdminClient, AdminProfile, Expected, PutSecret, Reference};
use coffer_verifier::Expiry;
use coffer_verifier::abi::SpkiDigest;
use secrecy::SecretBox;

use super::super::apart::{Served, resident};
use super::super::figures::broken;
use super::super::guest::{Platform, TENANT};
use crate::error::{Class, Classify as _, CliError};

pub struct Broker {
    served: Served,
    state: PathBuf,
    metrics: SocketAddr,
    pub listen: SocketAddr,
    pub pin: SpkiDigest,
}

impl Broker {
    pub fn start(program: &Path, folder: &Path, platform: &Platform) -> Result<Self, CliError> {
        let init = ["init", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let (served, state, _) = Served::start(program, folder, &init, |path| configure(path, &platform.anchor))?;
        let (listen, metrics, pin) = (served.said("listen")?, served.said("metrics_listen")?, served.said("pin")?);
        Ok(Self { served, state, metrics, listen, pin })
    }

    /// The first operator's profile.
    pub fn profile(&self) -> Result<AdminProfile, CliError> {
        AdminProfile::read(&self.state.join("admin.toml")).class(Class::Config)
    }

    async fn admin(&self) -> Result<AdminClient, CliError> {
        AdminClient::connect(&self.profile()?).await.class(Class::Unreachable)
    }

    /// A secret, and a reference that admits the guests.
    pub async fn furnish(&self, platform: &Platform) -> Result<(), CliError> {
        let admin = self.admin().await?;
        let value = SecretBox::new(Box::new(b"correct horse battery staple".to_vec()));
        let put = PutSecret {
            tenant: TENANT,
            path: &platform.path,
            value: &value,
            allow_simulated: Some(true),
            expected: Expected::Any,
            policy: "",
            rules: None,
            labels: None,
            expires: None,
        };
        admin.put_secret(put).await.class(Class::Refused)?;
        let reference = Reference {
            tenant: TENANT.into(),
            measurement: platform.measurement,
            workload: platform.document.digest(),
            name: "bench".into(),
            expires: Expiry::Never,
        };
        admin.add_reference(&reference).await.class(Class::Refused)?;
        Ok(())
    }

    /// The last line of its trail.
    pub async fn last_line(&self) -> Result<String, CliError> {
        let lines = self.admin().await?.audit(0, 0).await.class(Class::Refused)?;
        lines.into_iter().next_back().ok_or_else(|| broken("the broker's trail"))
    }

    /// RSA and ECDSA verifications of evidence since its start.
    pub fn evidence_cost(&self) -> Result<(u64, u64), CliError> {
        let ask = || {
            let mut stream = TcpStream::connect(self.metrics)?;
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            std::io::Result::Ok(text)
        };
        let text = ask().class_while(Class::Unreachable, "asking the broker for its figures")?;
        let figure = |kind: &str| {
            let name = format!("coffer_kbs_evidence_{kind}_verifications_total ");
            let line = text.lines().find_map(|line| line.strip_prefix(&name));
            line.and_then(|number| number.parse().ok()).ok_or_else(|| broken("the broker's figures"))
        };
        Ok((figure("rsa")?, figure("ecdsa")?))
    }

    /// Resident memory, in bytes.
    pub fn memory(&self) -> Result<u64, CliError> {
        resident(self.served.id())
    }
}

/// What `init` wrote, with the simulated root and without limits on the load.
fn configure(path: &Path, anchor: &SpkiDigest) -> Result<(), CliError> {
    let text = fs::read_to_string(path).class_while(Class::Config, "reading the broker's configuration")?;
    let mut config: toml::Table = text.parse().map_err(|_| broken("the broker's configuration"))?;
    let listed = toml::Value::from(vec![anchor.to_string()]);
    let tenant = toml::Table::from_iter([("simulated_anchors".to_owned(), listed)]);
    let tenants = toml::Table::from_iter([(TENANT.to_owned(), toml::Value::Table(tenant))]);
    config.insert("tenants".into(), tenants.into());
    config.insert("metrics_listen".into(), "127.0.0.1:0".into());
    let limits = toml::toml! {
        connections = 1024
        connections_per_source = 1024
        new_per_second_per_source = 100000
        requests_per_second_per_guest = 100000
    };
    config.insert("limits".into(), limits.into());
    fs::write(path, config.to_string()).class_while(Class::Config, "writing the broker's configuration")
}
