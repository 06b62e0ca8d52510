//! The owners a spec lists: public keys and what each may do.

use coffer_ratls::certificate_spki;
use coffer_rim::{Class, Failure, input};
use coffer_spec::{Owner, OwnerMay};
use coffer_verifier::abi::SpkiDigest;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Reads `PUBKEY.pem[=may,may]`: a public key or certificate, and what its owner may do; without a list, everything;
/// `none`: what comes with being listed.
///
/// # Errors
/// Class `usage` for a list that is no set of acts, `config` for a file that is no key.
pub fn parse(text: &str) -> Result<Owner, Failure> {
    let (path, may) = match text.rsplit_once('=') {
        Some((path, list)) => (path, acts(list)?),
        None => (text, OwnerMay::all()),
    };
    let bytes = input::read(path.as_ref(), input::DOCUMENT)
        .map_err(|error| Failure::caused(Class::Config, &error).while_doing(format!("cannot read owner key {path}")))?;
    let key = spki_of_pem(&bytes).ok_or_else(|| {
        Failure::new(Class::Config, format!("{path} holds neither a PUBLIC KEY nor a CERTIFICATE in PEM form"))
            .hint("`coffer owner show --pem` prints the local owner's")
    })?;
    Ok(Owner { key, may })
}

fn acts(list: &str) -> Result<OwnerMay, Failure> {
    OwnerMay::parse(list).map_err(|error| Failure::caused(Class::Usage, &error).while_doing("--owner"))
}

/// SHA-256 of the public key in a PEM file.
pub fn spki_of_pem(bytes: &[u8]) -> Option<SpkiDigest> {
    Pem::iter_from_buffer(bytes).flatten().find_map(|pem| match pem.label.as_str() {
        "CERTIFICATE" => certificate_spki(&pem.contents),
        "PUBLIC KEY" => {
            let (rest, _) = SubjectPublicKeyInfo::from_der(&pem.contents).ok()?;
            rest.is_empty().then(|| SpkiDigest::of(&pem.contents))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_its_key_and_the_list_what_it_may() {
        let dir = tempfile::tempdir().unwrap();
        let identity = crate::owner_access::init(&dir.path().join("owner")).unwrap();
        let certificate = dir.path().join("owner/cert.pem");
        let owner = parse(&format!("{}=logs,exec", certificate.display())).unwrap();
        assert_eq!((owner.key, owner.may), (identity.spki(), OwnerMay::parse("exec,logs").unwrap()));
        assert_eq!(parse(&certificate.display().to_string()).unwrap().may, OwnerMay::all());
    }

    #[test]
    fn what_is_no_key_or_set_of_acts_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("not.pem");
        std::fs::write(&file, "hello").unwrap();
        assert_eq!(parse(&file.display().to_string()).unwrap_err().class, Class::Config);
        for list in ["everything", "", "exec,exec", "none,exec", "stop"] {
            assert_eq!(parse(&format!("x.pem={list}")).unwrap_err().class, Class::Usage, "{list}");
        }
        assert_eq!(parse("/nowhere.pem").unwrap_err().class, Class::Config);
    }
}
