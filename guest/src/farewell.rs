//! What a guest waits for before it ends: that its output is read, and that whoever was told something has it.
//!
//! Trusts: nobody. Never: waits for longer than it says here, whatever a host does.

use std::{sync::Arc, time::Duration};

use coffer_spec::{Act, Tee};

use crate::{agent::Agent, events::Events, host::Ports};

/// Stays up for whoever may read the output, until somebody has read all of it, or is told to stop.
pub async fn linger(agent: &Arc<Agent>) {
    let spec = agent.document.spec();
    // An owner comes for what there is to be read.
    let readers = spec.host_may.contains(Act::Logs)
        || spec.tee != Tee::None
            && agent.logs.has_output()
            && agent.owners.now().iter().any(|owner| owner.may.contains(Act::Logs));
    let patience = if readers || agent.logs.is_followed() { LINGER } else { Duration::from_millis(300) };
    let mut stop = agent.stop_orders();
    let stopped = async {
        let _ = stop.wait_for(Option::is_some).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    tokio::select! {
        () = agent.logs.drained() => {}
        () = tokio::time::sleep(patience) => {}
        () = stopped => {}
    }
}

/// Until all who were told something have it: they hang up then. Whoever does not is waited for as long as that takes to leave.
pub async fn farewell(events: &Arc<Events>, ports: &Ports, patience: Duration) {
    let events = events.clone();
    let heard = tokio::task::spawn_blocking(move || events.wait_until_heard(patience));
    let _ = tokio::time::timeout(patience, async { tokio::join!(ports.hung_up(), heard) }).await;
}

/// How long the guest stays up after the workload for whoever still reads its output.
const LINGER: Duration = Duration::from_secs(5);
