//! What a guest opens towards the host: events, the simulated processor, the relay to its key broker, the
//! certificates of the host's chip. And what clients open towards a guest, on published ports.
//!
//! Trusts: nothing the guest sends. Each line has limits of length and number, so that a guest can only hurt itself.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coffer_guest_proto::event::EventReader;
use coffer_guest_proto::{Event, Phase};
use coffer_verifier::abi::message::{REQUEST_FRAME, decode_request};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
    copy_buf, sink,
};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_io_timeout::TimeoutStream;

use crate::monitor::vsock;
use crate::simulator::Answerer;

/// A guest has ten phases. One that talks without end would keep its supervisor from everything else.
const MOST_EVENTS: usize = 256;

/// Reads events of the first connection; later ones are refused, so that nothing inside can speak over the agent. Behind the
/// last word it hangs up, for which the guest waits.
pub async fn events(listener: UnixListener, events: mpsc::Sender<Event>) {
    let Ok((mut line, _)) = listener.accept().await else { return };
    drop(listener);
    let mut reader = EventReader::default();
    let mut left = MOST_EVENTS;
    let mut bytes = [0; 4096];
    loop {
        match line.read(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(count) => reader.push(&bytes[..count]),
        }
        loop {
            match reader.next_event() {
                Ok(Some(_)) if left == 0 => {
                    tracing::warn!("the guest tells more events than a guest has");
                    return;
                }
                Ok(Some(event)) => {
                    left -= 1;
                    let last = matches!(event.phase(), Phase::Exited | Phase::Failed);
                    if events.send(event).await.is_err() || last {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "guest events are unreadable");
                    return;
                }
            }
        }
    }
}

/// Answers message pages, one guest line at a time.
pub async fn processor(listener: UnixListener, answerer: Answerer) {
    let answerer = Arc::new(Mutex::new(answerer));
    while let Ok((line, _)) = listener.accept().await {
        if let Err(error) = processor_line(line, &answerer).await {
            tracing::debug!(%error, "line to the simulated processor ended");
        }
    }
}

async fn processor_line(mut line: UnixStream, answerer: &Arc<Mutex<Answerer>>) -> std::io::Result<()> {
    let mut frame = Box::new([0; REQUEST_FRAME]);
    loop {
        line.read_exact(frame.as_mut_slice()).await?;
        let (kind, page) = decode_request(&frame).map_err(std::io::Error::other)?;
        let (page, answerer) = (Box::new(*page), Arc::clone(answerer));
        // Signing takes milliseconds: events and the console go on meanwhile.
        let answer = tokio::task::spawn_blocking(move || {
            let mut answerer = answerer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            answerer(kind, &page)
        });
        let answer = answer.await.map_err(std::io::Error::other)?;
        line.write_all(&answer.to_bytes()).await?;
    }
}

/// How long a guest may take to read what it asked for.
const HAND_OUT: Duration = Duration::from_secs(10);
/// More certificate bytes than any guest takes.
const CERTIFICATES: u64 = 64 << 10;

/// Hands out a file to whoever asks, one guest line at a time: as it is then, or nothing where there is none.
pub async fn certificates(listener: UnixListener, file: PathBuf) {
    while let Ok((mut line, _)) = listener.accept().await {
        let mut bytes = Vec::new();
        if let Ok(open) = tokio::fs::File::open(&file).await {
            let _ = open.take(CERTIFICATES).read_to_end(&mut bytes).await;
        }
        let _ = tokio::time::timeout(HAND_OUT, line.write_all(&bytes)).await;
    }
}

/// Connections to one published port at once.
const CLIENTS: usize = 256;
/// What is copied at a time.
const PIECE: usize = 64 << 10;

/// Leads clients of a port of the host to one of the agent's; it sees TLS and nothing else. `paused`: nobody is led to a
/// guest that is, which would not answer.
pub async fn ingress(listener: TcpListener, folder: PathBuf, port: u32, paused: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // Out of descriptors, or the like: give it time, and go on.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let (folder, mut paused) = (folder.clone(), paused.clone());
        tokio::spawn(async move {
            let _ = client.set_nodelay(true);
            let place = Arc::new(permit);
            let connected = async {
                paused.wait_for(|paused| !paused).await.ok()?;
                // A guest that does not answer keeps the place that its client had.
                vsock::make(&folder, port, Arc::clone(&place)).await.ok()
            };
            if let Ok(Some(guest)) = tokio::time::timeout(CONNECT_PATIENCE, connected).await {
                lead(client, guest, PATIENCE).await;
            }
            drop(place);
        });
    }
}

