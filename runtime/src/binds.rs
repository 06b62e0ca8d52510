//! Docker's ways to say that a host file or folder appears in a box, and what becomes of each here.
//!
//! A box sees no file system of the host's. What it can have is a read-only snapshot, taken when the box is created, whose
//! verity root stands in the workload spec; everything else is refused, in every mode alike.

use std::path::{Path, PathBuf};

use coffer_rim::{Class, Failure};
use coffer_spec::Mount;

use crate::request::{Tmpfs, plain_path};

/// A snapshot asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Host file or folder, absolute.
    pub source: PathBuf,
    /// Where it appears.
    pub path: String,
}

/// What `--mount` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountRequest {
    /// A snapshot.
    Bind(Bind),
    /// Memory.
    Tmpfs(Mount),
}

/// `-v HOST:CTR:ro`. `here`: what a relative source begins at.
///
/// # Errors
/// Class `usage` for anything but a read-only bind.
pub fn volume(text: &str, here: &Path) -> Result<Bind, Failure> {
    let invalid = |why: &str| usage(format!("invalid value {text:?} for --volume: {why}"));
    let mut seen = Vec::new();
    let mut parts = text.split(':');
    let (Some(source), Some(path)) = (parts.next(), parts.next()) else {
        return Err(invalid("a volume without a host folder has nowhere to be kept")
            .hint("use --tmpfs PATH for memory, or --volume HOST:PATH:ro for a snapshot of a host folder"));
    };
    let options: Vec<_> = parts.next().map(|options| options.split(',').collect()).unwrap_or_default();
    if parts.next().is_some() {
        return Err(invalid("expected HOST:PATH:ro"));
    }
    let mut read_only = false;
    for option in options {
        let name = if option == "readonly" { "ro" } else { option };
        if seen.contains(&name) {
            return Err(invalid(&format!("{name} stands there twice")));
        }
        seen.push(name);
        match name {
            "ro" => read_only = true,
            // How Docker shares a live folder with the host; a snapshot is not shared.
            "z" | "Z" | "cached" | "consistent" | "delegated" | "nocopy" | "private" | "rprivate" => {}
            "rw" if seen.contains(&"ro") => return Err(invalid("rw and ro contradict each other")),
            "rw" => return Err(writable(text)),
            _ => return Err(invalid(&format!("{option:?} is no option; expected HOST:PATH:ro"))),
        }
    }
    if !source.starts_with(['/', '.', '~']) {
        return Err(invalid("there are no named volumes")
            .hint("name a host folder by its path, ./data or /srv/data, for a read-only snapshot of it"));
    }
    if !read_only {
        return Err(writable(text));
    }
    bind(source, path, here).ok_or_else(|| invalid("expected two paths, the second absolute"))
}

/// `--mount type=bind,source=HOST,target=CTR,readonly` or `type=tmpfs,target=CTR,tmpfs-size=SIZE`.
///
/// # Errors
/// Class `usage` for anything but a read-only bind or a tmpfs.
pub fn mount(text: &str, here: &Path) -> Result<MountRequest, Failure> {
    let invalid = |why: &str| {
        usage(format!("invalid value {text:?} for --mount: {why}"))
            .hint("write type=bind,source=HOST,target=PATH,readonly or type=tmpfs,target=PATH,tmpfs-size=64m")
    };
    let (mut kind, mut source, mut target, mut read_only) = ("volume", None, None, None);
    let mut tmpfs = Tmpfs::default();
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
            ("bind-propagation", "private" | "rprivate") => "bind-propagation",
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
        ("volume", _) => Err(invalid("there are no named volumes")),
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
        volume(text, Path::new(HERE)).map(|bind| (bind.source.to_string_lossy().into_owned(), bind.path))
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
            ("data:/d:ro", "named volumes"),
            ("/d", "nowhere"),
            ("/srv:d:ro", "absolute"),
            ("/srv:/d:ro:x", "HOST:PATH:ro"),
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
            ("type=volume,source=x,target=/d", "named volumes"),
            ("target=/d", "named volumes"),
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
