//! Engines of a group, and everybody killed in turn.

use super::*;

/// How much is asked of the test of kills: what fits an ordinary run, or so many seconds of a thousand GPUs with `TIDEWATCH_LONG`.
struct Scale {
    gpus: &'static str,
    interval: &'static str,
    rounds: u64,
    pause: Duration,
}

impl Scale {
    fn asked() -> Scale {
        match std::env::var_os("TIDEWATCH_LONG") {
            None => Scale { gpus: "64", interval: "500ms", rounds: 20, pause: Duration::from_millis(2_500) },
            Some(seconds) => {
                let seconds: u64 = seconds.to_str().and_then(|text| text.parse().ok()).unwrap();
                Scale { gpus: "1000", interval: "1s", rounds: seconds / 11, pause: Duration::from_secs(10) }
            }
        }
    }

    /// Of the simulation: it outlives the last kill.
    fn duration(&self) -> String {
        let round = self.pause + Duration::from_millis(1_000);
        format!("{}s", 15 + (round.as_secs_f64() * self.rounds as f64) as u64)
    }
}

#[test]
fn agents_engines_and_broker_are_killed_in_turn() {
    let Some(mut cluster) = Cluster::start(1, QUICK_GROUPS) else { return };
    let place = Place::new(cluster.brokers());
    place.configure("");
    std::fs::write(place.here().join("hot.sql"), HOT).unwrap();
    let gpus: Vec<String> =
        (0..8).map(|gpu| format!(r#"{{"uuid": "GPU-{gpu}", "pci": "0000:{gpu:02x}:00.0"}}"#)).collect();
    let scenario = format!(r#"{{"gpus": [{}], "steps": [{{"at_ms": 1000, "gpu": 2, "xid": 79}}]}}"#, gpus.join(","));
    std::fs::write(place.here().join("scenario.json"), scenario).unwrap();
    let stub = Path::new(PROGRAM).parent().unwrap().join("deps/libtidewatch_nvml_stub.so").display().to_string();
    let start_agent = |index: usize| match index {
        0 => Agent::start(&place, "a0", &["--nvml-library", &stub]),
        index => Agent::start(&place, &format!("a{index}"), &[]),
    };
    let mut agents: Vec<Agent> = (0..3).map(start_agent).collect();
    let mut engines = vec![place.engine(&GROUP), place.engine(&GROUP)];
    let scale = Scale::asked();
    let begin = (SystemClock.now() + Span::seconds(3)).floor(Span::seconds(1)).to_string();
    let duration = scale.duration();
    let fleet = ["--gpus", scale.gpus, "--interval", scale.interval, "--duration", &duration, "--start", &begin];
    let child = simulator(&place, &fleet);
    for round in 0..scale.rounds {
        std::thread::sleep(scale.pause);
        match round % 3 {
            0 => {
                let which = round as usize / 3 % 3;
                drop(agents.remove(which));
                agents.insert(which, start_agent(which));
            }
            1 => {
                drop(engines.remove(0));
                engines.push(place.engine(&GROUP));
            }
            _ => {
                cluster.kill(0);
                cluster.restart(0);
            }
        }
    }
    let sent = sent_by(child);
    for agent in &mut agents {
        assert!(Command::new("kill").args(["-TERM", &agent.0.id().to_string()]).status().unwrap().success());
        assert!(agent.0.wait().unwrap().success());
    }
    // What is in the log, each frame once, is what must be in the lake.
    let in_log = rows_in(&place.log(), &["gpu", "host", "gpu_event", "collector", "train_step", "job_event"]);
    for (table, rows) in in_log {
        place.wait_for_rows(table, rows);
    }
    for engine in engines {
        engine.stop();
    }
    assert!(count(place.here(), "SELECT count(*) FROM gpu WHERE host = 'a0'") > 8 * 10, "eight GPUs of the stub");
    place.verify();
    // And what the generator makes of the same seed without any Kafka is what an outsider finds there.
    assert_eq!(place.generate(&fleet), sent);
    let mut found = 0;
    // A short time has no events.
    for table in SIMULATED.into_iter().filter(|table| place.here().join(generated_file(table)).exists()) {
        let Some((here, missing, unknown)) = compared_by_duckdb(&place, table) else { return };
        assert_eq!((missing, unknown), (0, 0), "{table}: rows of the generator that are not there, and the other way");
        found += here;
    }
    assert_eq!(found, sent);
    println!("{found} rows over {} kills: nothing lost, nothing twice", scale.rounds);
}

/// Rows of each table that a log holds, each frame counted once.
fn rows_in(log: &KafkaLog, tables: &[&'static str]) -> Vec<(&'static str, i64)> {
    let rows = |table: &str| {
        let (topic, mut rows, mut frames) = (format!("tidewatch.{table}"), 0, std::collections::BTreeSet::new());
        for partition in 0..log.partitions(&topic).unwrap() {
            let begin = log.range(&topic, partition).unwrap().start;
            let mut take = |_, record| {
                let header = tidewatch_model::wire::read_header(&record).unwrap();
                if frames.insert((header.source, header.incarnation, header.seq)) {
                    rows += header.rows as i64;
                }
            };
            read_to_end(log, &topic, partition, begin, &mut take).unwrap();
        }
        rows
    };
    tables.iter().map(|table| (*table, rows(table))).collect()
}

fn generated_file(table: &str) -> String {
    if table == "gpu" { "fleet.parquet".to_string() } else { format!("fleet.{table}.parquet") }
}

/// Multisets of the lake's rows, as `lake ls --fresh` lists its files, and of the generator's: rows in the lake, rows that only
/// the generator has, and rows that only the lake has. The agents' own rows are left out.
pub fn compared_by_duckdb(place: &Place, table: &str) -> Option<(i64, i64, i64)> {
    let listed = good(place.here(), &["lake", "ls", "--fresh", "--data", "data", "--table", table, "--format", "json"]);
    let files: Vec<String> = listed
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["path"].as_str().unwrap().to_string())
        .collect();
    let generator = generated_file(table);
    let columns = format!("SELECT string_agg(column_name, ', ') FROM (DESCRIBE SELECT * FROM '{generator}')");
    let columns = &tidewatch_tests::duckdb(place.here(), &columns)?[0];
    let sql = format!(
        "CREATE TABLE made AS SELECT {columns} FROM '{generator}';
         CREATE TABLE lake AS SELECT {columns} FROM read_parquet({files:?}, union_by_name = true)
         WHERE host IS NULL OR host NOT LIKE 'a_';
         SELECT (SELECT count(*) FROM lake),
                (SELECT count(*) FROM (FROM made EXCEPT ALL FROM lake)),
                (SELECT count(*) FROM (FROM lake EXCEPT ALL FROM made))"
    )
    .replace('"', "'");
    let numbers: Vec<i64> =
        tidewatch_tests::duckdb(place.here(), &sql)?.iter().map(|number| number.parse().unwrap()).collect();
    Some((numbers[0], numbers[1], numbers[2]))
}

pub const GROUP: [&str; 5] = ["--rules", "hot.sql", "--no-bundled-rules", "--group", "engines"];

#[test]
fn fault_membership_changes_every_few_seconds() {
    let Some(brokers) = one_broker() else { return };
    let place = Place::new(brokers);
    place.configure("");
    std::fs::write(place.here().join("hot.sql"), HOT).unwrap();
    let incident = "[{\"kind\": \"overheating\", \"at\": \"2s\", \"duration\": \"200s\", \"gpu\": 3}]";
    std::fs::write(place.here().join("incidents.json"), incident).unwrap();
    // Every ten seconds where there is time.
    let (rounds, pause) = if std::env::var_os("TIDEWATCH_LONG").is_some() { (30, 10) } else { (6, 5) };
    let duration = format!("{}s", 10 + rounds * (pause + 1));
    let child = simulator(
        &place,
        &["--gpus", "32", "--interval", "200ms", "--duration", &duration, "--incidents", "incidents.json"],
    );
    let mut engines = vec![place.engine(&GROUP)];
    for round in 0..rounds {
        std::thread::sleep(Duration::from_secs(pause));
        match round % 3 {
            0 => engines.push(place.engine(&GROUP)),
            // One leaves in good order, one is killed.
            1 => drop(engines.remove(0).stop()),
            _ => {
                engines.push(place.engine(&GROUP));
                drop(engines.remove(0));
            }
        }
    }
    let sent = sent_by(child);
    wait_for("the last row", || place.has_lake() && place.stored(&SIMULATED) == sent);
    let fired = "SELECT count(DISTINCT event_id) FROM alert_event WHERE to_state = 'firing'";
    wait_for("the alert in the lake", || count(place.here(), fired) == 1);
    for engine in engines {
        engine.stop();
    }
    assert_eq!(place.stored(&SIMULATED), sent, "every row once");
    assert_eq!(
        count(place.here(), "SELECT count(*) FROM alert_event WHERE to_state = 'resolved'"),
        0,
        "and never resolved"
    );
    place.verify();
    let (code, said) = bad(place.here(), &["up", "--data", "data", "--no-collect", "--http", "127.0.0.1:0"]);
    assert!(code == 2 && said.contains("start with --group"), "{said}");
}

#[test]
fn a_group_takes_over_what_one_engine_began() {
    let Some(brokers) = one_broker() else { return };
    let place = Place::new(brokers);
    place.configure("");
    std::fs::write(place.here().join("hot.sql"), HOT).unwrap();
    let incident = "[{\"kind\": \"overheating\", \"at\": \"1s\", \"duration\": \"200s\", \"gpu\": 3}]";
    std::fs::write(place.here().join("incidents.json"), incident).unwrap();
    let alone = place.engine(&GROUP[..3]);
    let child = simulator(&place, &["--gpus", "16", "--duration", "25s", "--incidents", "incidents.json"]);
    let fired = "SELECT count(*) FROM alert_event WHERE to_state = 'firing'";
    wait_for("the alert", || place.has_lake() && count(place.here(), fired) == 1);
    alone.stop();
    let (one, two) = (place.engine(&GROUP), place.engine(&GROUP));
    let sent = sent_by(child);
    wait_for("the last row", || place.stored(&SIMULATED) == sent);
    one.stop();
    two.stop();
    assert_eq!(count(place.here(), "SELECT count(*) FROM alert_event"), 1, "it went on firing, and was told once");
    place.verify();
}
