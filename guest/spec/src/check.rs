//! What a spec may hold beyond the types of its fields: each rule names the field, what stands there and what may.
//!
//! Three ideas run through it: empty is not absent, a list that contradicts itself is no choice, and one place has one source.

use core::{
    fmt::Debug,
    net::{Ipv4Addr, Ipv6Addr},
};
use std::collections::BTreeSet;

use coffer_verifier::{abi::SpkiDigest, ear::Word, manifest::MAX_SEQUENCE};

use crate::{
    COCO_PORT, Capability, CardRules, Domain, FileMode, Guests, Ingress, IngressClients, KbsPin, Mount, Name, Network,
    OnChange, Peer, Process, Resource, Rights, Scratch, SealedVolume, SecretTarget, SecretWanted, SpecError, SvnFloor,
    Sysctl, Tee, VerityTable, Volume, WorkloadSpec, digest::is_hex,
};

/// Checks every field that has rules.
pub fn check(spec: &WorkloadSpec) -> Result<(), SpecError> {
    ensure(spec.version == 1, "version", &spec.version, "1")?;
    process(&spec.process)?;
    let reference = &spec.image.reference;
    ensure(is_line(reference) && !reference.is_empty(), "image.reference", reference, "an image's name")?;
    let root = [
        "root.verity.algorithm",
        "root.verity.block_size",
        "root.verity.data_blocks",
        "root.verity.hash_start",
        "root.verity.root_hash",
        "root.verity.salt",
    ];
    verity(&spec.root.verity, root)?;
    scratch(&spec.root.scratch)?;
    if let Some(pin) = &spec.kbs {
        broker(pin)?;
    }
    secrets(spec)?;
    owners(spec)?;
    places(spec)?;
    ensure(spec.shm_bytes > 0, "shm_bytes", &spec.shm_bytes, "more than 0")?;
    sysctls(&spec.sysctls)?;
    ingress(spec)?;
    peers(spec)?;
    if let Some(card) = &spec.network {
        network(card)?;
        if let Some(rules) = &card.rules {
            ensure(
                spec.tee != Tee::None,
                "network.rules",
                &"rules",
                "none without a TEE, whose card is held to them outside",
            )?;
            card_rules(rules)?;
        }
    }
    asked_inside(spec)?;
    floors(spec)
}

fn process(process: &Process) -> Result<(), SpecError> {
    let program = process.argv.first().is_some_and(|program| !program.is_empty());
    ensure(program, "process.argv", &process.argv, "at least a program")?;
    if let Some(bad) = process.argv.iter().find(|word| !fits_exec(word)) {
        return refuse("process.argv", &beginning(bad), EXEC_RULE);
    }
    if let Some(bad) = process.env.iter().find(|entry| entry.find('=').is_none_or(|at| at == 0)) {
        return refuse("process.env", &beginning(bad), "NAME=value");
    }
    if let Some(bad) = process.env.iter().find(|entry| !fits_exec(entry)) {
        return refuse("process.env", &beginning(bad), EXEC_RULE);
    }
    once("process.env", process.env.iter().map(|entry| env_name(entry)), "each name once")?;
    let cwd = process.cwd.starts_with('/') && process.cwd.len() <= PATH_MOST && !process.cwd.contains('\0');
    ensure(cwd, "process.cwd", &process.cwd, "an absolute path")?;
    let mut user = process.user.split(':');
    let named = |part: Option<&str>| part.is_none_or(|part| !part.is_empty() && is_line(part));
    let whole = user.next().is_some_and(|part| named(Some(part))) && named(user.next()) && user.next().is_none();
    ensure(whole, "process.user", &process.user, "user or user:group, names or numbers")?;
    ensure((1..=64).contains(&process.stop_signal), "process.stop_signal", &process.stop_signal, "1 to 64")?;
    if let Some(domain) = &process.domainname {
        ensure(domain.as_str().len() <= Domain::MOST_OWN, "process.domainname", domain, "at most 64 bytes")?;
    }
    rights(&process.rights)?;
    let nproc = process.rights.limits.iter().find(|limit| limit.of == Resource::Nproc);
    match nproc {
        Some(limit) if is_root(&process.user) => refuse("process.rights.limits", &limit.to_string(), NPROC_RULE),
        _ => Ok(()),
    }
}

