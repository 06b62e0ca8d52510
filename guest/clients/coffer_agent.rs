//! Client of a Coffer guest's agent, for programs inside the guest. One file, standard library alone: take it along as a module.
//!
//! ```no_run
//! # mod coffer_agent { include!("coffer_agent.rs"); }
//! let password = coffer_agent::Agent::default().secret("app/db/password", None).unwrap();
//! ```

use std::{
    fmt,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where the agent listens.
pub const SOCKET: &str = "/run/coffer/agent.sock";

/// What of a sealed file says which it is: its header and first chunk.
const HEAD: usize = 65_668;

/// The agent of this guest.
#[derive(Clone, Debug)]
pub struct Agent(PathBuf);

/// A secret of the key broker.
#[derive(Clone)]
pub struct Secret {
    /// Its value.
    pub value: Vec<u8>,
    /// Which version that is.
    pub version: u64,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Error {
    /// The socket.
    Io(io::Error),
    /// The agent, or the key broker behind it, said no.
    Refused {
        /// HTTP status.
        status: u16,
        /// A word for programs.
        word: String,
        /// The whole answer, JSON.
        text: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the agent's socket: {error}"),
            Self::Refused { text, .. } => f.write_str(text.trim()),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Default for Agent {
    fn default() -> Self {
        Self::at(Path::new(SOCKET))
    }
}

impl Agent {
    /// The agent behind another path.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// A secret, `repository/type/tag`, as it is now or in one version.
    pub fn secret(&self, path: &str, version: Option<u64>) -> Result<Secret, Error> {
        let query = version.map(|version| format!("?version={version}")).unwrap_or_default();
        let (head, value) = self.ask("GET", &format!("/v1/secrets/{}{query}", encoded(path, b"/")), b"")?;
        let version = header(&head, "coffer-secret-version").and_then(|number| number.parse().ok());
        Ok(Secret { value, version: version.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))? })
    }

    /// Seals bytes so that they open where the policy says; `measurement-and-chip` if none is named.
    pub fn seal(&self, data: &[u8], context: &str, policy: Option<&str>) -> Result<Vec<u8>, Error> {
        Ok(self.ask("POST", &format!("/v1/seal?{}", about(context, policy)), data)?.1)
    }

    /// As [`Self::seal`], under a policy with a key of the key broker, which counts: an older file in the place of this one is refused
    /// from now on. `replaces`: the file, sealed so, whose place it takes; none: it is the first of its line.
    pub fn seal_counted(
        &self,
        data: &[u8],
        context: &str,
        policy: &str,
        replaces: Option<&[u8]>,
    ) -> Result<Vec<u8>, Error> {
        let head = replaces.map(|file| &file[..file.len().min(HEAD)]);
        let counted = head.map_or("counted=true".to_owned(), |head| format!("replaces={}", head.len()));
        let body = [head.unwrap_or_default(), data].concat();
        Ok(self.ask("POST", &format!("/v1/seal?{}&{counted}", about(context, Some(policy))), &body)?.1)
    }

    /// Opens what was sealed under the same context.
    pub fn unseal(&self, sealed: &[u8], context: &str) -> Result<Vec<u8>, Error> {
        Ok(self.ask("POST", &format!("/v1/unseal?{}", about(context, None)), sealed)?.1)
    }

    /// Opens a file and seals it anew, under another policy or at the TCB of today.
    pub fn reseal(&self, sealed: &[u8], context: &str, policy: Option<&str>) -> Result<Vec<u8>, Error> {
        Ok(self.ask("POST", &format!("/v1/reseal?{}", about(context, policy)), sealed)?.1)
    }

    /// Evidence of this guest over data of the caller's, as a CMW record.
    pub fn evidence(&self, data: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.ask("POST", "/v1/evidence", data)?.1)
    }

    /// A certificate chain in PEM for the key of a signing request (PKCS #10, DER).
    pub fn certificate(&self, csr: &[u8], profile: &str) -> Result<Vec<u8>, Error> {
        Ok(self.ask("POST", &format!("/v1/certificate?profile={}", encoded(profile, b"")), csr)?.1)
    }

    /// A token for an audience of the workload spec: what this guest is, for whoever holds the P-384 key of a signing request
    /// (PKCS #10, DER). `nonce`: 8 to 64 bytes of the relying party's, in base64url without padding, which stand in the token.
    pub fn token(&self, csr: &[u8], audience: &str, nonce: Option<&str>) -> Result<String, Error> {
        let nonce = nonce.map(|nonce| format!("&nonce={}", encoded(nonce, b""))).unwrap_or_default();
        let token = self.ask("POST", &format!("/v1/token?audience={}{nonce}", encoded(audience, b"")), csr)?.1;
        Ok(String::from_utf8_lossy(&token).into_owned())
    }

    fn ask(&self, method: &str, target: &str, body: &[u8]) -> Result<(String, Vec<u8>), Error> {
        let mut stream = UnixStream::connect(&self.0)?;
        stream.set_read_timeout(Some(Duration::from_mins(1)))?;
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: coffer\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        // A body that is too long is refused before all of it was sent: the answer is there all the same, and then the end is a reset.
        let broke_off =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
        let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        let mut answer = Vec::new();
        let ended = match sent {
            Err(error) if !broke_off(&error) => Err(error),
            sent => stream.read_to_end(&mut answer).and(sent),
        };
        match ended {
            Err(error) if answer.is_empty() || !broke_off(&error) => return Err(error.into()),
            _ => {}
        }
        let end = answer
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let body = answer.split_off(end + 4);
        let head = String::from_utf8_lossy(&answer).into_owned();
        let status = head.split(' ').nth(1).and_then(|number| number.parse().ok()).unwrap_or(0);
        // The agent always says how long its answer is; one that broke off is none.
        if header(&head, "content-length").and_then(|length| length.parse().ok()) != Some(body.len()) {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if status == 200 {
            return Ok((head, body));
        }
        let text = String::from_utf8_lossy(&body).into_owned();
        let word =
            text.split("\"error\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned();
        Err(Error::Refused { status, word, text })
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

fn about(context: &str, policy: Option<&str>) -> String {
    let policy = policy.map(|policy| format!("&policy={}", encoded(policy, b""))).unwrap_or_default();
    format!("context={}{policy}", encoded(context, b""))
}

/// Percent-encoded, but for letters, digits, `-._~` and these.
fn encoded(text: &str, plain: &[u8]) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || plain.contains(&byte) {
            out.push(byte.into());
        } else {
            out.push('%');
            for half in [byte >> 4, byte & 15] {
                out.push(char::from(b"0123456789ABCDEF"[usize::from(half)]));
            }
        }
    }
    out
}
