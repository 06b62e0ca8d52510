//! What can be revoked, and whom that touches.
//!
//! A revocation is one word and one value; both stand in the name of its row, so that a row whose content is damaged goes on
//! refusing. Trusts: the verified report and its leaf certificate. Never: admits anybody.

use core::{fmt, str::FromStr};

use coffer_verifier::{
    VerifiedReport,
    abi::{ChipId, KeyDigest, Measurement, ProductLine, ReportId, TcbVersion, WorkloadDigest},
};

/// One thing that counts no more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revoked {
    /// A processor, by CHIP_ID or by the hwID of its certificate.
    Chip(ChipId),
    /// A launch digest.
    Measurement(Measurement),
    /// A workload spec.
    Workload(WorkloadDigest),
    /// One guest.
    ReportId(ReportId),
    /// Firmware of a product at these levels and below.
    Tcb(TcbCeiling),
    /// An author or ID key, by its digest.
    Signer(KeyDigest),
}

/// REPORTED_TCB of a product is revoked where each level that is named is at or below the name. A level that is not named may
/// be any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TcbCeiling {
    /// Which product.
    pub product: ProductLine,
    /// FMC, boot loader, TEE, SNP, microcode.
    pub levels: [Option<u8>; 5],
}

/// Names of [`TcbCeiling::levels`].
const PARTS: [&str; 5] = ["fmc", "bootloader", "tee", "snp", "microcode"];

/// Why a value cannot be revoked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevokedError {
    /// No such kind.
    #[error("kind: expected chip, measurement, workload, report-id, tcb or signer")]
    Kind,
    /// Not a value of that kind.
    #[error("value: {0}")]
    Value(String),
    /// Stands for nothing.
    #[error("value: all zeros name nothing")]
    Zero,
}

impl Revoked {
    /// Words of the kinds.
    pub const KINDS: [&'static str; 6] = ["chip", "measurement", "workload", "report-id", "tcb", "signer"];

    /// From its word and value.
    ///
    /// # Errors
    /// [`RevokedError`].
    pub fn parse(kind: &str, value: &str) -> Result<Self, RevokedError> {
        fn of<T: FromStr<Err: fmt::Display>>(value: &str, zero: fn(&T) -> bool) -> Result<T, RevokedError> {
            let value = value.parse::<T>().map_err(|error| RevokedError::Value(error.to_string()))?;
            if zero(&value) { Err(RevokedError::Zero) } else { Ok(value) }
        }
        match kind {
            "chip" => {
                let chip = ChipId::of_text(value).map_err(|error| RevokedError::Value(error.to_string()))?;
                if chip.is_zero() { Err(RevokedError::Zero) } else { Ok(Self::Chip(chip)) }
            }
            "measurement" => of(value, Measurement::is_zero).map(Self::Measurement),
            "workload" => of(value, WorkloadDigest::is_zero).map(Self::Workload),
            "report-id" => of(value, ReportId::is_zero).map(Self::ReportId),
            "tcb" => value.parse().map(Self::Tcb),
            "signer" => of(value, KeyDigest::is_zero).map(Self::Signer),
            _ => Err(RevokedError::Kind),
        }
    }

    /// Its word.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Chip(_) => "chip",
            Self::Measurement(_) => "measurement",
            Self::Workload(_) => "workload",
            Self::ReportId(_) => "report-id",
            Self::Tcb(_) => "tcb",
            Self::Signer(_) => "signer",
        }
    }

    /// Its value, as [`Self::parse`] takes it.
    pub fn value(&self) -> String {
        match self {
            Self::Chip(chip) => chip.to_string(),
            Self::Measurement(measurement) => measurement.to_string(),
            Self::Workload(workload) => workload.to_string(),
            Self::ReportId(guest) => guest.to_string(),
            Self::Tcb(tcb) => tcb.to_string(),
            Self::Signer(key) => key.to_string(),
        }
    }

    /// True if it is about whoever bears these marks.
    pub fn touches(&self, marks: &Marks) -> bool {
        match self {
            Self::Chip(chip) => marks.chip == Some(*chip),
            Self::Measurement(measurement) => marks.measurement == *measurement,
            Self::Workload(workload) => marks.workload == *workload,
            Self::ReportId(guest) => marks.report_id == *guest,
            Self::Tcb(tcb) => tcb.covers(marks.product, marks.tcb),
            Self::Signer(key) => marks.signers.contains(key),
        }
    }
}

impl fmt::Display for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.value())
    }
}

impl TcbCeiling {
    fn covers(&self, product: ProductLine, tcb: TcbVersion) -> bool {
        let found = [tcb.fmc, Some(tcb.bootloader), Some(tcb.tee), Some(tcb.snp), Some(tcb.microcode)];
        // A level that the firmware does not have cannot be above one that is named.
        let at_or_below =
            |(found, most): (Option<u8>, &Option<u8>)| most.is_none_or(|most| found.is_none_or(|found| found <= most));
        product == self.product && found.into_iter().zip(&self.levels).all(at_or_below)
    }
}

impl FromStr for TcbCeiling {
    type Err = RevokedError;

    fn from_str(text: &str) -> Result<Self, RevokedError> {
        let expected = || {
            RevokedError::Value(
                "expected PRODUCT:PART=N, with parts fmc, bootloader, tee, snp and microcode, each once".to_owned(),
            )
        };
        let (product, parts) = text.split_once(':').ok_or_else(expected)?;
        let product = product
            .parse::<ProductLine>()
            .map_err(|_| RevokedError::Value("expected Milan, Genoa or Turin".to_owned()))?;
        let mut levels = [None; 5];
        for part in parts.split(',') {
            let (name, level) = part.split_once('=').ok_or_else(expected)?;
            let at = PARTS.iter().position(|part| *part == name).ok_or_else(expected)?;
            let level =
                level.parse::<u8>().map_err(|_| RevokedError::Value("expected a level of 0 to 255".to_owned()))?;
            if levels[at].replace(level).is_some() {
                return Err(expected());
            }
        }
        Ok(Self { product, levels })
    }
}

