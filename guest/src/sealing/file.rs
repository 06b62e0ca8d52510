//! Sealing a file, opening it, and sealing it anew.

use coffer_seal::{CHUNK, HEADER, Header, Keys, Opener, SealError, SealPolicy, TAG, check_floor};
use coffer_spec::Tee;
use zeroize::Zeroizing;

use super::{
    error::SealingError,
    means::{Means, own_report, random},
};

/// Whether an older file is to be noticed in the place of the one that is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter<'a> {
    /// No.
    None,
    /// Yes: this is the first of its line.
    Begin,
    /// Yes: it takes the place of the file that begins with these bytes, its header and first chunk, which opens no more then.
    Replace(&'a [u8]),
}

/// A sealed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// An older one in its place is noticed.
    pub rollback_protected: bool,
}

/// What a file held.
pub struct Unsealed {
    /// Its bytes.
    pub plaintext: Zeroizing<Vec<u8>>,
    /// An older one in its place would have been noticed.
    pub rollback_protected: bool,
}

/// Bytes of the head that [`Counter::Replace`] takes: more are of no use.
pub const HEAD: usize = HEADER + CHUNK + TAG;

impl Means<'_> {
    /// Seals under a policy, at the committed TCB and, for policy `signer`, from this guest's own SVN on.
    ///
    /// # Errors
    /// [`SealingError`].
    pub async fn seal(
        &self,
        policy: SealPolicy,
        context: &[u8],
        counter: Counter<'_>,
        plaintext: &[u8],
    ) -> Result<Sealed, SealingError> {
        let header = self.fresh_header(policy, context).await?;
        let (header, expected) = match counter {
            Counter::None => (header, None),
            Counter::Begin => {
                if !policy.source().needs_broker() {
                    return Err(SealingError::CounterNeedsBroker { policy });
                }
                (Header { counter: random()?, generation: 1, ..header }, Some(0))
            }
            Counter::Replace(head) => {
                let before = self.replaced(policy, context, head).await?;
                let generation = before.generation.checked_add(1).ok_or(SealError::TooLong)?;
                // The counter belongs to the SVN of the file before.
                let (counter, minimum_svn) = (before.counter, before.minimum_svn);
                (Header { counter, generation, minimum_svn, ..header }, Some(before.generation))
            }
        };
        let keys = self.keys(&header, context).await?;
        let bytes = coffer_seal::seal(&keys, &header, context, plaintext)?;
        if let Some(expected) = expected {
            self.move_counter(&header, context, expected).await?;
        }
        Ok(Sealed { bytes, rollback_protected: header.rollback_protected() })
    }

    /// Opens a file, unless its TCB is below the spec's floor or its counter elsewhere.
    ///
    /// # Errors
    /// [`SealingError`].
    pub async fn unseal(&self, context: &[u8], sealed: &[u8]) -> Result<Unsealed, SealingError> {
        let (header, keys, current) = self.openable(context, sealed).await?;
        let plaintext = coffer_seal::unseal(&keys, context, current, sealed)?;
        Ok(Unsealed { plaintext, rollback_protected: header.rollback_protected() })
    }

    /// Opens a file and seals what it held anew: under another policy, or at the TCB and SVN of today. If it has a counter the new
    /// one takes its place. What it holds does not leave this guest.
    ///
    /// # Errors
    /// [`SealingError`]; [`SealingError::CounterLost`] for a file with a counter and a policy that has none.
    pub async fn reseal(
        &self,
        policy: Option<SealPolicy>,
        context: &[u8],
        sealed: &[u8],
    ) -> Result<Sealed, SealingError> {
        let before = Header::peek(sealed)?;
        let policy = policy.unwrap_or(before.policy);
        if !before.rollback_protected() {
            let opened = self.unseal(context, sealed).await?;
            return self.seal(policy, context, Counter::None, &opened.plaintext).await;
        }
        if !policy.source().needs_broker() {
            return Err(SealingError::CounterLost { policy });
        }
        let opened = self.unseal(context, sealed).await?;
        if policy == before.policy && self.fresh_header(policy, context).await?.minimum_svn == before.minimum_svn {
            return self.seal(policy, context, Counter::Replace(sealed), &opened.plaintext).await;
        }
        // The counter belongs to policy and SVN; under others it is another, and the one before is moved so that nothing opens there.
        let new = self.seal(policy, context, Counter::Begin, &opened.plaintext).await?;
        let generation = before.generation.checked_add(1).ok_or(SealError::TooLong)?;
        self.move_counter(&Header { generation, ..before }, context, before.generation).await?;
        Ok(new)
    }

    async fn openable(&self, context: &[u8], sealed: &[u8]) -> Result<(Header, Keys, Option<u64>), SealingError> {
        let header = Header::peek(sealed)?;
        header.check_processor(self.spec.tee == Tee::Simulated)?;
        check_floor(header.tcb, &self.spec.floors.seal.min_tcb)?;
        own_report(self.processor).await?;
        let keys = self.keys(&header, context).await?;
        if !header.rollback_protected() {
            return Ok((header, keys, None));
        }
        // First, or a file that is not for this guest and context would be called an older one: its counter is another here.
        first_chunk_opens(&keys, &header, context, sealed)?;
        let current = self.current(&header, context).await?;
        Ok((header, keys, Some(current)))
    }

    /// The header of a file to be replaced, once its first chunk has opened: nobody may point at another's counter.
    async fn replaced(&self, policy: SealPolicy, context: &[u8], head: &[u8]) -> Result<Header, SealingError> {
        let (header, keys, current) = self.openable(context, head).await?;
        if header.policy != policy || !header.rollback_protected() {
            return Err(SealingError::NotReplaceable { policy });
        }
        let encoded = head.first_chunk().ok_or(SealError::Closed)?;
        // That it opens is known; here it is refused where the counter is elsewhere.
        Opener::new(&keys, encoded, context, current)?;
        Ok(header)
    }
}

/// A file with a counter opens here, whatever its generation.
fn first_chunk_opens(keys: &Keys, header: &Header, context: &[u8], sealed: &[u8]) -> Result<(), SealError> {
    let (encoded, body) = sealed.split_first_chunk().ok_or(SealError::Closed)?;
    let first = &body[..body.len().min(CHUNK + TAG)];
    let opens = |last| {
        let mut chunk = Zeroizing::new(first.to_vec());
        Opener::new(keys, encoded, context, Some(header.generation))?.chunk(&mut chunk, last).map(drop)
    };
    opens(true).or_else(|_| opens(false))
}
