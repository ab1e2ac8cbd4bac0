//! The agent as a process on a machine with eight GPUs of which four fall ill, NVML's place taken by the stub.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use tidewatch_log::{LocalLog, LocalLogOptions};
use tidewatch_model::ports::Log;
use tidewatch_model::wire::decode;
use tidewatch_nvml_stub::{Control, Gpu, SCENARIO_VARIABLE, Scenario, Step};

const GPUS: usize = 8;

struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn gpu(place: usize) -> Gpu {
    Gpu { uuid: format!("GPU-{place}"), pci: format!("0000:{place:02x}:00.0"), ..Gpu::default() }
}

fn plug(folder: &Path, pci: &str) {
    let device = folder.join("sys/bus/pci/devices").join(pci);
    std::fs::create_dir_all(&device).unwrap();
    std::fs::write(device.join("vendor"), "0x10de\n").unwrap();
    std::fs::write(device.join("class"), "0x030200\n").unwrap();
}

/// Rows of a table: for each the GPU, the value of a column as text, and its ts.
fn rows(folder: &Path, table: &str, column: &str) -> Vec<(String, String, i64)> {
    let log = LocalLog::open(&folder.join("data"), LocalLogOptions::default()).unwrap();
    let (mut found, mut from) = (Vec::new(), 0);
    loop {
        let Ok(read) = log.read(&format!("tidewatch.{table}"), 0, from, 1 << 20) else { return found };
        for (_, record) in &read.records {
            let (_, batch) = decode(record).unwrap();
            let text = |name: &str| {
                let column = batch.column_by_name(name).unwrap();
                arrow::util::display::ArrayFormatter::try_new(column, &Default::default()).unwrap()
            };
            let (uuid, value) = (text("gpu_uuid"), text(column));
            let ts = batch.column(0).as_primitive::<TimestampMicrosecondType>();
            assert_eq!(ts.null_count(), 0);
            let lines = (0..batch.num_rows())
                .map(|row| (uuid.value(row).to_string(), value.value(row).to_string(), ts.value(row)));
            found.extend(lines);
        }
        if read.next == from {
            return found;
        }
        from = read.next;
    }
}

#[test]
fn eight_gpus_of_which_four_fall_ill() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let at = |second: u64, gpu: usize| Step { at_ms: second * 1_000, gpu, ..Step::default() };
    let steps = vec![
        Step { set: [("temperature".to_string(), 95.0)].into(), ..at(2, 0) },
        Step { xid: Some(79), ..at(3, 1) },
        Step { fail: [("*".to_string(), "GPU_IS_LOST".to_string())].into(), ..at(3, 1) },
        Step { hang_ms: 60_000, ..at(4, 2) },
        Step { vanish: true, ..at(5, 3) },
    ];
    let scenario = Scenario { driver: "590.48.01".to_string(), init: None, gpus: (0..GPUS).map(gpu).collect(), steps };
    std::fs::write(here.join("scenario.json"), serde_json::to_vec(&scenario).unwrap()).unwrap();
    for place in 0..GPUS {
        plug(here, &gpu(place).pci);
    }
    let child = Command::new(env!("CARGO_BIN_EXE_tidewatch-agent"))
        .args(["--data", "data", "--host", "n1", "--path.sysfs", "sys", "--nvml-library"])
        .arg(Control::built().unwrap())
        .env(SCENARIO_VARIABLE, "scenario.json")
        .current_dir(here)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut agent = Agent(child);
    let begun = Instant::now();
    let kinds = || -> BTreeMap<String, Vec<String>> {
        let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (uuid, kind, _) in rows(here, "gpu_event", "kind") {
            kinds.entry(uuid).or_default().push(kind);
        }
        kinds
    };
    let mut unplugged = false;
    // The hang begins at second 4 and is told five seconds later; it goes on until the end of the test.
    while !kinds().get("GPU-2").is_some_and(|kinds| kinds.contains(&"stuck".to_string())) {
        assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", kinds());
        if !unplugged && rows(here, "gpu", "temperature_celsius").len() >= GPUS {
            // Seen on the bus once; before the driver says that it is gone this says nothing, since one that answers is there.
            std::fs::remove_dir_all(here.join("sys/bus/pci/devices").join(gpu(3).pci)).unwrap();
            unplugged = true;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    // The collector rows, which come every ten seconds, say how long.
    let stuck =
        || stuck_seconds(here).into_iter().filter_map(|text| text.parse::<f64>().ok()).any(|length| length >= 5.0);
    while !stuck() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", stuck_seconds(here));
        std::thread::sleep(Duration::from_millis(200));
    }
    let asked = Instant::now();
    assert!(Command::new("kill").args(["-TERM", &agent.0.id().to_string()]).status().unwrap().success());
    assert!(agent.0.wait().unwrap().success(), "a clean exit while a call hangs");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());

    let told = kinds();
    let mut of_1 = told["GPU-1"].clone();
    of_1.sort();
    assert_eq!(of_1, ["lost", "xid"]);
    assert_eq!(
        (told["GPU-2"].as_slice(), told["GPU-3"].as_slice()),
        (&["stuck".to_string()][..], &["vanished".to_string()][..])
    );
    assert_eq!(told.len(), 3, "the others are well: {told:?}");
    let mut seconds: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut hottest: BTreeMap<String, f64> = BTreeMap::new();
    for (uuid, celsius, ts) in rows(here, "gpu", "temperature_celsius") {
        seconds.entry(uuid.clone()).or_default().push(ts);
        let most = hottest.entry(uuid).or_default();
        *most = most.max(celsius.parse().unwrap());
    }
    assert_eq!((hottest["GPU-0"], hottest["GPU-4"]), (95.0, 54.0));
    // A loaded machine may skip a tick; once all have said who they are, no tick may skip a GPU that is well.
    let well = [0, 4, 5, 6, 7].map(|place| &seconds[&format!("GPU-{place}")]);
    let begin = *well.iter().map(|times| times.iter().min().unwrap()).max().unwrap();
    let later = |times: &Vec<i64>| -> BTreeSet<i64> { times.iter().copied().filter(|ts| *ts >= begin).collect() };
    let ticks: BTreeSet<i64> = well.iter().flat_map(|times| later(times)).collect();
    assert!(ticks.len() >= 8, "{ticks:?}");
    for times in well {
        assert_eq!(later(times), ticks);
    }
}

/// `stuck_seconds` of the rows about the GPU collector.
fn stuck_seconds(folder: &Path) -> Vec<String> {
    let log = LocalLog::open(&folder.join("data"), LocalLogOptions::default()).unwrap();
    let read = log.read("tidewatch.collector", 0, 0, 4 << 20).unwrap();
    let mut found = Vec::new();
    for (_, record) in &read.records {
        let (_, batch) = decode(record).unwrap();
        let names = batch.column_by_name("collector").unwrap().as_string::<i32>().clone();
        let column = batch.column_by_name("stuck_seconds").unwrap();
        let texts = arrow::util::display::ArrayFormatter::try_new(column, &Default::default()).unwrap();
        found.extend(
            (0..batch.num_rows()).filter(|row| names.value(*row) == "gpu").map(|row| texts.value(row).to_string()),
        );
    }
    found
}
