//! What the compiler calls and no library provides here.

use core::arch::asm;

/// Precompiled `core` refers to it; nothing unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As above.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    panic!()
}

/// C's memcpy, in quadwords: byte-wise string moves are slow where the processor is emulated.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller gives two ranges of `count` bytes that do not overlap; the direction flag is clear.
    unsafe {
        asm!("rep movsq", "mov rcx, {rest}", "rep movsb", rest = in(reg) count % 8,
            inout("rcx") count / 8 => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack));
    }
    to
}

/// C's memmove.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: forward copying never overwrites what is still to be read.
        return unsafe { memcpy(to, from, count) };
    }
    // SAFETY: both ranges are the caller's; backwards, because `to` lies inside `from`'s range. The flag is restored.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") count => _,
            inout("rdi") to.wrapping_add(count).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(count).wrapping_sub(1) => _, options(nostack));
    }
    to
}

/// C's memset.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    let word = u64::from(byte.to_le_bytes()[0]) * 0x0101_0101_0101_0101;
    // SAFETY: the caller gives a range of `count` bytes; the direction flag is clear.
    unsafe {
        asm!("rep stosq", "mov rcx, {rest}", "rep stosb", rest = in(reg) count % 8,
            inout("rcx") count / 8 => _, inout("rdi") to => _, in("rax") word, options(nostack));
    }
    to
}

/// C's memcmp.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    for at in 0..count {
        // SAFETY: the caller gives two ranges of `count` bytes.
        let (a, b) = unsafe { (one.add(at).read_volatile(), other.add(at).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// C's bcmp.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    // SAFETY: as for memcmp.
    unsafe { memcmp(one, other, count) }
}
