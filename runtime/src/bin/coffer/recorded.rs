//! Which commands the trail of the home has, and what of their words: a line before one does anything, and one behind it that says what came
//! of it. What boxes go through stands there besides, written by whoever records it.
//!
//! Never: a value that is secret, or more of a program's words than its name.

use std::process::ExitCode;

use clap::ArgMatches;
use coffer_runtime::engine::Engine;
use coffer_runtime::trail::{Act, LineBox, Outcome, Trail};
use coffer_runtime::{BoxRecord, Home, State};
use coffer_spec::Act as Right;
use serde_json::Value;

use crate::commands;
use crate::context::Context;
use crate::error::{Class, CliError};
use crate::exits::Exits;
use crate::row::{Does, Entry};

/// What the words of a command name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// A box that is made of an image.
    NewBox,
    /// Boxes, each before its colon where it has one.
    Boxes,
    /// A box, and behind it a program.
    Program,
    /// Other things of this home.
    Things,
    /// Files and brokers: recorded where there is a home, and none is made for it.
    Elsewhere,
    /// Nothing: it only looks.
    Nothing,
}

use About::{Boxes, Elsewhere, NewBox, Nothing, Program, Things};

/// Commands that look, or whose words name boxes and things. What is neither here nor below is [`Elsewhere`]: a new command is recorded
/// until somebody says that it only looks.
const COMMANDS: &[(&str, About)] = &[
    ("run", NewBox),
    ("create", NewBox),
    ("start", Boxes),
    ("stop", Boxes),
    ("restart", Boxes),
    ("kill", Boxes),
    ("wait", Nothing),
    ("pause", Boxes),
    ("unpause", Boxes),
    ("ps", Nothing),
    ("port", Nothing),
    ("logs", Nothing),
    ("events", Nothing),
    ("attach", Boxes),
    ("exec", Program),
    ("cp", Boxes),
    ("diff", Boxes),
    ("export", Boxes),
    ("commit", Boxes),
    ("top", Nothing),
    ("stats", Nothing),
    ("update", Boxes),
    ("rename", Boxes),
    ("rm", Boxes),
    ("prune", Things),
    ("inspect", Nothing),
    ("volume create", Things),
    ("volume ls", Nothing),
    ("volume inspect", Nothing),
    ("volume rm", Things),
    ("volume prune", Things),
    ("network create", Things),
    ("network ls", Nothing),
    ("network inspect", Nothing),
    ("network connect", Boxes),
    ("network disconnect", Boxes),
    ("network rm", Things),
    ("network prune", Things),
    ("system df", Nothing),
    ("system info", Nothing),
    ("system resume", Things),
    ("supervise", Nothing), // of a command that is recorded
    ("hold", Nothing),
    ("pull", Things),
    ("push", Things),
    ("images", Nothing),
    ("rmi", Things),
    ("tag", Things),
    ("history", Nothing),
    ("save", Things),
    ("load", Things),
    ("import", Things),
    ("login", Things),
    ("logout", Things),
    ("image inspect", Nothing),
    ("image prune", Things),
    ("attest", Boxes),
    ("connect", Boxes),
    ("inject-secret", Boxes),
    ("refresh-secrets", Boxes),
    ("seal", Boxes),
    ("unseal", Boxes),
    ("reseal", Boxes),
    ("audit", Nothing),
    ("metrics", Nothing),
    ("owner init", Things),
    ("owner keygen", Things),
    ("owner sign", Things),
    ("owner push", Boxes),
    ("sim init", Things),
    ("sim evidence", Nothing),
    ("sim attacks", Nothing),
    ("sim check", Nothing),
    ("sim kds", Nothing),
    ("verify", Nothing),
    ("collateral export", Nothing),
    ("policy input", Nothing),
    ("policy explain", Nothing),
    ("policy try", Nothing),
    ("completion", Nothing),
    ("doctor", Nothing),
    ("help", Nothing),
    ("manual", Nothing),
    ("version", Nothing),
];

/// Last words of commands that look, whatever stands before them.
const LOOKS: &[&str] = &[
    "ls",
    "list",
    "show",
    "get",
    "get-meta",
    "verify",
    "lint",
    "test",
    "jwks",
    "configuration",
    "root",
    "tail",
    "status",
    "tcb",
    "guests",
];

/// What a command is about, by its words.
fn about(path: &str) -> About {
    let looks = |(before, last): (&str, &str)| before.starts_with("bench") || LOOKS.contains(&last);
    match COMMANDS.iter().find(|(known, _)| *known == path) {
        Some((_, about)) => *about,
        None if path.rsplit_once(' ').is_some_and(looks) => Nothing,
        None => Elsewhere,
    }
}

