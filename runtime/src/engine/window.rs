//! Which part of an output is wanted: what was written in a window of time, and the last lines of that. Pure.

use std::collections::VecDeque;

use crate::supervisor::message::LogPiece;

/// Moments in Unix nanoseconds, by the guest's clock; what lies before the first or behind the second is not wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// From here on.
    pub since: Option<u64>,
    /// Up to here.
    pub until: Option<u64>,
}

impl Window {
    /// The piece was written in it.
    pub fn admits(&self, piece: &LogPiece) -> bool {
        self.since.is_none_or(|since| piece.time >= since) && self.until.is_none_or(|until| piece.time <= until)
    }

    /// Nothing that comes at this moment is wanted any more.
    pub fn is_over(&self, now: u64) -> bool {
        self.until.is_some_and(|until| now > until)
    }
}

/// The last lines, as many as are wanted. A line of one stream may have come in pieces, with some of the other's between.
#[derive(Debug)]
pub struct Tail {
    /// Each with whether it begins a line.
    pieces: VecDeque<(LogPiece, bool)>,
    most: Option<usize>,
    lines: usize,
    /// The last line of standard output, and of standard error, has no end yet.
    open: [bool; 2],
}

impl Tail {
    /// Keeps so many; without a number, all.
    pub fn new(most: Option<usize>) -> Self {
        Self { pieces: VecDeque::new(), most, lines: 0, open: [false; 2] }
    }

    /// The next piece.
    pub fn push(&mut self, piece: LogPiece) {
        let Some(most) = self.most else {
            self.pieces.push_back((piece, true));
            return;
        };
        let bytes = piece.bytes();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let open = &mut self.open[usize::from(piece.is_stderr())];
            let begins = !std::mem::replace(open, !line.ends_with(b"\n"));
            self.lines += usize::from(begins);
            self.pieces.push_back((LogPiece::new(piece.is_stderr(), piece.time, line.to_vec()), begins));
            // Behind a line that goes, the rest of it goes too.
            while self.lines > most || self.pieces.front().is_some_and(|(_, begins)| !begins) {
                let Some((_, begins)) = self.pieces.pop_front() else { break };
                self.lines -= usize::from(begins);
            }
        }
    }

    /// What is kept.
    pub fn into_pieces(self) -> VecDeque<LogPiece> {
        self.pieces.into_iter().map(|(piece, _)| piece).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(most: Option<usize>, pieces: &[(bool, &str)]) -> String {
        let mut tail = Tail::new(most);
        for (stderr, text) in pieces {
            tail.push(LogPiece::new(*stderr, 1, text.as_bytes().to_vec()));
        }
        tail.into_pieces().iter().map(|piece| String::from_utf8(piece.bytes()).unwrap()).collect()
    }

    #[test]
    fn lines_are_counted_and_not_pieces() {
        let out = [(false, "a\nb\nc"), (false, "c\nd\n"), (false, "e")];
        for (most, kept) in [
            (None, "a\nb\ncc\nd\ne"),
            (Some(0), ""),
            (Some(1), "e"),
            (Some(2), "d\ne"),
            (Some(3), "cc\nd\ne"),
            (Some(5), "a\nb\ncc\nd\ne"),
            (Some(99), "a\nb\ncc\nd\ne"),
        ] {
            assert_eq!(tail(most, &out), kept, "{most:?}");
        }
    }

    #[test]
    fn a_line_of_one_stream_is_whole_whatever_the_other_writes_between() {
        let both = [(false, "one "), (true, "warn\n"), (false, "line\n"), (false, "two\n")];
        assert_eq!(tail(Some(3), &both), "one warn\nline\ntwo\n");
        assert_eq!(tail(Some(2), &both), "warn\nline\ntwo\n");
        assert_eq!(tail(Some(1), &both), "two\n");
        assert_eq!(tail(Some(0), &both), "");
    }

    #[test]
    fn a_window_has_both_its_ends() {
        let piece = |time| LogPiece::new(false, time, Vec::new());
        let window = Window { since: Some(5), until: Some(7) };
        assert_eq!([4, 5, 7, 8].map(|time| window.admits(&piece(time))), [false, true, true, false]);
        assert!(Window::default().admits(&piece(0)) && !Window::default().is_over(u64::MAX));
        assert!(window.is_over(8) && !window.is_over(7));
    }
}
