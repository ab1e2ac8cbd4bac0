//! How long the driver takes for each call.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::library::{identity, open};
use super::pass::{GpuCall, Question, Reader};
use crate::rows::Cell;

/// One pass over one GPU, as the collector makes it, with its processes and all slow columns.
#[derive(Debug)]
pub struct TimedPass {
    /// The GPU's UUID.
    pub uuid: String,
    /// The board's name.
    pub name: String,
    /// Its place on the bus.
    pub pci: String,
    /// The driver's version.
    pub driver: String,
    /// When it began, since the first pass of all.
    pub at: Duration,
    /// Values by columns of the table `gpu`.
    pub cells: Vec<(&'static str, Cell)>,
    /// What the driver has of its processes: numbers and bytes of memory.
    pub processes: Vec<(u32, Option<u64>)>,
    /// Columns that this board, driver or user will not get, and why, at the pass that found out.
    pub refused: Vec<(&'static str, String)>,
    /// Each call with its time. The first two of the first pass are opening the library and asking the GPU who it is.
    pub calls: Vec<GpuCall>,
}

/// Reads every GPU so many times, an interval apart, and hands over each pass. Everything happens on this thread, which a sick
/// driver can hold for ever: this is for a person who looks, not for an agent that watches.
///
/// # Errors
/// The library can't be opened, or a GPU does not answer.
pub fn time_gpus(
    library: Option<PathBuf>,
    passes: u32,
    interval: Duration,
    mut each: impl FnMut(TimedPass),
) -> Result<(), String> {
    let path = library.map_or_else(|| OsString::from("libnvidia-ml.so.1"), PathBuf::into_os_string);
    let begun = Instant::now();
    let opened = open(&path).map_err(|refusal| refusal.why)?;
    let mut first = vec![GpuCall { column: "open the library", took: begun.elapsed(), error: None }];
    let mut readers = vec![];
    for index in 0..opened.count {
        let begun = Instant::now();
        let who = identity(&opened.nvml, index).map_err(|error| format!("GPU {index}: {error}"))?;
        first.push(GpuCall { column: "who it is", took: begun.elapsed(), error: None });
        let device = opened.nvml.device_by_index(index).map_err(|error| format!("GPU {index}: {error}"))?;
        readers.push((who, Reader::new(&opened.nvml, device), std::mem::take(&mut first)));
    }
    let start = Instant::now();
    for number in 0..passes {
        std::thread::sleep((interval * number).saturating_sub(start.elapsed()));
        for (who, reader, first) in &mut readers {
            let at = start.elapsed();
            let pass = reader.pass(Question { slow: true, processes: true, timed: true });
            if let Some((_, why)) = pass.trouble {
                return Err(format!("{}: {why}", who.uuid));
            }
            let mut calls = std::mem::take(first);
            calls.extend(pass.calls);
            each(TimedPass {
                uuid: who.uuid.clone(),
                name: who.name.clone(),
                pci: who.pci.clone(),
                driver: opened.driver.clone(),
                at,
                refused: pass.faults.into_iter().filter(|fault| fault.2).map(|fault| (fault.0, fault.1)).collect(),
                cells: pass.whole.unwrap_or_default(),
                processes: pass.processes.into_iter().flatten().map(|each| (each.pid, each.memory_bytes)).collect(),
                calls,
            });
        }
    }
    Ok(())
}
