//! What the driver will say, written down: GPUs, their values, and what happens to them when.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A machine and what happens on it.
///
/// ```
/// let text = r#"{"gpus": [{"uuid": "GPU-0", "pci": "0000:3b:00.0"}],
///                "steps": [{"at_ms": 5000, "gpu": 0, "set": {"temperature": 95}}, {"at_ms": 8000, "gpu": 0, "xid": 79}]}"#;
/// let scenario: tidewatch_nvml_stub::Scenario = serde_json::from_str(text).unwrap();
/// assert_eq!(scenario.gpus[0].at("temperature", 6_000, &scenario.steps, 0), Some(95.0));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The driver's version.
    #[serde(default = "default_driver")]
    pub driver: String,
    /// What `nvmlInit_v2` answers while it is not null: the name of an error.
    #[serde(default)]
    pub init: Option<String>,
    /// The GPUs, in NVML's order.
    pub gpus: Vec<Gpu>,
    /// What happens, in order of time.
    #[serde(default)]
    pub steps: Vec<Step>,
}

fn default_driver() -> String {
    "590.48.01".to_string()
}

/// One GPU as it is at the beginning.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gpu {
    /// Its UUID.
    pub uuid: String,
    /// Its name; a board of the Hopper generation when it is empty.
    pub name: String,
    /// Its place on the bus, as `/sys/bus/pci/devices` has it.
    pub pci: String,
    /// Values that differ from [`value_of`]'s, by name.
    pub values: BTreeMap<String, f64>,
    /// Calls that fail from the beginning: the function, or `field.N` (of one link `field.N.LINK`), or `*`, and the error's name.
    pub fail: BTreeMap<String, String>,
    /// UUIDs of its MIG instances; with any, MIG mode is on.
    pub mig: Vec<String>,
    /// Processes with their memory in bytes.
    pub processes: BTreeMap<u32, u64>,
}

/// Something that happens.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Step {
    /// When, in milliseconds of the stub's clock.
    pub at_ms: u64,
    /// To which GPU, by its place in the list.
    pub gpu: usize,
    /// Values from then on.
    pub set: BTreeMap<String, f64>,
    /// Calls that fail from then on, with the error's name; an empty name ends that.
    pub fail: BTreeMap<String, String>,
    /// Every call on the GPU begun from then on does not return for so long.
    pub hang_ms: u64,
    /// An XID is raised.
    pub xid: Option<u64>,
    /// It is gone: handles answer that it is lost, and the next initialisation does not find it.
    pub vanish: bool,
    /// It is there (again), for the next initialisation to find.
    pub appear: bool,
    /// The driver is replaced by this version: every call fails until the library is initialised anew.
    pub reload: Option<String>,
    /// Its MIG instances from then on.
    pub mig: Option<Vec<String>>,
}

impl Gpu {
    /// A value by name at a moment, with what was set for the GPU at this place until then.
    pub fn at(&self, name: &str, now_ms: u64, steps: &[Step], place: usize) -> Option<f64> {
        let passed = steps.iter().filter(|step| step.gpu == place && step.at_ms <= now_ms);
        let set = passed.filter_map(|step| step.set.get(name)).next_back();
        set.or_else(|| self.values.get(name)).copied().or_else(|| value_of(name, now_ms))
    }

    /// The error that a call fails with at a moment, if it does.
    pub fn failure(&self, call: &str, now_ms: u64, steps: &[Step], place: usize) -> Option<i32> {
        let last = |name: &str| {
            let passed = steps.iter().filter(|step| step.gpu == place && step.at_ms <= now_ms);
            passed.filter_map(|step| step.fail.get(name)).next_back().or_else(|| self.fail.get(name))
        };
        [call, "*"].into_iter().filter_map(last).find(|error| !error.is_empty()).map(|error| code_of(error))
    }
}

