//! What befalls topics, their records and their clocks while one engine runs.

use super::*;

#[test]
fn other_peoples_topics_are_mapped_and_begin_where_they_are_told() {
    let Some(brokers) = one_broker() else { return };
    let place = Place::new(brokers);
    let (temps, loads) = (format!("{}temps", place.prefix), format!("{}loads", place.prefix));
    let plain = KafkaLog::connect(KafkaOptions { brokers: place.brokers.clone(), ..KafkaOptions::default() }).unwrap();
    plain.create_topic(&temps, &row_topic()).unwrap();
    plain.create_topic(&loads, &row_topic()).unwrap();
    let now = SystemClock.now().0 / 1_000;
    let line = |at: i64, temp: &str| format!("{{\"time\":{at},\"host\":\"n1\",\"gpu\":\"g\",\"temp\":{temp}}}");
    let old = Record { timestamp: SystemClock.now() - Span::hours(2), ..message(&line(now - 7_200_000, "50")) };
    plain
        .append(&temps, 0, &[old, message(&format!("{}\nnonsense\n{}", line(now, "91"), line(now + 1, "92")))])
        .unwrap();
    plain.append(&loads, 0, &[message("{\"host\":\"n1\",\"load1\":1}")]).unwrap();
    let since = (SystemClock.now() - Span::hours(1)).floor(Span::seconds(1));
    place.configure(&format!(
        "topics = [\"{temps} table=gpu ts=ms from={since} map=time:ts map=gpu:gpu_uuid map=temp:temperature_celsius\",\n          \
         \"{loads} table=host ts=record from=latest\"]"
    ));
    let rule =
        "CREATE ALERT warm AS SELECT host, gpu_uuid, temperature_celsius FROM gpu WHERE temperature_celsius > 90;";
    std::fs::write(place.here().join("warm.sql"), rule).unwrap();
    let up = place.engine(&["--rules", "warm.sql", "--no-bundled-rules"]);
    place.wait_for_rows("gpu", 2);
    plain.append(&loads, 0, &[message("{\"host\":\"n1\",\"load1\":2}")]).unwrap();
    place.wait_for_rows("host", 1);
    wait_for("the alert", || count(place.here(), "SELECT count(*) FROM alert_event WHERE rule = 'warm'") == 1);
    up.stop();
    assert_eq!(
        count(place.here(), "SELECT CAST(sum(load1) AS BIGINT) FROM host"),
        2,
        "what came before was not asked for"
    );
    let letters = good(place.here(), &["dlq", "list"]);
    assert!(letters.contains("1 lines are no rows; line 2: not JSON") && letters.lines().count() == 1, "{letters}");
    place.verify();

    place.configure("topics = [\"x table=gpus\", \"y\"]");
    let (code, said) = bad(place.here(), &["config"]);
    assert!(code == 2 && said.contains("kafka.topics: unknown table 'gpus'; did you mean 'gpu'?"), "{said}");
}

#[test]
fn outsiders_read_our_topics() {
    let Some(brokers) = one_broker() else { return };
    if !tidewatch_tests::has_tool("kcat") {
        return;
    }
    let place = Place::new(brokers);
    place.configure("");
    place.simulate(&["--gpus", "16", "--duration", "3s"]);
    let topic = format!("{}tidewatch.gpu", place.prefix);
    let arguments = ["-C", "-e", "-q", "-b", &place.brokers, "-t", &topic, "-f", "%k %h %S\n"];
    let output = Command::new("kcat").args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let frames: Vec<&str> = text.lines().collect();
    assert_eq!(frames.len(), 2 * 3, "two hosts, three ticks: {text}{}", String::from_utf8_lossy(&output.stderr));
    for frame in frames {
        let key = frame.split(' ').next().unwrap();
        assert!(
            frame.contains(&format!("tidewatch-source={key},")) && frame.contains("tidewatch-table=gpu"),
            "{frame}"
        );
    }
}

