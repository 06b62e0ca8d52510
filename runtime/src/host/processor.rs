//! Which processor this is, from `/proc/cpuinfo`.
//!
//! Linux takes `sev_snp` out of the flags where the firmware set-up or the kernel keep it from working, so a flag that is
//! there says more than CPUID does.

use coffer_verifier::abi::ProductLine;
use serde::Serialize;

/// A processor as Linux shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Processor {
    /// `AuthenticAMD`, or another's word.
    pub vendor: String,
    /// Combined family.
    pub family: u8,
    /// Combined model.
    pub model: u8,
    /// Stepping.
    pub stepping: u8,
    /// AMD's line, if it is one with SEV-SNP.
    pub product: Option<ProductLine>,
    /// Memory encryption (SME) is there.
    pub sme: bool,
    /// SEV is there.
    pub sev: bool,
    /// SEV-ES is there.
    pub sev_es: bool,
    /// SEV-SNP is there and the kernel can use it.
    pub sev_snp: bool,
    /// A hypervisor says that this is a virtual machine.
    pub hypervisor: bool,
}

impl Processor {
    /// The first processor of the text. What is not there is empty, zero or false.
    pub fn from_cpuinfo(text: &str) -> Self {
        let value = |name: &str| {
            text.lines().find_map(|line| {
                let (found, value) = line.split_once(':')?;
                (found.trim() == name).then(|| value.trim())
            })
        };
        let number = |name: &str| value(name).and_then(|text| text.parse().ok()).unwrap_or_default();
        let has = |flag: &str| value("flags").is_some_and(|flags| flags.split_whitespace().any(|found| found == flag));
        let vendor = value("vendor_id").unwrap_or_default().to_owned();
        let (family, model) = (number("cpu family"), number("model"));
        let product = (vendor == "AuthenticAMD").then(|| ProductLine::from_cpuid(family, model)).flatten();
        Self {
            product,
            family,
            model,
            stepping: number("stepping"),
            sme: has("sme"),
            sev: has("sev"),
            sev_es: has("sev_es"),
            sev_snp: has("sev_snp"),
            hypervisor: has("hypervisor"),
            vendor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENOA: &str = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC 9654\nstepping\t: 1\nflags\t\t: fpu sme sev sev_es sev_snp\n\nprocessor\t: 1\nmodel\t\t: 1\n";

    #[test]
    fn the_line_the_model_and_the_flags_are_read() {
        let found = Processor::from_cpuinfo(GENOA);
        assert_eq!((found.product, found.family, found.model, found.stepping), (Some(ProductLine::Genoa), 25, 17, 1));
        assert!(found.sme && found.sev && found.sev_es && found.sev_snp && !found.hypervisor);
        assert!(Processor::from_cpuinfo(&GENOA.replace("sme", "hypervisor sme")).hypervisor);
    }

    #[test]
    fn a_flag_is_a_whole_word_and_another_vendor_has_no_line() {
        let found =
            Processor::from_cpuinfo(&GENOA.replace(" sev_snp", " sev_snp_other").replace("AuthenticAMD", "Other"));
        assert!(!found.sev_snp && found.sev_es);
        assert_eq!(found.product, None);
        assert_eq!(Processor::from_cpuinfo("").product, None);
        assert_eq!(Processor::from_cpuinfo("cpu family : 99999\nflags").family, 0);
    }
}
