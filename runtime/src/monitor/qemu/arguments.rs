//! QEMU's command line for the machine model of `coffer_machine`.
//!
//! Paths are relative to the box folder, which is QEMU's working directory, or absolute.
//! Source: QEMU 7.2 `microvm`; docs/system/i386/microvm.rst; for SEV-SNP QEMU 9.1, docs/system/i386/amd-memory-encryption.rst
//! and qapi/qom.json `SevSnpGuestProperties`.

use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use coffer_machine::fw_cfg;
use coffer_machine::map::{C_BIT, SECRETS_GPA};
use coffer_machine::qemu::{self, loader};

use crate::monitor::acceleration::Accelerator;
use crate::monitor::{Access, Card, Launch, SnpLaunch, Writes};

/// vhost-user line between QEMU and the vsock device, in the box folder.
pub const VHOST: &str = "vhost.sock";

/// Arguments after the program name.
pub fn arguments(launch: &Launch, accelerator: Accelerator) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut push = |words: &[&str]| all.extend(words.iter().map(|word| (*word).to_string()));
    let (accel, cpu) = match (&launch.snp, accelerator) {
        // Encrypted, or not at all: where KVM cannot, QEMU ends.
        (Some(snp), _) => ("kvm", snp.vcpu_type.as_str()),
        (None, Accelerator::Kvm) => ("kvm", "host"),
        // Linux patches its own code while other processors run it, and QEMU's translator loses that race about once in
        // ten boots unless one thread runs them all (seen as an int3 oops in sched_clock with QEMU 7.2).
        (None, Accelerator::Tcg) if launch.vcpus > 1 => ("tcg,thread=single", "max"),
        (None, Accelerator::Tcg) => ("tcg", "max"),
    };
    let support = if launch.snp.is_some() { ",confidential-guest-support=snp0" } else { "" };
    push(&["-M", &format!("{},memory-backend=mem0{support}", qemu::MACHINE), "-accel", accel, "-cpu", cpu]);
    push(&["-smp", &launch.vcpus.to_string()]);
    let memory = launch.memory_bytes;
    push(&["-m", &format!("{}M", memory >> 20)]);
    push(&["-object", &format!("memory-backend-memfd,id=mem0,size={memory},share=on")]);
    push(&["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-name", "coffer"]);
    push(&["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
    push(&["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
    let measured = &launch.measured;
    push(&["-bios", &option(&measured.stage0)]);
    // A kernel that is given to QEMU as one it would patch, and of an encrypted guest hash before it has read the firmware
    // that says where the hash goes, which ends it. stage0 takes it from items of ours, and has the hashes in its ROM.
    for (item, file) in [
        (fw_cfg::file::KERNEL, &measured.kernel),
        (fw_cfg::file::INITRD, &measured.initrd),
        (fw_cfg::file::COMMAND_LINE, &measured.command_line),
    ] {
        push(&["-fw_cfg", &qemu::fw_cfg(item, &option(file)).to_string()]);
    }
    if let Some(snp) = &launch.snp {
        push(&["-object", &guest_object(snp)]);
        // What a device reads and writes of an encrypted guest is what the guest shows it.
        push(&["-global", qemu::PLATFORM_ACCESS]);
    }
    push(&["-device", &qemu::exit_device().to_string()]);
    if let Some(secrets) = &launch.secrets {
        push(&["-device", &loader(&option(secrets), SECRETS_GPA).to_string()]);
    }
    push(&["-global", qemu::MODERN_VIRTIO]);
    for disk in &launch.disks {
        let (serial, file) = (&disk.serial, option(&disk.file));
        let (how, on_error) = match disk.access {
            Access::ReadOnly | Access::Kept(Writes::Refused) => ("readonly=on", ""),
            Access::Ephemeral => ("cache=unsafe", ""),
            // Where the host's disk is full the guest is told so: QEMU would hold it.
            Access::Kept(Writes::Allowed) => ("cache=writeback,discard=unmap", ",werror=report,rerror=report"),
        };
        push(&["-drive", &format!("id={serial},if=none,format=raw,{how},file={file}")]);
        push(&["-device", &format!("virtio-blk-device,drive={serial},serial={serial}{on_error}")]);
    }
    push(&["-chardev", &format!("socket,id=vsock0,path={VHOST}")]);
    push(&["-device", "vhost-user-vsock-device,chardev=vsock0"]);
    if let Some(Card { socket, mac, mtu }) = &launch.card {
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        push(&["-netdev", &format!("stream,id=net0,server=off,addr.type=unix,addr.path={socket}")]);
        push(&["-device", &format!("virtio-net-device,netdev=net0,mac={mac},host_mtu={mtu}")]);
    }
    all
}

/// The object behind an encrypted guest. POLICY, HOST_DATA and ID block are what is asked for: nothing is left to a default.
fn guest_object(snp: &SnpLaunch) -> String {
    let (policy, host_data) = (snp.policy, BASE64_STANDARD.encode(snp.host_data.as_bytes()));
    let object = format!(
        "sev-snp-guest,id=snp0,cbitpos={C_BIT},reduced-phys-bits={REDUCED_PHYS_BITS},policy={policy:#x},host-data={host_data}"
    );
    let Some(id) = &snp.id else { return object };
    let (block, auth) = (BASE64_STANDARD.encode(&id.block), BASE64_STANDARD.encode(&id.auth));
    let author = if id.author { "on" } else { "off" };
    format!("{object},id-block={block},id-auth={auth},author-key-enabled={author}")
}

/// Bits of a physical address that a guest loses to encryption: the C-bit alone, whatever the host loses.
const REDUCED_PHYS_BITS: u32 = 1;

/// A path inside an option: QEMU splits options at commas, two stand for one.
fn option(file: &Path) -> String {
    file.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    use coffer_machine::disks;

    use crate::monitor::seam::tests::snp;
    use crate::monitor::{Disk, Limits, Measured, SnpId};

    fn disk(serial: &str, file: &str, access: Access) -> Disk {
        Disk { serial: serial.into(), file: file.into(), access }
    }

    fn launch() -> Launch {
        Launch {
            folder: "/boxes/one".into(),
            measured: Measured {
                stage0: "stage0.bin".into(),
                hashes: "hashes.bin".into(),
                kernel: "kernel".into(),
                initrd: "initrd".into(),
                initrd_sha256: String::new(),
                command_line: "cmdline".into(),
            },
            secrets: None,
            snp: None,
            disks: vec![
                disk(disks::ROOT, "/images/a,b.erofs", Access::ReadOnly),
                disk(disks::SPEC, "spec.img", Access::ReadOnly),
            ],
            vcpus: 2,
            memory_bytes: 512 << 20,
            limits: Limits::default(),
            card: None,
        }
    }

    fn tcg(launch: &Launch) -> Vec<String> {
        arguments(launch, Accelerator::Tcg)
    }

    fn has(arguments: &[String], pair: [&str; 2]) -> bool {
        arguments.windows(2).any(|window| window == pair)
    }

    #[test]
    fn stage0_boots_what_its_rom_names_and_qemu_loads_no_kernel() {
        for snp in [None, Some(snp())] {
            let all = tcg(&Launch { snp, ..launch() });
            assert!(has(&all, ["-bios", "stage0.bin"]));
            assert!(has(&all, ["-fw_cfg", &qemu::fw_cfg(fw_cfg::file::KERNEL, "kernel").to_string()]));
            assert!(has(&all, ["-fw_cfg", &qemu::fw_cfg(fw_cfg::file::INITRD, "initrd").to_string()]));
            assert!(has(&all, ["-fw_cfg", &qemu::fw_cfg(fw_cfg::file::COMMAND_LINE, "cmdline").to_string()]));
            assert!(has(&all, ["-device", &qemu::exit_device().to_string()]));
            assert!(!all.iter().any(|word| ["-kernel", "-initrd", "-append"].contains(&word.as_str())), "{all:?}");
            assert!(!all.iter().any(|word| word.contains("hashes")), "{all:?}");
        }
    }

    #[test]
    fn an_encrypted_guest_is_launched_by_kvm_with_all_that_is_measured_said() {
        let id = SnpId { block: vec![1; 96], auth: vec![2; 4096], author: true };
        let asked = SnpLaunch { id: Some(id), ..snp() };
        let object = |all: &[String]| all.iter().find(|word| word.starts_with("sev-snp-guest,")).cloned().unwrap();
        for accelerator in [Accelerator::Kvm, Accelerator::Tcg] {
            let all = arguments(&Launch { snp: Some(asked.clone()), ..launch() }, accelerator);
            assert!(has(&all, ["-accel", "kvm"]) && has(&all, ["-cpu", "EPYC-Milan"]), "no translator encrypts");
            let machine = &all[all.iter().position(|word| word == "-M").unwrap() + 1];
            assert!(machine.ends_with(",confidential-guest-support=snp0"), "{machine}");
            assert!(has(&all, ["-global", qemu::PLATFORM_ACCESS]));
            assert!(!all.iter().any(|word| word.starts_with("loader,")), "the host writes no memory of it: {all:?}");
            let object = object(&all);
            for part in [
                ",policy=0x30000,",
                ",cbitpos=51,",
                ",host-data=BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=,",
                &format!(",id-block={},", "AQEB".repeat(32)),
                ",author-key-enabled=on",
            ] {
                assert!(object.contains(part), "{part} {object}");
            }
        }
        let alone = arguments(&Launch { snp: Some(snp()), ..launch() }, Accelerator::Kvm);
        assert!(!object(&alone).contains("id-"), "no ID block was asked for");
    }

    #[test]
    fn only_a_guest_with_a_secrets_page_gets_one() {
        let page = loader("secrets.bin", SECRETS_GPA).to_string();
        assert!(!tcg(&launch()).contains(&page));
        let simulated = Launch { secrets: Some("secrets.bin".into()), ..launch() };
        assert!(has(&tcg(&simulated), ["-device", &page]));
    }

    #[test]
    fn disks_are_read_only_and_a_comma_in_a_path_is_no_option() {
        let all = tcg(&launch());
        let drives: Vec<_> = all.iter().filter(|word| word.starts_with("id=coffer-")).collect();
        assert_eq!(drives.len(), 2);
        assert!(drives.iter().all(|drive| drive.contains("readonly=on")));
        assert!(drives[0].ends_with("file=/images/a,,b.erofs"));
        assert!(has(&all, ["-device", &format!("virtio-blk-device,drive={0},serial={0}", disks::ROOT)]));
    }

    #[test]
    fn a_disk_that_is_kept_is_flushed_and_is_written_only_where_it_may_be() {
        let mut launch = launch();
        let (one, two) = (disks::data(0).to_string(), disks::data(1).to_string());
        launch.disks.push(disk(&one, "/home/volumes/db/disk.img", Access::Kept(Writes::Allowed)));
        launch.disks.push(disk(&two, "/home/volumes/cold/disk.img", Access::Kept(Writes::Refused)));
        let all = tcg(&launch);
        let drive = |serial: &str, how: &str, file: &str| {
            has(&all, ["-drive", &format!("id={serial},if=none,format=raw,{how},file=/home/volumes/{file}/disk.img")])
        };
        assert!(drive(&one, "cache=writeback,discard=unmap", "db"), "{all:?}");
        assert!(drive(&two, "readonly=on", "cold"), "{all:?}");
        let device = format!("virtio-blk-device,drive={one},serial={one},werror=report,rerror=report");
        assert!(has(&all, ["-device", &device]), "{all:?}");
    }

    #[test]
    fn only_an_ephemeral_disk_is_writable() {
        let mut launch = launch();
        launch.disks.push(disk(disks::SCRATCH, "scratch.img", Access::Ephemeral));
        let all = tcg(&launch);
        let writable: Vec<_> =
            all.iter().filter(|word| word.starts_with("id=coffer-") && !word.contains("readonly=on")).collect();
        assert_eq!(writable, [&format!("id={},if=none,format=raw,cache=unsafe,file=scratch.img", disks::SCRATCH)]);
    }

    #[test]
    fn only_a_guest_with_a_card_has_one_and_its_frames_go_to_our_socket() {
        assert!(!tcg(&launch()).iter().any(|word| word.contains("net")));
        let card = Card { socket: "net.sock", mac: [2, 0, 0, 0, 0, 0xAB], mtu: 1500 };
        let all = tcg(&Launch { card: Some(card), ..launch() });
        assert!(has(&all, ["-netdev", "stream,id=net0,server=off,addr.type=unix,addr.path=net.sock"]));
        assert!(has(&all, ["-device", "virtio-net-device,netdev=net0,mac=02:00:00:00:00:ab,host_mtu=1500"]));
    }

    #[test]
    fn kvm_shows_the_guest_the_hosts_processor() {
        let all = arguments(&launch(), Accelerator::Kvm);
        assert!(has(&all, ["-accel", "kvm"]) && has(&all, ["-cpu", "host"]));
        assert!(has(&tcg(&launch()), ["-cpu", "max"]) && has(&tcg(&launch()), ["-accel", "tcg,thread=single"]));
        assert!(has(&all, ["-m", "512M"]) && has(&all, ["-smp", "2"]));
    }
}
