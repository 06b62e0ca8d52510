//! Where programs and platform files are looked for. Which programs a monitor needs, it knows itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use coffer_rim::{Class, Failure};

/// Where to look. Filled from the environment in `main`, so that nothing below reads it.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Programs named by environment variables ([`crate::monitor::VARIABLES`]).
    pub named: BTreeMap<&'static str, PathBuf>,
    /// `COFFER_PLATFORM`.
    pub platform: Option<PathBuf>,
    /// `PATH`.
    pub path: Option<OsString>,
    /// Folder of our own executable.
    pub exe_folder: Option<PathBuf>,
    /// `HOME`.
    pub user_home: Option<PathBuf>,
}

/// A program somebody else wrote.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// File name.
    pub name: &'static str,
    /// Environment variable that names another.
    pub variable: &'static str,
    /// It may lie beside our own executable, or where `make setup` puts what distributions lack.
    pub ours_to_build: bool,
    /// How to get it.
    pub remedy: &'static str,
}

impl Search {
    /// Finds a program: the one its variable names, or the first in `PATH`.
    ///
    /// # Errors
    /// Class `platform`, with how to get it.
    pub fn program(&self, program: &Program) -> Result<PathBuf, Failure> {
        let Program { name, variable, .. } = program;
        if let Some(path) = self.named.get(variable) {
            return if path.is_file() {
                Ok(path.clone())
            } else {
                let message = format!("{variable} names {}, which is no file", path.display());
                Err(Failure::new(Class::Platform, message).hint(format!("unset {variable} or name the program")))
            };
        }
        let beside = self.exe_folder.as_ref().map(|folder| folder.join(name));
        let cached = self.user_home.as_ref().map(|home| home.join(".cache/coffer/tools/bin").join(name));
        let ours = [beside, cached].into_iter().flatten().filter(|_| program.ours_to_build);
        ours.chain(self.in_path(name)).find(|path| path.is_file()).ok_or_else(|| {
            Failure::new(Class::Platform, format!("{name} was not found"))
                .hint(format!("{}, or name it in {variable}", program.remedy))
        })
    }

    /// The folder of platform files: the one asked for, `COFFER_PLATFORM`, or `platform` beside our executable.
    ///
    /// # Errors
    /// Class `config` if none is there.
    pub fn platform_folder(&self, asked: Option<&Path>) -> Result<PathBuf, Failure> {
        let beside = self.exe_folder.as_ref().map(|folder| folder.join("platform"));
        let folder = asked.map(Path::to_path_buf).or_else(|| self.platform.clone()).or(beside).unwrap_or_default();
        if folder.join("platform.json").is_file() {
            std::path::absolute(&folder).map_err(Failure::from)
        } else {
            Err(Failure::new(Class::Config, format!("no platform files in {}", folder.display()))
                .hint("`make platform` makes target/release/platform, `make kernel` target/release/platform-own; or name a folder with kernel, initrd and platform.json in --platform or COFFER_PLATFORM"))
        }
    }

    fn in_path(&self, name: &str) -> impl Iterator<Item = PathBuf> {
        let path = self.path.clone().unwrap_or_default();
        std::env::split_paths(&path).map(|folder| folder.join(name)).collect::<Vec<_>>().into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOL: Program =
        Program { name: "tool", variable: "COFFER_TOOL", ours_to_build: true, remedy: "run `make setup`" };

    #[test]
    fn what_is_missing_is_named_with_a_way_to_get_it() {
        let nothing = Search::default();
        let error = nothing.program(&TOOL).unwrap_err();
        assert_eq!((error.class, error.message.as_str()), (Class::Platform, "tool was not found"));
        assert_eq!(error.hint.unwrap(), "run `make setup`, or name it in COFFER_TOOL");
        let error = nothing.platform_folder(Some(Path::new("/nowhere"))).unwrap_err();
        assert_eq!(error.message, "no platform files in /nowhere");
    }

    #[test]
    fn programs_beside_ours_come_before_the_path_and_a_name_before_both() {
        let dir = tempfile::tempdir().unwrap();
        let (exe, path) = (dir.path().join("exe"), dir.path().join("path"));
        for folder in [&exe, &path] {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join("tool"), b"").unwrap();
        }
        let search = Search { exe_folder: Some(exe.clone()), path: Some(path.clone().into()), ..Search::default() };
        assert_eq!(search.program(&TOOL).unwrap(), exe.join("tool"));
        assert_eq!(search.program(&Program { ours_to_build: false, ..TOOL }).unwrap(), path.join("tool"));
        let wrong = Search { named: BTreeMap::from([("COFFER_TOOL", "/nowhere".into())]), ..search };
        assert!(wrong.program(&TOOL).unwrap_err().message.contains("COFFER_TOOL"));
    }
}
