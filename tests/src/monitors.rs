//! The monitors that a story is told on: one table, and which of its rows work on this machine.
//!
//! Here QEMU works everywhere, and our own monitor where KVM runs Linux: in the laboratory ([`crate::lab`]), which runs the
//! stories of this table inside its host.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use coffer_machine::map::ROM_HASHES;

use crate::{World, process::binary};

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// The word of `--isolation`.
    pub word: &'static str,
    /// What `coffer` calls it where it ends.
    pub name: &'static str,
    /// The variable that names its program.
    variable: &'static str,
    program: Found,
    /// File in a box's folder, and offset in it, of the hashes of kernel, initrd and command line, where there is a machine that
    /// starts by them.
    pub hashes: Option<(&'static str, usize)>,
    /// What must be well with `coffer doctor`.
    needs: &'static [&'static str],
}

/// Where its program lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    OnPath(&'static str),
    BesideOurs(&'static str),
}

/// All of them.
pub const ALL: [Monitor; 3] = [
    Monitor {
        word: "qemu",
        name: "QEMU",
        variable: "COFFER_QEMU",
        program: Found::OnPath("qemu-system-x86_64"),
        hashes: Some(("stage0.bin", ROM_HASHES)),
        needs: &["qemu"],
    },
    Monitor {
        word: "kvm",
        name: "coffer-vmm",
        variable: "COFFER_VMM",
        program: Found::BesideOurs("coffer-vmm"),
        hashes: Some(("hashes.bin", 0)),
        needs: &["coffer-vmm", "kvm"],
    },
    Monitor {
        word: "process",
        name: "coffer hold",
        variable: "COFFER_HOLDER",
        program: Found::BesideOurs("coffer"),
        hashes: None,
        needs: &["namespaces"],
    },
];

impl Monitor {
    /// The row of this word.
    pub fn of(word: &str) -> Option<Self> {
        ALL.into_iter().find(|monitor| monitor.word == word)
    }

    /// Whether a guest has a machine, with a kernel and disks of its own.
    pub const fn has_machine(&self) -> bool {
        self.hashes.is_some()
    }

    /// What this machine lacks for it, in `coffer doctor`'s words.
    ///
    /// # Errors
    /// If it does not say.
    pub fn lacks(&self, world: &World) -> Result<Option<String>> {
        let said: serde_json::Value = serde_json::from_str(&world.coffer(&["--json", "doctor"])?.stdout)?;
        let checks = said["checks"].as_array().context("doctor lists its checks")?;
        for need in self.needs {
            let check = checks.iter().find(|check| check["what"] == **need).context("doctor looks at it")?;
            if check["mark"] != "ok" {
                return Ok(Some(check["found"].as_str().unwrap_or_default().to_owned()));
            }
        }
        Ok(None)
    }

    fn path(&self) -> Result<PathBuf> {
        match self.program {
            Found::BesideOurs(name) => binary(name),
            Found::OnPath(name) => std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                .map(|folder| folder.join(name))
                .find(|path| path.exists())
                .with_context(|| format!("no {name} on the path; run `make setup`")),
        }
    }

    /// A program in the monitor's place that does `change` in the box's folder, and then becomes the monitor. Gives the
    /// variable that names it to `coffer`, and its path.
    ///
    /// # Errors
    /// If it cannot be written to `folder`.
    pub fn behind(&self, folder: &Path, change: &str) -> Result<(&'static str, PathBuf)> {
        let path = folder.join("monitor");
        fs::write(&path, format!("#!/bin/sh\nset -e\n{change}\nexec {} \"$@\"\n", self.path()?.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok((self.variable, path))
    }
}

/// The word of the lightest isolation here that has network cards: for stories about frames outside of a guest.
///
/// # Errors
/// If `coffer doctor` does not say what works.
pub fn with_cards(world: &World) -> Result<&'static str> {
    let lightest = Monitor::of("process").context("a row")?;
    let Some(why) = lightest.lacks(world)? else { return Ok(lightest.word) };
    println!("in machines, for want of namespaces: {why}");
    Ok("qemu")
}

/// Tells a story on every monitor that works on this host; at least one does.
///
/// # Errors
/// All that did not go as told.
pub fn on_each(story: impl FnMut(Monitor) -> Result<()>) -> Result<()> {
    on_those(&ALL, story)
}

/// Tells a story about a kernel, firmware or disks of the guest's own: on every monitor that gives it a machine.
///
/// # Errors
/// As [`on_each`].
pub fn on_each_machine(story: impl FnMut(Monitor) -> Result<()>) -> Result<()> {
    let machines: Vec<_> = ALL.into_iter().filter(Monitor::has_machine).collect();
    on_those(&machines, story)
}

fn on_those(monitors: &[Monitor], mut story: impl FnMut(Monitor) -> Result<()>) -> Result<()> {
    let world = World::new()?;
    let (mut told, mut failed) = (0, Vec::new());
    for monitor in monitors.iter().copied() {
        if let Some(why) = monitor.lacks(&world)? {
            println!("monitor {}: not on this machine: {why}", monitor.word);
            continue;
        }
        match story(monitor) {
            Ok(()) => println!("monitor {}: as told", monitor.word),
            Err(error) => failed.push(format!("on the monitor {}: {error:?}", monitor.word)),
        }
        told += 1;
    }
    ensure!(told > 0, "no monitor works on this machine");
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}
