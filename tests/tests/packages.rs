//! What packages ship: man pages and completions of the commands that there are, and files that are there, each once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use cargo_metadata::MetadataCommand;
use coffer_tests::process::{binary, run};
use tempfile::TempDir;

/// Program, section of its pages, a command that it has.
const PROGRAMS: [(&str, &str, &str); 3] =
    [("coffer", "1", "verify"), ("coffer-kbs", "8", "serve"), ("coffer-verifier", "8", "serve")];

/// What each program writes, into one folder.
fn manual() -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    for (program, ..) in PROGRAMS {
        run(Command::new(binary(program)?).args(["manual", "--out"]).arg(dir.path()), b"")?.ok()?;
    }
    Ok(dir)
}

fn names(folder: &Path) -> Result<BTreeSet<String>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

#[test]
fn each_command_has_a_page_and_each_page_a_command() -> Result<()> {
    let dir = manual()?;
    let mut found: BTreeSet<String> = names(&dir.path().join("man1"))?;
    found.extend(names(&dir.path().join("man8"))?);
    // A page names those of its commands, as `NAME-COMMAND(SECTION)`.
    let mut reached = BTreeSet::new();
    for (program, section, known) in PROGRAMS {
        let mut left = vec![program.to_owned()];
        while let Some(name) = left.pop() {
            let file = format!("{name}.{section}");
            let page = std::fs::read_to_string(dir.path().join(format!("man{section}")).join(&file))
                .with_context(|| format!("{name} has no page"))?;
            let version = format!("\"{program} {}\"", env!("CARGO_PKG_VERSION"));
            ensure!(page.contains(&format!(".TH {name} {section}")) && page.contains(&version), "{file}: {page}");
            let ends = format!("({section})");
            let below = page.lines().filter_map(|line| line.strip_suffix(&ends)).map(|line| line.replace("\\-", "-"));
            left.extend(below.filter(|below| below.starts_with(&format!("{name}-"))));
            reached.insert(file);
        }
        ensure!(reached.contains(&format!("{program}-{known}.{section}")), "{program} has no page on {known}");
    }
    ensure!(found == reached, "{:?}", found.symmetric_difference(&reached));
    ensure!(!found.iter().any(|page| page.contains("manual") || page.contains("supervise")), "commands of our own");
    Ok(())
}

#[test]
fn completions_are_scripts_that_know_the_commands() -> Result<()> {
    let dir = manual()?;
    for (program, _, known) in PROGRAMS {
        for (shell, file) in
            [("bash", program.to_owned()), ("zsh", format!("_{program}")), ("fish", format!("{program}.fish"))]
        {
            let path = dir.path().join(shell).join(file);
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            ensure!(text.contains(known) && text.contains(program), "{}: no {known}", path.display());
        }
        run(Command::new("bash").arg("-n").arg(dir.path().join("bash").join(program)), b"")?.ok()?;
        // Whoever has these shells has them parsed there, too.
        let path = dir.path().join("zsh").join(format!("_{program}"));
        for (shell, flag, path) in
            [("zsh", "-n", path), ("fish", "--no-execute", dir.path().join("fish").join(format!("{program}.fish")))]
        {
            match Command::new(shell).arg("--version").output() {
                Ok(_) => drop(run(Command::new(shell).arg(flag).arg(path), b"")?.ok()?),
                Err(error) => eprintln!("not parsed by {shell}: {error}"),
            }
        }
        let ask = format!(
            "source {0}/bash/{program}; COMP_WORDS=({program} {1}); COMP_CWORD=1; _{2} {program} {1} {program}; echo ${{COMPREPLY[@]}}",
            dir.path().display(),
            &known[..3],
            program.replace('-', "__")
        );
        let said = run(Command::new("bash").args(["-c", &ask]), b"")?.ok()?;
        ensure!(said.split_whitespace().any(|word| word == known), "{program} {}: {said}", &known[..3]);
    }
    Ok(())
}

/// Of one package: its name, its folder, and source and destination of each file.
type Package = (String, PathBuf, Vec<(String, String)>);

