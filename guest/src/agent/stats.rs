//! What this guest has used so far, as its kernel counts it: processors, memory, network, disks.
//!
//! Coarse on purpose: sums since the boot, nothing of any one program. In namespaces the kernel is the host's, and what it counts is
//! the host's too: there the box's own programs are summed, and what that does not give is left out.

use std::path::Path;

use coffer_guest_proto::StatsResponse;

use crate::host::Host;

/// The figures of now. `age_us`: how long this guest has been there. `group`: the workload's control group, where it has one.
pub(super) fn read(host: Host, age_us: u64, group: Option<&Path>) -> StatsResponse {
    let file = |name: &str| std::fs::read_to_string(Path::new("/proc").join(name)).unwrap_or_default();
    let network = network_bytes(&file("net/dev"));
    let figures = StatsResponse {
        uptime_us: age_us,
        network_received_bytes: network.map(|(received, _)| received),
        network_sent_bytes: network.map(|(_, sent)| sent),
        ..StatsResponse::default()
    };
    match host {
        Host::Vsock => of_machine(figures, &file, group),
        Host::Sockets => of_programs(figures),
    }
}

fn of_machine(figures: StatsResponse, file: &dyn Fn(&str) -> String, group: Option<&Path>) -> StatsResponse {
    let info = rustix::system::sysinfo();
    let unit = u64::from(info.mem_unit.max(1));
    let total = info.totalram.saturating_mul(unit);
    let available = available_bytes(&file("meminfo")).unwrap_or(info.freeram.saturating_mul(unit));
    let (processors, busy_us) = processors(&file("stat"));
    let disks = disk_bytes(&file("diskstats"));
    StatsResponse {
        memory_total_bytes: total,
        memory_available_bytes: available,
        memory_used_bytes: Some(total.saturating_sub(available)),
        // Those of the workload, without the kernel's own threads and the agent.
        processes: group.and_then(tasks).unwrap_or(u32::from(info.procs)),
        processors: Some(processors),
        busy_us,
        disk_read_bytes: Some(disks.0),
        disk_written_bytes: Some(disks.1),
        ..figures
    }
}

/// Programs and threads in a control group. Source: Linux Documentation/admin-guide/cgroup-v2.rst, "PID".
fn tasks(group: &Path) -> Option<u32> {
    std::fs::read_to_string(group.join("pids.current")).ok()?.trim().parse().ok()
}

fn of_programs(figures: StatsResponse) -> StatsResponse {
    let (mut processes, mut ticks, mut pages) = (0_u32, 0_u64, 0_u64);
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        // One that ends meanwhile is none.
        let Some(program) = std::fs::read_to_string(entry.path().join("stat")).ok().as_deref().and_then(program) else {
            continue;
        };
        processes += 1;
        ticks = ticks.saturating_add(program.ticks);
        pages = pages.saturating_add(program.pages);
    }
    StatsResponse {
        processes,
        busy_us: Some(ticks.saturating_mul(TICK_US)),
        memory_used_bytes: Some(pages.saturating_mul(rustix::param::page_size() as u64)),
        ..figures
    }
}

/// Microseconds of a tick: USER_HZ is 100 on every x86 Linux.
const TICK_US: u64 = 10_000;
/// Bytes of a sector in `/proc/diskstats`, whatever the disk's own.
const SECTOR: u64 = 512;

#[derive(Debug, PartialEq, Eq)]
struct Program {
    /// Its own, and those of its children that have ended and been waited for.
    ticks: u64,
    pages: u64,
}

/// Out of `/proc/PID/stat`; the name in it may hold anything, parentheses too. Source: proc_pid_stat(5).
fn program(stat: &str) -> Option<Program> {
    // The first of these is the third.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<i64>().ok()?.try_into().ok();
    let ticks = [14, 15, 16, 17].into_iter().try_fold(0_u64, |sum, field| Some(sum.saturating_add(number(field)?)))?;
    Some(Program { ticks, pages: number(24)? })
}

/// How many processors there are, and what they did but wait. Source: proc_stat(5).
fn processors(stat: &str) -> (u32, Option<u64>) {
    let of_one = |line: &&str| line.starts_with("cpu") && line.as_bytes().get(3).is_some_and(u8::is_ascii_digit);
    let count = stat.lines().filter(of_one).count();
    let busy = stat.lines().find_map(|line| line.strip_prefix("cpu ")).and_then(|line| {
        let ticks: Vec<u64> = line.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
        // user, nice, system, then idle and iowait, irq, softirq.
        let [user, nice, system, _, _, irq, softirq, ..] = ticks[..] else { return None };
        let sum = [nice, system, irq, softirq].into_iter().fold(user, u64::saturating_add);
        Some(sum.saturating_mul(TICK_US))
    });
    (u32::try_from(count).unwrap_or(u32::MAX), busy)
}

