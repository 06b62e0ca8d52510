//! Secrets from the key broker, and where they are put.

use std::{io, path::Path, sync::Arc, time::Duration};

use coffer_kbs_client::ClientError;
use coffer_ratls::{Attester, Identity};
use coffer_rim::file::Writer;
use coffer_spec::{KbsPin, Name, SecretTarget, WorkloadSpec};
use secrecy::ExposeSecret;

use crate::{
    broker,
    failure::{Code, Failure, OrFail},
    host::Host,
    passwd::Identity as User,
    secret_env::SecretEnv,
};

/// All attempts and all secrets together.
const TOTAL: Duration = Duration::from_secs(30);
/// Longest secret taken, in bytes.
const LIMIT: usize = 4 * 1024 * 1024;

/// Gets every secret of the spec and puts it in its place. Gives those that go into the environment.
/// `attested` is called when the broker has admitted this guest.
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
) -> Result<SecretEnv, Failure> {
    let Some(kbs) = &spec.kbs else { return Ok(SecretEnv::default()) };
    let fetch = async {
        let client = broker::connect(host, spec, kbs, identity, attester).await;
        let client = client.map_err(|error| failure(kbs, "connect", &error))?;
        attested();
        let mut environment = SecretEnv::default();
        for wanted in &spec.secrets {
            let path = &wanted.from;
            let secret = client.secret(path).await.map_err(|error| failure(kbs, path.as_str(), &error))?;
            let value = secret.value.expose_secret();
            if value.len() > LIMIT {
                return Err(Failure::new(Code::SecretUnusable, format!("{path} is longer than {LIMIT} bytes")));
            }
            match &wanted.to {
                SecretTarget::File(name) => {
                    write(folder, name, value, user).or_fail(Code::Internal, "write a secret")?;
                }
                SecretTarget::Env(name) => environment
                    .add(name, value)
                    .map_err(|error| Failure::new(Code::SecretUnusable, format!("{path} {error}")))?,
            }
        }
        Ok(environment)
    };
    tokio::time::timeout(TOTAL, fetch).await.unwrap_or_else(|_| {
        let detail = format!("key broker {} did not answer within {} s", kbs.address, TOTAL.as_secs());
        Err(Failure::new(Code::KbsUnreachable, detail))
    })
}

fn failure(kbs: &KbsPin, what: &str, error: &ClientError) -> Failure {
    let code = match error {
        ClientError::PinMismatch { .. } => Code::KbsPinMismatch,
        ClientError::Refused { .. } => Code::NotReleased,
        ClientError::Unreachable { .. } | ClientError::Protocol { .. } | ClientError::OtherListener { .. } => {
            Code::KbsUnreachable
        }
        _ => Code::Internal,
    };
    let denial_id = match error {
        ClientError::Refused { id, .. } => u64::from_str_radix(id, 16).unwrap_or(0),
        _ => 0,
    };
    Failure { denial_id, ..Failure::new(code, format!("key broker {}, {what}: {error}", kbs.address)) }
}

/// Puts a value at `folder/name`: mode 0400 from the start, owned by `user`, never half-written.
///
/// # Errors
/// The kernel's.
pub fn write(folder: &Path, name: &Name, value: &[u8], user: &User) -> io::Result<()> {
    // A name does not start with a dot, so it never is one of the writer's own.
    Writer::private().mode(0o400).owner(user.uid, user.gid).write(&folder.join(name.as_str()), value)
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
            write(folder.path(), &"token".parse().unwrap(), value.as_bytes(), &user).unwrap();
            let path = folder.path().join("token");
            assert_eq!(fs::read_to_string(&path).unwrap(), value);
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o400, uid));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn each_refusal_has_its_own_word_and_names_the_broker() {
        let kbs = KbsPin { address: "kbs.example:9000".into(), spki: vec![] };
        let of = |error| failure(&kbs, "kbs:///a/b/c", &error);
        let refused = of(ClientError::Refused { code: "not-released".into(), id: "000000000000ab77".into() });
        assert_eq!(refused.code, Code::NotReleased);
        assert!(refused.detail.contains("kbs.example:9000") && refused.detail.contains("ab77"));
        assert_eq!(refused.denial_id, 0xab77, "the one thing of it that a TEE guest's host may know");
        let down = of(ClientError::Unreachable { cause: "reset".into() });
        assert_eq!(down.code, Code::KbsUnreachable);
        let found = coffer_verifier::abi::SpkiDigest::of(b"x");
        assert_eq!(of(ClientError::PinMismatch { found, expected: vec![] }).code, Code::KbsPinMismatch);
    }
}
