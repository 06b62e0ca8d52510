//! Commands of owners, to guests that prove themselves first.

pub mod attest;
pub mod connect;
pub mod evidence_files;
pub mod guest;
pub mod inject_secret;
pub mod owner;
pub mod reference;
pub mod refresh_secrets;
pub mod seal;

use crate::row::Group;

/// What an owner does.
pub const GROUP: Group = Group {
    heading: "Guests that prove what they are",
    commands: &[
        command!("attest": attest),
        command!("connect": connect),
        command!("inject-secret": inject_secret),
        command!("refresh-secrets": refresh_secrets),
        command!("seal": seal::SealArgs => seal::seal),
        command!("unseal": seal::UnsealArgs => seal::unseal),
        command!("reseal": seal::ResealArgs => seal::reseal),
        noun!("owner": owner),
    ],
};
