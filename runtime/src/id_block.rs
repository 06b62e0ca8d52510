//! ID blocks at the rim: signed for a predicted launch, kept with the box, handed to the secure processor.
//!
//! Signing happens when a box is made, or elsewhere by its author; a start needs no private key.
//! Source: SNP ABI, SNP_LAUNCH_FINISH.

use std::path::Path;

use coffer_rim::{Class, Failure, input};
use coffer_simulator::IdEvidence;
use coffer_verifier::abi::{FamilyId, ImageId, KeyDigest, Measurement};
use coffer_verifier::measure::{IdAuth, IdBlock, Signed, key_structure};
use serde::Serialize;

use crate::boxes::{BoxOptions, files};
use crate::signing_key::{SigningKey, already_there, write_new, write_over};

pub use coffer_platform::plan::GUEST_POLICY;

/// Names and version an author gives a launch; what the report will show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchNames {
    /// FAMILY_ID.
    pub family_id: FamilyId,
    /// IMAGE_ID.
    pub image_id: ImageId,
    /// GUEST_SVN.
    pub guest_svn: u32,
}

impl Default for LaunchNames {
    fn default() -> Self {
        Self { family_id: FamilyId::new([0; 16]), image_id: ImageId::new([0; 16]), guest_svn: 0 }
    }
}

/// An ID block with its authentication block.
#[derive(Clone)]
pub struct SignedLaunch {
    /// What the launch must be.
    pub block: IdBlock,
    /// Who says so.
    pub auth: IdAuth,
}

/// What a report of this launch will show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IdFacts {
    /// Launch digest signed.
    pub measurement: Measurement,
    /// POLICY signed, hexadecimal.
    pub policy: String,
    /// ID_KEY_DIGEST.
    pub id_key_digest: KeyDigest,
    /// AUTHOR_KEY_DIGEST; null without author key.
    pub author_key_digest: Option<KeyDigest>,
    /// FAMILY_ID.
    pub family_id: FamilyId,
    /// IMAGE_ID.
    pub image_id: ImageId,
    /// GUEST_SVN.
    pub guest_svn: u32,
}

impl SignedLaunch {
    /// Signs a launch.
    ///
    /// # Errors
    /// Class `config` if ID and author key are one key.
    pub fn sign(
        measurement: Measurement,
        policy: u64,
        names: LaunchNames,
        id: &SigningKey,
        author: Option<&SigningKey>,
    ) -> Result<Self, Failure> {
        let block = IdBlock {
            measurement,
            family_id: names.family_id,
            image_id: names.image_id,
            guest_svn: names.guest_svn,
            policy,
        };
        let over_block = id.sign(&block.to_bytes())?;
        let over_key = author.map(|author| author.sign(&key_structure(id.public()))).transpose()?;
        let author =
            author.zip(over_key.as_ref()).map(|(author, signature)| Signed { key: author.public(), signature });
        let auth = IdAuth::new(Signed { key: id.public(), signature: &over_block }, author)
            .map_err(|error| Failure::caused(Class::Config, &error).hint("the author key stays off the launch host"))?;
        Ok(Self { block, auth })
    }

    /// Reads blocks from files.
    ///
    /// # Errors
    /// Class `config`, naming the file.
    pub fn read(block: &Path, auth: &Path) -> Result<Self, Failure> {
        let read = |path: &Path| {
            input::read(path, input::DOCUMENT).map_err(|error| {
                Failure::caused(Class::Config, &error).while_doing(format!("cannot read {}", path.display()))
            })
        };
        let wrong = |path: &Path, error| Failure::caused(Class::Config, &error).while_doing(path.display());
        Ok(Self {
            block: IdBlock::parse(&read(block)?).map_err(|error| wrong(block, error))?,
            auth: IdAuth::parse(&read(auth)?).map_err(|error| wrong(auth, error))?,
        })
    }

    /// The blocks that were stored with a box, if it was made with any.
    ///
    /// # Errors
    /// Class `config` if they are gone or broken: a box made with an ID block never starts without it.
    pub fn of_box(folder: &Path, options: &BoxOptions) -> Result<Option<Self>, Failure> {
        if !options.id_block {
            return Ok(None);
        }
        Self::read(&folder.join(files::ID_BLOCK), &folder.join(files::ID_AUTH)).map(Some)
    }

    /// Writes `id_block.bin` and `id_auth.bin` into a folder that has no ID block yet: both, or none. `mode`: of the files.
    ///
    /// # Errors
    /// Class `config` if one is there already, which stays as it is, or a file cannot be written.
    pub fn write(&self, folder: &Path, mode: u32) -> Result<(), Failure> {
        let (block, auth) = (folder.join(files::ID_BLOCK), folder.join(files::ID_AUTH));
        if block.symlink_metadata().is_ok() {
            return Err(already_there(&block));
        }
        // The block last: a folder with one is complete. What lies beside none is of somebody who was interrupted.
        let written = write_over(&auth, self.auth.as_bytes(), mode);
        written.and_then(|()| write_new(&block, &self.block.to_bytes(), mode)).inspect_err(|_| {
            let _ = std::fs::remove_file(&auth);
        })
    }

