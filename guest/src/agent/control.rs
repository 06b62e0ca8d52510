//! `Control`: state, coarse statistics, stop, logs. Who may has been asked by [`super::gate`], but for what a signal needs.

use std::{pin::Pin, sync::Arc};

use coffer_guest_proto::{
    LogsRequest, LogsResponse, SignalRequest, SignalResponse, StateRequest, StateResponse, StatsRequest, StatsResponse,
    StopRequest, StopResponse, control_server::Control,
};
use coffer_spec::Act;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::{
    Agent,
    authority::Door,
    request,
    shares::{Share, caller},
};
use crate::log_ring::{Entry, Follower};

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

    async fn stats(&self, _: Request<StatsRequest>) -> Result<Response<StatsResponse>, Status> {
        Ok(Response::new(super::stats::read(
            self.agent.places.host,
            self.agent.events.age_us(),
            self.agent.places.control_group.as_deref(),
        )))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopResponse>, Status> {
        self.agent.order_stop(request::stop(request.into_inner())?);
        Ok(Response::new(StopResponse {}))
    }

    async fn signal(&self, request: Request<SignalRequest>) -> Result<Response<SignalResponse>, Status> {
        let number = request::signal(*request.get_ref())?;
        let spec = self.agent.document.spec();
        let act = Act::of_signal(number, spec.process.stop_signal);
        self.door.admit(request.extensions(), &self.agent, act)?;
        let workload = self.agent.workload().ok_or_else(|| Status::failed_precondition("workload-not-running"))?;
        if act == Act::Stop {
            self.agent.ending.is_told();
        }
        workload.signal(number).map_err(|_| Status::failed_precondition("workload-not-running"))?;
        Ok(Response::new(SignalResponse {}))
    }

    type LogsStream = Pin<Box<dyn Stream<Item = Result<LogsResponse, Status>> + Send>>;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let place = self.agent.readers.take(caller(request.extensions()));
        let place = place.ok_or_else(|| Status::resource_exhausted("too-many-readers"))?;
        let LogsRequest { follow, from_sequence } = request.into_inner();
        let logs = &self.agent.logs;
        let follower = if follow { logs.follow(from_sequence) } else { logs.read(from_sequence) };
        Ok(Response::new(Box::pin(hand_on(follower, place))))
    }
}

/// Entries that wait for whoever reads.
pub(super) const WAITING: usize = 2;

/// Entry by entry. `place`: its place among those that may read.
fn hand_on(mut follower: Follower, place: Share) -> ReceiverStream<Result<LogsResponse, Status>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(WAITING);
    tokio::spawn(async move {
        let _place = place;
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
        let lost = follower.lost();
        if lost > 0 && sender.send(Ok(LogsResponse { lost, ..LogsResponse::default() })).await.is_err() {
            return;
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
