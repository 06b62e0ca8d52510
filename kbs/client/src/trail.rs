//! The chain of an audit trail in files: each line names the SHA-256 of the line before it, from one file to the next.
//!
//! A file holds lines as the broker wrote them, behind some of them what the policy of that decision saw, and at its end an
//! [`End`], which says where the file begins and ends. Exports and archives have this one form.
//! Trusts: nothing but a head that was noted before. It shows that no line was changed, removed, added or moved between the first and
//! the last; not who wrote them: the MACs of the lines are the broker's to check.
//! Where lines were lost and an owner accepted it, others stand in their place, and the last of them breaks the chain: what it holds counts only
//! where a later line names its SHA-256, so that the head goes on naming everything before it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Why lines are no whole trail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// Not a line of a trail.
    #[error("line {0} of the copy is no line of an audit trail")]
    NotALine(u64),
    /// A number that does not follow.
    #[error("line {expected} is missing, found line {found}")]
    Gap {
        /// Wanted.
        expected: u64,
        /// There.
        found: u64,
    },
    /// A line that names another line before it.
    #[error("line {0} does not continue the line before it: one of them was changed")]
    Broken(u64),
    /// What a policy saw, and not what the line before it names.
    #[error("what the policy of line {0} saw is not what the line names")]
    Input(u64),
    /// A line in place of one that is gone, which no later line accepts.
    #[error("line {0} stands in the place of one that is lost, and no later line says that this was accepted")]
    Lost(u64),
    /// The noted line lies between lost ones and the line that accepts them.
    #[error(
        "the head was noted before the loss of line {0} was accepted, so that it does not show what lies before that line"
    )]
    NotedBefore(u64),
    /// More behind the end.
    #[error("there is something behind the end of the copy")]
    BehindTheEnd,
    /// No end.
    #[error("the copy has no end: its last line says where the trail ended when it was exported")]
    NoEnd,
    /// Another end.
    #[error("the copy ends with line {found}, the trail ended with line {expected} and another hash")]
    End {
        /// By the end mark.
        expected: u64,
        /// By the lines.
        found: u64,
    },
    /// Another beginning.
    #[error("the copy begins with line {found}, its end says that it begins with line {expected} and another hash")]
    Start {
        /// By the end mark.
        expected: u64,
        /// By the lines.
        found: u64,
    },
    /// A head that was noted is not in it.
    #[error("no line of it has the hash {0}: it is another trail, an older one, or the line is archived")]
    NotThere(String),
}

/// How a file ends.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// Number of its first line; left out where that is line 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub first: u64,
    /// SHA-256 of the line before the first, hex; left out where there is none.
    #[serde(default = "nothing", skip_serializing_if = "is_nothing")]
    pub previous: String,
    /// Number of its last line.
    pub lines: u64,
    /// SHA-256 of it, hex.
    pub head: String,
}

/// What the policy of the line before it saw.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct InputOf {
    /// Number of that line.
    pub input_of: u64,
    /// Something beside the policy spoke against the decision.
    pub refused_beside: bool,
    /// The input: JSON as text, byte for byte.
    pub input: String,
}

impl InputOf {
    /// What the line names: SHA-256 of a byte that says whether something beside the policy spoke against it, and the JSON. Hex.
    pub fn digest(&self) -> String {
        let digest = Sha256::new().chain_update([u8::from(self.refused_beside)]).chain_update(&self.input);
        hex::encode(digest.finalize())
    }
}

/// Lines that are lost, in the later line that says that somebody accepted it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct LostLines {
    /// Number of the first.
    pub first: u64,
    /// Number of the last.
    pub last: u64,
    /// SHA-256 of the line that stands in the place of the last, hex.
    pub marker: String,
}

#[derive(Deserialize)]
struct Line {
    sequence: u64,
    previous: String,
    input: Option<String>,
    /// SHA-256 of the line that was here, as the one behind it names it.
    stands_for: Option<String>,
    #[serde(default)]
    lost: Vec<LostLines>,
    #[serde(default)]
    event: String,
}

/// Event of a line in the place of a lost one.
pub const LOST: &str = "audit.lost";

