//! Whether this machine's KVM can run a guest, or its instructions have to be translated.

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor, through `/dev/kvm`.
    Kvm,
    /// A translator.
    Tcg,
}

/// The accelerator to use, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceleration {
    /// Which.
    pub accelerator: Accelerator,
    /// What of this machine says so.
    pub why: String,
}

/// Decides between KVM and software emulation; in doubt software, which always works.
///
/// A `/dev/kvm` alone says little: software-virtualised KVM runs no Linux. The processor must show VMX or SVM, which
/// such machines hide.
pub fn acceleration() -> Acceleration {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").map(drop);
    judge(&flags, device.map_err(|error| error.kind()))
}

fn judge(cpuinfo: &str, device: Result<(), std::io::ErrorKind>) -> Acceleration {
    let tcg = |why: &str| Acceleration { accelerator: Accelerator::Tcg, why: why.into() };
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    let virtualises = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    match device {
        Err(std::io::ErrorKind::NotFound) => tcg("there is no /dev/kvm"),
        Err(std::io::ErrorKind::PermissionDenied) => {
            tcg("/dev/kvm may not be opened by this user, who is to join the group kvm")
        }
        Err(_) => tcg("/dev/kvm does not open"),
        Ok(()) if virtualises => Acceleration { accelerator: Accelerator::Kvm, why: "/dev/kvm is usable".into() },
        Ok(()) => tcg(
            "/dev/kvm is there, but the processor shows neither vmx nor svm: software-virtualised KVM runs no Linux guest",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    #[test]
    fn kvm_is_used_only_where_the_processor_virtualises() {
        assert_eq!(judge("flags\t: fpu svm sse", Ok(())).accelerator, Accelerator::Kvm);
        assert_eq!(judge("flags\t\t: vmx", Ok(())).accelerator, Accelerator::Kvm);
        assert_eq!(judge("flags\t: fpu sse hypervisor", Ok(())).accelerator, Accelerator::Tcg);
        for kind in [ErrorKind::NotFound, ErrorKind::PermissionDenied, ErrorKind::Other] {
            assert_eq!(judge("flags\t: svm", Err(kind)).accelerator, Accelerator::Tcg);
        }
    }
}
