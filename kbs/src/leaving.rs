//! Calls of an operator that is taken away while they run: told so, before the connection ends.
//!
//! What such a call began may have come to its end all the same, as with any answer that is lost.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use coffer_ratls::{KeyList, denied};
use coffer_verifier::abi::SpkiDigest;
use tonic::{
    Code,
    body::Body,
    codegen::http::{Request, Response},
    server::NamedService,
};
use tower::Service;

/// Whose a request is; nothing: nobody's that could be taken away.
pub(crate) type Whose = fn(&Request<Body>) -> Option<SpkiDigest>;

/// A service whose calls end when the key is listed no more that asked.
#[derive(Clone)]
pub(crate) struct UntilGone<S> {
    inner: S,
    listed: KeyList,
    whose: Whose,
}

impl<S> UntilGone<S> {
    pub(crate) fn new(inner: S, listed: KeyList, whose: Whose) -> Self {
        Self { inner, listed, whose }
    }
}

impl<S: NamedService> NamedService for UntilGone<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for UntilGone<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (key, listed) = ((self.whose)(&request), self.listed.clone());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let Some(key) = key else { return answer.await };
            let gone = async {
                listed.unlisted(key).await;
                // Whoever took itself away is told that it did.
                tokio::time::sleep(TIME_TO_ANSWER).await;
            };
            tokio::select! {
                biased;
                answer = answer => answer,
                () = gone => {
                    let (status, id) = denied(Code::PermissionDenied, "key-not-admitted");
                    tracing::info!(%id, %key, "a call under way was ended: its operator was taken away");
                    Ok(status.into_http())
                }
            }
        })
    }
}

/// For an answer that is on its way. Less than a connection stays whose key is listed no more.
const TIME_TO_ANSWER: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    const KEY: SpkiDigest = SpkiDigest::new([7; 32]);

    /// What is heard of a call that takes `long`, whose operator is taken away at once.
    async fn heard(long: Duration, whose: Whose) -> Option<String> {
        let slow = tower::service_fn(move |_: Request<Body>| async move {
            tokio::time::sleep(long).await;
            Ok::<_, Infallible>(Response::new(Body::empty()))
        });
        let listed = KeyList::default();
        listed.replace([KEY]);
        let call = UntilGone::new(slow, listed.clone(), whose).call(Request::new(Body::empty()));
        let call = tokio::spawn(call);
        tokio::task::yield_now().await;
        listed.replace([]);
        let answer = call.await.unwrap().unwrap();
        Status::from_header_map(answer.headers()).map(|status| status.message().to_owned())
    }

    #[tokio::test]
    async fn a_call_whose_operator_is_taken_away_is_told_so_unless_it_is_answered_at_once() {
        let hour = Duration::from_hours(1);
        assert_eq!(heard(hour, |_| Some(KEY)).await.as_deref(), Some("key-not-admitted"));
        assert_eq!(heard(TIME_TO_ANSWER / 10, |_| Some(KEY)).await, None);
        assert_eq!(heard(2 * TIME_TO_ANSWER, |_| None).await, None, "nobody's");
    }
}
