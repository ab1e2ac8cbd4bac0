//! NVML's functions as the scenario answers them. Signatures are those of nvml-wrapper-sys; what a function means is NVIDIA's
//! `nvml.h`, whose callers promise what it asks of their pointers.

#![allow(non_snake_case, clippy::missing_safety_doc)]

use std::ffi::{CString, c_char, c_int, c_uint, c_ulonglong};
use std::time::Duration;

use nvml_wrapper_sys::bindings::{
    nvmlClockType_enum, nvmlDevice_t, nvmlEccSramErrorStatus_t, nvmlEnableState_t, nvmlEventData_t, nvmlEventSet_t,
    nvmlFieldValue_t, nvmlGpmMetricsGet_t, nvmlGpmSample_t, nvmlGpmSupport_t, nvmlGpuFabricInfo_v2_t,
    nvmlGpuFabricInfoV_t, nvmlMemory_t, nvmlMemory_v2_t, nvmlPciInfo_t, nvmlProcessInfo_t,
    nvmlProcessUtilizationSample_t, nvmlSample_t, nvmlUtilization_t, nvmlValue_t, nvmlValueType_t,
};

use crate::machine::{self, View};
use crate::scenario::code_of;

/// A GPU's handle is a multiple of this; its MIG instances stand behind it.
const HANDLE: usize = 0x1000;
/// `NVML_VALUE_TYPE_UNSIGNED_INT` and `..._UNSIGNED_LONG_LONG`.
const UNSIGNED_INT: nvmlValueType_t = 1;
const UNSIGNED_LONG_LONG: nvmlValueType_t = 3;
/// `NVML_GPM_METRIC_SM_UTIL`, `_ANY_TENSOR`, `_PCIE_TX_PER_SEC` and `_PCIE_RX_PER_SEC`.
const SM_UTIL: c_uint = 2;
const ANY_TENSOR: c_uint = 5;
const PCIE_TX: c_uint = 20;
const PCIE_RX: c_uint = 21;
/// `NVML_GPM_SUPPORT_VERSION` and `NVML_GPM_METRICS_GET_VERSION`.
const GPM_VERSION: usize = 1;
/// Samples of the utilisation are this far apart (milliseconds), and so many are kept: 14 s, as on an H100.
const SAMPLE_MS: u64 = 200;
const SAMPLES: u64 = 70;
/// `nvmlEventTypeXidCriticalError`.
const XID: c_ulonglong = 8;

fn handle(gpu: usize, mig: Option<usize>) -> nvmlDevice_t {
    ((gpu + 1) * HANDLE + mig.map_or(0, |mig| mig + 1)) as nvmlDevice_t
}

/// The GPU and the MIG instance behind a handle.
fn place(device: nvmlDevice_t) -> (usize, Option<usize>) {
    let number = device as usize;
    ((number / HANDLE).saturating_sub(1), (number % HANDLE).checked_sub(1))
}

fn done(result: Result<(), i32>) -> u32 {
    match result {
        Ok(()) => 0,
        Err(code) => code as u32,
    }
}

/// A structure must say of which version it is, as a driver would have it: how large it is, and a number above that.
fn versioned(found: u32, size: usize, number: u32) -> Result<(), i32> {
    match found == size as u32 + (number << 24) {
        true => Ok(()),
        false => Err(code_of("ARGUMENT_VERSION_MISMATCH")),
    }
}

fn invalid<T>() -> Result<T, i32> {
    Err(code_of("INVALID_ARGUMENT"))
}

/// One value of a GPU, by its name in the scenario, into a pointer.
unsafe fn give<T>(device: nvmlDevice_t, call: &str, out: *mut T, look: impl FnOnce(&View) -> Result<T, i32>) -> u32 {
    if out.is_null() {
        return code_of("INVALID_ARGUMENT") as u32;
    }
    done(machine::call(place(device).0, call, look).map(|value| unsafe { out.write(value) }))
}

