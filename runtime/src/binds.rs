//! Docker's ways to say that a host file or folder appears in a box, and what becomes of each here.
//!
//! A box sees no file system of the host's. What it can have of a folder is a read-only snapshot, taken when the box is created, whose
//! verity root stands in the workload spec; and volumes, which are its host's to keep: sealed, where the box has a TEE. Everything else is refused.

use std::path::{Path, PathBuf};

use coffer_rim::{Class, Failure};
use coffer_spec::{Mount, Name, Unclean, VolumePolicy};

use crate::request::{Tmpfs, plain_path};

/// A snapshot asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Host file or folder, absolute.
    pub source: PathBuf,
    /// Where it appears.
    pub path: String,
}

/// A volume asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataMount {
    /// Which; without a name one that nobody else has.
    pub name: Option<Name>,
    /// Where it appears.
    pub path: String,
    /// Nothing is written to it.
    pub read_only: bool,
    /// A fresh one begins empty, whatever the image has there.
    pub begins_empty: bool,
    /// How a box with a TEE seals it, as far as that was said.
    pub seal: SealWords,
}

/// What was said of how a volume is sealed. In a box without a TEE nothing may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealWords {
    /// Who opens it again.
    pub policy: Option<VolumePolicy>,
    /// What becomes of it after a stop that did not close it.
    pub unclean: Option<Unclean>,
    /// Nobody notices an older copy of it, and that is accepted.
    pub rollback_unprotected: bool,
}

