//! What the firmware is told to put into reports, changed in part and never by accident.
//!
//! `SNP_CONFIG` sets everything at once, so what is not to change is read first and told again. What could not be is refused
//! before the firmware is asked, and its own word afterwards is the answer.

use coffer_verifier::abi::{ProductLine, TcbError, TcbVersion};

use super::{Configuration, Firmware, FirmwareFault};

/// The TCB that reports are to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// What runs.
    Current,
    /// TCB_VERSION as one number.
    Raw(u64),
}

/// What is to change; the rest stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// Another TCB in reports.
    pub reported: Option<Reported>,
    /// Hide CHIP_ID, or show it.
    pub mask_chip_id: Option<bool>,
    /// Stop signing with the VCEK, or begin to.
    pub mask_chip_key: Option<bool>,
}

/// Why nothing changed, or why it is not known that something did.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Not a TCB_VERSION of this product line.
    #[error("for {product}")]
    Tcb {
        /// The line.
        product: ProductLine,
        /// What is wrong.
        source: TcbError,
    },
    /// Reports cannot claim more than what runs.
    #[error("the TCB to report ({wanted}) is above what runs here ({current})")]
    AboveCurrent {
        /// Asked for.
        wanted: TcbVersion,
        /// Running.
        current: TcbVersion,
    },
    /// The firmware refused.
    #[error(transparent)]
    Firmware(#[from] FirmwareFault),
    /// The firmware took it, and says something else.
    #[error("the firmware took the configuration and does not show it")]
    NotShown,
}

/// Changes what is named and gives what the firmware then says.
///
/// # Errors
/// [`ChangeError`].
pub fn change(
    firmware: &mut impl Firmware,
    product: ProductLine,
    change: Change,
) -> Result<Configuration, ChangeError> {
    let status = firmware.status()?;
    let now = Configuration::of(&status);
    let reported = match change.reported {
        None => now.reported,
        Some(Reported::Current) => status.current,
        Some(Reported::Raw(raw)) => {
            TcbVersion::from_raw(raw, product.tcb_layout()).map_err(|source| ChangeError::Tcb { product, source })?
        }
    };
    if !status.current.at_least(reported) {
        return Err(ChangeError::AboveCurrent { wanted: reported, current: status.current });
    }
    let wanted = Configuration {
        reported,
        mask_chip_id: change.mask_chip_id.unwrap_or(now.mask_chip_id),
        mask_chip_key: change.mask_chip_key.unwrap_or(now.mask_chip_key),
    };
    firmware.configure(wanted)?;
    let shown = Configuration::of(&firmware.status()?);
    if shown == wanted { Ok(shown) } else { Err(ChangeError::NotShown) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{PlatformState, Status};
    use coffer_verifier::abi::ChipId;

    const CURRENT: TcbVersion = TcbVersion { fmc: None, bootloader: 10, tee: 0, snp: 0x1b, microcode: 0x56 };

    /// Does as it is told, or does not.
    struct Fake {
        status: Status,
        told: Vec<Configuration>,
        deaf: bool,
        refuses: bool,
    }

    impl Fake {
        fn new() -> Self {
            let status = Status {
                api: (1, 55),
                build: 39,
                state: PlatformState::Initialised,
                rmp_initialised: true,
                alias_check_complete: true,
                guests: 0,
                mask_chip_id: false,
                mask_chip_key: true,
                vlek_loaded: false,
                current: CURRENT,
                reported: TcbVersion { snp: 0x17, ..CURRENT },
            };
            Self { status, told: Vec::new(), deaf: false, refuses: false }
        }

        fn change(&mut self, wish: Change) -> Result<Configuration, ChangeError> {
            change(self, ProductLine::Genoa, wish)
        }
    }

    impl Firmware for Fake {
        fn status(&mut self) -> Result<Status, FirmwareFault> {
            Ok(self.status.clone())
        }
        fn chip(&mut self) -> Result<ChipId, FirmwareFault> {
            unreachable!()
        }
        fn configure(&mut self, wanted: Configuration) -> Result<(), FirmwareFault> {
            if self.refuses {
                return Err(FirmwareFault::Refused { command: "SNP_CONFIG", said: "no".into(), state: false });
            }
            self.told.push(wanted);
            if !self.deaf {
                let Configuration { reported, mask_chip_id, mask_chip_key } = wanted;
                self.status = Status { mask_chip_id, mask_chip_key, reported, ..self.status.clone() };
            }
            Ok(())
        }
        fn commit(&mut self) -> Result<(), FirmwareFault> {
            unreachable!()
        }
        fn load_vlek(&mut self, _: &[u8]) -> Result<(), FirmwareFault> {
            unreachable!()
        }
    }

    #[test]
    fn what_is_not_named_is_told_again_as_it_was() {
        let before = Configuration::of(&Fake::new().status);
        for (wish, after) in [
            (Change { mask_chip_id: Some(true), ..Change::default() }, Configuration { mask_chip_id: true, ..before }),
            (
                Change { mask_chip_key: Some(false), ..Change::default() },
                Configuration { mask_chip_key: false, ..before },
            ),
            (
                Change { reported: Some(Reported::Current), ..Change::default() },
                Configuration { reported: CURRENT, ..before },
            ),
            (
                Change { reported: Some(Reported::Raw(0x5517_0000_0000_000a)), ..Change::default() },
                Configuration { reported: TcbVersion { snp: 0x17, microcode: 0x55, ..CURRENT }, ..before },
            ),
        ] {
            let mut fake = Fake::new();
            assert_eq!(fake.change(wish).unwrap(), after);
            assert_eq!(fake.told, [after]);
        }
    }

    #[test]
    fn what_cannot_be_is_never_asked_of_the_firmware() {
        let raw = |raw| Change { reported: Some(Reported::Raw(raw)), ..Change::default() };
        let mut fake = Fake::new();
        // One part above is above, though the field as one number is smaller than what runs.
        assert!(matches!(fake.change(raw(0x0000_0000_0000_000b)), Err(ChangeError::AboveCurrent { .. })));
        // Bytes that this line reserves: another line's layout.
        assert!(matches!(fake.change(raw(0x5600_0000_1b00_0a00)), Err(ChangeError::Tcb { .. })));
        assert_eq!(fake.told, []);
    }

    #[test]
    fn the_answer_is_what_the_firmware_says_and_not_what_it_was_told() {
        let wish = Change { mask_chip_id: Some(true), ..Change::default() };
        let mut deaf = Fake { deaf: true, ..Fake::new() };
        assert!(matches!(deaf.change(wish), Err(ChangeError::NotShown)));
        let mut refuses = Fake { refuses: true, ..Fake::new() };
        assert!(matches!(refuses.change(wish), Err(ChangeError::Firmware(FirmwareFault::Refused { .. }))));
    }
}
