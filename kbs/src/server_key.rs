//! The key that a listener shows next: made beside the present one, so that whoever pins keys has both before it is shown.
//!
//! Trusts: what lies in the state folder, private to the broker. Never: shows a next key before the switch, replaces one that waits.
//! Source: docs/design/protocol.md, "The guest pins the KBS by SPKI (current, next)".

use std::{fs, path::Path};

use coffer_kbs_client::AdminProfile;
use coffer_ratls::Identity;
use coffer_rim::file::sync_folder;
use coffer_verifier::abi::SpkiDigest;

use crate::state::{
    ADMIN_SERVER, NEXT_ADMIN_SERVER, NEXT_SERVER, PROFILE, SERVER, StateError, kept_its_owners, read_identity,
    write_identity,
};

/// Whose listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Listener {
    /// Guests'.
    Guests,
    /// Operators'.
    Operators,
}

impl Listener {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Guests, Self::Operators];

    const fn file(self) -> &'static str {
        match self {
            Self::Guests => SERVER,
            Self::Operators => ADMIN_SERVER,
        }
    }

    const fn next_file(self) -> &'static str {
        match self {
            Self::Guests => NEXT_SERVER,
            Self::Operators => NEXT_ADMIN_SERVER,
        }
    }

    /// In the certificate. Nobody decides by it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Guests => "coffer-kbs",
            Self::Operators => "coffer-kbs-admin",
        }
    }

    /// In words: whose.
    pub const fn whose(self) -> &'static str {
        match self {
            Self::Guests => "guests",
            Self::Operators => "operators",
        }
    }
}

/// The keys of a listener, as they are pinned: SHA-256 of the SubjectPublicKeyInfo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ServerKeys {
    /// Shown from the broker's start on.
    pub present: SpkiDigest,
    /// Waits for the switch.
    pub next: Option<SpkiDigest>,
}

/// Keys of a listener.
///
/// # Errors
/// [`StateError`].
pub fn server_keys(folder: &Path, listener: Listener) -> Result<ServerKeys, StateError> {
    let present = read_identity(&folder.join(listener.file()))?.spki();
    let next = match read_identity(&folder.join(listener.next_file())) {
        Ok(identity) => Some(identity.spki()),
        Err(StateError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(ServerKeys { present, next })
}

/// Makes the next key of a listener; the present one is shown as before. The first operator's profile, where it still lies here, gets the
/// pin of an operators' key that is made.
///
/// # Errors
/// [`StateError::NextKeyWaits`] where there is one: somebody may pin it already.
pub fn make_next_key(folder: &Path, listener: Listener) -> Result<ServerKeys, StateError> {
    let _kept = kept_its_owners(folder);
    let keys = server_keys(folder, listener)?;
    let path = folder.join(listener.next_file());
    if keys.next.is_some() {
        return Err(StateError::NextKeyWaits { path });
    }
    let identity =
        Identity::generate(listener.name()).map_err(|source| StateError::Identity { path: path.clone(), source })?;
    // Read before anything is made: a profile that cannot be used leaves nothing half done.
    let profile = folder.join(PROFILE);
    let beside = listener == Listener::Operators && profile.exists();
    let first = if beside { Some(AdminProfile::read(&profile)?) } else { None };
    // Never in place of one that was made meanwhile.
    write_identity(&path, &identity)?;
    let keys = ServerKeys { next: Some(identity.spki()), ..keys };
    if let Some(mut first) = first.filter(|first| first.pins == [keys.present]) {
        first.pins.push(identity.spki());
        first.replace(&profile)?;
    }
    Ok(keys)
}

/// Puts the next key in the place of the present one, which is gone with that. A broker that serves shows it from its next start on.
/// Gives the key that was there.
///
/// # Errors
/// [`StateError::NoNextKey`] where none waits; then nothing has changed.
pub fn switch_key(folder: &Path, listener: Listener) -> Result<(SpkiDigest, ServerKeys), StateError> {
    let _kept = kept_its_owners(folder);
    let (path, next_path) = (folder.join(listener.file()), folder.join(listener.next_file()));
    let ServerKeys { present: former, next } = server_keys(folder, listener)?;
    let present = next.ok_or_else(|| StateError::NoNextKey { path: next_path.clone() })?;
    let named = fs::rename(next_path, &path).and_then(|()| sync_folder(folder));
    named.map_err(|source| StateError::File { path, source })?;
    Ok((former, ServerKeys { present, next: None }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::{init, pin};

    #[tokio::test]
    async fn a_next_key_waits_privately_and_takes_the_place_of_the_present_one() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("state");
        init(&folder, "127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        for listener in Listener::ALL {
            let before = server_keys(&folder, listener).unwrap();
            assert_eq!(before.next, None);
            assert!(matches!(switch_key(&folder, listener), Err(StateError::NoNextKey { .. })));
            let made = make_next_key(&folder, listener).unwrap();
            assert_eq!((made.present, server_keys(&folder, listener).unwrap()), (before.present, made));
            let mode = fs::metadata(folder.join(listener.next_file())).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            assert!(matches!(make_next_key(&folder, listener), Err(StateError::NextKeyWaits { .. })));
            assert_eq!(server_keys(&folder, listener).unwrap(), made, "one that waits stays");
            let (former, after) = switch_key(&folder, listener).unwrap();
            assert_eq!((former, Some(after.present), after.next), (made.present, made.next, None));
            assert_eq!(server_keys(&folder, listener).unwrap(), after);
            assert!(!folder.join(listener.next_file()).exists());
        }
        assert_eq!(pin(&folder).unwrap(), server_keys(&folder, Listener::Guests).unwrap().present);
    }

    #[tokio::test]
    async fn a_profile_that_others_may_read_stops_it_before_a_key_is_made() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("state");
        init(&folder, "127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        let profile = folder.join(PROFILE);
        fs::set_permissions(&profile, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = make_next_key(&folder, Listener::Operators);
        assert!(matches!(&refused, Err(StateError::Profile(_))), "{refused:?}");
        assert!(refused.unwrap_err().hint().contains("chmod 600"));
        assert!(!folder.join(NEXT_ADMIN_SERVER).exists());
        fs::set_permissions(&profile, fs::Permissions::from_mode(0o600)).unwrap();
        make_next_key(&folder, Listener::Operators).unwrap();
    }

    #[tokio::test]
    async fn what_is_no_private_identity_takes_no_place() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("state");
        init(&folder, "127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        let present = pin(&folder).unwrap();
        let next = folder.join(NEXT_SERVER);
        fs::write(&next, "no identity").unwrap();
        fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(switch_key(&folder, Listener::Guests), Err(StateError::Identity { .. })));
        fs::remove_file(&next).unwrap();
        make_next_key(&folder, Listener::Guests).unwrap();
        fs::set_permissions(&next, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(switch_key(&folder, Listener::Guests), Err(StateError::Mode { .. })));
        assert_eq!(pin(&folder).unwrap(), present);
    }
}
