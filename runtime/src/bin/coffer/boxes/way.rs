//! The way of our signals into a box that runs in the foreground, and what ends one that has none.

use std::time::Duration;

use coffer_runtime::BoxRecord;
use coffer_runtime::engine::{AttachRequest, Engine, ExecSession, Live, Shown, Trust};
use coffer_runtime::supervisor::DEFAULT_GRACE;
use coffer_runtime::supervisor::control::Command;
use coffer_spec::{Act, Document};

use crate::signals;

/// How long output, and the word that a box ended, may come behind each other.
pub const AFTERMATH: Duration = Duration::from_secs(2);

/// The way of signals to a program whose output comes elsewhere; made when the first is to go it.
pub struct Way {
    engine: Engine,
    record: BoxRecord,
    document: Option<Document>,
    trust: Option<Trust>,
    session: Option<ExecSession>,
    /// There is a program.
    pub runs: bool,
    asked: bool,
}

impl Way {
    /// To the program of this box.
    pub fn new(engine: &Engine, record: &BoxRecord, allow_simulated: bool) -> Self {
        let document = engine.document(record).ok();
        let trust = document.as_ref().and_then(|document| Trust::to_attach(document, record, allow_simulated));
        Self {
            engine: engine.clone(),
            record: record.clone(),
            document,
            trust,
            session: None,
            runs: false,
            asked: false,
        }
    }

    /// True if it went to the program as it is. Where there is no way, or no program yet, the box is stopped by what is to end it.
    pub async fn hand_on(&mut self, live: &mut Live, number: i32) -> bool {
        let ends = matches!(number, libc::SIGINT | libc::SIGTERM);
        let may = self.may(number);
        if (self.runs || !ends)
            && may
            && let Some(session) = self.session().await
        {
            signals::deliver(&session.inputs(), number).await;
            return true;
        }
        if ends {
            ask(live, Command::Stop(DEFAULT_GRACE)).await;
        } else if (self.trust.is_none() || !may) && !self.asked {
            self.asked = true;
            eprintln!("coffer: signals do not reach the program of {}: only its owner may send them", self.record.name);
        }
        false
    }

    /// Not where the host is let attach, and not send this signal: the agent would refuse it.
    fn may(&self, number: i32) -> bool {
        let Some(spec) = self.document.as_ref().map(Document::spec) else { return true };
        let act = Act::of_signal(number, spec.process.stop_signal);
        !spec.host_may.allows(Act::Attach) || spec.host_may.allows(act)
    }

    async fn session(&mut self) -> Option<&ExecSession> {
        if self.session.is_none() {
            let request = AttachRequest { shown: Shown::Not, terminal: None };
            let attaching = self.engine.attach_started(&self.record, request, self.trust.as_ref()?);
            self.session = tokio::time::timeout(AFTERMATH, attaching).await.ok()?.ok();
        }
        self.session.as_ref()
    }
}

/// Asks a box to end; that it does so is what happens next.
pub async fn ask(live: &mut Live, command: Command) {
    if let Err(error) = live.ask(command).await {
        tracing::warn!(%error, "the supervisor takes no commands");
    }
}
