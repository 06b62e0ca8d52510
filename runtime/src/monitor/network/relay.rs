//! Joins the monitor's socket and passt's, frame by frame, through the filter.
//!
//! Monitor and passt wait for each other: nothing of theirs is kept but one frame and what one read gave. A length that no frame has
//! ends it all, as there is no telling where the next frame begins; so does the end of either side. Frames of other boxes go
//! in between.

use std::io;
use std::sync::Arc;

use coffer_vmm::net::filter::Filter;
use coffer_vmm::net::{LONGEST, Refused, SHORTEST};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;

use super::exchange::Exchange;
use super::for_guest::ForGuest;

/// Bytes that are read, and written, in one go.
const BATCH: usize = 64 << 10;

/// Waits for the monitor and carries its frames, until one side ends. `to_guest`: what comes from elsewhere than from passt.
pub async fn run(listener: UnixListener, passt: UnixStream, exchange: Arc<Exchange>, to_guest: ForGuest) {
    let Ok((monitor, _)) = listener.accept().await else { return };
    let (from_monitor, to_monitor) = monitor.into_split();
    let (from_passt, to_passt) = passt.into_split();
    let (to_monitor, to_passt) = (Mutex::new(to_monitor), Mutex::new(to_passt));
    let inbound = |frame: &mut [u8]| exchange.inbound(frame).map(|()| true);
    // The end of one direction drops the others, and with them all sockets.
    tokio::select! {
        _ = carry(from_monitor, &to_passt, |frame| exchange.outbound(frame), |why| exchange.refused("the guest", why)) => {}
        _ = carry(from_passt, &to_monitor, inbound, |why| exchange.refused("passt", why)) => {}
        _ = deliver(to_guest, &to_monitor) => {}
    }
}

/// Carries frames that pass. `judge`: whether a frame goes there, as it then stands; false if it was seen to.
async fn carry(
    from: impl AsyncRead + Unpin,
    to: &Mutex<impl AsyncWrite + Unpin>,
    judge: impl Fn(&mut [u8]) -> Result<bool, Refused>,
    mut refused: impl FnMut(Refused),
) -> io::Result<()> {
    let mut from = BufReader::with_capacity(BATCH, from);
    let mut frame = Vec::with_capacity(LONGEST);
    let mut out = Vec::with_capacity(2 * BATCH);
    loop {
        read_frame(&mut from, &mut frame).await?;
        match judge(&mut frame) {
            Ok(true) => put_frame(&frame, &mut out),
            Ok(false) => {}
            Err(why) => refused(why),
        }
        // While more is here already, it goes along.
        if (from.buffer().is_empty() || out.len() >= BATCH) && !out.is_empty() {
            to.lock().await.write_all(&out).await?;
            out.clear();
        }
    }
}

/// Gives the guest what its port has for it.
async fn deliver(mut frames: ForGuest, to: &Mutex<impl AsyncWrite + Unpin>) -> io::Result<()> {
    let mut out = Vec::with_capacity(2 * BATCH);
    loop {
        let Some(frame) = frames.recv().await else { return std::future::pending().await };
        put_frame(&frame, &mut out);
        while out.len() < BATCH
            && let Some(frame) = frames.try_recv()
        {
            put_frame(&frame, &mut out);
        }
        to.lock().await.write_all(&out).await?;
        out.clear();
    }
}