fn packages() -> Result<Vec<Package>> {
    let metadata = MetadataCommand::new()
        .manifest_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()?;
    let mut all = Vec::new();
    for package in metadata.workspace_packages() {
        let deb = &package.metadata["deb"];
        let Some(assets) = deb["assets"].as_array() else { continue };
        let word = |value: &serde_json::Value| value.as_str().map(str::to_owned).context("a word");
        let files = assets.iter().map(|asset| Ok((word(&asset[0])?, word(&asset[1])?))).collect::<Result<_>>()?;
        let folder = package.manifest_path.parent().context("a folder")?.as_std_path().to_owned();
        all.push((word(&deb["name"])?, folder, files));
    }
    Ok(all)
}

#[test]
fn packages_ship_files_that_are_there_and_none_twice() -> Result<()> {
    let (manual, packages) = (manual()?, packages()?);
    let named: BTreeSet<&str> = packages.iter().map(|(name, ..)| name.as_str()).collect();
    ensure!(named == PROGRAMS.map(|(name, ..)| name).into(), "{named:?}");
    let mut shipped: BTreeMap<String, String> = BTreeMap::new();
    for (name, folder, files) in &packages {
        for (source, destination) in files {
            for file in sources(source, folder, manual.path())? {
                let last = file.file_name().context("a file")?.to_string_lossy().into_owned();
                let place =
                    if destination.ends_with('/') { format!("{destination}{last}") } else { destination.clone() };
                ensure!(std::fs::symlink_metadata(&file).is_ok(), "{name}: no {} for {place}", file.display());
                let other = shipped.insert(place.clone(), name.clone());
                ensure!(other.is_none(), "{place} is in {name} and in {other:?}");
            }
        }
    }
    // The link leads to a file of the package, from where it stands.
    let link = std::fs::read_link(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/coffer"))?;
    ensure!(link == Path::new("../lib/coffer/coffer") && shipped.contains_key("usr/lib/coffer/coffer"), "{link:?}");
    // A unit starts what its own package brings, and a timer stands beside what it starts.
    for (place, name) in &shipped {
        let Some(unit) = place.strip_prefix("usr/lib/systemd/system/") else { continue };
        if let Some(timer) = unit.strip_suffix(".timer") {
            ensure!(shipped.get(&format!("usr/lib/systemd/system/{timer}.service")) == Some(name), "{unit}");
            continue;
        }
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(unit))?;
        // `-`: its failure is no failure of the unit.
        let start =
            |line: &'_ str| line.strip_prefix("ExecStart=").map(|words| words.trim_start_matches('-').to_owned());
        let words = text.lines().find_map(start).context("a start")?;
        let program = words.strip_prefix('/').and_then(|words| words.split(' ').next());
        ensure!(shipped.get(program.context("a program")?) == Some(name), "{unit}: {program:?} is not in {name}");
    }
    // And every unit that there is, is in a package.
    for unit in names(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy"))? {
        let is_unit = Path::new(&unit).extension().is_some_and(|kind| kind == "service" || kind == "timer");
        ensure!(!is_unit || shipped.contains_key(&format!("usr/lib/systemd/system/{unit}")), "{unit} is in no package");
    }
    Ok(())
}

/// Files that an asset's first word means: of what was built, of the pages made here, or of the tree.
fn sources(source: &str, folder: &Path, manual: &Path) -> Result<Vec<PathBuf>> {
    let Some(built) = source.strip_prefix("target/release/") else { return Ok(vec![folder.join(source)]) };
    let path = match built.strip_prefix("manual/") {
        Some(page) => manual.join(page),
        None => match built.split_once('/') {
            Some((folder, file)) => binary(folder)?.join(file),
            None => binary(built)?,
        },
    };
    let last = path.file_name().context("a file")?.to_string_lossy().into_owned();
    let Some((before, after)) = last.split_once('*') else { return Ok(vec![path]) };
    let above = path.parent().context("a folder")?;
    let fits = |name: &String| name.starts_with(before) && name.ends_with(after);
    let found: Vec<_> = names(above)?.into_iter().filter(fits).map(|name| above.join(name)).collect();
    ensure!(!found.is_empty(), "{source} is no file");
    Ok(found)
}
