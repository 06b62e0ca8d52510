//! Instructions of the kernel's own machine (eBPF), put together: labels, jumps that only lead forward, and the few operations that a
//! filter of frames needs.
//!
//! Never: loads, runs or believes anything; makes a jump backwards, and so no loop.
//! Source: RFC 9669; Linux include/uapi/linux/bpf.h.

/// One instruction, as the kernel takes it (RFC 9669 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What is done.
    pub code: u8,
    /// Destination in the lower half, source in the upper.
    pub registers: u8,
    /// Of memory, or of a jump.
    pub offset: i16,
    /// A number in the instruction.
    pub immediate: i32,
}

const _: () = assert!(size_of::<Instruction>() == 8);

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Register {
    /// What a function gives, and the program's end.
    R0,
    /// The first argument.
    R1,
    /// The second.
    R2,
    /// The third.
    R3,
    /// The fourth.
    R4,
    /// Kept by functions, as those behind it.
    R6 = 6,
    /// As R6.
    R7,
    /// As R6.
    R8,
    /// As R6.
    R9,
    /// The end of the stack; memory lies below it.
    Frame,
}

/// How many bytes are read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Size {
    /// Four.
    Word = 0x00,
    /// Two.
    Half = 0x08,
    /// One.
    Byte = 0x10,
    /// Eight.
    Double = 0x18,
}

/// When a jump is taken: its register, of 32 bits, against a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum When {
    /// They are equal.
    Equal = 0x10,
    /// They are not.
    Differs = 0x50,
    /// It is greater.
    Above = 0x20,
    /// It is less.
    Below = 0xA0,
    /// They have a bit in common.
    Has = 0x40,
}

/// A function of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Function {
    /// `bpf_map_lookup_elem`.
    Lookup = 1,
    /// `bpf_map_update_elem`.
    Update = 2,
    /// `bpf_ktime_get_ns`.
    Time = 5,
    /// `bpf_skb_load_bytes`.
    LoadBytes = 26,
}

/// A place that is jumped to, once it is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// Why there is no program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// A jump does not reach.
    #[error("the rules make a program of {0} instructions, in which a jump does not reach")]
    TooFar(usize),
    /// A jump leads nowhere, or back.
    #[error("instruction {0} jumps nowhere")]
    Nowhere(usize),
}

/// A program in the making. What nothing leads to is left out: the kernel takes no such program.
#[derive(Debug, Default)]
pub struct Assembler {
    all: Vec<Instruction>,
    /// Of each label, whether a jump leads there, and where it stands.
    labels: Vec<(bool, Option<usize>)>,
    /// Jumps, and the label of each.
    jumps: Vec<(usize, Label)>,
    /// Behind a jump or an end, until a label that is jumped to.
    unreached: bool,
}

// Classes, sources and operations.
const LOAD_WIDE: u8 = 0x18;
const LOAD: u8 = 0x61;
const STORE: u8 = 0x63;
const ATOMIC_ADD_DOUBLE: u8 = 0xDB;
const MOVE_32_NUMBER: u8 = 0xB4;
const MOVE_32: u8 = 0xBC;
const MOVE: u8 = 0xBF;
const ADD_NUMBER: u8 = 0x07;
const SUBTRACT: u8 = 0x1F;
const AND_32_NUMBER: u8 = 0x54;
const TO_BIG_ENDIAN: u8 = 0xDC;
const JUMP: u8 = 0x05;
const JUMP_32: u8 = 0x06;
const FROM_REGISTER: u8 = 0x08;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// In the source's place: the number is the descriptor of a map.
const PSEUDO_MAP_FD: u8 = 1;

impl Assembler {
    fn push(&mut self, code: u8, to: Register, from: u8, offset: i16, immediate: i32) {
        if !self.unreached {
            self.all.push(Instruction { code, registers: to as u8 | from << 4, offset, immediate });
        }
    }

    fn push_jump(&mut self, code: u8, of: Register, other: u8, immediate: i32, to: Label) {
        if !self.unreached {
            self.jumps.push((self.all.len(), to));
            self.labels[to.0].0 = true;
        }
        self.push(code, of, other, 0, immediate);
    }

    /// A label that stands nowhere yet.
    pub fn label(&mut self) -> Label {
        self.labels.push((false, None));
        Label(self.labels.len() - 1)
    }

    /// Here it stands.
    pub fn place(&mut self, label: Label) {
        let (is_used, place) = &mut self.labels[label.0];
        *place = Some(self.all.len());
        self.unreached &= !*is_used;
    }

    /// `to = number`, of 32 bits.
    pub fn number(&mut self, to: Register, number: u32) {
        self.push(MOVE_32_NUMBER, to, 0, 0, number.cast_signed());
    }

    /// `to = from`.
    pub fn copy(&mut self, to: Register, from: Register) {
        self.push(MOVE, to, from as u8, 0, 0);
    }

    /// `to = from & bits`, of 32 bits: a value of its own, of which the kernel's verifier learns nothing about `from`.
    pub fn masked(&mut self, to: Register, from: Register, bits: u32) {
        self.push(MOVE_32, to, from as u8, 0, 0);
        self.and(to, bits);
    }

    /// `register &= bits`, of 32 bits.
    pub fn and(&mut self, register: Register, bits: u32) {
        self.push(AND_32_NUMBER, register, 0, 0, bits.cast_signed());
    }

    /// `register += number`.
    pub fn add(&mut self, register: Register, number: i32) {
        self.push(ADD_NUMBER, register, 0, 0, number);
    }

