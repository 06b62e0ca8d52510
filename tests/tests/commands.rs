//! Every command that a page prints can be typed: there is such a command, it has such flags, they stand where they count.
//!
//! Examples in blocks are run as they stand (docs.rs). This is about those in sentences, with words for others' names in them.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use coffer_tests::process::binary;

/// Commands whose options end at a name: what follows it is the program's.
const VERBS: &[&str] = &["run", "create", "measure", "spec", "exec"];

/// The name, as pages write it.
const NAMES: &[&str] = &["IMAGE", "BOX", "busybox"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// README, SECURITY, ARCHITECTURE and what lies under docs, by their names from the root. The changelog says how it was.
fn pages() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for folder in ["", "docs", "docs/design"] {
        for entry in fs::read_dir(root().join(folder)).unwrap().flatten() {
            if entry.path().extension().is_some_and(|e| e == "md") && entry.file_name() != "CHANGELOG.md" {
                let name = Path::new(folder).join(entry.file_name()).to_string_lossy().into_owned();
                all.push((name, fs::read_to_string(entry.path()).unwrap()));
            }
        }
    }
    assert!(all.len() > 15, "pages have moved");
    all
}

/// Text outside of blocks, and the blocks.
fn parts(page: &str) -> (String, String) {
    let (mut prose, mut blocks) = (String::new(), String::new());
    for (at, part) in page.split("\n```").enumerate() {
        let side = if at % 2 == 0 { &mut prose } else { &mut blocks };
        side.push_str(part);
        side.push('\n');
    }
    (prose, blocks)
}

fn spans(prose: &str) -> impl Iterator<Item = &str> {
    prose.split('`').skip(1).step_by(2)
}

