//! What a QEMU can do, asked of itself by QMP: its version, and whether it has SEV-SNP guests with all that we tell one.
//!
//! Trusts: the program, which is the operator's. Never: starts a machine.
//! Source: QEMU docs/interop/qmp-spec.rst; qapi/qom.json `SevSnpGuestProperties` (since 9.1).

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use coffer_rim::{Class, Classify as _, Failure};
use serde::Deserialize;

/// What it says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Major and minor.
    pub version: (u32, u32),
    /// Properties of `sev-snp-guest`; none where it knows no such thing.
    pub snp: Option<Vec<String>>,
}

/// Properties that a launch of ours sets.
pub const NEEDED: [&str; 7] =
    ["cbitpos", "reduced-phys-bits", "policy", "host-data", "id-block", "id-auth", "author-key-enabled"];

const QUESTIONS: &str = r#"{"execute":"qmp_capabilities"}
{"execute":"query-version","id":"version"}
{"execute":"qom-list-properties","arguments":{"typename":"sev-snp-guest"},"id":"snp"}
{"execute":"quit"}
"#;
const PATIENCE: Duration = Duration::from_secs(10);
const LIMIT: u64 = 1 << 20;

impl Found {
    /// Asks a QEMU.
    ///
    /// # Errors
    /// Class `platform` if it does not start, or answers otherwise than QEMU does.
    pub fn of(program: &Path) -> Result<Self, Failure> {
        let what = || format!("asking {} what it can do", program.display());
        let mut command = Command::new(program);
        command.args(["-M", "none", "-nodefaults", "-no-user-config", "-display", "none", "-qmp", "stdio"]).env_clear();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().class_while(Class::Platform, what())?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (said, heard) = mpsc::channel();
        // Whoever inherited its output may keep it open: nobody waits for that.
        std::thread::spawn(move || {
            let mut text = String::new();
            if let (Some(mut stdin), Some(stdout)) = (stdin, stdout) {
                let _ = stdin.write_all(QUESTIONS.as_bytes());
                let _ = stdout.take(LIMIT).read_to_string(&mut text);
            }
            let _ = said.send(text);
        });
        let answers = heard.recv_timeout(PATIENCE).unwrap_or_default();
        let _ = child.kill();
        let _ = child.wait();
        Self::read(&answers)
            .ok_or_else(|| Failure::new(Class::Platform, format!("{}: it gave no answer that QEMU gives", what())))
    }

    fn read(answers: &str) -> Option<Self> {
        let all: Vec<Answer> = answers.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let answer = |id: &str| all.iter().find(|answer| answer.id.as_deref() == Some(id));
        let version = answer("version")?.result.as_ref()?.get("qemu")?;
        let number = |name: &str| version.get(name)?.as_u64().and_then(|number| u32::try_from(number).ok());
        let properties = answer("snp")?.result.as_ref().and_then(serde_json::Value::as_array);
        let names = properties
            .map(|all| all.iter().filter_map(|one| one.get("name")?.as_str().map(str::to_owned)).collect::<Vec<_>>());
        Some(Self { version: (number("major")?, number("minor")?), snp: names })
    }

    /// Whether it has all that a launch of ours says.
    ///
    /// # Errors
    /// Class `platform`: what it lacks.
    pub fn check_snp(&self) -> Result<(), Failure> {
        let (major, minor) = self.version;
        let lacks = |what: &str| {
            Err(Failure::new(Class::Platform, format!("QEMU {major}.{minor} here {what}"))
                .hint("install QEMU 9.1 or later, or name such a one by COFFER_QEMU"))
        };
        let Some(properties) = &self.snp else { return lacks("knows no SEV-SNP guests (sev-snp-guest)") };
        match NEEDED.iter().find(|needed| !properties.iter().any(|name| name == *needed)) {
            Some(missing) => lacks(&format!("does not know {missing} of an SEV-SNP guest")),
            None => Ok(()),
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    id: Option<String>,
    #[serde(rename = "return")]
    result: Option<serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn said(version: &str, snp: &str) -> String {
        format!(
            r#"{{"QMP": {{"version": {{}}}}}}
{{"return": {{}}}}
{{"return": {{"qemu": {version}, "package": "x"}}, "id": "version"}}
{{{snp}, "id": "snp"}}
"#
        )
    }

    #[test]
    fn version_and_properties_are_read_and_what_is_missing_is_named() {
        let names: Vec<_> = NEEDED.map(|name| format!(r#"{{"name": "{name}", "type": "x"}}"#)).into();
        let ten = r#"{"micro": 13, "minor": 0, "major": 10}"#;
        let found = Found::read(&said(ten, &format!(r#""return": [{}]"#, names.join(",")))).unwrap();
        assert_eq!(found.version, (10, 0));
        assert!(found.check_snp().is_ok());
        let short = Found::read(&said(ten, &format!(r#""return": [{}]"#, names[1..].join(",")))).unwrap();
        assert!(short.check_snp().unwrap_err().message.contains("does not know cbitpos"));
        let absent = r#""error": {"class": "DeviceNotFound", "desc": "x"}"#;
        let old = Found::read(&said(r#"{"micro": 0, "minor": 2, "major": 7}"#, absent)).unwrap();
        let failure = old.check_snp().unwrap_err();
        assert!(failure.message.contains("QEMU 7.2 here knows no SEV-SNP guests"), "{failure}");
        for rubbish in ["", "{}", "QEMU emulator", &said(r#"{"major": 10}"#, absent)] {
            assert_eq!(Found::read(rubbish), None, "{rubbish}");
        }
    }

    #[test]
    fn a_program_that_is_no_qemu_is_said_to_be_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qemu");
        for script in ["exit 3", "cat >/dev/null; echo hello", "exec 0<&-; echo '{}'"] {
            std::fs::write(&path, format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            let failure = Found::of(&path).unwrap_err();
            assert_eq!(failure.class, Class::Platform);
            assert!(failure.message.contains("what it can do"), "{failure}");
        }
    }
}
