use super::*;
use crate::socket::{bind_socket, connect_socket};
use coffer_guest_proto::{Phase, event};
use coffer_verifier::abi::message::{ANSWER_HEAD, KIND_EXTENDED, LineAnswer, MESSAGE_PAGE, encode_request};
use tokio::io::duplex;

fn event_of(phase: Phase) -> Event {
    Event { phase: phase.into(), since_boot_us: 1, ..Event::default() }
}

#[tokio::test]
async fn only_the_first_line_tells_events() {
    let dir = tempfile::tempdir().unwrap();
    let listener = bind_socket(dir.path(), "s").unwrap();
    let (send, mut receive) = mpsc::channel(8);
    tokio::spawn(events(listener, send));
    let mut first = connect_socket(dir.path(), "s").unwrap();
    first.write_all(&event::encode(&event_of(Phase::Booted))).await.unwrap();
    assert_eq!(receive.recv().await.unwrap().phase, i32::from(Phase::Booted));
    if let Ok(mut second) = connect_socket(dir.path(), "s") {
        let _ = second.write_all(&event::encode(&event_of(Phase::Exited))).await;
    }
    first.write_all(&event::encode(&event_of(Phase::Running))).await.unwrap();
    assert_eq!(receive.recv().await.unwrap().phase, i32::from(Phase::Running));
    first.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    assert!(receive.recv().await.is_none());
}

#[tokio::test]
async fn a_guest_that_talks_without_end_is_not_listened_to() {
    let dir = tempfile::tempdir().unwrap();
    let (send, mut receive) = mpsc::channel(8);
    tokio::spawn(events(bind_socket(dir.path(), "s").unwrap(), send));
    let mut line = connect_socket(dir.path(), "s").unwrap();
    tokio::spawn(async move { while line.write_all(&event::encode(&event_of(Phase::Booted))).await.is_ok() {} });
    let mut heard = 0;
    while receive.recv().await.is_some() {
        heard += 1;
    }
    assert_eq!(heard, MOST_EVENTS);
}

#[tokio::test]
async fn behind_a_last_word_the_host_hangs_up() {
    for last in [Phase::Exited, Phase::Failed] {
        let dir = tempfile::tempdir().unwrap();
        let (send, mut receive) = mpsc::channel(8);
        let listening = tokio::spawn(events(bind_socket(dir.path(), "s").unwrap(), send));
        let mut line = connect_socket(dir.path(), "s").unwrap();
        for phase in [Phase::Booted, last] {
            line.write_all(&event::encode(&event_of(phase))).await.unwrap();
            assert_eq!(receive.recv().await.unwrap().phase, i32::from(phase));
        }
        assert_eq!(line.read(&mut [0]).await.unwrap(), 0);
        listening.await.unwrap();
    }
}

#[tokio::test]
async fn answers_pages_in_turn_and_hangs_up_on_unknown_kinds() {
    let dir = tempfile::tempdir().unwrap();
    let listener = bind_socket(dir.path(), "s").unwrap();
    let mut count = 0;
    let answerer: Answerer = Box::new(move |kind, page| {
        count += 1;
        LineAnswer { exitinfo2: count, page: Box::new(*page), cert_table: vec![kind; 3] }
    });
    tokio::spawn(processor(listener, answerer));
    let mut line = connect_socket(dir.path(), "s").unwrap();
    for round in 1..3 {
        line.write_all(&encode_request(KIND_EXTENDED, &[7; MESSAGE_PAGE])).await.unwrap();
        let mut head = [0; ANSWER_HEAD];
        line.read_exact(&mut head).await.unwrap();
        let (answer, table) = LineAnswer::parse_head(&head).unwrap();
        assert_eq!((answer.exitinfo2, answer.page[9], table), (round, 7, 3));
        line.read_exact(&mut [0; 3]).await.unwrap();
    }
    line.write_all(&encode_request(9, &[0; MESSAGE_PAGE])).await.unwrap();
    assert_eq!(line.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn the_relay_copies_bytes_and_remembers_why_it_could_not() {
    let dir = tempfile::tempdir().unwrap();
    let broker = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = broker.local_addr().unwrap().to_string();
    let failure = RelayFailure::default();
    tokio::spawn(relay(bind_socket(dir.path(), "s").unwrap(), address.clone(), Arc::clone(&failure)));
    let mut guest = connect_socket(dir.path(), "s").unwrap();
    guest.write_all(b"ping").await.unwrap();
    let (mut server, _) = broker.accept().await.unwrap();
    let mut bytes = [0; 4];
    server.read_exact(&mut bytes).await.unwrap();
    server.write_all(b"pong").await.unwrap();
    guest.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"pong");
    assert_eq!(*failure.lock().unwrap(), None);

    drop((broker, server));
    let mut guest = connect_socket(dir.path(), "s").unwrap();
    assert_eq!(guest.read(&mut bytes).await.unwrap(), 0);
    assert!(failure.lock().unwrap().as_ref().unwrap().contains("refused"));
}

#[tokio::test]
async fn a_client_whose_line_breaks_is_heard_of_by_a_guest_that_has_nothing_to_say() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (here, _) = listener.accept().await.unwrap();
    let (guest, mut inside) = UnixStream::pair().unwrap();
    let leading = tokio::spawn(lead(here, guest, PATIENCE));
    client.write_all(b"asks").await.unwrap();
    inside.read_exact(&mut [0; 4]).await.unwrap();
    client.set_zero_linger().unwrap();
    drop(client);
    // It never closes its own side.
    let heard = tokio::time::timeout(LONG, inside.read(&mut [0])).await.expect("the guest does not hear of it");
    assert_eq!(heard.unwrap_or(0), 0);
    tokio::time::timeout(LONG, leading).await.expect("its place is kept").unwrap();
}

