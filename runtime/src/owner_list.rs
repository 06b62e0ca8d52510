//! The owners a spec lists: public keys and what each may do.

use coffer_ratls::certificate_spki;
use coffer_rim::{Class, Failure};
use coffer_spec::{Capability, Owner};
use coffer_verifier::abi::SpkiDigest;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Everything an owner may do.
pub const ALL: [Capability; 4] = [Capability::Exec, Capability::Inject, Capability::Unseal, Capability::Logs];

/// Reads `PUBKEY.pem[=may,may]`: a public key or certificate, and what its owner may do; without a list, everything.
///
/// # Errors
/// Class `usage` for a word that is no capability, `config` for a file that is no key.
pub fn parse(text: &str) -> Result<Owner, Failure> {
    let (path, may) = match text.rsplit_once('=') {
        Some((path, list)) => (path, capabilities(list)?),
        None => (text, ALL.to_vec()),
    };
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::caused(Class::Config, &error).while_doing(format!("cannot read owner key {path}")))?;
    let key = spki_of_pem(&bytes).ok_or_else(|| {
        Failure::new(Class::Config, format!("{path} holds neither a PUBLIC KEY nor a CERTIFICATE in PEM form"))
            .hint("`coffer owner show --pem` prints the local owner's")
    })?;
    Ok(Owner { key, may })
}

fn capabilities(list: &str) -> Result<Vec<Capability>, Failure> {
    let one = |word: &str| match word {
        "exec" => Ok(Capability::Exec),
        "inject" => Ok(Capability::Inject),
        "unseal" => Ok(Capability::Unseal),
        "logs" => Ok(Capability::Logs),
        _ => Err(Failure::new(Class::Usage, format!("{word:?} is nothing an owner may do"))
            .hint("an owner may exec, inject, unseal and logs")),
    };
    let mut all = list.split(',').filter(|word| !word.is_empty()).map(one).collect::<Result<Vec<_>, _>>()?;
    all.sort_unstable();
    all.dedup();
    Ok(all)
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
        let owner = parse(&format!("{}=logs,exec,logs", certificate.display())).unwrap();
        assert_eq!((owner.key, owner.may), (identity.spki(), vec![Capability::Exec, Capability::Logs]));
        assert_eq!(parse(&certificate.display().to_string()).unwrap().may, ALL);
    }

    #[test]
    fn what_is_no_key_or_capability_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("not.pem");
        std::fs::write(&file, "hello").unwrap();
        assert_eq!(parse(&file.display().to_string()).unwrap_err().class, Class::Config);
        assert_eq!(parse("x.pem=everything").unwrap_err().class, Class::Usage);
        assert_eq!(parse("/nowhere.pem").unwrap_err().class, Class::Config);
    }
}
