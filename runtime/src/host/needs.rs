//! Everything a machine needs to launch SEV-SNP guests, each with what to do where it is missing.
//!
//! Facts are gathered in one place and judged in another that reads nothing, so that every answer has a test.
//! Sources: AMD 58207 (Using SEV with AMD EPYC Processors), Linux `Documentation/virt/kvm/x86/amd-memory-encryption.rst`.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use coffer_rim::{Class, Failure};
use flate2::read::GzDecoder;
use serde::Serialize;

use super::{Minimum, PlatformState, Processor, Status, minimum};

/// The kernel that first launches SNP guests.
const KERNEL: (u32, u32) = (6, 11);

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The processor.
    pub processor: Processor,
    /// `uname -r`.
    pub kernel: String,
    /// What the kernel's configuration says of `CONFIG_KVM_AMD_SEV`; none where nobody kept one.
    pub built_with_sev: Option<bool>,
    /// `/sys/module/kvm_amd/parameters/sev_snp`; none without the module.
    pub parameter: Option<String>,
    /// Opening `/dev/sev`: none if it opens.
    pub sev: Option<io::ErrorKind>,
    /// Opening `/dev/kvm`.
    pub kvm: Option<io::ErrorKind>,
    /// The firmware's answer, where it was asked and answered.
    pub status: Option<Status>,
    /// Version of QEMU, where there is one.
    pub qemu: Option<(u32, u32)>,
}

impl Facts {
    /// Reads them; the firmware is not asked.
    pub fn gather() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).ok();
        let opens = |path: &str| {
            let opened = std::fs::OpenOptions::new().read(true).write(true).open(Path::new(path));
            match opened.and_then(|file| file.metadata()) {
                Ok(found) if found.file_type().is_char_device() => None,
                Ok(_) => Some(io::ErrorKind::Unsupported),
                Err(error) => Some(error.kind()),
            }
        };
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        Self {
            processor: Processor::from_cpuinfo(&text("/proc/cpuinfo").unwrap_or_default()),
            built_with_sev: kernel_config(&kernel).map(|config| has_sev(&config)),
            kernel,
            parameter: text("/sys/module/kvm_amd/parameters/sev_snp").map(|value| value.trim().to_owned()),
            sev: opens("/dev/sev"),
            kvm: opens("/dev/kvm"),
            status: None,
            qemu: None,
        }
    }
}

/// One thing that is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Need {
    /// Its name.
    pub what: &'static str,
    /// It is there.
    pub met: bool,
    /// What was found.
    pub found: String,
    /// Guests are launched without it too, in another way.
    pub optional: bool,
    /// What helps where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
}

impl Need {
    /// Nothing is launched without it, and it is not there.
    pub fn is_missing(&self) -> bool {
        !self.met && !self.optional
    }
}

/// Judges the facts. A thing that cannot be known before another is met is not met: no fact is taken for granted.
pub fn needs(facts: &Facts) -> Vec<Need> {
    let mut all = launch_needs(facts);
    all.extend(firmware(facts));
    let qemu = need(
        "qemu",
        facts.qemu.is_some_and(|found| found >= (9, 1)),
        facts.qemu.map_or_else(|| "none found".to_owned(), |(major, minor)| format!("QEMU {major}.{minor}")),
        "to launch through QEMU it must be 9.1 or later; our own monitor needs none",
    );
    all.push(Need { optional: true, ..qemu });
    all
}

