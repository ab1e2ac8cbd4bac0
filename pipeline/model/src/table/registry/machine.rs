//! Tables about machines.

use super::{counter, flag, float, id, id_number, integer, ratio, text};
use crate::table::{Table, TableKind};
use crate::time::Span;

/// One machine at one moment.
pub const HOST: Table = Table {
    name: "host",
    meaning: "one machine at one moment",
    kind: TableKind::Sample,
    interval: Span::seconds(1),
    columns: &[
        id("host", "the collector's configuration, else /proc/sys/kernel/hostname"),
        text("boot_id", "/proc/sys/kernel/random/boot_id"),
        float("uptime_seconds", "seconds", "/proc/uptime"),
        float("load1", "runnable tasks", "/proc/loadavg"),
        float("load5", "runnable tasks", "/proc/loadavg"),
        float("load15", "runnable tasks", "/proc/loadavg"),
        ratio("cpu_utilization_ratio", "/proc/stat: 1 - (idle + iowait) / total since the last row")
            .null("first row, or could not be read"),
        ratio("cpu_iowait_ratio", "/proc/stat").null("first row, or could not be read"),
        ratio("cpu_steal_ratio", "/proc/stat").null("first row, or could not be read"),
        integer("memory_total_bytes", "bytes", "/proc/meminfo: MemTotal"),
        integer("memory_available_bytes", "bytes", "/proc/meminfo: MemAvailable"),
        integer("memory_used_bytes", "bytes", "/proc/meminfo: MemTotal - MemAvailable"),
        integer("swap_total_bytes", "bytes", "/proc/meminfo: SwapTotal"),
        integer("swap_used_bytes", "bytes", "/proc/meminfo: SwapTotal - SwapFree"),
        ratio("psi_cpu_some_ratio", "/proc/pressure/cpu: some avg10 / 100")
            .null("the kernel has no PSI, or it is switched off"),
        ratio("psi_memory_some_ratio", "/proc/pressure/memory: some avg10 / 100")
            .null("the kernel has no PSI, or it is switched off"),
        ratio("psi_memory_full_ratio", "/proc/pressure/memory: full avg10 / 100")
            .null("the kernel has no PSI, or it is switched off"),
        ratio("psi_io_some_ratio", "/proc/pressure/io: some avg10 / 100")
            .null("the kernel has no PSI, or it is switched off"),
        ratio("psi_io_full_ratio", "/proc/pressure/io: full avg10 / 100")
            .null("the kernel has no PSI, or it is switched off"),
        integer("processes_running", "processes", "/proc/stat: procs_running"),
        integer("processes_blocked", "processes", "/proc/stat: procs_blocked"),
        counter("oom_kills_total", "kills", "/proc/vmstat: oom_kill"),
        counter("context_switches_total", "switches", "/proc/stat: ctxt"),
        counter("tcp_sent_segments_total", "segments", "/proc/net/snmp: Tcp OutSegs"),
        counter("tcp_retransmitted_segments_total", "segments", "/proc/net/snmp: Tcp RetransSegs"),
        float("clock_offset_seconds", "seconds", "adjtimex: offset from the time source")
            .null("nobody keeps the clock, or it could not be asked"),
        flag("clock_synchronised", "adjtimex: neither TIME_ERROR nor STA_UNSYNC").null("it could not be asked"),
        float("clock_error_max_seconds", "seconds", "adjtimex: maxerror, grows until somebody sets the clock")
            .null("it could not be asked"),
    ],
};

/// One core at one moment.
pub const CPU: Table = Table {
    name: "cpu",
    meaning: "one core at one moment",
    kind: TableKind::Sample,
    interval: Span::seconds(10),
    columns: &[
        id("host", "the collector's configuration, else /proc/sys/kernel/hostname"),
        id_number("core", "/proc/stat: cpuN"),
        ratio("utilization_ratio", "/proc/stat: 1 - (idle + iowait) / total since the last row")
            .null("first row, or could not be read"),
        ratio("user_ratio", "/proc/stat: (user + nice) / total since the last row")
            .null("first row, or could not be read"),
        ratio("system_ratio", "/proc/stat: (system + irq + softirq) / total since the last row")
            .null("first row, or could not be read"),
        ratio("iowait_ratio", "/proc/stat: iowait / total since the last row").null("first row, or could not be read"),
        ratio("steal_ratio", "/proc/stat: steal / total since the last row").null("first row, or could not be read"),
        float("frequency_mhz", "MHz", "/sys/devices/system/cpu/cpuN/cpufreq/scaling_cur_freq, else /proc/cpuinfo"),
    ],
};

