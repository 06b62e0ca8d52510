//! A server that pours: a connection that begins with `d` gets so many bytes, and one that begins with `u` gives as many and hears when
//! they are all there. For figures of how much a network carries. Needs nothing but libc.
//!
//! usage: `pour PORT BYTES`

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
};

fn serve(mut client: TcpStream, bytes: usize) -> std::io::Result<()> {
    let mut piece = vec![0; 64 << 10];
    let mut word = [0];
    client.read_exact(&mut word)?;
    let mut left = bytes;
    while left > 0 {
        let next = left.min(piece.len());
        if word == *b"d" {
            client.write_all(&piece[..next])?;
            left -= next;
        } else {
            match client.read(&mut piece[..next])? {
                0 => break,
                count => left -= count,
            }
        }
    }
    if word == *b"u" {
        client.write_all(b".")?;
    }
    Ok(())
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let number = |at: usize| words[at].parse::<usize>().expect("a number");
    let listener = TcpListener::bind(("0.0.0.0", number(1) as u16)).expect("a port");
    // Who carries its frames knows where it is once it has said something, to a port where nobody is.
    let told = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b".", "10.0.2.2:9"));
    println!("listening: {told:?}");
    for client in listener.incoming().flatten() {
        // Whoever hangs up is no reason to end.
        let _ = serve(client, number(2));
    }
}
