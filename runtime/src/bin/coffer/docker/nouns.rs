//! Docker's nouns for boxes, whose commands stand by themselves here: `container ls` is read as `ps`, `system prune` as `prune`. Pure.

use std::borrow::Cow;
use std::ffi::OsString;

/// Words behind `container` that are called otherwise here; all others of boxes are called the same.
const OTHERWISE: &[(&str, &str)] = &[("ls", "ps"), ("list", "ps"), ("remove", "rm")];

/// The line without the noun, if its command is one that we have.
///
/// `words`: the whole line, the program's name first. `is_box`: whether this is a command of boxes.
pub fn flattened(words: &[OsString], is_box: impl Fn(&str) -> bool) -> Cow<'_, [OsString]> {
    let text = |at: usize| words.get(at).and_then(|word| word.to_str()).unwrap_or_default();
    let mut at = 1;
    while text(at).starts_with('-') {
        // The one flag of every command that has a value.
        at += if text(at) == "--home" { 2 } else { 1 };
    }
    let is_noun = text(at) == "container" || (text(at), text(at + 1)) == ("system", "prune");
    if !is_noun {
        return words.into();
    }
    let verb = text(at + 1);
    let ours = OTHERWISE.iter().find(|(theirs, _)| *theirs == verb).map_or(verb, |(_, ours)| ours);
    if !is_box(ours) {
        return words.into();
    }
    let mut flat = words.to_vec();
    flat.splice(at..at + 2, [OsString::from(ours)]);
    flat.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_noun_goes_where_its_command_is_ours_and_nothing_else_does() {
        let line = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let flat = flattened(&words, |word| ["ps", "rm", "run", "prune"].contains(&word));
            flat.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
        };
        for (typed, read) in [
            ("coffer container ls -a", "coffer ps -a"),
            ("coffer --json --home x container rm web", "coffer --json --home x rm web"),
            ("coffer --home=x container run image container ls", "coffer --home=x run image container ls"),
            ("coffer container frobnicate", "coffer container frobnicate"),
            ("coffer system prune -f", "coffer prune -f"),
            ("coffer system resume", "coffer system resume"),
            ("coffer container", "coffer container"),
            ("coffer run container ls", "coffer run container ls"),
            ("coffer", "coffer"),
        ] {
            assert_eq!(line(typed), read);
        }
    }
}
