//! What NVLinks carried and got wrong: fields that are asked for link by link (`scopeId`), which nvml-wrapper can't.

use std::collections::BTreeMap;

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;

use super::pass::{Cells, Reader};
use super::raw;

/// Fields of NVLink 5 (Blackwell), for each link: NVML's numbers, by the columns that they fill.
const LINK_FIELDS: [(&str, u32); 10] = [
    (SENT, 202),
    (RECEIVED, 204),
    ("nvlink_receive_errors_total", 208),
    ("nvlink_integrity_errors_total", 211),
    ("nvlink_discards_total", 212),
    (RECOVERIES, 213),
    ("nvlink_recoveries_failed_total", 214),
    ("nvlink_effective_errors_total", 219),
    ("nvlink_symbol_errors_total", 221),
    (BIT_ERRORS, 220),
];
const SENT: &str = "nvlink_tx_bytes_total";
const RECEIVED: &str = "nvlink_rx_bytes_total";
const RECOVERIES: &str = "nvlink_recoveries_total (NVLink 5)";
const BIT_ERRORS: &str = "nvlink_bit_error_ratio";

/// Data of all links of older GPUs, in kibibytes, and the scope that means all.
const DATA_FIELDS: [(&str, u32); 2] =
    [("nvlink_tx_bytes_total (all links)", 138), ("nvlink_rx_bytes_total (all links)", 139)];
const ALL_LINKS: u32 = u32::MAX;
const KIB: f64 = 1_024.0;
/// Links that a GPU can have (NVML_NVLINK_MAX_LINKS).
const LINKS: u32 = 18;

/// Counters of links, by column and link, as they were last told.
pub(super) type LinkCounts = BTreeMap<(&'static str, u32), f64>;

/// What came of it.
pub(super) struct Links {
    /// The columns that only this fills.
    pub cells: Cells,
    /// Recoveries of NVLink 5, for the column that older GPUs fill otherwise.
    pub recoveries: Option<i64>,
}

impl Reader<'_> {
    /// Columns of so many links.
    pub(super) fn links_told(&mut self, links: u32) -> Links {
        let mut told = self.by_link(links);
        for ((column, id), of_all) in DATA_FIELDS.into_iter().zip([SENT, RECEIVED]) {
            // Which of the two it is must not change between passes: they count from different beginnings.
            if self.is_refused(of_all) && !told.contains_key(of_all) {
                let kibibytes = self.ask(column, |device| raw::fields(device, &[(id, ALL_LINKS)]).and_then(only));
                told.extend(kibibytes.map(|kibibytes| (of_all, kibibytes * KIB)));
            }
        }
        let recoveries = told.remove(RECOVERIES).map(|count| count as i64);
        let cell = |(column, value): (&'static str, f64)| match column {
            BIT_ERRORS => (column, value.into()),
            _ => (column, (value as i64).into()),
        };
        Links { cells: told.into_iter().map(cell).collect(), recoveries }
    }

    /// Counters summed over links, and the worst ratio, with one call. A link that does not tell now counts as it last told, so
    /// that no sum goes back.
    fn by_link(&mut self, links: u32) -> BTreeMap<&'static str, f64> {
        let left: Vec<(&'static str, u32)> =
            LINK_FIELDS.into_iter().filter(|(column, _)| !self.is_refused(column)).collect();
        let asked: Vec<(u32, u32)> = (0..links).flat_map(|link| left.iter().map(move |(_, id)| (*id, link))).collect();
        if asked.is_empty() {
            return BTreeMap::new();
        }
        let answers = self.ask("field values (links)", |device| raw::fields(device, &asked)).unwrap_or_default();
        let mut told: BTreeMap<&'static str, f64> = BTreeMap::new();
        let mut refusals: BTreeMap<&'static str, NvmlError> = BTreeMap::new();
        for (place, answer) in answers.into_iter().enumerate() {
            let (column, link) = (left[place % left.len()].0, (place / left.len()) as u32);
            match answer {
                Ok(value) if column == BIT_ERRORS => {
                    let worst = told.entry(column).or_default();
                    *worst = worst.max(bit_error_ratio(value as u64));
                }
                Ok(value) => {
                    self.link_counts().insert((column, link), value);
                    told.insert(column, 0.0);
                }
                Err(error) => drop(refusals.insert(column, error)),
            }
        }
        for (column, sum) in told.iter_mut().filter(|(column, _)| **column != BIT_ERRORS) {
            let counts = self.link_counts().range((*column, 0)..=(*column, u32::MAX));
            *sum = counts.map(|(_, count)| *count).sum();
        }
        // Only what no link tells is refused.
        for (column, error) in refusals.into_iter().filter(|(column, _)| !told.contains_key(column)) {
            self.note(column, &error);
        }
        told
    }
}

/// Links that there are, and those of them that are up.
pub(super) fn links(device: &Device) -> Result<(i64, i64), NvmlError> {
    let (mut all, mut active) = (0, 0);
    for link in 0..LINKS {
        match device.link_wrapper_for(link).is_active() {
            Ok(is_active) => {
                all += 1;
                active += i64::from(is_active);
            }
            // Behind the last one there is none.
            Err(NvmlError::InvalidArg | NvmlError::NotSupported) if all > 0 => break,
            Err(NvmlError::InvalidArg) => return Err(NvmlError::NotSupported),
            Err(error) => return Err(error),
        }
    }
    Ok((all, active))
}

fn only(answers: Vec<Result<f64, NvmlError>>) -> Result<f64, NvmlError> {
    answers.into_iter().next().unwrap_or(Err(NvmlError::NoData))
}

/// `NVML_NVLINK_BER_*` of nvml.h: four bits of mantissa above eight of the exponent, of a tenth.
fn bit_error_ratio(encoded: u64) -> f64 {
    let (mantissa, exponent) = ((encoded >> 8) & 0xf, encoded & 0xff);
    mantissa as f64 / 10_f64.powi(exponent as i32)
}

/// Whether a GPU's way into the fabric is worse than it should be, by `NVML_GPU_FABRIC_HEALTH_MASK_*` of nvml.h: four pairs of
/// bits, 1 true and 2 false (less bandwidth, a route that recovers, one that is ill, an access that timed out), and four bits
/// for the configuration, 1 right and more than that wrong. `None` when it says nothing of any.
pub(super) fn is_degraded(health: u32) -> Option<bool> {
    let pairs = [0, 2, 4, 6].map(|shift| (health >> shift) & 3);
    let configuration = (health >> 8) & 15;
    let says = configuration != 0 || pairs.iter().any(|pair| *pair != 0);
    says.then(|| configuration > 1 || pairs.contains(&1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_and_health_as_they_are_written() {
        assert_eq!((bit_error_ratio(0x50F), bit_error_ratio(0)), (5e-15, 0.0));
        assert_eq!(bit_error_ratio(0xFFFF_F10C), 1e-12, "what is above is not looked at");
        let cases = [(0, None), (0x1AA, Some(false)), (0x1A9, Some(true)), (0x12A, Some(false)), (0x16A, Some(true))];
        for (health, degraded) in cases {
            assert_eq!(is_degraded(health), degraded, "{health:#x}");
        }
        assert_eq!((is_degraded(0x2AA), is_degraded(0x5AA), is_degraded(0x0AA)), (Some(true), Some(true), Some(false)));
    }
}
