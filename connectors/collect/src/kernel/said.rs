//! What messages of the kernel mean. The words are those of the kernel's own sources and of NVIDIA's and Mellanox's drivers; what is
//! not known here is nothing that anybody was woken for so far.

/// A message that means something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// What (docs/sources.md).
    pub kind: &'static str,
    /// The device, by the kernel's name.
    pub device: Option<String>,
    /// An address on the PCI bus, as the kernel writes it.
    pub pci: Option<String>,
    /// A process.
    pub pid: Option<i64>,
    /// Its name.
    pub process: Option<String>,
    /// The number of an XID or SXID.
    pub code: Option<i64>,
}

impl Said {
    fn of(kind: &'static str) -> Said {
        Said { kind, ..Said::default() }
    }

    fn device(self, device: Option<&str>) -> Said {
        let device = device.filter(|device| !device.is_empty());
        Said { device: device.map(str::to_string), ..self }
    }
}

/// NVIDIA's number for a GPU that is gone from the bus. The driver does not always say it.
const FALLEN_OFF: i64 = 79;

/// What a message means, if it is known to mean something.
pub fn meaning(message: &str) -> Option<Said> {
    // A program may call itself as it likes, and the kernel says its name when it crashes.
    if message.contains("]: segfault at ") || message.starts_with("traps: ") {
        return of_crash(message);
    }
    of_gpus(message)
        .or_else(|| of_processes(message))
        .or_else(|| of_hardware(message))
        .or_else(|| of_storage(message))
        .or_else(|| of_network(message))
}

fn of_gpus(message: &str) -> Option<Said> {
    for (kind, begins, word) in [("xid", "NVRM: ", "Xid (PCI:"), ("sxid", "nvidia-nvswitch", ": SXid (PCI:")] {
        let Some((before, rest)) = message.split_once(word).filter(|_| message.starts_with(begins)) else { continue };
        let (address, rest) = rest.split_once("):")?;
        let address = Some(whole_address(address)).filter(|address| is_address(address))?;
        let rest = rest.trim_start();
        let end = rest.find(',')?;
        let said = Said {
            pci: Some(address),
            code: Some(rest[..end].parse().ok()?),
            pid: value_of(rest, "pid=").and_then(|pid| pid.parse().ok()),
            process: value_of(rest, "name=").filter(|name| !name.starts_with('<')).map(str::to_string),
            ..Said::of(kind)
        };
        let switch = (kind == "sxid").then(|| before.rsplit(' ').next().unwrap_or(before));
        return Some(said.device(switch));
    }
    if message.starts_with("NVRM: ") && message.contains("fallen off the bus") {
        let pci = message.split_whitespace().find(|word| word.matches(':').count() >= 2 && word.contains('.'));
        let pci = pci.map(|word| whole_address(word.trim_matches(|letter: char| !letter.is_ascii_hexdigit())));
        return Some(Said { pci, code: Some(FALLEN_OFF), ..Said::of("xid") });
    }
    None
}

/// Up to a comma or a space; quotes around it are no part of it.
fn value_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = text.split_once(name)?.1.split([',', ' ']).next()?;
    Some(value.trim_matches('\'')).filter(|value| !value.is_empty())
}

/// With a function number, which drivers leave out.
fn whole_address(address: &str) -> String {
    let address = address.to_lowercase();
    if address.contains('.') { address } else { format!("{address}.0") }
}

fn of_processes(message: &str) -> Option<Said> {
    if let Some((_, rest)) = message.split_once("Killed process ") {
        let pid = rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok();
        let process = rest.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(name, _)| name.to_string());
        return Some(Said { pid, process, ..Said::of("oom_kill") });
    }
    if let Some((task, _)) =
        message.strip_prefix("INFO: task ").and_then(|rest| rest.split_once(" blocked for more than "))
    {
        return Some(with_task(Said::of("hung_task"), task));
    }
    if let Some((_, rest)) = message.split_once("soft lockup - CPU#") {
        let cpu = rest.split(' ').next()?;
        let task = rest.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("", |(task, _)| task);
        return Some(with_task(Said::of("soft_lockup").device(Some(&format!("cpu{cpu}"))), task));
    }
    if let Some((_, rest)) = message.split_once("hard LOCKUP on cpu ") {
        let cpu = rest.split(' ').next()?;
        return Some(Said::of("hard_lockup").device(Some(&format!("cpu{cpu}"))));
    }
    message.starts_with("Kernel panic - not syncing").then(|| Said::of("panic"))
}

fn of_crash(message: &str) -> Option<Said> {
    let (before, _) = message.split_once("]: segfault at ").filter(|(_, after)| after.contains(" in libnccl"))?;
    let (process, pid) = before.rsplit_once('[')?;
    Some(Said { pid: pid.parse().ok(), process: Some(process.to_string()), ..Said::of("segfault_nccl") })
}

