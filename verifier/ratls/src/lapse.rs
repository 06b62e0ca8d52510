//! That a server did not prove itself once more, and who is told.

use std::{sync::Arc, time::Instant};

use tokio::sync::{Mutex, watch};

use crate::connect_error::ConnectError;

/// Why a long call ended before its end: the server did not show once more what it showed at first.
///
/// It is the end of every long call of the connection, of those that run and of those that are to come.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the peer was challenged again and did not prove itself")]
pub struct Lapsed(#[source] pub Arc<ConnectError>);

/// What the long calls of one connection share.
#[derive(Default)]
pub(crate) struct Keeping {
    /// Whoever asks again, asks for all. When that last failed, if nothing came since.
    pub turn: Mutex<Option<Instant>>,
    /// What all of them hear.
    pub lapsed: watch::Sender<Option<Lapsed>>,
}
