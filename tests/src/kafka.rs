//! Real Apache Kafka for tests, in KRaft mode, from its published jars (tests/kafka/pom.xml).
//!
//! A machine without Java or Maven can't run these tests: [`Cluster::start`] says so and gives `None`. Where `CI` is set
//! that is a failure.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const POM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kafka/pom.xml");
/// The folder of the jars within the target folder; part of its name is the version in the pom.
const JARS: &str = "kafka-4.1.1";
/// How long a broker may take to answer.
const READY: Duration = Duration::from_secs(60);

/// A running cluster; it ends with this value, and with this process however that ends.
pub struct Cluster {
    folder: TempDir,
    jars: PathBuf,
    brokers: Vec<Broker>,
    properties: Vec<String>,
}

struct Broker {
    port: u16,
    controller: u16,
    /// For a listener that the properties name.
    extra: u16,
    running: Option<Running>,
}

/// A shell that ends the broker when its own standard input does, and the broker's process id.
struct Running {
    shell: Child,
    pid: u32,
}

impl Cluster {
    /// Starts so many brokers, each a controller too, with further server properties (`name=value`). In them `{port}`,
    /// `{controller}` and `{extra}` stand for the broker's ports; nobody listens on the last unless a property says so.
    ///
    /// # Panics
    /// When a broker does not come up, and when nothing can be started at all where `CI` is set.
    pub fn start(brokers: usize, properties: &[&str]) -> Option<Cluster> {
        let jars = match jars() {
            Ok(jars) => jars,
            Err(reason) if std::env::var_os("CI").is_some() => panic!("tests with Kafka are mandatory here: {reason}"),
            Err(reason) => {
                eprintln!("NOT RUN: this test needs Kafka: {reason}");
                return None;
            }
        };
        let ports = free_ports(3 * brokers);
        let broker = |ports: &[u16]| Broker { port: ports[0], controller: ports[1], extra: ports[2], running: None };
        let brokers = ports.chunks(3).map(broker).collect();
        let folder = tempfile::tempdir().unwrap();
        let properties = properties.iter().map(ToString::to_string).collect();
        let mut cluster = Cluster { folder, jars, brokers, properties };
        for index in 0..cluster.brokers.len() {
            cluster.format(index);
            cluster.spawn(index);
        }
        for index in 0..cluster.brokers.len() {
            cluster.wait_for(index);
        }
        Some(cluster)
    }

    /// `host:port` of every broker, comma separated.
    pub fn brokers(&self) -> String {
        self.brokers.iter().map(|broker| format!("127.0.0.1:{}", broker.port)).collect::<Vec<_>>().join(",")
    }

    /// `host:port` of the listeners that the properties added.
    pub fn extra_listeners(&self) -> String {
        self.brokers.iter().map(|broker| format!("127.0.0.1:{}", broker.extra)).collect::<Vec<_>>().join(",")
    }

    /// Stops a broker where it is: it answers nobody, and nobody knows why.
    pub fn pause(&self, index: usize) {
        self.signal(index, "-STOP");
    }

    /// Lets a broker that was stopped go on.
    pub fn resume(&self, index: usize) {
        self.signal(index, "-CONT");
    }

    fn signal(&self, index: usize, signal: &str) {
        let pid = self.brokers[index].running.as_ref().map(|running| running.pid.to_string());
        let sent = Command::new("kill").args([signal, &pid.expect("the broker runs")]).status();
        assert!(sent.unwrap().success());
    }

