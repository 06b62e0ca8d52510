//! `coffer verify https://HOST:PORT`: what a server shows, how it is judged, and what that does not show.
//!
//! Never: takes a name or an issuer in a certificate for anything, prints text of the peer's as it came.

use std::time::{Duration, SystemTime};

use coffer_ratls::Identity;
use coffer_rim::{Foreign, Reason, chain};
use coffer_runtime::endpoint::{Address, Asking, Shown};
use coffer_runtime::owner_access;
use coffer_verifier::{Expected, ExpectedGuest, ExpectedReportData, MaxAge, UnixTime};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::evidence::judging::{self, Judgement, Judging, Named};
use crate::prove::reference::References;

/// How a server is asked, and which guest it must be.
#[derive(Clone, Debug, clap::Args)]
pub struct Server {
    #[command(flatten)]
    references: References,
    /// Of a server: port of the workload that is meant [default: that of the address].
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    guest_port: Option<u16>,
    /// Show a server this installation's owner key, for a port that takes listed clients alone.
    #[arg(long)]
    as_owner: bool,
    /// Refuse a server that cannot be challenged: evidence in a certificate may be of any age.
    #[arg(long)]
    fresh: bool,
    /// How long a server may take in all; one that says nothing is waited for no longer than 15 [default: 30].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=600))]
    timeout: Option<u16>,
}

const PATIENCE: u16 = 30;

impl Server {
    /// Which server is meant; none where it is a file.
    ///
    /// # Errors
    /// Class `usage`: an address that is none, or a flag that is about the other.
    pub fn address(&self, judging: &Judging) -> Result<Option<Address>, CliError> {
        let text = judging.file.to_str().unwrap_or_default();
        let wrong = |flag: &str, of: &str, hint: &str| {
            Err(CliError::new(Class::Usage, format!("{flag} is about {of}")).hint(hint))
        };
        if !text.contains("://") {
            let flags = [
                ("--guest-port", self.guest_port.is_some()),
                ("--as-owner", self.as_owner),
                ("--fresh", self.fresh),
                ("--timeout", self.timeout.is_some()),
            ];
            return match flags.into_iter().find(|(_, given)| *given) {
                Some((flag, _)) => {
                    let hint = match flag {
                        "--fresh" => {
                            "that a file is no old one, --nonce, --workload-data or --report-data shows: what its maker was given to put into it"
                        }
                        _ => "leave it out, or name https://HOST:PORT in place of the file",
                    };
                    wrong(flag, "a server, https://HOST:PORT", hint)
                }
                None => Ok(None),
            };
        }
        if judging.report_data.is_some() {
            return wrong("--report-data", "a file", "of a server, the connection and its challenge say it");
        }
        if judging.nonce.is_some() {
            return wrong("--nonce", "a file", "a server is challenged on its connection");
        }
        if judging.workload_data.is_some() {
            return wrong("--workload-data", "a file", "of a server, the connection and its challenge say it");
        }
        if judging.at.is_some() {
            return wrong("--at", "a file", "a server is judged now");
        }
        let address = text.parse::<Address>().class(Class::Usage);
        address.map(Some).map_err(|error| error.hint("write https://HOST:PORT, with nothing behind the port"))
    }

    /// Which guest is expected. `most`: how old the manifest of one may be at `now`.
    ///
    /// # Errors
    /// As [`References::read`].
    pub fn guest(&self, most: MaxAge, now: UnixTime) -> Result<ExpectedGuest, CliError> {
        self.references.guest(most, now)
    }

    /// Asks it. `most`: how old the manifest of a guest that it may be, may be.
    ///
    /// # Errors
    /// It shows nothing that could be judged, or not what is demanded.
    pub fn look(&self, address: &Address, most: MaxAge, context: &Context) -> Result<Looked, CliError> {
        let guest = self.guest(most, SystemTime::now().into())?;
        let identity = if self.as_owner {
            owner_access::load(&context.open_home()?.owner())?
        } else {
            Identity::generate("coffer verify").class(Class::Internal)?
        };
        let patience = Duration::from_secs(self.timeout.unwrap_or(PATIENCE).into());
        let asking = Asking { address: address.clone(), guest_port: self.guest_port, patience };
        let runtime = context.runtime()?;
        let shown = runtime.block_on(asking.look(&identity));
        // A resolver that hangs is not waited for.
        runtime.shutdown_background();
        let shown = shown?;
        if let Some(why) = shown.not_challenged.as_ref().filter(|_| self.fresh) {
            let message = format!("{address} cannot be challenged: {}", chain(why));
            let mut failure = CliError::new(Class::Refused, message).hint(CHALLENGE_HINT);
            failure.reason = Some(Reason { code: "not-challenged".to_owned(), denial_id: None });
            return Err(failure);
        }
        Ok(Looked { address: address.clone(), guest, shown })
    }
}

const CHALLENGE_HINT: &str = "a server that speaks RA-TLS can be challenged, as a port of `coffer run -p HOST-PORT:PORT/ra-tls` does; --guest-port names the workload's own port where it is not that of the address; --as-owner shows this \
    installation's key to a port that takes listed clients alone";

/// What a server showed.
pub struct Looked {
    address: Address,
    guest: ExpectedGuest,
    shown: Shown,
}

impl Looked {
    /// Judges it.
    pub fn judge(&self, args: &Judging, policy: &Named, context: &Context) -> Result<Judgement, CliError> {
        let report_data = ExpectedReportData::Exactly(self.shown.report_data);
        let expected = Expected { report_data, guest: self.guest.clone() };
        judging::judge_shown(args, &self.shown.evidence, &expected, policy, context)
    }

    /// What the verdict is about.
    pub fn subject(&self) -> String {
        match self.shown.not_challenged {
            None => format!("{}, challenged on this connection", self.address),
            Some(_) => format!("{}, by its certificate alone", self.address),
        }
    }

    /// What the verdict does not say.
    fn not_shown(&self) -> Vec<(&'static str, &'static str)> {
        let mut all = Vec::new();
        if self.shown.not_challenged.is_some() {
            all.push((
                "freshness",
                "the report was made when the certificate was: the guest may be gone, or changed, since",
            ));
            all.push((
                "connection",
                "that this connection ends in the guest: it ends where the certificate's key is, and a key that leaked is elsewhere too",
            ));
        }
        if self.guest == ExpectedGuest::WhateverThePolicyAdmits {
            all.push(("guest", "which guest it is: no --reference names one, and any that the policy admits would do"));
        }
        all
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let not_shown: Vec<_> =
            self.not_shown().into_iter().map(|(code, text)| json!({ "code": code, "text": text })).collect();
        json!({
            "address": self.address.to_string(),
            "challenged": self.shown.not_challenged.is_none(),
            "not_challenged": self.shown.not_challenged.as_ref().map(|why| chain(why)),
            "tls_key": self.shown.key,
            "not_shown": not_shown,
        })
    }

    /// Prints what stands beside the verdict.
    pub fn print(&self) {
        println!("  TLS key      {}", self.shown.key);
        for (_, text) in self.not_shown() {
            println!("  not shown    {text}");
        }
        if let Some(why) = &self.shown.not_challenged {
            println!("  no challenge {}", Foreign(&chain(why)));
            println!("  hint: {CHALLENGE_HINT}");
        }
    }
}
