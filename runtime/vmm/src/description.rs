//! What a guest is made of, as its supervisor says it: one JSON object on one line.
//!
//! Trusts: the supervisor. Files are named as it named them; they are opened once, before the jail closes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One guest. Relative paths start in the folder of the box, where the process is started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// Virtual processors.
    pub vcpus: u32,
    /// ROM image of stage0.
    pub stage0: PathBuf,
    /// The page with the hashes of the three below.
    pub hashes: PathBuf,
    /// Kernel.
    pub kernel: PathBuf,
    /// Initrd.
    pub initrd: PathBuf,
    /// Command line with its NUL.
    pub command_line: PathBuf,
    /// Secrets page of a simulated secure processor.
    pub secrets: Option<PathBuf>,
    /// Disks, in the order of their transports.
    pub disks: Vec<Disk>,
    /// Socket that leads to the guest's vsock. What the guest opens to port N arrives at `<vsock>_N`.
    pub vsock: PathBuf,
    /// The guest's network card. Left out, it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net: Option<Card>,
    /// The guest may ask for random numbers of the host, which are the host's word. Left out, it may not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rng: bool,
    /// An SEV-SNP guest, or none at all. Left out, it is a plain guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snp: Option<Snp>,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Socket that listens and carries frames, each behind its length: passt's, or that of QEMU's `-netdev stream`.
    pub socket: PathBuf,
    /// Its address: six pairs of hexadecimal digits, with colons between.
    pub mac: MacAddress,
    /// Bytes of the longest packet.
    pub mtu: Mtu,
}

/// Address of one network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MacAddress([u8; 6]);

/// Why something is no address or no longest packet of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CardError {
    /// Not the address of one card.
    #[error(
        "a network card's address is six pairs of hexadecimal digits with colons between, not all zero and of no group"
    )]
    Mac,
    /// Shorter than IPv6 allows, or longer than a packet can be.
    #[error("the longest packet has {} to {} bytes, not {given}", Mtu::LEAST, u16::MAX)]
    Mtu {
        /// As said.
        given: u16,
    },
}

impl MacAddress {
    /// Its bytes.
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl From<MacAddress> for String {
    fn from(address: MacAddress) -> Self {
        address.0.map(|byte| hex::encode([byte])).join(":")
    }
}

impl TryFrom<String> for MacAddress {
    type Error = CardError;

    fn try_from(text: String) -> Result<Self, CardError> {
        let mut address = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut address {
            let mut one = [0];
            hex::decode_to_slice(pairs.next().ok_or(CardError::Mac)?, &mut one).map_err(|_| CardError::Mac)?;
            [*byte] = one;
        }
        if pairs.next().is_some() { Err(CardError::Mac) } else { Self::try_from(address) }
    }
}

impl TryFrom<[u8; 6]> for MacAddress {
    type Error = CardError;

    fn try_from(address: [u8; 6]) -> Result<Self, CardError> {
        let group = address[0] & 1 != 0;
        if group || address == [0; 6] { Err(CardError::Mac) } else { Ok(Self(address)) }
    }
}

/// Bytes of the longest packet of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u16", try_from = "u16")]
pub struct Mtu(u16);

impl Mtu {
    /// What IPv6 needs.
    pub const LEAST: u16 = 1280;
}

impl From<Mtu> for u16 {
    fn from(mtu: Mtu) -> Self {
        mtu.0
    }
}

impl TryFrom<u16> for Mtu {
    type Error = CardError;

    fn try_from(bytes: u16) -> Result<Self, CardError> {
        if bytes < Self::LEAST { Err(CardError::Mtu { given: bytes }) } else { Ok(Self(bytes)) }
    }
}

/// What the launch of an SEV-SNP guest says beside what it loads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snp {
    /// POLICY of the guest, as in its report and its ID block.
    pub policy: u64,
    /// HOST_DATA of the report: 64 hexadecimal digits.
    pub host_data: HostData,
    /// The launch an author signed for; `null` if none did.
    pub identity: Option<Identity>,
}

/// ID block and ID authentication block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// File of 96 bytes.
    pub block: PathBuf,
    /// File of 4096 bytes.
    pub auth: PathBuf,
    /// The latter holds an author's key and its signature.
    pub author_key: bool,
}

/// HOST_DATA: 32 bytes that the host gives, which every report shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct HostData(pub [u8; 32]);

impl From<HostData> for String {
    fn from(data: HostData) -> Self {
        hex::encode(data.0)
    }
}

impl TryFrom<String> for HostData {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut data = [0; 32];
        hex::decode_to_slice(text, &mut data)?;
        Ok(Self(data))
    }
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// By which the guest knows it.
    pub serial: String,
    /// Its bytes.
    pub file: PathBuf,
    /// The guest may write.
    pub writable: bool,
    /// It outlives the guest: what the guest flushes is on the host's disk, what it discards is freed there, and no other monitor has
    /// the file while one writes it. Else nothing waits for the host's disk.
    #[serde(default)]
    pub kept: bool,
}

impl Description {
    /// Reads the line.
    ///
    /// # Errors
    /// If it is no such object.
    pub fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }

    /// The line, with its end.
    ///
    /// # Errors
    /// If a path is no text.
    pub fn to_line(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }
}

