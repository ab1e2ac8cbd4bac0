//! Tables about GPUs. Field numbers are NVML's `NVML_FI_*`.

use super::{counter, flag, float, id, id_number, integer, ratio, text};
use crate::table::{Table, TableKind};
use crate::time::Span;

const NVLINK_5: &str = "not read in this row (every 30 s), or older than NVLink 5";

/// One GPU, or one MIG instance, at one moment.
pub const GPU: Table = Table {
    name: "gpu",
    meaning: "one GPU, or one MIG instance, at one moment",
    kind: TableKind::Sample,
    interval: Span::seconds(1),
    columns: &[
        id("host", "the collector's configuration, else /proc/sys/kernel/hostname"),
        id("gpu_uuid", "NVML uuid()"),
        id("mig_uuid", "NVML mig_device_by_index()").null("the whole GPU"),
        integer("gpu_index", "index", "NVML index()"),
        text("gpu_name", "NVML name()"),
        text("pci_bus_id", "NVML pci_info()"),
        text("job", "the job of its process with the most memory (gpu_process)").null("no job"),
        ratio("utilization_ratio", "NVML samples(GpuUtilization): mean since the last row, else utilization_rates()")
            .null("MIG mode, or not supported"),
        ratio("utilization_max_ratio", "NVML samples(GpuUtilization): largest since the last row")
            .null("not supported by this GPU or driver"),
        ratio("memory_controller_ratio", "NVML utilization_rates()").null("not supported by this GPU or driver"),
        ratio("sm_active_ratio", "NVML GPM SmUtil, difference of two samples").null("older than Hopper, or first row"),
        ratio("tensor_active_ratio", "NVML GPM AnyTensorUtil, difference of two samples")
            .null("older than Hopper, or first row"),
        integer("memory_used_bytes", "bytes", "NVML memory_info()").null("not supported by this GPU or driver"),
        integer("memory_total_bytes", "bytes", "NVML memory_info()").null("not supported by this GPU or driver"),
        float("temperature_celsius", "degrees Celsius", "NVML temperature(Gpu)")
            .null("not supported by this GPU or driver"),
        float("memory_temperature_celsius", "degrees Celsius", "NVML field 82")
            .null("not supported by this GPU or driver"),
        float("temperature_slowdown_celsius", "degrees Celsius", "NVML temperature_threshold(Slowdown)")
            .null("not read in this row (every 30 s), or not supported"),
        float("power_watts", "watts", "NVML power_usage(), milliwatts").null("not supported by this GPU or driver"),
        float("power_limit_watts", "watts", "NVML enforced_power_limit()")
            .null("not read in this row (every 30 s), or not supported"),
        float("energy_joules_total", "joules", "NVML total_energy_consumption(), millijoules since driver load")
            .null("not read in this row (every 30 s), or not supported"),
        float("sm_clock_mhz", "MHz", "NVML clock_info(SM)").null("not supported by this GPU or driver"),
        float("sm_clock_max_mhz", "MHz", "NVML max_clock_info(SM)")
            .null("not read in this row (every 30 s), or not supported"),
        float("memory_clock_mhz", "MHz", "NVML clock_info(Memory)").null("not supported by this GPU or driver"),
        ratio("fan_ratio", "NVML fan_speed(0)").null("not read in this row (every 30 s), or not supported"),
        integer("performance_state", "P-state, 0 fastest", "NVML performance_state()")
            .null("not supported by this GPU or driver"),
        integer("throttle_reasons", "bit set", "NVML current_throttle_reasons()")
            .null("not supported by this GPU or driver"),
        counter("throttle_power_ns_total", "nanoseconds", "NVML field 74").null("not supported by this GPU or driver"),
        counter("throttle_thermal_sw_ns_total", "nanoseconds", "NVML field 251")
            .null("not supported by this GPU or driver"),
        counter("throttle_thermal_hw_ns_total", "nanoseconds", "NVML field 252")
            .null("not supported by this GPU or driver"),
        counter("throttle_brake_ns_total", "nanoseconds", "NVML field 253").null("not supported by this GPU or driver"),
        counter("ecc_uncorrected_volatile_total", "errors", "NVML total_ecc_errors(uncorrected, volatile)")
            .null("not read in this row (every 30 s), or not supported"),
        counter("ecc_corrected_volatile_total", "errors", "NVML total_ecc_errors(corrected, volatile)")
            .null("not read in this row (every 30 s), or not supported"),
        counter("ecc_uncorrected_aggregate_total", "errors", "NVML total_ecc_errors(uncorrected, aggregate)")
            .null("not read in this row (every 30 s), or not supported"),
        counter("ecc_corrected_aggregate_total", "errors", "NVML total_ecc_errors(corrected, aggregate)")
            .null("not read in this row (every 30 s), or not supported"),
        flag("sram_threshold_exceeded", "nvmlDeviceGetSramEccErrorStatus")
            .null("not read in this row (every 30 s), or not supported"),
        integer("remapped_rows_uncorrected", "rows", "NVML field 143")
            .null("not read in this row (every 30 s), or not supported"),
        integer("remapped_rows_corrected", "rows", "NVML field 142")
            .null("not read in this row (every 30 s), or not supported"),
        flag("remap_pending", "NVML field 144").null("not read in this row (every 30 s), or not supported"),
        flag("remap_failed", "NVML field 145").null("not read in this row (every 30 s), or not supported"),
        flag("retired_pages_pending", "NVML are_pages_pending_retired()")
            .null("not read in this row (every 30 s), or not supported"),
        integer("pcie_generation", "generation", "NVML current_pcie_link_gen()")
            .null("not read in this row (every 30 s), or not supported"),
        integer("pcie_generation_max", "generation", "NVML max_pcie_link_gen()")
            .null("not read in this row (every 30 s), or not supported"),
        integer("pcie_width", "lanes", "NVML current_pcie_link_width()")
            .null("not read in this row (every 30 s), or not supported"),
        integer("pcie_width_max", "lanes", "NVML max_pcie_link_width()")
            .null("not read in this row (every 30 s), or not supported"),
        counter("pcie_replays_total", "replays", "NVML pcie_replay_counter()")
            .null("not read in this row (every 30 s), or not supported"),
        counter(
            "pcie_rx_bytes_total",
            "bytes",
            "GPM PCIe rate summed, or NVML field 198, since the library was opened",
        )
        .null("not supported by this GPU or driver, or the first row"),
        counter(
            "pcie_tx_bytes_total",
            "bytes",
            "GPM PCIe rate summed, or NVML field 197, since the library was opened",
        )
        .null("not supported by this GPU or driver, or the first row"),
        integer("nvlink_links", "links", "NVML link_wrapper_for(), links that exist")
            .null("not read in this row (every 30 s), or not supported"),
        integer("nvlink_links_active", "links", "NVML link_wrapper_for().is_active()")
            .null("not read in this row (every 30 s), or not supported"),
        counter("nvlink_crc_errors_total", "errors", "NVML fields 38 and 45")
            .null("not read in this row (every 30 s), or not supported"),
        counter("nvlink_replays_total", "replays", "NVML field 52")
            .null("not read in this row (every 30 s), or not supported"),
        counter("nvlink_recoveries_total", "recoveries", "NVML field 59; NVLink 5: field 213, summed over links")
            .null("not read in this row (every 30 s), or not supported"),
        integer("fabric_state", "nvmlGpuFabricState_t", "nvmlDeviceGetGpuFabricInfoV")
            .null("not read in this row (every 30 s), or not supported"),
        integer(
            "recovery_action",
            "nvmlDeviceGpuRecoveryAction_t: 0 none, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset",
            "NVML field 230",
        )
        .null("not read in this row (every 30 s), or not supported"),
        integer("fabric_health", "bit set, NVML_GPU_FABRIC_HEALTH_MASK_*", "nvmlDeviceGetGpuFabricInfoV: healthMask")
            .null("not read in this row (every 30 s), or not supported"),
        flag(
            "fabric_degraded",
            "fabric_health: less bandwidth, a route that is ill or recovers, an access that timed out, or a wrong configuration",
        )
        .null("not read in this row (every 30 s), or not supported"),
        counter("nvlink_tx_bytes_total", "bytes", "NVML field 138, of all links; NVLink 5: field 202, summed")
            .null("not read in this row (every 30 s), or not supported"),
        counter("nvlink_rx_bytes_total", "bytes", "NVML field 139, of all links; NVLink 5: field 204, summed")
            .null("not read in this row (every 30 s), or not supported"),
        counter("nvlink_receive_errors_total", "packets", "NVML field 208, summed over links").null(NVLINK_5),
        counter("nvlink_integrity_errors_total", "errors", "NVML field 211, summed over links").null(NVLINK_5),
        counter("nvlink_discards_total", "packets", "NVML field 212, summed over links").null(NVLINK_5),
        counter("nvlink_recoveries_failed_total", "recoveries", "NVML field 214, summed over links").null(NVLINK_5),
        counter("nvlink_effective_errors_total", "errors after correction", "NVML field 219, summed over links")
            .null(NVLINK_5),
        counter("nvlink_symbol_errors_total", "errors", "NVML field 221, summed over links").null(NVLINK_5),
        ratio("nvlink_bit_error_ratio", "NVML field 220, of the worst link: wrong bits after correction").null(NVLINK_5),
    ],
};

