//! The SNP firmware's commands of a host, through `/dev/sev` and crate `sev`.
//!
//! Source: SEV-SNP firmware ABI, `SNP_PLATFORM_STATUS`, `SNP_CONFIG`, `SNP_COMMIT`, `SNP_VLEK_LOAD`, `GET_ID`; Linux
//! `include/uapi/linux/psp-sev.h`.

use coffer_verifier::abi::{ChipId, ProductLine, TcbVersion};
use serde::Serialize;
use sev::error::{FirmwareError, SevError, UserApiError};
use sev::firmware::host::{Config, MaskId, SnpPlatformStatus, WrappedVlekHashstick};
use sev::parser::ByteParser as _;

use super::Processor;

/// What the firmware says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Version of the firmware's interface, major and minor.
    pub api: (u8, u8),
    /// Build of the firmware.
    pub build: u32,
    /// Whether `SNP_INIT` was done.
    pub state: PlatformState,
    /// The reverse map table is set up.
    pub rmp_initialised: bool,
    /// The firmware looked for memory that answers at two addresses (BadRAM) and found none.
    pub alias_check_complete: bool,
    /// Guests the firmware holds.
    pub guests: u32,
    /// Reports show no CHIP_ID.
    pub mask_chip_id: bool,
    /// Reports are not signed by the VCEK.
    pub mask_chip_key: bool,
    /// A VLEK is loaded, and signs where a guest asks for it.
    pub vlek_loaded: bool,
    /// What runs.
    pub current: TcbVersion,
    /// What reports say, and what the VCEK is derived from.
    pub reported: TcbVersion,
}

/// What `SNP_CONFIG` sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Configuration {
    /// What reports are to say.
    pub reported: TcbVersion,
    /// Show no CHIP_ID in reports.
    pub mask_chip_id: bool,
    /// Sign nothing with the VCEK.
    pub mask_chip_key: bool,
}

impl Configuration {
    /// As the platform is now.
    pub const fn of(status: &Status) -> Self {
        let Status { reported, mask_chip_id, mask_chip_key, .. } = *status;
        Self { reported, mask_chip_id, mask_chip_key }
    }
}

/// State of the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PlatformState {
    /// Before `SNP_INIT`, or after `SNP_SHUTDOWN`.
    Uninitialised,
    /// Guests can be launched.
    Initialised,
    /// A number the ABI has no name for.
    Unknown(u8),
}

/// The firmware, or what stands in for it in a test.
pub trait Firmware {
    /// `SNP_PLATFORM_STATUS`.
    ///
    /// # Errors
    /// [`FirmwareFault`].
    fn status(&mut self) -> Result<Status, FirmwareFault>;

    /// `GET_ID`: CHIP_ID as an unmasked report shows it.
    ///
    /// # Errors
    /// [`FirmwareFault`].
    fn chip(&mut self) -> Result<ChipId, FirmwareFault>;

    /// `SNP_CONFIG`.
    ///
    /// # Errors
    /// [`FirmwareFault`].
    fn configure(&mut self, configuration: Configuration) -> Result<(), FirmwareFault>;

    /// `SNP_COMMIT`: the platform can never again run firmware below what runs now.
    ///
    /// # Errors
    /// [`FirmwareFault`].
    fn commit(&mut self) -> Result<(), FirmwareFault>;

    /// `SNP_VLEK_LOAD`: the hashstick as the cloud provider got it from AMD.
    ///
    /// # Errors
    /// [`FirmwareFault`].
    fn load_vlek(&mut self, hashstick: &[u8]) -> Result<(), FirmwareFault>;
}

/// Why the firmware did not answer.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareFault {
    /// The device does not open.
    #[error("/dev/sev does not open")]
    Open(#[source] std::io::Error),
    /// The processor is none with SEV-SNP that this version knows.
    #[error(
        "this processor is of no product line with SEV-SNP that is known here: {vendor} family {family:#x} model {model:#x}"
    )]
    Processor {
        /// Its vendor.
        vendor: String,
        /// Its family.
        family: u8,
        /// Its model.
        model: u8,
    },
    /// The firmware or the kernel refused.
    #[error("{command}: {said}")]
    Refused {
        /// Name of the command in the ABI.
        command: &'static str,
        /// The firmware's word.
        said: String,
        /// It is its own state that forbids the command.
        state: bool,
    },
    /// It answered in no form the ABI has.
    #[error("{command}: the answer is of no form that is known here: {why}")]
    Answer {
        /// Name of the command in the ABI.
        command: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The file is no hashstick.
    #[error("this is no VLEK hashstick: {found} bytes, and one has {VLEK_HASHSTICK}")]
    Hashstick {
        /// Bytes found.
        found: usize,
    },
}