/// What a line says behind the command's words once a guest runs what it was asked to.
const START: &str = ".start";

/// Of what there are lines of commands.
pub fn acts() -> Vec<String> {
    let mut all = Vec::new();
    for group in commands::GROUPS {
        collect("", group.commands, &mut all);
    }
    let starts: Vec<_> = all.iter().filter(|path| begins_later(path)).map(|path| format!("{path}{START}")).collect();
    all.extend(starts);
    all
}

/// The boxes among the names of a line.
pub fn boxes_named(action: &str, names: &[String]) -> Vec<String> {
    let path = action.strip_suffix(START).unwrap_or(action);
    let named = match (about(path), path, names) {
        // Behind a name of its own stands the image; without one there is the image alone.
        (NewBox, _, [name, _]) => std::slice::from_ref(name),
        // Behind the box, a name for an image.
        (Boxes, "commit", _) => names.get(..1).unwrap_or_default(),
        // Behind the network.
        (Boxes, "network connect" | "network disconnect", _) => names.get(1..).unwrap_or_default(),
        (Boxes | Program, ..) => names,
        _ => &[],
    };
    named.iter().map(|word| word.split_once(':').map_or(word.as_str(), |(name, _)| name).to_owned()).collect()
}

fn collect(before: &str, entries: &'static [Entry], all: &mut Vec<String>) {
    for entry in entries {
        let path = format!("{before}{}", entry.name);
        collect(&format!("{path} "), entry.does.commands(), all);
        if matches!(entry.does, Does::Run(_) | Does::Either(..)) && (about(&path) != Nothing || path == ASKS_OWNER) {
            all.push(path);
        }
    }
}

/// Looks, and with a flag asks a guest.
const ASKS_OWNER: &str = "inspect";

/// Commands that may be refused for long before anything runs.
fn begins_later(path: &str) -> bool {
    matches!(path, "exec" | "attach")
}

/// A command that is being done.
#[derive(Debug)]
pub struct Recorded {
    trail: Trail,
    act: Act,
}

/// Records that a command is about to be done, if it is one of those.
///
/// # Errors
/// Class `config`: what cannot be recorded is not done.
pub fn begin(path: &str, entry: &Entry, matches: &ArgMatches, context: &Context) -> Result<Option<Recorded>, CliError> {
    // It looks, unless it asks a guest as its owner.
    let asks_owner = path == ASKS_OWNER && matches.get_flag("owners");
    let about = if asks_owner { Boxes } else { about(path) };
    if about == Nothing || about == Elsewhere && !context.home.exists() {
        return Ok(None);
    }
    let home = context.open_home()?;
    let mut act = Act::new(path, Outcome::Begun);
    let words = words(entry, matches);
    match about {
        NewBox => act.names = given(matches, "name").into_iter().chain(words.into_iter().take(1)).collect(),
        Program => {
            let mut words = words.into_iter();
            act.names = words.next().into_iter().collect();
            // A whole line in one word is no name.
            let name = |word: String| word.split([' ', '\t', '\n', '=']).next().unwrap_or_default().to_owned();
            act.details.extend(words.next().map(|program| ("program".to_owned(), name(program).into())));
        }
        Boxes | Things | Elsewhere | Nothing => act.names = words,
    }
    let secrets: Vec<_> = given(matches, "secret").iter().filter_map(|word| name_of(word)).collect();
    if !secrets.is_empty() {
        act.details.insert("secrets".into(), secrets.into());
    }
    if matches!(about, Boxes | Program) {
        let found = boxes(&home, &boxes_named(path, &act.names));
        if let (Some(right), [only]) = (right(path), &found[..]) {
            act.details.extend(caller(context, only, right).map(|who| ("as".to_owned(), who.into())));
        }
        act.boxes = found.iter().map(of_record).collect();
    }
    // A path of `cp` may have an @ of its own, and no login.
    if path != "cp" {
        act.names.iter_mut().for_each(|word| *word = without_login(word));
    }
    let trail = Trail::at(home.trail());
    let number = trail.add(&act)?;
    if begins_later(path) {
        let mut start = Act { action: format!("{path}{START}"), outcome: Outcome::Done, ..act.clone() };
        start.details.insert("command".into(), number.into());
        context.record_when_taken(trail.clone(), start);
    }
    act.details.insert("began".into(), number.into());
    Ok(Some(Recorded { trail, act }))
}

