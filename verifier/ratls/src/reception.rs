//! What a server does with a peer once its evidence was judged.

use std::sync::Arc;

use crate::{appraisal::Attested, refusal::Refusal, state::ConnectionState};

/// Hears of every judgement of a server's peers, and says who is one of the known.
pub trait Reception<T>: Send + Sync + 'static {
    /// The evidence of a connection was admitted. Whoever is not made [welcome](ConnectionState::welcome) stays among strangers, with
    /// their places and their time.
    fn attested(&self, connection: &Arc<ConnectionState>, attested: &Arc<Attested<T>>);

    /// A peer was refused, and told `id`.
    fn refused(&self, connection: &ConnectionState, refusal: &Refusal, id: &str);
}

/// Whoever attests is one of the known.
pub(crate) struct Everybody;

impl<T> Reception<T> for Everybody {
    fn attested(&self, connection: &Arc<ConnectionState>, _: &Arc<Attested<T>>) {
        connection.welcome();
    }

    fn refused(&self, _: &ConnectionState, _: &Refusal, _: &str) {}
}
