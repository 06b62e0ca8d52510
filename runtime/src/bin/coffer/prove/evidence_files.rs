//! Evidence for other programs: as a CMW record, or as the report and each certificate in a file of its own.
//!
//! Never: replaces what is there, writes anything that is secret. Evidence is not.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use coffer_rim::file::Writer;
use coffer_rim::out;
use coffer_verifier::Evidence;
use coffer_verifier::abi::{CertKind, CertTable};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::error::{Class, Classify as _, CliError};
use crate::passing;

/// Where evidence goes beside the verdict.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct EvidenceFiles {
    /// Write the evidence to a new file, as a CMW record. `-` is standard output, which then has nothing else.
    #[arg(long, value_name = "FILE")]
    cmw: Option<PathBuf>,
    /// Write the report and its certificates to a new folder, as `coffer verify --certs` and snpguest read them. `-` writes the report
    /// alone, 1184 bytes, to standard output, which then has nothing else.
    #[arg(long, value_name = "DIR")]
    raw: Option<PathBuf>,
}

impl EvidenceFiles {
    /// Whether standard output is taken. `others`: flags that want it too.
    ///
    /// # Errors
    /// Class `usage` where two want it; class `config` where something is there already.
    pub fn check(&self, others: &[(&str, bool)]) -> Result<bool, CliError> {
        let own =
            [("--cmw -", &self.cmw), ("--raw -", &self.raw)].map(|(flag, place)| (flag, is_stdout(place.as_deref())));
        let wanted: Vec<&str> = own.iter().chain(others).filter(|(_, wants)| *wants).map(|(flag, _)| *flag).collect();
        let taken = own.iter().any(|(_, wants)| *wants);
        if taken && wanted.len() > 1 {
            let message = format!("{} both write to standard output", wanted.join(" and "));
            return Err(CliError::new(Class::Usage, message).hint("name a file or a folder for one of them"));
        }
        for place in [&self.cmw, &self.raw].into_iter().flatten().filter(|place| *place != Path::new("-")) {
            // Before the guest is asked. A pipe or a terminal is no file that would be lost.
            if place.symlink_metadata().is_ok_and(|there| there.is_file() || there.is_dir()) {
                return Err(there_already(place));
            }
        }
        Ok(taken)
    }

    /// Writes what was asked for, all of it or nothing: a folder gets its name when it is whole, behind the record.
    ///
    /// # Errors
    /// Class `config`, naming the place.
    pub fn write(&self, evidence: &Evidence) -> Result<(), CliError> {
        let in_file = |place: &'_ Option<PathBuf>| place.clone().filter(|place| !is_stdout(Some(place)));
        let (record, folder) = (in_file(&self.cmw), in_file(&self.raw));
        let made = folder.as_deref().map(|folder| made(folder, evidence)).transpose()?;
        if let Some(file) = &record {
            put(file, &evidence.to_cmw())?;
        }
        if let (Some(made), Some(folder)) = (made, folder) {
            name(made, &folder).inspect_err(|_| record.iter().for_each(|file| take_back(file)))?;
        }
        if is_stdout(self.cmw.as_deref()) {
            out::write_bytes(&evidence.to_cmw());
        }
        if is_stdout(self.raw.as_deref()) {
            out::write_bytes(&evidence.report);
        }
        Ok(())
    }
}

fn is_stdout(place: Option<&Path>) -> bool {
    place == Some(Path::new("-"))
}

fn there_already(place: &Path) -> CliError {
    let message = format!("{} is there already, and is not replaced", place.display());
    CliError::new(Class::Config, message).hint("name another place, or remove it first")
}

/// A file of what was said, where there is none yet; or into a pipe.
///
/// # Errors
/// Class `config`; what is there stays.
pub fn put(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let written = Writer::private().new_only().into_pipes().mode(0o644).write(path, bytes);
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(there_already(path)),
        written => written.class_while(Class::Config, format!("cannot write {}", path.display())),
    }
}

/// The files in a folder beside the one that is wanted, which goes with what is not named.
fn made(folder: &Path, evidence: &Evidence) -> Result<TempDir, CliError> {
    if folder.symlink_metadata().is_ok() {
        return Err(there_already(folder));
    }
    let beside = folder.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let what = || format!("cannot make {}", folder.display());
    let made = tempfile::Builder::new().prefix(".evidence-").tempdir_in(beside);
    let made = made.and_then(passing::with_us).class_while(Class::Config, what())?;
    fs::set_permissions(made.path(), Permissions::from_mode(0o755)).class_while(Class::Config, what())?;
    files(evidence).iter().try_for_each(|(name, bytes)| put(&made.path().join(name), bytes))?;
    Ok(made)
}

/// Gives it its name, if that is free.
fn name(made: TempDir, folder: &Path) -> Result<(), CliError> {
    match renameat_with(CWD, made.path(), CWD, folder, RenameFlags::NOREPLACE) {
        Ok(()) => {
            // What is there now has another name.
            let _ = made.keep();
            Ok(())
        }
        Err(Errno::EXIST) => Err(there_already(folder)),
        Err(error) => {
            Err(io::Error::from(error)).class_while(Class::Config, format!("cannot make {}", folder.display()))
        }
    }
}

/// What `put` has just made, where that is a file.
fn take_back(file: &Path) {
    if file.symlink_metadata().is_ok_and(|there| there.is_file()) {
        let _ = fs::remove_file(file);
    }
}

