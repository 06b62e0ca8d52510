//! Evidence that is completed before it is judged.

mod common;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use coffer_ratls::{Appraiser, AttestationService, ClientRule, Completer, Purpose, Refusal};
use coffer_verifier::{abi::ReportData, evidence::Evidence};
use common::{Raw, Server};
use tokio::sync::Semaphore;

/// Puts a list beside what came, and makes the first ones wait.
struct Slow {
    asked: AtomicUsize,
    waits: usize,
    enough: Semaphore,
}

impl Slow {
    fn new(waits: usize) -> Arc<Self> {
        Arc::new(Self { asked: AtomicUsize::new(0), waits, enough: Semaphore::new(0) })
    }
}

#[tonic::async_trait]
impl Completer for Slow {
    async fn complete(&self, evidence: &mut Evidence) {
        if self.asked.fetch_add(1, Ordering::SeqCst) < self.waits {
            let _ = self.enough.acquire().await;
        }
        evidence.crls.push(b"got".to_vec());
    }
}

/// Keeps what it is shown.
#[derive(Default)]
struct Sees(Mutex<Vec<Evidence>>);

impl Appraiser for Sees {
    type Admitted = ();

    fn appraise(&self, evidence: &Evidence, _: &ReportData) -> Result<(), Refusal> {
        self.0.lock().unwrap().push(evidence.clone());
        Ok(())
    }
}

fn broker(completer: &Arc<Slow>) -> (Server, Arc<Sees>) {
    let sees = Arc::new(Sees::default());
    let attestation = AttestationService::verifier(sees.clone()).completed_by(Some(completer.clone()));
    (Server::start(attestation, ClientRule::AttestedAfter, Purpose::Kbs), sees)
}

#[tokio::test]
async fn it_is_judged_with_what_was_got_and_only_if_it_is_of_its_connection() {
    let completer = Slow::new(0);
    let (server, sees) = broker(&completer);
    let mut peer = Raw::connect(&server, Purpose::Kbs).await;
    peer.attempt(|_| {}).await.unwrap();
    assert_eq!(sees.0.lock().unwrap()[0].crls, [b"got".to_vec()]);
    // Nothing is asked for a report of another challenge.
    let mut peer = Raw::connect(&server, Purpose::Kbs).await;
    peer.attempt(|fields| fields.challenge = [9; 32]).await.unwrap_err();
    assert_eq!((completer.asked.load(Ordering::SeqCst), sees.0.lock().unwrap().len()), (1, 1));
}

#[tokio::test]
async fn whoever_waits_for_it_keeps_nobody_waiting() {
    const WAITING: usize = 20;
    let completer = Slow::new(WAITING);
    let (server, sees) = broker(&completer);
    let mut waiting = Vec::new();
    for _ in 0..WAITING {
        let mut peer = Raw::connect(&server, Purpose::Kbs).await;
        waiting.push(tokio::spawn(async move { peer.attempt(|_| {}).await.map(drop) }));
    }
    let all_wait = async {
        while completer.asked.load(Ordering::SeqCst) < WAITING {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all_wait).await.expect("some wait for a place to wait");
    let mut peer = Raw::connect(&server, Purpose::Kbs).await;
    let judged = tokio::time::timeout(Duration::from_secs(10), peer.attempt(|_| {})).await;
    judged.expect("it waits for those who wait").unwrap();
    assert_eq!(sees.0.lock().unwrap().len(), 1);
    completer.enough.add_permits(WAITING);
    for one in waiting {
        one.await.unwrap().unwrap();
    }
}
