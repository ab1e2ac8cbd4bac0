//! Makes rows of recorded data, for a backtest of the rules over what real machines, jobs and services did.
//!
//! `cargo run --release -p tidewatch-collect --example captures -- RECORDED OUT` reads nvidia-captures/, kmsg/,
//! sys-class-infiniband-h100.tar.gz, azure-llm-inference/ and training-step-times/ below RECORDED and writes OUT/TABLE.csv and
//! OUT/expected.csv. What was recorded once is repeated: an hour of the same GPU, port and machine. Of services only arrivals and
//! tokens are known: a request is taken to need 0.2 ms for each token of its prompt and 20 ms for each that it generates.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tidewatch_collect::rows::{Cell, Rows};
use tidewatch_collect::{Collector, Roots, Sources};
use tidewatch_model::{Span, Timestamp};

/// 2026-11-01T00:00:00Z.
const START: Timestamp = Timestamp::from_seconds(1_793_491_200);
/// For how long what was recorded once is repeated.
const REPEATED: i64 = 3_600;
/// The machines.
const HOSTS: [&str; 4] = ["h100-xid-119", "h100-kmsg", "h100-ib", "nvidia"];

/// The collector of a table.
fn of_table(sources: &Sources, table: &str) -> Box<dyn Collector> {
    sources.collectors().0.into_iter().find(|collector| collector.table() == table).unwrap()
}

type Tables = BTreeMap<&'static str, Rows>;

fn rows<'a>(tables: &'a mut Tables, table: &'static str) -> &'a mut Rows {
    tables.entry(table).or_insert_with(|| Rows::of(table).unwrap())
}