/// Checks one line after the other, over as many files as there are.
#[derive(Debug)]
pub struct Chain {
    /// Before the first line of the file: its number and hash; nothing where the first line itself says it.
    before: Option<(u64, String)>,
    /// The last line.
    at: Option<(u64, String)>,
    /// What the last line names as what its policy saw, until that came.
    input: Option<String>,
    noted: Option<String>,
    /// Last lines of gaps: number of the first, and SHA-256 of this one, until a later line accepts them.
    breaks: BTreeMap<u64, (u64, String)>,
    /// Number of the first of the lines in the place of lost ones that are being read.
    gap: Option<u64>,
    lost: Vec<LostLines>,
    /// A gap that was not accepted where the noted line stands.
    noted_behind: Option<u64>,
}

impl Chain {
    /// Of a whole trail, from line 1. `noted`: the hash of a line that must be in it.
    pub fn whole(noted: Option<&str>) -> Self {
        Self::after(0, &nothing(), noted)
    }

    /// Behind a line with this number and hash.
    pub fn after(line: u64, hash: &str, noted: Option<&str>) -> Self {
        let before = Some((line, hash.to_owned()));
        let mut chain = Self { before: before.clone(), at: before, ..Self::anywhere(noted) };
        chain.passes(hash);
        chain
    }

    /// From wherever the first line says that it stands.
    pub fn anywhere(noted: Option<&str>) -> Self {
        // Noted before there was a line.
        let noted = noted.filter(|noted| !is_nothing(noted)).map(str::to_owned);
        Self {
            before: None,
            at: None,
            input: None,
            noted,
            breaks: BTreeMap::new(),
            gap: None,
            lost: Vec::new(),
            noted_behind: None,
        }
    }

    /// The next line, or what the policy of the last one saw.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn next(&mut self, text: &str) -> Result<(), ChainError> {
        let expected = self.at.as_ref().map_or(1, |(line, _)| line.saturating_add(1));
        if let Ok(input) = serde_json::from_str::<InputOf>(text) {
            let named = self.input.take();
            let of_this = self.at.as_ref().is_some_and(|(line, _)| *line == input.input_of);
            return if of_this && named == Some(input.digest()) {
                Ok(())
            } else {
                Err(ChainError::Input(input.input_of))
            };
        }
        let parsed: Line = serde_json::from_str(text).map_err(|_| ChainError::NotALine(expected))?;
        if self.at.is_none() {
            let before = parsed.sequence.checked_sub(1).ok_or(ChainError::NotALine(expected))?;
            let begins = Some((before, parsed.previous.clone()));
            (self.before, self.at) = (begins.clone(), begins);
            self.passes(&parsed.previous);
        }
        let (line, hash) = self.at.as_ref().ok_or(ChainError::NotALine(expected))?;
        if parsed.sequence != line.saturating_add(1) {
            return Err(ChainError::Gap { expected: line.saturating_add(1), found: parsed.sequence });
        }
        if parsed.previous != *hash {
            return Err(ChainError::Broken(parsed.sequence));
        }
        let hash = hex::encode(Sha256::digest(text));
        let (line, is_lost) = (parsed.sequence, parsed.event == LOST);
        self.input = parsed.input;
        if !is_lost {
            self.accepts(parsed.lost);
        }
        self.passes(&hash);
        let first = if is_lost { Some(*self.gap.get_or_insert(line)) } else { None };
        let chained = match (parsed.stands_for, first) {
            (None, first) => {
                self.gap = first;
                hash
            }
            (Some(was), Some(first)) => {
                self.breaks.insert(line, (first, hash));
                self.gap = None;
                self.passes(&was);
                was
            }
            (Some(_), None) => return Err(ChainError::NotALine(line)),
        };
        self.at = Some((line, chained));
        Ok(())
    }

    fn accepts(&mut self, lost: Vec<LostLines>) {
        for LostLines { last, marker, .. } in lost {
            if self.breaks.get(&last).is_some_and(|(_, there)| *there == marker)
                && let Some((first, marker)) = self.breaks.remove(&last)
            {
                // What the lines themselves show, whatever is said of them.
                self.lost.push(LostLines { first, last, marker });
            }
        }
    }

    /// A line so far that stands for a lost one, and that no line so far accepts.
    pub fn open_gap(&self) -> Option<u64> {
        self.breaks.keys().next().copied()
    }

    /// Lines that are lost, and accepted as such by a line behind them.
    pub fn lost(&self) -> &[LostLines] {
        &self.lost
    }

    fn passes(&mut self, hash: &str) {
        if self.noted.as_deref() == Some(hash) {
            // Behind a gap that nothing so far accepts, it shows only the lines since.
            match self.breaks.last_key_value() {
                Some((gap, _)) => self.noted_behind = Some(*gap),
                None => self.noted = None,
            }
        }
    }

    /// Where the lines since the last end begin and end.
    pub fn end(&self) -> End {
        let (before, previous) = self.before.clone().unwrap_or((0, nothing()));
        let (lines, head) = self.at.clone().unwrap_or((0, nothing()));
        End { first: before.saturating_add(1), previous, lines, head }
    }

    /// A file ends, and says so. The next one goes on behind it.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn ends(&mut self, stated: &End) -> Result<End, ChainError> {
        let end = self.end();
        if (end.lines, &end.head) != (stated.lines, &stated.head) {
            return Err(ChainError::End { expected: stated.lines, found: end.lines });
        }
        if end != *stated {
            return Err(ChainError::Start { expected: stated.first, found: end.first });
        }
        self.before = self.at.clone();
        self.input = None;
        Ok(end)
    }

    /// After the last file: the line that was noted was in one of them, and each that stands for a lost one is accepted.
    ///
    /// # Errors
    /// [`ChainError::NotThere`], [`ChainError::Lost`], [`ChainError::NotedBefore`].
    pub fn finish(self) -> Result<(), ChainError> {
        if let Some(line) = self.open_gap() {
            return Err(ChainError::Lost(line));
        }
        match (self.noted, self.noted_behind) {
            (None, _) => Ok(()),
            (Some(_), Some(gap)) => Err(ChainError::NotedBefore(gap)),
            (Some(noted), None) => Err(ChainError::NotThere(noted)),
        }
    }

    /// Checks a file line by line, from its first to its end. `line`: given each line or input that holds.
    ///
    /// # Errors
    /// [`ChainError`], or what reading gives.
    pub fn file<E: From<ChainError>>(
        &mut self,
        lines: impl Iterator<Item = Result<String, E>>,
        mut line: impl FnMut(&str),
    ) -> Result<End, E> {
        let mut stated = None;
        for text in lines {
            let text = text?;
            if stated.is_some() {
                return Err(ChainError::BehindTheEnd.into());
            }
            if let Ok(end) = serde_json::from_str::<End>(&text) {
                stated = Some(self.ends(&end)?);
            } else {
                self.next(&text)?;
                line(&text);
            }
        }
        stated.ok_or_else(|| ChainError::NoEnd.into())
    }
}

