//! The words of AMD's SNP firmware ABI that every part of Coffer shares.

mod cert_table;
mod fields;
pub mod message;
mod processor;
mod product;
pub mod report;
mod tcb;
mod words;

pub use cert_table::{CertKind, CertTable, CertTableError};
pub use fields::{GuestPolicy, KeyInfo, KeyInfoError, PlatformBit, PlatformInfo, PolicyBit, PolicyError, SigningKey};
pub use processor::{
    DerivedKey, ExtendedReport, GuestFieldSelect, KeyRequest, KeySelect, ProcessorError, ReportRequest, RootKey,
    SecureProcessor,
};
pub use product::{ProductLine, TcbLayout, UnknownProduct};
pub use report::{Cpuid, FirmwareVersion, REPORT_LEN, Report, ReportError, ReportTcbs, SIGNED_LEN};
pub use tcb::{TcbError, TcbVersion};
pub use words::{
    ChipId, FamilyId, HostData, ImageId, KeyDigest, Measurement, ReportData, ReportId, SpkiDigest, WordError,
    WorkloadDigest,
};
