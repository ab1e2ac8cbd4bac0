//! Calls for which nvml-wrapper has none.

#![allow(unsafe_code)]

use std::mem::{size_of, zeroed};

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings::{
    nvmlEccSramErrorStatus_v1_t, nvmlGpuFabricInfo_v2_t, nvmlGpuFabricInfo_v3_t, nvmlMemory_t,
};

/// `NVML_STRUCT_VERSION` of nvml.h: the size below, the version in the highest byte.
const fn version(size: usize, number: u32) -> u32 {
    size as u32 | (number << 24)
}

/// Memory in bytes, used and all: `nvmlDeviceGetMemoryInfo`, for drivers before 510 that lack its second version.
pub fn memory_v1(device: &Device) -> Result<(u64, u64), NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetMemoryInfo.as_ref())?;
    // SAFETY: the handle is of a library that is open, and the structure is the one that this version fills.
    let memory = unsafe {
        let mut memory: nvmlMemory_t = zeroed();
        nvml_try(call(device.handle(), &mut memory))?;
        memory
    };
    Ok((memory.used, memory.total))
}

/// Whether the SRAM had more uncorrectable errors than NVIDIA tolerates: `nvmlDeviceGetSramEccErrorStatus`, from 535 on.
pub fn sram_threshold_exceeded(device: &Device) -> Result<bool, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetSramEccErrorStatus.as_ref())?;
    // SAFETY: as above; the version says how large the structure is.
    unsafe {
        let mut status: nvmlEccSramErrorStatus_v1_t = zeroed();
        status.version = version(size_of::<nvmlEccSramErrorStatus_v1_t>(), 1);
        nvml_try(call(device.handle(), &mut status))?;
        Ok(status.bThresholdExceeded != 0)
    }
}

/// `nvmlGpuFabricState_t`: 0 not supported, 1 not started, 2 in progress, 3 completed. `nvmlDeviceGetGpuFabricInfoV`, from
/// 550 on.
pub fn fabric_state(device: &Device) -> Result<u8, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuFabricInfoV.as_ref())?;
    // SAFETY: the second version is the beginning of the third, and more drivers know it.
    unsafe {
        let mut info: nvmlGpuFabricInfo_v3_t = zeroed();
        info.version = version(size_of::<nvmlGpuFabricInfo_v2_t>(), 2);
        nvml_try(call(device.handle(), &mut info))?;
        Ok(info.state)
    }
}

/// The number of the GPU instance behind a MIG device: `nvmlDeviceGetGpuInstanceId`.
pub fn gpu_instance(mig: &Device) -> Result<u32, NvmlError> {
    let call = nvml_sym(mig.nvml().lib().nvmlDeviceGetGpuInstanceId.as_ref())?;
    let mut instance = 0;
    // SAFETY: the handle is of a library that is open.
    nvml_try(unsafe { call(mig.handle(), &mut instance) })?;
    Ok(instance)
}
