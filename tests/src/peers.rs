//! Real peers that tests start, on free ports of this machine; each ends with its value.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::{has_tool, must_be_there, target_folder};

/// A Python that has a package; see [`crate::duckdb`].
///
/// # Panics
/// It is not there, and `CI` is set.
pub fn python(package: &str) -> Option<PathBuf> {
    let installed = target_folder().join("python/bin/python");
    let python = if installed.exists() { installed } else { PathBuf::from("python3") };
    let import = format!("import {package}");
    let found = Command::new(&python).args(["-c", &import]).output().is_ok_and(|output| output.status.success());
    must_be_there(&format!("{package} for Python"), found).then_some(python)
}

/// A port that nobody has now.
///
/// # Panics
/// There is none.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A process that ends with this value.
pub struct Peer {
    child: Child,
    lines: Receiver<String>,
}

impl Peer {
    /// Starts it; what it prints to its standard output can be read.
    ///
    /// # Panics
    /// It can't be started.
    pub fn start(command: &mut Command) -> Peer {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Peer { child, lines }
    }

    /// Says a line to its standard input.
    ///
    /// # Panics
    /// It has ended.
    pub fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// The next line that it prints.
    ///
    /// # Panics
    /// It prints none in 20 seconds.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(20)).expect("the peer prints a line")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A request that came: when, to which path, and its body.
pub type Posted = (Instant, String, String);

/// A server that takes what is posted to it and answers 200: its address, and what came. It ends with the process.
///
/// # Panics
/// There is no port.
pub fn webhooks() -> (SocketAddr, Receiver<Posted>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, posted) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            std::thread::spawn(move || take_posts(stream, &sender));
        }
    });
    (address, posted)
}

/// Takes one request after the other from a connection, until it is closed.
fn take_posts(mut stream: TcpStream, posted: &Sender<Posted>) {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let count = stream.read(&mut buffer).unwrap_or(0);
        if count == 0 {
            return;
        }
        bytes.extend_from_slice(&buffer[..count]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length = head.to_lowercase();
        let length = length.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        if bytes.len() < end + 4 + length {
            continue;
        }
        let path = head.split(' ').nth(1).unwrap_or_default().to_string();
        let body = String::from_utf8_lossy(&bytes[end + 4..]).into_owned();
        drop(posted.send((Instant::now(), path, body)));
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
        bytes.clear();
    }
}

/// A real S3 server with a bucket, `tidewatch`, that fails as it is told; see `tests/peers/s3_server.py`.
pub struct S3 {
    port: u16,
    peer: Peer,
}

impl S3 {
    /// Starts it.
    ///
    /// # Panics
    /// It can't be started, or is not there and `CI` is set.
    pub fn start() -> Option<S3> {
        let python = python("moto.server")?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/s3_server.py");
        let peer = Peer::start(Command::new(python).arg(script));
        let port = peer.line().parse().unwrap();
        Some(S3 { port, peer })
    }

    /// What the environment of its clients says.
    pub fn variables(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let variables = [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ];
        variables.map(|(name, value)| (name.to_string(), value.to_string())).to_vec()
    }

    /// So many of the next requests go wrong: `cut`, `503`, `409`, `all503`, `none`.
    ///
    /// # Panics
    /// It has ended.
    pub fn fail(&mut self, kind: &str, count: u32) {
        self.peer.say(&format!("{kind} {count}"));
        self.peer.line();
    }
}

/// A real SMTP server; see `tests/peers/smtp_server.py`.
pub struct Smtp {
    /// Its port.
    pub port: u16,
    peer: Peer,
}

impl Smtp {
    /// Starts it, with a certificate and its key, and with a user.
    ///
    /// # Panics
    /// It can't be started, or is not there and `CI` is set.
    pub fn start(certificate: Option<(&Path, &Path)>, user: &str) -> Option<Smtp> {
        let python = python("aiosmtpd")?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/smtp_server.py");
        let (certificate, key) = certificate.unwrap_or((Path::new(""), Path::new("")));
        let peer = Peer::start(Command::new(python).arg(script).arg(certificate).arg(key).arg(user));
        let port = peer.line().parse().unwrap();
        Some(Smtp { port, peer })
    }

    /// The next mail that it took, as JSON.
    pub fn mail(&self) -> String {
        self.peer.line()
    }
}

/// A real Alertmanager.
pub struct Alertmanager {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    _peer: Peer,
    _folder: tempfile::TempDir,
}

impl Alertmanager {
    /// Starts it with a configuration, and waits until it is ready.
    ///
    /// # Panics
    /// It can't be started, or is not there and `CI` is set.
    pub fn start(configuration: &str) -> Option<Alertmanager> {
        if !has_tool("prometheus-alertmanager") {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("alertmanager.yml");
        std::fs::write(&file, configuration).unwrap();
        let port = free_port();
        let peer = Peer::start(
            Command::new("prometheus-alertmanager")
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.path={}", folder.path().display()))
                .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                // Alone: no cluster, and no waiting for one.
                .arg("--cluster.listen-address=")
                .arg("--log.level=error"),
        );
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "Alertmanager does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(Alertmanager { url: format!("http://127.0.0.1:{port}"), _peer: peer, _folder: folder })
    }
}
