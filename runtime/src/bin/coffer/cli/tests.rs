#[path = "../../../../../tests/paragraphs.rs"]
mod paragraphs;

use super::*;
use crate::parser::parser;
use crate::refusal;

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// Every command with its path, the parser itself first.
fn every() -> Vec<(String, clap::Command)> {
    fn walk(path: &str, command: &clap::Command, all: &mut Vec<(String, clap::Command)>) {
        all.push((path.to_owned(), command.clone()));
        for inner in command.get_subcommands() {
            walk(&format!("{path} {}", inner.get_name()), inner, all);
        }
    }
    let mut all = Vec::new();
    walk("coffer", &parser(), &mut all);
    all
}

#[test]
fn the_command_line_is_consistent() {
    parser().debug_assert();
}

#[test]
fn a_start_lists_and_takes_monitors_alone_where_a_new_box_takes_hardware_too() {
    let parses = |line: &str| parser().try_get_matches_from(words(line)).map(drop).map_err(|error| error.to_string());
    for monitor in ["kvm", "qemu"] {
        parses(&format!("coffer start --isolation {monitor} b")).unwrap();
    }
    let refused = parses("coffer start --isolation snp b").unwrap_err();
    assert!(refused.contains("kvm, qemu]"), "{refused}");
    parses("coffer create --isolation snp image").unwrap();
}

#[test]
fn only_dockers_verbs_fail_with_125() {
    let code = |class, line: &str| {
        let exits = refusal::named(words(line).into_iter()).entries.first().map_or(Exits::Class, |entry| entry.exits);
        exits.code(&CliError::new(class, ""))
    };
    assert_eq!(code(Class::Usage, "coffer --json --home /x run --nosuch"), 125);
    assert_eq!(code(Class::Usage, "coffer --nosuch --home=/x run"), 125);
    assert_eq!(code(Class::Platform, "coffer start b"), 125);
    assert_eq!(code(Class::Refused, "coffer restart b"), 125);
    assert_eq!(code(Class::Usage, "coffer ps run"), 2);
    assert_eq!(code(Class::Usage, "coffer ls run"), 2);
    assert_eq!(code(Class::NotFound, "coffer rm run"), 1);
    let docker: Vec<_> = commands::all().filter(|entry| entry.exits == Exits::Docker).map(|entry| entry.name).collect();
    assert_eq!(docker, ["run", "create", "start", "restart", "exec"]);
}

#[test]
fn every_command_has_documentation_and_a_place_in_help() {
    let help = parser().render_help().to_string();
    for entry in commands::all().filter(|entry| !entry.parser().is_hide_set()) {
        let line = format!("\n  {:<14} ", entry.name);
        assert_eq!(help.matches(&line).count(), 1, "{}\n{help}", entry.name);
    }
    for (path, command) in every() {
        assert!(command.get_about().is_some(), "{path} says nothing about itself");
        for arg in command.get_arguments() {
            assert!(arg.get_help().is_some() || ["help", "version"].contains(&arg.get_id().as_str()), "{path} {arg}");
        }
    }
}

#[test]
fn what_lists_is_called_list_and_ls_and_what_removes_is_called_remove_and_rm() {
    for (path, command) in every() {
        let names: Vec<_> = command.get_name_and_visible_aliases();
        for (one, other) in [("list", "ls"), ("remove", "rm")] {
            assert_eq!(names.contains(&one), names.contains(&other), "{path} is called {names:?}");
        }
        let inner: Vec<_> = command.get_subcommands().flat_map(clap::Command::get_name_and_visible_aliases).collect();
        assert!(!inner.contains(&"add") || inner.contains(&"list"), "{path} adds what it does not list");
    }
}

#[test]
fn one_line_says_what_a_command_does() {
    let verbs = |about: &str| about.split(' ').next().unwrap_or_default().to_owned();
    for (path, command) in every() {
        let about = command.get_about().unwrap().to_string();
        let first = verbs(&about);
        assert!(!about.ends_with('.') || path == "coffer", "{path}: {about}");
        let nouns = ["What", "No", "The", "Its", "Arguments", "A"];
        assert!(!nouns.contains(&first.as_str()), "{path} is described by what it is, not by what it does: {about}");
    }
}

#[test]
fn help_is_the_same_however_it_is_asked_for() {
    for words in [vec!["coffer"], vec!["coffer", "run"], vec!["coffer", "kbs", "secret", "put"]] {
        let asked = parser().try_get_matches_from([&words[..], &["--help"]].concat()).unwrap_err();
        assert_eq!(crate::host::help::text(&words[1..]).unwrap(), asked.render().to_string(), "{words:?}");
    }
}

#[test]
fn usage_says_nothing_of_what_every_command_has() {
    let error = parser().try_get_matches_from(["coffer", "--home", "x", "verify"]).unwrap_err().to_string();
    assert!(error.contains("Usage: coffer verify"), "{error}");
    for (path, command) in every() {
        for arg in command.get_arguments() {
            assert!(arg.get_env().is_none(), "{path} {arg}: a variable that is set would stand in every usage line");
        }
    }
}

#[test]
fn every_help_has_examples_that_the_parser_accepts() {
    let mut count = 0;
    for (path, command) in every().into_iter().filter(|(_, command)| !command.is_hide_set()) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let (_, examples) = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{path} --help has no Examples"));
        assert!(examples.replace("--json ", "").contains(&path), "no example of {path} is one:\n{examples}");
        // The parser breaks longer ones where it likes, and a shell then takes the pieces for commands.
        for line in examples.lines() {
            assert!(line.chars().count() <= 80, "{path} --help: break this line with a backslash:\n{line}");
        }
        for line in lines(examples) {
            for part in commands_in(&line) {
                if let Err(error) = parsed(&part) {
                    panic!("{path} --help: {}\n{error}", part.join(" "));
                }
                count += 1;
            }
        }
    }
    assert!(count > 60, "{count} examples");
}