/// Length of a wrapped VLEK hashstick. Source: SNP ABI, `SNP_VLEK_LOAD`.
pub const VLEK_HASHSTICK: usize = 432;

/// The firmware behind `/dev/sev`.
pub struct Device {
    firmware: sev::firmware::host::Firmware,
    product: ProductLine,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Device(/dev/sev)")
    }
}

impl Device {
    /// Opens it, on a processor that is known. (Crate `sev` reads the layout of a TCB_VERSION off the processor, too.)
    ///
    /// # Errors
    /// [`FirmwareFault`].
    pub fn open(processor: &Processor) -> Result<Self, FirmwareFault> {
        let Processor { family, model, .. } = *processor;
        let unknown = || FirmwareFault::Processor { vendor: processor.vendor.clone(), family, model };
        let product = processor.product.ok_or_else(unknown)?;
        let firmware = sev::firmware::host::Firmware::open().map_err(FirmwareFault::Open)?;
        Ok(Self { firmware, product })
    }

    /// Line of the processor.
    pub const fn product(&self) -> ProductLine {
        self.product
    }
}

impl Firmware for Device {
    fn status(&mut self) -> Result<Status, FirmwareFault> {
        const COMMAND: &str = "SNP_PLATFORM_STATUS";
        Ok(status_of(&self.firmware.snp_platform_status().map_err(|error| refused(COMMAND, &error))?))
    }

    fn chip(&mut self) -> Result<ChipId, FirmwareFault> {
        const COMMAND: &str = "GET_ID";
        let found = self.firmware.get_identifier().map_err(|error| refused(COMMAND, &error))?.0;
        chip_of(&found).ok_or_else(|| FirmwareFault::Answer { command: COMMAND, why: format!("{} bytes", found.len()) })
    }

    fn configure(&mut self, configuration: Configuration) -> Result<(), FirmwareFault> {
        const COMMAND: &str = "SNP_CONFIG";
        let config = config_of(configuration)
            .map_err(|error| FirmwareFault::Answer { command: COMMAND, why: error.to_string() })?;
        self.firmware.snp_set_config(config).map_err(|error| refused(COMMAND, &error))
    }

    fn commit(&mut self) -> Result<(), FirmwareFault> {
        self.firmware.snp_commit().map_err(|error| refused("SNP_COMMIT", &error))
    }

    fn load_vlek(&mut self, hashstick: &[u8]) -> Result<(), FirmwareFault> {
        const COMMAND: &str = "SNP_VLEK_LOAD";
        if hashstick.len() != VLEK_HASHSTICK {
            return Err(FirmwareFault::Hashstick { found: hashstick.len() });
        }
        let answer = |error: std::io::Error| FirmwareFault::Answer { command: COMMAND, why: error.to_string() };
        let line = sev::Generation::identify_host_generation().map_err(answer)?;
        let wrapped = WrappedVlekHashstick::from_bytes_with(hashstick, line).map_err(answer)?;
        self.firmware.snp_vlek_load(wrapped).map_err(|error| refused(COMMAND, &error))
    }
}

/// GET_ID gives the eight bytes of Turin's hwID padded to 64, as CHIP_ID has them.
fn chip_of(found: &[u8]) -> Option<ChipId> {
    let mut chip = [0; 64];
    chip.get_mut(..found.len())?.copy_from_slice(found);
    (!found.is_empty()).then(|| ChipId::new(chip))
}