/// `name:pid`; a name may have colons itself.
fn with_task(said: Said, task: &str) -> Said {
    let (process, pid) = task.rsplit_once(':').unwrap_or((task, ""));
    let process = Some(process.to_string()).filter(|process| !process.is_empty());
    Said { process, pid: pid.trim().parse().ok(), ..said }
}

fn of_hardware(message: &str) -> Option<Said> {
    let is_machine_check = message.contains("Machine check events logged")
        || message.contains("[Hardware Error]: event severity")
        || message.contains("[Hardware Error]: CPU") && message.contains("Machine Check");
    if is_machine_check {
        return Some(Said::of("machine_check"));
    }
    if let Some(rest) = message.strip_prefix("EDAC ") {
        let is_error = [" CE ", " UE ", "CE error", "UE error"].iter().any(|word| rest.contains(word));
        return is_error.then(|| Said::of("memory_error").device(rest.split([' ', ':']).next()));
    }
    let is_bus_error = ["Corrected error", "Uncorrected", "PCIe Bus Error"].iter().any(|word| message.contains(word));
    if message.contains("AER: ") && is_bus_error || message.contains("PCIe Bus Error: severity=") {
        let pci = message.split_whitespace().map(|word| word.trim_end_matches(':')).find(|word| is_address(word));
        return Some(Said { pci: pci.map(str::to_string), ..Said::of("pcie_error") });
    }
    None
}

/// `0000:3b:00.0`.
fn is_address(word: &str) -> bool {
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts: Vec<&str> = word.split([':', '.']).collect();
    matches!(parts[..], [domain, bus, device, function]
        if digits(domain, 4) && digits(bus, 2) && digits(device, 2) && digits(function, 1))
}

fn of_storage(message: &str) -> Option<Said> {
    let lower = message.to_lowercase();
    let in_brackets = || message.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(inside, _)| inside);
    let of_file_system =
        || in_brackets().map(|inside| inside.trim_start_matches("device ").split(':').next().unwrap_or(inside));
    let is_xfs = message.starts_with("XFS (");
    let is_shut_down = is_xfs && (lower.contains("shutting down") || lower.contains("shut down"));
    if is_shut_down || lower.contains("remounting filesystem read-only") || lower.contains("forced readonly") {
        return Some(Said::of("filesystem_read_only").device(of_file_system()));
    }
    let is_file_system =
        ["EXT4-fs error", "BTRFS error", "BTRFS critical"].iter().any(|word| message.starts_with(word))
            || is_xfs && ["Corruption", "metadata I/O error"].iter().any(|word| message.contains(word));
    if is_file_system {
        return Some(Said::of("filesystem_error").device(of_file_system()));
    }
    if let Some(rest) = message.strip_prefix("nvme ") {
        // One that is late answers after its reset mostly; one that is given up does not.
        let gone = ["Disabling device", "Removing after probe failure", "Device not ready"];
        let late = ["timeout", "controller is down"];
        let says = |words: &[&str]| words.iter().any(|word| rest.contains(word));
        let kind = if says(&gone) { Some("nvme_failure") } else { says(&late).then_some("io_error") };
        return kind.map(|kind| Said::of(kind).device(rest.split([':', ' ']).next()));
    }
    if lower.starts_with("md/raid") && lower.contains("disk failure on ") {
        let disk = message.split_once("failure on ").and_then(|(_, rest)| rest.split([',', ' ']).next());
        return Some(Said::of("md_failure").device(disk));
    }
    if let Some((_, rest)) = message.split_once("I/O error").filter(|_| !message.contains("metadata")) {
        let device = rest.split_once("dev ").and_then(|(_, rest)| rest.split([',', ' ']).next());
        return device.map(|device| Said::of("io_error").device(Some(device)));
    }
    if let Some(rest) = message.strip_prefix("nfs: server ") {
        let server = rest.split(' ').next();
        return rest.contains("not responding").then(|| Said::of("nfs_stall").device(server));
    }
    None
}

/// What Mellanox's driver says of a card that is ill.
const MLX5_FAULTS: [&str; 6] = [
    "insufficient power",
    "High Temperature",
    "health compromised",
    "leak of a command resource",
    "unrecoverable hardware error",
    "device's health",
];

