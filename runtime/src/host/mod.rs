//! The machine that is to run SEV-SNP guests: what it needs for that, what its firmware says and can be told, and the
//! certificates of its chip.
//!
//! Trusts: nothing of it for a decision about a guest. All of this is the host's word to its own operator; what a relying
//! party believes stands in a signed report.
//! Never: changes the firmware's configuration or commits to it unless asked for just that.

pub mod certificates;
pub mod configuration;
pub mod firmware;
pub mod minimum;
pub mod needs;
pub mod processor;

pub use certificates::{CertificatesError, HostCertificates};
pub use configuration::{Change, ChangeError, Reported, change};
pub use firmware::{Configuration, Device, Firmware, FirmwareFault, PlatformState, Status};
pub use minimum::{Level, Minimum};
pub use needs::{Facts, Need, needs};
pub use processor::Processor;
