//! What a launch may choose: platform state and how reports look.

use coffer_verifier::abi::{Cpuid, FirmwareVersion, ProductLine, ReportId, TcbVersion};

/// TCB versions of a platform: reported ≤ committed ≤ current, launch ≤ current. A launch, or a platform that changes under a
/// guest, is refused where this does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcbState {
    /// What runs now.
    pub current: TcbVersion,
    /// Anti-rollback floor.
    pub committed: TcbVersion,
    /// Current when the guest was launched.
    pub launch: TcbVersion,
    /// What the endorsement key is made for.
    pub reported: TcbVersion,
}

impl TcbState {
    /// All four the same.
    pub const fn all(tcb: TcbVersion) -> Self {
        Self { current: tcb, committed: tcb, launch: tcb, reported: tcb }
    }

    /// DOWNLOAD_FIRMWARE: `current` runs from now on, provisionally until [`TcbState::commit`].
    #[must_use]
    pub const fn run(self, current: TcbVersion) -> Self {
        Self { current, ..self }
    }

    /// SNP_COMMIT: what runs is the floor from now on, and what reports state.
    #[must_use]
    pub const fn commit(self) -> Self {
        Self { committed: self.current, reported: self.current, ..self }
    }

    /// SNP_CONFIG: reports state `reported` from now on, so that a fleet with older certificates goes on.
    #[must_use]
    pub const fn report_as(self, reported: TcbVersion) -> Self {
        Self { reported, ..self }
    }
}

/// Platform and guest as SNP_LAUNCH_START finds them.
#[derive(Clone, Debug)]
pub struct LaunchOptions {
    /// Product line.
    pub product: ProductLine,
    /// Report version, 2 to 5; Turin from 3.
    pub report_version: u32,
    /// Guest policy.
    pub policy: u64,
    /// PLATFORM_INFO.
    pub platform_info: u64,
    /// TCB state.
    pub tcb: TcbState,
    /// CPUID in reports from version 3 on.
    pub cpuid: Cpuid,
    /// Current and committed firmware version.
    pub firmware: FirmwareVersion,
    /// CHIP_ID is zero in reports.
    pub mask_chip_id: bool,
    /// Reports carry no signature.
    pub mask_chip_key: bool,
    /// A VLEK of this provider is installed, such as `CN=example`.
    pub vlek: Option<String>,
    /// REPORT_ID_MA; all ones without migration agent.
    pub report_id_ma: ReportId,
    /// LAUNCH_MIT_VECTOR, from version 5 on.
    pub launch_mit_vector: u64,
    /// CURRENT_MIT_VECTOR, from version 5 on.
    pub current_mit_vector: u64,
    /// Unix seconds: certificates and CRL are issued for this moment.
    pub now: u64,
}

impl LaunchOptions {
    /// A well-kept platform of `product` at `now` (Unix seconds), report version 3, on Turin 5.
    pub const fn new(product: ProductLine, now: u64) -> Self {
        let turin = matches!(product, ProductLine::Turin);
        Self {
            product,
            report_version: if turin { 5 } else { 3 },
            policy: 0x3_0000,
            // SMT, ECC, alias check complete; on Turin also the IOMMU write check.
            platform_info: if turin { 0x65 } else { 0x25 },
            tcb: TcbState::all(default_tcb(product)),
            cpuid: default_cpuid(product),
            firmware: FirmwareVersion { major: 1, minor: 58, build: 1 },
            mask_chip_id: false,
            mask_chip_key: false,
            vlek: None,
            report_id_ma: ReportId::new([0xff; 32]),
            launch_mit_vector: if turin { 0x3f } else { 0x0b },
            current_mit_vector: if turin { 0x3f } else { 0x0b },
            now,
        }
    }
}

/// Patch levels of a well-kept fleet.
pub const fn default_tcb(product: ProductLine) -> TcbVersion {
    match product {
        ProductLine::Milan => TcbVersion { fmc: None, bootloader: 0x04, tee: 0, snp: 0x1b, microcode: 0xde },
        ProductLine::Genoa => TcbVersion { fmc: None, bootloader: 0x0a, tee: 0, snp: 0x1b, microcode: 0x56 },
        ProductLine::Turin => TcbVersion { fmc: Some(1), bootloader: 1, tee: 1, snp: 4, microcode: 0x51 },
    }
}

/// Family, model and stepping of the simulated part: Milan B1, Genoa B1, Turin C1.
pub const fn default_cpuid(product: ProductLine) -> Cpuid {
    match product {
        ProductLine::Milan => Cpuid { family: 0x19, model: 0x01, stepping: 0x01 },
        ProductLine::Genoa => Cpuid { family: 0x19, model: 0x11, stepping: 0x01 },
        ProductLine::Turin => Cpuid { family: 0x1a, model: 0x02, stepping: 0x01 },
    }
}
