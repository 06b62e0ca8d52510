//! A socket for operators on this machine: the admin API without network, TLS or key, for one configured role.
//!
//! Whoever runs the broker's machine can reach it when the network, or somebody on it, keeps every other listener busy. The kernel
//! says who calls (SO_PEERCRED). Trusts: the kernel; root and the broker's own user, who can read its root key anyway. Never: is
//! there without `[admin_socket]` in the configuration, lets another user in, lets anybody do more than its role.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use coffer_rim::private_socket::{self, SocketFile};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tonic::transport::server::Connected;

use crate::{
    roles::{Grant, Role},
    tenant::Tenant,
};

/// `[admin_socket]` of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminSocketEntry {
    /// `owner`, `policy-author`, `operator` or `auditor`. One that is left out is refused with what it means.
    #[serde(default)]
    pub role: String,
    /// Of this tenant; left out: of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

impl AdminSocketEntry {
    /// What it means.
    pub(crate) fn grant(&self, mistakes: &mut Vec<String>) -> Option<Grant> {
        let role = self.role.parse::<Role>();
        let tenant = self.tenant.as_deref().map(Tenant::parse).transpose();
        if let Err(error) = &role {
            mistakes.push(format!("admin_socket.role is {:?}: {error}", self.role));
        }
        if let Err(error) = &tenant {
            mistakes.push(format!("admin_socket.tenant: {error}"));
        }
        Some(Grant { role: role.ok()?, tenant: tenant.ok()? })
    }
}

/// Who called over the socket, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalPeer {
    /// Its user.
    pub uid: u32,
}

/// Where the socket of a state folder is.
pub fn admin_socket_path(state: &Path) -> PathBuf {
    state.join(FOLDER).join(NAME)
}

/// The socket, which goes when this does.
pub struct AdminSocket {
    listener: UnixListener,
    /// The broker's own user.
    user: u32,
    _file: SocketFile,
}

impl AdminSocket {
    /// Opens it, in a folder that only the broker's user enters. One that a broker before this one left is replaced: there is one
    /// broker at a time in a state folder.
    ///
    /// # Errors
    /// As the system says.
    pub fn bind(state: &Path) -> io::Result<Self> {
        let (listener, file) = private_socket::bind(&state.join(FOLDER), NAME)?;
        let user = rustix::process::geteuid().as_raw();
        Ok(Self { listener: UnixListener::from_std(listener)?, user, _file: file })
    }

    /// Hands over whom it lets in, until nobody takes them any more.
    pub(crate) async fn accept(self, ready: mpsc::Sender<LocalStream>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = ready.closed() => return,
            };
            let admitted = match accepted {
                Ok((stream, _)) => self.admit(stream, &places),
                Err(error) => {
                    // Out of file descriptors, or the like: give it time, and go on.
                    tracing::warn!(%error, "a local connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    None
                }
            };
            if let Some(stream) = admitted {
                let _ = ready.send(stream).await;
            }
        }
    }

    fn admit(&self, stream: UnixStream, places: &Arc<Semaphore>) -> Option<LocalStream> {
        // Nobody without a name.
        let uid = stream.peer_cred().ok()?.uid();
        if uid != 0 && uid != self.user {
            tracing::warn!(uid, "a user who may not was refused at the local admin socket");
            return None;
        }
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(uid, "all {CONNECTIONS} local admin connections are taken: one was closed");
            return None;
        };
        Some(LocalStream { stream, peer: LocalPeer { uid }, _place: place })
    }
}

/// A connection that was let in.
pub(crate) struct LocalStream {
    stream: UnixStream,
    peer: LocalPeer,
    _place: OwnedSemaphorePermit,
}

impl Connected for LocalStream {
    type ConnectInfo = LocalPeer;

    fn connect_info(&self) -> LocalPeer {
        self.peer
    }
}

impl AsyncRead for LocalStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Folder of the socket, in the state folder.
const FOLDER: &str = "local";
const NAME: &str = "kbs.sock";
/// Connections at once.
const CONNECTIONS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn only_its_own_socket_goes_with_it_and_nothing_else_is_replaced() {
        let state = tempfile::tempdir().unwrap();
        let path = admin_socket_path(state.path());
        let first = AdminSocket::bind(state.path()).unwrap();
        // Where the first one's is gone, a broker that comes later puts its own there, while the first one's file still has its number.
        let kept = state.path().join("kept");
        fs::hard_link(&path, &kept).unwrap();
        assert_eq!(AdminSocket::bind(state.path()).err().unwrap().kind(), io::ErrorKind::AddrInUse, "it listens");
        fs::remove_file(&path).unwrap();
        let second = AdminSocket::bind(state.path()).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());

        fs::write(&path, "somebody's").unwrap();
        assert_eq!(AdminSocket::bind(state.path()).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&kept, &path).unwrap();
        assert!(AdminSocket::bind(state.path()).is_err() && kept.exists());
        fs::remove_dir_all(state.path().join(FOLDER)).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), state.path().join(FOLDER)).unwrap();
        assert!(AdminSocket::bind(state.path()).is_err(), "not through a link");
    }
}
