//! Memory that appears as folders: Docker's options for it.

use coffer_spec::{FolderMode, Mount};

use super::{bytes, plain_path};

/// A tmpfs of which not all is said yet. What an option asks for happens, or is refused: each stands there once, and none says the
/// contrary of another.
#[derive(Debug, Default)]
pub struct Tmpfs {
    seen: Vec<&'static str>,
    size: Option<u64>,
    noexec: bool,
    read_only: bool,
    mode: FolderMode,
    uid: u32,
    gid: u32,
}

/// How `--tmpfs` is written.
pub const TMPFS_RULE: &str = "/path[:rw|ro][,size=64m][,mode=1777][,uid=N][,gid=N][,noexec]";

impl Tmpfs {
    /// Notes one option.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn option(&mut self, option: &str) -> Result<(), String> {
        let id = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number of a user or group"));
        let name = match option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value))) {
            ("size", Some(size)) => {
                self.size = Some(bytes(size).ok_or_else(|| format!("{size:?} is no size"))?);
                "size"
            }
            ("mode", Some(mode)) => {
                let octal = mode.len() <= 5 && mode.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
                let bits = if octal { u32::from_str_radix(mode, 8).ok() } else { None };
                let no_mode =
                    || format!("{mode:?} are no permissions of a folder, which are octal, such as 1777 or 750");
                self.mode = bits.and_then(FolderMode::new).ok_or_else(no_mode)?;
                "mode"
            }
            ("uid", Some(user)) => {
                self.uid = id(user)?;
                "uid"
            }
            ("gid", Some(group)) => {
                self.gid = id(group)?;
                "gid"
            }
            ("ro" | "rw", None) => {
                self.read_only = option == "ro";
                "ro or rw"
            }
            ("exec" | "noexec", None) => {
                self.noexec = option == "noexec";
                "exec or noexec"
            }
            // None of them has devices or set-user-id programs.
            ("nosuid", None) => "nosuid",
            ("nodev", None) => "nodev",
            _ => return Err(format!("{option:?} is nothing it can do")),
        };
        if self.seen.contains(&name) {
            return Err(format!("{name} stands there twice"));
        }
        self.seen.push(name);
        Ok(())
    }

    /// At this path.
    ///
    /// # Errors
    /// It is not absolute.
    pub fn at(self, path: &str) -> Result<Mount, String> {
        if !path.starts_with('/') {
            return Err(format!("{path:?} is no absolute path"));
        }
        let Self { size, noexec, read_only, mode, uid, gid, .. } = self;
        Ok(Mount { path: plain_path(path), tmpfs_bytes: size.unwrap_or(TMPFS), noexec, read_only, mode, uid, gid })
    }
}

/// `/path`, or `/path:size=64m,noexec`.
///
/// # Errors
/// What is wrong with it.
pub fn tmpfs(text: &str) -> Result<Mount, String> {
    let (path, options) = text.split_once(':').map_or((text, None), |(path, options)| (path, Some(options)));
    let mut tmpfs = Tmpfs::default();
    options.into_iter().flat_map(|options| options.split(',')).try_for_each(|option| tmpfs.option(option))?;
    tmpfs.at(path)
}

/// The options that ask for this mount.
pub fn tmpfs_options(mount: &Mount) -> String {
    let Mount { tmpfs_bytes, noexec, read_only, mode, uid, gid, .. } = mount;
    let (write, start) = (if *read_only { "ro" } else { "rw" }, if *noexec { "noexec" } else { "exec" });
    format!("{write},{start},size={tmpfs_bytes},mode={mode},uid={uid},gid={gid}")
}

/// Bytes of a tmpfs of which nobody says how large it may be.
const TMPFS: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tmpfs_is_asked_for_happens_or_is_refused() {
        let usual = Mount::new("/x", TMPFS);
        for text in ["/x", "/x/", "/x:exec", "/x:rw,nosuid,nodev", "/x:mode=1777,uid=0,gid=0", "/x:size=64m"] {
            assert_eq!(tmpfs(text).unwrap(), usual, "{text}");
        }
        assert_eq!(tmpfs("/x:noexec,size=16m").unwrap(), Mount { noexec: true, ..Mount::new("/x", 16 << 20) });
        let all = Mount {
            noexec: true,
            read_only: true,
            mode: FolderMode::new(0o750).unwrap(),
            uid: 5,
            gid: 6,
            ..Mount::new("/x", 1 << 20)
        };
        assert_eq!(tmpfs(&format!("/x:{}", tmpfs_options(&all))).unwrap(), all);
        assert_eq!(tmpfs("/x:ro,noexec,nosuid,nodev,size=1m,mode=0750,uid=5,gid=6").unwrap(), all);
        for (text, word) in [
            ("/x:size=1m,size=2m", "size stands there twice"),
            ("/x:size=1m,size=1m", "size stands there twice"),
            ("/x:exec,noexec", "exec or noexec stands there twice"),
            ("/x:noexec,noexec", "twice"),
            ("/x:rw,rw", "ro or rw stands there twice"),
            ("/x:ro,rw", "ro or rw stands there twice"),
            ("/x:", "\"\" is nothing"),
            ("/x:,", "\"\" is nothing"),
            ("/x:size=1m,", "\"\" is nothing"),
            ("/x:mode=4755", "\"4755\" are no permissions"),
            ("/x:mode=rwx", "no permissions"),
            ("/x:mode=", "no permissions"),
            ("/x:mode=00001777", "no permissions"),
            ("/x:mode", "\"mode\" is nothing"),
            ("/x:uid=app", "\"app\" is no number"),
            ("/x:gid=-1", "\"-1\" is no number"),
            ("/x:suid", "\"suid\" is nothing"),
            ("/x:nr_inodes=5", "nr_inodes=5"),
            ("/x:exec_everything", "exec_everything"),
            ("/x:ro=1", "\"ro=1\" is nothing"),
            ("/x:size", "\"size\" is nothing"),
            ("/x:size=", "no size"),
            ("run", "no absolute path"),
        ] {
            let why = tmpfs(text).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
    }
}