    /// Checks what the secure processor will check: this measurement, this policy, both signatures.
    ///
    /// # Errors
    /// Class `config`, with what was found and expected.
    pub fn check(&self, measurement: &Measurement, policy: u64) -> Result<(), Failure> {
        let block = &self.block;
        let wrong = |message: String, hint: String| Err(Failure::new(Class::Config, message).hint(hint));
        if block.measurement != *measurement {
            let message =
                format!("ID block expects launch digest {}, this launch has {measurement}", block.measurement);
            return wrong(message, SIGN_THE_MEASUREMENT.into());
        }
        if block.policy != policy {
            let message = format!("ID block expects policy {:#x}, this launch has {policy:#x}", block.policy);
            return wrong(message, format!("sign it again with `coffer id-block sign --policy {policy:#x}`"));
        }
        self.auth
            .verify(block)
            .map_err(|error| Failure::caused(Class::Config, &error).while_doing("ID block").hint(NOT_OF_ONE_SIGNING))
    }

    /// As the simulated processor takes it.
    pub fn evidence(&self) -> IdEvidence {
        IdEvidence { block: self.block, auth: self.auth.clone(), author_key_enabled: self.auth.has_author() }
    }

    /// What a report will show.
    pub fn facts(&self) -> IdFacts {
        IdFacts {
            measurement: self.block.measurement,
            policy: format!("{:#x}", self.block.policy),
            id_key_digest: self.auth.id_key_digest(),
            author_key_digest: self.auth.author_key_digest(),
            family_id: self.block.family_id,
            image_id: self.block.image_id,
            guest_svn: self.block.guest_svn,
        }
    }
}

const SIGN_THE_MEASUREMENT: &str =
    "`coffer measure` with the same flags prints the measurement; sign that with `coffer id-block sign`";
const NOT_OF_ONE_SIGNING: &str =
    "the two files are not of one signing, or one was changed: take both from one `coffer id-block sign`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_fits_its_launch_and_no_other() {
        let (id, author) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let names = LaunchNames { family_id: FamilyId::new([1; 16]), guest_svn: 7, ..LaunchNames::default() };
        let measurement = Measurement::new([3; 48]);
        let signed = SignedLaunch::sign(measurement, GUEST_POLICY, names, &id, Some(&author)).unwrap();
        signed.check(&measurement, GUEST_POLICY).unwrap();
        let other = Measurement::new([4; 48]);
        let failure = signed.check(&other, GUEST_POLICY).unwrap_err();
        assert!(failure.message.contains(&other.to_string()) && failure.message.contains(&measurement.to_string()));
        assert!(failure.hint.unwrap().contains("coffer measure"));
        let failure = signed.check(&measurement, 0xb_0000).unwrap_err();
        assert!(failure.message.contains("0x30000") && failure.message.contains("0xb0000"), "{failure}");
        assert!(failure.hint.unwrap().contains("--policy 0xb0000"), "the policy is what to mend");
        let mut bad = signed.clone();
        bad.block.guest_svn = 8;
        let failure = bad.check(&measurement, GUEST_POLICY).unwrap_err();
        assert!(failure.message.contains("signature of the ID key over the ID block"), "{failure}");
        assert!(failure.hint.unwrap().contains("not of one signing"));
        assert!(SignedLaunch::sign(measurement, GUEST_POLICY, names, &id, Some(&id)).is_err());
        assert_eq!(signed.facts().guest_svn, 7);
        assert!(signed.facts().author_key_digest.is_some() && signed.evidence().author_key_enabled);
    }

    #[test]
    fn a_box_made_with_a_block_does_not_start_without_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = crate::boxes::tests::options();
        assert!(SignedLaunch::of_box(folder.path(), &options).unwrap().is_none());
        options.id_block = true;
        assert!(SignedLaunch::of_box(folder.path(), &options).is_err());
        let id = SigningKey::generate().unwrap();
        let signed =
            SignedLaunch::sign(Measurement::new([3; 48]), GUEST_POLICY, LaunchNames::default(), &id, None).unwrap();
        signed.write(folder.path(), 0o600).unwrap();
        let again = SignedLaunch::of_box(folder.path(), &options).unwrap().unwrap();
        assert_eq!(again.facts(), signed.facts());
        crate::boxes::clean_run_files(folder.path());
        assert!(SignedLaunch::of_box(folder.path(), &options).is_ok(), "a stopped box keeps its block");
    }
}
