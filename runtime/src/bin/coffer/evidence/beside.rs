//! What is named beside evidence on a command line: certificates, lists and tables, in files and in a folder.
//!
//! Trusts: nothing in them. Never: passes over a file of a known name; opens one of another name.

use std::path::{Path, PathBuf};

use coffer_rim::{chain, foreign, input, regular};
use coffer_verifier::{EndorsementError, Endorsements, Look};

use crate::error::{self, Class, Classify as _, CliError};

/// What is named beside evidence.
#[derive(Clone, Debug, clap::Args)]
pub struct Beside {
    /// Folder with vcek|vlek, ask|asvk, ark and crl, each .der or .pem, and a certificate table, cert_table.bin.
    #[arg(long, value_name = "DIR")]
    certs: Option<PathBuf>,

    /// VCEK certificate, DER or PEM.
    #[arg(long, value_name = "FILE")]
    vcek: Vec<PathBuf>,

    /// VLEK certificate, DER or PEM.
    #[arg(long, value_name = "FILE")]
    vlek: Vec<PathBuf>,

    /// ASK certificate, DER or PEM; a PEM file may hold the whole chain.
    #[arg(long, value_name = "FILE")]
    ask: Vec<PathBuf>,

    /// ASVK certificate, DER or PEM.
    #[arg(long, value_name = "FILE")]
    asvk: Vec<PathBuf>,

    /// ARK certificate, DER or PEM. It is believed only if its key is AMD's, or listed by --allow-simulated and --anchor.
    #[arg(long, value_name = "FILE")]
    ark: Vec<PathBuf>,

    /// Certificate revocation list, DER or PEM.
    #[arg(long, value_name = "FILE")]
    crl: Vec<PathBuf>,

    /// Certificate table of an extended report, beside a report that was kept without it: all of its certificates and lists.
    #[arg(long, value_name = "FILE")]
    cert_table: Vec<PathBuf>,
}

/// Largest file worth reading: a CMW record is at most 1 MiB.
const MAX_FILE: u64 = 1024 * 1024;

/// Reads a file, or standard input for `-`.
pub fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let stdin = || input::all(std::io::stdin().lock(), MAX_FILE);
    let bytes = if path == Path::new("-") { stdin() } else { input::read(path, MAX_FILE) };
    bytes.class_while(Class::Config, format!("reading {}", input::name(path)))
}

type Reader = fn(&Path) -> Result<Vec<u8>, CliError>;

/// What a file is named as. Certificates are read before lists.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Certificates,
    Table,
    List,
}

/// Files of `--certs`, without `.der` or `.pem`.
const CERTS: [(&str, Kind); 6] = [
    ("vcek", Kind::Certificates),
    ("vlek", Kind::Certificates),
    ("ask", Kind::Certificates),
    ("asvk", Kind::Certificates),
    ("ark", Kind::Certificates),
    ("crl", Kind::List),
];
/// And the table, as `coffer sim evidence` writes it.
const CERT_TABLE: &str = "cert_table.bin";

/// Reads what lies in a folder: nobody named it, and a pipe or device there is refused and not waited for.
fn lying(path: &Path) -> Result<Vec<u8>, CliError> {
    regular::read(path, MAX_FILE).class_while(Class::Config, format!("reading {}", path.display()))
}

