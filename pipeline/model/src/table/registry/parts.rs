//! Tables about parts of a machine: its memory modules, the devices on its PCIe bus, and what its control groups use.

use super::{counter, float, id, integer, ratio, text};
use crate::table::{Table, TableKind};
use crate::time::Span;

/// One memory module at one moment.
pub const MEMORY_CONTROLLER: Table = Table {
    name: "memory_controller",
    meaning: "one memory module at one moment; the rows of a controller add up to all of its errors",
    kind: TableKind::Sample,
    interval: Span::seconds(10),
    columns: &[
        id("host", "the collector's configuration, else /proc/sys/kernel/hostname"),
        id("controller", "/sys/devices/system/edac/mc/mc*"),
        id("dimm", "/sys/devices/system/edac/mc/mc*/{dimm,rank}*")
            .null("errors that were seen in no module we know of"),
        text("controller_name", "/sys/devices/system/edac/mc/mc*/mc_name"),
        text("label", "/sys/devices/system/edac/mc/mc*/dimm*/dimm_label").null("no module, or not named"),
        text("location", "/sys/devices/system/edac/mc/mc*/dimm*/dimm_location").null("no module, or not told"),
        integer("size_bytes", "bytes", "/sys/devices/system/edac/mc/mc*/dimm*/size, mebibytes")
            .null("no module, or not told"),
        counter("corrected_total", "errors", "dimm_ce_count of the module; ce_noinfo_count without one"),
        counter("uncorrected_total", "errors", "dimm_ue_count of the module; ue_noinfo_count without one"),
    ],
};

const NO_LINK: &str = "no PCI Express link, or the device does not say";
const NO_SLOT: &str = "no port above it that says";
const NO_AER: &str = "the device or the kernel has no advanced error reporting";

/// One device on the PCIe bus at one moment.
pub const PCIE: Table = Table {
    name: "pcie",
    meaning: "one network card, drive, GPU or accelerator, or a bridge above one, on the PCIe bus at one moment",
    kind: TableKind::Sample,
    interval: Span::seconds(30),
    columns: &[
        id("host", "the collector's configuration, else /proc/sys/kernel/hostname"),
        id("pci_bus_id", "/sys/bus/pci/devices"),
        text("class", "/sys/bus/pci/devices/*/class: storage, network, display, accelerator or bridge"),
        text("driver", "/sys/bus/pci/devices/*/driver").null("no driver has it"),
        text("device", "its names under infiniband, net and nvme, with a space between").null("none of these"),
        text("slot", "the port above it: /sys/devices/pci*/.../SLOT/DEVICE").null("on the root of the bus"),
        integer("link_width", "lanes", "/sys/bus/pci/devices/*/current_link_width").null(NO_LINK),
        integer("link_width_max", "lanes", "/sys/bus/pci/devices/*/max_link_width").null(NO_LINK),
        integer("slot_width_max", "lanes", "max_link_width of the port above it").null(NO_SLOT),
        float(
            "link_speed_gigatransfers_per_second",
            "gigatransfers per second and lane",
            "/sys/bus/pci/devices/*/current_link_speed",
        )
        .null(NO_LINK),
        float(
            "link_speed_max_gigatransfers_per_second",
            "gigatransfers per second and lane",
            "/sys/bus/pci/devices/*/max_link_speed",
        )
        .null(NO_LINK),
        float(
            "slot_speed_max_gigatransfers_per_second",
            "gigatransfers per second and lane",
            "max_link_speed of the port above it",
        )
        .null(NO_SLOT),
        counter(
            "correctable_errors_total",
            "errors",
            "/sys/bus/pci/devices/*/aer_dev_correctable: TOTAL_ERR_COR, else the sum",
        )
        .null(NO_AER),
        counter(
            "nonfatal_errors_total",
            "errors",
            "/sys/bus/pci/devices/*/aer_dev_nonfatal: TOTAL_ERR_NONFATAL, else the sum",
        )
        .null(NO_AER),
        counter("fatal_errors_total", "errors", "/sys/bus/pci/devices/*/aer_dev_fatal: TOTAL_ERR_FATAL, else the sum")
            .null(NO_AER),
    ],
};

const NO_CONTROLLER: &str = "the controller is not switched on for it";
const NO_PRESSURE: &str = "the kernel has no PSI, or it is switched off";

/// One control group at one moment.
pub const CGROUP: Table = Table {
    name: "cgroup",
    meaning: "one job, pod or container, and every 30 s one service or top slice, of cgroup v2 at one moment; each counts what is below it",
    kind: TableKind::Sample,
    interval: Span::seconds(10),
    columns: &[
        id("host", "the collector's configuration, else /proc/sys/kernel/hostname"),
        id("cgroup", "its path under /sys/fs/cgroup"),
        text("job", "the path: SLURM's job").null("not of SLURM"),
        text("pod", "the path, and /var/log/pods: the pod's name, or its UID where that folder does not name it")
            .null("not of Kubernetes"),
        text("container", "the path: the container's id").null("no container of its own"),
        text("unit", "the path: systemd's service or scope").null("none, or the unit of a job or container"),
        integer("memory_bytes", "bytes", "memory.current, caches of files as well").null(NO_CONTROLLER),
        integer(
            "memory_used_bytes",
            "bytes",
            "memory.current without what can be given back: memory.stat active_file, inactive_file, slab_reclaimable",
        )
        .null(NO_CONTROLLER),
        integer("memory_limit_bytes", "bytes", "memory.max").null("no limit of its own"),
        counter("oom_kills_total", "kills", "memory.events: oom_kill").null(NO_CONTROLLER),
        float("cpu_seconds_total", "seconds", "cpu.stat: usage_usec"),
        float("throttled_seconds_total", "seconds, of all its cores", "cpu.stat: throttled_usec").null(NO_CONTROLLER),
        counter("cpu_periods_total", "periods with work", "cpu.stat: nr_periods").null(NO_CONTROLLER),
        counter("throttled_periods_total", "periods", "cpu.stat: nr_throttled").null(NO_CONTROLLER),
        ratio("psi_cpu_some_ratio", "cpu.pressure: some avg10 / 100").null(NO_PRESSURE),
        ratio("psi_memory_some_ratio", "memory.pressure: some avg10 / 100").null(NO_PRESSURE),
        ratio("psi_memory_full_ratio", "memory.pressure: full avg10 / 100").null(NO_PRESSURE),
        ratio("psi_io_some_ratio", "io.pressure: some avg10 / 100").null(NO_PRESSURE),
        ratio("psi_io_full_ratio", "io.pressure: full avg10 / 100").null(NO_PRESSURE),
        counter("read_bytes_total", "bytes", "io.stat: rbytes of devices that stand on no other").null(NO_CONTROLLER),
        counter("written_bytes_total", "bytes", "io.stat: wbytes of devices that stand on no other")
            .null(NO_CONTROLLER),
        text("namespace", "/var/log/pods: the pod's namespace").null("no pod, or its name is not known"),
    ],
};