    /// Ends a broker as a loss of power would.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut running) = self.brokers[index].running.take() {
            drop(Command::new("kill").args(["-9", &running.pid.to_string()]).status());
            drop(running.shell.stdin.take());
            drop(running.shell.wait());
        }
    }

    /// Starts a broker that was killed, on what it left.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart(&mut self, index: usize) {
        self.spawn(index);
        self.wait_for(index);
    }

    /// Runs one of Kafka's own tools, with its class and arguments; returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn tool(&self, class: &str, arguments: &[&str]) -> String {
        let output = self.java(&["-Xmx128m"]).arg(class).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{class}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    fn java(&self, options: &[&str]) -> Command {
        let mut java = Command::new("java");
        java.args(options).args(["-XX:TieredStopAtLevel=1", "-cp", &format!("{}/*", self.jars.display())]);
        java
    }

    fn config(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("broker-{index}.properties"))
    }

    fn format(&self, index: usize) {
        let voters = self.brokers.iter().enumerate();
        let voters: Vec<String> =
            voters.map(|(other, broker)| format!("{}@127.0.0.1:{}", other + 1, broker.controller)).collect();
        let copies = self.brokers.len().min(3);
        let (broker, data) = (&self.brokers[index], self.folder.path().join(format!("data-{index}")));
        let mut text = format!(
            "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={voters}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
             log.dirs={data}\nlog.index.size.max.bytes=1048576\ndefault.replication.factor={copies}\nmin.insync.replicas={least}\n\
             offsets.topic.replication.factor={copies}\noffsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor={copies}\ntransaction.state.log.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\nauto.create.topics.enable=false\n",
            id = index + 1,
            voters = voters.join(","),
            port = broker.port,
            controller = broker.controller,
            data = data.display(),
            least = copies.div_ceil(2),
        );
        for line in &self.properties {
            let line = line.replace("{port}", &broker.port.to_string());
            let line = line.replace("{controller}", &broker.controller.to_string());
            text.push_str(&line.replace("{extra}", &broker.extra.to_string()));
            text.push('\n');
        }
        std::fs::write(self.config(index), text).unwrap();
        let config = self.config(index).display().to_string();
        // Every broker is formatted with the same name of the cluster: 16 bytes in base64.
        self.tool("kafka.tools.StorageTool", &["format", "-t", "dGlkZXdhdGNoLXRlc3RzMA", "-c", &config]);
    }

    fn spawn(&mut self, index: usize) {
        let log = File::create(self.folder.path().join(format!("broker-{index}.log"))).unwrap();
        let java = self.java(&["-Xmx384m", "-XX:+UseSerialGC"]);
        let mut shell = Command::new("sh");
        // Whatever becomes of this process, its end of the pipe closes, and the broker goes with it.
        shell.args(["-c", "\"$@\" 3>&- >&2 & echo $!; exec 3>&-; cat >/dev/null; kill -9 $!", "sh"]);
        shell.arg(java.get_program()).args(java.get_args());
        shell.arg("kafka.Kafka").arg(self.config(index));
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = line.trim().parse().unwrap();
        self.brokers[index].running = Some(Running { shell, pid });
    }

    fn wait_for(&self, index: usize) {
        let deadline = Instant::now() + READY;
        while TcpStream::connect(("127.0.0.1", self.brokers[index].port)).is_err() {
            let log = self.folder.path().join(format!("broker-{index}.log"));
            let said = std::fs::read_to_string(log).unwrap_or_default();
            assert!(Instant::now() < deadline, "broker {index} did not come up: {said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for index in 0..self.brokers.len() {
            self.kill(index);
        }
    }
}

/// Ports that nobody listens on now.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// The folder of the jars, filled by Maven the first time.
fn jars() -> Result<PathBuf, String> {
    for (program, version) in [("java", "-version"), ("mvn", "--version")] {
        let found = Command::new(program).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            return Err(format!("{program} is not there (Java 17 and Maven are needed)"));
        }
    }
    let target = crate::target_folder();
    let (folder, complete) = (target.join(JARS), target.join(JARS).join("complete"));
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let lock = File::create(folder.join("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    if !complete.exists() {
        fetch(&folder)?;
        let mut marker = File::create(complete).map_err(|error| error.to_string())?;
        marker.write_all(b"ok").map_err(|error| error.to_string())?;
    }
    Ok(folder)
}

fn fetch(folder: &Path) -> Result<(), String> {
    let output = Command::new("mvn")
        .args(["-q", "-B", "-f", POM, "dependency:copy-dependencies"])
        .arg(format!("-DoutputDirectory={}", folder.display()))
        .output()
        .map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("Maven could not fetch Kafka: {}", String::from_utf8_lossy(&output.stdout))),
    }
}
