//! Networks that this host is in itself, as its kernel lists its routes.
//!
//! Source: Linux net/ipv4/fib_trie.c, `fib_route_seq_show`: addresses and masks of /proc/net/route in the order of the machine's bytes.

use std::net::Ipv4Addr;

use coffer_vmm::net::switch::Subnet;

/// The network of the host's that has some of these addresses: its range, and the interface that leads there. Without `/proc` none is known.
pub fn host_network(subnet: Subnet) -> Option<(Subnet, String)> {
    let routes = std::fs::read_to_string("/proc/net/route").ok()?;
    among(&routes, subnet)
}

fn among(routes: &str, subnet: Subnet) -> Option<(Subnet, String)> {
    let networks = routes.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [interface, address, _, _, _, _, _, mask, ..] = fields[..] else { return None };
        let number =
            |text: &str| u32::from_str_radix(text, 16).ok().map(|found| u32::from_be_bytes(found.to_ne_bytes()));
        let (address, mask) = (number(address)?, number(mask)?);
        // The way to everywhere else is no network of its own.
        let prefix = u8::try_from(mask.leading_ones()).ok().filter(|prefix| *prefix > 0)?;
        Some((Subnet::around(Ipv4Addr::from(address), prefix)?, interface.to_owned()))
    });
    networks.into_iter().find(|(network, _)| network.overlaps(subnet))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_the_hosts_is_found_by_any_address_and_the_way_out_is_none() {
        let hex = |address: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(address));
        let row = |address: [u8; 4], mask: [u8; 4]| {
            format!("eth0\t{}\t{}\t0001\t0\t0\t0\t{}\t0\t0\t0\n", hex(address), hex([0; 4]), hex(mask))
        };
        let routes = format!(
            "Iface\tDestination\n{}{}not a route\n",
            row([0; 4], [0; 4]),
            row([192, 168, 7, 0], [255, 255, 255, 0])
        );
        for (asked, found) in [
            ("192.168.7.0/24", Some("192.168.7.0/24")),
            ("192.168.0.0/16", Some("192.168.7.0/24")),
            ("192.168.7.128/25", Some("192.168.7.0/24")),
            ("192.168.8.0/24", None),
            ("10.89.0.0/24", None),
        ] {
            let known = among(&routes, asked.parse().unwrap());
            assert_eq!(
                known.map(|(network, by)| (network.to_string(), by)),
                found.map(|it| (it.into(), "eth0".into())),
                "{asked}"
            );
        }
    }
}
