//! All that a host is told, on whatever line: kept to its limit, looked through for what must not be there.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use coffer_tests::canary::Search;

/// Bytes of one line that are kept.
const MOST: usize = 4 << 20;

/// What came, by the kind of line.
#[derive(Default)]
pub struct Heard(Mutex<BTreeMap<&'static str, Vec<Vec<u8>>>>);

impl Heard {
    /// Keeps all that came over one line. More than the limit is looked through by parts, so nothing is left out.
    pub fn keep(&self, kind: &'static str, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default().push(bytes);
        }
    }

    /// Looks through what has come since, and lets go of it. Gives the number of bytes by kind.
    pub fn look(&self, search: &mut Search) -> BTreeMap<&'static str, usize> {
        let all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut counted = BTreeMap::new();
        for (kind, lines) in all {
            for line in lines {
                search.bytes(kind, &line);
                *counted.entry(kind).or_default() += line.len();
            }
        }
        counted
    }
}

/// What one line brings, handed on to be kept in pieces that overlap.
pub struct Line<'a> {
    heard: &'a Heard,
    kind: &'static str,
    bytes: Vec<u8>,
}

/// Longer than any form of a canary.
const OVERLAP: usize = 1 << 10;

impl<'a> Line<'a> {
    pub fn of(heard: &'a Heard, kind: &'static str) -> Self {
        Self { heard, kind, bytes: Vec::new() }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > MOST {
            let rest = self.bytes[self.bytes.len() - OVERLAP..].to_vec();
            self.heard.keep(self.kind, std::mem::replace(&mut self.bytes, rest));
        }
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.heard.keep(self.kind, std::mem::take(&mut self.bytes));
    }
}