impl Recorded {
    /// Records what came of it. That it was done, or not, is so whether this can be written or not.
    pub fn end(mut self, result: &Result<ExitCode, CliError>, entry: &Entry, context: &Context) {
        let (outcome, status) = match result {
            Err(failure) => (Outcome::Failed(failure.class), None),
            Ok(code) => came_of(*code, entry, context.failed()),
        };
        self.act.outcome = outcome;
        self.act.names.extend(context.found());
        self.act.details.extend(status.map(|status| ("exit_code".to_owned(), Value::from(status))));
        if let Err(failure) = result {
            self.act
                .details
                .extend(failure.reason.as_ref().map(|reason| ("reason".to_owned(), serde_json::json!(reason))));
        }
        if let Err(error) = self.trail.add(&self.act) {
            tracing::warn!(error = &error as &dyn std::error::Error, "what came of this is not in the trail");
        }
    }
}

/// What an exit code says, and the status of what ran where it is that.
fn came_of(code: ExitCode, entry: &Entry, failed: Option<Class>) -> (Outcome, Option<u8>) {
    let code = (0..=u8::MAX).find(|number| ExitCode::from(*number) == code).unwrap_or(u8::MAX);
    if let Some(class) = failed {
        return (Outcome::Failed(class), None);
    }
    // Statuses of workloads.
    if entry.exits == Exits::Docker || entry.name == "attach" {
        return (Outcome::Done, Some(code));
    }
    // Of the two with the same code, the one that is no defect.
    let class = Class::ALL.into_iter().rev().find(|class| class.code() == code);
    (class.map_or(Outcome::Done, Outcome::Failed), None)
}

/// What stands in the line without a flag.
fn words(entry: &Entry, matches: &ArgMatches) -> Vec<String> {
    let parser = entry.parser();
    let ids = parser.get_positionals().map(|argument| argument.get_id().as_str().to_owned());
    ids.flat_map(|id| given(matches, &id)).collect()
}

fn given(matches: &ArgMatches, id: &str) -> Vec<String> {
    let values = matches.try_get_raw(id).ok().flatten();
    values.into_iter().flatten().map(|value| value.to_string_lossy().into_owned()).collect()
}

/// A secret's name before its value; a word without one names nothing.
fn name_of(word: &str) -> Option<String> {
    word.split_once('=').map(|(name, _)| name.to_owned())
}

