//! What is done on this host, as a stream of the lines of its trail: those that are kept, and on from there.
//!
//! Trusts: the trail, as the home's owner does. Never: writes to it, but for ends that nobody else could tell of.

use std::time::Duration;

use super::{Engine, OpenError};
use crate::boxes::unix_ms;
use crate::home::HomeError;
use crate::trail::{Line, Lines, Trail};

/// The stream. Dropping it ends it.
#[derive(Debug)]
pub struct Events {
    engine: Engine,
    lines: Lines,
}

impl Engine {
    /// What was done on this host.
    ///
    /// # Errors
    /// [`HomeError`].
    pub fn trail(&self) -> Result<Trail, HomeError> {
        Ok(Trail::at(self.home()?.trail()))
    }

    /// What is done from now on.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn events(&self) -> Result<Events, OpenError> {
        self.mend()?;
        let lines = Lines::new(self.trail()?.folder()).map_err(OpenError::Trail)?;
        Ok(Events { engine: self.clone(), lines })
    }

    /// The same, from the oldest line that is kept.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn all_events(&self) -> Result<Events, OpenError> {
        self.mend()?;
        Ok(Events { engine: self.clone(), lines: Lines::all(self.trail()?.folder()) })
    }

    /// Mends the records of supervisors that died.
    pub(super) fn mend(&self) -> Result<(), OpenError> {
        let home = self.home()?;
        Ok(self.state()?.reconcile(home, unix_ms())?)
    }
}

impl Events {
    /// The next line that there is already.
    ///
    /// # Errors
    /// [`OpenError`]; the stream may be asked again.
    pub fn kept(&mut self) -> Result<Option<Line>, OpenError> {
        self.lines.next_line().map_err(OpenError::Trail)
    }

    /// Waits for the next line. Looks again a few times per second, and at nothing while nobody waits.
    ///
    /// # Errors
    /// [`OpenError`]; the stream may be asked again.
    pub async fn next(&mut self) -> Result<Line, OpenError> {
        loop {
            if let Some(line) = self.kept()? {
                if line.action.starts_with("box.") {
                    // Whoever hears of it finds it so.
                    self.engine.state()?.settled()?;
                }
                return Ok(line);
            }
            self.engine.mend()?;
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

const INTERVAL: Duration = Duration::from_millis(200);
