//! A workload that asks its agent for everything, and says what came of it.

#[path = "../../guest/clients/coffer_agent.rs"]
mod coffer_agent;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use coffer_agent::{Agent, Error};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a route of Confidential Containers answers, head and all on one line.
fn loopback(target: &str) -> String {
    let mut stream = TcpStream::connect("127.0.0.1:8006").expect("the spec has that door");
    write!(stream, "GET {target} HTTP/1.1\r\nHost: 127.0.0.1:8006\r\nConnection: close\r\n\r\n").expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.replace("\r\n", " ")
}

fn main() {
    let agent = Agent::default();
    let secret = agent.secret("demo/app/key", None).expect("the secret");
    println!("secret {} {}", secret.version, String::from_utf8(secret.value).expect("text"));
    match agent.secret("demo/app/none", None) {
        Err(Error::Refused { status, word, text }) => println!("refused {status} {word} {}", text.trim()),
        _ => println!("not refused"),
    }
    let sealed = agent.seal(b"state", "db", None).expect("sealed");
    println!("opened {}", agent.unseal(&sealed, "db").expect("opened") == b"state");
    println!("resealed {}", agent.unseal(&agent.reseal(&sealed, "db", None).expect("resealed"), "db").is_ok());
    let other = agent.unseal(&sealed, "other").err().map(|error| error.to_string());
    println!("elsewhere {}", other.unwrap_or_default());
    println!("sealed {}", hex(&sealed));
    println!("evidence {}", hex(&agent.evidence(b"a nonce").expect("evidence")));
    let counted = |data: &[u8], replaces| agent.seal_counted(data, "counted", "workload", replaces);
    let first = counted(b"first", None).expect("the first of its line");
    let second = counted(b"second", Some(&first)).expect("the second");
    println!("counted {}", agent.unseal(&second, "counted").expect("opened") == b"second");
    let why = |result: Result<Vec<u8>, Error>| result.err().map(|error| error.to_string()).unwrap_or_default();
    println!("older {}", why(agent.unseal(&first, "counted")));
    println!("rival {}", why(counted(b"rival", Some(&first))));
    println!("kept {}", agent.unseal(&second, "counted").is_ok());
    println!("uncounted {}", why(agent.seal_counted(b"state", "db", "measurement-and-chip", None)));
    println!("loopback {}", loopback("/cdh/resource/demo/app/key"));
    println!("unlisted {}", loopback("/cdh/resource/demo/app/other"));
    println!("unnamed {}", why(agent.token(b"", "https://elsewhere.example", None).map(String::into_bytes)));
    println!("cocotoken {}", loopback("/aa/token?token_type=kbs"));
    println!("coco {}", loopback("/aa/evidence?runtime_data=a%20nonce"));
    match agent.seal(b"state", "db", Some("workload")) {
        Ok(_) => println!("sealed without terms"),
        Err(error) => println!("broker {error}"),
    }
}