/// All files of one piece of evidence: the bytes as they came, each name as the kind of its certificate has it.
fn files(evidence: &Evidence) -> Vec<(String, &[u8])> {
    let mut all = vec![("report.bin".to_owned(), evidence.report.as_slice())];
    // A table that cannot be read is written whole, for whoever wants to know why.
    let table = CertTable::parse(&evidence.cert_table).unwrap_or_default();
    let is_vlek = table.find(CertKind::Vlek).is_some();
    let intermediate = if is_vlek { "asvk" } else { "ask" };
    let named =
        [(CertKind::Vcek, "vcek"), (CertKind::Vlek, "vlek"), (CertKind::Ask, intermediate), (CertKind::Ark, "ark")];
    let file = |name: &str, bytes: &[u8]| {
        let form = if bytes.starts_with(b"-----BEGIN ") { "pem" } else { "der" };
        format!("{name}.{form}")
    };
    for (kind, name) in named {
        all.extend(table.find(kind).map(|bytes| (file(name, bytes), bytes)));
    }
    let lists = table.find(CertKind::Crl).into_iter().chain(evidence.crls.iter().map(Vec::as_slice));
    for (list, number) in lists.zip(1..) {
        let name = if number == 1 { "crl".to_owned() } else { format!("crl-{number}") };
        all.push((file(&name, list), list));
    }
    if !evidence.cert_table.is_empty() {
        all.push(("cert_table.bin".to_owned(), &evidence.cert_table));
    }
    if !evidence.workload_spec.is_empty() {
        all.push(("workload.toml".to_owned(), &evidence.workload_spec));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(kinds: &[(CertKind, &[u8])]) -> Evidence {
        Evidence { report: vec![1; 1184], cert_table: CertTable::write(kinds), ..Evidence::default() }
    }

    #[test]
    fn each_certificate_has_the_name_of_its_kind_and_its_form() {
        let names = |kinds: &[(CertKind, &[u8])]| -> Vec<String> {
            files(&evidence(kinds)).into_iter().map(|(name, _)| name).collect()
        };
        let chip: [(CertKind, &[u8]); 4] = [
            (CertKind::Vcek, b"0"),
            (CertKind::Ask, b"-----BEGIN CERTIFICATE-----"),
            (CertKind::Ark, b"0"),
            (CertKind::Crl, b"0"),
        ];
        assert_eq!(names(&chip), ["report.bin", "vcek.der", "ask.pem", "ark.der", "crl.der", "cert_table.bin"]);
        let cloud: [(CertKind, &[u8]); 2] = [(CertKind::Vlek, b"0"), (CertKind::Ask, b"0")];
        assert_eq!(names(&cloud), ["report.bin", "vlek.der", "asvk.der", "cert_table.bin"]);
    }

    #[test]
    fn nothing_that_is_there_is_replaced_and_standard_output_has_one_use() {
        let scratch = tempfile::tempdir().unwrap();
        let there = scratch.path().join("there");
        fs::write(&there, "mine").unwrap();
        let (new, stdout) = (scratch.path().join("new"), PathBuf::from("-"));
        let files =
            |cmw: Option<&PathBuf>, raw: Option<&PathBuf>| EvidenceFiles { cmw: cmw.cloned(), raw: raw.cloned() };
        for refused in [files(Some(&there), None), files(None, Some(&there))] {
            assert_eq!(refused.check(&[]).unwrap_err().class, Class::Config);
            assert_eq!(refused.write(&evidence(&[])).unwrap_err().class, Class::Config);
        }
        assert_eq!(fs::read(&there).unwrap(), b"mine");
        for (refused, json) in [
            (files(Some(&stdout), Some(&stdout)), false),
            (files(Some(&stdout), None), true),
            (files(None, Some(&stdout)), true),
        ] {
            assert_eq!(refused.check(&[("--json", json)]).unwrap_err().class, Class::Usage);
        }
        assert!(files(Some(&stdout), Some(&new)).check(&[("--json", false)]).unwrap());
        assert!(!files(Some(&new), None).check(&[("--json", true)]).unwrap());
        let whole = evidence(&[(CertKind::Vcek, b"0")]);
        files(None, Some(&new)).write(&whole).unwrap();
        assert_eq!(fs::read(new.join("report.bin")).unwrap(), whole.report);
        assert_eq!(fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn where_one_place_fails_nothing_is_left_in_the_other_nor_half_of_it() {
        let scratch = tempfile::tempdir().unwrap();
        let (record, folder, nowhere) =
            (scratch.path().join("a.cmw"), scratch.path().join("folder"), scratch.path().join("none/such"));
        let whole = evidence(&[(CertKind::Vcek, b"0")]);
        let write =
            |cmw: &Path, raw: &Path| EvidenceFiles { cmw: Some(cmw.into()), raw: Some(raw.into()) }.write(&whole);
        let names = || -> Vec<_> {
            fs::read_dir(scratch.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        };
        assert_eq!(write(&record, &nowhere).unwrap_err().class, Class::Config);
        assert_eq!(write(&nowhere, &folder).unwrap_err().class, Class::Config);
        assert_eq!(names(), [] as [String; 0]);
        // Somebody takes the folder's name when the record is there already.
        let made = made(&folder, &whole).unwrap();
        fs::create_dir(&folder).unwrap();
        assert_eq!(name(made, &folder).unwrap_err().class, Class::Config);
        assert_eq!(names(), ["folder"]);
        fs::remove_dir(&folder).unwrap();
        put(&record, b"x").unwrap();
        take_back(&record);
        assert_eq!(names(), [] as [String; 0]);
        write(&record, &folder).unwrap();
        assert_eq!(names().len(), 2);
    }
}
