//! Mutated inputs, the same in every run. Included by the tests that replay fuzz corpora.

/// Flips, cuts and insertions, chosen by xorshift.
pub fn mutate(data: &[u8], seed: &mut u64) -> Vec<u8> {
    let mut next = |below: usize| {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        (*seed >> 11) as usize % below.max(1)
    };
    let mut out = data.to_vec();
    for _ in 0..=next(4) {
        let at = next(out.len());
        match next(4) {
            0 if !out.is_empty() => out[at] ^= 1 << next(8),
            1 if !out.is_empty() => out[at] = [0, 1, 0x7f, 0x80, 0xff][next(5)],
            2 => out.truncate(at),
            _ => out.insert(at, next(256) as u8),
        }
    }
    out
}