/// What every launch needs of processor, kernel and devices, whichever monitor does it and whatever its firmware's TCB.
pub fn launch_needs(facts: &Facts) -> Vec<Need> {
    let Facts { processor, kernel, built_with_sev, .. } = facts;
    // Some clouds let their guests launch SNP guests; the flags below say whether this is one.
    let virtual_one = if processor.hypervisor { ", in a virtual machine" } else { "" };
    vec![
        need(
            "processor",
            processor.product.is_some(),
            processor.product.map_or_else(
                || format!("{} family {:#x} model {:#x}", shown(&processor.vendor), processor.family, processor.model),
                |product| {
                    format!("{product}, family {:#x} model {:#x}{virtual_one}", processor.family, processor.model)
                },
            ),
            "SEV-SNP needs an AMD EPYC of the lines Milan (7003), Genoa (9004) or Turin (9005), not hidden by a hypervisor",
        ),
        need(
            "firmware set-up",
            processor.sme && processor.sev && processor.sev_es && processor.sev_snp,
            flags(processor),
            "in the firmware set-up (BIOS) turn on SMEE, SEV-ES (with an ASID space limit above 1), SEV-SNP support, SNP memory coverage (the RMP table) and the IOMMU; boot without `iommu=pt`, `amd_iommu=off` and `mem_encrypt=off`. A virtual machine has none of it",
        ),
        need(
            "kernel",
            // Where no configuration is kept, the parameter of kvm_amd below is what says it.
            version(kernel).is_some_and(|found| found >= KERNEL) && *built_with_sev != Some(false),
            match built_with_sev {
                Some(true) => format!("Linux {}, with CONFIG_KVM_AMD_SEV", shown(kernel)),
                Some(false) => format!("Linux {}, built without CONFIG_KVM_AMD_SEV", shown(kernel)),
                None => format!("Linux {}, whose configuration is kept nowhere", shown(kernel)),
            },
            "Linux 6.11 or later, with CONFIG_KVM_AMD_SEV",
        ),
        need(
            "kvm_amd",
            facts.parameter.as_deref() == Some("Y"),
            facts.parameter.as_deref().map_or_else(
                || "the module is not loaded".to_owned(),
                |value| format!("its parameter sev_snp is {}", shown(value)),
            ),
            "`modprobe kvm_amd sev=1 sev_es=1 sev_snp=1`; if sev_snp stays N, the kernel's log says why (`dmesg | grep -i -e sev -e snp -e rmp`)",
        ),
        device("/dev/kvm", facts.kvm, "load kvm_amd", "join the group kvm"),
        device(
            "/dev/sev",
            facts.sev,
            "load the module ccp; without SEV in the firmware set-up it makes no device",
            "become root, or join the group that /dev/sev belongs to",
        ),
    ]
}

/// Whether a guest can be launched by these facts.
///
/// # Errors
/// Class `platform`: the first thing that is missing, with its remedy.
pub fn can_launch(facts: &Facts) -> Result<(), Failure> {
    let Some(need) = launch_needs(facts).into_iter().find(|need| !need.met) else { return Ok(()) };
    let failure = Failure::new(Class::Platform, format!("SEV-SNP needs {}: {}", need.what, need.found));
    Err(match need.remedy {
        Some(remedy) => failure.hint(remedy),
        None => failure,
    })
}

fn firmware(facts: &Facts) -> Vec<Need> {
    const INITIALISED: &str = "initialised";
    const MINIMA: &str = "minimum TCB";
    let unknown = |what| {
        let found = "not known: the firmware was not asked, or did not answer".into();
        need(what, false, found, "meet what is missing above, and run this as root")
    };
    let Some(status) = &facts.status else { return vec![unknown(INITIALISED), unknown(MINIMA)] };
    let minimum = Minimum::of(&facts.processor);
    let short: Vec<_> = minimum::levels(status.current, status.reported, minimum.as_ref())
        .into_iter()
        .filter(|level| !level.enough)
        .map(|level| format!("{} {:#04x} below {:#04x}", level.part, level.reported, level.minimum))
        .collect();
    let set_up = if status.rmp_initialised { "set up" } else { "not set up" };
    vec![
        need(
            INITIALISED,
            status.state == PlatformState::Initialised && status.rmp_initialised,
            format!(
                "SNP firmware {}.{} build {}, reverse map table {set_up}",
                status.api.0, status.api.1, status.build
            ),
            "the firmware's SNP_INIT failed or was not run: turn on SNP memory coverage, boot again, read `dmesg | grep -i -e ccp -e snp`",
        ),
        need(
            MINIMA,
            minimum.is_some() && short.is_empty(),
            match (&minimum, short.is_empty()) {
                (None, _) => "no published minimum for this model and stepping: the policy `strict` refuses it".into(),
                (Some(minimum), true) => format!("reported {} ({})", status.reported, minimum.source()),
                (Some(_), false) => short.join(", "),
            },
            "install the newest firmware (BIOS) of the board's maker; guests with `strict` are refused until then",
        ),
    ]
}

