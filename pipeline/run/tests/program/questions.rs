//! Questions from outside: over HTTP, over PostgreSQL's protocol, and of other engines about the same files.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::process::{PROGRAM, Up, bad, count, good, wait_for};

/// Statements that take all memory, never end, overflow a stack or do more than read, and the status that each gets.
const ABUSE: [(&str, u16); 23] = [
    ("SELECT repeat('x', 1500000000)", 422),
    ("SELECT length(repeat(repeat(repeat('x', 10000), 10000), 10000))", 500),
    ("SELECT lpad('x', 2147483647, 'y')", 422),
    ("SELECT * FROM generate_series(1, 400000000)", 422),
    ("SELECT * FROM range(1, 400000000)", 422),
    ("SELECT generate_series(1, 400000000)", 422),
    ("SELECT unnest(range(1, 400000000))", 422),
    ("SELECT array_repeat(1, 400000000)", 422),
    ("WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t", 422),
    (
        "SELECT count(*) FROM gpu a, gpu b, gpu c, gpu d WHERE a.power_watts + b.power_watts > c.power_watts + d.power_watts",
        503,
    ),
    ("SELECT array_agg(a.gpu_uuid || b.gpu_uuid || c.gpu_uuid || d.gpu_uuid) FROM gpu a, gpu b, gpu c, gpu d", 500),
    ("SELECT a.ts FROM gpu a, gpu b, gpu c, gpu d ORDER BY a.power_watts * b.power_watts * c.power_watts", 500),
    ("COPY (SELECT 1) TO '/tmp/tidewatch-abuse.csv'", 422),
    ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'", 422),
    ("CREATE TABLE t AS SELECT 1", 422),
    ("INSERT INTO gpu SELECT * FROM gpu", 422),
    ("DELETE FROM gpu", 422),
    ("SET datafusion.execution.batch_size = 1", 422),
    ("EXPLAIN ANALYZE COPY (SELECT 1) TO '/tmp/tidewatch-abuse.csv'", 422),
    ("SELECT * FROM '/etc/passwd'", 422),
    ("SELECT 1; SELECT 2", 422),
    ("DROP TABLE gpu", 422),
    ("SELECT", 422),
];

/// Rows that only wait in memory are seen by whoever asks the process that has them.
#[test]
fn a_question_sees_what_is_not_committed_yet() {
    let folder = tempfile::tempdir().unwrap();
    good(folder.path(), &["simulate", "--gpus", "4", "--duration", "1m", "--data", "data"]);
    let environment = [("TIDEWATCH_LAKE__FLUSH_INTERVAL".to_string(), "10m".to_string())];
    let (_up, url) = Up::start_with(folder.path(), &[], &environment).ready_at();
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let rows = |fresh: &str| {
        let request = agent.get(format!("{url}/api/v1/sql")).query("query", "SELECT count(*) FROM gpu");
        let mut response = request.query("format", "csv").query("fresh", fresh).call().unwrap();
        let answer = response.body_mut().read_to_string().unwrap();
        answer.lines().nth(1).map_or(0, |line| line.parse::<u64>().unwrap())
    };
    assert_eq!(rows("false"), 0);
    wait_for("rows in memory", || rows("true") == 4 * 60);
    assert_eq!(rows("false"), 4 * 60, "they are committed now, for everybody");
    let plan = good(folder.path(), &["query", "EXPLAIN ANALYZE SELECT max(power_watts) FROM gpu", "--data", "data"]);
    assert!(plan.contains("metrics=[") && plan.contains("output_rows=240"), "{plan}");
    assert_eq!(agent.get(format!("{url}/api/v1/sql?query=SELECT+1&fresh=soon")).call().unwrap().status(), 400);
}