#[test]
fn fault_duplicate_sends() {
    let Some(brokers) = one_broker() else { return };
    let place = Place::new(brokers);
    place.configure("");
    let sent = place.simulate(&["--gpus", "8", "--duration", "20s"]);
    let log = place.log();
    // An agent that lost the answer sends the same frames again.
    for partition in 0..log.partitions("tidewatch.gpu").unwrap() {
        let read = log.read("tidewatch.gpu", partition, 0, 1 << 22).unwrap();
        let again: Vec<Record> = read.records.into_iter().map(|(_, record)| record).collect();
        if !again.is_empty() {
            log.append("tidewatch.gpu", partition, &again).unwrap();
        }
    }
    let up = place.engine(&[]);
    wait_for("all rows", || place.has_lake() && place.stored(&SIMULATED) >= sent);
    up.stop();
    assert_eq!(place.stored(&SIMULATED), sent, "each row once");
    place.verify();
}

#[test]
fn fault_group_offsets_deleted() {
    let Some(brokers) = one_broker() else { return };
    let place = Place::new(brokers);
    place.configure("");
    let first = place.simulate(&["--gpus", "8", "--duration", "10s"]);
    let up = place.engine(&[]);
    wait_for("the first rows", || place.has_lake() && place.stored(&SIMULATED) == first);
    let log = place.log();
    wait_for("offsets for lag tools", || log.told_progress("tidewatch.gpu").unwrap().iter().any(|next| *next > 0));
    log.forget_progress().unwrap();
    let start = (SystemClock.now() - Span::hours(1)).to_string();
    let second = place.simulate(&["--gpus", "8", "--duration", "10s", "--start", &start, "--seed", "2"]);
    wait_for("the second rows", || place.stored(&SIMULATED) == first + second);
    drop(up);
    log.forget_progress().unwrap();
    // Nothing is asked of the group: the next start goes on where the lake says.
    place.engine(&[]).ready().stop();
    assert_eq!(place.stored(&SIMULATED), first + second);
    place.verify();
}

#[test]
fn fault_retention_ran_past_us() {
    let Some(brokers) = one_broker() else { return };
    let place = Place::new(brokers);
    place.configure("");
    place.simulate(&["--gpus", "8", "--duration", "10s"]);
    let up = place.engine(&[]);
    place.wait_for_rows("gpu", 80);
    up.stop();
    let start = (SystemClock.now() - Span::hours(1)).to_string();
    place.simulate(&["--gpus", "8", "--duration", "10s", "--start", &start, "--seed", "2"]);
    let log = place.log();
    let partition = (0..12).find(|partition| log.range("tidewatch.gpu", *partition).unwrap().end > 0).unwrap();
    // Ten frames were read; the next four are gone.
    log.delete_before("tidewatch.gpu", partition, 14).unwrap();
    let up = place.engine(&[]);
    place.wait_for_rows("gpu", 80 + 48);
    up.stop();
    place.verify();
}

#[test]
fn fault_topic_recreated() {
    let Some(brokers) = one_broker() else { return };
    let place = Place::new(brokers);
    place.configure("");
    place.simulate(&["--gpus", "8", "--duration", "10s"]);
    let up = place.engine(&[]);
    place.wait_for_rows("gpu", 80);
    up.stop();
    let log = place.log();
    log.delete_topic("tidewatch.gpu").unwrap();
    // Made anew, it grows beyond the position that the lake has of the old one.
    let start = (SystemClock.now() - Span::hours(1)).to_string();
    wait_for("the topic", || {
        let again = ["simulate", "--kafka", &place.brokers, "--prefix", &place.prefix];
        let fleet = ["--gpus", "8", "--duration", "20s", "--start", &start, "--seed", "2"];
        process::tidewatch(place.here(), &[&again[..], &fleet].concat()).status.success()
    });
    let mut up = place.engine(&[]);
    let mut said = String::new();
    wait_for("the refusal", || {
        said.push_str(&up.said_so_far());
        said.contains("the topic was made anew")
    });
    drop(up);
    assert_eq!(
        count(place.here(), "SELECT count(*) FROM gpu"),
        80,
        "nothing of the new topic is taken for the old one's"
    );
    place.verify();
}

