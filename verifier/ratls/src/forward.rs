//! Local clients, each led to a server by a stream of its own, on one attested connection that is made anew when it is lost.
//!
//! Trusts: what dials, for who may answer. Never: hands on a byte of a client before the server was admitted on the very connection, nor
//! goes on with one that did not show its evidence again in time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Mutex,
};

use crate::{
    client::AttestedConnection,
    lapse::Lapsed,
    streams::{OpenStream, StreamError, open_stream},
};

/// Makes connections to a server, each of which it has admitted.
pub trait Dial: Send + Sync + 'static {
    /// What admitted evidence gives.
    type Admitted: Send + Sync + 'static;
    /// Why there is no connection.
    type Error: Send + Sync + 'static;

    /// A new connection.
    fn dial(&self) -> impl Future<Output = Result<AttestedConnection<Self::Admitted>, Self::Error>> + Send;
}

impl<D: Dial> Dial for Arc<D> {
    type Admitted = D::Admitted;
    type Error = D::Error;

    fn dial(&self) -> impl Future<Output = Result<AttestedConnection<D::Admitted>, D::Error>> + Send {
        (**self).dial()
    }
}

/// Why a client was not served, or not to its end.
#[derive(Debug)]
#[non_exhaustive]
pub enum ForwardError<E> {
    /// There is no connection.
    Dial(Arc<E>),
    /// The server did not prove itself once more.
    Lapsed(Lapsed),
    /// The server gives no stream.
    Stream(StreamError),
    /// The stream broke off: bytes are missing.
    Broken,
}

impl<E> ForwardError<E> {
    /// The connection is worth nothing any more; another one may be.
    fn is_of_the_connection(&self) -> bool {
        matches!(self, Self::Lapsed(_) | Self::Stream(StreamError::Broke(_) | StreamError::Late))
    }
}

/// The connection that all clients share.
pub struct Forwarder<D: Dial> {
    dial: D,
    current: Mutex<Current<D>>,
}

struct Current<D: Dial> {
    connection: Option<Shared<D>>,
    /// When dialling last failed, and why.
    failed: Option<(Instant, Arc<D::Error>)>,
}

type Shared<D> = Arc<AttestedConnection<<D as Dial>::Admitted>>;

/// How long nobody dials again after that failed: clients of that time hear of the same failure.
const PAUSE: Duration = Duration::from_secs(1);

impl<D: Dial> Forwarder<D> {
    /// Without a connection yet, or with the first.
    pub fn new(dial: D, first: Option<AttestedConnection<D::Admitted>>) -> Self {
        Self { dial, current: Mutex::new(Current { connection: first.map(Arc::new), failed: None }) }
    }

    /// Leads one client until both ends have said all they say, and gives it back then.
    ///
    /// # Errors
    /// [`ForwardError`], and the client where it is still there. Where an end means something to it, it should be one whose drop is a
    /// reset.
    pub async fn lead<C>(&self, client: C) -> Result<C, (ForwardError<D::Error>, Option<C>)>
    where
        C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (connection, mut stream) = match self.opened().await {
            Ok(opened) => opened,
            Err(error) => return Err((error, Some(client))),
        };
        match connection.kept(stream.join(client)).await {
            Ok(joined) => joined.map_err(|client| (ForwardError::Broken, client)),
            Err(lapsed) => {
                self.forget(&connection).await;
                Err((ForwardError::Lapsed(lapsed), stream.take_back()))
            }
        }
    }

    /// A stream, and its connection.
    async fn opened<C>(&self) -> Result<(Shared<D>, OpenStream<C>), ForwardError<D::Error>>
    where
        C: AsyncRead + Send + Unpin + 'static,
    {
        let mut connection = self.connection().await?;
        let mut opened = Self::stream(&connection).await;
        // Nothing of this client's was sent yet: it may have another connection, whose server proves itself anew.
        if opened.as_ref().is_err_and(ForwardError::is_of_the_connection) {
            self.forget(&connection).await;
            connection = self.connection().await?;
            opened = Self::stream(&connection).await;
        }
        Ok((connection, opened?))
    }

    /// A stream; of a connection on which nobody spoke for long, the evidence is asked for first.
    async fn stream<C>(connection: &Shared<D>) -> Result<OpenStream<C>, ForwardError<D::Error>>
    where
        C: AsyncRead + Send + Unpin + 'static,
    {
        connection.renewed_in_time().await.map_err(ForwardError::Lapsed)?;
        open_stream(connection.channel()).await.map_err(ForwardError::Stream)
    }

    /// The connection, or a new one where there is none. One client makes it; the others wait, and hear what it hears.
    async fn connection(&self) -> Result<Shared<D>, ForwardError<D::Error>> {
        let came = Instant::now();
        let mut current = self.current.lock().await;
        if let Some(connection) = &current.connection {
            return Ok(Arc::clone(connection));
        }
        if let Some((at, why)) = &current.failed
            && (*at >= came || at.elapsed() < PAUSE)
        {
            return Err(ForwardError::Dial(Arc::clone(why)));
        }
        match self.dial.dial().await {
            Ok(connection) => {
                current.failed = None;
                Ok(Arc::clone(current.connection.insert(Arc::new(connection))))
            }
            Err(error) => {
                let error = Arc::new(error);
                current.failed = Some((Instant::now(), Arc::clone(&error)));
                Err(ForwardError::Dial(error))
            }
        }
    }

    async fn forget(&self, which: &Shared<D>) {
        let mut current = self.current.lock().await;
        if current.connection.as_ref().is_some_and(|current| Arc::ptr_eq(current, which)) {
            current.connection = None;
        }
    }
}
