//! XIDs of DCGM. It goes on showing the last one for ever: what is new is told once, and what was there already when a GPU is first seen is
//! old.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use tidewatch_model::{Span, Timestamp};

use super::TypedSample;
use super::exporters::{DCGM, DCGM_XID};
use super::fill::{tables_of, text_of};
use crate::rows::{Rows, RowsError};

/// GPUs that are remembered.
const GPUS: usize = 20_000;
/// How long one is that is no longer seen.
const MEMORY: Span = Span::days(1);

/// What a GPU showed last.
#[derive(Debug, Clone, Copy)]
struct Shown {
    code: i64,
    first: Timestamp,
    last: Timestamp,
}

/// The last XID of every GPU.
#[derive(Debug, Default)]
pub struct Xids {
    /// By host and GPU.
    gpus: BTreeMap<(String, String), Shown>,
}

impl Xids {
    /// Events of the XIDs that are new.
    pub fn rows(&mut self, samples: &[TypedSample<'_>]) -> Result<Option<RecordBatch>, RowsError> {
        let mut rows = Rows::of("gpu_event")?;
        for sample in samples.iter().filter(|sample| is_dcgm(sample.name)) {
            let text = |column: &str| {
                DCGM.names.iter().find(|name| name.column == column).and_then(|name| text_of(name, sample))
            };
            let (Some(host), Some(uuid)) = (text("host"), text("gpu_uuid")) else { continue };
            let Some(code) = self.news((host.clone(), uuid.clone()), sample) else { continue };
            let cells = [
                ("host", host.into()),
                ("gpu_uuid", uuid.into()),
                ("kind", "xid".into()),
                ("code", code.into()),
                ("pci_bus_id", text("pci_bus_id").into()),
                ("source", "dcgm".into()),
                ("message", sample.label("err_msg").into()),
            ];
            rows.push(sample.ts, cells)?;
        }
        rows.finish()
    }

    /// The code of a sample that shows another XID than the one before.
    fn news(&mut self, gpu: (String, String), sample: &TypedSample<'_>) -> Option<i64> {
        let ts = sample.ts;
        let code = (sample.name == DCGM_XID && (0.0..1e6).contains(&sample.value)).then_some(sample.value as i64);
        let Some(shown) = self.gpus.get_mut(&gpu) else {
            if self.gpus.len() >= GPUS {
                self.gpus.retain(|_, shown| ts - shown.last < MEMORY);
            }
            if self.gpus.len() < GPUS {
                self.gpus.insert(gpu, Shown { code: code.unwrap_or(0), first: ts, last: ts });
            }
            return None;
        };
        shown.last = shown.last.max(ts);
        let code = code?;
        // What comes with the first samples of a GPU stood there before, in whatever order they come.
        let is_new = code != shown.code && code != 0 && ts > shown.first;
        shown.code = code;
        is_new.then_some(code)
    }
}

fn is_dcgm(metric: &str) -> bool {
    tables_of(metric).any(|table| table.starts_with("gpu"))
}
