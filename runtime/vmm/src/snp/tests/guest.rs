//! A guest of a few instructions in stage0's place: it asks for pages, touches them, and writes down what it found.

use coffer_machine::map::SHARED_HANDOVER_GPA;

use super::super::page_state::MAP_GPA_RANGE;
use super::inner;

/// Where it writes what it found, 8 bytes each: shared from the start, as a hand-over is.
pub const FOUND_GPA: u64 = SHARED_HANDOVER_GPA;

/// What it does.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Makes a hypercall, and writes down the answer.
    Call(u64, [u64; 3]),
    /// Writes down what it reads at an address.
    Read(u64),
    /// Writes a word to an address.
    Write(u64, u64),
    /// Writes a word into each of so many pages.
    Touch(u64, u64),
    /// Runs the inner guest.
    Enter,
}

/// Asks for pages to be shared.
pub const fn share(gpa: u64, pages: u64) -> Step {
    Step::Call(MAP_GPA_RANGE, [gpa, pages, 0])
}

/// Asks for pages to be private.
pub const fn keep(gpa: u64, pages: u64) -> Step {
    Step::Call(MAP_GPA_RANGE, [gpa, pages, 1 << 4])
}

/// The guest's code, which ends the machine behind its last step.
pub fn code(steps: &[Step]) -> Vec<u8> {
    let mut code = Vec::new();
    let mut found = FOUND_GPA;
    let mut write_down = |code: &mut Vec<u8>| {
        word(code, WRITE_RAX, found);
        found += 8;
    };
    for step in steps {
        match *step {
            Step::Call(number, [first, second, third]) => {
                for (into, argument) in [(RAX, number), (RBX, first), (RCX, second), (RDX, third)] {
                    word(&mut code, into, argument);
                }
                code.extend(VMMCALL);
                write_down(&mut code);
            }
            Step::Read(at) => {
                word(&mut code, READ_RAX, at);
                write_down(&mut code);
            }
            Step::Write(at, what) => {
                word(&mut code, RAX, what);
                word(&mut code, WRITE_RAX, at);
            }
            Step::Touch(from, pages) => {
                word(&mut code, RBX, from);
                word(&mut code, RCX, pages);
                code.extend(EACH_PAGE);
            }
            Step::Enter => inner::enter(&mut code),
        }
    }
    // No exception has a handler: the processor shuts down.
    code.push(INT3);
    code
}

/// An instruction that ends in 8 bytes.
pub fn word(code: &mut Vec<u8>, instruction: [u8; 2], word: u64) {
    code.extend(instruction);
    code.extend(word.to_le_bytes());
}

// Source: AMD APM volume 3. `mov register, imm64`; `mov rax, [moffs64]`; `mov [moffs64], rax`.
pub const RAX: [u8; 2] = [0x48, 0xB8];
const RCX: [u8; 2] = [0x48, 0xB9];
const RDX: [u8; 2] = [0x48, 0xBA];
const RBX: [u8; 2] = [0x48, 0xBB];
pub const READ_RAX: [u8; 2] = [0x48, 0xA1];
pub const WRITE_RAX: [u8; 2] = [0x48, 0xA3];
const VMMCALL: [u8; 3] = [0x0F, 0x01, 0xD9];
pub const INT3: u8 = 0xCC;
/// `mov [rbx], rcx; add rbx, 4096; dec rcx; jnz` to the first of them.
const EACH_PAGE: [u8; 15] = [0x48, 0x89, 0x0B, 0x48, 0x81, 0xC3, 0x00, 0x10, 0x00, 0x00, 0x48, 0xFF, 0xC9, 0x75, 0xF1];
