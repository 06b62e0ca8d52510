//! When the time of a connection is up: by what is known of it, because somebody else got its place, or with its key.
//!
//! Never: asks what has ended once more, however often it is looked at afterwards.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::Sleep;

use crate::state::ConnectionState;

type Ends = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Of one connection.
pub(crate) struct Lifetime {
    state: Arc<ConnectionState>,
    timer: Pin<Box<Sleep>>,
    /// Ends when somebody else has got this stranger's place; gone once it is known.
    evicted: Option<Ends>,
    /// Ends when the key that opened it is known no more; nothing where that is not asked.
    gone: Option<Ends>,
    /// Ends when the time that is left has become less.
    nearer: Ends,
    over: bool,
}

/// How long nothing is looked at where there is no end.
const LONG: Duration = Duration::from_hours(24);

impl Lifetime {
    pub(crate) fn of(state: &Arc<ConnectionState>) -> Self {
        let end = state.lives_until().unwrap_or_else(|| Instant::now() + LONG);
        let evicted = state.eviction().map(|eviction| -> Ends { Box::pin(async move { eviction.happens().await }) });
        Self {
            state: state.clone(),
            timer: Box::pin(tokio::time::sleep_until(end.into())),
            evicted,
            gone: None,
            nearer: nearer(state),
            over: false,
        }
    }

    /// It ends when this does.
    pub(crate) fn ends_with(&mut self, gone: impl Future<Output = ()> + Send + 'static) {
        self.gone = Some(Box::pin(gone));
    }

    /// Whether its time is up; it is looked at again when that may have changed.
    pub(crate) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.over = self.over || self.ends_now(cx);
        self.over
    }

    fn ends_now(&mut self, cx: &mut Context<'_>) -> bool {
        if self.state.eviction().is_none() {
            self.evicted = None;
        }
        let mut ended = |ends: &mut Option<Ends>| ends.as_mut().is_some_and(|ends| ends.as_mut().poll(cx).is_ready());
        if ended(&mut self.evicted) || ended(&mut self.gone) {
            return true;
        }
        while self.nearer.as_mut().poll(cx).is_ready() {
            self.nearer = nearer(&self.state);
            if let Some(end) = self.state.lives_until() {
                self.timer.as_mut().reset(end.into());
            }
        }
        while self.timer.as_mut().poll(cx) == Poll::Ready(()) {
            let now = Instant::now();
            let end = self.state.lives_until().unwrap_or(now + LONG);
            if end <= now {
                return true;
            }
            self.timer.as_mut().reset(end.into());
        }
        false
    }
}

fn nearer(state: &ConnectionState) -> Ends {
    let nearer = state.nearer.clone();
    Box::pin(async move { nearer.notified().await })
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::timeout;

    use super::*;
    use crate::{facts::TlsFacts, places::Places};

    const WAIT: Duration = Duration::from_mins(1);

    async fn ends(lifetime: &mut Lifetime) {
        let over = poll_fn(|cx| if lifetime.is_over(cx) { Poll::Ready(()) } else { Poll::Pending });
        timeout(WAIT, over).await.expect("its end");
        // Reading, writing and flushing all look, and go on looking.
        for _ in 0..3 {
            assert!(poll_fn(|cx| Poll::Ready(lifetime.is_over(cx))).await);
        }
    }

    async fn lives(lifetime: &mut Lifetime) -> bool {
        poll_fn(|cx| Poll::Ready(!lifetime.is_over(cx))).await
    }

    fn connected(places: &Places) -> Arc<ConnectionState> {
        let place = places.take(0, Instant::now()).unwrap();
        Arc::new(ConnectionState::new(TlsFacts::for_tests(), (0, Instant::now()), WAIT * 10, place))
    }

    #[tokio::test]
    async fn whatever_ends_it_has_ended_it_for_good() {
        let places = Places::new(2);
        let state = connected(&places);
        let mut hung_up = Lifetime::of(&state);
        assert!(lives(&mut hung_up).await);
        state.hang_up();
        ends(&mut hung_up).await;
        // What comes later brings it not back.
        state.settle();
        ends(&mut hung_up).await;

        let state = connected(&places);
        let mut delisted = Lifetime::of(&state);
        // One that may not be asked once more.
        delisted.ends_with(async { tokio::time::sleep(Duration::from_millis(5)).await });
        ends(&mut delisted).await;
    }

    #[tokio::test]
    async fn a_stranger_that_is_evicted_ends_and_whoever_is_known_has_no_place_to_lose() {
        let places = Places::new(2);
        let [stranger, known] = [connected(&places), connected(&places)];
        let mut lifetimes = [Lifetime::of(&stranger), Lifetime::of(&known)];
        known.settle();
        let _others = [places.take(1, Instant::now()), places.take(2, Instant::now() + WAIT)];
        ends(&mut lifetimes[0]).await;
        assert!(lives(&mut lifetimes[1]).await);
    }
}
