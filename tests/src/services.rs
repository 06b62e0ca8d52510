//! Services the stories talk to, on free loopback ports.

use std::{
    fs,
    hash::{BuildHasher as _, RandomState},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{Service, binary, run, wait_for};

/// Debian's docker-registry over plain HTTP on loopback.
#[derive(Debug)]
pub struct Registry {
    /// `127.0.0.1:PORT`.
    pub address: String,
    /// Where its blobs lie.
    pub storage: PathBuf,
    _service: Service,
}

impl Registry {
    /// Starts one with its storage in `folder`.
    ///
    /// # Errors
    /// If it does not answer within ten seconds.
    pub fn start(folder: &Path) -> Result<Self> {
        Self::configured(folder, "")
    }

    /// As [`Self::start`], with more lines of its configuration.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn configured(folder: &Path, more: &str) -> Result<Self> {
        let storage = folder.join("registry");
        fs::create_dir_all(&storage)?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let config = folder.join("registry.yml");
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: '{address}'}}\n{more}",
                storage.display()
            ),
        )?;
        let service = Service::start("docker-registry", |command| {
            command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        })?;
        wait_for(Duration::from_secs(10), || TcpStream::connect(&address).is_ok()).context("docker-registry")?;
        Ok(Self { address, storage, _service: service })
    }

    /// Pushes an OCI layout with skopeo and gives the reference.
    ///
    /// # Errors
    /// What skopeo said.
    pub fn push(&self, layout: &Path, tag: &str, name: &str) -> Result<String> {
        let reference = format!("{}/{name}", self.address);
        run(
            Command::new("skopeo")
                .args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"])
                .arg(format!("oci:{}:{tag}", layout.display()))
                .arg(format!("docker://{reference}")),
            b"",
        )?
        .ok()?;
        Ok(reference)
    }
}

/// A `coffer-kbs` of its own.
#[derive(Debug)]
pub struct Kbs {
    /// `127.0.0.1:PORT` for guests.
    pub address: String,
    /// SHA-256 of its SubjectPublicKeyInfo, hex.
    pub pin: String,
    /// Admin profile for `coffer kbs --profile`.
    pub profile: PathBuf,
    /// State folder.
    pub state: PathBuf,
    /// Standard output and error of the server.
    pub log: PathBuf,
    service: Service,
}

impl Kbs {
    /// Initialises and starts one; `extra` are further arguments of `serve`.
    ///
    /// # Errors
    /// What it printed, if it is not ready within ten seconds.
    pub fn start(folder: &Path, extra: &[&str]) -> Result<Self> {
        let state = folder.join("kbs");
        let (port, admin) = (free_port()?, free_port()?);
        let (listen, admin_listen) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{admin}"));
        let kbs = binary("coffer-kbs")?;
        run(
            Command::new(&kbs)
                .args(["init", "--listen", &listen, "--admin-listen", &admin_listen, "--state"])
                .arg(&state),
            b"",
        )?
        .ok()?;
        // A flag names a tenant, and makes none.
        if let Some(at) = extra.iter().position(|word| *word == "--tenant")
            && let Some(tenant) = extra.get(at + 1).filter(|tenant| **tenant != "default")
        {
            let config = state.join("config.toml");
            let written = fs::read_to_string(&config)?;
            fs::write(&config, format!("{written}\n[tenants.{tenant}]\n"))?;
        }
        let pin = run(Command::new(&kbs).args(["pin", "--state"]).arg(&state), b"")?.ok()?.trim().to_owned();
        let (ready, log) = (folder.join("kbs.ready"), folder.join("kbs.log"));
        let _ = fs::remove_file(&ready);
        let output = fs::File::create(&log)?;
        let errors = output.try_clone()?;
        let mut service = Service::start(&kbs, |command| {
            command.args(["serve", "--listen", &listen, "--admin-listen", &admin_listen, "--state"]).arg(&state);
            command.arg("--ready-file").arg(&ready).args(extra).stdout(output).stderr(errors);
        })?;
        wait_for(Duration::from_secs(10), || ready.exists() || service.ended().is_some())?;
        ensure!(ready.exists(), "coffer-kbs did not start: {}", fs::read_to_string(&log)?);
        let profile = find_profile(&state)?;
        Ok(Self { address: listen, pin, profile, state, log, service })
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Stops it, as an operator would.
    pub fn stop(&mut self) {
        self.service.stop();
    }
}

fn find_profile(state: &Path) -> Result<PathBuf> {
    let direct = state.join("admin.toml");
    ensure!(direct.exists(), "coffer-kbs init wrote no {}", direct.display());
    Ok(direct)
}

/// A loopback port nobody listens on just now.
///
/// # Errors
/// If none is free.
pub fn free_port() -> Result<u16> {
    // Beneath those that the kernel gives to whoever connects: a connection of anybody's could have one before it is listened at.
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    for _ in 0..100 {
        let chance = RandomState::new().hash_one(0) % u64::from(COUNT);
        let port = FIRST + u16::try_from(chance)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free between {FIRST} and {}", FIRST + COUNT)
}
