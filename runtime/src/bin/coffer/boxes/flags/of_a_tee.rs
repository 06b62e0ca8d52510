//! Flags that only a guest which proves itself has a use for: each is refused by its own name where the box has no TEE, or no key broker.

use coffer_runtime::engine::Engine;
use coffer_runtime::{owner_list, request};
use coffer_spec::{KbsPin, Owner, OwnerAuthority, Peer, SecretWanted, Tee};

use super::BoxFlags;
use crate::boxes::peers;
use crate::error::{self, Class, CliError};

impl BoxFlags {
    /// What asks a key broker, or is for a guest that an owner believes, and has nobody to ask or to believe.
    pub(super) fn check_broker(&self, tee: Tee) -> Result<(), CliError> {
        let asks = [
            ("--secret", !self.secret.is_empty()),
            ("--secret-env", !self.secret_env.is_empty()),
            ("--audience", !self.audience.is_empty()),
            ("--tls-profile", self.tls_profile.is_some()),
        ];
        let asks = asks.into_iter().find_map(|(flag, given)| given.then_some(flag));
        let broker = self.kbs.is_some().then_some("--kbs");
        if let Some(flag) = asks.or(broker).filter(|_| tee == Tee::None) {
            let message = format!("{flag} is of a guest that proves itself to a key broker, and this one does not");
            let hint = if self.kbs.is_some() { "" } else { ", and --kbs HOST:PORT with --kbs-pin HEX" };
            return Err(
                CliError::new(Class::Usage, message).hint(format!("{flag} needs --tee or --tee-simulate{hint}"))
            );
        }
        if let Some(flag) = asks.filter(|_| self.kbs.is_none()) {
            let message = format!("{flag} asks a key broker, and none is named");
            return Err(CliError::new(Class::Usage, message)
                .hint("add --kbs HOST:PORT and --kbs-pin HEX, which `coffer-kbs pin` prints"));
        }
        if tee == Tee::None && !self.inject.is_empty() {
            let message = "--inject is of a guest that proves itself to whoever injects, and this one does not";
            return Err(CliError::new(Class::Usage, message)
                .hint("--inject needs --tee or --tee-simulate; a plain box takes files with `coffer cp`"));
        }
        Ok(())
    }

    /// The key broker, by its pins.
    pub(super) fn broker(&self) -> Result<Option<KbsPin>, CliError> {
        let pins = self.kbs_pin.iter();
        let spki =
            pins.map(|text| request::pin(text).ok_or_else(|| usage("--kbs-pin", text, "expected 64 hex digits")));
        let spki = spki.collect::<Result<Vec<_>, _>>()?;
        Ok(self.kbs.clone().map(|address| KbsPin { address, spki }))
    }

    /// What it has, as files and as variables.
    pub(super) fn secrets(&self) -> Result<Vec<SecretWanted>, CliError> {
        let files = self.secret.iter().map(|text| {
            let refused = |why: String| usage("--secret", text, &why).hint(format!("write {}", request::SECRET_FILE));
            request::secret_file(text).map_err(refused)
        });
        let variables = self.secret_env.iter().map(|text| {
            let refused =
                |why: String| usage("--secret-env", text, &why).hint(format!("write {}", request::SECRET_ENV));
            request::secret_env(text).map_err(refused)
        });
        files.chain(variables).collect()
    }

    /// Routes on which evidence is answered with.
    pub(super) fn coco_routes(&self, tee: Tee) -> Result<bool, CliError> {
        if tee == Tee::None && self.coco_routes {
            let message = "--coco-routes are of a guest that proves itself, and this one does not";
            return Err(CliError::new(Class::Usage, message).hint("--coco-routes needs --tee or --tee-simulate"));
        }
        Ok(self.coco_routes)
    }

    /// Guests to talk to, as one that proves itself.
    pub(super) fn peers(&self, tee: Tee) -> Result<Vec<Peer>, CliError> {
        if tee == Tee::None && !self.peer.is_empty() {
            let message = "--peer leads a guest that proves itself to another one, and this one does not";
            return Err(CliError::new(Class::Usage, message).hint("--peer needs --tee or --tee-simulate"));
        }
        peers::peers(&self.peer)
    }

    /// The owners asked for, or those of a box for which nobody lists any.
    pub(super) fn owners(&self, engine: &Engine, tee: Tee) -> Result<Vec<Owner>, CliError> {
        if tee == Tee::None && !self.owner.is_empty() {
            let message = "--owner lists who may get into a guest that proves itself, and this one does not";
            return Err(CliError::new(Class::Usage, message).hint("--owner needs --tee or --tee-simulate"));
        }
        if self.owner.is_empty() {
            return engine.default_owners(tee).map_err(error::of);
        }
        self.owner.iter().map(|text| owner_list::parse(text)).collect()
    }

    /// Whose lists of owners count.
    pub(super) fn owner_authority(&self, tee: Tee) -> Result<Option<OwnerAuthority>, CliError> {
        if tee == Tee::None && self.owner_authority.is_some() {
            let message = "--owner-authority says whose lists of owners count in a guest that proves itself, and this one does not";
            return Err(CliError::new(Class::Usage, message).hint("--owner-authority needs --tee or --tee-simulate"));
        }
        self.owner_authority.as_deref().map(owner_list::authority).transpose()
    }
}

fn usage(flag: &str, value: &str, why: &str) -> CliError {
    CliError::new(Class::Usage, format!("invalid value {value:?} for {flag}: {why}"))
}