    /// `register -= other`.
    pub fn subtract(&mut self, register: Register, other: Register) {
        self.push(SUBTRACT, register, other as u8, 0, 0);
    }

    /// `to = *(from + offset)`.
    pub fn load(&mut self, size: Size, to: Register, from: Register, offset: i16) {
        self.push(LOAD | size as u8, to, from as u8, offset, 0);
    }

    /// The same, of a number that is written as the network has it.
    pub fn load_of_network(&mut self, size: Size, to: Register, from: Register, offset: i16) {
        self.load(size, to, from, offset);
        let bits = if size == Size::Half { 16 } else { 32 };
        self.push(TO_BIG_ENDIAN, to, 0, 0, bits);
    }

    /// `*(frame + offset) = from`.
    pub fn store(&mut self, size: Size, offset: i16, from: Register) {
        self.push(STORE | size as u8, Register::Frame, from as u8, offset, 0);
    }

    /// `*at += 1`, of 64 bits, whoever else does the same.
    pub fn count(&mut self, at: Register) {
        self.number(Register::R1, 1);
        self.push(ATOMIC_ADD_DOUBLE, at, Register::R1 as u8, 0, 0);
    }

    /// `to = frame + offset`.
    pub fn address(&mut self, to: Register, offset: i32) {
        self.copy(to, Register::Frame);
        self.add(to, offset);
    }

    /// `to` is a map.
    pub fn map(&mut self, to: Register, descriptor: i32) {
        self.push(LOAD_WIDE, to, PSEUDO_MAP_FD, 0, descriptor);
        self.push(0, Register::R0, 0, 0, 0);
    }

    /// `to = number`, of 64 bits.
    pub fn wide(&mut self, to: Register, number: u64) {
        self.push(LOAD_WIDE, to, 0, 0, (number as u32).cast_signed());
        self.push(0, Register::R0, 0, 0, ((number >> 32) as u32).cast_signed());
    }

    /// `r0 = function(r1, …)`.
    pub fn call(&mut self, function: Function) {
        self.push(CALL, Register::R0, 0, 0, function as i32);
    }

    /// Ends with `r0`.
    pub fn exit(&mut self) {
        self.push(EXIT, Register::R0, 0, 0, 0);
        self.unreached = true;
    }

    /// Goes on at the label.
    pub fn jump(&mut self, label: Label) {
        self.push_jump(JUMP, Register::R0, 0, 0, label);
        self.unreached = true;
    }

    /// Goes on there, when.
    pub fn jump_when(&mut self, register: Register, when: When, number: u32, label: Label) {
        self.push_jump(JUMP_32 | when as u8, register, 0, number.cast_signed(), label);
    }

    /// Goes on there when one register is above another, of 32 bits.
    pub fn jump_when_above(&mut self, register: Register, other: Register, label: Label) {
        self.push_jump(JUMP_32 | FROM_REGISTER | When::Above as u8, register, other as u8, 0, label);
    }

    /// Goes on there where a register of 64 bits, such as an address, is not 0 (`Differs`) or is (`Equal`).
    pub fn jump_when_address(&mut self, register: Register, when: When, label: Label) {
        self.push_jump(JUMP | when as u8, register, 0, 0, label);
    }

    /// Goes on there where a register of 64 bits is above what stands in another.
    pub fn jump_when_later(&mut self, register: Register, other: Register, label: Label) {
        self.push_jump(JUMP | FROM_REGISTER | When::Above as u8, register, other as u8, 0, label);
    }

    /// The whole.
    ///
    /// # Errors
    /// [`AssembleError`].
    pub fn finish(mut self) -> Result<Vec<Instruction>, AssembleError> {
        let length = self.all.len();
        for (at, label) in self.jumps {
            let to = self.labels[label.0].1.filter(|to| *to > at && *to < length).ok_or(AssembleError::Nowhere(at))?;
            self.all[at].offset = i16::try_from(to - at - 1).map_err(|_| AssembleError::TooFar(length))?;
        }
        Ok(self.all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_lead_forward_to_what_is_there() {
        let mut good = Assembler::default();
        let end = good.label();
        good.jump_when(Register::R1, When::Equal, 5, end);
        good.number(Register::R0, 7);
        good.place(end);
        good.exit();
        assert_eq!(good.finish().unwrap()[0], Instruction { code: 0x16, registers: 1, offset: 1, immediate: 5 });

        let mut nowhere = Assembler::default();
        let label = nowhere.label();
        nowhere.jump(label);
        assert_eq!(nowhere.finish(), Err(AssembleError::Nowhere(0)));

        let mut back = Assembler::default();
        let label = back.label();
        back.place(label);
        back.jump(label);
        assert_eq!(back.finish(), Err(AssembleError::Nowhere(0)));

        let mut unreached = Assembler::default();
        let (skipped, end) = (unreached.label(), unreached.label());
        unreached.jump(end);
        unreached.place(skipped);
        unreached.number(Register::R0, 1);
        unreached.jump(skipped);
        unreached.place(end);
        unreached.exit();
        assert_eq!(unreached.finish().unwrap().len(), 2);

        let mut far = Assembler::default();
        let label = far.label();
        far.jump_when(Register::R1, When::Equal, 0, label);
        (0..40_000).for_each(|_| far.number(Register::R0, 0));
        far.place(label);
        far.exit();
        assert_eq!(far.finish(), Err(AssembleError::TooFar(40_002)));
    }
}