/// Copies both ways until the guest has said all it says, and its client has had a moment to hear it. A guest that hung up, because
/// the client's time or place is gone, does not leave it here with the place it has on the host.
async fn lead<C, G>(client: C, guest: G, patience: Patience)
where
    C: AsyncRead + AsyncWrite,
    G: AsyncRead + AsyncWrite,
{
    let mut client = TimeoutStream::new(client);
    client.set_write_timeout(Some(patience.reading));
    let (from_client, mut to_client) = tokio::io::split(Box::pin(client));
    let (from_guest, mut to_guest) = tokio::io::split(Box::pin(guest));
    let (mut from_client, mut from_guest) =
        (BufReader::with_capacity(PIECE, from_client), BufReader::with_capacity(PIECE, from_guest));
    let mut there = pin!(hand_on(&mut from_client, &mut to_guest));
    // What the guest said before its line broke is still handed on.
    let mut back = pin!(async {
        let _ = copy_buf(&mut from_guest, &mut to_client).await;
        let _ = to_client.shutdown().await;
    });
    tokio::select! {
        handed = &mut there => if handed.is_ok() { back.await },
        () = &mut back => drop(tokio::time::timeout(patience.parting, there).await),
    }
}

/// All that a client says, to its end; what its guest does not take any more is read all the same: what is left unread when a socket
/// closes takes along what its peer has not read yet.
///
/// # Errors
/// The client's line broke: it takes nothing more either, and the guest is to hear of it, who may have nothing to say.
async fn hand_on(from: &mut (impl AsyncBufRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    loop {
        let bytes = from.fill_buf().await?;
        if bytes.is_empty() {
            let _ = to.shutdown().await;
            return Ok(());
        }
        if to.write_all(bytes).await.is_err() {
            return copy_buf(from, &mut sink()).await.map(drop);
        }
        let taken = bytes.len();
        from.consume(taken);
    }
}

/// How long a client of a published port may do nothing.
#[derive(Clone, Copy)]
struct Patience {
    /// To read of what is there for it. HTTP/2 reads always.
    reading: Duration,
    /// To hang up once its guest has.
    parting: Duration,
}

const PATIENCE: Patience = Patience { reading: Duration::from_mins(1), parting: Duration::from_secs(2) };

const PAUSE: Duration = Duration::from_millis(100);

/// Why an address of the spec was last not reached.
pub type RelayFailure = Arc<Mutex<Option<String>>>;

const RELAYS: usize = 16;
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// Copies bytes between the guest and the one address its spec names; it sees TLS and nothing else.
pub async fn relay(listener: UnixListener, address: String, failure: RelayFailure) {
    let room = Arc::new(Semaphore::new(RELAYS));
    while let Ok((guest, _)) = listener.accept().await {
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            let full = format!("{RELAYS} connections to {address} are open already");
            tracing::warn!(address, "a connection of the guest's was not led on: {RELAYS} are open already");
            *failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(full);
            continue;
        };
        let (address, failure) = (address.clone(), Arc::clone(&failure));
        tokio::spawn(async move {
            if let Err(error) = relay_line(guest, &address, PATIENCE).await {
                tracing::warn!(%error, address, "relay failed");
                *failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error.to_string());
            }
            drop(permit);
        });
    }
}

async fn relay_line(guest: UnixStream, address: &str, patience: Patience) -> std::io::Result<()> {
    let connected = tokio::time::timeout(CONNECT_PATIENCE, TcpStream::connect(address)).await;
    let broker = connected.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    broker.set_nodelay(true)?;
    // A broken line after this is the guest's or the broker's business; both notice. Who keeps a line that the guest has hung up on does
    // not keep the place of it: there are few, and honest ones need them.
    lead(broker, guest, patience).await;
    Ok(())
}

#[cfg(test)]
mod tests;