impl Beside {
    /// The bag of everything named on the command line. The inner error is a certificate that is one, but must not be used.
    pub fn endorsements(&self) -> Result<Result<Endorsements, EndorsementError>, CliError> {
        let named = [&self.vcek, &self.vlek, &self.ask, &self.asvk, &self.ark].into_iter().flatten();
        let named = named.map(|path| (path, Kind::Certificates));
        let named = named.chain(self.cert_table.iter().map(|path| (path, Kind::Table)));
        let named = named.chain(self.crl.iter().map(|path| (path, Kind::List)));
        let mut files: Vec<(PathBuf, Kind, Reader)> =
            named.map(|(path, kind)| (path.clone(), kind, read as Reader)).collect();
        if let Some(folder) = &self.certs {
            std::fs::read_dir(folder).class_while(Class::Config, format!("reading {}", folder.display()))?;
            let before = files.len();
            for (name, kind) in CERTS {
                let paths = ["der", "pem"].map(|form| folder.join(format!("{name}.{form}")));
                files.extend(paths.into_iter().filter(|path| path.exists()).map(|path| (path, kind, lying as Reader)));
            }
            // A host's table stands for what is missing beside it: whoever wrote the certificates out has no need of it.
            let table = folder.join(CERT_TABLE);
            if table.exists() {
                files.push((table, Kind::Table, lying as Reader));
            }
            if files.len() == before {
                error::warn(&format!(
                    "{}: there is no vcek, vlek, ask, asvk, ark or crl, .der or .pem, and no {CERT_TABLE}, and other names are passed \
                     over; `coffer collateral import` takes files of any name",
                    folder.display()
                ));
            }
        }
        files.sort_by_key(|(_, kind, _)| *kind);
        let mut all = Endorsements::new();
        for (path, kind, read) in &files {
            let bytes = read(path)?;
            let added = match kind {
                Kind::Certificates => all.add_certificates(&bytes),
                Kind::Table => Endorsements::from_cert_table(&bytes).map(|table| all.merge(&table)),
                Kind::List => all.add_crl(&bytes),
            };
            match added {
                Ok(()) => {}
                Err(error) if error.is_malformed() => {
                    let hint = match &error {
                        EndorsementError::Other { found: Look::RevocationList, .. } => {
                            "a revocation list goes with --crl FILE".into()
                        }
                        EndorsementError::Other { found: Look::Certificate, .. } => {
                            "certificates go with --vcek, --vlek, --ask, --asvk or --ark FILE".into()
                        }
                        EndorsementError::Other { found: Look::CertTable, .. } => {
                            "a certificate table goes with --cert-table FILE".into()
                        }
                        EndorsementError::Table(_) if Look::of(&bytes) != Look::CertTable => {
                            format!("it is {}, and no certificate table", Look::of(&bytes)).into()
                        }
                        EndorsementError::Other { found: Look::Report | Look::Cmw | Look::Hcl, .. } => {
                            "evidence is what is judged: name it by itself, `coffer verify FILE`".into()
                        }
                        _ => error.reason().hint,
                    };
                    return Err(error)
                        .class_while(Class::Config, input::name(path))
                        .map_err(|failure| failure.hint(hint));
                }
                Err(error) => {
                    // The judge knows no files, and what it says travels in tokens.
                    error::warn(&format!("{}: {}", input::name(path), chain(&error)));
                    return Ok(Err(error));
                }
            }
        }
        Ok(Ok(all))
    }

    /// Says what was passed over, where something is missing.
    pub fn warn_of_passed_over(&self) {
        self.certs.iter().for_each(|folder| passed_over(folder));
    }
}

/// Says which files of a folder look like certificates by their names, and were passed over for them.
fn passed_over(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| is_passed_over(name));
    names.sort();
    if !names.is_empty() {
        let more = if names.len() > SHOWN { ", …" } else { "" };
        names.truncate(SHOWN);
        error::warn(&format!(
            "{}: passed over {}{more}: names are vcek, vlek, ask, asvk, ark or crl, .der or .pem, and {CERT_TABLE}; `coffer collateral \
             import` takes files of any name",
            folder.display(),
            foreign(&names.join(", "))
        ));
    }
}

/// As others call certificates, lists and tables.
fn is_passed_over(name: &str) -> bool {
    let known = CERTS.iter().any(|(stem, _)| ["der", "pem"].iter().any(|form| *name == format!("{stem}.{form}")));
    let end = name.rsplit_once('.').map_or("", |(_, end)| end).to_ascii_lowercase();
    let stem = name.to_ascii_lowercase();
    let by_end = ["der", "pem", "crt", "cer", "cert", "crl"].contains(&&*end);
    let is_table = end == "bin" && stem.contains("cert");
    !known && name != CERT_TABLE && (by_end || is_table)
}

/// Names that are shown.
const SHOWN: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_certificate_by_its_name_is_not_passed_over_in_silence() {
        for name in ["vcek.crt", "VCEK.der", "cert_chain.pem", "milan.crl", "certs.bin", "vlek.PEM"] {
            assert!(is_passed_over(name), "{name}");
        }
        for name in ["vcek.der", "crl.pem", "cert_table.bin", "report.bin", "evidence.cmw", "policy.toml", "README"] {
            assert!(!is_passed_over(name), "{name}");
        }
    }
}