fn sysctls(all: &[Sysctl]) -> Result<(), SpecError> {
    ensure(all.len() <= Sysctl::MOST, "sysctls", &all.len(), "at most 64")?;
    if let Some(bad) = all.iter().find(|setting| !setting.is_possible()) {
        return refuse("sysctls", &beginning(&bad.to_string()), Sysctl::RULE);
    }
    once("sysctls", all.iter().map(|setting| setting.name.as_str()), "each setting once")
}

/// What stands for root wherever an image's accounts lead.
fn is_root(user: &str) -> bool {
    let user = user.split(':').next().unwrap_or_default();
    user == "root" || user.parse::<u32>() == Ok(0)
}

/// Source: Linux kernel/fork.c, copy_process.
const NPROC_RULE: &str =
    "no nproc where the user is root, whose programs it does not bind: process.rights.programs (--pids-limit) does";

fn rights(rights: &Rights) -> Result<(), SpecError> {
    let in_order = |all: &Vec<Capability>| all.is_sorted_by(|one, next| one < next);
    let capabilities = &rights.capabilities;
    let fit = capabilities.as_ref().is_none_or(in_order);
    ensure(fit, "process.rights.capabilities", capabilities, "each capability once, in their order")?;
    let is_group = |group: &String| !group.is_empty() && is_line(group) && !group.contains(':');
    if let Some(bad) = rights.groups.iter().find(|group| !is_group(group)) {
        return refuse("process.rights.groups", &beginning(bad), "names or numbers of groups");
    }
    once("process.rights.groups", rights.groups.iter(), "each group once")?;
    if let Some(bad) = rights.limits.iter().find(|limit| !limit.is_possible()) {
        return refuse("process.rights.limits", &bad.to_string(), "a soft limit no higher than the hard one");
    }
    once("process.rights.limits", rights.limits.iter().map(|limit| limit.of.word()), "each resource once")?;
    ensure(rights.programs != Some(0), "process.rights.programs", &rights.programs, "1 or more")
}

