//! New versions of the broker's secrets, for a workload that runs.
//!
//! Trusts: the broker behind the pinned key, for what is current. Never: takes a file away, or leaves one half-written: where the
//! broker is silent or refuses, what is in place stays.

use std::{path::Path, sync::Arc, time::Duration};

use coffer_guest_proto::{Found, Refreshed};
use coffer_kbs_client::{ClientError, Meter};
use coffer_ratls::{Attester, Identity};
use coffer_spec::{OnChange, SecretTarget, WorkloadSpec};
use secrecy::ExposeSecret;
use tokio::sync::Mutex;

use super::{FileAs, InPlace, LIMIT, TOTAL, User, denial_id, write};
use crate::{
    broker::{self, Source, questions::again},
    host::Host,
    owners::{Owners, OwnersError},
    secret_env::SecretEnv,
};

/// Asks the broker again, as who this guest was when it started.
pub struct Refresher {
    identity: Identity,
    attester: Arc<dyn Attester>,
    user: User,
    /// Held for a whole round, so that two at once do not race for a file.
    versions: Mutex<Vec<u64>>,
}

/// What one look at the broker's secrets found.
#[derive(Debug, Default)]
pub struct Round {
    /// Of each file, in the order of the spec.
    pub found: Vec<Refreshed>,
    /// What follows now, each once.
    pub follows: Vec<OnChange>,
    /// Why the rest is unknown.
    pub broken: Option<ClientError>,
    /// Why a list of owners was not taken.
    pub owners: Option<OwnersError>,
}

impl Round {
    /// The broker did not say all that it was asked.
    pub fn was_broken(&self) -> bool {
        self.broken.is_some() || matches!(self.owners, Some(OwnersError::Broker(_)))
    }
}

impl Refresher {
    /// From what was fetched for the start, whose environment goes elsewhere.
    pub fn new(identity: Identity, attester: Arc<dyn Attester>, user: User, in_place: InPlace) -> (Self, SecretEnv) {
        let InPlace { environment, versions } = in_place;
        (Self { identity, attester, user, versions: Mutex::new(versions) }, environment)
    }

    /// Looks for other versions than those in place, and puts them there; and for a newer list of owners. The guest proves itself anew.
    /// `meter` counts what is asked.
    pub async fn round(
        &self,
        host: Host,
        spec: &WorkloadSpec,
        folder: &Path,
        owners: &Owners,
        meter: Arc<dyn Meter>,
    ) -> Round {
        let Some(kbs) = &spec.kbs else { return Round::default() };
        let mut versions = self.versions.lock().await;
        let mut round = Round::default();
        let work = async {
            match broker::connect(host, spec, kbs, &self.identity, self.attester.clone()).await {
                Ok(client) => {
                    let client = client.metered(meter);
                    round.owners = match owners.look(&client).await {
                        // What would be asked next is one question more.
                        Err(OwnersError::Broker(ClientError::TooOften)) => {
                            round.broken = Some(ClientError::TooOften);
                            return;
                        }
                        looked => looked.err(),
                    };
                    look(&client, spec, folder, &self.user, &mut versions, &mut round).await;
                }
                Err(error) => round.broken = Some(error),
            }
        };
        if tokio::time::timeout(TOTAL, work).await.is_err() {
            let cause = format!("no answer within {} s", TOTAL.as_secs());
            round.broken = Some(ClientError::Unreachable { cause });
        }
        round
    }
}

async fn look(
    source: &impl Source,
    spec: &WorkloadSpec,
    folder: &Path,
    user: &User,
    versions: &mut [u64],
    round: &mut Round,
) {
    for (wanted, version) in spec.secrets.iter().zip(versions) {
        let SecretTarget::File(name) = &wanted.to else { continue };
        let (found, denial_id) = match again(|| source.current(&wanted.from)).await {
            Ok(secret) if secret.version == *version => (Found::Unchanged, 0),
            Ok(secret) => {
                let value = secret.value.expose_secret();
                let fits = value.len() <= LIMIT;
                if fits && write(folder, name, value, &FileAs::wanted(wanted, user)).is_ok() {
                    *version = secret.version;
                    round.follows.extend(wanted.changed.clone().filter(|it| !round.follows.contains(it)));
                    (Found::Replaced, 0)
                } else {
                    (Found::Unusable, 0)
                }
            }
            Err(error @ ClientError::Refused { .. }) => (Found::Refused, denial_id(&error)),
            Err(error) => {
                round.broken = Some(error);
                return;
            }
        };
        let (name, version) = (name.to_string(), *version);
        round.found.push(Refreshed { name, version, found: found.into(), denial_id });
    }
}

/// Longest time between two looks.
const AT_MOST: Duration = Duration::from_mins(15);

