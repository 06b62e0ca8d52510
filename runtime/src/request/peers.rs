//! `--peer` and `--guests`: which guests a box talks to, and which may talk to it.

use std::path::PathBuf;

use coffer_spec::{Guests, Ingress, IngressClients, Name};

use super::told;

/// How `--peer` is written.
pub const PEER: &str = "NAME=LISTEN:HOST:PORT, then behind commas port=N, and who it is: reference=FILE, or author=KEY, family=ID, \
                        image=ID and min-svn=N; simulator=ROOT for one that is believed; waive=milan-chip-keys-can-be-extracted";
/// How `--guests` is written.
pub const GUESTS: &str = "PORT, then behind commas who they are: reference=FILE, or author=KEY, family=ID, image=ID and min-svn=N; \
                          simulator=ROOT for one that is believed; waive=milan-chip-keys-can-be-extracted";

/// The one waiver of the floor that guests are held to; a broker's has the same name.
const MILAN: &str = "milan-chip-keys-can-be-extracted";

/// A peer, before its files were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerWords {
    /// What it is called.
    pub name: Name,
    /// Loopback port inside.
    pub listen: u16,
    /// `host:port`.
    pub address: String,
    /// Port of its workload.
    pub port: u16,
    /// Who it is.
    pub guests: GuestWords,
}

/// Guests, before their files were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestWords {
    /// Outputs of `coffer measure --json`.
    pub references: Vec<PathBuf>,
    /// Who signed their launches.
    pub signed: Option<SignedWords>,
    /// Roots of simulators: a digest, or a file with the certificate.
    pub simulators: Vec<String>,
    /// Guests on Milan are believed, too.
    pub milan: bool,
}

/// An author and what it signed, before the key was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedWords {
    /// A digest, or a file with a public key.
    pub author: String,
    /// FAMILY_ID, as it was typed.
    pub family: String,
    /// IMAGE_ID, as it was typed.
    pub image: String,
    /// Least GUEST_SVN.
    pub min_svn: u32,
}

/// What `--peer` says.
///
/// # Errors
/// What is wrong with it.
pub fn peer(text: &str) -> Result<PeerWords, String> {
    let (name, rest) = text.split_once('=').ok_or("there is no = in it")?;
    if name.contains(':') {
        return Err("no NAME= stands before LISTEN:HOST:PORT".into());
    }
    let (place, wishes) = rest.split_once(',').ok_or("nothing says who it is")?;
    let (listen, address) = place.split_once(':').ok_or("no LISTEN:HOST:PORT stands behind the name")?;
    let (mut wishes, mut port) = (wishes.split(',').collect::<Vec<_>>(), None);
    if let Some(at) = wishes.iter().position(|wish| wish.starts_with("port=")) {
        port = Some(number("port", &wishes.remove(at)["port=".len()..])?);
    }
    let there = address.rsplit_once(':').ok_or("the address has no port")?.1;
    Ok(PeerWords {
        name: name.parse().map_err(told)?,
        listen: number("LISTEN", listen)?,
        address: address.to_owned(),
        port: port.map_or_else(|| number("PORT", there), Ok)?,
        guests: guest_words(&wishes)?,
    })
}

/// What `--guests` says: the guests that alone may come to a port.
///
/// # Errors
/// What is wrong with it.
pub fn guests(text: &str) -> Result<(u16, GuestWords), String> {
    let (port, wishes) = text.split_once(',').ok_or("nothing says who they are")?;
    Ok((number("PORT", port)?, guest_words(&wishes.split(',').collect::<Vec<_>>())?))
}

