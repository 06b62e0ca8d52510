//! The client of the key distribution service that commands share, and how they say what it did not get.

use std::time::Duration;

use coffer_kds::{Base, FetchError, Item, Kds, Options, failure};
use coffer_verifier::TrustAnchors;

use crate::context::Context;
use crate::error::{self, Class, Classify as _, CliError};

/// A client that keeps what it gets in this installation. `asks`: false for one that asks nobody.
pub fn client(mirror: Option<&Base>, anchors: &TrustAnchors, asks: bool, context: &Context) -> Result<Kds, CliError> {
    let folder = context.open_home()?.root().join("collateral");
    let mut options = match (anchors.accepts_simulated(), mirror) {
        (true, Some(base)) => Options::simulated(base.clone(), anchors.clone()),
        (true, None) if asks => {
            return Err(CliError::new(Class::Usage, "AMD has nothing of a simulator's")
                .hint("name its service with --mirror; `coffer sim kds` is one"));
        }
        (true, None) => Options::simulated(Base::amd(), anchors.clone()),
        (false, Some(base)) => Options::mirror(base.clone()),
        (false, None) => Options::amd(),
    };
    // A person waits, and rather a little than in vain.
    options.patience = Duration::from_secs(40);
    let options = options.kept_in(folder);
    Kds::open(if asks { options } else { options.offline() }).class(Class::Config)
}

/// All of them for people.
pub fn print(failures: &[(Item, FetchError)]) {
    for one in failures {
        error::print(&failure(one), false);
    }
}
