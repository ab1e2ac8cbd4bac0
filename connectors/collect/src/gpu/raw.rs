//! Calls for which nvml-wrapper has none.

#![allow(unsafe_code)]

use std::mem::{size_of, zeroed};

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings::{
    nvmlEccSramErrorStatus_v1_t, nvmlFieldValue_t, nvmlGpuFabricInfo_v2_t, nvmlGpuFabricInfo_v3_t, nvmlMemory_t,
    nvmlValueType_enum_NVML_VALUE_TYPE_DOUBLE as VALUE_TYPE_DOUBLE,
    nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT as VALUE_TYPE_SIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG as VALUE_TYPE_SIGNED_LONG_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT as VALUE_TYPE_UNSIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG as VALUE_TYPE_UNSIGNED_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG as VALUE_TYPE_UNSIGNED_LONG_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_SHORT as VALUE_TYPE_UNSIGNED_SHORT,
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

/// How a GPU stands in the NVSwitch fabric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fabric {
    /// `nvmlGpuFabricState_t`: 0 not supported, 1 not started, 2 in progress, 3 completed.
    pub state: u8,
    /// `NVML_GPU_FABRIC_HEALTH_MASK_*`.
    pub health: u32,
}

/// `nvmlDeviceGetGpuFabricInfoV`, from 550 on.
pub fn fabric(device: &Device) -> Result<Fabric, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuFabricInfoV.as_ref())?;
    // SAFETY: the second version is the beginning of the third, and more drivers know it.
    unsafe {
        let mut info: nvmlGpuFabricInfo_v3_t = zeroed();
        info.version = version(size_of::<nvmlGpuFabricInfo_v2_t>(), 2);
        nvml_try(call(device.handle(), &mut info))?;
        Ok(Fabric { state: info.state, health: info.healthMask })
    }
}

/// Fields with the scope of each (the number of a link, for those of links), answered in the order in which they are asked for:
/// `nvmlDeviceGetFieldValues`.
pub fn fields(device: &Device, wanted: &[(u32, u32)]) -> Result<Vec<Result<f64, NvmlError>>, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetFieldValues.as_ref())?;
    // SAFETY: all zeroes is a valid value of the structure, and of its union.
    let empty: nvmlFieldValue_t = unsafe { zeroed() };
    let mut values: Vec<nvmlFieldValue_t> =
        wanted.iter().map(|(id, scope)| nvmlFieldValue_t { fieldId: *id, scopeId: *scope, ..empty }).collect();
    let count = i32::try_from(values.len()).map_err(|_| NvmlError::InvalidArg)?;
    // SAFETY: the handle is of a library that is open, and there are as many structures as it is told.
    nvml_try(unsafe { call(device.handle(), count, values.as_mut_ptr()) })?;
    let answer = |value: &nvmlFieldValue_t| {
        nvml_try(value.nvmlReturn)?;
        // SAFETY: every bit pattern is a value of each of these types, and the driver says which one it wrote.
        unsafe {
            Ok(match value.valueType {
                VALUE_TYPE_DOUBLE => value.value.dVal,
                VALUE_TYPE_UNSIGNED_INT => f64::from(value.value.uiVal),
                VALUE_TYPE_UNSIGNED_LONG => value.value.ulVal as f64,
                VALUE_TYPE_UNSIGNED_LONG_LONG => value.value.ullVal as f64,
                VALUE_TYPE_SIGNED_LONG_LONG => value.value.sllVal as f64,
                VALUE_TYPE_SIGNED_INT => f64::from(value.value.siVal),
                VALUE_TYPE_UNSIGNED_SHORT => f64::from(value.value.usVal),
                _ => return Err(NvmlError::Unknown),
            })
        }
    };
    Ok(values.iter().map(answer).collect())
}

/// The number of the GPU instance behind a MIG device: `nvmlDeviceGetGpuInstanceId`.
pub fn gpu_instance(mig: &Device) -> Result<u32, NvmlError> {
    let call = nvml_sym(mig.nvml().lib().nvmlDeviceGetGpuInstanceId.as_ref())?;
    let mut instance = 0;
    // SAFETY: the handle is of a library that is open.
    nvml_try(unsafe { call(mig.handle(), &mut instance) })?;
    Ok(instance)
}
