//! Docker's nouns for boxes and images, whose commands stand by themselves here: `container ls` is read as `ps`, `system prune` as
//! `prune`, `image ls` as `images`. Pure.

use std::borrow::Cow;
use std::ffi::OsString;

/// Words behind `container` that are called otherwise here; all others of boxes are called the same.
const OTHERWISE: &[(&str, &str)] = &[("ls", "ps"), ("list", "ps"), ("remove", "rm")];

/// Words behind `image`, and what they are called here; what is not among them is the noun's own.
const OF_IMAGES: &[(&str, &str)] = &[
    ("ls", "images"),
    ("list", "images"),
    ("rm", "rmi"),
    ("remove", "rmi"),
    ("pull", "pull"),
    ("push", "push"),
    ("tag", "tag"),
    ("history", "history"),
    ("save", "save"),
    ("load", "load"),
    ("import", "import"),
];

/// The line without the noun, if its command is one that we have.
///
/// `words`: the whole line, the program's name first. `is_box`: whether this is a command of boxes.
pub fn flattened(words: &[OsString], is_box: impl Fn(&str) -> bool) -> Cow<'_, [OsString]> {
    let text = |at: usize| words.get(at).and_then(|word| word.to_str()).unwrap_or_default();
    let at = place_of_command(words);
    let flat = |ours: &str| {
        let mut flat = words.to_vec();
        flat.splice(at..at + 2, [OsString::from(ours)]);
        Cow::Owned(flat)
    };
    if text(at) == "image" {
        let ours = OF_IMAGES.iter().find(|(theirs, _)| *theirs == text(at + 1));
        return ours.map_or(words.into(), |(_, ours)| flat(ours));
    }
    let is_noun = text(at) == "container" || (text(at), text(at + 1)) == ("system", "prune");
    if !is_noun {
        return words.into();
    }
    let verb = text(at + 1);
    let ours = OTHERWISE.iter().find(|(theirs, _)| *theirs == verb).map_or(verb, |(_, ours)| ours);
    if is_box(ours) { flat(ours) } else { words.into() }
}

/// Where the first word stands that is no flag of every command, nor the value of one.
pub fn place_of_command(words: &[OsString]) -> usize {
    let mut at = 1;
    while let Some(word) = words.get(at).and_then(|word| word.to_str()).filter(|word| word.starts_with('-')) {
        // The one flag of every command that has a value.
        at += if word == "--home" { 2 } else { 1 };
    }
    at
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
            ("coffer --json image ls -q", "coffer --json images -q"),
            ("coffer image rm image", "coffer rmi image"),
            ("coffer image push image rm", "coffer push image rm"),
            ("coffer image prune -f", "coffer image prune -f"),
            ("coffer image", "coffer image"),
            ("coffer system resume", "coffer system resume"),
            ("coffer container", "coffer container"),
            ("coffer run container ls", "coffer run container ls"),
            ("coffer", "coffer"),
        ] {
            assert_eq!(line(typed), read);
        }
    }
}
