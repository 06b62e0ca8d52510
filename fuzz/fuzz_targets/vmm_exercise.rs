#![allow(dead_code, reason = "each target uses its part")]
//! What the targets of the monitor's devices do with their input; the stable replay of the corpora includes this file too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use coffer_machine::memory::Ram;
use coffer_vmm::Disk;
use coffer_vmm::blk::Blk;
use coffer_vmm::net::datagrams::Datagrams;
use coffer_vmm::net::filter::Filter;
use coffer_vmm::net::switch::opened::acknowledged;
use coffer_vmm::net::switch::source_ports::SourcePorts;
use coffer_vmm::net::switch::{Joined, Port, Rules, Subnet, View, Way, mac_of};
use coffer_vmm::net::{LONGEST, Lost, Net, SHORTEST};
use coffer_vmm::snp::cpuid_page;
use coffer_vmm::snp::host::Page;
use coffer_vmm::snp::page_state::{State, asked, touched};
use coffer_vmm::virtio::{ACKNOWLEDGE, DRIVER, DRIVER_OK, Device, FEATURES_OK, Transport, register};
use coffer_vmm::vsock::Vsock;
use coffer_vmm::{Memory, io_apic::IoApic};
use vm_memory::{Bytes as _, GuestAddress};

const MEMORY: usize = 1 << 20;
/// Where the first queue's rings lie; the others follow, a page each.
const RINGS: u64 = 0x1_0000;
const PACKET: u64 = 0x4_0000;

struct Guest {
    memory: Memory,
    transport: Transport,
}

impl Guest {
    /// Sixteen pages on the first queue, for the device to write to.
    fn offers_buffers(&self) {
        for slot in 0..16_u64 {
            let mut descriptor = (0x8_0000 + slot * 0x1000).to_le_bytes().to_vec();
            descriptor.extend([0, 0x10, 0, 0, 2, 0, 0, 0]);
            self.put(RINGS + slot * 16, &descriptor);
            self.put(RINGS + 0x404 + slot * 2, &(slot as u16).to_le_bytes());
        }
        self.put(RINGS + 0x402, &16_u16.to_le_bytes());
    }

    fn start(device: impl Device + 'static) -> Self {
        let queues = device.queues() as u64;
        let memory = Memory::from_ranges(&[(GuestAddress(0), MEMORY)]).expect("a megabyte");
        let guest = Self { memory, transport: Transport::new(Box::new(device), || {}, || {}) };
        guest.write(register::STATUS, ACKNOWLEDGE | DRIVER);
        guest.write(register::ACCEPTED_PAGE, 1);
        guest.write(register::ACCEPTED, 1);
        guest.write(register::STATUS, FEATURES_OK);
        for queue in 0..queues {
            let at = (RINGS + queue * 0x1000) as u32;
            guest.write(register::QUEUE, queue as u32);
            guest.write(register::QUEUE_SIZE, 16);
            guest.write(register::DESCRIPTORS_LOW, at);
            guest.write(register::AVAILABLE_LOW, at + 0x400);
            guest.write(register::USED_LOW, at + 0x800);
            guest.write(register::QUEUE_READY, 1);
        }
        guest.write(register::STATUS, DRIVER_OK);
        guest
    }

    fn write(&self, register: u64, word: u32) {
        self.transport.write(&self.memory, register, &word.to_le_bytes());
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).expect("inside memory");
    }

    /// Rings as the input has them.
    fn rings(&self, data: &[u8]) {
        self.put(RINGS, &data[..data.len().min(0x3000)]);
        self.transport.serve(&self.memory);
    }
}

fn scratch() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("coffer-vmm-exercise-{}", std::process::id()));
    let _ = std::fs::create_dir_all(&folder);
    folder
}

fn disk_file() -> File {
    let path = scratch().join("disk");
    let file = File::options().create(true).truncate(false).read(true).write(true).open(path).expect("a scratch file");
    file.set_len(8192).expect("a scratch file");
    file
}

fn vsock() -> Vsock {
    let path = scratch().join("v");
    let _ = std::fs::remove_file(&path);
    Vsock::new(UnixListener::bind(&path).expect("a socket"), &path).expect("descriptors")
}

fn blk(file: File, writable: bool, kept: bool) -> Blk {
    let disk = Disk { serial: "fuzz".into(), file: "disk".into(), writable, kept };
    Blk::new(file, &disk).expect("a file")
}

