//! Addresses that a program is to listen on: what helps where one cannot be had.

use std::fmt::Display;
use std::io;

use crate::{Class, Failure};

/// What it means that nobody can listen there.
pub fn failed(address: impl Display, error: &io::Error) -> Failure {
    let failure = Failure::caused(Class::Config, error).while_doing(format_args!("listening on {address}"));
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            failure.hint("another program listens there: name another port; 0 takes a free one")
        }
        io::ErrorKind::AddrNotAvailable => failure
            .hint("this machine has no such address: 127.0.0.1 is for itself alone, and `ip address` lists the others"),
        io::ErrorKind::PermissionDenied => failure.hint("ports below 1024 are root's: name one above"),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_cannot_listen_is_told_what_to_name() {
        for (kind, words) in [
            (io::ErrorKind::AddrInUse, "another port"),
            (io::ErrorKind::AddrNotAvailable, "no such address"),
            (io::ErrorKind::PermissionDenied, "1024"),
        ] {
            let failure = failed("1.2.3.4:80", &kind.into());
            assert!(failure.message.starts_with("listening on 1.2.3.4:80: "), "{failure}");
            assert!(failure.hint.unwrap().contains(words), "{words}");
        }
    }
}
