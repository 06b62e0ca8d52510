//! A workload that asks its agent for everything, and says what came of it.

#[path = "../../guest/clients/coffer_agent.rs"]
mod coffer_agent;

use coffer_agent::{Agent, Error};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
    match agent.seal(b"state", "db", Some("workload")) {
        Ok(_) => println!("sealed without terms"),
        Err(error) => println!("broker {error}"),
    }
}
