//! What an error of NVML means for us: who is ill, and whether asking again is of use.

use nvml_wrapper::error::NvmlError;

/// What an error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// This board, driver or user will not get it: NULL, and not asked again until the library is opened anew.
    Unsupported,
    /// Not this time: NULL, asked again at the next pass.
    Passing,
    /// Nothing to tell right now, which is no fault.
    Nothing,
    /// The GPU does not answer any more.
    Lost,
    /// The library must be opened anew: the driver was unloaded, replaced, or never there.
    Library,
}

/// The class of an error (NVIDIA's `nvml.h`, `nvmlReturn_t`).
pub fn class_of(error: &NvmlError) -> Class {
    match error {
        NvmlError::NotSupported
        | NvmlError::FailedToLoadSymbol(_)
        | NvmlError::FunctionNotFound
        | NvmlError::NoPermission
        | NvmlError::VgpuEccNotSupported => Class::Unsupported,
        NvmlError::GpuLost | NvmlError::ResetRequired => Class::Lost,
        NvmlError::Uninitialized | NvmlError::DriverNotLoaded | NvmlError::LibRmVersionMismatch => Class::Library,
        NvmlError::NotFound | NvmlError::NoData => Class::Nothing,
        _ => Class::Passing,
    }
}
