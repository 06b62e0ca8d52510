//! A client that has spoken already hears why it is turned away, over a socket that would take that word back.

mod common;

use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};

use coffer_ratls::{
    ClientRule, ConnectError, Identity, KeyShares, Load, Purpose, ServeLimits, ServerTls, Source, Sourced,
    connect_and_verify, serve_pinned_shared,
};
use common::Credulous;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_stream::{StreamExt as _, wrappers::TcpListenerStream};
use tonic::service::Routes;

const ROUNDS: usize = 60;
const PURPOSE: Purpose = Purpose::Ingress(80);

/// One source for everybody.
struct Line(TcpStream);

impl Sourced for Line {
    fn source(&self) -> Source {
        1
    }
}

mod line {
    //! A [`Line`](super::Line) is its stream.
    use std::{
        io,
        pin::Pin,
        task::{Context, Poll},
    };

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    impl AsyncRead for super::Line {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for super::Line {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }
}

/// A server of listed keys, each of which may have so many connections.
async fn server(listed: &Identity, each: usize) -> std::net::SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let tls = ServerTls::new(&Identity::generate("server").unwrap(), ClientRule::Spki(vec![listed.spki()]), PURPOSE);
    let incoming = TcpListenerStream::new(listener).map(|stream| stream.map(Line));
    let shares = (KeyShares { each, ..KeyShares::default() }, Load::default());
    let (limits, forever) = (ServeLimits::default(), std::future::pending());
    tokio::spawn(serve_pinned_shared(incoming, tls.unwrap(), Routes::default(), limits, shares, |_, _| (), forever));
    at
}

async fn refusal(at: std::net::SocketAddr, client: &Identity) -> ConnectError {
    let stream = TcpStream::connect(at).await.unwrap();
    let connected = connect_and_verify(stream, client, PURPOSE, Arc::new(Credulous::default()));
    let Err(error) = timeout(Duration::from_secs(20), connected).await.unwrap() else { panic!("it got in") };
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_none_of_the_listed_ones_hears_that_it_is_not_taken() {
    let at = server(&Identity::generate("listed").unwrap(), 1).await;
    let other = Identity::generate("other").unwrap();
    for round in 0..ROUNDS {
        let error = refusal(at, &other).await;
        assert!(matches!(error, ConnectError::KeyNotTaken(_)), "{round}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_for_which_there_is_no_place_hears_that() {
    let listed = Identity::generate("listed").unwrap();
    let at = server(&listed, 0).await;
    for round in 0..ROUNDS {
        let error = refusal(at, &listed).await;
        assert!(matches!(error, ConnectError::NoPlace), "{round}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_gone_behind_the_handshake_has_hung_up() {
    let listed = Identity::generate("listed").unwrap();
    let at = server(&listed, 1).await;
    // Between the two stands one that lets the server's half of the handshake through, and then resets.
    let between = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let here = between.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = between.accept().await {
            let mut server = TcpStream::connect(at).await.unwrap();
            let handshake = async {
                let mut bytes = vec![0; 16 << 10];
                let hello = client.read(&mut bytes).await?;
                server.write_all(&bytes[..hello]).await?;
                let flight = server.read(&mut bytes).await?;
                client.write_all(&bytes[..flight]).await?;
                // Until it has said who it is.
                let _ = client.read(&mut bytes).await?;
                client.set_zero_linger()?;
                io::Result::Ok(())
            };
            handshake.await.unwrap();
        }
    });
    let error = refusal(here, &listed).await;
    assert!(matches!(error, ConnectError::HungUp(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_turned_away_and_stays_is_hung_up_on() {
    let at = server(&Identity::generate("listed").unwrap(), 1).await;
    let mut stream = TcpStream::connect(at).await.unwrap();
    // No client's hello: what follows is read and thrown away, and not for long.
    stream.write_all(&[0x16, 3, 1, 0, 4, 1, 0, 0, 0]).await.unwrap();
    let ended = async {
        let mut bytes = [0; 1024];
        loop {
            match stream.read(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };
    timeout(Duration::from_secs(20), ended).await.expect("it was kept");
}
