//! A web server behind the ingress, and clients that want to know what they talk to.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::story::plain;
use crate::{
    World,
    process::{cache, run},
    services::free_port,
};

const PAGE: &str = "what only the named guest serves";
const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
const NGINX: &str = "daemon off; master_process off; pid /tmp/pid; error_log stderr; events {} http { \
    access_log off; client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c; uwsgi_temp_path /tmp/d; \
    scgi_temp_path /tmp/e; server { listen 127.0.0.1:8080; root /www; } }\n";

/// A web server for the image.
pub struct Server {
    /// What it is.
    pub name: &'static str,
    /// What it needs beside busybox.
    pub files: Vec<(String, Vec<u8>)>,
    command: &'static str,
}

impl Server {
    /// Debian's nginx where `make setup` had it, or else busybox's own.
    ///
    /// # Errors
    /// If nginx, or a library of its, cannot be read.
    pub fn found() -> Result<Self> {
        let nginx = cache()?.join("tools/nginx/usr/sbin/nginx");
        let page = ("www/index.html".to_owned(), PAGE.as_bytes().to_vec());
        if !nginx.exists() {
            let command = "exec busybox httpd -f -p 127.0.0.1:8080 -h /www";
            return Ok(Self { name: "busybox's web server", files: vec![page], command });
        }
        let mut files = vec![page, ("etc/nginx.conf".to_owned(), NGINX.as_bytes().to_vec())];
        files.push(("bin/nginx".into(), fs::read(&nginx)?));
        for library in libraries(&nginx)? {
            let name = library.file_name().and_then(|name| name.to_str()).context("a library has a name")?;
            let folder = if name.starts_with("ld-linux") { "lib64" } else { "lib" };
            files.push((format!("{folder}/{name}"), fs::read(&library)?));
        }
        Ok(Self { name: "nginx", files, command: "exec nginx -e stderr -c /etc/nginx.conf" })
    }
}

/// What the loader would load.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let said = run(Command::new("ldd").arg(program), b"")?.ok()?;
    Ok(said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// A box that serves the page.
pub struct Site {
    address: String,
    reference: PathBuf,
}

/// Starts it: its clients have the file that says which guest it must be.
///
/// # Errors
/// What a command said.
pub fn serve(world: &World, image: &str, server: &Server) -> Result<(Site, String)> {
    let address = format!("127.0.0.1:{}", free_port()?);
    let publish = format!("{address}:8080/ra-tls");
    let words = ["--tee-simulate", "-p", &publish, image, "sh", "-c", server.command];
    let reference = world.folder.path().join("web.json");
    fs::write(&reference, world.coffer(&[&["--json", "measure"], &words[..]].concat())?.ok()?)?;
    world.coffer(&[&["run", "-d", "--name", "web"], &words[..]].concat())?.ok()?;
    Ok((Site { address, reference }, server.name.into()))
}

impl Site {
    fn ask(&self, reference: &Path) -> Result<Vec<String>> {
        let words = ["connect", "--reference", plain(reference)?, "--allow-simulated", "--guest-port", "8080"];
        Ok(words.iter().copied().chain([self.address.as_str()]).map(str::to_owned).collect())
    }

    /// What a client gets that names this guest.
    ///
    /// # Errors
    /// If it is not the page.
    pub fn read(&self, world: &World) -> Result<String> {
        let words = self.ask(&self.reference)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        // The server may take a moment before it listens.
        let mut last = None;
        crate::process::wait_for(std::time::Duration::from_secs(30), || {
            let answer = world.coffer_with(&words, REQUEST);
            let there = answer.as_ref().is_ok_and(|answer| answer.status == 0);
            last = Some(answer);
            there
        })
        .or_else(|late| last.take().map_or(Err(late), |answer| answer?.ok().map(drop)))?;
        let answer = last.context("it was asked")??;
        ensure!(answer.stdout.contains(PAGE), "{}", answer.describe());
        let server = answer.stdout.lines().find(|line| line.starts_with("Server: ")).unwrap_or("it answered");
        Ok(server.trim().to_owned())
    }

    /// What a client gets whom the host leads here, and who had named the guest of these flags.
    ///
    /// # Errors
    /// If it is anything but a refusal.
    pub fn another(&self, world: &World, flags: &[&str]) -> Result<String> {
        let reference = world.folder.path().join("demo.json");
        fs::write(&reference, world.coffer(&[&["--json", "measure"], flags].concat())?.ok()?)?;
        let words = self.ask(&reference)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let answer = world.coffer_with(&words, REQUEST)?;
        let refused = answer.status == 6 && answer.stdout.is_empty() && answer.stderr.contains("is not admitted");
        ensure!(refused, "{}", answer.describe());
        Ok("the guest is not admitted".into())
    }
}