async fn read_frame(from: &mut (impl AsyncRead + Unpin), frame: &mut Vec<u8>) -> io::Result<()> {
    let length = from.read_u32().await? as usize;
    if !(SHORTEST..=LONGEST).contains(&length) {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    frame.resize(length, 0);
    from.read_exact(frame).await.map(drop)
}

fn put_frame(frame: &[u8], out: &mut Vec<u8>) {
    out.extend((frame.len() as u32).to_be_bytes());
    out.extend(frame);
}

/// Asks passt who the gateway is, as the guest would, and waits for the answer.
///
/// # Errors
/// If it hangs up.
pub async fn first_answer(passt: &mut UnixStream, filter: &Filter) -> io::Result<()> {
    let question = [
        &[0xFF; 6][..],
        &filter.mac,
        // Who has this address? (RFC 826)
        &[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1],
        &filter.mac,
        &filter.address.octets(),
        &[0; 6],
        &filter.gateway.octets(),
    ]
    .concat();
    let mut out = Vec::new();
    put_frame(&question, &mut out);
    passt.write_all(&out).await?;
    read_frame(passt, &mut Vec::new()).await
}

#[cfg(test)]
mod tests {
    use super::super::exchange::Look;
    use super::super::for_guest::for_guest;
    use super::super::notes::Notes;
    use super::*;
    use crate::boxes::files;
    use coffer_vmm::net::datagrams::Datagrams;
    use coffer_vmm::net::switch::{Port, View};
    use std::net::Ipv4Addr;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn filter() -> Filter {
        let at = |last| Ipv4Addr::new(10, 0, 2, last);
        let (mask, datagrams) = (Ipv4Addr::new(255, 255, 255, 0), Datagrams::default());
        Filter { mac: MAC, address: at(15), mask, gateway: at(2), resolver: false, datagrams }
    }

    fn judge(frame: &mut [u8]) -> Result<bool, Refused> {
        filter().outbound(frame).map(|()| true)
    }

    /// A port like that of a box which is in no network.
    fn port() -> Port {
        Port { filter: filter(), dns: vec![], view: View::default() }
    }

    fn packet(to: [u8; 4], length: usize) -> Vec<u8> {
        let mut frame = [&[9; 6][..], &MAC, &[8, 0, 0x45, 0]].concat();
        frame.extend(((length - 14) as u16).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 2, 15]);
        frame.extend(to);
        frame.resize(length, 7);
        frame
    }

    fn framed(frame: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_frame(frame, &mut out);
        out
    }

    #[tokio::test]
    async fn frames_that_pass_arrive_in_order_whatever_pieces_they_come_in() {
        let (good, bad, long) =
            (packet([192, 0, 2, 1], 60), packet([127, 0, 0, 1], 60), packet([192, 0, 2, 2], LONGEST - 15));
        let all = [framed(&good), framed(&bad), framed(&long), framed(&good)].concat();
        let expected = [framed(&good), framed(&long), framed(&good)].concat();
        for piece in [1, 7, 4096, all.len()] {
            let (mut end, from) = tokio::io::duplex(200);
            let mut refused = Vec::new();
            let mut heard = Vec::new();
            let sent = all.clone();
            let send = tokio::spawn(async move {
                for piece in sent.chunks(piece) {
                    end.write_all(piece).await.unwrap();
                }
            });
            let to = Mutex::new(&mut heard);
            let _ = carry(from, &to, judge, |why| refused.push(why)).await;
            send.await.unwrap();
            assert!(heard == expected && refused == [Refused::Loopback], "{piece}");
        }
    }

    #[tokio::test]
    async fn a_length_of_no_frame_ends_it() {
        for length in [0, 13, LONGEST as u32 + 1, u32::MAX] {
            let bytes = [framed(&packet([192, 0, 2, 1], 60)), length.to_be_bytes().to_vec(), vec![0; 100]].concat();
            let mut heard = Vec::new();
            let ended = carry(&bytes[..], &Mutex::new(&mut heard), judge, |_| ()).await;
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::InvalidData, "{length}");
        }
    }

    #[tokio::test]
    async fn the_end_of_one_side_ends_the_other_and_each_refusal_is_noted_once() {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("net.sock")).unwrap();
        let (ours, mut passt) = UnixStream::pair().unwrap();
        let (sender, to_guest) = for_guest(1);
        let look: Look = Box::new(|_| Ok(Some(View { own_wire: true, ..View::default() })));
        let notes = Notes::of(folder.path());
        let exchange = Exchange::open(port(), look, folder.path().join("networks"), sender, notes).unwrap();
        let running = tokio::spawn(run(listener, ours, exchange, to_guest));
        let mut monitor = UnixStream::connect(folder.path().join("net.sock")).await.unwrap();
        let (good, bad) = (framed(&packet([192, 0, 2, 1], 60)), framed(&packet([169, 254, 169, 254], 60)));
        monitor.write_all(&[&bad[..], &bad, &good].concat()).await.unwrap();
        let mut heard = vec![0; good.len()];
        passt.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, good);
        drop(monitor);
        assert_eq!(passt.read(&mut heard).await.unwrap(), 0);
        running.await.unwrap();
        let log = std::fs::read_to_string(folder.path().join(files::SUPERVISOR_LOG)).unwrap();
        assert_eq!(log, "network: refused from the guest: a packet to a link-local address\n");
    }
}
