//! Man pages and completions of a program, from the definitions that its parser has: what packages ship. The programs share this file.
//!
//! Never: writes anything but files of the program's own names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap_complete::Shell;
use clap_mangen::Man;
use coffer_rim::Failure;
use coffer_rim::file::Writer;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder, made where it is not there; files of these names are replaced.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Writes them; `section` is the manual's, 1 for commands and 8 for servers.
pub fn run(args: &Args, parser: clap::Command, section: &str, as_json: bool) -> Result<(), Failure> {
    let files = write(&args.out, parser, section)?;
    if as_json {
        coffer_rim::println!("{}", serde_json::json!({ "folder": args.out, "files": files }));
    } else {
        coffer_rim::println!("{files} files in {}", args.out.display());
    }
    Ok(())
}

fn write(out: &Path, parser: clap::Command, section: &str) -> io::Result<usize> {
    let name = parser.get_name().to_owned();
    let mut parser = without_help(parser);
    let completions = [
        (Shell::Bash, "bash", name.clone()),
        (Shell::Zsh, "zsh", format!("_{name}")),
        (Shell::Fish, "fish", format!("{name}.fish")),
    ];
    let mut files = completions.len();
    for (shell, folder, file) in completions {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut parser, name.as_str(), &mut script);
        put(&out.join(folder), &file, &script)?;
    }
    let source = format!("{name} {}", parser.get_version().unwrap_or_default());
    parser.build();
    let folder = out.join(format!("man{section}"));
    let mut left = vec![parser];
    while let Some(command) = left.pop() {
        left.extend(command.get_subcommands().filter(|one| !one.is_hide_set()).cloned());
        let man = Man::new(command).section(section).manual("Coffer").source(source.as_str());
        let mut page = Vec::new();
        man.render(&mut page)?;
        put(&folder, &man.get_filename(), &page)?;
        files += 1;
    }
    Ok(files)
}

/// Without the commands that only print help: a page says that already.
fn without_help(command: clap::Command) -> clap::Command {
    command.disable_help_subcommand(true).mut_subcommands(without_help)
}

fn put(folder: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    // Pages are made anew after a crash.
    Writer::private().mode(0o644).unsynced().write(&folder.join(name), text)
}
