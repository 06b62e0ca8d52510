//! The last word to a peer that is turned away: that it arrives.
//!
//! A client of TLS 1.3 may have spoken before it was looked at. A socket that is closed with bytes nobody read takes back what was
//! written to it, and the client would never learn why.
//! Trusts: nothing. Never: keeps what comes, or reads it for longer than a moment.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// How long whoever is turned away may take to hang up.
const MOMENT: Duration = Duration::from_secs(1);
/// Bytes that it had said: HTTP/2's beginning and a challenge are far less.
const SAID: u64 = 64 << 10;

/// Ends what is written to `io`, and reads what the peer had said until it hangs up.
pub(crate) async fn arrives<IO: AsyncRead + AsyncWrite + Unpin>(mut io: IO) {
    let all = async {
        io.shutdown().await?;
        tokio::io::copy(&mut io.take(SAID), &mut tokio::io::sink()).await
    };
    // It hears it or not: there is nobody to tell.
    let _ = tokio::time::timeout(MOMENT, all).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn what_was_said_meanwhile_is_taken_and_the_end_is_heard() {
        let (near, mut far) = duplex(64);
        let turned_away = tokio::spawn(arrives(near));
        far.write_all(&[7; 16 << 10]).await.expect("it is read");
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.unwrap();
        drop(far);
        turned_away.await.unwrap();
        assert!(heard.is_empty());
    }

    #[tokio::test]
    async fn whoever_goes_on_talking_or_stays_is_left() {
        let (near, mut far) = duplex(64);
        let turned_away = tokio::spawn(arrives(near));
        let talked = far.write_all(&vec![7; 2 * SAID as usize]).await;
        talked.expect_err("all of it was read");
        turned_away.await.unwrap();
        let (near, _far) = duplex(64);
        let left = tokio::time::timeout(MOMENT * 20, arrives(near)).await;
        left.expect("it is waited for");
    }
}