/// `names`: of the fields, in the order they are checked.
fn verity(verity: &VerityTable, names: [&'static str; 6]) -> Result<(), SpecError> {
    let [algorithm, block_size, data_blocks, hash_start, root_hash, salt] = names;
    ensure(verity.algorithm == "sha256", algorithm, &verity.algorithm, "sha256")?;
    ensure(verity.block_size == 4096, block_size, &verity.block_size, "4096")?;
    // What is counted in sectors of 512 bytes later must not wrap.
    let possible = (1..=1 << 40).contains(&verity.data_blocks);
    ensure(possible, data_blocks, &verity.data_blocks, "1 to 2^40 blocks")?;
    let behind = verity.hash_start >= verity.data_blocks && verity.hash_start <= 1 << 40;
    ensure(behind, hash_start, &verity.hash_start, "a block behind the data")?;
    let digest = verity.root_hash.len() == 64 && is_hex(&verity.root_hash);
    ensure(digest, root_hash, &verity.root_hash, "64 lower-case hex digits")?;
    let fits = verity.salt.len() <= 512 && verity.salt.len().is_multiple_of(2) && is_hex(&verity.salt);
    ensure(fits, salt, &verity.salt, "at most 512 lower-case hex digits")
}

fn scratch(scratch: &Scratch) -> Result<(), SpecError> {
    match scratch {
        Scratch::Tmpfs { bytes } => {
            ensure(*bytes >= Scratch::LEAST_TMPFS, "root.scratch.bytes", bytes, "64 KiB or more")
        }
        Scratch::Disk { bytes } => {
            let fits = (Scratch::LEAST_DISK..=Scratch::MOST_DISK).contains(bytes) && bytes.is_multiple_of(4096);
            ensure(fits, "root.scratch.bytes", bytes, "1 MiB to 64 GiB in whole blocks of 4096")
        }
    }
}

fn broker(pin: &KbsPin) -> Result<(), SpecError> {
    ensure(is_place(&pin.address), "kbs.address", &pin.address, PLACE_RULE)?;
    ensure((1..=2).contains(&pin.spki.len()), "kbs.spki", &pin.spki.len(), "one or two pins")?;
    ensure(!pin.spki.iter().any(SpkiDigest::is_zero), "kbs.spki", &pin.spki, "digests that are not all zero")?;
    once("kbs.spki", pin.spki.iter(), "a current pin and another one")
}

fn secrets(spec: &WorkloadSpec) -> Result<(), SpecError> {
    if spec.tee == Tee::None && (spec.kbs.is_some() || !spec.secrets.is_empty()) {
        return refuse("tee", &spec.tee, "snp or simulated, where a key broker or secrets are named");
    }
    if !spec.secrets.is_empty() && spec.kbs.is_none() {
        return refuse("kbs", &"absent", "a key broker, where secrets are named");
    }
    let files = spec.secrets.iter().filter_map(|wanted| match &wanted.to {
        SecretTarget::File(name) => Some(name),
        SecretTarget::Env(_) => None,
    });
    once("secrets.to.file", files.clone(), "each file once")?;
    once("inject", spec.inject.iter(), "each name once")?;
    // An owner who injects must not be able to replace what the broker released.
    let broker: BTreeSet<_> = files.collect();
    if let Some(both) = spec.inject.iter().find(|name| broker.contains(name)) {
        return refuse("inject", &both.as_str(), "no file that a secret of the key broker goes to");
    }
    let variables = spec.secrets.iter().filter_map(|wanted| match &wanted.to {
        SecretTarget::Env(name) => Some(name.as_str()),
        SecretTarget::File(_) => None,
    });
    once("secrets.to.env", variables.clone(), "each variable once")?;
    variables.clone().try_for_each(|name| free_variable(spec, name))?;
    spec.secrets.iter().try_for_each(secret)
}

/// Files have permissions, and are replaced while the workload runs; variables are not.
fn secret(wanted: &SecretWanted) -> Result<(), SpecError> {
    let is_file = matches!(wanted.to, SecretTarget::File(_));
    ensure(is_file || wanted.mode == FileMode::default(), "secrets.mode", &wanted.mode, "none for a variable")?;
    let numbers = [("secrets.uid", wanted.uid), ("secrets.gid", wanted.gid)];
    for (field, id) in numbers.into_iter().filter_map(|(field, id)| Some((field, id?))) {
        // To the kernel it means that nothing changes.
        ensure(is_file && id != u32::MAX, field, &id, "a number below 4294967295, of a file")?;
    }
    let Some(changed) = &wanted.changed else { return Ok(()) };
    ensure(is_file, "secrets.changed", changed, "none for a variable, which keeps its value")?;
    match changed {
        OnChange::Signal(number) => ensure((1..=64).contains(number), "secrets.changed.signal", number, "1 to 64"),
        OnChange::Command(argv) => {
            let program = argv.first().is_some_and(|program| !program.is_empty());
            ensure(program, "secrets.changed.command", argv, "at least a program")?;
            match argv.iter().find(|word| !fits_exec(word)) {
                Some(bad) => refuse("secrets.changed.command", &beginning(bad), EXEC_RULE),
                None => Ok(()),
            }
        }
    }
}

/// A variable that a secret may be given in: one that programs can read, and nobody sets otherwise.
fn free_variable(spec: &WorkloadSpec, name: &str) -> Result<(), SpecError> {
    ensure(is_variable(name), "secrets.to.env", &name, "a letter or _, then letters, digits or _")?;
    let guests = GUESTS.contains(&name);
    ensure(!guests, "secrets.to.env", &name, "no variable that the guest sets itself (HOME, HOSTNAME, PATH)")?;
    let set = spec.process.env.iter().any(|entry| env_name(entry) == name);
    ensure(!set, "secrets.to.env", &name, "no variable that process.env sets")
}

impl WorkloadSpec {
    /// Whether an owner who may inject this name may also give it to programs as a variable: as a secret of the broker's could
    /// be, and none is.
    pub fn may_be_variable(&self, name: &Name) -> bool {
        let taken = |wanted: &SecretWanted| matches!(&wanted.to, SecretTarget::Env(env) if env == name);
        free_variable(self, name.as_str()).is_ok() && !self.secrets.iter().any(taken)
    }
}

fn owners(spec: &WorkloadSpec) -> Result<(), SpecError> {
    once("owners.key", spec.owners.iter().map(|owner| owner.key), "each key once")?;
    // Owners come over RA-TLS, which needs evidence.
    let reachable = spec.tee != Tee::None;
    ensure(reachable || spec.owners.is_empty(), "owners", &"owners", "none without a TEE")?;
    if let Some(authority) = &spec.owner_authority {
        ensure(reachable, "owner_authority", &"an authority", "none without a TEE")?;
        let most = authority.sequence <= MAX_SEQUENCE;
        ensure(most, "owner_authority.sequence", &authority.sequence, "at most 2^53 - 1")?;
        let broker = spec.kbs.is_some() || authority.kept.is_none();
        ensure(broker, "owner_authority.kept", &"a path", "none without a key broker")?;
        // Whoever is to bring a list has to be one already.
        let brought = authority.kept.is_some() || !spec.owners.is_empty();
        ensure(brought, "owners", &"none", "at least one, who can bring a list, or owner_authority.kept")?;
    }
    ensure(reachable || spec.inject.is_empty(), "inject", &"names", "none without a TEE: nobody could inject")
}

/// Ports in front of which the agent ends RA-TLS, which needs evidence.
fn ingress(spec: &WorkloadSpec) -> Result<(), SpecError> {
    let all = &spec.ingress;
    ensure(spec.tee != Tee::None || all.is_empty(), "ingress", &"ports", "none without a TEE")?;
    ensure(all.len() <= Ingress::MOST, "ingress", &format!("{} ports", all.len()), "at most 16 ports")?;
    ensure(all.iter().all(|one| one.port > 0), "ingress.port", &0, "1 to 65535")?;
    once("ingress.port", all.iter().map(|one| one.port), "each port once")?;
    let issued = all.iter().any(|one| matches!(one.clients, IngressClients::Certificate(_)));
    ensure(!issued || spec.kbs.is_some(), "ingress.clients.certificate", &"a profile", "none without a key broker")?;
    for Ingress { clients, .. } in all {
        if let IngressClients::Guests(may) = clients {
            let fields = [
                "ingress.clients.guests",
                "ingress.clients.guests.measured",
                "ingress.clients.guests.signed",
                "ingress.clients.guests.simulators",
            ];
            guests(may, spec.tee, fields)?;
        }
        let IngressClients::Keys(keys) = clients else { continue };
        let count = (1..=Ingress::MOST_KEYS).contains(&keys.len());
        ensure(count, "ingress.clients.keys", &format!("{} keys", keys.len()), "1 to 256 keys")?;
        let named = !keys.iter().any(SpkiDigest::is_zero);
        ensure(named, "ingress.clients.keys", keys, "digests that are not all zero")?;
        once("ingress.clients.keys", keys.iter(), "each key once")?;
    }
    Ok(())
}

/// Other guests, which are asked for evidence, and shown it.
fn peers(spec: &WorkloadSpec) -> Result<(), SpecError> {
    let all = &spec.peers;
    ensure(spec.tee != Tee::None || all.is_empty(), "peers", &"peers", "none without a TEE")?;
    ensure(all.len() <= Peer::MOST, "peers", &format!("{} peers", all.len()), "at most 8 peers")?;
    once("peers.name", all.iter().map(|peer| &peer.name), "each name once")?;
    once("peers.listen", all.iter().map(|peer| peer.listen), "each port once")?;
    for peer in all {
        ensure(peer.listen > 0, "peers.listen", &0, "1 to 65535")?;
        ensure(peer.port > 0, "peers.port", &0, "1 to 65535")?;
        ensure(is_place(&peer.address), "peers.address", &peer.address, PLACE_RULE)?;
        // Whoever comes in from outside would speak to the peer as this guest.
        let led_there = spec.ingress.iter().any(|ingress| ingress.port == peer.listen);
        ensure(!led_there, "peers.listen", &peer.listen, "a port that no ingress leads to")?;
        let routes = spec.coco_routes && peer.listen == COCO_PORT;
        ensure(!routes, "peers.listen", &peer.listen, "another port, where the agent has that one (coco_routes)")?;
        let fields = ["peers.guests", "peers.guests.measured", "peers.guests.signed", "peers.guests.simulators"];
        guests(&peer.guests, spec.tee, fields)?;
    }
    Ok(())
}

/// `names`: of the table, and of its lists in the order they are checked.
fn guests(guests: &Guests, tee: Tee, names: [&'static str; 4]) -> Result<(), SpecError> {
    let [table, measured, signed, simulators] = names;
    let some = !guests.measured.is_empty() || !guests.signed.is_empty();
    ensure(some, table, &"nobody", "a measured or a signed guest")?;
    let counts = [guests.measured.len(), guests.signed.len(), guests.simulators.len()];
    ensure(counts.iter().all(|count| *count <= Guests::MOST), table, &counts, "at most 64 of each")?;
    let zero = guests.measured.iter().any(|one| one.measurement.is_zero() || one.workload.is_zero());
    ensure(!zero, measured, &guests.measured, "digests that are not all zero")?;
    once(measured, guests.measured.iter(), "each guest once")?;
    let zero = guests.signed.iter().any(|one| one.author_key.is_zero());
    ensure(!zero, signed, &guests.signed, "an author's digest that is not all zero")?;
    // Two floors of one guest contradict each other.
    once(signed, guests.signed.iter().map(|one| (one.author_key, one.family_id, one.image_id)), "each guest once")?;
    ensure(
        !guests.simulators.iter().any(SpkiDigest::is_zero),
        simulators,
        &guests.simulators,
        "digests that are not all zero",
    )?;
    once(simulators, guests.simulators.iter(), "each root once")?;
    let simulated = tee == Tee::Simulated || guests.simulators.is_empty();
    ensure(simulated, simulators, &guests.simulators, "none of a guest on hardware")
}

/// A card with the address of one guest, and a way out that is another one's of the same network.
fn network(card: &Network) -> Result<(), SpecError> {
    let of_one = |address: Ipv4Addr| {
        let [first, ..] = address.octets();
        first != 0 && first < 224 && !address.is_loopback() && !address.is_link_local()
    };
    ensure((8..=30).contains(&card.prefix), "network.prefix", &card.prefix, "8 to 30")?;
    let host = |address: Ipv4Addr| {
        let rest = address & !card.mask();
        of_one(address) && rest != Ipv4Addr::UNSPECIFIED && rest != !card.mask()
    };
    ensure(host(card.address), "network.address", &card.address, ADDRESS_RULE)?;
    let reached = host(card.gateway) && card.contains(card.gateway) && card.gateway != card.address;
    ensure(reached, "network.gateway", &card.gateway, "another address of the guest's network")?;
    ensure(card.dns.len() <= Network::MOST_DNS, "network.dns", &card.dns.len(), "at most 3 servers")?;
    if let Some(bad) = card.dns.iter().find(|server| !of_one(**server)) {
        return refuse("network.dns", bad, ADDRESS_RULE);
    }
    once("network.dns", card.dns.iter(), "each server once")?;
    ensure(card.search.len() <= Network::MOST_SEARCH, "network.search", &card.search.len(), "at most 6 domains")?;
    let bytes = card.search.iter().map(|domain| domain.as_str().len() + 1).sum::<usize>();
    ensure(bytes <= Network::MOST_SEARCH_BYTES, "network.search", &bytes, "at most 256 bytes, a blank behind each")?;
    once("network.search", card.search.iter(), "each domain once")?;
    ensure(card.options.len() <= Network::MOST_OPTIONS, "network.options", &card.options.len(), "at most 16 words")?;
    once("network.options", card.options.iter(), "each word once")?;
    ensure(card.hosts.len() <= Network::MOST_HOSTS, "network.hosts", &card.hosts.len(), "at most 64 names")?;
    once("network.hosts", card.hosts.iter().map(|entry| &entry.name), "each name once")
}

/// So many that every guest has room for what enforces them.
fn card_rules(rules: &CardRules) -> Result<(), SpecError> {
    for (field, ports) in [("network.rules.tcp", &rules.tcp), ("network.rules.udp", &rules.udp)] {
        ensure(ports.len() <= CardRules::MOST_PORTS, field, &ports.len(), "at most 256 ports")?;
        ensure(!ports.contains(&0), field, &0, "1 to 65535")?;
        ensure(ports.is_sorted_by(|one, next| one < next), field, ports, "each port once, in order")?;
    }
    for (field, all) in [("network.rules.ingress", &rules.ingress), ("network.rules.egress", &rules.egress)] {
        ensure(all.len() <= CardRules::MOST_RULES, field, &all.len(), "at most 64 rules")?;
        if let Some(bad) = all.iter().find(|rule| !rule.is_possible()) {
            return refuse(field, bad, CARD_RULE);
        }
        once(field, all.iter(), "each rule once")?;
    }
    Ok(())
}

const CARD_RULE: &str =
    "the first address of a range, its prefix of 0 to 32, and ports of 1 to 65535 for tcp or udp alone";

const ADDRESS_RULE: &str = "the address of one machine, neither loopback nor link-local";

/// What the workload may ask its agent for, who answers with evidence.
fn asked_inside(spec: &WorkloadSpec) -> Result<(), SpecError> {
    let attests = spec.tee != Tee::None;
    ensure(attests || spec.audiences.is_empty(), "audiences", &spec.audiences, "none without a TEE")?;
    ensure(attests || !spec.coco_routes, "coco_routes", &true, "false without a TEE")?;
    // Whoever comes in from outside would be taken for the workload.
    let led_there = spec.coco_routes && spec.ingress.iter().any(|ingress| ingress.port == COCO_PORT);
    ensure(!led_there, "ingress.port", &COCO_PORT, "another port, where the agent has that one (coco_routes)")?;
    // As in a token, where they are compared letter by letter.
    if let Some(bad) = spec.audiences.iter().find(|audience| Word::parse(audience).is_err()) {
        return refuse("audiences", &beginning(bad), "1 to 256 printable ASCII characters without spaces");
    }
    once("audiences", spec.audiences.iter(), "each audience once")
}

/// Mount points: absolute, plain, and none twice, so that their order decides nothing.
fn places(spec: &WorkloadSpec) -> Result<(), SpecError> {
    let WorkloadSpec { mounts, volumes, data_volumes, sealed_volumes, tee, .. } = spec;
    let count = volumes.len() + data_volumes.len() + sealed_volumes.len();
    let told = format!("{count} volumes where {} fit", Volume::MOST);
    ensure(count <= Volume::MOST, "volumes, data_volumes and sealed_volumes", &told, "what a machine has disks for")?;
    let plain = *tee == Tee::None || data_volumes.is_empty();
    ensure(plain, "data_volumes", &"volumes", "none with a TEE: their host keeps them in the plain")?;
    for mount in mounts {
        ensure(is_mount_point(&mount.path), "mounts.path", &mount.path, MOUNT_POINT_RULE)?;
        ensure(!is_platforms(&mount.path), "mounts.path", &mount.path, PLATFORM_RULE)?;
        // To the kernel a size of 0 is no limit.
        ensure(mount.tmpfs_bytes > 0, "mounts.tmpfs_bytes", &mount.tmpfs_bytes, "more than 0")?;
        for (field, id) in [("mounts.uid", mount.uid), ("mounts.gid", mount.gid)] {
            ensure(id != u32::MAX, field, &id, "a number below 4294967295")?;
        }
    }
    let names = [
        "volumes.verity.algorithm",
        "volumes.verity.block_size",
        "volumes.verity.data_blocks",
        "volumes.verity.hash_start",
        "volumes.verity.root_hash",
        "volumes.verity.salt",
    ];
    for volume in volumes {
        volume_place("volumes.path", &volume.path)?;
        verity(&volume.verity, names)?;
    }
    for volume in data_volumes {
        volume_place("data_volumes.path", &volume.path)?;
    }
    let paths = mounts.iter().map(|mount| &mount.path).chain(volumes.iter().map(|volume| &volume.path));
    sealed(spec)?;
    let paths = paths.chain(data_volumes.iter().map(|volume| &volume.path));
    let paths = paths.chain(sealed_volumes.iter().map(|volume| &volume.path));
    once("mounts.path, volumes.path, data_volumes.path and sealed_volumes.path", paths, "each path once")
}

/// Disks of the host's that are opened with a key of the secure processor's or the key broker's.
fn sealed(spec: &WorkloadSpec) -> Result<(), SpecError> {
    let all = &spec.sealed_volumes;
    ensure(
        spec.tee != Tee::None || all.is_empty(),
        "sealed_volumes",
        &"volumes",
        "none without a TEE: no key would be its own",
    )?;
    for volume in all {
        volume_place("sealed_volumes.path", &volume.path)?;
        let whole = volume.bytes.is_multiple_of(SealedVolume::BLOCK);
        let fits = whole && (SealedVolume::LEAST..=SealedVolume::MOST_BYTES).contains(&volume.bytes);
        ensure(fits, "sealed_volumes.bytes", &volume.bytes, "16 MiB to 64 GiB in whole blocks of 4096")?;
        let broker = volume.policy.needs_broker();
        let policy = "measurement-and-chip, where no key broker is named";
        ensure(!broker || spec.kbs.is_some(), "sealed_volumes.policy", &volume.policy, policy)?;
        let record = "false with policy measurement-and-chip, of which nobody keeps a record, and true with all others";
        ensure(
            volume.rollback_protected == broker,
            "sealed_volumes.rollback_protected",
            &volume.rollback_protected,
            record,
        )?;
    }
    once("sealed_volumes.name", all.iter().map(|volume| &volume.name), "each name once")
}

fn volume_place(field: &'static str, path: &String) -> Result<(), SpecError> {
    ensure(is_mount_point(path), field, path, MOUNT_POINT_RULE)?;
    ensure(!is_platforms(path), field, path, PLATFORM_RULE)?;
    // A folder above that is read-only has no room for them, and one that is kept is not the place.
    let above = Mount::OWN.iter().any(|own| own.starts_with(&format!("{path}/")));
    ensure(!above, field, path, "not above a folder of the guest's own (/run/secrets, /run/coffer)")
}

fn floors(spec: &WorkloadSpec) -> Result<(), SpecError> {
    let min_tcb = &spec.floors.seal.min_tcb;
    let tcb = min_tcb.is_empty() || min_tcb.len() == 16 && is_hex(min_tcb);
    ensure(tcb, "floors.seal.min_tcb", min_tcb, "16 lower-case hex digits or nothing")?;
    let Some(SvnFloor { id_key_digest, .. }) = &spec.floors.svn else { return Ok(()) };
    ensure(!id_key_digest.is_zero(), "floors.svn.id_key_digest", id_key_digest, "a digest that is not all zero")?;
    // Without a secure processor there is no report that could say so.
    ensure(spec.tee != Tee::None, "floors.svn", &"a floor", "none without a TEE")
}

fn ensure(holds: bool, field: &'static str, found: &dyn Debug, expected: &'static str) -> Result<(), SpecError> {
    if holds { Ok(()) } else { refuse(field, found, expected) }
}

fn refuse(field: &'static str, found: &dyn Debug, expected: &'static str) -> Result<(), SpecError> {
    Err(SpecError::Field { field, found: format!("{found:?}"), expected })
}

/// Refuses a list in which something stands twice.
fn once<T: Ord + Debug>(
    field: &'static str,
    all: impl Iterator<Item = T>,
    expected: &'static str,
) -> Result<(), SpecError> {
    let mut seen = BTreeSet::new();
    for one in all {
        if seen.contains(&one) {
            return Err(SpecError::Field { field, found: format!("{one:?} twice"), expected });
        }
        seen.insert(one);
    }
    Ok(())
}

const MOUNT_POINT_RULE: &str = "an absolute path without //, . or .. that is not /";
const PLATFORM_RULE: &str = "none of the guest's own folders (/proc, /sys, /dev, /run/secrets, /run/coffer)";

/// Longest path that is taken; Linux has 4096 with what we put in front of it.
const PATH_MOST: usize = 4000;

fn is_mount_point(text: &str) -> bool {
    text.len() <= PATH_MOST
        && text
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0')))
}

fn is_platforms(path: &str) -> bool {
    Mount::OWN.iter().any(|own| path == *own || path.starts_with(&format!("{own}/")))
}

const PLACE_RULE: &str = "host:port, without a scheme or a path; an IPv6 address in brackets";

fn is_place(text: &str) -> bool {
    let is_name = |text: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(plain)
    };
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => is_name(host),
        };
        is_host && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

/// Of a host (RFC 1035 §2.3.4).
const LONGEST_NAME: usize = 253;

/// Text that stays on its line.
fn is_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// A name that shells and programs can read.
fn is_variable(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// Variables that the guest gives a program where `process.env` does not.
const GUESTS: [&str; 3] = ["HOME", "HOSTNAME", "PATH"];

fn env_name(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

/// The kernel takes no string of 128 KiB or more from a program it starts (MAX_ARG_STRLEN, with its final NUL).
fn fits_exec(word: &str) -> bool {
    word.len() < 128 * 1024 && !word.contains('\0')
}

const EXEC_RULE: &str = "at most 131071 bytes without NUL, which is what Linux takes";

fn beginning(text: &str) -> String {
    text.chars().take(80).collect()
}
