//! Processes of the program, as tests start them.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_tidewatch");

/// Runs a command to its end.
pub fn tidewatch(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).current_dir(folder).output().unwrap()
}

/// Standard output of a command that must succeed.
pub fn good(folder: &Path, arguments: &[&str]) -> String {
    let output = tidewatch(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Exit code and standard error of a command that must fail.
pub fn bad(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output = tidewatch(folder, arguments);
    (output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).unwrap())
}

/// A running `up` that is killed when the test ends, however it ends.
pub struct Up(pub Child);

impl Up {
    /// `up` without collectors, on the folder `data`.
    pub fn start(folder: &Path, more: &[&str]) -> Up {
        Up::start_with(folder, more, &[])
    }

    /// The same, in an environment.
    pub fn start_with(folder: &Path, more: &[&str], environment: &[(String, String)]) -> Up {
        let fixed = ["up", "--data", "data", "--no-collect", "--plain", "--http", "127.0.0.1:0"];
        let mut command = Command::new(PROGRAM);
        command.args(fixed).args(more).current_dir(folder).env("TIDEWATCH_LAKE__FLUSH_INTERVAL", "300ms");
        command.envs(environment.iter().cloned());
        Up(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Waits until it says that it runs.
    pub fn ready(self) -> Up {
        self.ready_at().0
    }

    /// The same, with the URL at which it answers.
    pub fn ready_at(mut self) -> (Up, String) {
        let mut said = String::new();
        while !said.contains("/metrics") {
            let more = self.said_so_far();
            assert!(!more.is_empty(), "it ended: {said}");
            said.push_str(&more);
        }
        let (before, _) = said.split_once("/metrics").unwrap();
        let url = before.rsplit(' ').next().unwrap().to_string();
        (self, url)
    }

    /// What it said since the last call, waiting for a line.
    pub fn said_so_far(&mut self) -> String {
        let mut buffer = [0; 4_096];
        let read = self.0.stderr.as_mut().unwrap().read(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    }

    /// SIGTERM, and then everything that it said.
    pub fn stop(mut self) -> String {
        let status = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap();
        assert!(status.success());
        let mut said = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(self.0.wait().unwrap().success(), "{said}");
        said
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Waits until something holds; processes have no virtual clock.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(120), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The number that a query answers.
pub fn count(folder: &Path, sql: &str) -> i64 {
    let text = good(folder, &["query", "--data", "data", "--format", "csv", sql]);
    text.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("{sql}: {text}"))
}

/// A rule that an overheating GPU trips within seconds.
pub const HOT: &str = "CREATE ALERT hot WITH (severity = 'critical') AS SELECT host, gpu_uuid, avg(temperature_celsius) AS t
FROM HOP(gpu, ts, INTERVAL '1 second', INTERVAL '3 seconds') GROUP BY window_start, window_end, host, gpu_uuid HAVING avg(temperature_celsius) > 71;
";