fn of_network(message: &str) -> Option<Said> {
    let pci = || message.split_whitespace().map(|word| word.trim_end_matches(':')).find(|word| is_address(word));
    if message.starts_with("mlx5_") && MLX5_FAULTS.iter().any(|fault| message.contains(fault)) {
        return Some(Said { pci: pci().map(str::to_string), ..Said::of("mlx5_fault") });
    }
    if let Some(rest) = message.strip_prefix("NETDEV WATCHDOG: ") {
        return Some(Said::of("network_timeout").device(rest.split([' ', ':']).next()));
    }
    let is_down = ["Link is Down", "Link down", "link status definitely down", "Cable unplugged"];
    if is_down.iter().any(|word| message.contains(word)) {
        // The interface stands before the first colon, or behind the word for it.
        let named = message.split_once("interface ").and_then(|(_, rest)| rest.split([',', ' ']).next());
        let before = message.split(": ").next().and_then(|part| part.rsplit(' ').next());
        let said = Said::of("link_down").device(named.or(before.filter(|word| !is_address(word))));
        return Some(Said { pci: pci().map(str::to_string), ..said });
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    type Expected =
        (&'static str, Option<&'static str>, Option<&'static str>, Option<i64>, Option<&'static str>, Option<i64>);

    /// Kind, device, PCI address, process id, process name, code. The first lines were read on real machines.
    const MESSAGES: &[(&str, Expected)] = &[
        (
            "NVRM: Xid (PCI:0000:00:06): 31, pid=639, name=fault, channel 0x0000000a, intr 00000000. MMU Fault: ENGINE GRAPHICS",
            ("xid", None, Some("0000:00:06.0"), Some(639), Some("fault"), Some(31)),
        ),
        (
            "NVRM: Xid (PCI:0000:9B:00): 119, pid=2024380, name=nvidia-smi, Timeout after 6s of waiting for RPC response from GPU4 GSP!",
            ("xid", None, Some("0000:9b:00.0"), Some(2_024_380), Some("nvidia-smi"), Some(119)),
        ),
        (
            "NVRM: Xid (PCI:0000:41:00): 145, pid='<unknown>', name=<unknown>, RLW_REMAP Nonfatal XC1 i0 Link 05 (0x00000004)",
            ("xid", None, Some("0000:41:00.0"), None, None, Some(145)),
        ),
        (
            "NVRM: Xid (PCI:0000:06:00): 79, GPU has fallen off the bus.",
            ("xid", None, Some("0000:06:00.0"), None, None, Some(79)),
        ),
        (
            "NVRM: GPU 0000:b3:00.0: GPU has fallen off the bus.",
            ("xid", None, Some("0000:b3:00.0"), None, None, Some(79)),
        ),
        (
            "nvidia-nvswitch2: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error (First)",
            ("sxid", Some("nvidia-nvswitch2"), Some("0000:05:00.0"), None, None, Some(12_028)),
        ),
        (
            "Memory cgroup out of memory: Killed process 8123 (pt_main_thread) total-vm:91234kB, anon-rss:812kB",
            ("oom_kill", None, None, Some(8_123), Some("pt_main_thread"), None),
        ),
        (
            "INFO: task nvidia-smi:4242 blocked for more than 120 seconds.",
            ("hung_task", None, None, Some(4_242), Some("nvidia-smi"), None),
        ),
        (
            "watchdog: BUG: soft lockup - CPU#17 stuck for 23s! [kworker/17:1:812]",
            ("soft_lockup", Some("cpu17"), None, Some(812), Some("kworker/17:1"), None),
        ),
        ("watchdog: Watchdog detected hard LOCKUP on cpu 3", ("hard_lockup", Some("cpu3"), None, None, None, None)),
        ("mce: [Hardware Error]: Machine check events logged", ("machine_check", None, None, None, None, None)),
        ("{1}[Hardware Error]: event severity: fatal", ("machine_check", None, None, None, None, None)),
        (
            "EDAC MC0: 1 CE memory read error on CPU_SrcID#0_MC#0_Chan#1_DIMM#0 (channel:1 slot:0)",
            ("memory_error", Some("MC0"), None, None, None, None),
        ),
        (
            "pcieport 0000:00:01.0: AER: Corrected error received: 0000:00:01.0",
            ("pcie_error", None, Some("0000:00:01.0"), None, None, None),
        ),
        (
            "mlx5_core 0000:12:00.0: PCIe Bus Error: severity=Uncorrected (Non-Fatal), type=Transaction Layer",
            ("pcie_error", None, Some("0000:12:00.0"), None, None, None),
        ),
        (
            "EXT4-fs (nvme0n1p2): Remounting filesystem read-only",
            ("filesystem_read_only", Some("nvme0n1p2"), None, None, None, None),
        ),
        (
            "EXT4-fs error (device sda1): ext4_lookup:1700: inode #2: comm ls: deleted inode referenced",
            ("filesystem_error", Some("sda1"), None, None, None, None),
        ),
        (
            "XFS (dm-3): Corruption of in-memory data (0x8) detected at xfs_defer_finish. Shutting down filesystem.",
            ("filesystem_read_only", Some("dm-3"), None, None, None, None),
        ),
        (
            "I/O error, dev nvme1n1, sector 2048 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
            ("io_error", Some("nvme1n1"), None, None, None, None),
        ),
        (
            "Buffer I/O error on dev sdb1, logical block 0, async page read",
            ("io_error", Some("sdb1"), None, None, None, None),
        ),
        ("nvme nvme0: I/O 12 QID 3 timeout, aborting", ("io_error", Some("nvme0"), None, None, None, None)),
        (
            "nvme nvme0: Disabling device after reset failure: -19",
            ("nvme_failure", Some("nvme0"), None, None, None, None),
        ),
        ("md/raid1:md0: Disk failure on sdb1, disabling device.", ("md_failure", Some("sdb1"), None, None, None, None)),
        (
            "mlx5_core 0000:5e:00.0: poll_health:822:(pid 0): device's health compromised - reached miss count",
            ("mlx5_fault", None, Some("0000:5e:00.0"), None, None, None),
        ),
        (
            "NETDEV WATCHDOG: eth0 (mlx5_core): transmit queue 3 timed out",
            ("network_timeout", Some("eth0"), None, None, None, None),
        ),
        (
            "igb 0000:07:00.0 eno1: igb: eno1 NIC Link is Down",
            ("link_down", Some("eno1"), Some("0000:07:00.0"), None, None, None),
        ),
        (
            "bond0: (slave eth1): link status definitely down for interface eth1, disabling it",
            ("link_down", Some("eth1"), None, None, None, None),
        ),
        ("nfs: server 10.0.0.7 not responding, still trying", ("nfs_stall", Some("10.0.0.7"), None, None, None, None)),
        (
            "python3[991]: segfault at 8 ip 00007f12 sp 00007ffd error 4 in libnccl.so.2.21.5[7f12+8d000]",
            ("segfault_nccl", None, None, Some(991), Some("python3"), None),
        ),
        ("Kernel panic - not syncing: Fatal exception in interrupt", ("panic", None, None, None, None, None)),
    ];

    #[test]
    fn messages_mean_what_they_say() {
        for (message, (kind, device, pci, pid, process, code)) in MESSAGES {
            let said = meaning(message).unwrap_or_else(|| panic!("{message}"));
            let found =
                (said.kind, said.device.as_deref(), said.pci.as_deref(), said.pid, said.process.as_deref(), said.code);
            assert_eq!(found, (*kind, *device, *pci, *pid, *process, *code), "{message}");
        }
    }

    #[test]
    fn every_kind_is_explained() {
        let page = include_str!("../../../../docs/sources.md");
        for (message, (kind, ..)) in MESSAGES {
            assert!(page.contains(&format!("`{kind}`")), "{message}: {kind} is not in docs/sources.md");
        }
    }

    /// What machines say all day.
    #[test]
    fn ordinary_messages_mean_nothing() {
        for message in [
            "nvidia-nvswitch2: open (major=510)",
            "IPv6: ADDRCONF(NETDEV_CHANGE): eth0: link becomes ready",
            "perf: interrupt took too long (2509 > 2500), lowering kernel.perf_event_max_sample_rate to 79000",
            "nvme nvme0: 8/0/0 default/read/poll queues",
            // Threads that call themselves so, and crash.
            "NVRM: Xid ():79[991]: segfault at 0 ip 00007f12 sp 00007ffd error 4 in x[7f12+8d000]",
            "I/O error dev x[991]: segfault at 0 ip 00007f12 sp 00007ffd error 4 in x[7f12+8d000]",
            "NVRM: Xid (PCI:x): 79, GPU has",
            "EXT4-fs (sda1): mounted filesystem with ordered data mode. Quota mode: none.",
            "XFS (dm-3): Mounting V5 Filesystem",
            "nfs: server 10.0.0.7 OK",
            "EDAC MC: Ver: 3.0.0",
            "mlx5_core 0000:5e:00.0: firmware version: 28.39.1002",
            "pcieport 0000:00:01.0: AER: enabled with IRQ 24",
            "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.159.04",
            "python3[991]: segfault at 8 ip 00007f12 sp 00007ffd error 4 in libtorch.so[7f12+8d000]",
            "",
        ] {
            assert_eq!(meaning(message), None, "{message}");
        }
    }

    /// A message may be cut off anywhere.
    #[test]
    fn the_beginning_of_a_message_breaks_nothing() {
        for (message, _) in MESSAGES {
            (0..message.len())
                .filter(|end| message.is_char_boundary(*end))
                .for_each(|end| drop(meaning(&message[..end])));
        }
    }
}
