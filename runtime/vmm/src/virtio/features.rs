//! What every device of ours offers.

/// Entries of each queue.
pub const QUEUE_SIZE: u16 = 256;

/// Feature bits every device of ours offers.
pub const COMMON_FEATURES: u64 = 1 << INDIRECT | 1 << EVENT_INDEX | 1 << VERSION_1 | 1 << ACCESS_PLATFORM;
const INDIRECT: u32 = 28;
/// Both sides say how far they got before the next notification.
pub const EVENT_INDEX: u32 = 29;
/// No legacy.
pub const VERSION_1: u32 = 32;
/// A guest whose memory is encrypted shares what the device is to see.
const ACCESS_PLATFORM: u32 = 33;