/// Messages of the kernel, through the collector: `microseconds since the start` and text.
fn kernel(tables: &mut Tables, host: &'static str, messages: &[(i64, String)], uuid: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let last = messages.iter().map(|message| message.0).max().unwrap_or(0);
    fs::write(folder.path().join("uptime"), format!("{}.00 1.00\n", last / 1_000_000 + 1)).unwrap();
    let kmsg: String =
        messages.iter().enumerate().map(|(seq, (at, text))| format!("6,{},{at},-;{text}\n", seq + 1)).collect();
    fs::write(folder.path().join("kmsg"), kmsg).unwrap();
    // A state of another boot: every message is new.
    fs::write(folder.path().join("kmsg.state"), "another 1\n").unwrap();
    let roots = Roots { proc: folder.path().to_path_buf(), sys: folder.path().to_path_buf(), ..Roots::default() };
    let sources = Sources {
        roots,
        host: Some(host.to_string()),
        kmsg: Some(folder.path().join("kmsg")),
        state: Some(folder.path().to_path_buf()),
        ..Sources::default()
    };
    let mut collector = of_table(&sources, "kernel_event");
    let now = START + Span::seconds(last / 1_000_000 + 1);
    let Some(batch) = collector.collect(now).batch else {
        println!("{host}: {} messages, none of them means anything", messages.len());
        return;
    };
    println!("{host}: {} messages, {} mean something", messages.len(), batch.num_rows());
    write(&batch, "kernel_event");
    // The GPUs' supervisor would name the GPU; the log does so itself.
    for (at, text) in messages.iter().filter(|(_, text)| text.contains("Xid (PCI:")) {
        let code: i64 = text.split("): ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
        let cells: [(&str, Cell); 6] = [
            ("host", host.into()),
            ("gpu_uuid", uuid.into()),
            ("kind", "xid".into()),
            ("code", code.into()),
            ("source", "kernel".into()),
            ("message", text.as_str().into()),
        ];
        rows(tables, "gpu_event").push(START + Span::micros(*at), cells).unwrap();
    }
}

/// The seconds of a day in `[Sun Feb 23 16:24:18 2025] text`.
fn dated(line: &str) -> Option<(i64, String)> {
    let (date, text) = line.strip_prefix('[')?.split_once("] ")?;
    let parts: Vec<i64> = date.split_whitespace().nth(3)?.split(':').map(|part| part.parse().unwrap_or(0)).collect();
    Some(((parts[0] * 3_600 + parts[1] * 60 + parts[2]) * 1_000_000, text.to_string()))
}

fn kernels(tables: &mut Tables, recorded: &Path) {
    let text = fs::read_to_string(recorded.join("kmsg/dmesg-with-xid-119.log")).unwrap();
    let mut messages: Vec<(i64, String)> = text.lines().filter_map(dated).collect();
    let first = messages[0].0;
    messages.iter_mut().for_each(|message| message.0 -= first - 60_000_000);
    let uuid = text.split("GPU-").nth(1).map(|rest| format!("GPU-{}", rest.split_whitespace().next().unwrap()));
    kernel(tables, HOSTS[0], &messages, uuid.as_deref());
    let text = fs::read_to_string(recorded.join("kmsg/kmsg.1.log")).unwrap();
    let message = |line: &str| {
        let (head, text) = line.split_once(';')?;
        Some((head.split(',').nth(2)?.parse().ok()?, text.to_string()))
    };
    let messages: Vec<(i64, String)> = text.lines().filter_map(message).collect();
    // From a minute after the start on, as the machine's first messages were long before.
    let first = messages[0].0;
    let messages: Vec<_> = messages.into_iter().map(|(at, text)| (at - first + 60_000_000, text)).collect();
    kernel(tables, HOSTS[1], &messages, None);
}

/// Ports of an H100 machine, each ten seconds the same.
fn ports(recorded: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let archive = recorded.join("sys-class-infiniband-h100.tar.gz");
    let unpacked = std::process::Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(folder.path()).status();
    assert!(unpacked.unwrap().success());
    let devices = "components/accelerator/nvidia/infiniband/class/testdata/sys-class-infiniband-h100.0";
    fs::create_dir(folder.path().join("class")).unwrap();
    fs::rename(folder.path().join(devices), folder.path().join("class/infiniband")).unwrap();
    let roots = Roots { proc: folder.path().to_path_buf(), sys: folder.path().to_path_buf(), ..Roots::default() };
    let sources = Sources { roots, host: Some(HOSTS[2].to_string()), ..Sources::default() };
    let mut collector = of_table(&sources, "ib");
    let mut read = 0;
    for second in (0..REPEATED).step_by(10) {
        if let Some(batch) = collector.collect(START + Span::seconds(second)).batch {
            read = batch.num_rows();
            write(&batch, "ib");
        }
    }
    println!("{}: {read} ports", HOSTS[2]);
}

/// A GPU as an exporter told it, once idle and once at work, every ten seconds the same.
fn gpus(tables: &mut Tables, recorded: &Path) {
    for entry in fs::read_dir(recorded.join("nvidia-captures")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "metrics") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let value = |name: &str| -> Option<f64> {
            let line = text.lines().find(|line| line.starts_with(&format!("nvidia_smi_{name}{{")))?;
            line.rsplit(' ').next()?.parse().ok()
        };
        let whole = |name: &str| value(name).map(|value| value as i64);
        let seconds = |name: &str| {
            value(&format!("clocks_event_reasons_counters_{name}_seconds")).map(|value| (value * 1e9) as i64)
        };
        let bits = [("gpu_idle", 1), ("applications_clocks_setting", 2), ("sw_power_cap", 4), ("hw_slowdown", 8)];
        let more = [("sw_thermal_slowdown", 32), ("hw_thermal_slowdown", 64), ("hw_power_brake_slowdown", 128)];
        let reasons: i64 = bits
            .iter()
            .chain(&more)
            .filter(|(name, _)| value(&format!("clocks_event_reasons_{name}")) == Some(1.0))
            .map(|(_, bit)| bit)
            .sum();
        for second in (0..REPEATED).step_by(10) {
            let cells: [(&str, Cell); 28] = [
                ("host", HOSTS[3].into()),
                ("gpu_uuid", name.as_str().into()),
                ("gpu_name", name.split("__").next().into()),
                ("utilization_ratio", value("utilization_gpu_ratio").into()),
                ("memory_used_bytes", whole("memory_used_bytes").into()),
                ("memory_total_bytes", whole("memory_total_bytes").into()),
                ("temperature_celsius", value("temperature_gpu").into()),
                ("memory_temperature_celsius", value("temperature_memory").into()),
                ("power_watts", value("power_draw_watts").into()),
                ("power_limit_watts", value("enforced_power_limit_watts").into()),
                ("sm_clock_mhz", value("clocks_current_sm_clock_hz").map(|hertz| hertz / 1e6).into()),
                ("sm_clock_max_mhz", value("clocks_max_sm_clock_hz").map(|hertz| hertz / 1e6).into()),
                ("performance_state", whole("pstate").into()),
                ("throttle_reasons", reasons.into()),
                ("throttle_power_ns_total", seconds("sw_power_cap").into()),
                ("throttle_thermal_sw_ns_total", seconds("sw_thermal_slowdown").into()),
                ("throttle_thermal_hw_ns_total", seconds("hw_thermal_slowdown").into()),
                ("throttle_brake_ns_total", seconds("hw_power_brake_slowdown").into()),
                ("ecc_uncorrected_volatile_total", whole("ecc_errors_uncorrected_volatile_total").into()),
                ("ecc_corrected_volatile_total", whole("ecc_errors_corrected_volatile_total").into()),
                ("ecc_uncorrected_aggregate_total", whole("ecc_errors_uncorrected_aggregate_total").into()),
                ("ecc_corrected_aggregate_total", whole("ecc_errors_corrected_aggregate_total").into()),
                ("remapped_rows_uncorrected", whole("remapped_rows_uncorrectable").into()),
                ("remap_pending", value("remapped_rows_pending").map(|pending| pending > 0.0).into()),
                ("pcie_generation", whole("pcie_link_gen_current").into()),
                ("pcie_generation_max", whole("pcie_link_gen_max").into()),
                ("pcie_width", whole("pcie_link_width_current").into()),
                ("pcie_width_max", whole("pcie_link_width_max").into()),
            ];
            rows(tables, "gpu").push(START + Span::seconds(second), cells).unwrap();
        }
    }
}

