//! QEMU's command line for the machine model of `coffer_machine`.
//!
//! Every path is relative to the box folder, which is QEMU's working directory, or absolute for the root image.
//! Source: QEMU 7.2 `microvm`; docs/system/i386/microvm.rst.

use std::path::Path;

use coffer_machine::map::{HASHES_GPA, SECRETS_GPA};
use coffer_machine::qemu::{self, loader};
use coffer_machine::{disks, fw_cfg};

use crate::boxes::files;
use crate::tools::Accelerator;

/// What differs from box to box.
#[derive(Clone, Debug)]
pub struct Machine<'a> {
    /// What runs it.
    pub accelerator: Accelerator,
    /// Virtual processors.
    pub vcpus: u32,
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// Root image.
    pub root: &'a Path,
    /// Volumes in the box folder.
    pub volumes: usize,
    /// There is a scratch disk in the box folder.
    pub scratch: bool,
    /// A secrets page is put into memory.
    pub simulated: bool,
}

/// Arguments after the program name.
pub fn arguments(machine: &Machine<'_>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut push = |words: &[&str]| all.extend(words.iter().map(|word| (*word).to_string()));
    let (accel, cpu) = match machine.accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        // Linux patches its own code while other processors run it, and QEMU's translator loses that race about once in
        // ten boots unless one thread runs them all (seen as an int3 oops in sched_clock with QEMU 7.2).
        Accelerator::Tcg if machine.vcpus > 1 => ("tcg,thread=single", "max"),
        Accelerator::Tcg => ("tcg", "max"),
    };
    push(&["-M", &format!("{},memory-backend=mem0", qemu::MACHINE), "-accel", accel, "-cpu", cpu]);
    push(&["-smp", &machine.vcpus.to_string()]);
    let memory = machine.memory_bytes;
    push(&["-m", &format!("{}M", memory >> 20)]);
    push(&["-object", &format!("memory-backend-memfd,id=mem0,size={memory},share=on")]);
    push(&["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-name", "coffer"]);
    push(&["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
    push(&["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
    // QEMU would patch a kernel given to it; stage0 takes it from items of ours and checks it against the hash page.
    push(&["-bios", files::STAGE0, "-device", &loader(files::HASHES, HASHES_GPA).to_string()]);
    for (item, file) in [
        (fw_cfg::file::KERNEL, files::KERNEL),
        (fw_cfg::file::INITRD, files::INITRD),
        (fw_cfg::file::COMMAND_LINE, files::COMMAND_LINE),
    ] {
        push(&["-fw_cfg", &qemu::fw_cfg(item, file).to_string()]);
    }
    push(&["-device", &qemu::exit_device().to_string()]);
    if machine.simulated {
        push(&["-device", &loader(files::SECRETS, SECRETS_GPA).to_string()]);
    }
    push(&["-global", qemu::MODERN_VIRTIO]);
    disk(&mut push, disks::ROOT, &machine.root.to_string_lossy(), READ_ONLY);
    disk(&mut push, disks::SPEC, files::SPEC_DISK, READ_ONLY);
    for index in 0..machine.volumes {
        disk(&mut push, &disks::volume(index).to_string(), &files::volume(index), READ_ONLY);
    }
    if machine.scratch {
        disk(&mut push, disks::SCRATCH, files::SCRATCH, EPHEMERAL);
    }
    push(&["-chardev", &format!("socket,id=vsock0,path={}", files::VHOST)]);
    push(&["-device", "vhost-user-vsock-device,chardev=vsock0"]);
    all
}

const READ_ONLY: &str = "readonly=on";
/// Nobody reads it after a crash, so nothing waits for the host's disk.
const EPHEMERAL: &str = "cache=unsafe";

fn disk(push: &mut impl FnMut(&[&str]), serial: &str, file: &str, how: &str) {
    // QEMU splits options at commas; two stand for one.
    let file = file.replace(',', ",,");
    push(&["-drive", &format!("id={serial},if=none,format=raw,{how},file={file}")]);
    push(&["-device", &format!("virtio-blk-device,drive={serial},serial={serial}")]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine<'static> {
        Machine {
            accelerator: Accelerator::Tcg,
            vcpus: 2,
            memory_bytes: 512 << 20,
            root: Path::new("/images/a,b.erofs"),
            volumes: 0,
            scratch: false,
            simulated: false,
        }
    }

    fn has(arguments: &[String], pair: [&str; 2]) -> bool {
        arguments.windows(2).any(|window| window == pair)
    }

    #[test]
    fn stage0_boots_what_the_hash_page_names_and_qemu_loads_no_kernel() {
        let all = arguments(&machine());
        assert!(has(&all, ["-bios", "stage0.bin"]));
        assert!(has(&all, ["-device", &loader("hashes.bin", HASHES_GPA).to_string()]));
        assert!(has(&all, ["-fw_cfg", &qemu::fw_cfg(fw_cfg::file::KERNEL, "kernel").to_string()]));
        assert!(has(&all, ["-fw_cfg", &qemu::fw_cfg(fw_cfg::file::COMMAND_LINE, "cmdline").to_string()]));
        assert!(has(&all, ["-device", &qemu::exit_device().to_string()]));
        assert!(!all.iter().any(|word| ["-kernel", "-initrd", "-append"].contains(&word.as_str())));
    }

    #[test]
    fn only_a_simulated_guest_gets_a_secrets_page() {
        let page = loader("secrets.bin", SECRETS_GPA).to_string();
        assert!(!arguments(&machine()).contains(&page));
        assert!(has(&arguments(&Machine { simulated: true, ..machine() }), ["-device", &page]));
    }

    #[test]
    fn disks_are_read_only_and_a_comma_in_a_path_is_no_option() {
        let all = arguments(&machine());
        let drives: Vec<_> = all.iter().filter(|word| word.starts_with("id=coffer-")).collect();
        assert_eq!(drives.len(), 2);
        assert!(drives.iter().all(|drive| drive.contains("readonly=on")));
        assert!(drives[0].ends_with("file=/images/a,,b.erofs"));
        assert!(has(&all, ["-device", &format!("virtio-blk-device,drive={0},serial={0}", disks::ROOT)]));
    }

    #[test]
    fn only_the_scratch_disk_is_writable_and_the_machine_has_room_for_every_disk() {
        let all = arguments(&Machine { volumes: coffer_spec::Volume::MOST, scratch: true, ..machine() });
        let writable: Vec<_> =
            all.iter().filter(|word| word.starts_with("id=coffer-") && !word.contains("readonly=on")).collect();
        assert_eq!(writable, [&format!("id={},if=none,format=raw,cache=unsafe,file=scratch.img", disks::SCRATCH)]);
        assert!(
            all.iter()
                .any(|word| word
                    .ends_with(&format!("readonly=on,file={}", files::volume(coffer_spec::Volume::MOST - 1))))
        );
        let transports = all.iter().filter(|word| word.starts_with("virtio-blk") || word.starts_with("vhost-user"));
        assert!(transports.count() <= coffer_machine::devices::VIRTIO_MMIO_COUNT as usize);
    }

    #[test]
    fn kvm_shows_the_guest_the_hosts_processor() {
        let all = arguments(&Machine { accelerator: Accelerator::Kvm, ..machine() });
        assert!(has(&all, ["-accel", "kvm"]) && has(&all, ["-cpu", "host"]));
        assert!(
            has(&arguments(&machine()), ["-cpu", "max"])
                && has(&arguments(&machine()), ["-accel", "tcg,thread=single"])
        );
        assert!(has(&all, ["-m", "512M"]) && has(&all, ["-smp", "2"]));
    }
}
