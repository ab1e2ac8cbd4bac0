//! What GPM (Hopper and later) tells: the difference of two samples; and bytes over PCIe, of which it has rates.

use std::time::{Duration, Instant};

use nvml_wrapper::Nvml;
use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::gpm::{GpmSample, gpm_metrics_get};

/// The last sample, to be compared with the next.
#[derive(Default)]
pub(super) struct Gpm<'nvml>(Option<(Instant, GpmSample<'nvml>)>);

/// Two GPM samples that are compared lie this far apart at least; an earlier one is too old to be of use.
const GPM_LEAST: Duration = Duration::from_millis(500);
const GPM_MOST: Duration = Duration::from_secs(600);
/// GPM's unit of bytes, and where the driver's counters of bytes begin anew.
const MIB: f64 = 1_048_576.0;
const COUNTER_BYTES: f64 = 4_294_967_296.0;

/// What GPM tells of the time since the last sample.
#[derive(Debug, Default)]
pub(super) struct SinceLast {
    /// Share of time with work on the multiprocessors.
    pub sm_active: Option<f64>,
    /// Share of time with the tensor cores at work.
    pub tensor_active: Option<f64>,
    /// Bytes over PCIe, received and sent.
    pub pcie_bytes: Option<(f64, f64)>,
}

impl<'nvml> Gpm<'nvml> {
    /// Whether there was no sample yet.
    pub fn is_new(&self) -> bool {
        self.0.is_none()
    }

    /// What happened since the last sample.
    pub fn next(&mut self, nvml: &'nvml Nvml, sample: GpmSample<'nvml>) -> Result<SinceLast, NvmlError> {
        let now = Instant::now();
        let Some((before, last)) = self.0.take() else {
            self.0 = Some((now, sample));
            return Ok(SinceLast::default());
        };
        let apart = now - before;
        if apart < GPM_LEAST {
            self.0 = Some((before, last));
            return Ok(SinceLast::default());
        }
        let wanted =
            [GpmMetricId::SmUtil, GpmMetricId::AnyTensorUtil, GpmMetricId::PcieRxPerSec, GpmMetricId::PcieTxPerSec];
        let metrics = if apart <= GPM_MOST { gpm_metrics_get(nvml, &last, &sample, &wanted) } else { Ok(vec![]) };
        self.0 = Some((now, sample));
        let mut values = metrics?.into_iter().map(|metric| metric.ok().map(|metric| metric.value));
        let mut next = || values.next().flatten().filter(|value| value.is_finite());
        let mut ratio = || next().map(|percent| percent / 100.0);
        let (sm_active, tensor_active) = (ratio(), ratio());
        let bytes = |mib_per_second: f64| mib_per_second * MIB * apart.as_secs_f64();
        let pcie_bytes = next().map(bytes).zip(next().map(bytes));
        Ok(SinceLast { sm_active, tensor_active, pcie_bytes })
    }
}

/// Bytes over PCIe in one direction since the library was opened. The driver's own counters begin anew after 4 GiB, which a busy
/// link passes in a tenth of a second: where GPM tells rates, these are summed.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    bytes: Option<f64>,
    last: Option<f64>,
}

impl Traffic {
    /// Adds what passed.
    pub fn add(&mut self, bytes: f64) {
        self.bytes = Some(self.bytes.unwrap_or(0.0) + bytes);
    }

    /// Takes what the driver's counter says: right where less than 4 GiB passed since the last time.
    pub fn counted(&mut self, counter: Option<f64>) {
        let Some(counter) = counter else { return };
        let more = counter - self.last.replace(counter).unwrap_or(counter);
        self.add(if more < 0.0 { more + COUNTER_BYTES } else { more });
    }

    /// Bytes in all; `None` before the first.
    pub fn total(&self) -> Option<i64> {
        self.bytes.map(|bytes| bytes as i64)
    }
}