/// Received and sent, loopback apart. Source: proc_pid_net(5).
fn network_bytes(dev: &str) -> Option<(u64, u64)> {
    let mut sum = None;
    for line in dev.lines() {
        let Some((name, figures)) = line.split_once(':') else { continue };
        let figures: Vec<u64> = figures.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
        if let (Some(received), Some(sent)) = (figures.first(), figures.get(8))
            && name.trim() != "lo"
        {
            let (all_received, all_sent): (u64, u64) = sum.unwrap_or_default();
            sum = Some((all_received.saturating_add(*received), all_sent.saturating_add(*sent)));
        }
    }
    sum
}

/// Read and written, of the machine's own disks; what is mapped onto them would count twice.
fn disk_bytes(diskstats: &str) -> (u64, u64) {
    let (mut read, mut written) = (0_u64, 0_u64);
    for line in diskstats.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let sectors = |field: usize| fields.get(field)?.parse::<u64>().ok();
        if let (Some(name), Some(in_sectors), Some(out_sectors)) = (fields.get(2), sectors(5), sectors(9))
            && name.starts_with("vd")
        {
            read = read.saturating_add(in_sectors.saturating_mul(SECTOR));
            written = written.saturating_add(out_sectors.saturating_mul(SECTOR));
        }
    }
    (read, written)
}

fn available_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_from_its_line() {
        assert_eq!(available_bytes("MemTotal: 9 kB\nMemAvailable:      12 kB\n"), Some(12 * 1024));
        assert_eq!(available_bytes("MemTotal: 9 kB\n"), None);
    }

    #[test]
    fn busy_is_all_but_waiting() {
        let stat = "cpu  1 2 3 400 500 6 7 8 9 0\ncpu0 1 2 3 400 500 6 7 8 9 0\ncpu1 0 0 0 0 0 0 0 0 0 0\nintr 5\n";
        assert_eq!(processors(stat), (2, Some(19 * TICK_US)));
        assert_eq!(processors("cpu 1 2\n"), (0, None));
        assert_eq!(processors(""), (0, None));
    }

    #[test]
    fn cards_are_summed_without_loopback_and_none_is_no_figure() {
        let head = "Inter-|   Receive\n face |bytes    packets\n    lo: 7 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n";
        assert_eq!(network_bytes(head), None);
        let two = format!("{head}  eth0: 10 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0\n  eth1:1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0\n");
        assert_eq!(network_bytes(&two), Some((11, 22)));
        assert_eq!(network_bytes("eth0: 1 2\n:::\n"), None);
    }

    #[test]
    fn disks_count_once() {
        let lines = " 253 0 vda 5 0 10 0 1 0 4 0 0 0 0\n 252 0 dm-0 5 0 10 0 1 0 4 0 0 0 0\n 1 0 ram0\nvd\n";
        assert_eq!(disk_bytes(lines), (10 * SECTOR, 4 * SECTOR));
    }

    #[test]
    fn a_programs_name_is_no_figure() {
        let stat = "7 (a) R 9 9) S 1 7 7 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 99 4096 12 0\n";
        assert_eq!(program(stat), Some(Program { ticks: 10, pages: 12 }));
        for bad in ["", "7 (a) S 1", "7 (a) S 1 7 7 0 -1 0 0 0 0 0 1 2 3 x 20 0 1 0 99 4096 12"] {
            assert_eq!(program(bad), None, "{bad}");
        }
    }

    #[test]
    fn this_machine_has_figures() {
        let group = tempfile::tempdir().unwrap();
        let machine = read(Host::Vsock, 7, Some(group.path()));
        assert!(machine.processes > 0, "where the group does not say");
        std::fs::write(group.path().join("pids.current"), "3\n").unwrap();
        assert_eq!(read(Host::Vsock, 7, Some(group.path())).processes, 3);
        assert!(machine.processors > Some(0) && machine.busy_us > Some(0) && machine.memory_used_bytes > Some(0));
        let programs = read(Host::Sockets, 7, None);
        assert!(programs.processes > 0 && programs.busy_us > Some(0) && programs.memory_used_bytes > Some(0));
        assert_eq!((programs.memory_total_bytes, programs.processors, programs.disk_read_bytes), (0, None, None));
    }
}
