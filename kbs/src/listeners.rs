//! Addresses of the listeners as somebody typed them: each is one, and none stands in another's way.

use std::net::SocketAddr;

/// Where guests, operators and whoever reads figures connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listeners {
    pub(crate) listen: SocketAddr,
    pub(crate) admin_listen: SocketAddr,
    pub(crate) metrics_listen: Option<SocketAddr>,
}

impl Listeners {
    /// From text; what is wrong is added to `mistakes`.
    pub(crate) fn read(listen: &str, admin_listen: &str, metrics: Option<&str>, mistakes: &mut Vec<String>) -> Self {
        let listen = address("listen", listen, mistakes);
        let admin_listen = address("admin_listen", admin_listen, mistakes);
        let metrics_listen = metrics.map(|text| address("metrics_listen", text, mistakes));
        let mut all = vec![("listen", listen), ("admin_listen", admin_listen)];
        all.extend(metrics_listen.map(|metrics| ("metrics_listen", metrics)));
        for (at, (name, one)) in all.iter().enumerate() {
            for (other, before) in all[..at].iter().filter(|(_, before)| in_the_way(*before, *one)) {
                mistakes.push(if one == before {
                    format!("{other} and {name} are both {one}")
                } else {
                    format!("{other} is {before} and {name} {one}: the one takes the port from the other")
                });
            }
        }
        Self { listen, admin_listen, metrics_listen }
    }
}

/// True if not both can be listened on: one port, of one address or of all of them. Port 0 is another each time.
fn in_the_way(one: SocketAddr, other: SocketAddr) -> bool {
    let all = |address: SocketAddr, beside: SocketAddr| {
        // `[::]` takes IPv4 as well.
        address.ip().is_unspecified() && (address.is_ipv6() || beside.is_ipv4())
    };
    one.port() != 0 && one.port() == other.port() && (one.ip() == other.ip() || all(one, other) || all(other, one))
}

fn address(field: &str, text: &str, mistakes: &mut Vec<String>) -> SocketAddr {
    text.parse().unwrap_or_else(|_| {
        mistakes.push(format!("{field} is {text:?}, expected IP:PORT"));
        SocketAddr::from(([127, 0, 0, 1], 0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_listeners_share_a_port_of_one_address() {
        let found = |listen: &str, admin: &str, metrics: Option<&str>| {
            let mut mistakes = Vec::new();
            Listeners::read(listen, admin, metrics, &mut mistakes);
            mistakes
        };
        for (listen, admin, metrics) in [
            ("127.0.0.1:1", "127.0.0.1:2", None),
            ("127.0.0.1:0", "127.0.0.1:0", Some("127.0.0.1:0")),
            ("127.0.0.1:1", "127.0.0.2:1", Some("[::1]:1")),
            ("0.0.0.0:1", "[::1]:1", None),
        ] {
            assert!(found(listen, admin, metrics).is_empty(), "{listen} {admin} {metrics:?}");
        }
        for (listen, admin, metrics, word) in [
            ("127.0.0.1:1", "127.0.0.1:1", None, "listen and admin_listen are both 127.0.0.1:1"),
            ("0.0.0.0:1", "127.0.0.1:1", None, "listen is 0.0.0.0:1 and admin_listen 127.0.0.1:1"),
            ("127.0.0.1:1", "[::]:1", None, "takes the port"),
            ("127.0.0.1:1", "127.0.0.1:2", Some("127.0.0.1:2"), "admin_listen and metrics_listen are both"),
            ("127.0.0.1:1", "here", None, "admin_listen is \"here\""),
        ] {
            let found = found(listen, admin, metrics);
            assert!(found.len() == 1 && found[0].contains(word), "{word}: {found:?}");
        }
    }
}
