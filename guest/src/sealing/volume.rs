//! Headers of sealed volumes: sealed files of a scope of their own, with the volume's record at the key broker for a counter.

use coffer_kbs_client::VolumeRecord;
use coffer_seal::{Header, Keys, SealError, SealPolicy, check_floor};
use coffer_spec::Tee;
use zeroize::Zeroizing;

use super::{
    error::SealingError,
    means::{Means, own_report, random},
};

/// What the headers of one volume are sealed with, for as long as it is open.
pub struct VolumeKeys {
    header: Header,
    keys: Keys,
}

impl VolumeKeys {
    /// Seals a header of this record.
    ///
    /// # Errors
    /// [`SealingError`].
    pub fn seal(&self, context: &[u8], record: VolumeRecord, plaintext: &[u8]) -> Result<Vec<u8>, SealingError> {
        let header = Header { salt: random()?, ..self.header };
        let header = if header.policy.source().needs_broker() {
            Header { counter: VolumeRecord::COUNTER, generation: record.counter(), ..header }
        } else {
            header
        };
        Ok(coffer_seal::seal(&self.keys, &header, context, plaintext)?)
    }
}

impl Means<'_> {
    /// Keys for the headers of a volume, of the TCB of now.
    ///
    /// # Errors
    /// [`SealingError`].
    pub async fn volume_keys(&self, policy: SealPolicy, context: &[u8]) -> Result<VolumeKeys, SealingError> {
        let header = self.fresh_header(policy, context).await?;
        let keys = self.keys(&header, context).await?;
        Ok(VolumeKeys { header, keys })
    }

    /// Opens a header. Whether it is the newest is not asked here: it says of which record it is.
    ///
    /// # Errors
    /// [`SealingError`].
    pub async fn open_volume_header(
        &self,
        policy: SealPolicy,
        context: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealingError> {
        let header = Header::peek(sealed)?;
        if header.policy != policy || header.rollback_protected() != policy.source().needs_broker() {
            return Err(SealError::Closed.into());
        }
        header.check_processor(self.spec.tee == Tee::Simulated)?;
        check_floor(header.tcb, &self.spec.floors.seal.min_tcb)?;
        own_report(self.processor).await?;
        let keys = self.keys(&header, context).await?;
        let own = header.rollback_protected().then_some(header.generation);
        Ok(coffer_seal::unseal(&keys, context, own, sealed)?)
    }

    /// What the key broker knows of a volume; nothing if nobody began it.
    ///
    /// # Errors
    /// [`SealingError`].
    pub async fn volume_record(&self, keys: &VolumeKeys, context: &[u8]) -> Result<Option<VolumeRecord>, SealingError> {
        let header = Header { counter: VolumeRecord::COUNTER, ..keys.header };
        Ok(VolumeRecord::of_counter(self.current(&header, context).await?))
    }

    /// Moves a volume's record, if it is where it is expected to be.
    ///
    /// # Errors
    /// [`SealingError`]; [`SealError::Older`] where it is elsewhere.
    pub async fn move_volume_record(
        &self,
        keys: &VolumeKeys,
        context: &[u8],
        from: Option<VolumeRecord>,
        to: VolumeRecord,
    ) -> Result<(), SealingError> {
        let header = Header { counter: VolumeRecord::COUNTER, generation: to.counter(), ..keys.header };
        self.move_counter(&header, context, from.map_or(0, VolumeRecord::counter)).await
    }
}
