//! How much is done at once for those who write policies: their texts take processor and memory before anybody has agreed to them.
//!
//! Never: lets a place go while the work that has it still runs, also when its caller went away.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use coffer_policies::{Policy, PolicyError};
use coffer_ratls::denied;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Status};

use crate::{places::Places, tenant::Tenant};

/// Policies tried at once, of all tenants; one of each.
const TRIED: usize = 2;
/// Texts parsed at once, of all tenants; one of each.
const PARSED: usize = 2;

/// What is said where there is no place.
const BUSY: &str = "policies-are-being-tried";

/// Places for work on policies.
pub(crate) struct PolicyWork {
    tried: Arc<Semaphore>,
    parsed: Arc<Semaphore>,
    parses: Places<Tenant>,
    tenants: Arc<Mutex<BTreeSet<Tenant>>>,
}

/// A place to try one tenant's policy, until it is dropped.
pub(crate) struct Trial {
    _only: Only,
    _place: OwnedSemaphorePermit,
}

/// That a tenant has one, also while it waits.
struct Only {
    tenant: Tenant,
    tenants: Arc<Mutex<BTreeSet<Tenant>>>,
}

impl Default for PolicyWork {
    fn default() -> Self {
        let places = |number| Arc::new(Semaphore::new(number));
        Self { tried: places(TRIED), parsed: places(PARSED), parses: Places::new(1), tenants: Arc::default() }
    }
}

impl PolicyWork {
    /// A place when it is this tenant's turn, or that it has one already. With one of each that waits, whoever came first is first.
    pub(crate) async fn trial(&self, tenant: &Tenant) -> Result<Trial, Status> {
        let only = self.only(tenant)?;
        let place = self.tried.clone().acquire_owned().await.map_err(|_| Status::internal("the broker ends"))?;
        Ok(Trial { _only: only, _place: place })
    }

    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    fn only(&self, tenant: &Tenant) -> Result<Only, Status> {
        // A set is whole between any two steps.
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if tenants.insert(tenant.clone()) {
            return Ok(Only { tenant: tenant.clone(), tenants: self.tenants.clone() });
        }
        let (status, id) = denied(Code::ResourceExhausted, BUSY);
        tracing::info!(%id, %tenant, "a policy was not tried: another of this tenant is, or waits to be");
        Err(status)
    }

    /// Parses a text of a tenant where nobody waits for it.
    pub(super) async fn parse(&self, tenant: &Tenant, name: &str, text: &str) -> Result<Policy, Status> {
        let broken = |_| Status::internal("the policy could not be parsed");
        let ends = |_| Status::internal("the broker ends");
        // Whoever sends text after text waits behind its own, and not in front of others.
        let own = self.parses.take(tenant.clone()).await.map_err(ends)?;
        let place = self.parsed.clone().acquire_owned().await.map_err(ends)?;
        let (name, text) = (name.to_owned(), text.to_owned());
        let work = move || {
            let _places = (own, place);
            parse(&name, &text)
        };
        tokio::task::spawn_blocking(work).await.map_err(broken)?
    }
}

impl Drop for Only {
    fn drop(&mut self) {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.tenant);
    }
}

/// A text that is a policy, or where it is none and why.
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn parse(name: &str, text: &str) -> Result<Policy, Status> {
    if text.is_empty() {
        return Err(Status::invalid_argument("text is empty: a policy says who may have what"));
    }
    let acts = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    if let Some(at) = text.lines().position(|line| line.contains(acts)) {
        return Err(Status::invalid_argument(format!("text: line {} has a control character", at + 1)));
    }
    let refused = |error: PolicyError| Status::invalid_argument(format!("text: {error}; {}", error.hint()));
    Policy::parse(name, text).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_calls_what_no_policy_may_is_refused_when_it_is_set_with_its_place() {
        let text = "package p\n\ndefault allow := true\n\nallow := false if {\n\tfalse\n\thttp.send({}).x\n}\n";
        let refused = parse("team", text).err().unwrap();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        let words = refused.message();
        assert!(
            words.starts_with("text: policy team, line 7, column ") && words.contains("http.send is not available"),
            "{words}"
        );
    }

    #[tokio::test]
    async fn one_trial_of_a_tenant_and_two_of_all_run_at_once_and_other_tenants_come_in_turn() {
        let work = PolicyWork::default();
        let [acme, globex, initech] = ["acme", "globex", "initech"].map(|name| Tenant::parse(name).unwrap());
        let busy = async |tenant| {
            let status = work.trial(tenant).await.err().expect("it has one");
            let denial = coffer_ratls::Denial::of(&status).unwrap();
            assert!(denial.code == BUSY && denial.id.len() == 16, "{denial:?}");
            assert_eq!(status.code(), Code::ResourceExhausted);
        };
        let (first, second) = (work.trial(&acme).await.unwrap(), work.trial(&globex).await.unwrap());
        busy(&acme).await;
        let mut waits = Box::pin(work.trial(&initech));
        let soon = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, &mut waits).await.is_err());
        busy(&initech).await;
        // Those who have all places ask on and on, and come behind whoever waits.
        drop(first);
        let mut again = Box::pin(work.trial(&acme));
        assert!(tokio::time::timeout(soon, &mut again).await.is_err());
        let third = waits.await.unwrap();
        busy(&globex).await;
        // Whoever stops waiting has none any more.
        drop(again);
        drop((second, third));
        for tenant in [&acme, &globex, &initech] {
            work.trial(tenant).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_text_is_parsed_off_the_loop() {
        // The policy works until its time is over; meanwhile this one thread does other things.
        let slow = "package t\nallow if count([1 | some a in numbers.range(1, 4000); some b in numbers.range(1, 4000); a + b < 0]) == 0\n";
        let work = Arc::new(PolicyWork::default());
        let parsing = {
            let work = work.clone();
            tokio::spawn(async move { work.parse(&Tenant::parse("acme").unwrap(), "t", slow).await.map(|_| ()) })
        };
        let mut turns = 0;
        while !parsing.is_finished() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            turns += 1;
        }
        parsing.await.unwrap().unwrap();
        assert!(turns > 10, "{turns}");
    }

    #[tokio::test]
    async fn a_tenant_that_sends_text_after_text_waits_for_itself() {
        let work = Arc::new(PolicyWork::default());
        let [evil, acme] = ["evil", "acme"].map(|name| Tenant::parse(name).unwrap());
        let slow = "package t\nallow if count([1 | some a in numbers.range(1, 4000); some b in numbers.range(1, 4000); a + b < 0]) == 0\n";
        let many: Vec<_> = (0..12)
            .map(|_| {
                let (work, evil) = (work.clone(), evil.clone());
                tokio::spawn(async move { work.parse(&evil, "t", slow).await.map(|_| ()) })
            })
            .collect();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        work.parse(&acme, "t", "package t\nallow := true\n").await.unwrap();
        let done = many.iter().filter(|one| one.is_finished()).count();
        assert!(done < 6, "the other tenant waited for {done} of them");
        for one in many {
            one.abort();
        }
    }
}
