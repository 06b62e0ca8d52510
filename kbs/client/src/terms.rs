//! The operator's side of sealing contexts and certificate profiles, and how their terms are said to people.

use crate::{admin::AdminClient, error::ClientError, kbs::admin::v1, listed::Listed};

pub use v1::{
    CertificateProfile, ListCertificateProfilesResponse as CertificateProfiles, SealedVolume, SealingContext,
};

impl AdminClient {
    /// Says on what terms a sealing context gives keys. Gives what was said before.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put_sealing_context(&self, context: SealingContext) -> Result<Option<SealingContext>, ClientError> {
        let request = v1::PutSealingContextRequest { context: Some(context) };
        Ok(self.done(self.admin.clone().put_sealing_context(request)).await?.before)
    }

    /// Sealing contexts of a tenant.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_sealing_contexts(&self, tenant: &str) -> Result<Listed<SealingContext>, ClientError> {
        let request = v1::ListSealingContextsRequest { tenant: tenant.to_owned() };
        let response = self.done(self.admin.clone().list_sealing_contexts(request)).await?;
        Ok(Listed { rows: response.contexts, damaged: response.damaged })
    }

    /// Takes a sealing context away; false if there was none.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn remove_sealing_context(&self, tenant: &str, context: &[u8]) -> Result<bool, ClientError> {
        let request = v1::RemoveSealingContextRequest { tenant: tenant.to_owned(), context: context.to_vec() };
        Ok(self.done(self.admin.clone().remove_sealing_context(request)).await?.existed)
    }

    /// Records of sealed volumes of a tenant.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_volumes(&self, tenant: &str) -> Result<Listed<SealedVolume>, ClientError> {
        let request = v1::ListVolumesRequest { tenant: tenant.to_owned() };
        let response = self.done(self.admin.clone().list_volumes(request)).await?;
        Ok(Listed { rows: response.volumes, damaged: response.damaged })
    }

    /// Lets a volume be recovered that was not closed, or begin `anew`. Gives its record; nothing if there is none. `subject`:
    /// empty where one alone has that name.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn allow_volume(
        &self,
        tenant: &str,
        name: &str,
        subject: Option<Vec<u8>>,
        anew: bool,
    ) -> Result<Option<SealedVolume>, ClientError> {
        let (tenant, name) = (tenant.to_owned(), name.as_bytes().to_vec());
        let request = v1::AllowVolumeRequest { tenant, name, subject, anew };
        Ok(self.done(self.admin.clone().allow_volume(request)).await?.volume)
    }

    /// Says what certificates of one name say. Gives whether it is new, and the tenant's own certificate in DER.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put_certificate_profile(&self, profile: CertificateProfile) -> Result<(bool, Vec<u8>), ClientError> {
        let request = v1::PutCertificateProfileRequest { profile: Some(profile) };
        let response = self.done(self.admin.clone().put_certificate_profile(request)).await?;
        Ok((response.added, response.root))
    }

    /// Certificate profiles of a tenant, its own certificate, and its key of tokens.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_certificate_profiles(&self, tenant: &str) -> Result<CertificateProfiles, ClientError> {
        let request = v1::ListCertificateProfilesRequest { tenant: tenant.to_owned() };
        self.done(self.admin.clone().list_certificate_profiles(request)).await
    }

    /// Takes a certificate profile away; false if there was none.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn remove_certificate_profile(&self, tenant: &str, name: &str) -> Result<bool, ClientError> {
        let request = v1::RemoveCertificateProfileRequest { tenant: tenant.to_owned(), name: name.to_owned() };
        Ok(self.done(self.admin.clone().remove_certificate_profile(request)).await?.existed)
    }
}

/// Rules in words: what each list asks for, `none` where nothing is.
pub fn describe_rules(rules: &v1::Rules) -> String {
    let hex = |bytes: &Vec<u8>| hex::encode(bytes);
    let list = |name: &str, all: Vec<String>| (!all.is_empty()).then(|| format!("{name} {}", all.join(" or ")));
    let author = |one: &v1::AuthorRule| format!("{} from svn {}", hex(&one.author_key_digest), one.minimum_guest_svn);
    let tcb = |one: &v1::TcbRule| {
        let fmc = if one.fmc == 0 { String::new() } else { format!(" fmc {}", one.fmc) };
        let v1::TcbRule { product, bootloader, tee, snp, microcode, .. } = one;
        format!("{product}{fmc} bl {bootloader} tee {tee} snp {snp} ucode {microcode}")
    };
    let parts: Vec<String> = [
        list("measurement", rules.measurements.iter().map(hex).collect()),
        list("workload", rules.workloads.iter().map(hex).collect()),
        list("author", rules.authors.iter().map(author).collect()),
        list("chip", rules.chips.iter().map(hex).collect()),
        list("tcb at least", rules.tcb.iter().map(tcb).collect()),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join("; ") }
}
