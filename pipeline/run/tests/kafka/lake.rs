//! What befalls the lake while rows come from a real Kafka: an engine that sleeps past its session and goes on, a disk that is full, a bit that
//! flips.

use std::fs;
use std::path::PathBuf;

use super::group::{GROUP, compared_by_duckdb};
use super::*;

fn signal(up: &Up, name: &str) {
    assert!(Command::new("kill").args([name, &up.0.id().to_string()]).status().unwrap().success());
}

/// A fleet that starts in a moment: what it sends is what the generator makes of the same words.
fn fleet<'a>(gpus: &'a str, duration: &'a str, begin: &'a str) -> [&'a str; 8] {
    ["--gpus", gpus, "--interval", "200ms", "--duration", duration, "--start", begin]
}

#[test]
fn an_engine_that_is_stopped_past_its_session_and_goes_on_doubles_nothing() {
    // A broker of its own: what other tests leave on theirs is not what this one is about.
    let Some(cluster) = Cluster::start(1, QUICK_GROUPS) else { return };
    let place = Place::new(cluster.brokers());
    place.configure("");
    fs::write(place.here().join("hot.sql"), HOT).unwrap();
    let (one, two) = (place.engine(&GROUP).ready(), place.engine(&GROUP).ready());
    let begin = (SystemClock.now() + Span::seconds(2)).floor(Span::seconds(1)).to_string();
    let made = fleet("16", "60s", &begin);
    let child = simulator(&place, &made);
    wait_for("rows", || place.has_lake() && place.stored(&["gpu"]) > 500);
    // The session is six seconds: the other one takes over, and both hold rows of the same partitions when it goes on.
    signal(&one, "-STOP");
    let before = place.stored(&["gpu"]);
    std::thread::sleep(Duration::from_secs(15));
    let meanwhile = place.stored(&["gpu"]);
    assert!(meanwhile > before, "the other one goes on");
    signal(&one, "-CONT");
    let sent = sent_by(child);
    wait_for("the last row", || place.stored(&SIMULATED) == sent);
    assert!(place.stored(&["gpu"]) > meanwhile);
    one.stop();
    two.stop();
    assert_eq!(place.stored(&SIMULATED), sent, "every row once");
    place.verify();
    place.generate(&made);
    for table in ["gpu", "train_step"] {
        let Some((_, missing, unknown)) = compared_by_duckdb(&place, table) else { return };
        assert_eq!((missing, unknown), (0, 0), "{table}");
    }
}

/// A small disk of its own, taken away when the test ends.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where nobody may mount one.
    fn mount(at: PathBuf, size: &str) -> Option<SmallDisk> {
        fs::create_dir_all(&at).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk(at));
        }
        println!("NOT RUN: this test mounts a tmpfs, which only root may");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[test]
fn a_disk_that_is_full_loses_nothing() {
    let Some(brokers) = one_broker() else { return };
    let place = Place::new(brokers);
    place.configure("");
    let Some(disk) = SmallDisk::mount(place.here().join("data"), "48m") else { return };
    let mut engine = place.engine(&["--no-bundled-rules"]);
    let begun = place.simulate(&["--gpus", "16", "--duration", "1m"]);
    wait_for("the first rows", || place.has_lake() && place.stored(&SIMULATED) == begun);
    // Full to the last byte.
    let filler = disk.0.join("filler");
    let full = Command::new("dd").args(["if=/dev/zero", "bs=64k"]).arg(format!("of={}", filler.display())).output();
    assert!(!full.unwrap().status.success(), "the disk is full");
    let more = place.simulate(&["--gpus", "16", "--duration", "3m", "--seed", "7"]);
    let mut said = String::new();
    wait_for("a word about the disk", || {
        said += &engine.said_so_far();
        said.contains("No space left on device")
    });
    assert_eq!(place.stored(&SIMULATED), begun, "nothing is committed by halves");
    fs::remove_file(filler).unwrap();
    wait_for("all rows", || place.stored(&SIMULATED) == begun + more);
    engine.stop();
    place.verify();
}

#[test]
fn a_bit_that_flips_in_a_hot_file_is_found_and_mended_from_the_log() {
    let Some(brokers) = one_broker() else { return };
    let place = Place::new(brokers);
    place.configure("");
    let engine = place.engine(&["--no-bundled-rules"]);
    // Twelve minutes: two windows that end, and one that goes on. All but the first are whole.
    let sent = place.simulate(&["--gpus", "4", "--duration", "12m"]);
    wait_for("all rows", || place.has_lake() && place.stored(&SIMULATED) == sent);
    drop(engine);
    let of_kind = |kind: &str| -> Vec<PathBuf> {
        let listed =
            good(place.here(), &["lake", "ls", "--fresh", "--data", "data", "--table", "gpu", "--format", "csv"]);
        let lines = listed.lines().filter(|line| line.contains(&format!(",{kind},")));
        lines.map(|line| place.here().join(line.split(',').nth(1).unwrap())).collect()
    };
    let hurt = of_kind("hot").pop().expect("a window that goes on is hot");
    let mut bytes = fs::read(&hurt).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&hurt, bytes).unwrap();
    let (code, said) = bad(place.here(), &["lake", "verify", "--data", "data"]);
    let name = hurt.file_name().unwrap().to_str().unwrap().to_string();
    assert!(code == 1 && said.contains(&name), "{said}");
    // The engine goes on: new rows are committed, and the stop says which file can't be settled.
    let engine = place.engine(&["--no-bundled-rules"]).ready();
    let more = place.simulate(&["--gpus", "4", "--duration", "12m", "--seed", "7"]);
    wait_for("new rows", || place.stored(&SIMULATED) == sent + more);
    signal(&engine, "-TERM");
    let mut engine = engine;
    let status = engine.0.wait().unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(engine.0.stderr.as_mut().unwrap(), &mut said).unwrap();
    assert!(status.success() && said.contains(&name) && said.contains("settle"), "{status} {said}");
    assert!(!of_kind("public").is_empty(), "other windows are settled, and public");
    // The rows are in Kafka, and what a writer makes of them is the same file.
    let mended = good(place.here(), &["lake", "repair", "--data", "data", "--format", "csv"]);
    assert!(mended.lines().nth(1).is_some_and(|line| line.starts_with("1,") && line.ends_with(",0")), "{mended}");
    place.engine(&["--no-bundled-rules"]).ready().stop();
    place.verify();
    assert_eq!((of_kind("hot").len(), place.stored(&SIMULATED)), (0, sent + more));
}