/// Lines of an example; one that ends in a backslash goes on.
fn lines(examples: &str) -> Vec<String> {
    let joined = examples.replace("\\\n", " ");
    joined.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The command lines of ours in a line for a shell, without what the shell would take away.
pub(crate) fn commands_in(line: &str) -> Vec<Vec<String>> {
    let mut parts = vec![Vec::new()];
    let mut quote = None;
    let mut word: Option<String> = None;
    let end = |word: &mut Option<String>, parts: &mut Vec<Vec<String>>| {
        let Some(word) = word.take() else { return };
        match word.as_str() {
            "|" | "&&" => parts.push(Vec::new()),
            _ => parts.last_mut().unwrap().push(word),
        }
    };
    // What a command puts in the place of another is a measurement in our examples.
    let line = match (line.find("$("), line.rfind(')')) {
        (Some(from), Some(to)) => format!("{}{}{}", &line[..from], "ab".repeat(48), &line[to + 1..]),
        _ => line.to_owned(),
    };
    for c in line.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\'' | '"', None) => quote = Some(c),
            (' ', None) => end(&mut word, &mut parts),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    end(&mut word, &mut parts);
    parts.retain(|words| words.first().is_some_and(|word| word == "coffer"));
    for words in &mut parts {
        let shell = words.iter().position(|word| word.starts_with(['>', '#', '<'])).unwrap_or(words.len());
        words.truncate(shell);
    }
    parts
}

/// Parses a line; a digest that is cut short with `…` stands for one of full length.
fn parsed(words: &[String]) -> Result<(), String> {
    let mut last = String::new();
    for digits in [64, 96, 128] {
        let whole = |word: &String| match word.strip_suffix('…') {
            Some(start) if start.chars().all(|c| c.is_ascii_hexdigit()) => format!("{start:0<digits$}"),
            _ => word.clone(),
        };
        // Two digests of a line may have two lengths.
        for other in [64, 96, 128] {
            let mut seen = 0;
            let line = words.iter().map(|word| {
                let first = word.ends_with('…') && std::mem::replace(&mut seen, 1) == 0;
                let start = word.trim_end_matches('…');
                if first { format!("{start:0<other$}") } else { whole(word) }
            });
            match parser().try_get_matches_from(line) {
                Ok(_) => return Ok(()),
                Err(error) => last = error.to_string(),
            }
        }
    }
    Err(last)
}

/// Commands about evidence, policies, collateral and tokens, by their words.
fn of_the_verifier() -> Vec<(String, clap::Command)> {
    let all =
        every().into_iter().filter_map(|(path, command)| Some((path.strip_prefix("coffer ")?.to_owned(), command)));
    let ends = |command: &clap::Command| command.get_subcommands().next().is_none();
    let ours = |path: &str| {
        ["verify", "report show"].contains(&path)
            || ["collateral ", "policy ", "token "].iter().any(|group| path.starts_with(group))
    };
    all.filter(|(path, command)| ends(command) && ours(path)).collect()
}

fn page(name: &str) -> String {
    std::fs::read_to_string(format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Numbers that stand alone.
fn numbers(text: &str) -> std::collections::BTreeSet<u8> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn exit_codes_of_the_verifiers_commands_stand_in_one_table() {
    let page = page("verifier.md");
    let section = page.split("\n## Exit codes\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let table = |head: &str| {
        let rows = section.lines().skip_while(|line| !line.starts_with(head)).skip(2);
        let rows = rows.take_while(|line| line.starts_with('|'));
        rows.map(|row| row.splitn(4, '|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let classes: Vec<_> = table("| exit | class |").iter().map(|row| (row[1].clone(), row[2].clone())).collect();
    let ours = crate::error::Class::ALL.map(|class| (class.code().to_string(), format!("`{}`", class.word())));
    assert_eq!(classes[1..], ours, "each class by its code and word");
    let commands = table("| command | exits |");
    let rows: std::collections::BTreeMap<_, _> =
        commands.iter().map(|row| (row[1].trim_matches('`').to_owned(), numbers(&row[2..].join("")))).collect();
    let of_coffer: Vec<_> = of_the_verifier();
    let named: Vec<_> = rows.keys().filter(|name| !name.starts_with("coffer-verifier ")).cloned().collect();
    let mut wanted: Vec<_> = of_coffer.iter().map(|(path, _)| path.clone()).collect();
    wanted.sort();
    assert_eq!(named, wanted);
    for (path, command) in of_coffer {
        let exits = &rows[&path];
        assert!(exits.contains(&0) && exits.iter().all(|code| *code <= 7), "{path}: {exits:?}");
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let said = help.split("Exit status:").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap_or_default();
        let missing: Vec<_> = numbers(said).difference(exits).copied().collect();
        assert!(missing.is_empty(), "{path}: its help has {missing:?}, docs/verifier.md not");
    }
}

#[test]
fn documents_of_the_verifiers_commands_have_an_example_on_a_page() {
    let pages = ["policies.md", "collateral.md", "verifier.md"].map(page).concat();
    for (path, _) in of_the_verifier() {
        if ["verify", "report show"].contains(&path.as_str()) {
            continue;
        }
        let shown = pages.lines().any(|line| {
            line.strip_prefix("$ coffer --json ")
                .is_some_and(|rest| rest == path || rest.starts_with(&format!("{path} ")))
        });
        assert!(shown, "no page shows what `coffer --json {path}` prints");
    }
}

#[test]
fn help_is_wrapped_once_to_the_readers_width() {
    let found = paragraphs::broken_sentences(&parser());
    assert!(found.is_empty(), "{}", found.join("\n"));
}