fn status_of(found: &SnpPlatformStatus) -> Status {
    let policy = found.platform_policy;
    Status {
        api: found.version,
        build: found.build_id,
        state: match found.state {
            0 => PlatformState::Uninitialised,
            1 => PlatformState::Initialised,
            other => PlatformState::Unknown(other),
        },
        rmp_initialised: found.is_rmp_init.is_rmp_init(),
        alias_check_complete: found.is_rmp_init.alias_check_complete(),
        guests: found.guest_count,
        mask_chip_id: policy.mask_chip_id(),
        mask_chip_key: policy.mask_chip_key(),
        vlek_loaded: policy.vlek_en(),
        current: tcb_of(found.platform_tcb_version),
        reported: tcb_of(found.reported_tcb_version),
    }
}

const fn tcb_of(found: sev::firmware::host::TcbVersion) -> TcbVersion {
    let sev::firmware::host::TcbVersion { fmc, bootloader, tee, snp, microcode } = found;
    TcbVersion { fmc, bootloader, tee, snp, microcode }
}

fn config_of(wanted: Configuration) -> Result<Config, std::io::Error> {
    let TcbVersion { fmc, bootloader, tee, snp, microcode } = wanted.reported;
    let reported = sev::firmware::host::TcbVersion { fmc, bootloader, tee, snp, microcode };
    let mask = u32::from(wanted.mask_chip_id) | u32::from(wanted.mask_chip_key) << 1;
    Ok(Config::new(reported, MaskId::from_bytes(&mask.to_le_bytes())?))
}

fn refused(command: &'static str, error: &UserApiError) -> FirmwareFault {
    let state = matches!(
        error,
        UserApiError::FirmwareError(FirmwareError::KnownSevError(
            SevError::InvalidPlatformState | SevError::InvalidConfig
        ))
    );
    FirmwareFault::Refused { command, said: error.to_string(), state }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sev::Generation;

    /// `STRUCT_PLATFORM_STATUS` of a Genoa, byte by byte as the ABI's table has it.
    fn genoa() -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[0..4].copy_from_slice(&[1, 55, 1, 0b11]);
        bytes[4..8].copy_from_slice(&39_u32.to_le_bytes());
        bytes[8..12].copy_from_slice(&0b101_u32.to_le_bytes());
        bytes[12..16].copy_from_slice(&7_u32.to_le_bytes());
        bytes[16..24].copy_from_slice(&[10, 0, 0, 0, 0, 0, 0x1b, 0x56]);
        bytes[24..32].copy_from_slice(&[9, 0, 0, 0, 0, 0, 0x17, 0x54]);
        bytes
    }

    fn status() -> Status {
        status_of(&SnpPlatformStatus::from_bytes_with(&genoa(), Generation::Genoa).unwrap())
    }

    #[test]
    fn a_status_is_read_field_by_field() {
        let found = status();
        assert_eq!((found.api, found.build, found.guests), ((1, 55), 39, 7));
        assert_eq!(found.state, PlatformState::Initialised);
        assert!(found.rmp_initialised && found.alias_check_complete);
        assert!(found.mask_chip_id && !found.mask_chip_key && found.vlek_loaded);
        assert_eq!(found.current.to_string(), "bl 0x0a tee 0x00 snp 0x1b ucode 0x56");
        assert_eq!(found.reported.to_string(), "bl 0x09 tee 0x00 snp 0x17 ucode 0x54");
    }

    #[test]
    fn each_mask_is_the_bit_the_firmware_reads_and_says_again() {
        for (mask_chip_id, mask_chip_key, bits) in
            [(false, false, 0), (true, false, 1), (false, true, 2), (true, true, 3)]
        {
            let wanted = Configuration { mask_chip_id, mask_chip_key, ..Configuration::of(&status()) };
            let config = config_of(wanted).unwrap();
            let mask = config.mask_id;
            assert_eq!(mask.to_bytes().unwrap(), u32::to_le_bytes(bits));
            let reported = config.reported_tcb;
            assert_eq!(tcb_of(reported), wanted.reported);
        }
    }

    #[test]
    fn turins_short_identifier_is_a_chip_id() {
        assert_eq!(chip_of(&[1; 8]).unwrap().as_bytes()[..9], [1, 1, 1, 1, 1, 1, 1, 1, 0]);
        assert_eq!(chip_of(&[2; 64]).unwrap().as_bytes(), &[2; 64]);
        assert!(chip_of(&[0; 65]).is_none() && chip_of(&[]).is_none());
    }
}
