//! The owners a spec lists: public keys and what each may do.

use coffer_ratls::certificate_spki;
use coffer_rim::{Class, Failure, input};
use coffer_spec::{AuthorityKey, Name, NameError, Owner, OwnerAuthority, OwnerMay, PathError, SecretPath};
use coffer_verifier::abi::SpkiDigest;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::signing_key::read_public;

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

/// Reads `PUBKEY.pem,name=NAME[,sequence=N][,kept=kbs:///…]`: whose lists of owners count, and which.
///
/// # Errors
/// Class `usage` for words that say none, `config` for a file that is no key.
pub fn authority(text: &str) -> Result<OwnerAuthority, Failure> {
    let usage = |why: String| {
        Failure::new(Class::Usage, format!("invalid value {text:?} for --owner-authority: {why}"))
            .hint("write PUBLIC-KEY.pem,name=NAME, and behind commas sequence=N and kept=kbs:///repository/type/tag")
    };
    let mut parts = text.split(',');
    let file = parts.next().filter(|file| !file.is_empty()).ok_or_else(|| usage("there is no key's file".into()))?;
    let (mut name, mut sequence, mut kept) = (None, None, None);
    for part in parts {
        let (word, value) = part.split_once('=').ok_or_else(|| usage(format!("{part:?} is no WORD=VALUE")))?;
        let twice = match word {
            "name" => {
                let value: Name = value.parse().map_err(|error: NameError| usage(error.to_string()))?;
                name.replace(value).is_some()
            }
            "sequence" => {
                let value: u64 = value.parse().map_err(|_| usage("sequence: expected a whole number".into()))?;
                sequence.replace(value).is_some()
            }
            "kept" => {
                let value: SecretPath = value.parse().map_err(|error: PathError| usage(error.to_string()))?;
                kept.replace(value).is_some()
            }
            _ => return Err(usage(format!("there is no {word:?}"))),
        };
        if twice {
            return Err(usage(format!("{word} stands there twice")));
        }
    }
    let name = name.ok_or_else(|| usage("name= is missing: what its lists are called".into()))?;
    let key = AuthorityKey(read_public(file.as_ref())?);
    Ok(OwnerAuthority { key, name, sequence: sequence.unwrap_or(0), kept })
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
    fn an_authority_has_a_key_and_a_name_and_each_word_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("authority.pem");
        let key = crate::signing_key::SigningKey::generate().unwrap();
        std::fs::write(&file, key.public().to_pem()).unwrap();
        let file = file.display();
        let read = authority(&format!("{file},name=prod,sequence=7,kept=kbs:///default/owners/prod")).unwrap();
        assert_eq!((read.name.as_str(), read.sequence, read.key.0), ("prod", 7, *key.public()));
        assert_eq!(read.kept.unwrap().as_str(), "kbs:///default/owners/prod");
        for bad in [
            "",
            ",name=a",
            "F",
            "F,name=a,name=b",
            "F,name=a b",
            "F,name=a,sequence=-1",
            "F,name=a,kept=x",
            "F,name=a,x=1",
            "F,name=a,",
        ] {
            let error = authority(&bad.replace('F', &file.to_string())).unwrap_err();
            assert_eq!(error.class, Class::Usage, "{bad}");
        }
        assert_eq!(authority("/nowhere.pem,name=a").unwrap_err().class, Class::Config);
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