/// One process on one GPU at one moment.
pub const GPU_PROCESS: Table = Table {
    name: "gpu_process",
    meaning: "one process on one GPU at one moment",
    kind: TableKind::Sample,
    interval: Span::seconds(10),
    columns: &[
        id("host", "the collector's configuration, else /proc/sys/kernel/hostname"),
        id("gpu_uuid", "NVML uuid()"),
        id_number("pid", "NVML running_compute_processes()"),
        text("process_name", "/proc/*/comm"),
        integer("memory_used_bytes", "bytes", "NVML running_compute_processes()").null("not told to containers"),
        ratio("sm_ratio", "NVML process_utilization_stats()").null("not supported"),
        text("container", "/proc/*/cgroup: the container's id").null("none"),
        text("job", "/proc/*/cgroup: SLURM's job, else SLURM_JOB_ID in /proc/*/environ")
            .null("no job, or not readable"),
        text("pod", "/proc/*/cgroup and /var/log/pods: the pod's name, or its UID where that folder does not name it")
            .null("none, or not found yet"),
        text("namespace", "/proc/*/cgroup and /var/log/pods: the pod's namespace")
            .null("no pod, or its name is not known"),
    ],
};

/// Something that happened to a GPU.
pub const GPU_EVENT: Table = Table {
    name: "gpu_event",
    meaning: "something that happened to a GPU",
    kind: TableKind::Event,
    interval: Span::seconds(0),
    columns: &[
        id("host", "the collector's configuration, else /proc/sys/kernel/hostname"),
        id("gpu_uuid", "NVML uuid()"),
        id("kind", "xid, lost, recovered, vanished, new, stuck, driver_reload or mig_change"),
        id_number("code", "the XID").null("not an XID"),
        integer("subcode", "subcode", "the XID message").null("none"),
        text("pci_bus_id", "NVML pci_info(), or the message"),
        text("source", "nvml, kernel or dcgm"),
        text("message", "the kernel's words, or ours").null("none"),
    ],
};