/// Step times of ten ranks each, every tenth step. The unit is not known: the steps are taken to be some seconds long.
fn steps(tables: &mut Tables, recorded: &Path) {
    for job in ["job_1", "job_2"] {
        let text = fs::read_to_string(recorded.join(format!("training-step-times/{job}_norm.csv"))).unwrap();
        let mut samples: Vec<(i64, i64, f64)> = Vec::new();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split(',').collect();
            samples.push((fields[3].parse().unwrap(), fields[1].parse().unwrap(), fields[4].parse().unwrap()));
        }
        samples.sort_by_key(|sample| (sample.0, sample.1));
        println!("{job}: {} steps of ranks", samples.len());
        for (step, rank, time) in samples {
            let seconds = time / 200.0;
            let cells: [(&str, Cell); 5] = [
                ("job", job.into()),
                ("rank", rank.into()),
                ("host", format!("{job}-{}", rank / 8).into()),
                ("step", step.into()),
                ("step_seconds", seconds.into()),
            ];
            rows(tables, "train_step").push(START + Span::seconds(step * 3), cells).unwrap();
        }
    }
}

/// Requests as one replica would count them.
fn service(tables: &mut Tables, recorded: &Path) {
    let text = fs::read_to_string(recorded.join("azure-llm-inference/AzureLLMInferenceTrace_code.csv")).unwrap();
    let mut requests: Vec<(f64, f64, i64, i64)> = Vec::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let clock = fields[0].split(' ').nth(1).unwrap();
        let parts: Vec<f64> = clock.split(':').map(|part| part.parse().unwrap()).collect();
        let (at, prompt, made) =
            (parts[0] * 3_600.0 + parts[1] * 60.0 + parts[2], fields[1].parse().unwrap(), fields[2].parse().unwrap());
        requests.push((at, at + prompt as f64 * 2e-4 + made as f64 * 0.02, prompt, made));
    }
    println!("azure: {} requests", requests.len());
    let first = requests[0].0;
    let bounds = [0.1, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, f64::INFINITY];
    let last = (requests.last().unwrap().1 - first) as i64 + 10;
    for second in (0..last).step_by(10) {
        let now = first + second as f64;
        let done: Vec<_> = requests.iter().filter(|request| request.1 <= now).collect();
        let running = requests.iter().filter(|request| request.0 <= now && request.1 > now).count();
        let at = START + Span::seconds(second);
        let whose = || [("service", Cell::from("azure-code")), ("replica", Cell::from("azure-code-0"))];
        let cells = whose().into_iter().chain([
            ("host", "azure".into()),
            ("requests_running", (running as i64).into()),
            ("requests_waiting", 0.into()),
            ("preemptions_total", 0.into()),
            ("requests_total", (done.len() as i64).into()),
            ("errors_total", 0.into()),
            ("prompt_tokens_total", done.iter().map(|request| request.2).sum::<i64>().into()),
            ("generated_tokens_total", done.iter().map(|request| request.3).sum::<i64>().into()),
        ]);
        rows(tables, "serve").push(at, cells).unwrap();
        for bound in bounds {
            let (took, first): (usize, usize) = done.iter().fold((0, 0), |(took, first), request| {
                let within = |seconds: f64| usize::from(seconds <= bound);
                (took + within(request.1 - request.0), first + within(request.2 as f64 * 2e-4))
            });
            for (metric, count) in
                [("vllm:e2e_request_latency_seconds", took), ("vllm:time_to_first_token_seconds", first)]
            {
                let more = [("metric", metric.into()), ("le", bound.into()), ("count_total", (count as i64).into())];
                rows(tables, "serve_histogram").push(at, whose().into_iter().chain(more)).unwrap();
            }
        }
    }
}

