//! What a pass of each collector costs on this machine: CPU of the whole process, whichever thread it is spent on.
//!
//! `cargo run --release -p tidewatch-collect --example collector_cost -- [PASSES [ROOT_OF_SYS]]`

#![allow(clippy::print_stdout, unsafe_code)]

use std::path::PathBuf;

use tidewatch_collect::{Roots, Sources};
use tidewatch_model::Timestamp;

fn cpu_micros() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is the one that the call fills.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let passes: u32 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(100);
    let sys = arguments.next().map_or_else(|| PathBuf::from("/sys"), PathBuf::from);
    let sources = Sources { roots: Roots { sys, ..Roots::default() }, ..Sources::default() };
    let (collectors, _control) = sources.collectors();
    println!("| collector | rows | CPU us a pass | every | CPU us a second |\n|---|---|---|---|---|");
    let mut sum = 0.0;
    for mut collector in collectors {
        let mut now = Timestamp::from_seconds(1_800_000_000);
        let mut rows = 0;
        let mut pass = || {
            now = now + collector.interval();
            rows = collector.collect(now).batch.map_or(0, |batch| batch.num_rows());
        };
        (0..3).for_each(|_| pass());
        let before = cpu_micros();
        (0..passes).for_each(|_| pass());
        let micros = (cpu_micros() - before) / f64::from(passes);
        let every = collector.interval().as_seconds();
        sum += micros / every;
        println!("| {} | {rows} | {micros:.0} | {every} s | {:.0} |", collector.table(), micros / every);
    }
    println!("| all | | | | {sum:.0} |");
}
