//! How many requests of a connection are under way: whoever has none asks for nothing, and is only there.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use coffer_verifier::abi::SpkiDigest;
use http::{Request, Response};
use hyper::body::{Body, Frame, SizeHint};
use tower::{Layer, Service};

use crate::state::{ConnectionState, UnderWay};

/// Says of a key whether it is known.
pub(crate) type Known = Arc<dyn Fn(&SpkiDigest) -> bool + Send + Sync>;

/// Ends when the key of a connection is known no longer and nothing that it asked for is under way, or some of it still is after a while.
/// `looks`: how often that is asked, and that while.
pub(crate) async fn forgotten(state: Arc<ConnectionState>, known: Known, (look, most): (Duration, Duration)) {
    let mut since = None;
    loop {
        tokio::time::sleep(look).await;
        if known(state.peer_spki()) {
            since = None;
        } else if state.is_idle() || since.get_or_insert_with(Instant::now).elapsed() >= most {
            return;
        }
    }
}

/// Counts them, from a request's head until its answer was taken.
#[derive(Clone, Copy)]
pub(crate) struct Counted;

impl<S> Layer<S> for Counted {
    type Service = Counting<S>;

    fn layer(&self, service: S) -> Counting<S> {
        Counting { service }
    }
}

#[derive(Clone)]
pub(crate) struct Counting<S> {
    service: S,
}

impl<S, B, A> Service<Request<B>> for Counting<S>
where
    S: Service<Request<B>, Response = Response<A>>,
    S::Future: Send + 'static,
{
    type Response = Response<Answer<A>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let under_way = request.extensions().get::<Arc<ConnectionState>>().map(ConnectionState::begin);
        let answer = self.service.call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| Answer { body, _under_way: under_way })) })
    }
}

/// An answer on its way.
pub(crate) struct Answer<A> {
    body: A,
    _under_way: Option<UnderWay>,
}

impl<A: Body + Unpin> Body for Answer<A> {
    type Data = A::Data;
    type Error = A::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<A::Data>, A::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::time::timeout;

    use super::*;
    use crate::facts::TlsFacts;
    use crate::places::Places;

    const LOOK: Duration = Duration::from_millis(5);
    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_mins(1);

    fn connected() -> Arc<ConnectionState> {
        let place = Places::new(1).take(0, Instant::now()).unwrap();
        Arc::new(ConnectionState::new(TlsFacts::for_tests(), (0, Instant::now()), LONG, place))
    }

    #[tokio::test]
    async fn what_never_ends_keeps_nobody_in() {
        let state = connected();
        let _under_way = state.begin();
        timeout(LONG, forgotten(state.clone(), Arc::new(|_| false), (LOOK, SHORT))).await.expect("its time is up");
        let known: Known = Arc::new(|_| true);
        assert!(timeout(SHORT * 2, forgotten(state, known, (LOOK, SHORT))).await.is_err(), "whoever is known stays");
    }

    #[tokio::test]
    async fn a_key_that_is_known_no_longer_stays_until_what_it_began_is_over() {
        let state = connected();
        let listed = Arc::new(AtomicBool::new(true));
        let known: Known = {
            let listed = listed.clone();
            Arc::new(move |_| listed.load(Ordering::Relaxed))
        };
        let mut gone = Box::pin(forgotten(state.clone(), known, (LOOK, LONG)));
        assert!(timeout(SHORT, &mut gone).await.is_err(), "it is known");
        let under_way = state.begin();
        listed.store(false, Ordering::Relaxed);
        assert!(timeout(SHORT, &mut gone).await.is_err(), "what it began goes on");
        drop(under_way);
        timeout(LONG, gone).await.expect("it is only there");
    }
}