/// A text into a buffer.
unsafe fn give_text(text: &str, out: *mut c_char, length: c_uint) -> Result<(), i32> {
    let Ok(text) = CString::new(text) else { return invalid() };
    let bytes = text.as_bytes_with_nul();
    if out.is_null() || bytes.len() > length as usize {
        return Err(code_of("INSUFFICIENT_SIZE"));
    }
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len()) };
    Ok(())
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> u32 {
    machine::open() as u32
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> u32 {
    machine::close() as u32
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> u32 {
    done(machine::driver().and_then(|driver| unsafe { give_text(&driver, version, length) }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> u32 {
    done(machine::enumerated().map(|gpus| unsafe { count.write(gpus.len() as c_uint) }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut nvmlDevice_t) -> u32 {
    let found = machine::enumerated().and_then(|gpus| gpus.get(index as usize).copied().map_or_else(invalid, Ok));
    done(found.map(|gpu| unsafe { device.write(handle(gpu, None)) }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(device: nvmlDevice_t, uuid: *mut c_char, length: c_uint) -> u32 {
    let (gpu, mig) = place(device);
    let found = machine::call(gpu, "nvmlDeviceGetUUID", |view| match mig {
        None => Ok(view.gpu.uuid.clone()),
        Some(mig) => view.mig().get(mig).cloned().map_or_else(invalid, Ok),
    });
    done(found.and_then(|text| unsafe { give_text(&text, uuid, length) }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(device: nvmlDevice_t, name: *mut c_char, length: c_uint) -> u32 {
    let found = machine::call(place(device).0, "nvmlDeviceGetName", |view| Ok(view.gpu.name.clone()));
    let found = found.map(|name| if name.is_empty() { "NVIDIA H100 80GB HBM3".to_string() } else { name });
    done(found.and_then(|text| unsafe { give_text(&text, name, length) }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(device: nvmlDevice_t, pci: *mut nvmlPciInfo_t) -> u32 {
    let found = machine::call(place(device).0, "nvmlDeviceGetPciInfo_v3", |view| Ok(view.gpu.pci.to_uppercase()));
    done(found.and_then(|text| {
        let info = unsafe { &mut *pci };
        // NVML writes the domain with eight digits, the kernel with four.
        unsafe { give_text(&format!("0000{text}"), info.busId.as_mut_ptr(), info.busId.len() as c_uint) }?;
        unsafe { give_text(&text, info.busIdLegacy.as_mut_ptr(), info.busIdLegacy.len() as c_uint) }
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetIndex(device: nvmlDevice_t, index: *mut c_uint) -> u32 {
    let (gpu, _) = place(device);
    let position =
        machine::enumerated().and_then(|gpus| gpus.iter().position(|one| *one == gpu).map_or_else(invalid, Ok));
    done(position.map(|position| unsafe { index.write(position as c_uint) }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUtilizationRates(device: nvmlDevice_t, out: *mut nvmlUtilization_t) -> u32 {
    unsafe {
        give(device, "nvmlDeviceGetUtilizationRates", out, |view| {
            if !view.mig().is_empty() {
                return Err(code_of("NOT_SUPPORTED"));
            }
            Ok(nvmlUtilization_t {
                gpu: view.value("utilization")? as c_uint,
                memory: view.value("memory_utilization")? as c_uint,
            })
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSamples(
    device: nvmlDevice_t,
    _kind: c_uint,
    last: c_ulonglong,
    value_type: *mut nvmlValueType_t,
    count: *mut c_uint,
    samples: *mut nvmlSample_t,
) -> u32 {
    let found = machine::call(place(device).0, "nvmlDeviceGetSamples", |view| {
        if !view.mig().is_empty() {
            return Err(code_of("NOT_SUPPORTED"));
        }
        // Every other sample lies ten below the value, and none under zero.
        let newest = view.now_ms / SAMPLE_MS;
        let kept = (newest.saturating_sub(SAMPLES - 1)..=newest).map(|number| {
            let lower = if number % 2 == 0 { 0.0 } else { 10.0 };
            let value = view.value_at("utilization", number * SAMPLE_MS)?;
            Ok((number * SAMPLE_MS * 1_000 + 1, (value - lower).max(0.0) as c_uint))
        });
        let kept: Vec<_> = kept.collect::<Result<_, i32>>()?;
        Ok(kept.into_iter().filter(|(stamp, _)| *stamp > last).collect::<Vec<_>>())
    });
    done(found.and_then(|found| {
        if found.is_empty() {
            return Err(code_of("NOT_FOUND"));
        }
        unsafe {
            value_type.write(UNSIGNED_INT);
            if samples.is_null() {
                count.write(found.len() as c_uint);
                return Ok(());
            }
            let room = (*count as usize).min(found.len());
            for (index, (stamp, value)) in found.into_iter().take(room).enumerate() {
                let sample = nvmlSample_t { timeStamp: stamp, sampleValue: nvmlValue_t { uiVal: value } };
                samples.add(index).write(sample);
            }
            count.write(room as c_uint);
        }
        Ok(())
    }))
}

/// A MIG instance's share of the memory, or the whole.
fn memory(device: nvmlDevice_t, view: &View) -> Result<(u64, u64), i32> {
    let shares = if place(device).1.is_some() { view.mig().len().max(1) as f64 } else { 1.0 };
    Ok(((view.value("memory_total")? / shares) as u64, (view.value("memory_used")? / shares) as u64))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: nvmlDevice_t, out: *mut nvmlMemory_v2_t) -> u32 {
    unsafe {
        give(device, "nvmlDeviceGetMemoryInfo_v2", out, |view| {
            versioned((*out).version, 40, 2)?;
            let (total, used) = memory(device, view)?;
            Ok(nvmlMemory_v2_t { version: 2, total, reserved: 0, free: total - used, used })
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo(device: nvmlDevice_t, out: *mut nvmlMemory_t) -> u32 {
    unsafe {
        give(device, "nvmlDeviceGetMemoryInfo", out, |view| {
            let (total, used) = memory(device, view)?;
            Ok(nvmlMemory_t { total, free: total - used, used })
        })
    }
}

/// Functions that give one number of a device.
macro_rules! numbers {
    ($($function:ident($name:literal) -> $number:ty;)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $function(device: nvmlDevice_t, out: *mut $number) -> u32 {
            unsafe { give(device, stringify!($function), out, |view| Ok(view.value($name)? as $number)) }
        }
    )*};
}

numbers! {
    nvmlDeviceGetPowerUsage("power") -> c_uint;
    nvmlDeviceGetEnforcedPowerLimit("power_limit") -> c_uint;
    nvmlDeviceGetTotalEnergyConsumption("energy") -> c_ulonglong;
    nvmlDeviceGetPerformanceState("performance_state") -> c_uint;
    nvmlDeviceGetCurrentClocksThrottleReasons("throttle_reasons") -> c_ulonglong;
    nvmlDeviceGetRetiredPagesPendingStatus("retired_pending") -> nvmlEnableState_t;
    nvmlDeviceGetCurrPcieLinkGeneration("pcie_generation") -> c_uint;
    nvmlDeviceGetMaxPcieLinkGeneration("pcie_generation_max") -> c_uint;
    nvmlDeviceGetCurrPcieLinkWidth("pcie_width") -> c_uint;
    nvmlDeviceGetMaxPcieLinkWidth("pcie_width_max") -> c_uint;
    nvmlDeviceGetPcieReplayCounter("pcie_replays") -> c_uint;
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(device: nvmlDevice_t, _sensor: c_uint, out: *mut c_uint) -> u32 {
    unsafe { give(device, "nvmlDeviceGetTemperature", out, |view| Ok(view.value("temperature")? as c_uint)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperatureThreshold(
    device: nvmlDevice_t,
    _kind: c_uint,
    out: *mut c_uint,
) -> u32 {
    let name = "temperature_slowdown";
    unsafe { give(device, "nvmlDeviceGetTemperatureThreshold", out, |view| Ok(view.value(name)? as c_uint)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetClockInfo(
    device: nvmlDevice_t,
    kind: nvmlClockType_enum,
    out: *mut c_uint,
) -> u32 {
    let name = if kind == 2 { "memory_clock" } else { "sm_clock" };
    unsafe { give(device, "nvmlDeviceGetClockInfo", out, |view| Ok(view.value(name)? as c_uint)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxClockInfo(device: nvmlDevice_t, _kind: c_uint, out: *mut c_uint) -> u32 {
    unsafe { give(device, "nvmlDeviceGetMaxClockInfo", out, |view| Ok(view.value("sm_clock_max")? as c_uint)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFanSpeed_v2(device: nvmlDevice_t, _fan: c_uint, out: *mut c_uint) -> u32 {
    // An H100, which has no fan, says this.
    unsafe {
        give(device, "nvmlDeviceGetFanSpeed_v2", out, |view| {
            view.value("fan").map_or_else(|_| invalid(), |fan| Ok(fan as c_uint))
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: nvmlDevice_t,
    kind: c_uint,
    counter: c_uint,
    out: *mut c_ulonglong,
) -> u32 {
    let name = match (kind, counter) {
        (0, 0) => "ecc_corrected_volatile",
        (0, _) => "ecc_corrected_aggregate",
        (_, 0) => "ecc_uncorrected_volatile",
        _ => "ecc_uncorrected_aggregate",
    };
    let look = |view: &View| Ok(view.value(name).or_else(|_| view.value("ecc"))? as c_ulonglong);
    unsafe { give(device, "nvmlDeviceGetTotalEccErrors", out, look) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: nvmlDevice_t,
    count: c_int,
    values: *mut nvmlFieldValue_t,
) -> u32 {
    let fill = |view: &View| {
        for index in 0..count.max(0) as usize {
            let field = unsafe { &mut *values.add(index) };
            let name = format!("field.{}", field.fieldId);
            field.timestamp = view.now_ms as i64 * 1_000;
            // A field of one link, where the scenario tells links apart.
            let scoped = format!("{name}.{}", field.scopeId);
            let told = || view.value(&scoped).or_else(|_| view.value(&name));
            match view.failure(&scoped).or_else(|| view.failure(&name)).map_or_else(told, Err) {
                Ok(value) => {
                    field.nvmlReturn = 0;
                    // As an H100 types them (driver 580): the counters of bytes over PCIe begin anew after 4 GiB.
                    (field.valueType, field.value) = match field.fieldId {
                        82 | 197 | 198 | 230 => (UNSIGNED_INT, nvmlValue_t { uiVal: value as u64 as c_uint }),
                        _ => (UNSIGNED_LONG_LONG, nvmlValue_t { ullVal: value as c_ulonglong }),
                    };
                }
                Err(code) => field.nvmlReturn = code as u32,
            }
        }
        Ok(())
    };
    done(machine::call(place(device).0, "nvmlDeviceGetFieldValues", fill))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkState(
    device: nvmlDevice_t,
    link: c_uint,
    active: *mut nvmlEnableState_t,
) -> u32 {
    unsafe {
        give(device, "nvmlDeviceGetNvLinkState", active, |view| match f64::from(link) < view.value("nvlinks")? {
            true => Ok(u32::from(f64::from(link) < view.value("nvlinks_active")?)),
            false => invalid(),
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSramEccErrorStatus(
    device: nvmlDevice_t,
    status: *mut nvmlEccSramErrorStatus_t,
) -> u32 {
    let found = machine::call(place(device).0, "nvmlDeviceGetSramEccErrorStatus", |view| {
        versioned(unsafe { (*status).version }, size_of::<nvmlEccSramErrorStatus_t>(), 1)?;
        view.value("sram_threshold")
    });
    done(found.map(|exceeded| unsafe { (*status).bThresholdExceeded = exceeded as c_uint }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuFabricInfoV(device: nvmlDevice_t, info: *mut nvmlGpuFabricInfoV_t) -> u32 {
    let found = machine::call(place(device).0, "nvmlDeviceGetGpuFabricInfoV", |view| {
        versioned(unsafe { (*info).version }, size_of::<nvmlGpuFabricInfo_v2_t>(), 2)?;
        Ok((view.value("fabric_state")?, view.value("fabric_health")?))
    });
    done(found.map(|(state, health)| unsafe {
        (*info).state = state as u8;
        (*info).healthMask = health as c_uint;
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigMode(device: nvmlDevice_t, current: *mut c_uint, pending: *mut c_uint) -> u32 {
    let found = machine::call(place(device).0, "nvmlDeviceGetMigMode", |view| Ok(c_uint::from(!view.mig().is_empty())));
    done(found.map(|mode| unsafe {
        current.write(mode);
        pending.write(mode);
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(device: nvmlDevice_t, count: *mut c_uint) -> u32 {
    unsafe { give(device, "nvmlDeviceGetMaxMigDeviceCount", count, |_| Ok(7)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: nvmlDevice_t,
    index: c_uint,
    out: *mut nvmlDevice_t,
) -> u32 {
    let (gpu, _) = place(device);
    unsafe {
        give(device, "nvmlDeviceGetMigDeviceHandleByIndex", out, |view| match (index as usize) < view.mig().len() {
            true => Ok(handle(gpu, Some(index as usize))),
            false => Err(code_of("NOT_FOUND")),
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceId(device: nvmlDevice_t, id: *mut c_uint) -> u32 {
    let Some(mig) = place(device).1 else { return code_of("INVALID_ARGUMENT") as u32 };
    unsafe { give(device, "nvmlDeviceGetGpuInstanceId", id, |_| Ok(mig as c_uint + 7)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: nvmlDevice_t,
    count: *mut c_uint,
    infos: *mut nvmlProcessInfo_t,
) -> u32 {
    let found = machine::call(place(device).0, "nvmlDeviceGetComputeRunningProcesses_v3", |view| {
        Ok(view.gpu.processes.clone())
    });
    done(found.and_then(|found| unsafe {
        if found.len() > *count as usize {
            count.write(found.len() as c_uint);
            return Err(code_of("INSUFFICIENT_SIZE"));
        }
        count.write(found.len() as c_uint);
        for (index, (pid, used)) in found.into_iter().enumerate() {
            infos.add(index).write(nvmlProcessInfo_t {
                pid,
                usedGpuMemory: used,
                gpuInstanceId: u32::MAX,
                computeInstanceId: u32::MAX,
            });
        }
        Ok(())
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetProcessUtilization(
    device: nvmlDevice_t,
    samples: *mut nvmlProcessUtilizationSample_t,
    count: *mut c_uint,
    last: c_ulonglong,
) -> u32 {
    let found = machine::call(place(device).0, "nvmlDeviceGetProcessUtilization", |view| {
        let sm = view.value("utilization")?;
        let stamp = view.now_ms * 1_000 + 1;
        // One that has ended is in the ring too, with a figure that nothing can have.
        let pids = view.gpu.processes.keys().map(|pid| (*pid, sm)).chain([(4_000_000, 4_000.0)]);
        let samples = pids.map(|(pid, sm)| nvmlProcessUtilizationSample_t {
            pid,
            timeStamp: stamp,
            smUtil: sm as c_uint,
            memUtil: 0,
            encUtil: 0,
            decUtil: 0,
        });
        Ok(if stamp > last { samples.collect() } else { Vec::new() })
    });
    done(found.and_then(|found| unsafe {
        if samples.is_null() || (*count as usize) < found.len() {
            count.write(found.len() as c_uint);
            return Err(code_of(if found.is_empty() { "NOT_FOUND" } else { "INSUFFICIENT_SIZE" }));
        }
        count.write(found.len() as c_uint);
        for (index, sample) in found.into_iter().enumerate() {
            samples.add(index).write(sample);
        }
        Ok(())
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSupportedEventTypes(device: nvmlDevice_t, types: *mut c_ulonglong) -> u32 {
    unsafe { give(device, "nvmlDeviceGetSupportedEventTypes", types, |_| Ok(XID)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(set: *mut nvmlEventSet_t) -> u32 {
    unsafe { set.write(machine::new_set() as nvmlEventSet_t) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetFree(set: nvmlEventSet_t) -> u32 {
    machine::free_set(set as usize);
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceRegisterEvents(
    device: nvmlDevice_t,
    _types: c_ulonglong,
    set: nvmlEventSet_t,
) -> u32 {
    let (gpu, _) = place(device);
    let allowed = machine::call(gpu, "nvmlDeviceRegisterEvents", |view| Ok(view.now_ms));
    done(allowed.map(|now_ms| machine::register(set as usize, gpu, now_ms)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(
    set: nvmlEventSet_t,
    data: *mut nvmlEventData_t,
    timeout_ms: c_uint,
) -> u32 {
    let found = machine::next_event(set as usize, Duration::from_millis(u64::from(timeout_ms)));
    done(found.map(|(gpu, xid)| unsafe {
        let device = handle(gpu, None);
        data.write(nvmlEventData_t {
            device,
            eventType: XID,
            eventData: xid,
            gpuInstanceId: u32::MAX,
            computeInstanceId: u32::MAX,
        });
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmQueryDeviceSupport(device: nvmlDevice_t, support: *mut nvmlGpmSupport_t) -> u32 {
    let found = machine::call(place(device).0, "nvmlGpmQueryDeviceSupport", |view| {
        // These of GPM are numbers alone.
        versioned(unsafe { (*support).version }, GPM_VERSION, 0)?;
        Ok(view.value("sm_active").is_ok())
    });
    done(found.map(|supported| unsafe { (*support).isSupportedDevice = c_uint::from(supported) }))
}

/// A GPM sample remembers whose it is and what was to be seen then.
struct GpmSample {
    sm_active: f64,
    tensor_active: f64,
    pcie: f64,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmSampleAlloc(sample: *mut nvmlGpmSample_t) -> u32 {
    let boxed = Box::new(GpmSample { sm_active: 0.0, tensor_active: 0.0, pcie: 0.0 });
    unsafe { sample.write(Box::into_raw(boxed).cast()) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmSampleFree(sample: nvmlGpmSample_t) -> u32 {
    drop(unsafe { Box::from_raw(sample.cast::<GpmSample>()) });
    0
}

unsafe fn gpm_fill(device: nvmlDevice_t, sample: nvmlGpmSample_t) -> u32 {
    let found = machine::call(place(device).0, "nvmlGpmSampleGet", |view| {
        let [sm_active, tensor_active] = [view.value("sm_active")?, view.value("tensor_active")?];
        Ok(GpmSample { sm_active, tensor_active, pcie: view.value("pcie_mib_per_second")? })
    });
    done(found.map(|found| unsafe { *sample.cast::<GpmSample>() = found }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmSampleGet(device: nvmlDevice_t, sample: nvmlGpmSample_t) -> u32 {
    unsafe { gpm_fill(device, sample) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmMigSampleGet(
    device: nvmlDevice_t,
    _gpu_instance: c_uint,
    sample: nvmlGpmSample_t,
) -> u32 {
    unsafe { gpm_fill(device, sample) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmMetricsGet(request: *mut nvmlGpmMetricsGet_t) -> u32 {
    let request = unsafe { &mut *request };
    if let Err(code) = versioned(request.version, GPM_VERSION, 0) {
        return code as u32;
    }
    let (before, after) = unsafe { (&*request.sample1.cast::<GpmSample>(), &*request.sample2.cast::<GpmSample>()) };
    for metric in request.metrics.iter_mut().take(request.numMetrics as usize) {
        metric.nvmlReturn = 0;
        match metric.metricId {
            SM_UTIL => metric.value = (before.sm_active + after.sm_active) / 2.0,
            PCIE_TX | PCIE_RX => metric.value = (before.pcie + after.pcie) / 2.0,
            ANY_TENSOR => metric.value = (before.tensor_active + after.tensor_active) / 2.0,
            _ => metric.nvmlReturn = code_of("NOT_SUPPORTED") as u32,
        }
    }
    0
}

/// Replaces the scenario by one in JSON; returns 0, or 1 when it is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewatch_stub_scenario(json: *const u8, length: usize) -> u32 {
    let bytes = unsafe { std::slice::from_raw_parts(json, length) };
    match serde_json::from_slice(bytes) {
        Ok(scenario) => {
            machine::set_scenario(scenario);
            0
        }
        Err(_) => 1,
    }
}

/// Stops the clock at so many milliseconds.
#[unsafe(no_mangle)]
pub extern "C" fn tidewatch_stub_clock(now_ms: u64) {
    machine::set_clock(now_ms);
}

/// How often a function was called on a GPU.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewatch_stub_calls(gpu: usize, name: *const u8, length: usize) -> u64 {
    let name = unsafe { std::slice::from_raw_parts(name, length) };
    machine::calls(gpu, &String::from_utf8_lossy(name))
}