/// Bytes between a guest's supervisor and its monitor, on the line that began with the description.
pub mod word {
    /// From the monitor: the guest runs, the jail is closed.
    pub const RUNS: u8 = b's';
    /// To the monitor, and back when it is so: no virtual processor runs.
    pub const PAUSE: u8 = b'p';
    /// To the monitor, and back when it is so: they run again.
    pub const RESUME: u8 = b'r';
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Description {
        Description {
            memory_bytes: 1 << 28,
            vcpus: 2,
            stage0: "stage0.bin".into(),
            hashes: "hashes.bin".into(),
            kernel: "kernel".into(),
            initrd: "initrd".into(),
            command_line: "cmdline".into(),
            secrets: None,
            disks: vec![Disk { serial: "s".into(), file: "/a b".into(), writable: false, kept: false }],
            vsock: "vsock.sock".into(),
            net: None,
            rng: false,
            snp: None,
        }
    }

    #[test]
    fn what_an_snp_guest_is_told_is_complete_and_typed() {
        let identity = Identity { block: "id-block".into(), auth: "id-auth".into(), author_key: false };
        let snp = Snp { policy: 0x3_0000, host_data: HostData([0xAB; 32]), identity: Some(identity) };
        let description = Description { snp: Some(snp), ..plain() };
        let line = String::from_utf8(description.to_line().unwrap()).unwrap();
        let digits = "ab".repeat(32);
        let expected = format!(
            r#""snp":{{"policy":196608,"host_data":"{digits}","identity":{{"block":"id-block","auth":"id-auth","author_key":false}}}}"#
        );
        assert!(line.contains(&expected), "{line}");
        assert_eq!(Description::parse(line.as_bytes()).unwrap(), description);
        assert!(Description::parse(line.replace(&digits, &digits[2..]).as_bytes()).is_err(), "31 bytes");
        assert!(Description::parse(line.replace(&digits, &digits.replace("ab", "xy")).as_bytes()).is_err());
        for field in [r#""policy":196608,"#, r#","author_key":false"#, r#""block":"id-block","#] {
            assert!(line.contains(field));
            assert!(Description::parse(line.replace(field, "").as_bytes()).is_err(), "{field} is not left out");
        }
    }

    #[test]
    fn the_page_shows_what_is_read() {
        let page = include_str!("../../../docs/vmm.md");
        let shown = page.split("```json\n").nth(2).unwrap().split_once("```").unwrap().0;
        let read: Snp = serde_json::from_str(shown).unwrap();
        assert_eq!((read.policy, read.identity.unwrap().block), (0x3_0000, "id-block.bin".into()));
    }

    #[test]
    fn a_plain_guest_says_nothing_of_what_it_has_not() {
        let line = String::from_utf8(plain().to_line().unwrap()).unwrap();
        assert!(["snp", "net", "rng"].iter().all(|part| !line.contains(part)), "{line}");
    }

    #[test]
    fn a_card_is_read_as_the_page_shows_it_and_another_is_refused() {
        let page = include_str!("../../../docs/vmm.md");
        let shown = page.split("```json\n").nth(1).unwrap().split_once("```").unwrap().0;
        let line = String::from_utf8(plain().to_line().unwrap()).unwrap();
        let with = |part: &str| line.trim_end().strip_suffix('}').unwrap().to_string() + "," + part + "}";
        let inside = shown.trim().strip_prefix('{').unwrap().strip_suffix('}').unwrap();
        let description = Description::parse(with(inside).as_bytes()).unwrap();
        let card = description.net.clone().unwrap();
        assert_eq!((card.mac.bytes(), card.mtu.into(), description.rng), ([0x52, 0x54, 0, 1, 2, 3], 65_520_u16, true));
        assert_eq!(Description::parse(&description.to_line().unwrap()).unwrap(), description);
        let one = |mac: &str, mtu: &str| {
            let part = format!(r#""net":{{"socket":"net.sock","mac":"{mac}","mtu":{mtu}}}"#);
            Description::parse(with(&part).as_bytes()).is_ok()
        };
        assert!(one("52:54:00:01:02:03", "1280") && one("52:54:00:AA:bb:03", "65535"));
        for mac in
            ["", "525400010203", "52:54:00:01:02", "52:54:00:01:02:03:04", "52:54:00:01:02:+3", "5:54:00:01:02:03"]
        {
            assert!(!one(mac, "1500"), "{mac}");
        }
        assert!(!one("00:00:00:00:00:00", "1500") && !one("53:54:00:01:02:03", "1500"), "of nobody, of many");
        assert!(!one("52:54:00:01:02:03", "1279") && !one("52:54:00:01:02:03", "65536"));
    }

    #[test]
    fn a_description_comes_back_as_it_was_and_an_unknown_field_is_refused() {
        let description = plain();
        let line = description.to_line().unwrap();
        assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
        assert_eq!(Description::parse(&line).unwrap(), description);
        let other = String::from_utf8(line).unwrap().replace("vcpus", "cpus");
        assert!(Description::parse(other.as_bytes()).is_err());
    }
}
