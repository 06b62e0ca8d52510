//! `Control`: state, coarse statistics, stop, logs.

use std::{pin::Pin, sync::Arc};

use coffer_guest_proto::{
    LogsRequest, LogsResponse, SignalRequest, SignalResponse, StateRequest, StateResponse, StatsRequest, StatsResponse,
    StopRequest, StopResponse, control_server::Control,
};
use coffer_spec::Act;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::{Agent, authority::Door, request};
use crate::{
    events::since_boot_us,
    log_ring::{Entry, LogRing},
};

pub(super) struct ControlService {
    pub(super) agent: Arc<Agent>,
    pub(super) door: Door,
}

#[tonic::async_trait]
impl Control for ControlService {
    async fn state(&self, _: Request<StateRequest>) -> Result<Response<StateResponse>, Status> {
        let state = *self.agent.events.watch().borrow();
        Ok(Response::new(StateResponse { phase: state.phase.into(), exit_status: state.exit_status }))
    }

    async fn stats(&self, request: Request<StatsRequest>) -> Result<Response<StatsResponse>, Status> {
        self.door.admit(request.extensions(), self.agent.document.spec(), Act::Stats)?;
        let info = rustix::system::sysinfo();
        let unit = u64::from(info.mem_unit.max(1));
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Ok(Response::new(StatsResponse {
            memory_total_bytes: info.totalram.saturating_mul(unit),
            memory_available_bytes: available_bytes(&meminfo).unwrap_or(info.freeram.saturating_mul(unit)),
            uptime_us: since_boot_us(),
            processes: u32::from(info.procs),
        }))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopResponse>, Status> {
        self.door.admit(request.extensions(), self.agent.document.spec(), Act::Stop)?;
        self.agent.order_stop(request::stop(request.into_inner())?);
        Ok(Response::new(StopResponse {}))
    }

    async fn signal(&self, request: Request<SignalRequest>) -> Result<Response<SignalResponse>, Status> {
        let number = request::signal(*request.get_ref())?;
        let spec = self.agent.document.spec();
        self.door.admit(request.extensions(), spec, Act::of_signal(number, spec.process.stop_signal))?;
        let workload = self.agent.workload().ok_or_else(|| Status::failed_precondition("workload-not-running"))?;
        workload.signal(number).map_err(|_| Status::failed_precondition("workload-not-running"))?;
        Ok(Response::new(SignalResponse {}))
    }

    type LogsStream = Pin<Box<dyn Stream<Item = Result<LogsResponse, Status>> + Send>>;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        self.door.admit(request.extensions(), self.agent.document.spec(), Act::Logs)?;
        let LogsRequest { follow, from_sequence } = request.into_inner();
        let logs = &self.agent.logs;
        if follow {
            return Ok(Response::new(Box::pin(follow_logs(logs, from_sequence))));
        }
        let mut at = if from_sequence <= 1 { Some(0) } else { None };
        let kept = logs.snapshot(from_sequence).into_iter().map(move |entry| {
            let lost = at.take().map_or(0, |at| entry.before.saturating_sub(at));
            Ok(response(entry, lost))
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(kept))))
    }
}

fn follow_logs(logs: &Arc<LogRing>, from: u64) -> ReceiverStream<Result<LogsResponse, Status>> {
    let mut follower = logs.follow(from);
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                entry = follower.next() => {
                    let Some(entry) = entry else { break };
                    if sender.send(Ok(response(entry, follower.lost()))).await.is_err() {
                        return;
                    }
                }
                () = sender.closed() => return,
            }
        }
        // The follower counts as reading until then.
        handed_on(&sender).await;
    });
    ReceiverStream::new(receiver)
}

/// Until everything has been handed on, or nobody takes it.
async fn handed_on<T>(sender: &tokio::sync::mpsc::Sender<T>) {
    while sender.capacity() < sender.max_capacity() && !sender.is_closed() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

fn response(entry: Entry, lost: u64) -> LogsResponse {
    LogsResponse {
        stream: entry.stream.into(),
        data: entry.data,
        unix_nanos: entry.unix_nanos,
        sequence: entry.sequence,
        lost,
    }
}

fn available_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_from_its_line() {
        assert_eq!(available_bytes("MemTotal: 9 kB\nMemAvailable:      12 kB\n"), Some(12 * 1024));
        assert_eq!(available_bytes("MemTotal: 9 kB\n"), None);
    }
}
