//! `--peer` and `--guests`: what they name is read from its files.

use coffer_rim::input;
use coffer_runtime::request::{self, GuestWords, PeerWords};
use coffer_spec::{Guests, Ingress, Measured, Peer, SignedLaunch};
use coffer_verifier::root_digest;

use crate::error::{Class, Classify as _, CliError};
use crate::kbs::{reference::measured, signer::AuthorKey};
use crate::launch::id_flags::{family_id, image_id};

/// The peers of these flags.
///
/// # Errors
/// Class `usage` for what is wrong with one, `config` for a file it names.
pub fn peers(flags: &[String]) -> Result<Vec<Peer>, CliError> {
    flags.iter().map(|text| peer(text)).collect()
}

fn peer(text: &str) -> Result<Peer, CliError> {
    let words =
        request::peer(text).map_err(|why| wrong("--peer", text, &why).hint(format!("write {}", request::PEER)))?;
    let PeerWords { name, listen, address, port, guests } = words;
    Ok(Peer { name, listen, address, port, guests: read(guests).map_err(|error| error.while_doing("--peer"))? })
}

/// Leaves published ports to the guests of these flags.
///
/// # Errors
/// Class `usage` for what is wrong with one, `config` for a file it names.
pub fn leave_to_guests(ingress: &mut [Ingress], flags: &[String]) -> Result<(), CliError> {
    for text in flags {
        let refused = |why: String| wrong("--guests", text, &why).hint(format!("write {}", request::GUESTS));
        let (port, guests) = request::guests(text).map_err(refused)?;
        let guests = read(guests).map_err(|error| error.while_doing("--guests"))?;
        request::leave_to(ingress, port, guests).map_err(refused)?;
    }
    Ok(())
}

fn wrong(flag: &str, text: &str, why: &str) -> CliError {
    CliError::new(Class::Usage, format!("invalid value {text:?} for {flag}: {why}"))
}

fn read(words: GuestWords) -> Result<Guests, CliError> {
    let file = |path: &std::path::Path| {
        input::read(path, input::DOCUMENT).class_while(Class::Config, format!("cannot read {}", path.display()))
    };
    let id = |what: &str, text: &str, why: &str| CliError::new(Class::Usage, format!("{what} {text:?}: {why}"));
    let mut guests = Guests { milan_chip_keys_can_be_extracted: words.milan, ..Guests::default() };
    for path in &words.references {
        let (measurements, workload) =
            measured(&file(path)?, None).map_err(|error| error.while_doing(path.display()))?;
        let workload = workload.host_data();
        guests.measured.extend(measurements.into_iter().map(|measurement| Measured { measurement, workload }));
    }
    if let Some(signed) = words.signed {
        guests.signed.push(SignedLaunch {
            author_key: signed
                .author
                .parse::<AuthorKey>()
                .unwrap_or_else(|never| match never {})
                .digest(&format!("author={}", signed.author))?,
            family_id: family_id(&signed.family).map_err(|why| id("family", &signed.family, &why))?,
            image_id: image_id(&signed.image).map_err(|why| id("image", &signed.image, &why))?,
            min_svn: signed.min_svn,
        });
    }
    for root in &words.simulators {
        let digest = match root.parse() {
            Ok(digest) => digest,
            Err(_) => root_digest(&file(root.as_ref())?).class_while(Class::Config, root)?,
        };
        guests.simulators.push(digest);
    }
    Ok(guests)
}