/// How long to wait for the next look: a little less than the longest, by chance, so that guests that started together do not
/// come together; not so long after a broker that did not answer.
pub fn pause(was_broken: bool, chance: u8) -> Duration {
    if was_broken { Duration::from_mins(1) } else { AT_MOST.saturating_sub(Duration::from_secs(u64::from(chance))) }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use coffer_kbs_client::Secret;
    use coffer_spec::{SecretPath, SecretWanted, Tee, sample};
    use secrecy::SecretBox;

    use super::*;

    /// Current versions by tag; a tag that is not there is refused, and `down` does not answer.
    struct Broker(BTreeMap<&'static str, (u64, &'static str)>);

    impl Source for Broker {
        async fn current(&self, path: &SecretPath) -> Result<Secret, ClientError> {
            match self.0.get(path.tag()) {
                Some((version, value)) => {
                    let value = SecretBox::new(Box::new(value.as_bytes().to_vec()));
                    Ok(Secret { value, version: *version })
                }
                None if path.tag() == "busy" => Err(ClientError::TooOften),
                None if path.tag() == "down" => Err(ClientError::Unreachable { cause: "reset".into() }),
                None => Err(ClientError::Refused { code: "not-released".into(), id: "00000000000000ab".into() }),
            }
        }
    }

    fn spec(secrets: &[(&str, Option<OnChange>)]) -> WorkloadSpec {
        let wanted = secrets.iter().map(|(tag, changed)| SecretWanted {
            changed: changed.clone(),
            ..SecretWanted::new(format!("kbs:///a/b/{tag}").parse().unwrap(), SecretTarget::File(sample::name(tag)))
        });
        WorkloadSpec { secrets: wanted.collect(), ..sample::workload(Tee::Simulated) }
    }

    async fn looked(spec: &WorkloadSpec, broker: Broker, versions: &mut [u64]) -> (tempfile::TempDir, Round) {
        let folder = tempfile::tempdir().unwrap();
        for wanted in &spec.secrets {
            fs::write(folder.path().join(wanted.from.tag()), "old").unwrap();
        }
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let user = User { uid, gid, groups: vec![], home: "/".into() };
        let mut round = Round::default();
        look(&broker, spec, folder.path(), &user, versions, &mut round).await;
        (folder, round)
    }

    fn words(round: &Round) -> Vec<(&str, u64, Found, u64)> {
        round.found.iter().map(|it| (it.name.as_str(), it.version, it.found(), it.denial_id)).collect()
    }

    #[tokio::test]
    async fn another_version_replaces_the_file_and_what_the_spec_says_follows_once() {
        let hup = || Some(OnChange::Signal(1));
        let spec = spec(&[("same", hup()), ("newer", hup()), ("also", hup()), ("taken-back", None), ("gone", hup())]);
        let now = Broker(BTreeMap::from([
            ("same", (3, "old")),
            ("newer", (4, "new")),
            ("also", (9, "new")),
            ("taken-back", (2, "before")),
        ]));
        let mut versions = [3, 3, 3, 3, 3];
        let (folder, round) = looked(&spec, now, &mut versions).await;
        assert_eq!(
            words(&round),
            [
                ("same", 3, Found::Unchanged, 0),
                ("newer", 4, Found::Replaced, 0),
                ("also", 9, Found::Replaced, 0),
                ("taken-back", 2, Found::Replaced, 0),
                ("gone", 3, Found::Refused, 0xab),
            ]
        );
        assert_eq!(
            (versions, round.follows, round.broken.is_some()),
            ([3, 4, 9, 2, 3], vec![OnChange::Signal(1)], false)
        );
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(["same", "newer", "taken-back", "gone"].map(read), ["old", "new", "before", "old"]);
    }

    #[tokio::test]
    async fn a_broker_that_falls_silent_leaves_everything_as_it_is() {
        let spec = spec(&[("down", None), ("newer", None)]);
        let mut versions = [1, 1];
        let (folder, round) = looked(&spec, Broker(BTreeMap::from([("newer", (2, "new"))])), &mut versions).await;
        assert!(matches!(round.broken, Some(ClientError::Unreachable { .. })));
        assert_eq!((versions, round.found.len(), round.follows.len()), ([1, 1], 0, 0));
        assert_eq!(fs::read_to_string(folder.path().join("newer")).unwrap(), "old");
    }

    #[tokio::test]
    async fn a_broker_that_wants_fewer_questions_took_nothing_back() {
        let spec = spec(&[("busy", None), ("newer", None)]);
        let mut versions = [1, 1];
        let (_folder, round) = looked(&spec, Broker(BTreeMap::from([("newer", (2, "new"))])), &mut versions).await;
        assert!(matches!(round.broken, Some(ClientError::TooOften)) && round.was_broken());
        assert_eq!((versions, words(&round)), ([1, 1], vec![]));
    }

    #[test]
    fn a_list_of_owners_that_the_broker_did_not_tell_is_asked_for_as_soon_as_a_secret_is() {
        let silent = || ClientError::Unreachable { cause: "reset".into() };
        let broken = |round: Round| round.was_broken();
        assert!(broken(Round { owners: Some(OwnersError::Broker(silent())), ..Round::default() }));
        assert!(broken(Round { broken: Some(silent()), ..Round::default() }));
        assert!(!broken(Round { owners: Some(OwnersError::KeptAtBroker), ..Round::default() }));
    }

    #[test]
    fn the_next_look_is_at_most_a_quarter_of_an_hour_away() {
        for chance in [0, 1, u8::MAX] {
            assert!(pause(false, chance) <= AT_MOST && pause(false, chance) > Duration::from_mins(10));
        }
        assert_eq!(pause(true, 9), Duration::from_mins(1));
    }
}
