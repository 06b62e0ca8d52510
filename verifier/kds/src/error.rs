//! Why an item is not at hand.

use std::borrow::Cow;
use std::time::Duration;

use coffer_verifier::{CertificateIssuerError, ChainError, CrlIssuerError, EndorsementError, Look};

use crate::address::{Base, Item};
use crate::check::Unfit;

/// Why an item is not at hand. A judgement goes on without it, and says what it lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Nobody serves it.
    #[error("no service has it")]
    NoAddress,
    /// This client asks nobody.
    #[error("it is not kept here, and nobody is asked")]
    Offline,
    /// The service has none.
    #[error("the service has none (status {status})")]
    None {
        /// HTTP status.
        status: u16,
    },
    /// The service wants to be left alone.
    #[error("it wants no request for {} s (status {status})", retry_after.as_secs().max(1))]
    Busy {
        /// Until then.
        retry_after: Duration,
        /// HTTP status with which it said so last.
        status: u16,
    },
    /// Chips not seen before have used up what may be asked for them.
    #[error("too many certificates of this kind were asked for; one may be again in {} s", retry_after.as_secs().max(1))]
    Budget {
        /// Until then.
        retry_after: Duration,
    },
    /// No answer in time.
    #[error("no whole answer within {} s", within.as_secs().max(1))]
    Slow {
        /// The longest that was waited.
        within: Duration,
    },
    /// The folder's disk does not answer.
    #[error("the folder of what is kept does not answer in time")]
    Folder,
    /// An answer longer than any item.
    #[error("the answer is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// A status that says nothing of the item.
    #[error("it answers with status {status}")]
    Status {
        /// HTTP status.
        status: u16,
    },
    /// It names another address, which is not asked.
    #[error("it points elsewhere (status {status}): {to}")]
    Redirect {
        /// HTTP status.
        status: u16,
        /// Where, cut; foreign text.
        to: String,
    },
    /// No connection, or no HTTP.
    #[error("{reason}")]
    Failed {
        /// In words.
        reason: String,
    },
    /// The answer is not what was asked for.
    #[error("the answer cannot be used")]
    Unfit(#[from] Unfit),
}

/// Who was asked, for whoever says what came of it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The service; none, where nobody is asked.
    pub service: Option<&'a Base>,
    /// How a program's user names a mirror: a flag, or a key of its configuration.
    pub mirror: &'static str,
}

impl FetchError {
    /// What helps, of this item.
    pub fn hint(&self, item: &Item, asked: Asked<'_>) -> Cow<'static, str> {
        let Asked { service, mirror } = asked;
        let amds = service.is_none_or(Base::is_amd);
        // Where to turn, whoever was asked.
        let other = if amds { format!("name a mirror with {mirror}") } else { format!("name another with {mirror}") };
        match self {
            Self::NoAddress => {
                "a VLEK certificate is the cloud provider's to give, in the certificate table of the extended report: have that sent with the \
                 evidence, or import that table"
                    .into()
            }
            Self::Offline => "import it from where there is a network".into(),
            Self::None { .. } if !item.is_leaf() => {
                format!("each service such as AMD's has that: this is none, or its address is wrong, or {other}").into()
            }
            Self::None { .. } if amds => {
                "AMD has none: no chip has that identity at that TCB, or it is too new; check that the report is whole, and that no proxy \
                 answered in AMD's place"
                    .into()
            }
            Self::None { .. } => {
                format!("no chip has that identity at that TCB, or the mirror has not got it: {other}").into()
            }
            Self::Busy { .. } | Self::Budget { .. } => "try again then, or have the guest send its certificates".into(),
            Self::Status { status: 401 | 403 | 407 | 511 } => {
                format!("whoever asks must be known there: a proxy or a portal may stand between; open that network, or {other}").into()
            }
            Self::Status { status: 500.. } => format!("it fails by itself: try again later, or {other}").into(),
            Self::Status { .. } => format!("that is no service such as AMD's: check its address, or {other}").into(),
            Self::Redirect { .. } if amds => {
                format!("it is not followed: AMD's service does not do that, but a portal or a proxy does; open that network, or {other}").into()
            }
            Self::Redirect { .. } => {
                format!("it is not followed: where you trust that address, name what of it stands before AMD's path with {mirror}").into()
            }
            Self::Slow { .. } | Self::Failed { .. } if amds => {
                format!("check network, DNS and proxy, {other}, or have the guest send its certificates").into()
            }
            Self::Slow { .. } | Self::Failed { .. } => {
                format!("check that the mirror runs and that its address is right, or {other}").into()
            }
            Self::Folder => "look at the disk that the folder is on".into(),
            Self::TooLong { .. } => format!("nothing of AMD's is as long: check the address, or {other}").into(),
            Self::Unfit(unfit) => unfit_hint(unfit, amds, &other),
        }
    }

    /// When it is worth asking again, where that was said.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } | Self::Budget { retry_after } => Some(*retry_after),
            _ => None,
        }
    }
}

/// What helps against an answer that is not what was asked for.
fn unfit_hint(unfit: &Unfit, amds: bool, other: &str) -> Cow<'static, str> {
    match unfit {
        Unfit::Form(EndorsementError::Other { found: Look::Html | Look::Xml | Look::Text | Look::Json, .. }) => {
            let who = if amds { "somebody between here and AMD" } else { "the mirror, or somebody before it," };
            format!("{who} answered with something to read, as a captive portal or a proxy does: open that network, or {other}").into()
        }
        Unfit::Form(EndorsementError::Other { found: Look::Empty, .. }) => {
            format!("the answer is empty: try again later, or {other}").into()
        }
        Unfit::Crl(CrlIssuerError::Chain(ChainError::CrlDates { from, to, now, .. })) if now > to => {
            let whose = if amds { "a cache between here and AMD" } else { "the mirror's copy" };
            format!("its nextUpdate, {to}, is over ({from} was its day): {whose} is old; have it renewed, {other}, or check the clock").into()
        }
        Unfit::Certificate(CertificateIssuerError::Chain(ChainError::Dates { .. }))
        | Unfit::Crl(CrlIssuerError::Chain(ChainError::CrlDates { .. })) => {
            format!("check the clock of this machine; where it is right, {other}").into()
        }
        Unfit::Other { .. } => {
            format!("it is a genuine item, and not the one asked for: have the service mended, or {other}").into()
        }
        Unfit::Older { .. } | Unfit::Unrevoked { .. } => {
            format!("a list never goes back: whoever answers has an old copy; have it renewed, or {other}").into()
        }
        _ => format!("the service is not what it should be: check its address, or {other}").into(),
    }
}
