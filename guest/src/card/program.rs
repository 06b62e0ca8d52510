//! The program that decides about each frame at the card, of either direction, made from a [`Plan`].
//!
//! ```text
//! VLAN, ARP, IPv4 without options or parts ─► whose it is ─► no machine? ─► gateway as 127.0.0.1 ─┬─ TCP
//!                                                                                                ├─ UDP, with what was sent and heard
//!                                                                                                └─ ICMP
//! ```
//!
//! Of TCP nothing is remembered: what opens nothing passes where the guest goes, and back from ports that others come in by. Of UDP it is
//! remembered who sent what to whom. Whatever has no way to `pass` is counted and dropped.
//! Never: reads beyond what a frame says it has; changes a frame; jumps backwards.
//! Source: RFC 791 §3.1; RFC 9293 §3.1; RFC 768; RFC 792; Linux include/uapi/linux/bpf.h, `struct __sk_buff`.

use coffer_spec::CardProtocol;

use super::{
    assembler::{
        AssembleError, Assembler, Function, Instruction, Label,
        Register::{self, Frame, R0, R1, R2, R3, R4, R6, R7, R8, R9},
        Size::{Byte, Double, Half, Word},
        When,
    },
    plan::{DHCP, DNS, LOOPBACK, PATIENCE, Plan, Ports, Rule},
    refused::{Direction, Refused},
};

/// Descriptors of the maps that it uses.
#[derive(Clone, Copy, Debug)]
pub struct Maps {
    /// What the guest sent by UDP: [`KEY`] bytes to a time.
    pub sent: i32,
    /// What came in by a port of UDP that others come in by: the same.
    pub heard: i32,
    /// Frames that were dropped: a number of 32 bits to one of 64.
    pub dropped: i32,
}

/// The other machine, its port, the guest's.
pub const KEY: u32 = 8;
/// Lets a frame pass.
pub const PASS: u32 = 0;
/// Drops it.
pub const DROP: u32 = 2;

// `struct __sk_buff`.
const SKB_LEN: i16 = 0;
const SKB_VLAN_PRESENT: i16 = 20;

const ETHERNET: u32 = 14;
const IPV4: u32 = 20;

// The stack: headers of Ethernet and IPv4, so that the second is aligned; that of the protocol; a key; a time; a counter.
const HEADERS: i16 = -50;
const KIND: i16 = HEADERS + 12;
const IP: i16 = HEADERS + ETHERNET as i16;
const PROTOCOL: i16 = -72;
const KEY_AT: i16 = -80;
const TIME: i16 = -88;
const COUNTER: i16 = -92;

const TCP_FLAGS: i16 = PROTOCOL + 13;
const SYN: u32 = 1 << 1;
const RST: u32 = 1 << 2;
const ACK: u32 = 1 << 4;

/// Types of ICMP (RFC 792).
pub mod icmp {
    /// The answer to [`ECHO`].
    pub const ECHO_REPLY: u32 = 0;
    /// Asks for an answer.
    pub const ECHO: u32 = 8;
    /// Unreachable, too old, a wrong parameter.
    pub const ERRORS: [u32; 3] = [3, 11, 12];
}

/// The program for one direction.
///
/// # Errors
/// [`AssembleError`]: no rules that a spec can hold make one.
pub fn program(plan: &Plan, direction: Direction, maps: Maps) -> Result<Vec<Instruction>, AssembleError> {
    let mut code = Assembler::default();
    let pass = code.label();
    let refused = Refused::ALL.map(|_| code.label());
    let mut writer = Writer { code, plan, direction, maps, pass, refused };
    writer.headers();
    writer.tcp_udp_or_icmp();
    writer.ends();
    writer.code.finish()
}

struct Writer<'a> {
    code: Assembler,
    plan: &'a Plan,
    direction: Direction,
    maps: Maps,
    pass: Label,
    /// One for each of [`Refused::ALL`].
    refused: [Label; Refused::ALL.len()],
}

