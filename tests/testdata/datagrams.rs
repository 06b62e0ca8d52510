//! Answers datagrams of UDP, or asks by them: `serve PORT`, `ask FROM-PORT ADDRESS:PORT`.

use std::{net::UdpSocket, time::Duration};

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[1..] {
        ["serve", port] => serve(port),
        ["ask", from, to] => println!("{}", ask(from, to).unwrap_or_else(|| "nothing".to_owned())),
        _ => panic!("{words:?}"),
    }
}

fn serve(port: &str) {
    let socket = UdpSocket::bind(format!("0.0.0.0:{port}")).unwrap();
    let mut bytes = [0; 65_536];
    loop {
        let (length, from) = socket.recv_from(&mut bytes).unwrap();
        let _ = socket.send_to(&[b"inside: ", &bytes[..length]].concat(), from);
    }
}

fn ask(from: &str, to: &str) -> Option<String> {
    let socket = UdpSocket::bind(format!("0.0.0.0:{from}")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket.send_to(b"asked", to).ok()?;
    let mut bytes = [0; 1024];
    let length = socket.recv(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
}