fn device(what: &'static str, error: Option<io::ErrorKind>, absent: &'static str, closed: &'static str) -> Need {
    let (found, remedy) = match error {
        None => ("opens", ""),
        Some(io::ErrorKind::NotFound) => ("is not there", absent),
        Some(io::ErrorKind::PermissionDenied) => ("may not be opened by this user", closed),
        Some(io::ErrorKind::Unsupported) => ("is no device", absent),
        Some(_) => ("does not open", absent),
    };
    need(what, error.is_none(), found.into(), remedy)
}

/// The one place that says what is met: whatever has a remedy is not.
fn need(what: &'static str, met: bool, found: String, remedy: &'static str) -> Need {
    Need { what, met, found, optional: false, remedy: (!met).then_some(remedy) }
}

fn flags(processor: &Processor) -> String {
    let Processor { sme, sev, sev_es, sev_snp, .. } = *processor;
    let words = [("sme", sme), ("sev", sev), ("sev_es", sev_es), ("sev_snp", sev_snp)];
    let word = |wanted: bool| {
        words.iter().filter(|(_, has)| *has == wanted).map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    };
    match (word(true), word(false)) {
        (there, missing) if missing.is_empty() => format!("the kernel uses {there}"),
        (_, missing) => format!("the kernel does not have {missing}"),
    }
}

/// Major and minor of `6.12.57+deb13-amd64` or `9.2.0`.
pub fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|found: char| !found.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The configuration that this kernel was built with: its own copy, or its package's.
fn kernel_config(release: &str) -> Option<String> {
    let own = std::fs::File::open("/proc/config.gz").ok().and_then(|file| unpacked(file).ok());
    own.or_else(|| std::fs::read_to_string(format!("/boot/config-{release}")).ok())
}

fn unpacked(packed: impl io::Read) -> io::Result<String> {
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(GzDecoder::new(packed), CONFIG), &mut text)?;
    Ok(text)
}

/// More than any configuration has.
const CONFIG: u64 = 4 << 20;

fn has_sev(config: &str) -> bool {
    config.lines().any(|line| line == "CONFIG_KVM_AMD_SEV=y")
}

