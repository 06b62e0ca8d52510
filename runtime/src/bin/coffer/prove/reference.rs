//! `--reference`: guests that are expected, from files.

use std::path::PathBuf;

use coffer_rim::input;
use coffer_runtime::signing_key::read_public;
use coffer_verifier::{ExpectedGuest, MaxAge, Pair, UnixTime};
use serde_json::Value;

use crate::error::{self, Class, Classify as _, CliError};
use crate::kbs::reference::measured;
use crate::launch::signed_manifest;

/// Which guests are expected.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct References {
    /// What it may be: the output of `coffer measure --json`, or a manifest that a key of --manifest-key signed.
    #[arg(long, value_name = "FILE")]
    pub reference: Vec<PathBuf>,
    /// Public key of a signed manifest, PEM; repeatable.
    #[arg(long, value_name = "PEM", requires = "reference")]
    pub manifest_key: Vec<PathBuf>,
}

impl References {
    /// Which guest is expected: one that the files name, or whatever the policy admits where no file is named. `most`: as of
    /// [`Self::read`].
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn guest(&self, most: MaxAge, now: UnixTime) -> Result<ExpectedGuest, CliError> {
        if self.reference.is_empty() {
            return Ok(ExpectedGuest::WhateverThePolicyAdmits);
        }
        Ok(ExpectedGuest::Admitted { pairs: self.read(most, now)?, signers: Vec::new() })
    }

    /// Pairs of a measurement and a workload, all that the files name; none where no file is named. `most`: how old a manifest may be at `now`; a
    /// file without a date is not asked for one.
    ///
    /// # Errors
    /// A file that is neither, a manifest that is not to be believed, or older than it may be.
    pub fn read(&self, most: MaxAge, now: UnixTime) -> Result<Vec<Pair>, CliError> {
        let keys = self.manifest_key.iter().map(|path| read_public(path)).collect::<Result<Vec<_>, _>>()?;
        let mut pairs = Vec::new();
        for file in &self.reference {
            let bytes = input::read(file, input::DOCUMENT)
                .class_while(Class::Config, format!("cannot read {}", file.display()))?;
            let is_manifest = serde_json::from_slice::<Value>(&bytes).is_ok_and(|it| it.get("payload").is_some());
            // A key demands a signature: whoever hands out the file must not choose that there is none.
            if !is_manifest && !keys.is_empty() {
                let message = format!("{} is not signed, and --manifest-key demands that it is", file.display());
                return Err(CliError::new(Class::NotAuthentic, message)
                    .hint("name a signed manifest, or leave --manifest-key out and believe the file"));
            }
            if !is_manifest && most != MaxAge::Any {
                error::warn(&format!(
                    "{}: max_manifest_age is not asked: it is no manifest, and has no date",
                    file.display()
                ));
            }
            let (measurements, workload) = if !is_manifest {
                measured(&bytes, None).map_err(|error| error.while_doing(file.display()))?
            } else if keys.is_empty() {
                let message = format!(
                    "{} is a signed manifest, and no key is named that it would be believed for",
                    file.display()
                );
                return Err(CliError::new(Class::Usage, message).hint("name its public key with --manifest-key PEM"));
            } else {
                let verified = signed_manifest::believed(&bytes, file, &keys, now)?;
                let contents = verified.contents();
                if !most.admits(now.0.saturating_sub(contents.created.0)) {
                    let made = contents.created;
                    let message = format!("{} was made at {made}, expected {most} (max_manifest_age)", file.display());
                    return Err(CliError::new(Class::Refused, message)
                        .hint("take the newest one; `coffer manifest re-endorse` gives a release another date"));
                }
                (verified.measurements().copied().collect(), contents.workload)
            };
            let host_data = workload.host_data();
            pairs.extend(measurements.into_iter().map(|measurement| Pair { measurement, host_data }));
        }
        Ok(pairs)
    }
}
