//! A look each second at what keeps the rows: files that go away beneath a broker which nobody asks, and room that runs short, are named in
//! its log all the same.
//!
//! Never: stands in for the look at each use, which is what lets nothing through.

use std::{sync::Arc, time::Duration};

use crate::store::Store;

/// From one look to the next.
const EACH: Duration = Duration::from_secs(1);

/// Looks for ever. Says what is found when it is another thing than before.
pub async fn keep_looking(store: Arc<Store>) {
    let (mut found, mut is_short) = (None, false);
    loop {
        tokio::time::sleep(EACH).await;
        let now = store.rows_are_there().err().map(|error| coffer_rim::chain(&error));
        if now != found {
            if let Some(error) = &now {
                tracing::error!(%error, "the database is not as it was opened");
            } else {
                tracing::info!("the database is as it was opened again");
            }
            found = now;
        }
        let short = store.leaves_reserve().err();
        if short.is_some() != is_short {
            if let Some(error) = &short {
                tracing::error!(error = %coffer_rim::chain(error), hint = error.hint(), "guests get nothing");
            } else {
                tracing::info!("there is room again, and guests are answered");
            }
            is_short = short.is_some();
        }
    }
}
