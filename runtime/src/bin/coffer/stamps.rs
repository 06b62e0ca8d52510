//! Each line of an output behind the time that it came at.

use coffer_runtime::supervisor::message::LogPiece;

use crate::table;

/// Where the lines of both streams are.
#[derive(Debug, Default)]
pub struct Stamps {
    /// The last line of standard output, and of standard error, has no end yet.
    open: [bool; 2],
}

impl Stamps {
    /// The piece with a stamp before each line that begins in it.
    pub fn stamped(&mut self, piece: &LogPiece) -> LogPiece {
        let stamp = table::rfc3339_fixed(piece.time);
        let open = &mut self.open[usize::from(piece.is_stderr())];
        let mut stamped = Vec::new();
        for line in piece.bytes().split_inclusive(|byte| *byte == b'\n') {
            if !std::mem::replace(open, !line.ends_with(b"\n")) {
                stamped.extend(stamp.as_bytes());
                stamped.push(b' ');
            }
            stamped.extend(line);
        }
        LogPiece::new(piece.is_stderr(), piece.time, stamped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_one_stamp_of_one_width_and_pieces_of_a_line_have_no_other() {
        let mut stamps = Stamps::default();
        let mut text = |stderr, text: &str| {
            let piece = stamps.stamped(&LogPiece::new(stderr, 1_500_000_000, text.as_bytes().to_vec()));
            String::from_utf8(piece.bytes()).unwrap()
        };
        let at = "1970-01-01T00:00:01.500000000Z ";
        assert_eq!(text(false, "a\nb"), format!("{at}a\n{at}b"));
        assert_eq!(text(true, "w\n"), format!("{at}w\n"));
        assert_eq!(text(false, "b\n\n"), format!("b\n{at}\n"));
    }
}
