//! Secrets from the key broker, and where they are put.

mod refresh;

use std::{io, path::Path, sync::Arc, time::Duration};

use coffer_kbs_client::ClientError;
use coffer_ratls::{Attester, Identity};
use coffer_rim::file::Writer;
use coffer_spec::{FileMode, KbsPin, Name, SecretTarget, SecretWanted, WorkloadSpec};
use secrecy::ExposeSecret;

pub use refresh::{Refresher, Round, pause};

use crate::{
    broker::{self, questions::again},
    failure::{Code, Failure, OrFail},
    host::Host,
    passwd::Identity as User,
    secret_env::SecretEnv,
};

/// All attempts and all secrets together.
const TOTAL: Duration = Duration::from_secs(30);
/// Longest secret taken, in bytes.
const LIMIT: usize = 4 * 1024 * 1024;

/// What of the broker's a guest starts its workload with.
#[derive(Default)]
pub struct InPlace {
    /// Those that go into the environment.
    pub environment: SecretEnv,
    /// The version of each, in the order of the spec.
    pub versions: Vec<u64>,
}

/// Gets every secret of the spec and puts it in its place. `attested` is called when the broker has admitted this guest.
///
/// # Errors
/// `kbs-unreachable`, `kbs-pin-mismatch`, `not-released`; all name the broker's address. `secret-unusable` for a value that
/// cannot go where the spec wants it.
pub async fn fetch_all(
    host: Host,
    spec: &WorkloadSpec,
    identity: &Identity,
    attester: Arc<dyn Attester>,
    folder: &Path,
    user: &User,
    attested: impl FnOnce(),
) -> Result<InPlace, Failure> {
    let Some(kbs) = &spec.kbs else { return Ok(InPlace::default()) };
    let fetch = async {
        let client = broker::connect(host, spec, kbs, identity, attester).await;
        let client = client.map_err(|error| failure(kbs, "connect", &error))?;
        attested();
        let mut found = InPlace::default();
        for wanted in &spec.secrets {
            let path = &wanted.from;
            let secret = again(|| client.secret(path)).await.map_err(|error| failure(kbs, path.as_str(), &error))?;
            let value = secret.value.expose_secret();
            if value.len() > LIMIT {
                return Err(Failure::new(Code::SecretUnusable, format!("{path} is longer than {LIMIT} bytes")));
            }
            match &wanted.to {
                SecretTarget::File(name) => write(folder, name, value, &FileAs::wanted(wanted, user))
                    .or_fail(Code::Internal, "write a secret")?,
                SecretTarget::Env(name) => found
                    .environment
                    .set(name, value)
                    .map_err(|error| Failure::new(Code::SecretUnusable, format!("{path} {error}")))?,
            }
            found.versions.push(secret.version);
        }
        Ok(found)
    };
    tokio::time::timeout(TOTAL, fetch).await.unwrap_or_else(|_| {
        let detail = format!("key broker {} did not answer within {} s", kbs.address, TOTAL.as_secs());
        Err(Failure::new(Code::KbsUnreachable, detail))
    })
}

/// Why a broker gave `what` not, for the host and the owner.
pub(crate) fn failure(kbs: &KbsPin, what: &str, error: &ClientError) -> Failure {
    let code = match error {
        ClientError::PinMismatch { .. } => Code::KbsPinMismatch,
        ClientError::Refused { .. } => Code::NotReleased,
        // With the number of its failure it is there all the same.
        ClientError::Unreachable { .. }
        | ClientError::Slow { .. }
        | ClientError::Undecided { .. }
        | ClientError::TooOften
        | ClientError::Protocol { .. }
        | ClientError::OtherListener { .. } => Code::KbsUnreachable,
        _ => Code::Internal,
    };
    Failure {
        denial_id: denial_id(error),
        ..Failure::new(code, format!("key broker {}, {what}: {error}", kbs.address))
    }
}

/// The broker's number for its refusal, or for its failure; 0 where there is none.
fn denial_id(error: &ClientError) -> u64 {
    match error {
        ClientError::Refused { id, .. } | ClientError::Undecided { id, .. } => u64::from_str_radix(id, 16).unwrap_or(0),
        _ => 0,
    }
}

/// Whose file a value becomes, and who may read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileAs {
    mode: FileMode,
    uid: u32,
    gid: u32,
}

impl FileAs {
    /// The workload's user reads it, and nobody else.
    pub fn usual(user: &User) -> Self {
        Self { mode: FileMode::default(), uid: user.uid, gid: user.gid }
    }

    /// As the spec has it.
    fn wanted(wanted: &SecretWanted, user: &User) -> Self {
        let SecretWanted { mode, uid, gid, .. } = wanted;
        Self { mode: *mode, uid: uid.unwrap_or(user.uid), gid: gid.unwrap_or(user.gid) }
    }
}

/// Puts a value at `folder/name`: with its owner and mode from the start, never half-written. Whoever has the one before open
/// reads that to its end.
///
/// # Errors
/// The kernel's.
pub fn write(folder: &Path, name: &Name, value: &[u8], file: &FileAs) -> io::Result<()> {
    // A name does not start with a dot, so it never is one of the writer's own.
    Writer::private().mode(file.mode.bits()).owner(file.uid, file.gid).write(&folder.join(name.as_str()), value)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::*;

    #[test]
    fn secret_files_are_readable_by_their_owner_alone_and_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let user = User { uid, gid, groups: vec![], home: "/".into() };
        for value in ["first", "second"] {
            write(folder.path(), &"token".parse().unwrap(), value.as_bytes(), &FileAs::usual(&user)).unwrap();
            let path = folder.path().join("token");
            assert_eq!(fs::read_to_string(&path).unwrap(), value);
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o400, uid));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_is_whose_the_spec_says_and_else_the_workloads() {
        let user = User { uid: 7, gid: 8, groups: vec![], home: "/".into() };
        let mut wanted =
            SecretWanted::new("kbs:///a/b/c".parse().unwrap(), SecretTarget::File(coffer_spec::sample::name("token")));
        assert_eq!(FileAs::wanted(&wanted, &user), FileAs::usual(&user));
        wanted.mode = "0440".parse().unwrap();
        (wanted.uid, wanted.gid) = (Some(0), None);
        let FileAs { mode, uid, gid } = FileAs::wanted(&wanted, &user);
        assert_eq!((mode.bits(), uid, gid), (0o440, 0, 8));
    }

    #[test]
    fn each_refusal_has_its_own_word_and_names_the_broker() {
        let kbs = KbsPin { address: "kbs.example:9000".into(), spki: vec![] };
        let of = |error| failure(&kbs, "kbs:///a/b/c", &error);
        let refused = of(ClientError::Refused { code: "not-released".into(), id: "000000000000ab77".into() });
        assert_eq!(refused.code, Code::NotReleased);
        assert!(refused.detail.contains("kbs.example:9000") && refused.detail.contains("ab77"));
        assert_eq!(refused.denial_id, 0xab77, "the one thing of it that a TEE guest's host may know");
        let unwell = of(ClientError::Undecided { code: "broker-failed".into(), id: "ab78".into() });
        assert_eq!((unwell.code, unwell.denial_id), (Code::KbsUnreachable, 0xab78));
        let down = of(ClientError::Unreachable { cause: "reset".into() });
        assert_eq!(down.code, Code::KbsUnreachable);
        let found = coffer_verifier::abi::SpkiDigest::of(b"x");
        assert_eq!(of(ClientError::PinMismatch { found, expected: vec![] }).code, Code::KbsPinMismatch);
    }
}
