//! Flags about what a guest must prove to its owner.

use std::path::PathBuf;
use std::time::SystemTime;

use coffer_runtime::engine::{self, Guest, read_spec};
use coffer_verifier::MaxAge;

use crate::error::{Class, CliError};
use crate::evidence::judging;
use crate::prove::reference::References;

/// What a guest must prove.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Trust {
    /// Also believe the simulator of this installation, or those of --anchor. It proves nothing to others.
    #[arg(long)]
    pub allow_simulated: bool,
    /// With --allow-simulated: this simulator root, not this installation's. SHA-256 of its public key in hexadecimal, or its
    /// certificate, DER or PEM.
    #[arg(long, value_name = "HEX|FILE", requires = "allow_simulated")]
    pub anchor: Vec<String>,
    /// Platform the guest must have booted from [default: this installation's].
    #[arg(long, value_name = "DIR", conflicts_with = "reference")]
    pub platform: Option<PathBuf>,
    /// Workload spec the guest must run [default: the one the box was created with].
    #[arg(long = "expect-spec", value_name = "FILE", conflicts_with = "reference")]
    pub expect_spec: Option<PathBuf>,
    #[command(flatten)]
    pub references: References,
    /// Policy on top of measurement and workload, TOML and no Rego; the word `strict` is the built-in policy of that name [default: the
    /// built-in floor].
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

impl Trust {
    /// Whether anything was said of it.
    pub fn is_given(&self) -> bool {
        let Self { allow_simulated, anchor, platform, expect_spec, references, policy } = self;
        let files = [platform, expect_spec, policy].into_iter().any(Option::is_some);
        *allow_simulated || !anchor.is_empty() || files || !references.reference.is_empty()
    }

    /// Refuses several addresses where several guests may be at each: whoever is on the way would choose which is where.
    ///
    /// # Errors
    /// Class `usage`.
    pub fn tells_apart<'a>(trust: &engine::Trust, boxes: impl IntoIterator<Item = &'a str>) -> Result<(), CliError> {
        let several = boxes.into_iter().filter(|word| Guest::is_elsewhere(word)).count() > 1;
        let mut workloads = trust.references.iter().map(|pair| pair.host_data);
        let first = workloads.next();
        if !several || workloads.all(|other| Some(other) == first) {
            return Ok(());
        }
        let message = "nothing says which of the guests that --reference names is at which of the addresses";
        Err(CliError::new(Class::Usage, message).hint("ask each by itself, with its own --reference"))
    }

    /// Reads the files that are named.
    ///
    /// # Errors
    /// Class `config`, naming the file.
    pub fn read(&self) -> Result<engine::Trust, CliError> {
        let policy = self.policy.as_deref().map(|path| judging::floor_alone(Some(path))).transpose()?;
        let most = policy.as_ref().map_or(MaxAge::Any, |policy| policy.max_manifest_age);
        Ok(engine::Trust {
            allow_simulated: self.allow_simulated,
            simulators: if self.anchor.is_empty() { None } else { Some(judging::listed_anchors(&self.anchor)?) },
            platform: self.platform.clone(),
            expect_spec: self.expect_spec.as_deref().map(read_spec).transpose()?,
            references: self.references.read(most, SystemTime::now().into())?,
            policy,
        })
    }
}