fn shown(text: &str) -> &str {
    if text.is_empty() { "(nothing)" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_verifier::abi::{ProductLine, TcbVersion};

    fn complete() -> Facts {
        let tcb = TcbVersion { fmc: None, bootloader: 10, tee: 0, snp: 0x1b, microcode: 0x56 };
        Facts {
            processor: Processor {
                vendor: "AuthenticAMD".into(),
                family: 0x19,
                model: 0x11,
                stepping: 1,
                product: Some(ProductLine::Genoa),
                sme: true,
                sev: true,
                sev_es: true,
                sev_snp: true,
                hypervisor: false,
            },
            kernel: "6.12.57+deb13-amd64".into(),
            built_with_sev: Some(true),
            parameter: Some("Y".into()),
            sev: None,
            kvm: None,
            status: Some(Status {
                api: (1, 55),
                build: 39,
                state: PlatformState::Initialised,
                rmp_initialised: true,
                alias_check_complete: true,
                guests: 0,
                mask_chip_id: false,
                mask_chip_key: false,
                vlek_loaded: false,
                current: tcb,
                reported: tcb,
            }),
            qemu: Some((10, 0)),
        }
    }

    fn missing(facts: &Facts) -> Vec<&'static str> {
        let all = needs(facts);
        assert!(all.iter().all(|need| need.met == need.remedy.is_none()), "{all:?}");
        all.into_iter().filter(|need| !need.met).map(|need| need.what).collect()
    }

    #[test]
    fn a_host_that_has_everything_misses_nothing() {
        assert_eq!(missing(&complete()), [""; 0]);
    }

    #[test]
    fn each_thing_that_is_missing_is_named_alone() {
        type Break = fn(&mut Facts);
        let cases: [(&str, Break); 15] = [
            ("processor", |facts| facts.processor.product = None),
            ("firmware set-up", |facts| facts.processor.sme = false),
            ("firmware set-up", |facts| facts.processor.sev_es = false),
            ("firmware set-up", |facts| facts.processor.sev_snp = false),
            ("kernel", |facts| facts.kernel = "6.10.99".into()),
            ("kernel", |facts| facts.kernel = "rubbish".into()),
            ("kernel", |facts| facts.built_with_sev = Some(false)),
            ("kvm_amd", |facts| facts.parameter = Some("N".into())),
            ("kvm_amd", |facts| facts.parameter = None),
            ("/dev/kvm", |facts| facts.kvm = Some(io::ErrorKind::NotFound)),
            ("/dev/sev", |facts| facts.sev = Some(io::ErrorKind::PermissionDenied)),
            ("initialised", |facts| facts.status.as_mut().unwrap().rmp_initialised = false),
            ("initialised", |facts| facts.status.as_mut().unwrap().state = PlatformState::Unknown(9)),
            ("minimum TCB", |facts| facts.status.as_mut().unwrap().reported.snp = 0x1a),
            ("qemu", |facts| facts.qemu = Some((9, 0))),
        ];
        for (what, break_it) in cases {
            let mut facts = complete();
            break_it(&mut facts);
            // Without a product line there is no minimum either.
            let expected = if what == "processor" { vec![what, "minimum TCB"] } else { vec![what] };
            assert_eq!(missing(&facts), expected);
        }
    }

    #[test]
    fn what_is_optional_is_not_missing_and_a_virtual_machine_says_that_it_is_one() {
        let old = needs(&Facts { qemu: None, ..complete() });
        assert!(old.iter().any(|need| !need.met) && !old.iter().any(Need::is_missing), "{old:?}");
        let lacking = needs(&Facts { parameter: None, ..complete() });
        assert_eq!(lacking.iter().filter(|need| need.is_missing()).count(), 1);
        let mut facts = complete();
        facts.processor.hypervisor = true;
        assert_eq!(needs(&facts)[0].found, "Genoa, family 0x19 model 0x11, in a virtual machine");
    }

    #[test]
    fn the_first_thing_a_launch_lacks_is_named_with_its_remedy() {
        assert!(can_launch(&complete()).is_ok());
        // The firmware's word and QEMU are not what every launch needs.
        assert!(can_launch(&Facts { status: None, qemu: None, ..complete() }).is_ok());
        let failure = can_launch(&Facts { parameter: Some("N".into()), ..complete() }).unwrap_err();
        assert_eq!(failure.message, "SEV-SNP needs kvm_amd: its parameter sev_snp is N");
        assert!(failure.hint.unwrap().contains("modprobe"));
    }

    #[test]
    fn a_kernels_configuration_says_what_it_was_built_with_and_its_absence_says_nothing() {
        use std::io::Write as _;
        let built = "CONFIG_KVM_AMD=m\nCONFIG_KVM_AMD_SEV=y\n";
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(built.as_bytes()).unwrap();
        assert_eq!(unpacked(&packed.finish().unwrap()[..]).unwrap(), built);
        assert!(unpacked(&b"no gzip"[..]).is_err());
        assert!(has_sev(built));
        for without in ["", "# CONFIG_KVM_AMD is not set\n", "# CONFIG_KVM_AMD_SEV is not set\n"] {
            assert!(!has_sev(without), "{without}");
        }
        assert_eq!(missing(&Facts { built_with_sev: None, ..complete() }), [""; 0], "its parameter says it");
    }

    #[test]
    fn nothing_known_is_nothing_met() {
        let facts = Facts { sev: Some(io::ErrorKind::NotFound), kvm: Some(io::ErrorKind::Other), ..Facts::default() };
        assert_eq!(missing(&facts).len(), needs(&facts).len());
    }
}