/// A disk, with any rings and buffers.
pub fn disk(data: &[u8]) {
    let file = disk_file();
    for (writable, kept) in [(false, false), (true, false), (true, true)] {
        let guest = Guest::start(blk(file.try_clone().expect("a descriptor"), writable, kept));
        guest.put(PACKET, &data[..data.len().min(0x1000)]);
        guest.rings(data);
    }
    assert_eq!(file.metadata().expect("a file").len(), 8192, "no disk grows");
}

/// A vsock: any rings, then packets that are the guest's own but for what the input says.
pub fn vsock_packets(data: &[u8]) {
    Guest::start(vsock()).rings(data);
    let guest = Guest::start(vsock());
    guest.offers_buffers();
    for (index, rest) in (1_u16..).zip(data.chunks(28)).take(64) {
        let mut packet = [3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0].to_vec();
        packet.extend(rest);
        packet.resize(64, 0);
        guest.put(PACKET, &packet);
        let mut descriptor = PACKET.to_le_bytes().to_vec();
        descriptor.extend([64, 0, 0, 0, 0, 0, 0, 0]);
        guest.put(RINGS + 0x1000, &descriptor);
        guest.put(RINGS + 0x1402, &index.to_le_bytes());
        guest.transport.serve(&guest.memory);
    }
}

/// A network card: any rings, then any bytes of the peer into buffers of the guest, and any frame of the guest to the peer.
pub fn net_frames(data: &[u8]) {
    let (ours, _peer) = UnixStream::pair().expect("sockets");
    Guest::start(Net::new(ours, [2; 6], 1500).expect("a socket")).rings(data);
    let (ours, mut peer) = UnixStream::pair().expect("sockets");
    let net = Net::new(ours, [2; 6], 1500).expect("a socket");
    let traffic = net.traffic();
    let guest = Guest::start(net);
    guest.offers_buffers();
    guest.put(PACKET, &data[..data.len().min(0x1000)]);
    for (index, bytes) in (1_u16..).zip(data.chunks(700)).take(16) {
        peer.write_all(bytes).expect("a socket with room");
        let mut descriptor = PACKET.to_le_bytes().to_vec();
        descriptor.extend((bytes.len() as u32).to_le_bytes());
        descriptor.extend([0; 4]);
        guest.put(RINGS + 0x1000, &descriptor);
        guest.put(RINGS + 0x1402, &index.to_le_bytes());
        guest.transport.serve(&guest.memory);
        if let Some(Lost::Length(length)) = traffic.lost.get() {
            assert!(!(SHORTEST..=LONGEST).contains(&(*length as usize)));
            return;
        }
    }
    // What the peer gets is frames, whatever the guest sent.
    drop(guest);
    let mut heard = Vec::new();
    // The end is an error where the device left bytes unread.
    let _ = peer.read_to_end(&mut heard);
    let mut rest = &heard[..];
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = u32::from_be_bytes(*length) as usize;
        assert!((SHORTEST..=LONGEST).contains(&length) && length <= behind.len());
        rest = &behind[length..];
    }
    assert!(rest.is_empty());
}

/// Registers of a transport and of the I/O APIC, in any order: a register and a word each.
pub fn registers(data: &[u8]) {
    let guest = Guest::start(blk(disk_file(), true, false));
    let mut chip = IoApic::default();
    for step in data.chunks_exact(6).take(512) {
        let [low, high, word @ ..] = step else { return };
        let register = u64::from(u16::from_le_bytes([*low, *high]));
        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        guest.write(register, word);
        let mut read = [0; 4];
        guest.transport.read(register, &mut read);
        guest.transport.serve(&guest.memory);
        chip.write(register & 0x10, word);
        chip.read(register);
        assert!(chip.routes().all(|(input, _)| input < 24));
    }
}