/// One block device or mounted file system at one moment.
pub const DISK: Table = Table {
    name: "disk",
    meaning: "one block device or mounted file system at one moment",
    kind: TableKind::Sample,
    interval: Span::seconds(10),
    columns: &[
        id("host", "the collector's configuration, else /proc/sys/kernel/hostname"),
        id("device", "/proc/self/mounts, /proc/diskstats"),
        text("mount_point", "/proc/self/mounts").null("not mounted"),
        text("filesystem", "/proc/self/mounts").null("not mounted"),
        flag("read_only", "/proc/self/mounts: ro, or ext4's emergency_ro or shutdown").null("not mounted"),
        integer("size_bytes", "bytes", "statvfs").null("not mounted, or could not be read"),
        integer("available_bytes", "bytes", "statvfs: for users that are not root")
            .null("not mounted, or could not be read"),
        integer("inodes_free", "inodes", "statvfs").null("not mounted, or could not be read"),
        counter("reads_total", "reads", "/proc/diskstats: field 1").null("no block device of that name"),
        counter("writes_total", "writes", "/proc/diskstats: field 5").null("no block device of that name"),
        counter("read_bytes_total", "bytes", "/proc/diskstats: field 3, sectors of 512")
            .null("no block device of that name"),
        counter("written_bytes_total", "bytes", "/proc/diskstats: field 7, sectors of 512")
            .null("no block device of that name"),
        float("read_seconds_total", "seconds", "/proc/diskstats: field 4, milliseconds")
            .null("no block device of that name"),
        float("write_seconds_total", "seconds", "/proc/diskstats: field 8, milliseconds")
            .null("no block device of that name"),
        float("io_seconds_total", "seconds", "/proc/diskstats: field 10, milliseconds")
            .null("no block device of that name"),
    ],
};

/// One network interface at one moment.
pub const NET: Table = Table {
    name: "net",
    meaning: "one network interface at one moment",
    kind: TableKind::Sample,
    interval: Span::seconds(10),
    columns: &[
        id("host", "the collector's configuration, else /proc/sys/kernel/hostname"),
        id("interface", "/proc/net/dev"),
        flag("up", "/sys/class/net/*/operstate, unknown counts as up"),
        integer("speed_bits_per_second", "bits per second", "/sys/class/net/*/speed").null("virtual, or no link"),
        counter("rx_bytes_total", "bytes", "/proc/net/dev"),
        counter("tx_bytes_total", "bytes", "/proc/net/dev"),
        counter("rx_packets_total", "packets", "/proc/net/dev"),
        counter("tx_packets_total", "packets", "/proc/net/dev"),
        counter("rx_errors_total", "packets", "/proc/net/dev"),
        counter("tx_errors_total", "packets", "/proc/net/dev"),
        counter("rx_dropped_total", "packets", "/proc/net/dev"),
        counter("tx_dropped_total", "packets", "/proc/net/dev"),
        counter("carrier_changes_total", "changes", "/sys/class/net/*/carrier_changes"),
    ],
};

