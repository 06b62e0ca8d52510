//! One line: an act, when, whose, about what, what came of it; and the digest of the line before.

use coffer_rim::Class;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What the first line of all has in place of a digest.
pub(super) const NOTHING_BEFORE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Of a line that says how a writer found the trail, where that is not how the last one had left it.
pub const MENDED: &str = "audit.mended";

/// Longer than a line gets. What is longer is none of ours.
pub(super) const LONGEST: usize = 32 << 10;

/// Characters of a text, entries of a list.
const TEXT: usize = 512;
const ENTRIES: usize = 64;

/// What came of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is about to be done: a line follows that says how it ended, unless whoever does it is killed.
    Begun,
    /// It was done.
    Done,
    /// It was not.
    Failed(Class),
}

impl Outcome {
    /// Every outcome.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Begun, Self::Done].into_iter().chain(Class::ALL.map(Self::Failed))
    }

    /// The word in the trail.
    pub fn word(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Done => "done",
            Self::Failed(class) => class.word(),
        }
    }
}

/// A box that an act is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineBox {
    /// Its id.
    pub id: String,
    /// Its name then.
    pub name: String,
}

/// What is to be written.
#[derive(Clone, Debug)]
pub struct Act {
    /// `box.start` and its like of what happens to a box; else the words of the command.
    pub action: String,
    /// What came of it.
    pub outcome: Outcome,
    /// The boxes.
    pub boxes: Vec<LineBox>,
    /// Other things by name, as the caller wrote them.
    pub names: Vec<String>,
    /// What else is known.
    pub details: Map<String, Value>,
}

impl Act {
    /// About nothing yet.
    pub fn new(action: impl Into<String>, outcome: Outcome) -> Self {
        Self { action: action.into(), outcome, boxes: Vec::new(), names: Vec::new(), details: Map::new() }
    }
}

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Counts from 1, without a gap.
    pub number: u64,
    /// When, RFC 3339, by this host's clock.
    pub time: String,
    /// What.
    pub action: String,
    /// [`Outcome::word`].
    pub outcome: String,
    /// The boxes it is about.
    pub boxes: Vec<LineBox>,
    /// Other things by name.
    pub names: Vec<String>,
    /// The user whose process it was.
    pub uid: u32,
    /// The user who had logged in, where this system keeps that.
    pub login_uid: Option<u32>,
    /// What else is known.
    pub details: Map<String, Value>,
    /// SHA-256 of the line before this one, without its line feed; lower-case hex.
    pub previous: String,
}

impl Line {
    /// The line of an act, now, by this process. What is too long is cut.
    pub(super) fn of(act: &Act, number: u64, previous: &str) -> Self {
        let mut details = act.details.clone();
        details.values_mut().for_each(bound);
        let left_out = act.boxes.len().saturating_sub(ENTRIES) + act.names.len().saturating_sub(ENTRIES);
        if left_out > 0 {
            details.insert("names_left_out".into(), left_out.into());
        }
        Self {
            number,
            time: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
            action: act.action.clone(),
            outcome: act.outcome.word().into(),
            boxes: act.boxes.iter().take(ENTRIES).cloned().collect(),
            names: act.names.iter().take(ENTRIES).map(|name| cut(name)).collect(),
            uid: rustix::process::getuid().as_raw(),
            login_uid: login_uid(),
            details,
            previous: previous.into(),
        }
    }

    /// As it is written, without a line feed.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let written = |line: &Self| serde_json::to_vec(line).unwrap_or_default();
        let bytes = written(self);
        if bytes.len() < LONGEST {
            return bytes;
        }
        let details = Map::from_iter([("left_out_bytes".to_owned(), bytes.len().into())]);
        written(&Self { details, names: Vec::new(), ..self.clone() })
    }

    /// Reads one, without its line feed.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// Its time in Unix nanoseconds.
    pub fn nanos(&self) -> i64 {
        let time = OffsetDateTime::parse(&self.time, &Rfc3339).ok();
        time.and_then(|time| i64::try_from(time.unix_timestamp_nanos()).ok()).unwrap_or(0)
    }

    /// It is about the box of this name, id or beginning of an id.
    pub fn is_about(&self, word: &str) -> bool {
        let of_id = |id: &str| !word.is_empty() && id.starts_with(word);
        self.boxes.iter().any(|found| found.name == word || of_id(&found.id))
    }
}

/// Of a line's bytes.
pub(super) fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT).collect()
}

fn bound(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > TEXT => *text = cut(text),
        Value::Array(all) => {
            all.truncate(ENTRIES);
            all.iter_mut().for_each(bound);
        }
        Value::Object(all) => {
            for key in all.keys().skip(ENTRIES).cloned().collect::<Vec<_>>() {
                all.remove(&key);
            }
            all.values_mut().for_each(bound);
        }
        _ => {}
    }
}

/// Source: proc_pid_loginuid(5); 4294967295 of who never logged in.
fn login_uid() -> Option<u32> {
    let text = std::fs::read_to_string("/proc/self/loginuid").ok()?;
    text.trim().parse().ok().filter(|uid| *uid != u32::MAX)
}
