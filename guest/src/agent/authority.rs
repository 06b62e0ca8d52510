//! Who asks, and whether the spec, or a list that its authority signed, lets them.

use std::sync::Arc;

use coffer_ratls::ConnectionState;
use coffer_spec::{Act, Owner, WorkloadSpec};
use coffer_verifier::abi::SpkiDigest;
use tonic::{Extensions, Status};

use super::Agent;
use crate::owners::Owners;

/// On which port a service answers; the port decides how a caller is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// Plain vsock: whoever asks is the host.
    Host,
    /// RA-TLS: whoever asks has proved a key.
    Owners,
}

impl Door {
    /// Lets a caller ask for what needs one of these, or refuses. Where it needs none, the host may, and whoever is listed.
    ///
    /// `state`: its connection's, where it came over RA-TLS.
    #[allow(clippy::result_large_err)] // tonic's own error type
    pub(super) fn admit_one_of(
        self,
        state: Option<&Arc<ConnectionState>>,
        agent: &Agent,
        acts: &[Act],
    ) -> Result<(), Status> {
        let owners = if self == Self::Owners { agent.owners.now() } else { Vec::new() };
        let mine = || of_key(&owners, state.ok_or_else(not_ra_tls)?.peer_spki(), &agent.owners);
        let admits = |act| match self {
            Self::Host => admit_host(agent.document.spec(), act),
            Self::Owners => admit_owner(&mine()?, act),
        };
        match (self, acts) {
            (Self::Host, []) => Ok(()),
            (Self::Owners, []) => mine().map(drop),
            (_, [first, others @ ..]) => {
                admits(*first).or_else(|refused| others.iter().find_map(|act| admits(*act).ok()).ok_or(refused))
            }
        }
    }

    /// Lets the caller of a request do `act`, or refuses.
    #[allow(clippy::result_large_err)] // tonic's own error type
    pub(super) fn admit(self, extensions: &Extensions, agent: &Agent, act: Act) -> Result<(), Status> {
        match self {
            Self::Host => admit_host(agent.document.spec(), act),
            Self::Owners => {
                let state = extensions.get::<Arc<ConnectionState>>().ok_or_else(not_ra_tls)?;
                admit_owner(&of_key(&agent.owners.now(), state.peer_spki(), &agent.owners)?, act)
            }
        }
    }
}

fn not_ra_tls() -> Status {
    Status::internal("request did not come over RA-TLS")
}

#[allow(clippy::result_large_err)]
fn admit_host(spec: &WorkloadSpec, act: Act) -> Result<(), Status> {
    if spec.host_may.allows(act) { Ok(()) } else { Err(Status::permission_denied(format!("host-may-not:{act}"))) }
}

/// What stands of a key, which may stand there more than once. Refused where that is nothing, and said where nobody is an owner at all.
#[allow(clippy::result_large_err)]
fn of_key(owners: &[Owner], key: &SpkiDigest, known: &Owners) -> Result<Vec<Owner>, Status> {
    let mine: Vec<_> = owners.iter().filter(|owner| owner.key == *key).cloned().collect();
    if !mine.is_empty() {
        return Ok(mine);
    }
    let nobody = known.why_nobody().map(|word| format!(": nobody is an owner until a list is taken ({word})"));
    Err(Status::permission_denied(format!("owner-not-listed{}", nobody.unwrap_or_default())))
}

#[allow(clippy::result_large_err)]
fn admit_owner(mine: &[Owner], act: Act) -> Result<(), Status> {
    if mine.iter().any(|owner| owner.allows(act)) {
        Ok(())
    } else {
        Err(Status::permission_denied(format!("owner-may-not:{act}")))
    }
}

#[cfg(test)]
mod tests {
    use coffer_spec::{HostMay, OwnerMay, Tee};

    use super::*;

    fn spec() -> WorkloadSpec {
        WorkloadSpec {
            host_may: HostMay::parse("stop,logs").unwrap(),
            owners: vec![Owner { key: SpkiDigest::of(b"alice"), may: OwnerMay::parse("exec").unwrap() }],
            ..crate::boot::tests::spec(Tee::Simulated)
        }
    }

    #[allow(clippy::result_large_err)]
    fn admit(spec: &WorkloadSpec, key: &SpkiDigest, act: Act) -> Result<(), Status> {
        let owners = Owners::of(spec);
        admit_owner(&of_key(&owners.now(), key, &owners)?, act)
    }

    #[test]
    fn the_host_gets_what_the_spec_lists_and_nothing_else() {
        let spec = spec();
        for act in [Act::Stop, Act::Logs] {
            assert!(admit_host(&spec, act).is_ok());
        }
        for act in [Act::Stats, Act::Exec, Act::Inject, Act::Unseal, Act::Cp, Act::Top, Act::Attach] {
            let status = admit_host(&spec, act).unwrap_err();
            assert_eq!(status.code(), tonic::Code::PermissionDenied);
            assert_eq!(status.message(), format!("host-may-not:{act}"));
        }
    }

    #[test]
    fn an_owner_gets_what_is_listed_for_that_key() {
        let spec = spec();
        let (alice, mallory) = (SpkiDigest::of(b"alice"), SpkiDigest::of(b"mallory"));
        for act in [Act::Exec, Act::Cp, Act::Top, Act::Attach, Act::Stop, Act::Stats] {
            assert!(admit(&spec, &alice, act).is_ok());
            assert_eq!(admit(&spec, &mallory, act).unwrap_err().message(), "owner-not-listed");
        }
        for act in [Act::Logs, Act::Inject, Act::Unseal] {
            assert_eq!(admit(&spec, &alice, act).unwrap_err().message(), format!("owner-may-not:{act}"));
        }
    }

    #[test]
    fn a_guest_without_owners_lets_nobody_in_and_its_digest_says_so() {
        let (with, without) = (spec(), WorkloadSpec { owners: Vec::new(), host_may: HostMay::none(), ..spec() });
        for act in Act::ALL {
            assert!(admit(&without, &SpkiDigest::of(b"alice"), act).is_err(), "{act}");
            assert!(admit_host(&without, act).is_err(), "{act}");
        }
        // Whoever relies on it compares HOST_DATA: nobody takes owners away or puts them back behind it.
        let digest = |spec: &WorkloadSpec| coffer_spec::Document::write(spec).unwrap().digest();
        assert_ne!(digest(&with), digest(&without));
    }

    #[test]
    fn who_may_copy_may_do_nothing_else() {
        let owners = vec![Owner { key: SpkiDigest::of(b"carol"), may: OwnerMay::parse("cp").unwrap() }];
        let (spec, carol) = (WorkloadSpec { owners, ..spec() }, SpkiDigest::of(b"carol"));
        assert!(admit(&spec, &carol, Act::Cp).is_ok());
        for act in [Act::Exec, Act::Top, Act::Attach, Act::Logs, Act::Inject, Act::Unseal] {
            assert_eq!(admit(&spec, &carol, act).unwrap_err().message(), format!("owner-may-not:{act}"));
        }
    }

    #[tokio::test]
    async fn a_request_without_a_connection_is_no_owner() {
        let world = crate::agent::tests::world("stop").await;
        assert!(Door::Owners.admit(&Extensions::new(), &world.agent, Act::Stop).is_err());
    }
}