impl Writer<'_> {
    const fn drop_as(&self, why: Refused) -> Label {
        self.refused[why as usize]
    }

    /// Up to IPv4. After it r7 is the other machine, r8 the packet's length.
    fn headers(&mut self) {
        let (broken, kind) = (self.drop_as(Refused::Broken), self.drop_as(Refused::Kind));
        self.code.copy(R6, R1);
        // A mark that the kernel took out of the frame.
        self.code.load(Word, R0, R6, SKB_VLAN_PRESENT);
        self.code.jump_when(R0, When::Differs, 0, kind);
        self.load_bytes(0, HEADERS, ETHERNET + IPV4);
        self.code.load_of_network(Half, R0, Frame, KIND);
        self.code.jump_when(R0, When::Equal, 0x0806, self.pass);
        self.code.jump_when(R0, When::Differs, 0x0800, kind);
        self.code.load(Byte, R0, Frame, IP);
        self.code.jump_when(R0, When::Differs, 0x45, self.drop_as(Refused::Header));
        self.code.load_of_network(Half, R0, Frame, IP + 6);
        // "More fragments", or an offset.
        self.code.jump_when(R0, When::Has, 0x3FFF, self.drop_as(Refused::Part));
        self.code.load_of_network(Half, R8, Frame, IP + 2);
        self.code.load(Word, R1, R6, SKB_LEN);
        self.code.add(R1, -ETHERNET.cast_signed());
        self.code.jump_when_above(R8, R1, broken);
        let (own, other) = match self.direction {
            Direction::In => (IP + 16, IP + 12),
            Direction::Out => (IP + 12, IP + 16),
        };
        self.code.load_of_network(Word, R0, Frame, own);
        self.code.jump_when(R0, When::Differs, self.plan.own, self.drop_as(Refused::NotItsOwn));
        self.code.load_of_network(Word, R7, Frame, other);
        for (first, last) in &self.plan.nobody {
            let next = self.code.label();
            self.code.masked(R0, R7, u32::MAX);
            if first == last {
                self.code.jump_when(R0, When::Equal, *first, self.refused[Refused::NoMachine as usize]);
            } else {
                self.code.jump_when(R0, When::Below, *first, next);
                self.code.jump_when(R0, When::Above, *last, next);
                self.code.jump(self.refused[Refused::NoMachine as usize]);
            }
            self.code.place(next);
        }
        let elsewhere = self.code.label();
        self.code.jump_when(R7, When::Differs, self.plan.gateway, elsewhere);
        self.code.number(R7, LOOPBACK);
        self.code.place(elsewhere);
    }

    fn tcp_udp_or_icmp(&mut self) {
        let (udp, icmp) = (self.code.label(), self.code.label());
        self.code.load(Byte, R0, Frame, IP + 9);
        self.code.jump_when(R0, When::Equal, 17, udp);
        self.code.jump_when(R0, When::Equal, 1, icmp);
        self.code.jump_when(R0, When::Differs, 6, self.drop_as(Refused::Kind));
        self.has_header(20);
        self.ports();
        self.neighbours(self.pass);
        match self.direction {
            Direction::In => self.tcp_in(),
            Direction::Out => self.tcp_out(),
        }
        self.code.place(udp);
        self.has_header(8);
        self.ports();
        match self.direction {
            Direction::In => self.udp_in(),
            Direction::Out => self.udp_out(),
        }
        self.code.place(icmp);
        self.has_header(8);
        self.icmp();
    }

    fn tcp_in(&mut self) {
        self.published(CardProtocol::Tcp, self.pass);
        let (begins, goes_on) = (self.drop_as(Refused::Begins), self.code.label());
        self.code.load(Byte, R1, Frame, TCP_FLAGS);
        self.code.jump_when(R1, When::Has, ACK, goes_on);
        self.code.jump_when(R1, When::Has, SYN, begins);
        self.code.jump_when(R1, When::Has, RST, goes_on);
        self.code.jump(begins);
        self.code.place(goes_on);
        self.where_it_goes(CardProtocol::Tcp, self.pass);
        self.code.jump(self.drop_as(Refused::Rules));
    }

    fn tcp_out(&mut self) {
        self.where_it_goes(CardProtocol::Tcp, self.pass);
        let answers = self.code.label();
        self.code.load(Byte, R1, Frame, TCP_FLAGS);
        self.code.jump_when(R1, When::Has, ACK, answers);
        self.code.jump_when(R1, When::Has, SYN, self.drop_as(Refused::Begins));
        self.code.place(answers);
        self.published(CardProtocol::Tcp, self.pass);
        self.code.jump(self.drop_as(Refused::Rules));
    }

    fn udp_in(&mut self) {
        self.key();
        self.pass_if_recent(self.maps.sent);
        self.neighbours_without_dhcp();
        let published = self.code.label();
        self.published(CardProtocol::Udp, published);
        self.code.jump(self.drop_as(Refused::Rules));
        self.code.place(published);
        self.remember(self.maps.heard);
        self.code.jump(self.pass);
    }

    fn udp_out(&mut self) {
        self.key();
        let (asked, not_names) = (self.code.label(), self.code.label());
        self.code.jump_when(R9, When::Differs, DNS.into(), not_names);
        for server in &self.plan.dns {
            self.code.jump_when(R7, When::Equal, *server, asked);
        }
        self.code.place(not_names);
        self.neighbours_without_dhcp();
        let (published, begun) = (self.code.label(), self.code.label());
        self.published(CardProtocol::Udp, published);
        self.code.jump(begun);
        self.code.place(published);
        self.pass_if_recent(self.maps.heard);
        self.code.place(begun);
        self.where_it_goes(CardProtocol::Udp, asked);
        self.code.jump(self.drop_as(Refused::Rules));
        self.code.place(asked);
        self.remember(self.maps.sent);
        self.code.jump(self.pass);
    }

    fn icmp(&mut self) {
        let (known, rules) = (self.code.label(), self.drop_as(Refused::Rules));
        self.code.load(Byte, R8, Frame, PROTOCOL);
        for kind in [icmp::ECHO_REPLY, icmp::ECHO].into_iter().chain(icmp::ERRORS) {
            self.code.jump_when(R8, When::Equal, kind, known);
        }
        self.code.jump(self.drop_as(Refused::Kind));
        self.code.place(known);
        self.neighbours(self.pass);
        // Nobody but a neighbour asks the guest for an echo.
        match self.direction {
            Direction::In => self.code.jump_when(R8, When::Equal, icmp::ECHO, self.refused[Refused::Begins as usize]),
            Direction::Out => {
                self.code.jump_when(R8, When::Equal, icmp::ECHO_REPLY, rules);
                self.code.jump_when(R7, When::Equal, LOOPBACK, rules);
            }
        }
        let plan = self.plan;
        self.rules(&plan.egress, CardProtocol::Icmp, self.pass, R9);
        self.code.jump(rules);
    }

    /// Copies from the frame to the stack; a frame that has not so much is broken.
    fn load_bytes(&mut self, from: u32, to: i16, length: u32) {
        self.code.copy(R1, R6);
        self.code.number(R2, from);
        self.code.address(R3, to.into());
        self.code.number(R4, length);
        self.code.call(Function::LoadBytes);
        self.code.jump_when_address(R0, When::Differs, self.drop_as(Refused::Broken));
    }

    /// The protocol's header, of which the packet has to have so much.
    fn has_header(&mut self, length: u32) {
        self.code.jump_when(R8, When::Below, IPV4 + length, self.drop_as(Refused::Broken));
        self.load_bytes(ETHERNET + IPV4, PROTOCOL, length);
    }

    /// r8 becomes the guest's port, r9 the other machine's.
    fn ports(&mut self) {
        let (own, other) = match self.direction {
            Direction::In => (PROTOCOL + 2, PROTOCOL),
            Direction::Out => (PROTOCOL, PROTOCOL + 2),
        };
        self.code.load_of_network(Half, R8, Frame, own);
        self.code.load_of_network(Half, R9, Frame, other);
    }

    /// What other boxes of the card's network may: everything, nothing, or what others may.
    fn neighbours(&mut self, reached: Label) {
        let Some(((first, last), are_reached)) = self.plan.neighbours else { return };
        let elsewhere = self.code.label();
        self.code.masked(R1, R7, u32::MAX);
        self.code.jump_when(R1, When::Below, first, elsewhere);
        self.code.jump_when(R1, When::Above, last, elsewhere);
        self.code.jump(if are_reached { reached } else { self.drop_as(Refused::Neighbour) });
        self.code.place(elsewhere);
    }

    fn neighbours_without_dhcp(&mut self) {
        let (reached, over) = (self.code.label(), self.code.label());
        self.neighbours(reached);
        self.code.jump(over);
        self.code.place(reached);
        for port in [R8, R9] {
            for dhcp in [DHCP.0, DHCP.1] {
                self.code.jump_when(port, When::Equal, dhcp.into(), self.drop_as(Refused::Neighbour));
            }
        }
        self.code.jump(self.pass);
        self.code.place(over);
    }

    /// Goes to `on` where r8 is a port that others come in by, and r7 one of them. Else goes on here.
    fn published(&mut self, protocol: CardProtocol, on: Label) {
        let plan = self.plan;
        let ports: &[Ports] = match protocol {
            CardProtocol::Tcp => &plan.published[0],
            CardProtocol::Udp => &plan.published[1],
            CardProtocol::Icmp => &[],
        };
        let (is_one, is_none) = (self.code.label(), self.code.label());
        for row in ports {
            self.at_ports(R8, *row, is_one);
        }
        self.code.jump(is_none);
        self.code.place(is_one);
        self.rules(&plan.ingress, protocol, on, R8);
        self.code.place(is_none);
    }

    /// Goes to `on` where the guest may begin with r7 at r9. Else goes on here.
    fn where_it_goes(&mut self, protocol: CardProtocol, on: Label) {
        let nowhere = self.code.label();
        self.code.jump_when(R7, When::Equal, LOOPBACK, nowhere);
        let plan = self.plan;
        self.rules(&plan.egress, protocol, on, R9);
        self.code.place(nowhere);
    }

    /// Goes to `on` where a rule admits r7, and the port. Else goes on here.
    fn rules(&mut self, rules: &[Rule], protocol: CardProtocol, on: Label, port: Register) {
        let of_it = |rule: &&Rule| {
            let has_ports = protocol != CardProtocol::Icmp;
            rule.protocol.is_none_or(|of| of == protocol) && (has_ports || rule.ports.is_none())
        };
        for rule in rules.iter().filter(of_it) {
            let next = self.code.label();
            if rule.mask != 0 {
                self.code.masked(R1, R7, rule.mask);
                self.code.jump_when(R1, When::Differs, rule.first, next);
            }
            match rule.ports {
                Some(ports) => self.at_ports(port, ports, on),
                None => self.code.jump(on),
            }
            self.code.place(next);
        }
    }

    fn at_ports(&mut self, port: Register, (first, last): Ports, on: Label) {
        // What the verifier learns here of a copy makes no other state of the registers that go on.
        self.code.masked(R2, port, 0xFFFF);
        if first == last {
            self.code.jump_when(R2, When::Equal, first.into(), on);
            return;
        }
        let next = self.code.label();
        self.code.jump_when(R2, When::Below, first.into(), next);
        self.code.jump_when(R2, When::Above, last.into(), next);
        self.code.jump(on);
        self.code.place(next);
    }

    /// The key of r7, r9 and r8.
    fn key(&mut self) {
        self.code.store(Word, KEY_AT, R7);
        self.code.store(Half, KEY_AT + 4, R9);
        self.code.store(Half, KEY_AT + 6, R8);
    }

    fn pass_if_recent(&mut self, map: i32) {
        let older = self.code.label();
        self.code.map(R1, map);
        self.code.address(R2, KEY_AT.into());
        self.code.call(Function::Lookup);
        self.code.jump_when_address(R0, When::Equal, older);
        self.code.load(Double, R1, R0, 0);
        self.code.store(Double, TIME, R1);
        self.code.call(Function::Time);
        self.code.load(Double, R1, Frame, TIME);
        self.code.subtract(R0, R1);
        self.code.wide(R1, PATIENCE);
        self.code.jump_when_later(R0, R1, older);
        self.code.jump(self.pass);
        self.code.place(older);
    }

    fn remember(&mut self, map: i32) {
        self.code.call(Function::Time);
        self.code.store(Double, TIME, R0);
        self.code.map(R1, map);
        self.code.address(R2, KEY_AT.into());
        self.code.address(R3, TIME.into());
        // Whether there was one before is all the same.
        self.code.number(R4, 0);
        self.code.call(Function::Update);
    }

    /// Each reason is counted; nothing else ends without `pass`.
    fn ends(&mut self) {
        let (count, end) = (self.code.label(), self.code.label());
        for (why, label) in Refused::ALL.into_iter().zip(self.refused) {
            self.code.place(label);
            self.code.number(R0, why.counter(self.direction));
            self.code.jump(count);
        }
        self.code.place(count);
        self.code.store(Word, COUNTER, R0);
        self.code.map(R1, self.maps.dropped);
        self.code.address(R2, COUNTER.into());
        self.code.call(Function::Lookup);
        self.code.jump_when_address(R0, When::Equal, end);
        self.code.count(R0);
        self.code.place(end);
        self.code.number(R0, DROP);
        self.code.exit();
        self.code.place(self.pass);
        self.code.number(R0, PASS);
        self.code.exit();
    }
}