/// Calls of our programs that a page shows, in blocks and in backticks, word by word. `a|b` behind a program stands for either.
fn calls(page: &str) -> Vec<Vec<String>> {
    let (prose, blocks) = parts(&page.replace("\\\n", " "));
    let mut all = Vec::new();
    for line in blocks.lines().chain(spans(&prose)) {
        let line = line.trim_start_matches("$ ").split(" #").next().unwrap_or_default();
        for part in line.replace("&&", ";").replace(" | ", ";").split([';', '(', ')']) {
            let words = part.split_whitespace().map(|word| word.trim_matches('"').to_owned());
            let words: Vec<String> = words.skip_while(|word| word.contains('=') || word == "!").collect();
            if words.first().is_some_and(|word| word == "coffer" || word == "coffer-kbs") {
                all.push(words);
            }
        }
    }
    all
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

/// What `--help` of a command says; `None` if there is none.
#[derive(Default)]
struct Help(RefCell<BTreeMap<Vec<String>, Option<String>>>);

impl Help {
    fn of(&self, words: &[String]) -> Option<String> {
        let mut known = self.0.borrow_mut();
        let ask = || {
            let output = Command::new(binary(&words[0]).unwrap()).args(&words[1..]).arg("--help").output().unwrap();
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        known.entry(words.to_vec()).or_insert_with(ask).clone()
    }
}

/// The command that a call begins with, without flags in front of it; or the words that are none.
fn command(help: &Help, call: &[String]) -> Result<Vec<String>, String> {
    let mut found = vec![call[0].clone()];
    for word in call[1..].iter().skip_while(|word| word.starts_with("--")) {
        let chooses = help.of(&found).is_some_and(|text| text.contains("\nCommands:") || found.len() == 1);
        if !chooses || !is_word(word) {
            break;
        }
        found.push(word.clone());
        if help.of(&found).is_none() {
            return Err(found.join(" "));
        }
    }
    Ok(found)
}

fn has_flag(help: &str, flag: &str) -> bool {
    let words = help.split(|c: char| c.is_whitespace() || ",=[]<>|".contains(c));
    words.into_iter().any(|word| word == flag)
}

#[test]
fn every_command_and_flag_that_a_page_prints_is_there() {
    let help = Help::default();
    let design = fs::read_to_string(root().join("docs/design/README.md")).unwrap();
    let unbuilt = design.split("## Not built yet").nth(1).expect("a section `## Not built yet`");
    let unbuilt: Vec<&str> = spans(unbuilt).collect();
    let (mut wrong, mut found) = (Vec::new(), 0);
    for (page, text) in pages() {
        for call in calls(&text) {
            found += 1;
            // `coffer seal|unseal` is both.
            let either: Vec<String> =
                call.get(1).map_or(Vec::new(), |word| word.split('|').map(str::to_owned).collect());
            for word in either {
                let mut call = call.clone();
                call[1] = word;
                match command(&help, &call) {
                    Err(none) if unbuilt.iter().any(|word| none.ends_with(word)) => {}
                    Err(none) => wrong.push(format!("{page}: there is no `{none}`")),
                    Ok(command) => {
                        let text = help.of(&command).unwrap_or_default();
                        let usage = text.lines().find(|line| line.starts_with("Usage: ")).unwrap_or_default();
                        let further = call.iter().skip_while(|word| *word != &command[command.len() - 1]).nth(1);
                        if usage.ends_with("[OPTIONS]") && further.is_some_and(|word| is_word(word)) {
                            wrong.push(format!("{page}: `{}` takes no further word", command.join(" ")));
                        }
                        let ends = command.get(1).is_some_and(|verb| VERBS.contains(&verb.as_str()));
                        let theirs = |word: &&String| ends && NAMES.contains(&word.as_str());
                        let flags =
                            call.iter().take_while(|word| !theirs(word)).map(|word| word.trim_matches(['[', ']']));
                        let flags = flags.filter(|word| word.starts_with("--") && word.len() > 2);
                        let flags = flags.filter_map(|word| word.split(['=', '|', ']']).next());
                        let missing = flags.filter(|flag| !has_flag(&text, flag));
                        wrong.extend(missing.map(|flag| format!("{page}: `{}` has no {flag}", command.join(" "))));
                    }
                }
            }
        }
    }
    assert!(found > 100, "only {found} calls found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn options_stand_before_the_image_or_box_whose_program_follows() {
    // Options of the program itself, in the examples.
    const THEIRS: &[&str] = &["-c", "-b", "-h", "-q", "-o", "-", "-hup"];
    let (mut wrong, mut found) = (Vec::new(), 0);
    for (page, text) in pages() {
        for call in calls(&text) {
            let verb = call[1..].iter().find(|word| !word.starts_with('-'));
            if !verb.is_some_and(|verb| VERBS.contains(&verb.as_str())) {
                continue;
            }
            found += 1;
            let name = call.iter().position(|word| NAMES.contains(&word.as_str()));
            let behind = name.map_or(&[][..], |at| &call[at + 1..]);
            let ours = |word: &String| {
                let word = word.trim_start_matches('[').to_lowercase();
                word.starts_with("flag") || word.starts_with('-') && !THEIRS.contains(&word.as_str())
            };
            if behind.iter().any(ours) {
                wrong.push(format!("{page}: {}", call.join(" ")));
            }
        }
    }
    assert!(found > 20, "only {found} calls found");
    assert!(wrong.is_empty(), "options behind IMAGE are the program's: {wrong:#?}");
}

/// Words in backticks of the text before a phrase, from the beginning of its paragraph.
fn spans_before(page: &str, phrase: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let before = text.split(phrase).next().filter(|before| before.len() < text.len());
    let before = before.unwrap_or_else(|| panic!("{page} does not say {phrase:?}"));
    spans(before.rsplit("\n\n").next().unwrap_or_default()).map(str::to_owned).collect()
}

#[test]
fn the_commands_with_dockers_exit_codes_are_named_where_exit_codes_are_told() {
    let output = Command::new(binary("coffer").unwrap()).args(["--json", "help"]).output().unwrap();
    let rows = String::from_utf8(output.stdout).unwrap();
    let rows = rows.split('}').filter(|row| row.contains("\"exits\":\"docker\""));
    let names = rows.filter_map(|row| row.split("\"command\":\"").nth(1)?.split('"').next());
    let docker: BTreeSet<String> = names.map(str::to_owned).collect();
    assert!(docker.contains("run"), "{docker:?}");
    assert_eq!(spans_before("docs/design/cli.md", " have Docker's instead"), docker);
    assert_eq!(spans_before("docs/getting-started.md", " are Docker's: the workload's own"), docker);
}

/// Whoever types what is printed types a whole command.
#[test]
fn a_command_in_a_sentence_stands_on_one_line() {
    let mut wrong = Vec::new();
    for (page, text) in pages() {
        let broken = parts(&text).0;
        let broken = spans(&broken).filter(|span| span.starts_with("coffer") && span.contains('\n'));
        wrong.extend(broken.map(|span| format!("{page}: {span}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn calls_are_read_as_they_are_written() {
    let page = "use `coffer seal|unseal --x`\n```sh\nA=$(coffer exec \\\n  y) # coffer no\nb | coffer-kbs z && coffer t\n```\n`bin coffer`";
    let found: Vec<String> = calls(page).iter().map(|call| call.join(" ")).collect();
    assert_eq!(found, ["coffer exec y", "coffer-kbs z", "coffer t", "coffer seal|unseal --x"]);
}
