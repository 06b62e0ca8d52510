//! What the target of sealed files does with its input; the stable replay of the corpus includes this file too.

use coffer_seal::{BrokerKey, HEADER, Header, Scope, Secrets, Source, seal, unseal};
use coffer_verifier::abi::DerivedKey;
use secrecy::SecretBox;

/// A sealed file. What opens with the keys of docs/sealing.md was sealed with them: to the byte, as it is sealed again.
pub fn sealed(data: &[u8]) {
    let Ok(header) = Header::peek(data) else { return };
    assert_eq!(header.encode(), data[..HEADER], "a header is read whole, or not at all");
    let processor = DerivedKey::new([0x11; 32]);
    let broker = BrokerKey::new(SecretBox::new(Box::new([0x22; 32])));
    let secrets = match header.policy.source() {
        Source::Processor => Secrets::Processor(processor),
        Source::Both => Secrets::Both(processor, broker),
        Source::Broker => Secrets::Broker(broker),
    };
    let keys = secrets.of(Scope::Agent);
    let current = header.rollback_protected().then_some(header.generation);
    if let Ok(plaintext) = unseal(&keys, b"db", current, data) {
        assert_eq!(seal(&keys, &header, b"db", &plaintext).expect("it was sealed before"), data);
    }
}