fn guest_words(wishes: &[&str]) -> Result<GuestWords, String> {
    let mut words = GuestWords::default();
    let [mut author, mut family, mut image, mut min_svn] = [None; 4];
    for wish in wishes {
        let (key, value) = wish.split_once('=').ok_or_else(|| format!("{wish:?} is nothing it can do"))?;
        let once = match key {
            "reference" => {
                words.references.push(value.into());
                continue;
            }
            "simulator" => {
                words.simulators.push(value.to_owned());
                continue;
            }
            "waive" if value == MILAN => {
                words.milan = true;
                continue;
            }
            "waive" => return Err(format!("waive={value:?}: {MILAN} is all that can be waived")),
            "author" => &mut author,
            "family" => &mut family,
            "image" => &mut image,
            "min-svn" => &mut min_svn,
            _ => return Err(format!("{wish:?} is nothing it can do")),
        };
        if once.replace(value).is_some() {
            return Err(format!("{key} stands there twice"));
        }
    }
    words.signed = match (author, family, image, min_svn) {
        (None, None, None, None) => None,
        (Some(author), Some(family), Some(image), Some(min_svn)) => Some(SignedWords {
            author: author.to_owned(),
            family: family.to_owned(),
            image: image.to_owned(),
            min_svn: number("min-svn", min_svn)?,
        }),
        // What is left out would be any.
        _ => return Err("author, family, image and min-svn belong together".into()),
    };
    if words.references.is_empty() && words.signed.is_none() {
        return Err("nothing says who it is: reference=FILE, or author, family, image and min-svn".into());
    }
    Ok(words)
}

fn number<T: core::str::FromStr>(what: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{what} {text:?}: expected a number"))
}

/// Leaves a published port to these guests.
///
/// # Errors
/// No such port is published for clients of RA-TLS, or its guests were named before.
pub fn leave_to(ingress: &mut [Ingress], port: u16, guests: Guests) -> Result<(), String> {
    match ingress.iter_mut().find(|one| one.port == port) {
        Some(Ingress { clients: clients @ IngressClients::Anyone, .. }) => {
            *clients = IngressClients::Guests(guests);
            Ok(())
        }
        Some(Ingress { clients: IngressClients::Guests(_), .. }) => Err(format!("port {port} stands there twice")),
        _ => Err(format!("no --publish …:{port}/ra-tls leads to port {port}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNED: &str = "author=key.pem.pub,family=acme,image=db,min-svn=3";

    #[test]
    fn a_peer_has_a_place_on_both_sides_and_somebody_it_must_be() {
        let waives = |more: &str| peer(&format!("db=1:host:2,reference=a{more}")).unwrap().guests.milan;
        assert!(waives(",waive=milan-chip-keys-can-be-extracted") && !waives(""));
        let read = peer(&format!("db=5432:[::1]:8443,port=70,{SIGNED},simulator=ark.pem")).unwrap();
        assert_eq!((read.name.as_str(), read.listen, read.address.as_str(), read.port), ("db", 5432, "[::1]:8443", 70));
        assert_eq!(read.guests.simulators, ["ark.pem"]);
        assert_eq!(read.guests.signed.map(|signed| (signed.author, signed.min_svn)), Some(("key.pem.pub".into(), 3)));
        let read = peer("db=1:host:2,reference=a.json,reference=b.json").unwrap();
        assert_eq!((read.port, read.guests.references.len()), (2, 2));
    }

    #[test]
    fn what_is_left_out_is_never_anybody() {
        for (text, word) in [
            ("db", "no = in it"),
            ("db=1:host:2", "who it is"),
            ("db=1:host:2,port=3", "who it is"),
            ("db=1:host:2,reference=a,waive=tcb", "all that can be waived"),
            ("db=1:host:2,simulator=ark.pem", "who it is"),
            ("db=1:host:2,author=key.pem", "belong together"),
            ("db=1:host:2,reference=a,surprise=1", "nothing it can do"),
            ("db=1:host:2,reference=a,min-svn=1,min-svn=2", "twice"),
            ("db=x:host:2,reference=a", "expected a number"),
            ("db=1,reference=a", "LISTEN:HOST:PORT"),
            ("../x=1:host:2,reference=a", "name"),
        ] {
            let why = peer(text).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
        assert!(guests("80").is_err() && guests("x,reference=a").is_err());
    }

    #[test]
    fn only_a_port_that_is_published_for_anyone_is_left_to_guests() {
        let mut ingress = vec![Ingress { port: 80, clients: IngressClients::Anyone }];
        assert!(leave_to(&mut ingress, 81, Guests::default()).unwrap_err().contains("--publish"));
        leave_to(&mut ingress, 80, Guests::default()).unwrap();
        assert_eq!(ingress[0].clients, IngressClients::Guests(Guests::default()));
        assert!(leave_to(&mut ingress, 80, Guests::default()).unwrap_err().contains("twice"));
    }
}
