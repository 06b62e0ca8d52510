//! The words of AMD's SNP firmware ABI that every part of Coffer shares.

mod processor;
mod words;

pub use processor::{
    DerivedKey, ExtendedReport, GuestFieldSelect, KeyRequest, KeySelect, ProcessorError, ReportRequest, RootKey,
    SecureProcessor,
};
pub use words::{
    ChipId, HostData, KeyDigest, Measurement, ReportData, ReportId, SpkiDigest, WordError, WorkloadDigest,
};
