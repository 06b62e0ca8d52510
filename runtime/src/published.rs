//! Ports of the host that lead to a box that runs: held by its supervisor, and noted in its folder for whoever asks.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use coffer_rim::{Class, Classify as _, Failure};

use crate::boxes::files;
use crate::publish::{How, Publish};

/// A port of the host's, held until whoever it is for has it.
#[derive(Debug)]
pub enum Held {
    /// Of connections.
    Stream(TcpListener),
    /// Of datagrams.
    Datagrams(UdpSocket),
}

impl Held {
    /// Takes it, if nobody has it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn take(at: SocketAddr, how: How) -> io::Result<Self> {
        match how {
            How::Udp => UdpSocket::bind(at).map(Self::Datagrams),
            How::Tcp | How::RaTls | How::Tls | How::Owners => TcpListener::bind(at).map(Self::Stream),
        }
    }

    fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Stream(listener) => listener.local_addr(),
            Self::Datagrams(socket) => socket.local_addr(),
        }
    }
}

/// Listens on every port, and notes in the box's folder which they became.
///
/// # Errors
/// Class `config`, naming the port that is taken; none of them is held then.
pub fn listen(folder: &Path, all: &[Publish]) -> Result<Vec<(Publish, Held)>, Failure> {
    let mut listening = Vec::with_capacity(all.len());
    for publish @ Publish { host, how, .. } in all {
        let what = || format!("cannot listen on {host} for {} of the box", publish.what());
        let held = Held::take(*host, *how).class_while(Class::Config, what())?;
        listening.push((Publish { host: held.address()?, ..*publish }, held));
    }
    if !listening.is_empty() {
        let ports: Vec<_> = listening.iter().map(|(publish, _)| publish).collect();
        let text = serde_json::to_vec(&ports).class(Class::Internal)?;
        coffer_rim::file::write_private(&folder.join(files::PORTS), &text)
            .class_while(Class::Config, "cannot note the box's ports")?;
    }
    Ok(listening)
}

/// The ports of a box that runs, as they were noted.
///
/// # Errors
/// Class `config` if the note cannot be read.
pub fn listening(folder: &Path) -> Result<Vec<Publish>, Failure> {
    let path = folder.join(files::PORTS);
    let what = || "the note of the box's ports is not readable";
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).class_while(Class::Config, what()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).class_while(Class::Config, what()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_and_a_free_one_noted() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(listening(folder.path()).unwrap(), []);
        let any = crate::publish::tests::one("127.0.0.1:0:8080/ra-tls");
        let held = listen(folder.path(), &[any]).unwrap();
        let noted = listening(folder.path()).unwrap();
        assert_eq!(noted, [held[0].0]);
        assert_ne!(noted[0].host.port(), 0);
        let failure = listen(folder.path(), &[any, noted[0]]).unwrap_err();
        assert_eq!(failure.class, Class::Config);
        assert!(failure.to_string().contains(&noted[0].host.to_string()), "{failure}");
        // Datagrams have ports of their own.
        let any = crate::publish::tests::one("127.0.0.1:0:53/udp");
        let held = listen(folder.path(), &[any, Publish { host: noted[0].host, ..any }]).unwrap();
        assert!(matches!(held[..], [(_, Held::Datagrams(_)), (_, Held::Datagrams(_))]));
        assert!(listen(folder.path(), &[held[0].0]).unwrap_err().to_string().contains("cannot listen on"));
        assert!(Held::take(held[0].0.host, How::Tcp).is_ok());
    }
}