/// Every machine is alive as long as something is told of it.
fn alive(tables: &mut Tables) {
    for second in (0..REPEATED).step_by(10) {
        for host in HOSTS {
            let at = START + Span::seconds(second);
            let cells: [(&str, Cell); 2] =
                [("host", host.into()), ("uptime_seconds", (86_400.0 + second as f64).into())];
            rows(tables, "host").push(at, cells).unwrap();
            let cells: [(&str, Cell); 4] = [
                ("host", host.into()),
                ("collector", "host".into()),
                ("ok", true.into()),
                ("rows_total", second.into()),
            ];
            rows(tables, "collector").push(at, cells).unwrap();
        }
    }
}

/// Into a file of CSV, which knows infinity.
fn write(batch: &arrow::array::RecordBatch, table: &str) {
    let path = Path::new(&std::env::args().nth(2).unwrap()).join(format!("{table}.csv"));
    let file = fs::File::options().append(true).create(true).open(path).unwrap();
    let is_new = file.metadata().unwrap().len() == 0;
    arrow::csv::WriterBuilder::new().with_header(is_new).build(file).write(batch).unwrap();
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [recorded, out] = &arguments[..] else { panic!("expected RECORDED and OUT") };
    fs::create_dir_all(out).unwrap();
    let (recorded, mut tables) = (Path::new(recorded), Tables::new());
    kernels(&mut tables, recorded);
    ports(recorded);
    gpus(&mut tables, recorded);
    steps(&mut tables, recorded);
    service(&mut tables, recorded);
    alive(&mut tables);
    for (table, rows) in tables {
        if let Some(batch) = rows.finish().unwrap() {
            write(&batch, table);
        }
    }
    let expected = format!("host,gpus,ib_ports,ib_rate_gigabits_per_second\n{},,8,400\n", HOSTS[2]);
    fs::write(Path::new(out).join("expected.csv"), expected).unwrap();
}
