//! The network card: found, given the addresses of the spec, brought up.
//!
//! Nothing is asked of the network, and nothing it says of itself is heeded: no DHCP, no router's advertisements, no redirects, and
//! IPv6 is off at the card. A redirect could only lead frames elsewhere on a wire at whose other end the host is anyway.
//! Trusts: the spec. Never: brings a card up that is not held to the spec's rules, where the spec demands a TEE.
//! Source: ip-sysctl.rst of Linux.

use std::{fs, io, path::Path};

use coffer_spec::{CardRules, Network, Tee};

use crate::{
    boot::is_tee,
    card::{self, Held},
    failure::{Code, Failure, OrFail as _},
    sys::net,
};

const CARDS: &str = "/sys/class/net";
const RULES: &str = "/proc/sys/net";

/// Holds the one card to the rules of its spec where that demands a TEE, for as long as this kernel runs, and then configures it.
///
/// # Errors
/// `card-not-held` if the spec has none, or the kernel does not; as [`configure`].
pub fn hold_and_configure(network: &Network, tee: Tee) -> Result<Option<&'static Held>, Failure> {
    let held = hold_to_rules(network, tee)?;
    configure(network)?;
    Ok(held)
}

fn hold_to_rules(network: &Network, tee: Tee) -> Result<Option<&'static Held>, Failure> {
    if !is_tee(tee) {
        return Ok(None);
    }
    let rules = rules(network)?;
    let card = the_card(Path::new(CARDS)).or_fail(Code::Internal, "find the network card")?;
    let index = index(Path::new(CARDS), &card).or_fail(Code::Internal, "find the network card's number")?;
    let held = card::hold(index, network, rules).or_fail(Code::CardNotHeld, "hold the network card to its rules")?;
    // Nothing of this program takes them away again.
    Ok(Some(Box::leak(Box::new(held))))
}

/// Whoever wrote no rules did not allow everything.
fn rules(network: &Network) -> Result<&CardRules, Failure> {
    let none = || Failure::new(Code::CardNotHeld, "the spec gives its network card no rules");
    network.rules.as_ref().ok_or_else(none)
}

fn index(cards: &Path, card: &str) -> io::Result<u32> {
    let text = fs::read_to_string(cards.join(card).join("ifindex"))?;
    text.trim().parse().map_err(io::Error::other)
}

/// Configures the one card as the spec has it.
///
/// # Errors
/// If there is none or more than one, or the kernel refuses.
pub fn configure(network: &Network) -> Result<(), Failure> {
    let card = the_card(Path::new(CARDS)).or_fail(Code::Internal, "find the network card")?;
    heed_nothing(Path::new(RULES), &card)
        .or_fail(Code::Internal, "keep the network card from what the network says")?;
    net::card_up(&card, network.address, network.mask(), network.gateway)
        .or_fail(Code::Internal, "configure the network card")
}

/// The Ethernet card among the interfaces.
fn the_card(cards: &Path) -> io::Result<String> {
    const ETHERNET: &str = "1";
    let mut found = Vec::new();
    for entry in fs::read_dir(cards)? {
        let entry = entry?;
        if fs::read_to_string(entry.path().join("type"))?.trim() == ETHERNET {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(card), true) => Ok(card),
        (None, _) => Err(io::Error::new(io::ErrorKind::NotFound, "the host attached no network card")),
        (Some(_), false) => Err(io::Error::new(io::ErrorKind::InvalidInput, "the host attached several network cards")),
    }
}

fn heed_nothing(rules: &Path, card: &str) -> io::Result<()> {
    let off = [
        (format!("ipv6/conf/{card}/disable_ipv6"), "1"),
        (format!("ipv6/conf/{card}/accept_ra"), "0"),
        ("ipv4/conf/all/accept_redirects".to_owned(), "0"),
        (format!("ipv4/conf/{card}/accept_redirects"), "0"),
        (format!("ipv4/conf/{card}/accept_source_route"), "0"),
    ];
    for (rule, value) in off {
        match fs::write(rules.join(rule), value) {
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            written => written?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_ethernet_card_is_found_and_two_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let add = |name: &str, kind: &str| {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("type"), kind).unwrap();
            fs::write(folder.path().join(name).join("ifindex"), "2\n").unwrap();
        };
        add("lo", "772\n");
        assert_eq!(the_card(folder.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
        add("eth0", "1\n");
        assert_eq!(the_card(folder.path()).unwrap(), "eth0");
        assert_eq!(index(folder.path(), "eth0").unwrap(), 2);
        add("eth1", "1\n");
        assert_eq!(the_card(folder.path()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_card_without_rules_starts_in_no_guest_that_proves_itself() {
        let card = Network::user();
        assert!(hold_to_rules(&card, Tee::None).unwrap().is_none(), "who has no TEE is held outside");
        for tee in [Tee::Simulated, Tee::Snp] {
            assert_eq!(hold_to_rules(&card, tee).unwrap_err().code, Code::CardNotHeld);
        }
        assert_eq!(rules(&card).unwrap_err().code, Code::CardNotHeld);
    }

    #[test]
    fn what_the_network_says_of_itself_is_turned_off() {
        let folder = tempfile::tempdir().unwrap();
        heed_nothing(folder.path(), "eth0").unwrap();
        for place in ["ipv6/conf/eth0", "ipv4/conf/all", "ipv4/conf/eth0"] {
            fs::create_dir_all(folder.path().join(place)).unwrap();
        }
        heed_nothing(folder.path(), "eth0").unwrap();
        let said = |rule: &str| fs::read_to_string(folder.path().join(rule)).unwrap();
        assert_eq!(said("ipv6/conf/eth0/disable_ipv6"), "1");
        assert_eq!(said("ipv4/conf/all/accept_redirects"), "0");
    }
}