#[test]
fn questions_from_outside_hurt_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    good(place, &["simulate", "--gpus", "8", "--duration", "2m", "--data", "data"]);
    std::fs::write(place.join("token"), "secret").unwrap();
    let environment = [("SQL__TIMEOUT", "6s"), ("SQL__MEMORY", "256MiB"), ("HTTP__TOKEN_FILE", "token")];
    let environment = environment.map(|(name, value)| (format!("TIDEWATCH_{name}"), value.to_string()));
    let (mut up, url) = Up::start_with(place, &[], &environment).ready_at();
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let ask = |sql: &str, more: &[(&str, &str)]| {
        let request = agent.get(format!("{url}/api/v1/sql")).header("Authorization", "Bearer secret");
        let request = request.query("query", sql);
        let mut response =
            more.iter().fold(request, |request, (name, value)| request.query(*name, *value)).call().unwrap();
        let status = response.status().as_u16();
        (status, response.body_mut().read_to_vec().unwrap())
    };
    let text = |(status, body): (u16, Vec<u8>)| (status, String::from_utf8(body).unwrap());
    let rows = "SELECT count(DISTINCT gpu_uuid) AS gpus, max(ts) > min(ts) AS many FROM gpu";
    wait_for("rows", || ask(rows, &[]).1.starts_with(b"{\"gpus\":8,"));
    assert_eq!(text(ask(rows, &[])), (200, "{\"gpus\":8,\"many\":true}\n".to_string()));
    assert_eq!(text(ask(rows, &[("format", "csv")])), (200, "gpus,many\n8,true\n".to_string()));
    let (status, arrow) = ask(rows, &[("format", "arrow")]);
    let reader = arrow::ipc::reader::StreamReader::try_new(arrow.as_slice(), None).unwrap();
    assert_eq!((status, reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>()), (200, 1));
    let post = |body: &str| {
        let request = agent.post(format!("{url}/api/v1/sql")).header("Authorization", "Bearer secret");
        let mut response = request.content_type("application/json").send(body).unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    };
    let question = r#"{"query": "SELECT $1 AS a, count(*) > $2 AS b FROM gpu WHERE ts > $3", "parameters": ["x", 3, "2000-01-01T00:00:00Z"]}"#;
    assert_eq!(post(question), (200, "{\"a\":\"x\",\"b\":true}\n".to_string()));
    assert_eq!(post(r#"{"query": "SELECT count(*) FROM gpu WHERE ts > $1", "parameters": ["soon"]}"#).0, 422);
    assert_eq!(post(r#"{"sql": "SELECT 1"}"#).0, 400);
    let deep = [
        format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000)),
        format!("SELECT 1{}", "+1".repeat(10_000)),
        format!("SELECT {} true", "NOT ".repeat(10_000)),
        format!("SELECT count(*) FROM gpu WHERE gpu_index IN ({}0)", "0,".repeat(20_000)),
    ];
    for (sql, expected) in
        ABUSE.iter().map(|(sql, status)| (*sql, *status)).chain(deep.iter().map(|sql| (sql.as_str(), 422)))
    {
        let (status, body) = post(&format!("{{\"query\": {sql:?}}}"));
        let shown: String = sql.chars().take(100).collect();
        // What takes all memory or all time does one or the other, by the machine.
        assert!(status == expected || (status >= 500 && expected >= 500), "{shown}: {status} {body}");
        assert!(body.contains("\"status\":\"error\"") && !body.contains("could be started"), "{shown}: {body}");
    }
    assert!(!Path::new("/tmp/tidewatch-abuse.csv").exists());
    // It still answers, and nothing of it ended.
    assert_eq!(ask(rows, &[]).0, 200);
    assert_eq!(
        agent.get(format!("{url}/healthz")).header("Authorization", "Bearer secret").call().unwrap().status(),
        200
    );
    assert!(up.0.try_wait().unwrap().is_none());
    // A worker has nothing that it could tell: no secret, no configuration.
    let workers = Command::new("pgrep").args(["-P", &up.0.id().to_string()]).output().unwrap();
    let workers = String::from_utf8(workers.stdout).unwrap();
    assert!(!workers.trim().is_empty());
    for worker in workers.split_whitespace() {
        let environment = std::fs::read_to_string(format!("/proc/{worker}/environ")).unwrap();
        assert!(!environment.contains("TIDEWATCH"), "{environment}");
    }
    // Killed workers leave no temporary files.
    let names = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten().map(|entry| entry.file_name());
    let of_ours = format!("tidewatch-sql-{}-", up.0.id());
    assert!(names.filter(|name| name.to_string_lossy().starts_with(&of_ours)).count() <= 2);
    // One that is being answered holds up no stop.
    let (_, slow) = ABUSE.iter().map(|(sql, status)| (status, sql)).find(|(status, _)| **status == 503).unwrap();
    let (url, body) = (format!("{url}/api/v1/sql"), format!("{{\"query\": {slow:?}}}"));
    let asking = agent.clone();
    let asked = std::thread::spawn(move || {
        let request = asking.post(url).header("Authorization", "Bearer secret");
        request.content_type("application/json").send(body).map(|response| response.status().as_u16())
    });
    std::thread::sleep(Duration::from_millis(500));
    let begun = std::time::Instant::now();
    up.stop();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(asked.join().unwrap().unwrap(), 503);
}

/// DuckDB, Polars, pandas and Spark say of the files of `lake ls --fresh` what `tidewatch query` says of the tables, and docs/interchange.md
/// shows the scripts that ask them.
#[test]
fn other_engines_read_the_same_history() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/interchange");
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    good(place, &["simulate", "--gpus", "8", "--duration", "30m", "--noise", "high", "--data", "data"]);
    let files = |kind: &str| {
        let listed = good(place, &["lake", "ls", "--data", "data", "--table", "gpu", "--fresh", "--format", "csv"]);
        listed.lines().filter(|line| line.contains(&format!(",{kind},"))).count()
    };
    let up = Up::start(place, &["--no-bundled-rules"]).ready();
    wait_for("all rows", || count(place, "SELECT count(*) FROM gpu") == 8 * 1_800);
    wait_for("settled files", || files("settled") > 0);
    // Killed: a clean stop would settle the last window too.
    drop(up);
    assert!(files("hot") > 0, "the newest window is hot");
    let nothing = ["lake", "ls", "--data", "data", "--table", "gpu", "--to", "2000-01-01", "--format", "csv"];
    assert_eq!(good(place, &nothing).trim(), tidewatch_lake::LS_COLUMNS.join(","));
    let (code, said) = bad(place, &["lake", "ls", "--data", "data", "--table", "gpus"]);
    assert!(code == 2 && said.contains("unknown table 'gpus'; did you mean 'gpu'"), "{said}");
    let Some(python) = tidewatch_tests::peers::python("duckdb, polars, pandas, pyarrow, pyspark") else { return };
    let script = |name: &str, arguments: &[&str]| {
        let output = Command::new(&python).arg(scripts.join(name)).args(arguments).current_dir(place).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        said
    };
    let compared = script("compare.py", &[PROGRAM, "data"]);
    for engine in ["duckdb", "polars", "pandas", "spark"] {
        assert!(compared.contains(&format!("{engine}: 5 answers agree")), "{compared}");
    }
    script("docs_agree.py", &[]);
}