#[tokio::test]
async fn who_keeps_a_line_that_the_guest_hung_up_on_does_not_keep_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let broker = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = broker.local_addr().unwrap().to_string();
    let failure = RelayFailure::default();
    tokio::spawn(relay(bind_socket(dir.path(), "s").unwrap(), address, Arc::clone(&failure)));
    let mut kept = Vec::new();
    for _ in 0..RELAYS {
        let mut guest = connect_socket(dir.path(), "s").unwrap();
        guest.write_all(b"x").await.unwrap();
        let (mut server, _) = broker.accept().await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
        kept.push(server);
    }
    // All guests have hung up, all brokers hold on: there is room again all the same.
    let come_through = async {
        loop {
            let mut guest = connect_socket(dir.path(), "s").unwrap();
            let _ = guest.write_all(b"y").await;
            tokio::select! {
                accepted = broker.accept() => return accepted.unwrap(),
                () = tokio::time::sleep(BRIEF.parting) => {}
            }
        }
    };
    let (mut server, _) = tokio::time::timeout(LONG, come_through).await.expect("there is no room any more");
    let mut byte = [0];
    server.read_exact(&mut byte).await.unwrap();
    assert_eq!(&byte, b"y");
    assert!(failure.lock().unwrap().as_ref().unwrap().contains("are open already"));
}

#[tokio::test]
async fn certificates_are_handed_out_as_they_are_then_and_a_host_without_hands_out_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("certificates.bin");
    tokio::spawn(certificates(bind_socket(dir.path(), "s").unwrap(), file.clone()));
    for bytes in [&b""[..], b"first", b"renewed"] {
        if !bytes.is_empty() {
            std::fs::write(&file, bytes).unwrap();
        }
        let mut all = Vec::new();
        connect_socket(dir.path(), "s").unwrap().read_to_end(&mut all).await.unwrap();
        assert_eq!(all, bytes);
    }
}

const BRIEF: Patience = Patience { reading: Duration::from_millis(100), parting: Duration::from_millis(100) };
const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_silent_client_goes_when_the_guest_has_hung_up() {
    let (mut client, far_client) = duplex(64);
    let (mut guest, far_guest) = duplex(64);
    let led = tokio::spawn(lead(far_client, far_guest, BRIEF));
    guest.write_all(b"last words").await.unwrap();
    drop(guest);
    let mut said = Vec::new();
    client.read_to_end(&mut said).await.unwrap();
    assert_eq!(said, b"last words");
    // It says nothing and does not hang up.
    tokio::time::timeout(LONG, led).await.expect("the place is held by a client whose guest is gone").unwrap();
}

#[tokio::test]
async fn a_client_that_reads_nothing_goes_and_one_that_has_ended_hears_the_answer() {
    let (_client, far_client) = duplex(64);
    let (mut guest, far_guest) = duplex(64);
    let led = tokio::spawn(lead(far_client, far_guest, BRIEF));
    let talks = tokio::spawn(async move { while guest.write_all(&[7; 64]).await.is_ok() {} });
    tokio::time::timeout(LONG, led).await.expect("held by a client that reads nothing").unwrap();
    talks.await.unwrap();

    let (mut client, far_client) = duplex(64);
    let (mut guest, far_guest) = duplex(64);
    tokio::spawn(lead(far_client, far_guest, BRIEF));
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut asked = Vec::new();
    guest.read_to_end(&mut asked).await.unwrap();
    assert_eq!(asked, b"question");
    tokio::time::sleep(5 * BRIEF.parting).await;
    guest.write_all(b"answer").await.unwrap();
    drop(guest);
    let mut said = Vec::new();
    client.read_to_end(&mut said).await.unwrap();
    assert_eq!(said, b"answer");
}

#[tokio::test]
async fn nobody_is_led_to_a_guest_that_is_paused() {
    let dir = tempfile::tempdir().unwrap();
    let device = bind_socket(dir.path(), crate::boxes::files::VSOCK).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap();
    let (paused, seen) = watch::channel(true);
    tokio::spawn(ingress(listener, dir.path().to_owned(), 80, seen));
    let mut client = TcpStream::connect(port).await.unwrap();
    let led = tokio::time::timeout(Duration::from_millis(200), device.accept()).await;
    assert!(led.is_err(), "while it is paused");
    paused.send_replace(false);
    let (mut line, _) = device.accept().await.unwrap();
    let mut byte = [0];
    while byte != *b"\n" {
        line.read_exact(&mut byte).await.unwrap();
    }
    line.write_all(b"OK 1\nhello").await.unwrap();
    let mut said = [0; 5];
    client.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"hello");
}
