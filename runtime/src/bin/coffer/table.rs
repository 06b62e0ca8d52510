//! Plain tables, as Docker prints them, and words for times and sizes.

/// Prints rows under a heading, columns as wide as their widest cell.
pub fn print(heading: &[&str], rows: &[Vec<String>]) {
    print!("{}", render(heading, rows));
}

fn render(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
    // A cell may hold a registry's or a guest's text.
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| coffer_rim::foreign(cell)).collect()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> =
            cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        text.push_str(padded.join("   ").trim_end());
        text.push('\n');
    };
    line(&mut heading.iter().copied());
    for row in &rows {
        line(&mut row.iter().map(AsRef::as_ref));
    }
    text
}

/// `5 seconds`, `About an hour`, as Docker says it. Source: go-units 0.5, HumanDuration.
pub fn span(milliseconds: i64) -> String {
    let seconds = milliseconds.max(0) / 1000;
    let hours = (seconds + 1800) / 3600;
    match (seconds, hours) {
        (0, _) => "Less than a second".into(),
        (1, _) => "1 second".into(),
        (..60, _) => format!("{seconds} seconds"),
        (..120, _) => "About a minute".into(),
        (..3600, _) => format!("{} minutes", seconds / 60),
        (_, 1) => "About an hour".into(),
        (_, ..48) => format!("{hours} hours"),
        (_, ..336) => format!("{} days", hours / 24),
        (_, ..1440) => format!("{} weeks", hours / 24 / 7),
        (_, ..17_520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// `12.3MB`, in powers of ten.
#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" {
                format!("{bytes}B")
            } else {
                format!("{value:.3}").chars().take(4).collect::<String>().trim_end_matches('.').to_string() + unit
            };
        }
        value /= 1000.0;
    }
    format!("{value:.2}TB")
}

/// `12.3MiB`, in powers of two.
#[allow(clippy::cast_precision_loss, reason = "four digits are shown")]
pub fn binary_size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            // Four digits, as go-units' BytesSize has them.
            let places = match value {
                ..10.0 => 3,
                10.0..100.0 => 2,
                100.0..1000.0 => 1,
                _ => 0,
            };
            let text = format!("{value:.places$}");
            let text = if places == 0 { &text } else { text.trim_end_matches('0').trim_end_matches('.') };
            return text.to_owned() + unit;
        }
        value /= 1024.0;
    }
    format!("{value:.2}TiB")
}

/// RFC 3339 of Unix milliseconds.
pub fn rfc3339(milliseconds: i64) -> String {
    of_nanos(i128::from(milliseconds) * 1_000_000)
}

/// RFC 3339 of Unix nanoseconds.
pub fn rfc3339_nanos(nanoseconds: u64) -> String {
    of_nanos(i128::from(nanoseconds))
}

/// The same with all nine digits behind the second, as Docker stamps lines.
pub fn rfc3339_fixed(nanoseconds: u64) -> String {
    let whole = rfc3339(i64::try_from(nanoseconds / 1_000_000_000).unwrap_or(0).saturating_mul(1000));
    format!("{}.{:09}Z", whole.trim_end_matches('Z'), nanoseconds % 1_000_000_000)
}

fn of_nanos(nanoseconds: i128) -> String {
    let time = time::OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok();
    time.and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_string(), "bb".to_string()], vec!["cccc".to_string(), String::new()]];
        assert_eq!(render(&["ID", "NAME"], &rows), "ID     NAME\na      bb\ncccc\n");
    }

    #[test]
    fn a_cell_moves_no_cursor() {
        assert_eq!(render(&["A"], &[vec!["\u{1b}[2J".to_string()]]), "A\n\\u{1b}[2J\n");
    }

    #[test]
    fn spans_and_sizes_read_like_dockers() {
        let spans = [
            (10, "Less than a second"),
            (1000, "1 second"),
            (59_999, "59 seconds"),
            (61_000, "About a minute"),
            (180_000, "3 minutes"),
            (3_599_000, "59 minutes"),
            (3_600_000, "About an hour"),
            (5_400_000, "2 hours"),
            (47 * 3_600_000, "47 hours"),
            (48 * 3_600_000, "2 days"),
            (14 * 86_400_000, "2 weeks"),
            (60 * 86_400_000, "2 months"),
            (730 * 86_400_000, "2 years"),
        ];
        for (milliseconds, words) in spans {
            assert_eq!(span(milliseconds), words);
        }
        for (bytes, words) in [(5, "5B"), (4_260_000, "4.26MB"), (123_400_000, "123MB"), (1_500, "1.50kB")] {
            assert_eq!(size(bytes), words);
        }
        for (bytes, words) in [
            (0, "0B"),
            (1000, "1000B"),
            (1023, "1023B"),
            (1536, "1.5KiB"),
            (512 << 20, "512MiB"),
            (3_500_000_000, "3.26GiB"),
        ] {
            assert_eq!(binary_size(bytes), words);
        }
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
    }
}
