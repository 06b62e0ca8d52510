//! The client of the key distribution service that commands share, and how they say what it waits for and what it did not get.

use std::pin::pin;
use std::time::Duration;

use coffer_kds::{Base, FetchError, Item, Kds, Options, UnderWay, failure};
use coffer_verifier::TrustAnchors;
use serde_json::Value;
use tokio::time::{Instant, sleep};

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
    options.patience = PATIENCE;
    let options = options.kept_in(folder);
    Kds::open(if asks { options } else { options.offline() }).class(Class::Config)
}

/// How long one item is waited for, pauses of the service included.
const PATIENCE: Duration = Duration::from_secs(40);
/// Whoever waits for no longer is told nothing.
const MOMENT: Duration = Duration::from_secs(1);
/// How often is looked what there is to tell.
const LOOK: Duration = Duration::from_millis(200);

/// What the work gives. Where that takes longer than a moment, people are told on standard error what is waited for, once for each
/// thing.
pub async fn waited<T>(kds: &Kds, context: &Context, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if context.json {
        return work.await;
    }
    let (begun, mut told) = (Instant::now(), None);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = sleep(LOOK) => {}
        }
        let way = kds.under_way();
        if begun.elapsed() >= MOMENT && !way.items.is_empty() && told.as_ref() != Some(&way) {
            eprintln!("coffer: {}", words(&way, Instant::now()));
            told = Some(way);
        }
    }
}

/// What is waited for, whose word it is that it takes so long, and how long that is at most.
fn words(way: &UnderWay, now: Instant) -> String {
    let service = way.service.as_ref().map_or_else(|| "the service".to_owned(), ToString::to_string);
    let items = way.items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match way.pause_until {
        Some(until) => {
            let seconds = until.saturating_duration_since(now).as_secs_f64().ceil();
            format!("{service} wants no request for {seconds} s: waiting for {items}")
        }
        None => format!("waiting for {service}, {} s at most: {items}", PATIENCE.as_secs()),
    }
}

/// Who was asked, and for whose.
#[derive(Clone, Debug)]
pub struct Asked {
    /// None, where nobody was.
    pub service: Option<Base>,
    /// For a simulator's.
    pub simulated: bool,
}

impl Asked {
    /// As it is named on a command line: AMD's where no mirror is.
    pub fn of(mirror: Option<&Base>, simulated: bool) -> Self {
        Self { service: Some(mirror.cloned().unwrap_or_else(Base::amd)), simulated }
    }

    fn words(&self) -> coffer_kds::Asked<'_> {
        coffer_kds::Asked { service: self.service.as_ref(), mirror: "--mirror URL" }
    }

    /// A mirror was asked for AMD's, and may be somebody else's service.
    fn is_mirror(&self) -> bool {
        !self.simulated && self.service.as_ref().is_some_and(|service| !service.is_amd())
    }
}

/// One that was not got.
pub fn failed(one: &(Item, FetchError), asked: &Asked) -> CliError {
    let failure = failure(one, asked.words());
    let foreign = matches!(&one.1, FetchError::Unfit(unfit) if unfit.is_of_another_root());
    if foreign && asked.is_mirror() { failure.hint(NOT_AMDS) } else { failure }
}

const NOT_AMDS: &str = "it does not rest on AMD's root: check the mirror; where it serves a simulator, what it gives is simulated, and \
    believed with --allow-simulated alone";

/// All of them for people.
pub fn print(failures: &[(Item, FetchError)], asked: &Asked) {
    for one in failures {
        error::print(&failed(one, asked), false);
    }
}

/// All of them for programs.
pub fn json(failures: &[(Item, FetchError)], asked: &Asked) -> Value {
    let mut all = coffer_kds::failures_json(failures, asked.words());
    for (said, one) in all.as_array_mut().into_iter().flatten().zip(failures) {
        said["error"] = failed(one, asked).json()["error"].take();
    }
    all
}

#[cfg(test)]
mod tests {
    use coffer_verifier::abi::{ProductLine, SigningKey};

    use super::*;

    #[test]
    fn whoever_waits_is_told_for_what_and_for_how_long() {
        let (now, key) = (Instant::now(), SigningKey::Vcek);
        let items =
            vec![Item::Chain { product: ProductLine::Genoa, key }, Item::Crl { product: ProductLine::Milan, key }];
        let named = "VCEK chain of Genoa, VCEK revocation list of Milan";
        let mut way = UnderWay { service: Some(Base::amd()), items, pause_until: None };
        assert_eq!(words(&way, now), format!("waiting for https://kdsintf.amd.com, 40 s at most: {named}"));
        way.pause_until = Some(now + Duration::from_millis(11_200));
        let said = format!("https://kdsintf.amd.com wants no request for 12 s: waiting for {named}");
        assert_eq!(words(&way, now), said);
    }
}
