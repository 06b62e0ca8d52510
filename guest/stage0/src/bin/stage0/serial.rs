//! Fixed words on the serial line. The host reads them; nothing secret exists yet.

use coffer_machine::{console, devices::SERIAL_PORT};

use crate::platform::Platform;

/// Writes text.
pub fn say(platform: &mut Platform, text: &str) {
    for byte in text.bytes() {
        platform.port_out_byte(SERIAL_PORT, byte);
    }
}

/// Says how long copying and hashing took, in ticks of the time stamp counter.
pub fn timing(platform: &mut Platform, copied: u64, hashed: u64) {
    say(platform, console::CHECKED);
    say(platform, ", copy=");
    number(platform, copied);
    say(platform, " hash=");
    number(platform, hashed);
    say(platform, " ticks\n");
}

fn number(platform: &mut Platform, mut value: u64) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    for digit in &digits[at..] {
        platform.port_out_byte(SERIAL_PORT, *digit);
    }
}