#[test]
fn postgresql_clients_ask_the_history() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    good(place, &["simulate", "--gpus", "8", "--duration", "2m", "--data", "data"]);
    std::fs::write(place.join("token"), "secret").unwrap();
    let port = tidewatch_tests::peers::free_port().to_string();
    let listen = format!("127.0.0.1:{port}");
    let environment = [("SQL__LISTEN", listen.as_str()), ("SQL__TIMEOUT", "8s"), ("HTTP__TOKEN_FILE", "token")];
    let environment = environment.map(|(name, value)| (format!("TIDEWATCH_{name}"), value.to_string()));
    let (up, _) = Up::start_with(place, &["--no-bundled-rules"], &environment).ready_at();
    wait_for("all rows", || count(place, "SELECT count(*) FROM gpu") == 8 * 120);
    if tidewatch_tests::has_tool("psql") {
        let psql = |sql: &str| {
            let mut command = Command::new("psql");
            command.args([
                "-X",
                "-q",
                "-A",
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-U",
                "anybody",
                "-d",
                "tidewatch",
                "-c",
                sql,
            ]);
            let output = command.env("PGPASSWORD", "secret").env("PGCONNECT_TIMEOUT", "5").output().unwrap();
            (
                output.status.success(),
                String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
            )
        };
        wait_for("the server", || psql("SELECT 1").0);
        assert!(
            psql("SELECT count(*) AS n FROM gpu").1.starts_with("n\n960\n"),
            "{:?}",
            psql("SELECT count(*) AS n FROM gpu")
        );
        assert!(psql("SELECT date_trunc('hour', ts) AS hour FROM public.gpu GROUP BY hour").1.contains(":00:00+00\n"));
        for (asked, answer) in [
            ("\\d", "public|gpu|table|"),
            ("\\dt", "public|alert_event|table|"),
            ("\\d gpu", "temperature_celsius|double precision|"),
            ("\\l", "tidewatch|"),
            ("\\dn", "public|"),
            ("SHOW server_version", "16.6"),
            ("EXPLAIN SELECT host FROM gpu", "logical_plan|"),
            ("BEGIN; SELECT 7 AS n; COMMIT", "n\n7\n"),
        ] {
            let (good, said) = psql(asked);
            assert!(good && said.contains(answer), "{asked}: {said}");
        }
        let (good, said) = psql("DROP TABLE gpu");
        assert!(!good && said.contains("only reading is possible here"), "{said}");
        // It ends, and is there again; nothing else is.
        let killed =
            Command::new("pkill").args(["-KILL", "-P", &up.0.id().to_string(), "-f", "serve-sql"]).status().unwrap();
        assert!(killed.success());
        wait_for("the server again", || psql("SELECT 1").0);
    }
    if let Some(python) = tidewatch_tests::peers::python("psycopg") {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers/postgres_client.py");
        let output = Command::new(python).arg(script).args([&port, "secret"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.trim() == "ok", "{said}");
    }
    let said = up.stop();
    assert!(said.contains("serve-sql ended"), "{said}");
}
