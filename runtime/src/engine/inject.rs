//! Writes a value into a guest that proves itself first, encrypted to that guest.

use coffer_guest_proto::owner_client::OwnerClient;
use coffer_guest_proto::{InjectRequest as Ask, Sealed};
use coffer_ratls::HpkeError;
use coffer_rim::Reason;
use coffer_spec::{Act, Name, SecretTarget, WorkloadSpec};
use coffer_verifier::binding::length_prefixed;
use zeroize::Zeroizing;

use super::guest::Guest;
use super::prove::{OwnerMayNot, ProveError, must_run};
use super::{Engine, Fault, Hint, OpenError, Trust};
use crate::{Class, Failure, agent};

/// Longest value in bytes.
pub const VALUE_LIMIT: usize = 1 << 20;

/// A value for a guest.
pub struct InjectRequest {
    /// Its name; the spec must list it.
    pub name: String,
    /// The value. Never empty: that would be a removal under another name.
    pub value: Zeroizing<Vec<u8>>,
    /// Programs that start from now on also get it as a variable.
    pub set_env: bool,
}

/// Why a value was not injected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InjectError {
    /// The installation does not open, or has no such box.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nothing to inject.
    #[error("the value for {0:?} is empty")]
    Empty(String),
    /// Too much to inject.
    #[error("the value for {name:?} has {found} bytes, at most {VALUE_LIMIT} fit")]
    TooLong {
        /// Whose.
        name: String,
        /// How many.
        found: usize,
    },
    /// The spec does not list the name.
    #[error("the spec of {name} lists no {secret:?} to inject")]
    NotListed {
        /// Box.
        name: String,
        /// Value's name.
        secret: String,
    },
    /// The key broker's value goes there.
    #[error("{secret:?} of {name} comes from the key broker ({path}), and is not injected")]
    OfBroker {
        /// Box.
        name: String,
        /// Value's name.
        secret: String,
        /// Where it is at the broker.
        path: String,
    },
    /// The local owner may not.
    #[error(transparent)]
    MayNot(#[from] OwnerMayNot),
    /// The guest did not prove itself.
    #[error(transparent)]
    Prove(#[from] ProveError),
    /// The value cannot be encrypted to the guest.
    #[error(transparent)]
    Seal(#[from] HpkeError),
    /// The box's spec, or its guest's agent.
    #[error(transparent)]
    Other(#[from] Failure),
}

impl Fault for InjectError {
    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            Self::Empty(_) | Self::TooLong { .. } => Class::Usage,
            Self::NotListed { .. } | Self::OfBroker { .. } => Class::Refused,
            Self::MayNot(error) => error.class(),
            Self::Prove(error) => error.class(),
            Self::Seal(_) => Class::Internal,
            Self::Other(failure) => failure.class(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Open(error) => error.hint(),
            Self::Empty(_) => Some("check what was to write it: a pipe whose first command failed is empty".into()),
            Self::NotListed { secret, .. } => Some(Hint::ListInjected { secret: secret.clone() }),
            Self::OfBroker { name, path, .. } => Some(Hint::PutAtBroker { name: name.clone(), path: path.clone() }),
            Self::MayNot(error) => error.hint(),
            Self::Prove(error) => error.hint(),
            Self::TooLong { .. } | Self::Seal(_) => None,
            Self::Other(failure) => Fault::hint(failure),
        }
    }

    fn reason(&self) -> Option<Reason> {
        match self {
            Self::Other(failure) => Fault::reason(failure),
            _ => None,
        }
    }
}

impl InjectRequest {
    /// Refuses what no guest takes.
    fn check(&self) -> Result<(), InjectError> {
        match self.value.len() {
            0 => Err(InjectError::Empty(self.name.clone())),
            1..=VALUE_LIMIT => Ok(()),
            found => Err(InjectError::TooLong { name: self.name.clone(), found }),
        }
    }
}

/// A box that is made with a name to inject that the broker's secret has is refused, so that listing it is no way.
fn listed(name: &str, spec: &WorkloadSpec, secret: &str) -> Result<(), InjectError> {
    if spec.inject.iter().map(Name::as_str).any(|listed| listed == secret) {
        return Ok(());
    }
    let (name, secret) = (name.to_owned(), secret.to_owned());
    let of_broker = spec.secrets.iter().find(|wanted| match &wanted.to {
        SecretTarget::File(it) | SecretTarget::Env(it) => it.as_str() == secret,
    });
    Err(match of_broker {
        Some(wanted) => InjectError::OfBroker { name, secret, path: wanted.from.to_string() },
        None => InjectError::NotListed { name, secret },
    })
}

impl Engine {
    /// Says whether an injection could succeed at all, before its value is read.
    ///
    /// # Errors
    /// [`InjectError`].
    pub fn may_inject(&self, word: &str, secret: &str) -> Result<(), InjectError> {
        let guest = self.guest(word)?;
        if let Guest::Here(record) = &guest {
            must_run(record)?;
            listed(&record.name, self.document(record)?.spec(), secret)?;
        }
        self.may_ask(&guest, Act::Inject)
    }

    /// Injects a value.
    ///
    /// # Errors
    /// [`InjectError`]; the guest then keeps what it had.
    pub async fn inject(&self, word: &str, request: &InjectRequest, trust: &Trust) -> Result<(), InjectError> {
        request.check()?;
        self.may_inject(word, &request.name)?;
        let guest = self.guest(word)?;
        let connection = self.connect(&guest, trust).await?;
        let document = self.document_of(&guest, &connection)?;
        listed(&guest.name(), document.spec(), &request.name)?;
        let tenant = &document.spec().tenant;
        let aad = length_prefixed(&[tenant.as_str().as_bytes(), request.name.as_bytes(), b"inject"]);
        let sealed = connection.seal("coffer.agent.v1.Owner/Inject", &aad, &request.value)?;
        let value = Some(Sealed { enc: sealed.enc, ciphertext: sealed.ciphertext });
        let ask = Ask { name: request.name.clone(), value, set_env: request.set_env };
        let answer = OwnerClient::new(connection.channel()).inject(ask).await;
        Ok(answer.map(drop).map_err(|status| agent::of_status(&status))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_value_is_refused_before_any_guest_is_asked() {
        let request =
            |length| InjectRequest { name: "token".into(), value: Zeroizing::new(vec![1; length]), set_env: false };
        let error = request(0).check().unwrap_err();
        assert_eq!((error.class(), error.to_string().as_str()), (Class::Usage, "the value for \"token\" is empty"));
        assert!(request(1).check().is_ok() && request(VALUE_LIMIT).check().is_ok());
        assert!(matches!(request(VALUE_LIMIT + 1).check(), Err(InjectError::TooLong { .. })));
    }

    #[test]
    fn a_value_of_the_brokers_is_not_to_be_listed_but_put_there() {
        use coffer_spec::{SecretWanted, Tee, sample};
        let mut spec = sample::workload(Tee::Simulated);
        spec.inject = vec![sample::name("token")];
        let to = SecretTarget::File(sample::name("password"));
        spec.secrets = vec![SecretWanted::new("kbs:///demo/app/password".parse().unwrap(), to)];
        assert!(listed("demo", &spec, "token").is_ok());
        assert!(matches!(listed("demo", &spec, "other"), Err(InjectError::NotListed { .. })));
        let error = listed("demo", &spec, "password").unwrap_err();
        assert_eq!(error.class(), Class::Refused);
        let path = "kbs:///demo/app/password".to_owned();
        assert_eq!(error.hint(), Some(Hint::PutAtBroker { name: "demo".into(), path }));
    }
}