impl SealWords {
    /// Takes one option; false if it is none of these.
    fn take(&mut self, option: &str) -> Result<bool, String> {
        match option.split_once('=').unwrap_or((option, "")) {
            ("seal", name) => {
                let found = VolumePolicy::ALL.into_iter().find(|policy| policy.name() == name);
                let names = VolumePolicy::ALL.map(VolumePolicy::name).join(", ");
                self.policy = Some(found.ok_or_else(|| format!("seal={name:?} is none of {names}"))?);
            }
            ("unclean", "refuse") => self.unclean = Some(Unclean::Refuse),
            ("unclean", "recover") => self.unclean = Some(Unclean::Recover),
            ("rollback", "unprotected") => self.rollback_unprotected = true,
            ("unclean", other) => return Err(format!("unclean={other:?} is neither refuse nor recover")),
            ("rollback", other) => return Err(format!("rollback={other:?} is not unprotected")),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// What `-v` and `--mount` ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountRequest {
    /// A snapshot.
    Bind(Bind),
    /// A volume.
    Data(DataMount),
    /// Memory.
    Tmpfs(Mount),
}

/// `-v HOST:CTR:ro`, `-v NAME:CTR` or `-v CTR`. `here`: what a relative source begins at.
///
/// # Errors
/// Class `usage` for anything but a read-only bind or a volume.
pub fn volume(text: &str, here: &Path) -> Result<MountRequest, Failure> {
    let invalid = |why: &str| usage(format!("invalid value {text:?} for --volume: {why}")).hint(VOLUME_RULE);
    let mut seen = Vec::new();
    let mut parts = text.split(':');
    let first = parts.next().unwrap_or_default();
    let Some(path) = parts.next() else {
        let data = data(None, first).ok_or_else(|| invalid("expected an absolute path"))?;
        return Ok(MountRequest::Data(data));
    };
    let source = first;
    let options: Vec<_> = parts.next().map(|options| options.split(',').collect()).unwrap_or_default();
    if parts.next().is_some() {
        return Err(invalid("it has more parts than three"));
    }
    let is_bind = source.starts_with(['/', '.', '~']);
    let (mut read_only, mut begins_empty, mut seal) = (false, false, SealWords::default());
    for option in options {
        let name = match option.split_once('=').map_or(option, |(name, _)| name) {
            "readonly" => "ro",
            name => name,
        };
        if seen.contains(&name) {
            return Err(invalid(&format!("{name} stands there twice")));
        }
        seen.push(name);
        match name {
            "ro" => read_only = true,
            "rw" if seen.contains(&"ro") => return Err(invalid("rw and ro contradict each other")),
            "rw" if is_bind => return Err(writable(text)),
            "nocopy" => begins_empty = true,
            // How Docker shares a live folder with the host; nothing here is shared.
            "z" | "Z" | "cached" | "consistent" | "delegated" | "private" | "rprivate" | "rw" => {}
            _ if !is_bind && seal.take(option).map_err(|why| invalid(&why))? => {}
            _ => return Err(invalid(&format!("{option:?} is no option"))),
        }
    }
    if seen.contains(&"ro") && seen.contains(&"rw") {
        return Err(invalid("rw and ro contradict each other"));
    }
    if !is_bind {
        let name = name(source).map_err(|why| invalid(&why))?;
        let data = data(Some(name), path).ok_or_else(|| invalid("expected an absolute path behind the name"))?;
        return Ok(MountRequest::Data(DataMount { read_only, begins_empty, seal, ..data }));
    }
    if !read_only {
        return Err(writable(text));
    }
    let bind = bind(source, path, here).ok_or_else(|| invalid("expected two paths, the second absolute"))?;
    Ok(MountRequest::Bind(bind))
}

const VOLUME_RULE: &str = "write NAME:PATH[:ro] for a volume, PATH for one that nobody named, or HOST:PATH:ro for a snapshot of a host folder";

fn name(text: &str) -> Result<Name, String> {
    text.parse().map_err(|error: coffer_spec::NameError| format!("it names no volume: {error}"))
}

fn data(name: Option<Name>, path: &str) -> Option<DataMount> {
    let (path_plain, seal) = (plain_path(path), SealWords::default());
    let data = || DataMount { name, path: path_plain, read_only: false, begins_empty: false, seal };
    path.starts_with('/').then(data)
}

/// `--mount type=bind,source=HOST,target=CTR,readonly`, `type=volume,source=NAME,target=CTR` or `type=tmpfs,target=CTR,tmpfs-size=SIZE`.
///
/// # Errors
/// Class `usage` for anything but a read-only bind, a volume or a tmpfs.
pub fn mount(text: &str, here: &Path) -> Result<MountRequest, Failure> {
    let invalid = |why: &str| {
        usage(format!("invalid value {text:?} for --mount: {why}"))
            .hint("write type=volume,source=NAME,target=PATH, type=bind,source=HOST,target=PATH,readonly or type=tmpfs,target=PATH,tmpfs-size=64m")
    };
    let (mut kind, mut source, mut target, mut read_only) = ("volume", None, None, None);
    let (mut tmpfs, mut begins_empty, mut seal) = (Tmpfs::default(), None, SealWords::default());
    let mut seen = Vec::new();
    for field in text.split(',') {
        let name = match field.split_once('=').unwrap_or((field, "")) {
            ("type", value) => {
                kind = value;
                "type"
            }
            ("source" | "src", value) => {
                source = Some(value);
                "source"
            }
            ("target" | "dst" | "destination", value) => {
                target = Some(value);
                "target"
            }
            ("readonly" | "ro", "" | "true" | "1") => {
                read_only = Some(true);
                "readonly"
            }
            ("readonly" | "ro", "false" | "0") => {
                read_only = Some(false);
                "readonly"
            }
            ("tmpfs-size", value) => {
                tmpfs.option(&format!("size={value}")).map_err(|why| invalid(&format!("tmpfs-size: {why}")))?;
                "tmpfs-size"
            }
            ("tmpfs-mode", value) => {
                tmpfs.option(&format!("mode={value}")).map_err(|why| invalid(&format!("tmpfs-mode: {why}")))?;
                "tmpfs-mode"
            }
            ("volume-nocopy", "" | "true" | "1") => {
                begins_empty = Some(true);
                "volume-nocopy"
            }
            ("volume-nocopy", "false" | "0") => "volume-nocopy",
            ("volume-driver", "local") => "volume-driver",
            ("bind-propagation", "private" | "rprivate") => "bind-propagation",
            (name @ ("volume-seal" | "volume-unclean" | "volume-rollback"), _) => {
                let option = field.strip_prefix("volume-").unwrap_or(field);
                seal.take(option).map_err(|why| invalid(&format!("volume-{why}")))?;
                name
            }
            (other, _) => return Err(invalid(&format!("{other:?} is nothing it can do"))),
        };
        if seen.contains(&name) {
            return Err(invalid(&format!("{name} stands there twice")));
        }
        seen.push(name);
    }
    let only_for = |field: &str, of: &str| {
        let misplaced = seen.contains(&field) && kind != of;
        if misplaced { Err(invalid(&format!("{field} is for type={of}"))) } else { Ok(()) }
    };
    only_for("tmpfs-size", "tmpfs")?;
    only_for("tmpfs-mode", "tmpfs")?;
    only_for("bind-propagation", "bind")?;
    only_for("volume-nocopy", "volume")?;
    for field in ["volume-driver", "volume-seal", "volume-unclean", "volume-rollback"] {
        only_for(field, "volume")?;
    }
    let target = target.filter(|path| path.starts_with('/')).ok_or_else(|| invalid("target is no absolute path"))?;
    match (kind, source) {
        ("tmpfs", None) => {
            let mount = tmpfs.at(target).map_err(|why| invalid(&why))?;
            Ok(MountRequest::Tmpfs(Mount { read_only: read_only == Some(true), ..mount }))
        }
        ("bind", Some(_)) if read_only != Some(true) => Err(writable(text)),
        ("bind", Some(source)) => {
            bind(source, target, here).map(MountRequest::Bind).ok_or_else(|| invalid("source is no path"))
        }
        ("bind", None) => Err(invalid("a bind has a source")),
        ("volume", source) => {
            let name = source.filter(|name| !name.is_empty()).map(name).transpose().map_err(|why| invalid(&why))?;
            let data = data(name, target).ok_or_else(|| invalid("target is no absolute path"))?;
            let (read_only, begins_empty) = (read_only == Some(true), begins_empty == Some(true));
            Ok(MountRequest::Data(DataMount { read_only, begins_empty, seal, ..data }))
        }
        _ => Err(invalid(&format!("there is no type {kind:?} with these fields"))),
    }
}

fn bind(source: &str, path: &str, here: &Path) -> Option<Bind> {
    let fits = !source.is_empty() && path.starts_with('/');
    fits.then(|| Bind { source: here.join(source), path: plain_path(path) })
}

fn writable(text: &str) -> Failure {
    usage(format!("{text:?} is a writable bind, and host folders are never writable from a box"))
        .hint("say :ro (with --mount: readonly) for a verified, read-only snapshot of the folder as it is now")
}

fn usage(message: String) -> Failure {
    Failure::new(Class::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "/here";

    fn of_volume(text: &str) -> Result<(String, String), Failure> {
        volume(text, Path::new(HERE)).map(|mount| match mount {
            MountRequest::Bind(bind) => (bind.source.to_string_lossy().into_owned(), bind.path),
            other => panic!("{text}: {other:?}"),
        })
    }

    #[test]
    fn read_only_binds_are_taken_in_both_of_dockers_spellings() {
        let expected = ("/srv/conf".to_owned(), "/etc/app".to_owned());
        for text in ["/srv/conf:/etc/app:ro", "/srv/conf:/etc/app/:ro,z"] {
            assert_eq!(of_volume(text).unwrap(), expected, "{text}");
        }
        assert_eq!(of_volume("./conf:/c:ro").unwrap().0, "/here/./conf");
        for text in [
            "type=bind,source=/srv/conf,target=/etc/app,readonly",
            "type=bind,src=/srv/conf,dst=/etc/app,ro=true",
            "readonly,destination=/etc/app/,type=bind,source=/srv/conf",
        ] {
            let MountRequest::Bind(bind) = mount(text, Path::new(HERE)).unwrap() else { panic!("{text}") };
            assert_eq!((bind.source.to_str().unwrap(), bind.path.as_str()), ("/srv/conf", "/etc/app"), "{text}");
        }
        let tmpfs = mount("type=tmpfs,target=/t,tmpfs-size=1m", Path::new(HERE)).unwrap();
        assert_eq!(tmpfs, MountRequest::Tmpfs(Mount::new("/t", 1 << 20)));
        let closed = mount("type=tmpfs,target=/t,tmpfs-mode=0700,tmpfs-size=1m,readonly", Path::new(HERE)).unwrap();
        let mode = "0700".parse().unwrap();
        assert_eq!(closed, MountRequest::Tmpfs(Mount { read_only: true, mode, ..Mount::new("/t", 1 << 20) }));
    }

    #[test]
    fn volumes_have_dockers_words_in_both_spellings() {
        let of = |name: Option<&str>, read_only, begins_empty| {
            let name = name.map(|name| name.parse().unwrap());
            let seal = SealWords::default();
            MountRequest::Data(DataMount { name, path: "/d".into(), read_only, begins_empty, seal })
        };
        for (text, expected) in [
            ("db:/d", of(Some("db"), false, false)),
            ("db:/d/:rw", of(Some("db"), false, false)),
            ("db:/d:ro,nocopy", of(Some("db"), true, true)),
            ("/d", of(None, false, false)),
        ] {
            assert_eq!(volume(text, Path::new(HERE)).unwrap(), expected, "{text}");
        }
        for (text, expected) in [
            ("type=volume,source=db,target=/d", of(Some("db"), false, false)),
            ("src=db,dst=/d,readonly,volume-nocopy", of(Some("db"), true, true)),
            ("type=volume,target=/d,volume-driver=local", of(None, false, false)),
        ] {
            assert_eq!(mount(text, Path::new(HERE)).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn how_a_volume_is_sealed_has_words_in_both_spellings() {
        for text in [
            "db:/d:seal=measurement-and-chip,unclean=recover,rollback=unprotected",
            "type=volume,source=db,target=/d,volume-seal=measurement-and-chip,volume-unclean=recover,volume-rollback=unprotected",
        ] {
            let read = if text.starts_with("type") { mount } else { volume };
            let MountRequest::Data(found) = read(text, Path::new(HERE)).unwrap() else { panic!("{text}") };
            let (policy, unclean) = (Some(VolumePolicy::MeasurementAndChip), Some(Unclean::Recover));
            assert_eq!(found.seal, SealWords { policy, unclean, rollback_unprotected: true }, "{text}");
        }
        for (text, word) in [
            ("db:/d:seal=signer", "measurement-and-chip, chip"),
            ("db:/d:seal", "measurement-and-chip, chip"),
            ("db:/d:unclean=yes", "neither refuse nor recover"),
            ("db:/d:rollback", "not unprotected"),
            ("db:/d:seal=chip,seal=workload", "seal stands there twice"),
            ("/srv:/d:ro,seal=chip", "\"seal=chip\" is no option"),
            ("type=bind,source=/s,target=/d,ro,volume-seal=chip", "is for type=volume"),
            ("source=db,target=/d,volume-seal=x", "volume-seal="),
        ] {
            let read = if text.contains("target") { mount } else { volume };
            assert!(read(text, Path::new(HERE)).unwrap_err().message.contains(word), "{text}");
        }
    }

    #[test]
    fn writable_binds_are_refused_with_what_to_say_instead() {
        for text in ["/srv:/d", "/srv:/d:rw", "/srv:/d:z", "./x:/d"] {
            let failure = of_volume(text).unwrap_err();
            assert!(failure.message.contains("never writable") && failure.hint.unwrap().contains(":ro"), "{text}");
        }
        for text in ["type=bind,source=/srv,target=/d", "type=bind,source=/srv,target=/d,readonly=false"] {
            assert!(mount(text, Path::new(HERE)).unwrap_err().message.contains("never writable"), "{text}");
        }
    }

    #[test]
    fn what_means_nothing_here_is_refused_by_name() {
        for (text, word) in [
            ("-data:/d:ro", "names no volume"),
            ("a/b:/d", "names no volume"),
            (":/d", "names no volume"),
            ("data:d", "absolute path behind the name"),
            ("data:/d:rw,ro", "contradict"),
            ("data:/d:noexec", "\"noexec\" is no option"),
            ("d", "expected an absolute path"),
            ("", "expected an absolute path"),
            ("/srv:d:ro", "absolute"),
            ("/srv:/d:ro:x", "more parts"),
            ("/srv:/d:ro,shared", "\"shared\""),
            ("/srv:/d:ro,", "\"\" is no option"),
            ("/srv:/d:,", "\"\" is no option"),
            ("/srv:/d:ro,ro", "ro stands there twice"),
            ("/srv:/d:ro,readonly", "ro stands there twice"),
            ("/srv:/d:ro,rw", "contradict"),
        ] {
            assert!(of_volume(text).unwrap_err().message.contains(word), "{text}");
        }
        for (text, word) in [
            ("type=volume,source=./x,target=/d", "names no volume"),
            ("type=volume,source=x,target=d", "absolute"),
            ("source=x,target=/d,volume-driver=nfs", "volume-driver"),
            ("source=x,target=/d,tmpfs-size=1m", "is for type=tmpfs"),
            ("type=bind,source=/x,target=/d,ro,volume-nocopy", "is for type=volume"),
            ("type=bind,target=/d,readonly", "source"),
            ("type=bind,source=/s,target=d,readonly", "absolute"),
            ("type=tmpfs,target=/d,tmpfs-mode=4755", "tmpfs-mode"),
            ("type=tmpfs,target=/d,tmpfs-mode=700,tmpfs-mode=700", "tmpfs-mode: mode stands there twice"),
            ("type=tmpfs,target=/d,tmpfs-size=x", "tmpfs-size: \"x\" is no size"),
            ("type=bind,src=/s,dst=/d,ro,tmpfs-mode=700", "is for type=tmpfs"),
            ("type=npipe,source=/s,target=/d", "npipe"),
            ("type=tmpfs,target=/d,noexec", "\"noexec\" is nothing"),
            ("type=tmpfs,target=/d,tmpfs-size=1m,tmpfs-size=2m", "size stands there twice"),
            ("type=tmpfs,target=/d,bind-propagation=private", "is for type=bind"),
            ("type=bind,src=/s,dst=/d,ro,tmpfs-size=1m", "is for type=tmpfs"),
            ("type=bind,src=/s,dst=/d,ro,readonly", "readonly stands there twice"),
            ("type=bind,src=/s,dst=/d,ro,readonly=false", "readonly stands there twice"),
            ("type=bind,source=/s,source=/e,target=/d,ro", "source stands there twice"),
            ("type=bind,source=/s,src=/e,target=/d,ro", "source stands there twice"),
            ("type=bind,source=/s,target=/d,dst=/e,ro", "target stands there twice"),
            ("type=bind,type=tmpfs,target=/d", "type stands there twice"),
            ("type=tmpfs,target=/d,", "\"\" is nothing"),
        ] {
            assert!(mount(text, Path::new(HERE)).unwrap_err().message.contains(word), "{text}");
        }
    }
}
