//! Operators: whom the admin listener lets in, what somebody may, and who asks.
//!
//! The configuration's operators are owners of everything; those in the ledger are what they were granted.

use std::{collections::BTreeMap, sync::Arc};

use coffer_ratls::KeyList;
use coffer_verifier::abi::SpkiDigest;

use crate::{
    admin_socket::LocalPeer,
    roles::{Grant, Method, Role},
    store::{BROKER, Ledger, Store, StoreError},
    tenant::Tenant,
};

/// Everybody the admin listener lets in.
#[derive(Clone)]
pub struct Operators {
    /// Names in the configuration, by key.
    pub(crate) configured: Arc<BTreeMap<SpkiDigest, String>>,
    /// What the listener admits now.
    pub(crate) listed: KeyList,
    /// Held by whoever changes that.
    letting_in: Arc<tokio::sync::Mutex<()>>,
    /// What whoever comes over the local socket may.
    local: Option<Grant>,
}

/// How somebody shows who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asking {
    /// With a key, over the network.
    Key(SpkiDigest),
    /// As a user of this machine, over the local socket.
    Local(LocalPeer),
}

/// Name in the trail of whoever comes over the local socket.
const LOCAL: &str = "local uid ";

/// What an operator may be called, in words.
pub const NAMES: &str = "ASCII letters, digits and . _ - + @, with single spaces between; none that the trail has for the broker or its local socket";

/// True of a name that tells an operator apart in the trail, for the eye too.
pub fn is_operator_name(name: &str) -> bool {
    let marks = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+@".contains(&byte);
    let words = |word: &str| !word.is_empty() && word.bytes().all(marks);
    let lower = name.to_ascii_lowercase();
    name.split(' ').all(words) && !lower.starts_with(LOCAL) && lower != BROKER
}

/// True of two names that a reader of the trail takes for one.
pub fn is_same_name(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// Operators of the ledger that the trail does not tell apart from those of the configuration: by name, or because theirs is the key of an
/// owner there. The configuration may have got them later.
///
/// # Errors
/// As the store.
pub async fn doubled(
    ledger: &mut Ledger,
    configured: &BTreeMap<SpkiDigest, String>,
) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    // Rows that are not believed are nobody's.
    for admin in ledger.admins().await?.into_iter().flatten() {
        if let Some(name) = configured.get(&admin.key) {
            found.push(format!(
                "the key of operator {} is that of {name} in the configuration too, and an owner's",
                admin.name
            ));
        } else if let Some(name) = configured.values().find(|name| is_same_name(name, &admin.name)) {
            found.push(format!("operator {} has the name of another one, {name}, in the configuration", admin.name));
        }
    }
    Ok(found)
}

impl Operators {
    /// Of a configuration, and of the ledger.
    pub fn new(configured: BTreeMap<SpkiDigest, String>, stored: Vec<SpkiDigest>, local: Option<Grant>) -> Self {
        let listed = KeyList::default();
        listed.replace(configured.keys().copied().chain(stored));
        Self { configured: Arc::new(configured), listed, letting_in: Arc::default(), local }
    }

    /// What the listener asks.
    pub fn list(&self) -> KeyList {
        self.listed.clone()
    }

    /// Lets in whom the ledger lists from now on.
    ///
    /// # Errors
    /// As the store.
    pub(crate) async fn let_in(&self, store: &Store) -> Result<(), StoreError> {
        // One after the other: the listener never goes back to whom it let in before.
        let _alone = self.letting_in.lock().await;
        let mut view = store.read().await?;
        self.listed.replace(self.configured.keys().copied().chain(view.admin_keys()));
        Ok(())
    }

    /// Name and grants of somebody; nothing if it is nobody.
    pub(crate) async fn find(
        &self,
        ledger: &mut Ledger,
        asking: &Asking,
    ) -> Result<Option<(String, Vec<Grant>)>, StoreError> {
        let key = match asking {
            Asking::Key(key) => key,
            Asking::Local(peer) => {
                return Ok(self.local.clone().map(|grant| (format!("{LOCAL}{}", peer.uid), vec![grant])));
            }
        };
        if let Some(name) = self.configured.get(key) {
            return Ok(Some((name.clone(), vec![Grant { role: Role::Owner, tenant: None }])));
        }
        Ok(ledger.admin(key).await?.map(|admin| (admin.name, admin.grants)))
    }
}

/// Somebody who may ask what they asked.
#[derive(Clone)]
pub struct Caller {
    /// Name in the trail.
    pub(crate) name: String,
    pub(crate) asking: Asking,
    /// What they have.
    pub(crate) grants: Vec<Grant>,
    pub(crate) method: &'static Method,
    pub(crate) tenant: Option<Tenant>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_is_called_what_no_reader_takes_for_another() {
        for good in ["admin", "Ada Lovelace", "ops@acme.example", "ci-1_a+b"] {
            assert!(is_operator_name(good), "{good}");
        }
        for bad in [
            "",
            " ",
            "admin ",
            " admin",
            "a  b",
            "\u{430}dmin",
            "admin\u{200b}",
            "coffer-kbs",
            "Coffer-KBS",
            "local uid 0",
            "Local UID 0",
            "a/b",
            "a\tb",
            "a\u{a0}b",
        ] {
            assert!(!is_operator_name(bad), "{bad:?}");
        }
        assert!(is_same_name("admin", "Admin") && !is_same_name("admin", "admins"));
    }

    #[tokio::test]
    async fn who_has_a_name_or_a_key_of_the_configuration_is_named() {
        use crate::{
            keys::RootKey,
            store::{Admin, MemoryRows, Witness},
        };
        let root = RootKey::new(&zeroize::Zeroizing::new([7; 32]));
        let store =
            Store::create(Arc::new(MemoryRows::default()), root, Witness::OlderDatabaseIsNotNoticed).await.unwrap();
        let mut ledger = store.write().await.unwrap();
        for (key, name) in [(1, "bob"), (2, "alice"), (3, "carol")] {
            let (key, name) = (SpkiDigest::new([key; 32]), name.to_owned());
            ledger.put_admin(&Admin { key, name, grants: Vec::new(), added_unix: 1 }).await.unwrap();
        }
        let configured = |all: &[(u8, &str)]| {
            all.iter().map(|(key, name)| (SpkiDigest::new([*key; 32]), (*name).to_owned())).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(doubled(&mut ledger, &configured(&[(9, "admin")])).await.unwrap(), Vec::<String>::new());
        let found = doubled(&mut ledger, &configured(&[(9, "BOB"), (2, "alice")])).await.unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().any(|one| one.contains("bob") && one.contains("BOB")), "{found:?}");
        assert!(found.iter().any(|one| one.contains("the key of operator alice")), "{found:?}");
    }
}