/// One port of an InfiniBand or RoCE device at one moment.
pub const IB: Table = Table {
    name: "ib",
    meaning: "one port of an InfiniBand or RoCE device at one moment",
    kind: TableKind::Sample,
    interval: Span::seconds(10),
    columns: &[
        id("host", "the collector's configuration, else /proc/sys/kernel/hostname"),
        id("device", "/sys/class/infiniband"),
        id_number("port", "/sys/class/infiniband/*/ports"),
        text("state", "/sys/class/infiniband/*/ports/*/state"),
        text("physical_state", "/sys/class/infiniband/*/ports/*/phys_state"),
        float("rate_gigabits_per_second", "gigabits per second", "/sys/class/infiniband/*/ports/*/rate"),
        counter(
            "rx_bytes_total",
            "bytes",
            "/sys/class/infiniband/*/ports/*/counters/port_rcv_data, in words of 4 bytes",
        ),
        counter(
            "tx_bytes_total",
            "bytes",
            "/sys/class/infiniband/*/ports/*/counters/port_xmit_data, in words of 4 bytes",
        ),
        counter("VL15_dropped_total", "count", "/sys/class/infiniband/*/ports/*/counters/VL15_dropped")
            .null("the device has no such counter"),
        counter(
            "excessive_buffer_overrun_errors_total",
            "count",
            "/sys/class/infiniband/*/ports/*/counters/excessive_buffer_overrun_errors",
        )
        .null("the device has no such counter"),
        counter("link_downed_total", "count", "/sys/class/infiniband/*/ports/*/counters/link_downed")
            .null("the device has no such counter"),
        counter("link_error_recovery_total", "count", "/sys/class/infiniband/*/ports/*/counters/link_error_recovery")
            .null("the device has no such counter"),
        counter(
            "local_link_integrity_errors_total",
            "count",
            "/sys/class/infiniband/*/ports/*/counters/local_link_integrity_errors",
        )
        .null("the device has no such counter"),
        counter(
            "multicast_rcv_packets_total",
            "count",
            "/sys/class/infiniband/*/ports/*/counters/multicast_rcv_packets",
        )
        .null("the device has no such counter"),
        counter(
            "multicast_xmit_packets_total",
            "count",
            "/sys/class/infiniband/*/ports/*/counters/multicast_xmit_packets",
        )
        .null("the device has no such counter"),
        counter(
            "port_rcv_constraint_errors_total",
            "count",
            "/sys/class/infiniband/*/ports/*/counters/port_rcv_constraint_errors",
        )
        .null("the device has no such counter"),
        counter("port_rcv_errors_total", "count", "/sys/class/infiniband/*/ports/*/counters/port_rcv_errors")
            .null("the device has no such counter"),
        counter("port_rcv_packets_total", "count", "/sys/class/infiniband/*/ports/*/counters/port_rcv_packets")
            .null("the device has no such counter"),
        counter(
            "port_rcv_remote_physical_errors_total",
            "count",
            "/sys/class/infiniband/*/ports/*/counters/port_rcv_remote_physical_errors",
        )
        .null("the device has no such counter"),
        counter(
            "port_rcv_switch_relay_errors_total",
            "count",
            "/sys/class/infiniband/*/ports/*/counters/port_rcv_switch_relay_errors",
        )
        .null("the device has no such counter"),
        counter(
            "port_xmit_constraint_errors_total",
            "count",
            "/sys/class/infiniband/*/ports/*/counters/port_xmit_constraint_errors",
        )
        .null("the device has no such counter"),
        counter("port_xmit_discards_total", "count", "/sys/class/infiniband/*/ports/*/counters/port_xmit_discards")
            .null("the device has no such counter"),
        counter("port_xmit_packets_total", "count", "/sys/class/infiniband/*/ports/*/counters/port_xmit_packets")
            .null("the device has no such counter"),
        counter("port_xmit_wait_total", "count", "/sys/class/infiniband/*/ports/*/counters/port_xmit_wait")
            .null("the device has no such counter"),
        counter("symbol_error_total", "count", "/sys/class/infiniband/*/ports/*/counters/symbol_error")
            .null("the device has no such counter"),
        counter("unicast_rcv_packets_total", "count", "/sys/class/infiniband/*/ports/*/counters/unicast_rcv_packets")
            .null("the device has no such counter"),
        counter("unicast_xmit_packets_total", "count", "/sys/class/infiniband/*/ports/*/counters/unicast_xmit_packets")
            .null("the device has no such counter"),
        counter("duplicate_request_total", "count", "/sys/class/infiniband/*/ports/*/hw_counters/duplicate_request")
            .null("the device has no such counter"),
        counter(
            "implied_nak_seq_err_total",
            "count",
            "/sys/class/infiniband/*/ports/*/hw_counters/implied_nak_seq_err",
        )
        .null("the device has no such counter"),
        counter(
            "local_ack_timeout_err_total",
            "count",
            "/sys/class/infiniband/*/ports/*/hw_counters/local_ack_timeout_err",
        )
        .null("the device has no such counter"),
        counter("out_of_buffer_total", "count", "/sys/class/infiniband/*/ports/*/hw_counters/out_of_buffer")
            .null("the device has no such counter"),
        counter("out_of_sequence_total", "count", "/sys/class/infiniband/*/ports/*/hw_counters/out_of_sequence")
            .null("the device has no such counter"),
        counter("packet_seq_err_total", "count", "/sys/class/infiniband/*/ports/*/hw_counters/packet_seq_err")
            .null("the device has no such counter"),
        counter("req_cqe_error_total", "count", "/sys/class/infiniband/*/ports/*/hw_counters/req_cqe_error")
            .null("the device has no such counter"),
        counter(
            "req_cqe_flush_error_total",
            "count",
            "/sys/class/infiniband/*/ports/*/hw_counters/req_cqe_flush_error",
        )
        .null("the device has no such counter"),
        counter(
            "req_remote_access_errors_total",
            "count",
            "/sys/class/infiniband/*/ports/*/hw_counters/req_remote_access_errors",
        )
        .null("the device has no such counter"),
        counter(
            "req_remote_invalid_request_total",
            "count",
            "/sys/class/infiniband/*/ports/*/hw_counters/req_remote_invalid_request",
        )
        .null("the device has no such counter"),
        counter("resp_cqe_error_total", "count", "/sys/class/infiniband/*/ports/*/hw_counters/resp_cqe_error")
            .null("the device has no such counter"),
        counter(
            "resp_cqe_flush_error_total",
            "count",
            "/sys/class/infiniband/*/ports/*/hw_counters/resp_cqe_flush_error",
        )
        .null("the device has no such counter"),
        counter(
            "resp_local_length_error_total",
            "count",
            "/sys/class/infiniband/*/ports/*/hw_counters/resp_local_length_error",
        )
        .null("the device has no such counter"),
        counter(
            "resp_remote_access_errors_total",
            "count",
            "/sys/class/infiniband/*/ports/*/hw_counters/resp_remote_access_errors",
        )
        .null("the device has no such counter"),
        counter("rnr_nak_retry_err_total", "count", "/sys/class/infiniband/*/ports/*/hw_counters/rnr_nak_retry_err")
            .null("the device has no such counter"),
        counter("roce_adp_retrans_total", "count", "/sys/class/infiniband/*/ports/*/hw_counters/roce_adp_retrans")
            .null("the device has no such counter"),
        counter(
            "roce_adp_retrans_to_total",
            "count",
            "/sys/class/infiniband/*/ports/*/hw_counters/roce_adp_retrans_to",
        )
        .null("the device has no such counter"),
        counter("roce_slow_restart_total", "count", "/sys/class/infiniband/*/ports/*/hw_counters/roce_slow_restart")
            .null("the device has no such counter"),
        counter(
            "roce_slow_restart_cnps_total",
            "count",
            "/sys/class/infiniband/*/ports/*/hw_counters/roce_slow_restart_cnps",
        )
        .null("the device has no such counter"),
        counter(
            "roce_slow_restart_trans_total",
            "count",
            "/sys/class/infiniband/*/ports/*/hw_counters/roce_slow_restart_trans",
        )
        .null("the device has no such counter"),
        counter("rx_atomic_requests_total", "count", "/sys/class/infiniband/*/ports/*/hw_counters/rx_atomic_requests")
            .null("the device has no such counter"),
        counter("rx_dct_connect_total", "count", "/sys/class/infiniband/*/ports/*/hw_counters/rx_dct_connect")
            .null("the device has no such counter"),
        counter(
            "rx_icrc_encapsulated_total",
            "count",
            "/sys/class/infiniband/*/ports/*/hw_counters/rx_icrc_encapsulated",
        )
        .null("the device has no such counter"),
        counter("rx_read_requests_total", "count", "/sys/class/infiniband/*/ports/*/hw_counters/rx_read_requests")
            .null("the device has no such counter"),
        counter("rx_write_requests_total", "count", "/sys/class/infiniband/*/ports/*/hw_counters/rx_write_requests")
            .null("the device has no such counter"),
    ],
};