/// What a busy and healthy H100 says (SXM, at about 500 W); energy and byte counters rise with time.
pub fn value_of(name: &str, now_ms: u64) -> Option<f64> {
    let seconds = now_ms as f64 / 1_000.0;
    Some(match name {
        "utilization" => 97.0,
        "memory_utilization" => 61.0,
        "memory_total" => 85_520_809_984.0,
        "memory_used" => 76_000_000_000.0,
        "temperature" => 54.0,
        "temperature_slowdown" => 90.0,
        "power" => 510_000.0,
        "power_limit" => 700_000.0,
        "energy" => 1e9 + 510_000.0 * seconds,
        "sm_clock" | "sm_clock_max" => 1_980.0,
        "memory_clock" => 2_619.0,
        "performance_state" | "throttle_reasons" => 0.0,
        "ecc" | "sram_threshold" | "retired_pending" | "pcie_replays" => 0.0,
        "pcie_generation" | "pcie_generation_max" => 5.0,
        "pcie_width" | "pcie_width_max" => 16.0,
        "nvlinks" | "nvlinks_active" => 18.0,
        "fabric_state" => 3.0,
        // Nothing wrong, and all of it told (NVML_GPU_FABRIC_HEALTH_MASK_*).
        "fabric_health" => 426.0,
        "sm_active" => 88.0,
        "tensor_active" => 41.0,
        // The same as the counters below: 2e9 bytes.
        "pcie_mib_per_second" => 2e9 / 1_048_576.0,
        // NVML_FI_DEV_MEMORY_TEMP.
        "field.82" => 61.0,
        // Bytes sent and received over PCIe.
        "field.197" | "field.198" => (2e9 * seconds).floor(),
        // Throttle times, remapped rows, link errors, the recovery action.
        "field.74" | "field.142" | "field.143" | "field.144" | "field.145" | "field.230" => 0.0,
        // Kibibytes of data over all NVLinks.
        "field.138" | "field.139" => (1e6 * seconds).floor(),
        "field.38" | "field.45" | "field.52" | "field.59" => 0.0,
        // Clock event reasons; the numbers from 580.82 on.
        "field.251" | "field.252" | "field.253" | "field.269" | "field.270" | "field.271" => 0.0,
        _ => return None,
    })
}

/// The number of an error by its name in `nvml.h`, without `NVML_ERROR_`; what is no such name is `UNKNOWN`.
pub fn code_of(name: &str) -> i32 {
    ERRORS.iter().find(|(known, _)| *known == name).map_or(999, |(_, code)| *code)
}

/// The errors of `nvmlReturn_t` that a call on a device can give.
pub const ERRORS: [(&str, i32); 19] = [
    ("UNINITIALIZED", 1),
    ("INVALID_ARGUMENT", 2),
    ("NOT_SUPPORTED", 3),
    ("NO_PERMISSION", 4),
    ("NOT_FOUND", 6),
    ("INSUFFICIENT_SIZE", 7),
    ("DRIVER_NOT_LOADED", 9),
    ("TIMEOUT", 10),
    ("IRQ_ISSUE", 11),
    ("FUNCTION_NOT_FOUND", 13),
    ("GPU_IS_LOST", 15),
    ("RESET_REQUIRED", 16),
    ("OPERATING_SYSTEM", 17),
    ("LIB_RM_VERSION_MISMATCH", 18),
    ("IN_USE", 19),
    ("MEMORY", 20),
    ("NO_DATA", 21),
    ("ARGUMENT_VERSION_MISMATCH", 25),
    ("UNKNOWN", 999),
];

/// Every call that can be made to fail by name, besides `field.N`.
pub const CALLS: [&str; 37] = [
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetSamples",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetTemperatureThreshold",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetMaxClockInfo",
    "nvmlDeviceGetFanSpeed_v2",
    "nvmlDeviceGetPerformanceState",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetRetiredPagesPendingStatus",
    "nvmlDeviceGetCurrPcieLinkGeneration",
    "nvmlDeviceGetMaxPcieLinkGeneration",
    "nvmlDeviceGetCurrPcieLinkWidth",
    "nvmlDeviceGetMaxPcieLinkWidth",
    "nvmlDeviceGetPcieReplayCounter",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetNvLinkState",
    "nvmlDeviceGetSramEccErrorStatus",
    "nvmlDeviceGetGpuFabricInfoV",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetProcessUtilization",
    "nvmlDeviceGetSupportedEventTypes",
    "nvmlDeviceRegisterEvents",
    "nvmlGpmQueryDeviceSupport",
    "nvmlGpmSampleGet",
];
