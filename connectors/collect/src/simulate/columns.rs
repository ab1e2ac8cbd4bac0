//! A tick of the fleet as a batch of `gpu`, column by column.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use super::physics::{CLOCK_MAX_MHZ, Gpu, POWER_LIMIT_WATTS};

/// One GPU's row in the making.
pub struct GpuRow<'a> {
    /// When it was read.
    pub ts: i64,
    /// Its host.
    pub host: &'a str,
    /// Its name in the fleet.
    pub uuid: &'a str,
    /// Its number on the host.
    pub index: i64,
    /// Its job.
    pub job: &'a str,
    /// Its state.
    pub gpu: &'a Gpu,
}

/// How values are rounded.
#[derive(Debug, Clone, Copy)]
pub struct Rounding {
    /// Whether byte counters keep all their digits.
    pub exact_bytes: bool,
    /// Whether the slow columns are read in this tick.
    pub slow: bool,
}

/// Memory of a GPU, bytes.
const MEMORY_BYTES: i64 = 80 << 30;
/// What a job takes of it.
const USED_BYTES: i64 = 71 << 30;

/// The rows as a batch of the registry's schema.
pub fn batch(schema: &SchemaRef, rows: &[GpuRow], rounding: Rounding) -> Result<RecordBatch, ArrowError> {
    let float = |value: &dyn Fn(&GpuRow) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(rows.iter().map(value)))
    };
    let whole =
        |value: &dyn Fn(&GpuRow) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(rows.iter().map(value))) };
    let text = |value: for<'a> fn(&GpuRow<'a>) -> &'a str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(value)))
    };
    let flag = |value: bool| -> ArrayRef { Arc::new(BooleanArray::from(vec![value; rows.len()])) };
    let bytes = |value: f64| if rounding.exact_bytes { value as i64 } else { (value / 1e6).round() as i64 * 1_000_000 };
    let columns = schema.fields().iter().map(|field| {
        let name = field.name().as_str();
        match name {
            "ts" => Arc::new(
                TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.ts)).with_timezone("UTC"),
            ),
            "host" => text(|row| row.host),
            "gpu_uuid" => text(|row| row.uuid),
            "gpu_name" => text(|_| "Simulated SXM 80GB"),
            "job" => text(|row| row.job),
            "gpu_index" => whole(&|row| row.index),
            "utilization_ratio" => float(&|row| rounded(row.gpu.utilization, 100.0)),
            "utilization_max_ratio" => float(&|row| rounded((row.gpu.utilization + 0.01).min(1.0), 100.0)),
            "memory_controller_ratio" => float(&|row| rounded(row.gpu.utilization * 0.6, 100.0)),
            "sm_active_ratio" => float(&|row| rounded(row.gpu.utilization * 0.9, 1000.0)),
            "tensor_active_ratio" => float(&|row| rounded(row.gpu.tensor, 1000.0)),
            "memory_used_bytes" => whole(&|_| USED_BYTES),
            "memory_total_bytes" => whole(&|_| MEMORY_BYTES),
            "temperature_celsius" => float(&|row| row.gpu.shown_temperature.round()),
            "memory_temperature_celsius" => float(&|row| row.gpu.memory_temperature.round()),
            "power_watts" => float(&|row| rounded(row.gpu.power, 1000.0)),
            "sm_clock_mhz" => float(&|row| (row.gpu.clock / 15.0).round() * 15.0),
            "memory_clock_mhz" => float(&|_| 2_619.0),
            "performance_state" => whole(&|_| 0),
            "throttle_power_ns_total" => whole(&|row| row.gpu.throttle_ns as i64),
            "throttle_thermal_sw_ns_total" | "throttle_thermal_hw_ns_total" | "throttle_brake_ns_total" => {
                whole(&|_| 0)
            }
            "pcie_rx_bytes_total" => whole(&|row| bytes(row.gpu.pcie_rx)),
            "pcie_tx_bytes_total" => whole(&|row| bytes(row.gpu.pcie_tx)),
            _ if !rounding.slow => new_null_array(field.data_type(), rows.len()),
            "energy_joules_total" => float(&|row| rounded(row.gpu.energy, 1000.0)),
            "temperature_slowdown_celsius" => float(&|_| 92.0),
            "power_limit_watts" => float(&|_| POWER_LIMIT_WATTS),
            "sm_clock_max_mhz" => float(&|_| CLOCK_MAX_MHZ),
            "ecc_uncorrected_volatile_total" | "ecc_uncorrected_aggregate_total" => {
                whole(&|row| row.gpu.ecc_uncorrected)
            }
            "ecc_corrected_volatile_total" | "ecc_corrected_aggregate_total" => whole(&|row| row.gpu.ecc_corrected),
            "remapped_rows_uncorrected" | "remapped_rows_corrected" | "pcie_replays_total" | "recovery_action" => {
                whole(&|_| 0)
            }
            "sram_threshold_exceeded" | "remap_pending" | "remap_failed" => flag(false),
            "pcie_generation" | "pcie_generation_max" => whole(&|_| 5),
            "pcie_width" | "pcie_width_max" => whole(&|_| 16),
            "nvlink_links" | "nvlink_links_active" => whole(&|_| 18),
            "nvlink_crc_errors_total" | "nvlink_replays_total" | "nvlink_recoveries_total" => whole(&|_| 0),
            _ => new_null_array(field.data_type(), rows.len()),
        }
    });
    RecordBatch::try_new(schema.clone(), columns.collect())
}

fn rounded(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}