/// One process at one moment; the largest by CPU and memory.
pub const PROCESS: Table = Table {
    name: "process",
    meaning: "one process at one moment; the largest by CPU and memory",
    kind: TableKind::Sample,
    interval: Span::seconds(10),
    columns: &[
        id("host", "the collector's configuration, else /proc/sys/kernel/hostname"),
        id_number("pid", "/proc/*"),
        text("name", "/proc/*/comm"),
        text("user", "/proc/*/status: Uid, by /etc/passwd"),
        text("state", "/proc/*/stat, in words"),
        ratio("cpu_ratio", "/proc/*/stat: utime + stime since the last row, 1 = all cores of the machine")
            .null("first row of the process"),
        integer("memory_bytes", "bytes", "/proc/*/statm: resident"),
        text("job", "/proc/*/cgroup: SLURM's job, else SLURM_JOB_ID in /proc/*/environ")
            .null("no job, or not readable"),
        text("pod", "/proc/*/cgroup and /var/log/pods: the pod's name, or its UID where that folder does not name it")
            .null("none, or not found yet"),
        text("container", "/proc/*/cgroup: the container's id").null("none"),
        text("namespace", "/proc/*/cgroup and /var/log/pods: the pod's namespace")
            .null("no pod, or its name is not known"),
    ],
};

/// Something that the kernel said.
pub const KERNEL_EVENT: Table = Table {
    name: "kernel_event",
    meaning: "something that the kernel said",
    kind: TableKind::Event,
    interval: Span::seconds(0),
    columns: &[
        id("host", "the collector's configuration, else /proc/sys/kernel/hostname"),
        id("kind", "/dev/kmsg, classified"),
        text("device", "the message").null("none named"),
        text("pci_bus_id", "the message").null("none named"),
        integer("pid", "process id", "the message").null("none named"),
        text("process_name", "the message").null("none named"),
        text("message", "/dev/kmsg"),
    ],
};
