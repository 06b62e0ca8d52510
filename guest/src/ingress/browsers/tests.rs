use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

use super::issuer::TestIssuer;

const QUICK: Pace =
    Pace { again: Duration::from_millis(50), soonest: Duration::from_millis(50), patience: Duration::from_millis(500) };
const WAIT: Duration = Duration::from_secs(20);

/// Gives certificates of so many seconds; refuses, or says nothing, when it is told to.
#[derive(Clone)]
struct Broker {
    root: Arc<TestIssuer>,
    lasts: Duration,
    asked: Arc<AtomicU32>,
    refuse: fn(u32) -> Option<Refuse>,
}

enum Refuse {
    Say,
    Hang,
    Busy,
}

impl Issuer for Broker {
    async fn issue(&self, profile: &str, request: &[u8]) -> Result<Vec<Vec<u8>>, ClientError> {
        let before = self.asked.fetch_add(1, Ordering::SeqCst);
        match (self.refuse)(before) {
            Some(Refuse::Say) => Err(ClientError::Refused { code: "not-released".into(), id: "00ab".into() }),
            Some(Refuse::Hang) => std::future::pending().await,
            Some(Refuse::Busy) => Err(ClientError::TooOften),
            None => Ok(self.root.issue(request, &format!("{profile}.example"), self.lasts)),
        }
    }
}

fn broker(lasts: Duration, refuse: fn(u32) -> Option<Refuse>) -> Broker {
    Broker { root: Arc::new(TestIssuer::new()), lasts, asked: Arc::default(), refuse }
}

fn ports() -> Vec<Arc<Certified>> {
    ["web", "api"].map(|name| Arc::new(Certified::new(8080, &name.parse().unwrap(), 2).unwrap())).to_vec()
}

async fn is_asked(broker: &Broker, times: u32) {
    let asked = async {
        while broker.asked.load(Ordering::SeqCst) < times {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(WAIT, asked).await.unwrap_or_else(|_| panic!("asked {:?} times of {times}", broker.asked));
}

#[tokio::test]
async fn each_port_gets_its_certificate_and_the_next_one_before_that_ends() {
    let broker = broker(Duration::from_secs(3), |_| None);
    let kept = first(ports(), QUICK, async { Ok(broker.clone()) }).await.map_err(|(what, _)| what).unwrap();
    assert_eq!(broker.asked.load(Ordering::SeqCst), 2);
    let end = SystemTime::now() + Duration::from_secs(3);
    assert!(kept.iter().all(|(_, due)| *due < end), "due after its end");
    let again = broker.clone();
    tokio::spawn(keep(kept, QUICK, move || std::future::ready(Ok(again.clone()))));
    is_asked(&broker, 6).await;
}

#[tokio::test]
async fn a_refusal_names_its_profile_and_a_broker_that_says_nothing_is_not_waited_for() {
    let refuses = broker(WAIT, |_| Some(Refuse::Say));
    let (what, error) = first(ports(), QUICK, async { Ok(refuses) }).await.map(drop).unwrap_err();
    assert_eq!(what, "certificate web");
    assert!(matches!(error, ClientError::Refused { .. }), "{error}");
    let hangs = broker(WAIT, |_| Some(Refuse::Hang));
    let (_, error) = first(ports(), QUICK, async { Ok(hangs) }).await.map(drop).unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_broker_that_wants_fewer_questions_is_asked_again_before_the_start_fails() {
    let busy = broker(WAIT, |before| (before == 0).then_some(Refuse::Busy));
    let kept = first(ports(), Pace { patience: WAIT, ..QUICK }, async { Ok(busy.clone()) }).await;
    assert_eq!(kept.map_err(|(what, _)| what).unwrap().len(), 2);
    assert_eq!(busy.asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn what_was_not_given_is_asked_for_again() {
    let broker = broker(Duration::from_hours(1), |before| match before {
        2 => Some(Refuse::Say),
        3 => Some(Refuse::Hang),
        _ => None,
    });
    let mut kept = first(ports(), QUICK, async { Ok(broker.clone()) }).await.map_err(|(what, _)| what).unwrap();
    for (_, due) in &mut kept {
        *due = SystemTime::now();
    }
    let again = broker.clone();
    tokio::spawn(keep(kept, QUICK, move || std::future::ready(Ok(again.clone()))));
    // Refused, without an answer, and then both.
    is_asked(&broker, 6).await;
}
