//! What the flags of a box ask for has its place in the image, or is refused when the spec is made, before anything boots.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use coffer_image::Digest;

/// A home with the image `a/box:1`: a program, a file in `/etc`, and links that lead where they should not.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let blobs = dir.path().join("home/images/blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let entries = [("bin/busybox", b'0', ""), ("etc/passwd", b'0', ""), ("usr/", b'5', "")];
        let links = [("x", b'2', "/proc"), ("z", b'2', "/run/secrets"), ("lib", b'2', "usr")];
        let mut layer: Vec<u8> =
            entries.into_iter().chain(links).flat_map(|(name, kind, to)| header(name, kind, to)).collect();
        layer.resize(layer.len() + 1024, 0);
        let config = serde_json::json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/busybox"]},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]}})
        .to_string();
        let blob = |kind: &str, bytes: &[u8]| {
            let media_type = format!("application/vnd.oci.image.{kind}");
            serde_json::json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()})
        };
        let manifest = serde_json::json!({"schemaVersion": 2, "config": blob("config.v1+json", config.as_bytes()),
            "layers": [blob("layer.v1.tar", &layer)]})
        .to_string();
        for bytes in [layer.as_slice(), config.as_bytes(), manifest.as_bytes()] {
            fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
        }
        let entry = serde_json::json!({"manifest": Digest::of(manifest.as_bytes()), "index": null});
        let index = serde_json::json!({"version": 1, "references": {"docker.io/a/box:1": entry}});
        fs::write(dir.path().join("home/images/index.json"), index.to_string()).unwrap();
        fs::write(dir.path().join("platform.json"), "{}").unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("file"), "words").unwrap();
        Self { dir }
    }

    /// `coffer spec` with these flags, in a folder that holds the folder `d` and the file `file`.
    fn spec(&self, flags: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coffer"));
        command.current_dir(self.dir.path()).env("COFFER_HOME", self.dir.path().join("home"));
        command.env("COFFER_PLATFORM", self.dir.path() as &Path);
        command.arg("spec").args(flags).arg("a/box:1").output().unwrap()
    }
}

/// A tar entry without data.
fn header(name: &str, kind: u8, to: &str) -> Vec<u8> {
    let mut block = vec![0; 512];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    for (at, field) in
        [(100, "0000755"), (108, "0000000"), (116, "0000000"), (124, "00000000000"), (136, "00000000000")]
    {
        put(at, field);
    }
    put(148, "        ");
    put(157, to);
    put(257, "ustar\u{0}00");
    block[156] = kind;
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[test]
fn what_would_end_in_the_guest_is_refused_when_the_spec_is_made() {
    let home = Home::new();
    for (flags, words) in [
        (&["-w", "/bin/busybox"][..], "the working directory /bin/busybox has no place"),
        (&["--tmpfs", "/bin/busybox"], "the tmpfs at /bin/busybox has no place"),
        (&["-v", "./d:/bin/busybox:ro"], "the volume at /bin/busybox has no place"),
        (&["-v", "./file:/etc:ro"], "the volume at /etc is a file"),
        (&["-v", "./d:/etc/passwd/x:ro"], "/etc/passwd is no folder"),
        (&["-v", "./d:/usr:ro", "--tmpfs", "/usr/x"], "/usr/x is not there"),
        (&["-v", "./d:/lib:ro", "--tmpfs", "/usr/x"], "/usr/x is not there"),
        (&["--writable", "1"], "root.scratch.bytes"),
        (&["--tmpfs", "/x"], "would hide what is at /proc"),
        // It is made when the guest starts: in the image the link leads to nothing.
        (&["--tmpfs", "/z"], "leads nowhere (/run/secrets)"),
        (&["-v", "./d:/x:ro"], "would hide what is at /proc"),
        (&["--tmpfs", "/t:size=1m,size=2m"], "size stands there twice"),
        (&["--tmpfs", "/t:,"], "is nothing it can do"),
        (&["--tmpfs", "/t:ro", "-v", "./d:/t/d:ro"], "/t/d is not there, and what it would be made in is read-only"),
        (&["--tmpfs", "/t:ro", "-w", "/t/work"], "/t/work is not there"),
        (&["--shm-size", "0"], "shm_bytes"),
        (&["--mount", "type=bind,src=d,dst=/y,ro,readonly"], "readonly stands there twice"),
        (&["--mount", "type=bind,source=d,source=file,dst=/y,ro"], "source stands there twice"),
    ] {
        let output = home.spec(flags);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {text}");
        assert!(text.contains(words), "{flags:?}: {text}");
        assert!(output.stdout.is_empty(), "{flags:?}");
    }
}

#[test]
fn what_has_its_place_is_in_the_spec() {
    let home = Home::new();
    for flags in [
        &["-w", "/work/made"][..],
        &["-w", "/usr", "-v", "./d:/usr:ro"],
        &["--tmpfs", "/tmp:noexec,size=1m", "-v", "./file:/tmp/a:ro", "-v", "./file:/etc/passwd:ro"],
        &["-v", "./d:/etc:ro", "--mount", "type=bind,src=d,dst=/lib,ro"],
    ] {
        let output = home.spec(flags);
        assert!(output.status.success(), "{flags:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let output = home.spec(&["--tmpfs", "/tmp:noexec"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("noexec = true"), "{output:?}");
    let output =
        home.spec(&["--read-only", "--shm-size", "1m", "--mount", "type=tmpfs,dst=/y,readonly,tmpfs-mode=700"]);
    let text = String::from_utf8_lossy(&output.stdout);
    for words in ["shm_bytes = 1048576", "read_only = true", "mode = \"0700\""] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(text.matches("read_only = true").count(), 2, "of the root and of the tmpfs: {text}");
    let output = home.spec(&["-e", "A=1", "-e", "A=2"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("A=2") && !text.contains("A=1"), "{text}");
}
