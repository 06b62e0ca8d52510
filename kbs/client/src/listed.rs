//! A list of something at the broker: what is damaged hides nothing else, and nobody gets around seeing that it is there.

/// What there is, and what is not believed of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// Whatever is believed.
    pub rows: Vec<T>,
    /// Rows that are not, in words.
    pub damaged: Vec<String>,
}

impl<T> Listed<T> {
    /// Of rows as they travelled.
    pub(crate) fn read<W, E>(
        rows: Vec<W>,
        damaged: Vec<String>,
        read: impl FnMut(W) -> Result<T, E>,
    ) -> Result<Self, E> {
        Ok(Self { rows: rows.into_iter().map(read).collect::<Result<_, _>>()?, damaged })
    }
}