fn one() -> u64 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_one(number: &u64) -> bool {
    *number == 1
}

/// What line 1 names as the line before it.
fn nothing() -> String {
    "0".repeat(64)
}

fn is_nothing(hash: &str) -> bool {
    hash.len() == 64 && hash.bytes().all(|digit| digit == b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_copy(text: &str, noted: Option<&str>) -> Result<End, ChainError> {
        let mut chain = Chain::whole(noted);
        let end = chain.file(text.lines().map(|line| Ok::<_, ChainError>(line.to_owned())), |_| ())?;
        chain.finish().map(|()| end)
    }

    fn check_files(files: &[&[String]], noted: Option<&str>) -> Result<Vec<End>, ChainError> {
        let mut chain = Chain::anywhere(noted);
        let ends = files.iter().map(|file| chain.file(file.iter().map(|line| Ok(line.clone())), |_| ()));
        let ends = ends.collect::<Result<_, ChainError>>()?;
        chain.finish().map(|()| ends)
    }

    /// Four lines, in files of so many.
    fn copy_in(parts: &[usize]) -> Vec<Vec<String>> {
        let mut chain = Chain::whole(None);
        let mut sequence = 0;
        let file = |count: &usize| {
            let mut lines = Vec::new();
            for _ in 0..*count {
                sequence += 1;
                let end = chain.end();
                let line = format!("{{\"sequence\":{sequence},\"event\":\"e\",\"previous\":\"{}\"}}", end.head);
                chain.next(&line).unwrap();
                lines.push(line);
            }
            let end = chain.end();
            chain.ends(&end).unwrap();
            lines.push(serde_json::to_string(&end).unwrap());
            lines
        };
        parts.iter().map(file).collect()
    }

    fn copy() -> Vec<String> {
        copy_in(&[4]).concat()
    }

    #[test]
    fn a_whole_copy_holds_and_every_change_of_it_is_noticed() {
        let whole = copy();
        let check = |lines: &[String]| check_copy(&lines.join("\n"), None);
        let end = check(&whole).unwrap();
        assert_eq!((end.first, end.lines), (1, 4));
        assert!(!whole[4].contains("first") && !whole[4].contains("previous"), "as it always was: {}", whole[4]);
        for at in 0..4 {
            let mut changed = whole.clone();
            changed[at] = changed[at].replace("\"e\"", "\"f\"");
            assert!(check(&changed).is_err(), "changed {at}");
            let mut cut = whole.clone();
            cut.remove(at);
            assert!(check(&cut).is_err(), "without {at}");
            let mut swapped = whole.clone();
            swapped.swap(at, (at + 1) % 4);
            assert!(check(&swapped).is_err(), "swapped {at}");
        }
        assert_eq!(check(&whole[..4]), Err(ChainError::NoEnd));
        assert_eq!(check(&[&whole[..3], &whole[4..]].concat()), Err(ChainError::End { expected: 4, found: 3 }));
        assert!(matches!(check(&["no".to_owned()]), Err(ChainError::NotALine(1))));
    }

    #[test]
    fn files_hold_in_their_order_and_no_other() {
        let files = copy_in(&[1, 2, 1]);
        let [one, two, three] = [0, 1, 2].map(|at| files[at].as_slice());
        let ends = check_files(&[one, two, three], None).unwrap();
        assert_eq!(ends.iter().map(|end| (end.first, end.lines)).collect::<Vec<_>>(), [(1, 1), (2, 3), (4, 4)]);
        assert_eq!(ends[1].previous, ends[0].head);
        let later = check_files(&[two, three], None).unwrap();
        assert_eq!(later[..], ends[1..], "what comes first may lie elsewhere");
        assert!(matches!(check_files(&[one, three], None), Err(ChainError::Gap { expected: 2, found: 4 })));
        assert!(matches!(check_files(&[two, one], None), Err(ChainError::Gap { .. })));
        assert!(check_copy(&two.join("\n"), None).is_err(), "it is not whole from line 1");
        // A file cut at its beginning, with the end that it had.
        assert_eq!(check_files(&[&two[1..]], None), Err(ChainError::Start { expected: 2, found: 3 }));
        let noted = check_files(&[two], None).unwrap()[0].previous.clone();
        assert!(check_files(&[two], Some(&noted)).is_ok(), "the line before it is named in it");
        let head = ends[0].previous.replace('0', "ab").split_off(64);
        assert!(check_files(&[one, two, three], Some(&head)).is_err());
    }

    #[test]
    fn what_a_policy_saw_stands_behind_its_line_and_is_what_the_line_names() {
        let input = InputOf { input_of: 1, refused_beside: true, input: "{\"a\":1}".into() };
        let line = format!("{{\"sequence\":1,\"input\":\"{}\",\"previous\":\"{}\"}}", input.digest(), nothing());
        let text = |input: &InputOf| serde_json::to_string(input).unwrap();
        let check = |lines: &[&str]| {
            let mut chain = Chain::whole(None);
            lines.iter().try_for_each(|line| chain.next(line))
        };
        let whole = text(&input);
        assert!(check(&[&line, &whole]).is_ok() && check(&[&line]).is_ok());
        assert_eq!(check(&[&line, &whole, &whole]), Err(ChainError::Input(1)));
        assert_eq!(check(&[&whole]), Err(ChainError::Input(1)));
        for other in [
            InputOf { refused_beside: false, ..input.clone() },
            InputOf { input: "{\"a\":2}".into(), ..input.clone() },
            InputOf { input_of: 2, ..input.clone() },
        ] {
            assert!(matches!(check(&[&line, &text(&other)]), Err(ChainError::Input(_))), "{other:?}");
        }
    }

    #[test]
    fn lost_lines_are_believed_where_a_later_line_names_what_stands_for_them() {
        let line = |sequence: u64, more: &str, previous: &str| {
            format!("{{\"sequence\":{sequence}{more},\"previous\":\"{previous}\"}}")
        };
        let digest = |text: &str| hex::encode(Sha256::digest(text));
        let first = line(1, "", &nothing());
        let gone = "ab".repeat(32);
        let stands =
            |before: &str| line(2, &format!(",\"event\":\"audit.lost\",\"stands_for\":\"{gone}\""), &digest(before));
        let marker = stands(&first);
        let third = line(3, "", &gone);
        let lost = LostLines { first: 2, last: 2, marker: digest(&marker) };
        let accepts = line(4, &format!(",\"lost\":[{}]", serde_json::to_string(&lost).unwrap()), &digest(&third));
        let check = |lines: &[&str]| {
            let mut chain = Chain::whole(None);
            lines.iter().try_for_each(|line| chain.next(line))?;
            let lost = chain.lost().to_vec();
            chain.finish().map(|()| lost)
        };
        assert_eq!(check(&[&first, &marker, &third, &accepts]), Ok(vec![lost]));
        assert_eq!(check(&[&first, &marker, &third]), Err(ChainError::Lost(2)));
        // What lies before the break hangs from the line that accepts it, and cannot be another.
        let other = line(1, ",\"event\":\"x\"", &nothing());
        assert_eq!(check(&[&other, &stands(&other), &third, &accepts]), Err(ChainError::Lost(2)));
        // No line accepts itself, and none a break behind it.
        let itself = line(
            2,
            &format!(
                ",\"event\":\"audit.lost\",\"stands_for\":\"{gone}\",\"lost\":[{{\"first\":2,\"last\":2,\"marker\":\"{gone}\"}}]"
            ),
            &digest(&first),
        );
        assert_eq!(check(&[&first, &itself, &third]), Err(ChainError::Lost(2)));
        // A decision is none, whatever it says that it stands for.
        let decision = marker.replace("audit.lost", "secret.release");
        assert_eq!(check(&[&first, &decision, &third, &accepts]), Err(ChainError::NotALine(2)));
    }

    #[test]
    fn a_head_that_was_noted_before_a_loss_was_accepted_shows_nothing_before_it() {
        let digest = |text: &str| hex::encode(Sha256::digest(text));
        let line = |sequence: u64, more: &str, previous: &str| {
            format!("{{\"sequence\":{sequence}{more},\"previous\":\"{previous}\"}}")
        };
        // Whoever edits a copy without a key: a first line of his own, a marker for what was there, and a line that accepts it.
        let forge = |was: &str, behind: &[String]| {
            let first = line(1, ",\"event\":\"forged\"", &nothing());
            let marker = line(2, &format!(",\"event\":\"audit.lost\",\"stands_for\":\"{was}\""), &digest(&first));
            let lost = LostLines { first: 2, last: 2, marker: digest(&marker) };
            let lost = format!(",\"lost\":[{}]", serde_json::to_string(&lost).unwrap());
            let previous = behind.last().map_or(was.to_owned(), |line| digest(line));
            let accepts = line(3 + behind.len() as u64, &lost, &previous);
            [&[first, marker], behind, &[accepts]].concat()
        };
        let check = |lines: &[String], noted: &str| {
            let mut chain = Chain::whole(Some(noted));
            lines.iter().try_for_each(|line| chain.next(line))?;
            chain.finish()
        };
        let genuine = [line(1, "", &nothing())];
        let second = line(2, "", &digest(&genuine[0]));
        let third = line(3, "", &digest(&second));
        // The noted line is the one that the marker stands for, or one behind it.
        assert_eq!(check(&forge(&digest(&second), &[]), &digest(&second)), Err(ChainError::NotedBefore(2)));
        let forged = forge(&digest(&second), std::slice::from_ref(&third));
        assert_eq!(check(&forged, &digest(&third)), Err(ChainError::NotedBefore(2)));
        // Noted with the line that accepts it, or after that, it shows everything.
        assert_eq!(check(&forged, &digest(&forged[3])), Ok(()));
        let other = line(1, ",\"event\":\"other\"", &nothing());
        let mut edited = forged.clone();
        edited[0] = other;
        assert!(check(&edited, &digest(&forged[3])).is_err());
    }

    #[test]
    fn a_head_that_was_noted_lies_in_it_or_it_is_another_trail() {
        let whole = copy();
        let text = whole.join("\n");
        let head = hex::encode(Sha256::digest(&whole[1]));
        for noted in [None, Some(head.as_str()), Some("0".repeat(64).as_str())] {
            assert!(check_copy(&text, noted).is_ok(), "{noted:?}");
        }
        let other = "ab".repeat(32);
        assert_eq!(check_copy(&text, Some(&other)), Err(ChainError::NotThere(other)));
    }
}