#[test]
fn fault_poison_messages_by_the_thousand() {
    let Some(brokers) = one_broker() else { return };
    let place = Place::new(brokers);
    place.configure("");
    let sent = place.simulate(&["--gpus", "8", "--duration", "10s"]);
    let log = place.log();
    let partition = (0..12).find(|partition| log.range("tidewatch.gpu", *partition).unwrap().end > 0).unwrap();
    let frame = log.read("tidewatch.gpu", partition, 0, 1).unwrap().records.remove(0).1;
    let poison = |number: usize| {
        let mut bytes = frame.value.clone().unwrap();
        let at = number * 37 % bytes.len();
        bytes[at] ^= 1 << (number % 8);
        match number % 3 {
            0 => Record { value: Some(bytes), ..frame.clone() },
            1 => message(&format!("{{\"poison\":{number}}}")),
            _ => Record { value: None, ..frame.clone() },
        }
    };
    for chunk in (0..3_000).collect::<Vec<usize>>().chunks(500) {
        log.append("tidewatch.gpu", partition, &chunk.iter().map(|number| poison(*number)).collect::<Vec<_>>())
            .unwrap();
    }
    let start = (SystemClock.now() - Span::hours(1)).to_string();
    let behind = place.simulate(&["--gpus", "8", "--duration", "10s", "--start", &start, "--seed", "2"]);
    let up = place.engine(&[]);
    wait_for("the rows behind the poison", || place.has_lake() && place.stored(&SIMULATED) == sent + behind);
    up.stop();
    let letters = log.range("tidewatch.gpu.dlq", 0).unwrap();
    assert_eq!(letters.end - letters.start, 3_000, "every one is kept");
    place.verify();
}

/// What an agent collects in some seconds while its clock is wrong. It writes into a log of its own: a Kafka client can't live
/// under a library that bends time, its waits are bent too.
fn collected_at(place: &Place, host: &str, offset: &str, library: &Path) -> Vec<(String, Vec<Record>)> {
    let mut child = Command::new(Path::new(PROGRAM).with_file_name("tidewatch-agent"))
        .args(["--host", host, "--data", host])
        .env("LD_PRELOAD", library)
        .env("FAKETIME", offset)
        .current_dir(place.here())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(8));
    child.kill().unwrap();
    child.wait().unwrap();
    let log = LocalLog::open(&place.here().join(host), LocalLogOptions::default()).unwrap();
    let records = |topic: &str| log.read(topic, 0, 0, 1 << 22).unwrap().records.into_iter().map(|(_, record)| record);
    ["tidewatch.host", "tidewatch.cpu"].map(|topic| (topic.to_string(), records(topic).collect())).into()
}

#[test]
fn fault_skewed_clock() {
    let Some(brokers) = one_broker() else { return };
    if !tidewatch_tests::has_tool("faketime") {
        return;
    }
    let libraries = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path());
    let library = libraries.map(|folder| folder.join("faketime/libfaketime.so.1")).find(|path| path.exists()).unwrap();
    let place = Place::new(brokers);
    place.configure("");
    let rule =
        "CREATE ALERT up AS SELECT host, count(*) AS n FROM HOP(host, ts, INTERVAL '1 second', INTERVAL '3 seconds')
GROUP BY window_start, window_end, host HAVING count(*) >= 2;";
    std::fs::write(place.here().join("up.sql"), rule).unwrap();
    let up = place.engine(&["--rules", "up.sql", "--no-bundled-rules"]);
    let right = Agent::start(&place, "right", &[]);
    let log = place.log();
    wait_for("topics", || log.partitions("tidewatch.host").is_ok());
    for (host, offset) in [("ahead", "+2h"), ("behind", "-1h")] {
        for (topic, records) in collected_at(&place, host, offset, &library) {
            let partition = partition_of(host.as_bytes(), log.partitions(&topic).unwrap());
            log.append(&topic, partition, &records).unwrap();
        }
    }
    // A clock that is ahead closes nobody's windows: the right one's rule fires, and its rows are there.
    let fired = "SELECT count(*) FROM alert_event WHERE labels['host'] = 'right' AND to_state = 'firing'";
    wait_for("the alert of the host whose clock is right", || place.has_lake() && count(place.here(), fired) == 1);
    wait_for("rows of the host that is behind", || {
        count(place.here(), "SELECT count(*) FROM host WHERE host = 'behind'") > 3
    });
    wait_for("letters of the host that is ahead", || {
        good(place.here(), &["dlq", "list"]).contains("more than 24h behind or 5m ahead of the clock")
    });
    drop(right);
    up.stop();
    assert_eq!(count(place.here(), "SELECT count(*) FROM host WHERE host = 'ahead'"), 0);
    place.verify();
}