/// An address without who logs in there: whatever stands before its last @, but for that of a digest.
fn without_login(word: &str) -> String {
    let (scheme, rest) = word.split_once("://").map_or(("", word), |(scheme, rest)| (scheme, rest));
    let is_digest = |text: &str| {
        text.split_once(':').is_some_and(|(_, hex)| hex.len() >= 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let (place, digest) = match rest.rsplit_once('@') {
        Some((place, digest)) if is_digest(digest) => (place, Some(digest)),
        _ => (rest, None),
    };
    let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
    let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    let digest = digest.map(|digest| format!("@{digest}")).unwrap_or_default();
    format!("{scheme}{place}{digest}")
}

/// The boxes among these words.
fn boxes(home: &Home, words: &[String]) -> Vec<BoxRecord> {
    let Ok(state) = State::open(home) else { return Vec::new() };
    words.iter().filter_map(|word| state.find(word).ok()).collect()
}

fn of_record(record: &BoxRecord) -> LineBox {
    LineBox { id: record.id.to_string(), name: record.name.clone() }
}

/// What of a guest a command wants, where either its host or an owner may have it.
fn right(path: &str) -> Option<Right> {
    Some(match path {
        "exec" => Right::Exec,
        "attach" => Right::Attach,
        "cp" | "diff" | "export" | "commit" => Right::Cp,
        _ => return None,
    })
}

/// Who the guest is asked as.
fn caller(context: &Context, record: &BoxRecord, right: Right) -> Option<&'static str> {
    let engine: Engine = context.engine().ok()?;
    let document = engine.document(record).ok()?;
    Some(if document.spec().host_may.allows(right) { "host" } else { "owner" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::parser;

    fn paths(before: &str, entries: &'static [Entry]) -> Vec<String> {
        let of = |entry: &'static Entry| {
            let path = format!("{before}{}", entry.name);
            let mut all = paths(&format!("{path} "), entry.does.commands());
            all.push(path);
            all
        };
        entries.iter().flat_map(of).collect()
    }

    fn chosen(line: &str) -> (String, &'static Entry, ArgMatches) {
        let matches = parser().try_get_matches_from(line.split(' ')).unwrap();
        let (path, entry, matches) = commands::chosen(&matches).unwrap();
        (path, entry, matches.clone())
    }

    #[test]
    fn every_row_is_a_command_and_what_acts_on_boxes_images_and_guests_has_one() {
        let all: Vec<String> = commands::GROUPS.iter().flat_map(|group| paths("", group.commands)).collect();
        for (path, _) in COMMANDS {
            assert!(all.iter().any(|known| known == path), "{path} is no command");
        }
        for group in &commands::GROUPS[..3] {
            let here = paths("", group.commands);
            let nouns = |path: &&String| !here.iter().any(|other| other.starts_with(&format!("{path} ")));
            for path in here.iter().filter(nouns) {
                assert_ne!(about(path), Elsewhere, "{path}: what do its words name?");
            }
        }
        for (path, wanted) in [
            ("kbs secret put", Elsewhere),
            ("kbs policy put", Elsewhere),
            ("kbs manifest revoke", Elsewhere),
            ("policy sign", Elsewhere),
            ("kbs secret list", Nothing),
            ("kbs audit verify", Nothing),
            ("bench kbs", Nothing),
        ] {
            assert!(all.iter().any(|known| known == path) && about(path) == wanted, "{path}");
        }
    }

    #[test]
    fn no_value_of_a_secret_and_no_word_of_a_program_behind_its_name_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        let context = Context::new(false, Some(home.clone()), Exits::Class);
        for line in [
            "coffer exec -e KEY=hidden1 web psql hidden2",
            "coffer run -e KEY=hidden1 --name web busybox sh -c hidden2",
            "coffer inject-secret web --secret note=hidden3",
            "coffer login -u me https://me:hidden4@registry.example",
            "coffer pull https://me:hidden5@registry.example/x",
            "coffer pull https://me:hidden6/y?@registry.example/x",
            "coffer pull me:hidden7@registry.example/x:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "coffer run --rm https://me:hidden8@registry.example/x",
            "coffer login me:hidden9@registry.example",
            "coffer exec web PASSWORD=hidden0",
        ] {
            let (path, entry, matches) = chosen(line);
            let recorded = begin(&path, entry, &matches, &context).unwrap().unwrap();
            recorded.end(&Ok(ExitCode::SUCCESS), entry, &context);
        }
        let mut text = String::new();
        for file in std::fs::read_dir(home.join("trail")).unwrap() {
            text += &std::fs::read_to_string(file.unwrap().path()).unwrap();
        }
        assert!(!text.contains("hidden"), "{text}");
        for word in
            ["psql", "\"note\"", "busybox", "\"web\"", "https://registry.example", "registry.example/x:1@sha256:0123"]
        {
            assert!(text.contains(word), "{word}: {text}");
        }
    }

    #[test]
    fn of_the_names_in_a_line_those_of_boxes_are_told_from_others() {
        for (action, names, boxes) in [
            ("run", &["web", "busybox"][..], &["web"][..]),
            ("run", &["busybox"], &[]),
            ("exec.start", &["web"], &["web"]),
            ("stop", &["web", "db"], &["web", "db"]),
            ("commit", &["web", "team/web:2"], &["web"]),
            ("network connect", &["app", "web"], &["web"]),
            ("cp", &["web:/etc", "out"], &["web", "out"]),
            ("pull", &["web"], &[]),
            ("volume rm", &["web"], &[]),
            ("box.die", &[], &[]),
        ] {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(boxes_named(action, &names), boxes, "{action}");
        }
    }

    #[test]
    fn what_came_of_it_is_the_failure_the_verdict_or_the_workloads_own_status() {
        let (_, exec, _) = chosen("coffer exec web true");
        let (_, attest, _) = chosen("coffer attest web");
        let code = ExitCode::from;
        assert_eq!(came_of(code(6), exec, None), (Outcome::Done, Some(6)));
        assert_eq!(came_of(code(125), exec, Some(Class::Refused)), (Outcome::Failed(Class::Refused), None));
        assert_eq!(came_of(code(6), attest, None), (Outcome::Failed(Class::Refused), None));
        assert_eq!(came_of(code(1), attest, None), (Outcome::Failed(Class::NotFound), None));
        assert_eq!(came_of(code(0), attest, None), (Outcome::Done, None));
    }

    #[test]
    fn where_there_is_no_home_none_is_made_for_what_is_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        let context = Context::new(false, Some(home.clone()), Exits::Class);
        let (path, entry, matches) = chosen("coffer policy sign --sign y x");
        assert!(begin(&path, entry, &matches, &context).unwrap().is_none() && !home.exists());
    }
}
