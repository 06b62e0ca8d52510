//! `coffer bench seal`: sealing and opening in chunks of 64 KiB beside the cipher alone on the same chunks, and how much memory a
//! long stream takes.

use std::hint::black_box;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Instant;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use coffer_seal::{CHUNK, HEADER, Header, Keys, Scope, SealPolicy, Secrets, TAG, seal_stream, unseal_stream};
use coffer_verifier::abi::DerivedKey;
use serde_json::json;

use super::figures::{broken, real};
use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};

/// Measure sealing and opening, beside AES-256-GCM alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer bench seal\n  coffer bench seal --json")]
pub struct Args {}

/// Chunks of a round: 64 MiB.
const CHUNKS: usize = 1024;
/// Of which the fastest counts: who else used the processor slowed the others.
const ROUNDS: usize = 31;
/// Chunks of the long stream: 4 GiB.
const LONG: usize = 64 * CHUNKS;
/// What sealing may lose beside the cipher.
const LEAST: f64 = 0.9;

/// Measures and prints.
pub fn run(_: &Args, context: &Context) -> Result<ExitCode, CliError> {
    if !context.json {
        eprintln!("measuring for some seconds; figures mean something on an idle machine");
    }
    let subject = Subject::make()?;
    let mut times: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        times[0].push(timed(|| subject.encrypt())?);
        times[1].push(timed(|| subject.seal(CHUNKS))?);
        times[2].push(timed(|| subject.decrypt())?);
        times[3].push(timed(|| subject.unseal())?);
    }
    let before = peak_memory()?;
    let long = timed(|| subject.seal(LONG))?;
    let grown = peak_memory()?.saturating_sub(before);
    let rate = |chunks: usize, seconds: f64| real(chunks) * real(CHUNK) / seconds / 1e6;
    let [encrypt, seal, decrypt, unseal] =
        times.map(|times| rate(CHUNKS, times.into_iter().fold(f64::INFINITY, f64::min)));
    let (sealing, opening, long) = (seal / encrypt, unseal / decrypt, rate(LONG, long));
    if context.json {
        println!(
            "{}",
            json!({
                "aead_seal_mb_s": encrypt, "seal_mb_s": seal, "seal_ratio": sealing,
                "aead_open_mb_s": decrypt, "unseal_mb_s": unseal, "unseal_ratio": opening, "least_ratio": LEAST,
                "chunk_bytes": CHUNK, "round_bytes": CHUNKS * CHUNK,
                "long_bytes": LONG * CHUNK, "long_seal_mb_s": long, "long_memory_growth_bytes": grown,
            })
        );
        return Ok(ExitCode::SUCCESS);
    }
    let least = |raw: f64| LEAST * raw;
    println!("{:<34} {encrypt:>9.0} MB/s", "AES-256-GCM, encrypting");
    println!("{:<34} {seal:>9.0} MB/s   at least {:>7.0} MB/s   {sealing:.3} x", "seal", least(encrypt));
    println!("{:<34} {decrypt:>9.0} MB/s", "AES-256-GCM, copying, decrypting");
    println!("{:<34} {unseal:>9.0} MB/s   at least {:>7.0} MB/s   {opening:.3} x", "unseal", least(decrypt));
    println!("{:<34} {long:>9.0} MB/s   {:>6} KiB of memory", "seal, 4 GiB in one stream", grown / 1024);
    Ok(ExitCode::SUCCESS)
}

fn timed(mut work: impl FnMut() -> Result<(), CliError>) -> Result<f64, CliError> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

struct Subject {
    key: LessSafeKey,
    header: Header,
    /// Chunks with their tags, by the cipher alone.
    encrypted: Vec<u8>,
    /// A sealed file of as many.
    sealed: Vec<u8>,
}

const CONTEXT: &[u8] = b"bench";

impl Subject {
    fn make() -> Result<Self, CliError> {
        let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).map_err(|_| broken("key"))?;
        let header = Header::new(SealPolicy::MeasurementAndChip, true, 0, CONTEXT, [9; 32]);
        let mut subject = Self { key: LessSafeKey::new(key), header, encrypted: Vec::new(), sealed: Vec::new() };
        let mut encrypted = Vec::with_capacity(CHUNKS * (CHUNK + TAG));
        for number in 0..CHUNKS {
            let mut chunk = vec![0x5a; CHUNK];
            let tag = subject.encrypt_chunk(number, &mut chunk)?;
            encrypted.extend(chunk.into_iter().chain(tag));
        }
        let mut sealed = Vec::with_capacity(HEADER + CHUNKS * (CHUNK + TAG));
        let input = &mut std::io::repeat(0x5a).take((CHUNKS * CHUNK) as u64);
        seal_stream(&keys(), &subject.header, CONTEXT, input, &mut sealed).class(Class::Internal)?;
        (subject.encrypted, subject.sealed) = (encrypted, sealed);
        Ok(subject)
    }

    fn encrypt_chunk(&self, number: usize, chunk: &mut [u8]) -> Result<[u8; TAG], CliError> {
        let aad = Aad::from([0; HEADER]);
        let tag = self.key.seal_in_place_separate_tag(nonce(number), aad, chunk).map_err(|_| broken("encryption"))?;
        tag.as_ref().try_into().map_err(|_| broken("tag"))
    }

    fn encrypt(&self) -> Result<(), CliError> {
        let mut chunk = vec![0x5a; CHUNK];
        for number in 0..CHUNKS {
            black_box(self.encrypt_chunk(number, black_box(&mut chunk))?);
        }
        Ok(())
    }

    fn decrypt(&self) -> Result<(), CliError> {
        let mut chunk = vec![0; CHUNK + TAG];
        for (number, encrypted) in self.encrypted.chunks_exact(CHUNK + TAG).enumerate() {
            chunk.copy_from_slice(encrypted);
            let aad = Aad::from([0; HEADER]);
            black_box(self.key.open_in_place(nonce(number), aad, &mut chunk).map_err(|_| broken("decryption"))?);
        }
        Ok(())
    }

    fn seal(&self, chunks: usize) -> Result<(), CliError> {
        let (input, output) = (&mut Untouched(chunks * CHUNK), &mut Nowhere);
        seal_stream(&keys(), &self.header, CONTEXT, input, output).class(Class::Internal)
    }

    fn unseal(&self) -> Result<(), CliError> {
        let input = &mut self.sealed.as_slice();
        unseal_stream(|_| Ok((keys(), None)), CONTEXT, input, &mut Nowhere).class(Class::Internal)
    }
}

fn keys() -> Keys {
    Secrets::Processor(DerivedKey::new([7; 32])).of(Scope::Agent)
}

fn nonce(number: usize) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&(number as u64).to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// So many bytes, whatever stands in the buffer: reading costs nothing.
struct Untouched(usize);

impl Read for Untouched {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(self.0);
        self.0 -= length;
        Ok(length)
    }
}

/// Takes all at no cost.
struct Nowhere;

impl Write for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(black_box(bytes).len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Most memory this process ever had, in bytes.
fn peak_memory() -> Result<u64, CliError> {
    let status = std::fs::read_to_string("/proc/self/status").class_while(Class::Internal, "cannot read own status")?;
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| broken("own peak of memory"))
}
