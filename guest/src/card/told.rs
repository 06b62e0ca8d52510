//! What the card's rules dropped, said among the workload's output: for whoever may read that.

use std::{sync::Arc, time::Duration};

use super::{Direction, Held, Refused};
use crate::{log_ring::LogRing, notices::Notices};

/// How far looks are apart.
const PAUSE: Duration = Duration::from_secs(10);

/// Looks and says, for as long as the guest lives: what is new, and seldom where it does not end.
pub async fn tell(held: &'static Held, logs: Arc<LogRing>) {
    let notices = Notices::of_strangers(&logs, "network card".into());
    let mut before = Vec::new();
    loop {
        tokio::time::sleep(PAUSE).await;
        let now = held.dropped();
        if now != before {
            notices.say(&line(&now)).await;
            before = now;
        }
    }
}

/// All that was dropped since the guest started.
fn line(dropped: &[(Direction, Refused, u64)]) -> String {
    let each = dropped.iter().map(|(way, why, count)| {
        let whose = if *way == Direction::In { "to the guest" } else { "of the guest" };
        format!("{count} {whose} {}", why.words())
    });
    format!("dropped frames: {}", each.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_stands_in_one_line() {
        let dropped = [(Direction::In, Refused::Begins, 7), (Direction::Out, Refused::Rules, 1)];
        let said =
            "dropped frames: 7 to the guest that would begin what no rule allows, 1 of the guest that no rule allows";
        assert_eq!(line(&dropped), said);
        let all: Vec<_> =
            Direction::ALL.into_iter().flat_map(|way| Refused::ALL.map(|why| (way, why, u64::MAX))).collect();
        assert!(line(&all).len() < 2 * crate::notices::LONGEST);
    }
}