/// What an SEV-SNP guest asks of its pages: its memory in units of 2 MiB, then a hypercall, address, count and attributes each.
pub fn page_states(data: &[u8]) {
    let Some((size, asks)) = data.split_first_chunk::<2>() else { return };
    let Ok(ram) = Ram::claimed(u64::from(u16::from_le_bytes(*size)) << 21) else { return };
    for ask in asks.chunks_exact(32).take(64) {
        let word = |index: usize| ask[index * 8..][..8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let (gpa, pages, attributes) = (word(1), word(2), word(3));
        if let Ok(change) = touched(attributes, gpa, pages, ram) {
            assert!(change.range.start == gpa && change.range.end <= ram.end);
        }
        match asked(word(0), &[gpa, pages, attributes, 0, 0, 0], ram) {
            Ok(change) => {
                assert_eq!((change.range.start, Some(change.range.end)), (gpa, gpa.checked_add(pages << 12)));
                assert!(gpa.is_multiple_of(4096) && gpa < change.range.end && change.range.end <= ram.end);
                let usable = ram.usable().iter().any(|it| it.start <= gpa && change.range.end <= it.end);
                assert!(change.to == State::Private || usable, "shared is only what the kernel has as RAM");
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    // The firmware's answer to a CPUID page is the host's and not the guest's; it is read by the same care.
    let mut answered = Page::ZERO;
    let length = data.len().min(4096);
    answered.0[..length].copy_from_slice(&data[..length]);
    let mut offered = answered.clone();
    offered.0[40] ^= 1;
    let _ = cpuid_page::correct(&offered, &answered);
}

/// The filter of a network: no frame that passes says another sender than the guest, or another receiver.
pub fn filtered_frames(data: &[u8]) {
    let (address, gateway) = (Ipv4Addr::new(10, 0, 2, 15), Ipv4Addr::new(10, 0, 2, 2));
    let (mask, datagrams) = (Ipv4Addr::new(255, 255, 255, 0), Datagrams::of([53]));
    let filter = Filter { mac: [2; 6], address, mask, gateway, resolver: true, datagrams };
    if filter.outbound(data).is_ok() {
        assert_eq!(data[6..12], [2; 6]);
        match data[12..14] {
            [8, 0] => {
                let to: [u8; 4] = data[30..34].try_into().expect("four bytes");
                assert_eq!((data[14], &data[26..30]), (0x45, &address.octets()[..]));
                assert!(!matches!(to, [168, 63, 129, 16] | [100, 100, 100, 200] | [192, 0, 0, 192]), "{to:?}");
                assert!(!matches!(to, [0 | 127 | 224.., ..] | [169, 254, ..] | [10, 0, 2, 15 | 255]), "{to:?}");
                // Towards the gateway, whole and no opening of a connection.
                if to == gateway.octets() {
                    assert_eq!((data[20] & 0x3F, data[21]), (0, 0));
                    assert!(data[23] == 6 && data[47] & 0x12 != 2 || data[23] == 17 && data[36..38] == [0, 53]);
                }
            }
            [8, 6] => assert_eq!(data[22..28], [2; 6]),
            _ => panic!("neither ARP nor IPv4 passed"),
        }
    }
    if filter.inbound(data).is_ok() {
        assert!(data[..6] == [2; 6] || data[..6] == [0xFF; 6]);
        assert!(data[12..14] == [8, 6] || data[12..14] == [8, 0] && data[30..34] == address.octets());
        assert!(data[12..14] == [8, 6] || data[23] != 17 || data[36..38] == [0, 53], "nobody was asked");
    }
    datagrams_in_a_row(data);
}

/// Datagrams of a guest that others reach at port 53, eight bytes each: which way, the other machine, its port and the guest's. What
/// came in before is answered, what went out before is heard of, and no other goes to the gateway or comes in.
fn datagrams_in_a_row(data: &[u8]) {
    let mut port = port();
    port.filter.datagrams = Datagrams::of([53]);
    port.view.own_wire = true;
    let (own, gateway) = (port.filter.address.octets(), port.filter.gateway.octets());
    let (mut heard, mut sent) = (BTreeSet::new(), BTreeSet::new());
    for step in data.chunks_exact(8).take(64) {
        let machine = if step[1] & 1 == 0 { gateway } else { [192, 0, 2, step[1]] };
        let (theirs, ours) = ([step[2] & 1, step[3]], [step[4] & 1, step[5]]);
        let frame = |from: [u8; 4], to: [u8; 4], ports: [[u8; 2]; 2]| {
            let header = [0x45, 0, 0, 28, 0, 0, 0, step[6] & step[7], 64, 17, 0, 0];
            let card = port.filter.mac;
            [&card[..], &card, &[8, 0], &header, &from, &to, &ports.concat(), &[0, 8, 0, 0]].concat()
        };
        let (flow, whole) = ((machine, theirs, ours), step[6] & step[7] == 0);
        if step[0] & 1 == 0 {
            let mut begun = frame(own, machine, [ours, theirs]);
            let passes = matches!(port.outbound(&mut begun), Ok(Way::Out));
            if passes {
                carried_out(&port, begun);
            }
            let answers = whole && (heard.contains(&flow) || theirs == [0, 53]);
            assert_eq!(passes, machine != gateway || answers, "{flow:?}");
            if passes && whole {
                sent.insert(flow);
            }
        } else {
            let passes = port.inbound(&frame(machine, own, [theirs, ours])).is_ok();
            assert_eq!(passes, whole && (ours == [0, 53] || sent.contains(&flow)), "{flow:?}");
            if passes && ours == [0, 53] {
                heard.insert(flow);
            }
        }
    }
}

/// A port of the switch whose card is in one network, and which is in another by translation.
fn port() -> Port {
    let (address, there) = (Ipv4Addr::new(10, 89, 0, 2), Ipv4Addr::new(10, 89, 1, 7));
    let range = |address| Subnet::around(address, 24).expect("a prefix");
    let joined = |name: &str, address: Ipv4Addr, others: &[u8]| {
        let [a, b, c, _] = address.octets();
        let named = |last: &u8| (Ipv4Addr::new(a, b, c, *last), vec![format!("box{last}")]);
        let members: BTreeMap<_, _> = others.iter().map(named).chain([(address, vec!["self".into()])]).collect();
        Joined { name: name.into(), subnet: range(address), address, rules: Rules::open(), members }
    };
    let gateway = range(address).gateway();
    let mask = Ipv4Addr::new(255, 255, 255, 0);
    Port {
        filter: Filter {
            mac: mac_of(address),
            address,
            mask,
            gateway,
            resolver: true,
            datagrams: Datagrams::default(),
        },
        dns: vec![gateway],
        view: View {
            own_wire: false,
            joined: vec![joined("app", address, &[3, 4]), joined("more", there, &[9])],
            others: vec![range(Ipv4Addr::new(10, 89, 2, 0))],
        },
    }
}

/// What is done to a frame that goes out: a datagram gets another port and nothing else, and its answer the guest's again; what a guest is
/// told of a handshake is for the guest, from whom it answered.
fn carried_out(port: &Port, mut frame: Vec<u8>) {
    let (before, outside) = (frame.clone(), 40_000_u16.to_be_bytes());
    if let Some(told) = acknowledged(&frame) {
        assert_eq!((&told[..6], &told[26..30], &told[30..34]), (&frame[6..12], &frame[30..34], &frame[26..30]));
    }
    let mut ports = SourcePorts::default();
    let done = ports.out(&mut frame, &port.filter.datagrams, || Some(u16::from_be_bytes(outside)));
    let is_datagram = before[12..14] == [8, 0] && before[23] == 17;
    if !is_datagram || done.is_err() || port.filter.datagrams.is_published(u16::from_be_bytes([before[34], before[35]]))
    {
        assert_eq!(frame, before);
        return;
    }
    assert_eq!((&frame[..34], &frame[34..36], &frame[36..38]), (&before[..34], &outside[..], &before[36..38]));
    frame.copy_within(34..36, 36);
    ports.back(&mut frame).expect("as whole as it went");
    assert_eq!(frame[36..38], before[34..36]);
}

/// The switch: what it hands to another port comes from its guest and is for a guest that is there; what a guest is given is for it.
pub fn switched_frames(data: &[u8]) {
    let port = port();
    let mut frame = data.to_vec();
    match port.outbound(&mut frame) {
        Ok(Way::Out) => {
            assert_eq!(frame, data, "what goes out is the guest's own");
            carried_out(&port, frame);
        }
        Ok(Way::Back(answer)) => assert_eq!(answer[..6], port.filter.mac),
        Ok(Way::Neighbour { network, address }) => {
            let joined = port.view.joined.iter().find(|joined| joined.name == network).expect("a network it is in");
            assert!(joined.members.contains_key(&address) && address != joined.address);
            assert_eq!((&frame[..6], &frame[6..12]), (&mac_of(address)[..], &mac_of(joined.address)[..]));
            assert_eq!((&frame[26..30], &frame[30..34]), (&joined.address.octets()[..], &address.octets()[..]));
            assert_eq!(frame.len(), data.len());
        }
        Err(refused) => assert!(!refused.to_string().is_empty()),
    }
    for network in ["app", "more", "none"] {
        let mut frame = data.to_vec();
        if port.from_neighbour(network, &mut frame).is_ok() {
            assert_eq!((&frame[..6], &frame[12..14]), (&port.filter.mac[..], &[8, 0][..]));
            assert_eq!(frame[30..34], port.filter.address.octets());
        }
    }
    if port.inbound(data).is_ok() {
        assert!(data[12..14] == [8, 6] || !matches!(data[26..30], [10, 89, 0, 2.. | 0] | [10, 89, 1 | 2, _]));
    }
}