impl fmt::Display for TcbCeiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = PARTS.iter().zip(self.levels).filter_map(|(name, level)| Some(format!("{name}={}", level?)));
        write!(f, "{}:{}", self.product.name(), named.collect::<Vec<_>>().join(","))
    }
}

/// What a revocation can name of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// CHIP_ID, or the hwID of the certificate where the report masks it; nothing if neither shows the chip.
    pub chip: Option<ChipId>,
    /// MEASUREMENT.
    pub measurement: Measurement,
    /// HOST_DATA.
    pub workload: WorkloadDigest,
    /// REPORT_ID.
    pub report_id: ReportId,
    /// Product of the certificate.
    pub product: ProductLine,
    /// REPORTED_TCB.
    pub tcb: TcbVersion,
    /// Digests of ID key and author key, where there are such.
    pub signers: Vec<KeyDigest>,
}

impl Marks {
    /// Of a verified report.
    pub fn of(verified: &VerifiedReport) -> Self {
        let report = verified.report();
        let signers = [report.id_key_digest(), report.author_key_digest()];
        Self {
            chip: verified.chip(),
            measurement: report.measurement(),
            workload: WorkloadDigest::new(*report.host_data().as_bytes()),
            report_id: report.report_id(),
            product: verified.product(),
            tcb: verified.tcbs().reported,
            signers: signers.into_iter().filter(|key| !key.is_zero()).collect(),
        }
    }
}

/// Evidence that shows no chip, while chips are revoked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chipless {
    /// Is refused: it may hide one of them.
    #[default]
    Refused,
    /// Counts. Waived by name.
    AdmittedWhileChipsAreRevoked,
}

/// The one waiver.
const CHIPLESS: &str = "evidence-without-a-chip-counts-while-chips-are-revoked";

impl Chipless {
    /// From the waivers of a configuration.
    pub fn read(waivers: &[String], mistakes: &mut Vec<String>) -> Self {
        for (at, waiver) in waivers.iter().enumerate() {
            if waiver != CHIPLESS {
                mistakes.push(format!("revocation_waivers[{at}] is {waiver:?}, expected {CHIPLESS:?}"));
            } else if at > 0 {
                mistakes.push(format!("revocation_waivers[{at}] stands twice"));
            }
        }
        if waivers.is_empty() { Self::Refused } else { Self::AdmittedWhileChipsAreRevoked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_without_a_chip_is_waived_by_name_alone() {
        let read = |waivers: &[&str]| {
            let mut mistakes = Vec::new();
            let waivers: Vec<String> = waivers.iter().map(ToString::to_string).collect();
            (Chipless::read(&waivers, &mut mistakes), mistakes.len())
        };
        assert_eq!(read(&[]), (Chipless::Refused, 0));
        assert_eq!(read(&[CHIPLESS]), (Chipless::AdmittedWhileChipsAreRevoked, 0));
        assert_eq!((read(&["chipless"]).1, read(&[CHIPLESS, CHIPLESS]).1), (1, 1));
    }

    #[test]
    fn what_is_written_is_read() {
        for (kind, value) in [
            ("chip", "01".repeat(64)),
            ("measurement", "02".repeat(48)),
            ("workload", "03".repeat(32)),
            ("report-id", "04".repeat(32)),
            ("tcb", "Milan:bootloader=4,snp=24".to_owned()),
            ("signer", "05".repeat(48)),
        ] {
            let revoked = Revoked::parse(kind, &value).unwrap();
            assert_eq!((revoked.kind(), revoked.value()), (kind, value));
            assert!(Revoked::KINDS.contains(&kind));
            assert!(Revoked::parse(kind, "").is_err() && Revoked::parse(kind, "01").is_err());
        }
        assert_eq!(Revoked::parse("chip", &"00".repeat(64)), Err(RevokedError::Zero));
        assert_eq!(Revoked::parse("chip", &"00".repeat(8)), Err(RevokedError::Zero));
        // A Turin certificate has 8 bytes, and its reports zeros behind them.
        let whole = format!("{}{}", "01".repeat(8), "00".repeat(56));
        assert_eq!(Revoked::parse("chip", &"01".repeat(8)), Revoked::parse("chip", &whole));
        assert!(matches!(Revoked::parse("chip", &"01".repeat(9)), Err(RevokedError::Value(_))));
        assert_eq!(Revoked::parse("host", ""), Err(RevokedError::Kind));
        for bad in ["Milan", "Milan:", "Milan:snp", "Milan:snp=256", "Milan:snp=1,snp=2", "Rome:snp=1", "Milan:x=1"] {
            assert!(Revoked::parse("tcb", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tcb_is_revoked_at_and_below_what_is_named() {
        let tcb = |snp, microcode| TcbVersion { fmc: None, bootloader: 4, tee: 0, snp, microcode };
        let covers = |text: &str, tcb| text.parse::<TcbCeiling>().unwrap().covers(ProductLine::Milan, tcb);
        assert!(covers("Milan:snp=23", tcb(23, 255)) && covers("Milan:snp=23", tcb(1, 0)));
        assert!(!covers("Milan:snp=23", tcb(24, 0)));
        assert!(covers("Milan:snp=23,microcode=10", tcb(23, 10)));
        assert!(!covers("Milan:snp=23,microcode=10", tcb(23, 11)), "one newer part is another platform");
        assert!(!covers("Genoa:snp=23", tcb(1, 0)));
    }
}
