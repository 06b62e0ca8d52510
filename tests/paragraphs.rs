//! Whether help is wrapped once, by the parser, to the reader's width: a break inside of a sentence, at the width of a source file, is one
//! too many, and an example that is wrapped is none that could be copied.

/// Columns that a terminal has at least.
const WIDTH: usize = 80;

/// Every sentence that is broken and every example that would be, in whatever a program and its commands say of themselves.
pub fn broken_sentences(program: &clap::Command) -> Vec<String> {
    let mut found = Vec::new();
    look(program.get_name(), program, &mut found);
    found
}

fn look(path: &str, command: &clap::Command, found: &mut Vec<String>) {
    let own = [
        command.get_about(),
        command.get_long_about(),
        command.get_before_help(),
        command.get_before_long_help(),
        command.get_after_help(),
        command.get_after_long_help(),
    ];
    let of_flags = command.get_arguments().flat_map(|arg| [arg.get_help(), arg.get_long_help()]);
    for text in own.into_iter().chain(of_flags).flatten().map(ToString::to_string) {
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.windows(2).filter(|pair| is_broken(pair[0], pair[1])) {
            found.push(format!("{path} --help has a break in the middle of a sentence: {:?}, {:?}", pair[0], pair[1]));
        }
        for line in lines.iter().filter(|line| line.starts_with("  ") && line.chars().count() > WIDTH) {
            found.push(format!("{path} --help has an example wider than {WIDTH} columns: {line:?}"));
        }
    }
    for inner in command.get_subcommands() {
        look(&format!("{path} {}", inner.get_name()), inner, found);
    }
}

/// Examples and tables are indented; whatever else goes on in the next line has come to the end of a sentence.
fn is_broken(line: &str, next: &str) -> bool {
    let is_text = |line: &str| !line.trim().is_empty() && !line.starts_with(' ');
    is_text(line) && is_text(next) && !line.trim_end().ends_with(['.', ':', '!', '?'])
}

#[test]
fn a_break_in_a_sentence_is_found_wherever_it_stands_and_others_are_none() {
    let flag = |help: &'static str| clap::Arg::new("flag").long("flag").help(help);
    let program = |text: &'static str, help| {
        clap::Command::new("p").subcommand(clap::Command::new("serve").after_help(text).arg(flag(help)))
    };
    let good = "One sentence.\nAnd one more.\n\nExit status: 0 or 1\n\nExamples:\n  p serve \\\n    --flag";
    assert_eq!(broken_sentences(&program(good, "A flag")), Vec::<String>::new());
    let wide = "Examples:\n  p serve --flag --flag --flag --flag --flag --flag --flag --flag --flag --flag --flag";
    for (text, help) in [("A sentence that is\nbroken.", "A flag"), (good, "A flag\nthat is broken"), (wide, "A flag")]
    {
        let found = broken_sentences(&program(text, help));
        assert!(found.len() == 1 && found[0].starts_with("p serve --help"), "{found:?}");
    }
}
